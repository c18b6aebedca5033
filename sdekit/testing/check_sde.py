"""check_sde: whether an SDE is what it declares, by probing its drift and diffusion at a few times and states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.calculus import check_diffusion
from sdekit.errors import ConformanceError, InterfaceError, ModelOutputError, OptionError, SdekitError, ShapeError
from sdekit.model import check_output
from sdekit.noise_class import noise_classes
from sdekit.sde import SDE
from sdekit.shapes import check_state, finite_number, time_like
from sdekit.testing.sde_probes import CHECKS, Probe

__all__ = ["SDEReport", "check_sde"]

_BATCH, _SIZES = 5, (2, 1, 3, 4, 6)
_PARTS = (0.3, 0.7)


@dataclass(frozen=True)
class SDEReport:
    """What was probed and found.

    Attributes:
        sde: its description.
        classes: the noise classes that it declares, the most special first; see `sdekit.noise_class`.
        checks: the name of each check, with what it found.
        notes: what is allowed, and could be declared or done better.
    """

    sde: str
    classes: tuple[str, ...]
    checks: dict[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.sde} passes {len(self.checks)} checks; noise: {', '.join(self.classes)}"]
        lines += [f"  {name}: {detail}" for name, detail in self.checks.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_sde(sde: SDE, x: Tensor | None = None, t: float | Sequence[float] | None = None) -> SDEReport:
    """Verify that an SDE is what it declares, which solvers take on trust: on a false promise they converge too slowly,
    or to something else.

    Drift and diffusion are called at the given states and times: for their shapes, finite values, repeatability, and
    whether they leave their input and earlier outputs alone; with other rows beside a row, which must not matter; and
    with one time for each row. The noise is held against `noise_type`, `additive` and `commutative`, and derivatives,
    `diffusion_derivative` among them, against difference quotients or automatic differentiation.

    Args:
        sde: the SDE.
        x: states (B, *shape) with B >= 2 where it is defined; by default five random ones in the first of 2, 1, 3, 4 or
            6 dimensions that it takes, which must be positive if it is not finite at others. Probed in float64.
        t: times at which it is defined; by default two inside the domain of its process, or 0.3 and 0.7.

    Returns:
        An `SDEReport`, which prints as a list of what was checked.

    Raises:
        ConformanceError: naming the first check that fails, what was found, and what to set instead.
        InterfaceError, ShapeError, OptionError: for what is not an SDE, or not a state, or no times.
    """
    if not isinstance(sde, SDE):
        raise InterfaceError("sde", got=type(sde).__name__, expected="an SDE", fix="Make one with sdekit.make_sde.")
    probe = Probe(sde, *_points(sde, x, t))
    passed = {}
    for name, check in CHECKS.items():
        probe.check = name
        passed[name] = _run(check, probe)
    x64 = probe.x
    columns = probe.g(probe.times[0], x64).shape[-1] if sde.noise_type == "general" else None
    return SDEReport(repr(sde), noise_classes(sde, x64, columns), passed, tuple(probe.notes))


def _run(check: Callable[[Probe], str], probe: Probe) -> str:
    """An SDE may raise anything; whatever it is, the report names the check and keeps the cause."""
    try:
        return check(probe)
    except ConformanceError:
        raise
    except Exception as error:
        raise probe.broken(
            f"{type(error).__name__}: {error}", "no error", "Correct it, or pass x and t where the SDE is defined."
        ) from error


def _points(sde: SDE, x: Tensor | None, t: Any) -> tuple[Tensor, list[float]]:
    times = _times(sde) if t is None else [t] if not isinstance(t, (Sequence, Tensor)) else list(t)
    values = [finite_number("t", float(v) if isinstance(v, Tensor) else v) for v in times]
    if not values:
        raise OptionError("t", got="no times", expected="at least one", fix="Leave t out, or pass t=[0.3, 0.7].")
    if x is not None and not check_state(x).numel():
        expected = "at least one row of at least one number"
        raise ShapeError("x", got=f"shape {tuple(x.shape)}", expected=expected, fix="Leave x out, or pass some states.")
    return (_states(sde, values) if x is None else x.to(torch.float64)), values


def _times(sde: Any) -> list[float]:
    """Inside the domain of the process that the SDE comes from."""
    while sde is not None:
        if hasattr(sde, "t_min"):
            return [sde.t_min + part * (sde.t_max - sde.t_min) for part in _PARTS]
        sde = next((getattr(sde, name) for name in ("process", "forward", "source") if hasattr(sde, name)), None)
    return list(_PARTS)


def _states(sde: SDE, times: list[float]) -> Tensor:
    """Random states in the first number of dimensions that the SDE takes, positive if it is not finite else.

    Where outputs fit in none, the first in which nothing is raised: what is wrong with them is then reported.
    """
    tried, unfitting = [], []
    for size in _SIZES:
        generator = torch.Generator().manual_seed(11)
        x = torch.randn(_BATCH, size, dtype=torch.float64, generator=generator)
        try:
            found = [getattr(sde, name)(time_like(times[0], x), x.clone()) for name in ("drift", "diffusion")]
        except Exception as error:
            if isinstance(error, SdekitError):
                raise
            tried.append(error)
            continue
        finite = all(isinstance(v, Tensor) and bool(torch.isfinite(v).all()) for v in found)
        x = x if finite else x.abs() + 0.1
        try:
            check_output(found[0], x, "drift")
            check_diffusion(found[1], x, sde.noise_type)
        except ModelOutputError:
            unfitting.append(x)
            continue
        return x
    if unfitting:
        return unfitting[0]
    raise ConformanceError(
        "states",
        repr(sde),
        got=f"{type(tried[0]).__name__} at a state of shape ({_BATCH}, {_SIZES[0]}): {tried[0]}",
        expected="a drift and diffusion that can be called",
        fix="Pass states x of the SDE's own shape, or correct what they raise. The order of arguments is (t, x).",
    ) from tried[0]
