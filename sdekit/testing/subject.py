"""What conformance checks run solvers on: elementwise models, small grids and states; and how a check fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit import grids
from sdekit.affine import AffineSDE
from sdekit.calculus import LocalNoise
from sdekit.errors import ConformanceError, SolverMismatchError
from sdekit.model import Model
from sdekit.plan import Plan
from sdekit.processes import EDM, VP, RectifiedFlow
from sdekit.sde import ODE, SDE
from sdekit.solvers.base import PlanSolver

__all__ = ["BentODE", "BentSDE", "Case", "Check", "ElementwiseModel", "Field", "Trial", "global_state", "sample_state"]

_GRIDS: tuple[tuple[AffineSDE, str, int], ...] = (
    (VP(), "half_log_snr", 1),
    (EDM(), "karras", 2),
    (RectifiedFlow(), "uniform", 3),
    (VP(), "uniform", 7),
)
_RANGE = (-2.0, 2.5)  # of half-log-SNR


@dataclass(frozen=True)
class Case:
    """A plan, and what it was made from."""

    process: AffineSDE
    times: list[float]
    tau: float
    plan: Plan

    def __str__(self) -> str:
        return f"{self.process!r}, {len(self.times) - 1} steps, stochasticity {self.tau:g}"


@dataclass(frozen=True)
class Trial:
    """A solver during one check."""

    solver: Any
    check: str = ""

    def broken(self, got: Any, expected: str, fix: str) -> ConformanceError:
        """What the failed check raises."""
        return ConformanceError(self.check, self.solver.label, got=got, expected=expected, fix=fix)

    def stochasticities(self) -> list[float]:
        """What to plan with: the solver's own, or 0 and 1 for one that takes any."""
        fixed = self.solver.fixed_stochasticity
        return [0.0, 1.0] if fixed is None else [fixed]

    def cases(self) -> list[Case]:
        """Plans on small grids of several processes, sigma > 0 and alpha > 0 at both ends.

        Combinations that the solver refuses with a SolverMismatchError are left out; refusing all is a failure.
        """
        found, refusals = [], []
        for process, family, steps in _GRIDS:
            start, end = (float(process.time_at(v)) for v in _RANGE)
            times = grids.get(family)(process, steps, t_start=start, t_end=end).tolist()
            for tau in self.stochasticities():
                try:
                    found.append(Case(process, times, tau, self.solver.plan(process, list(times), tau)))
                except SolverMismatchError as error:
                    refusals.append(error)
        if not found:
            raise self.broken(
                f"a refusal of every process and stochasticity: {refusals[0]}",
                "a plan for one of them at least",
                "Set fixed_stochasticity to the one that the solver has.",
            )
        return found

    @property
    def plans(self) -> bool:
        """Whether the solver makes plans."""
        return isinstance(self.solver, PlanSolver)


Check = Callable[[Trial], str]


def sample_state(batch: int = 6) -> Tensor:
    """(batch, 16) float64, the same at each call; rows of whole vector registers, so that no split of a batch changes
    how one is worked on."""
    return torch.randn(batch, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def bent(x: Tensor) -> Tensor:
    """x / (1 + x^2): elementwise, of correctly rounded operations, so that a row's value ignores all other rows."""
    return x / (1 + x * x)


class ElementwiseModel(Model):
    """The data prediction x / (1 + x^2) + t / 8. Keeps the times of its calls."""

    def __init__(self, process: AffineSDE) -> None:
        super().__init__(lambda x, t: self.network(float(t.reshape(-1)[0]), x), process, "data")
        self.times: list[float] = []

    def network(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        self.times.append(float(t))
        return bent(x) + float(t) / 8


class BentODE(ODE):
    """dx/dt = x / (1 + x^2) - t x / 4. Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return bent(x) - x * (t / 4)


class BentSDE(SDE):
    """The drift of `BentODE`, or none, with additive noise of constant size."""

    noise_type = "scalar"
    additive = True

    def __init__(self, size: float, *, moving: bool = True) -> None:
        self.size, self.moving, self.ode = size, moving, BentODE()

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.ode.drift(t, x) if self.moving else torch.zeros_like(x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.as_tensor(self.size, dtype=x.dtype, device=x.device)


class Field:
    """Dynamics as steppers see them, see `sdekit.solvers.Stepper.step`, without checks and counts."""

    def __init__(self, dynamics: SDE | ODE) -> None:
        self.dynamics = dynamics
        self.noise_type = dynamics.noise_type if isinstance(dynamics, SDE) else None

    def drift(self, t: float, x: Tensor) -> Tensor:
        return self.dynamics.drift(torch.as_tensor(t, dtype=x.dtype), x)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        return self.dynamics.diffusion(torch.as_tensor(t, dtype=x.dtype), x)  # type: ignore[union-attr]

    def diffuse(self, t: float, x: Tensor, w: Tensor) -> Tensor:
        return self.product(self.diffusion(t, x), w)

    def product(self, g: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("b...m,bm->b...", g, w) if self.noise_type == "general" else g * w

    def local_noise(self, t: float, x: Tensor) -> LocalNoise:
        return LocalNoise(self.dynamics, torch.as_tensor(t, dtype=x.dtype), x, slopes=True)  # type: ignore[arg-type]

    def diffusion_derivative(self, t: float, x: Tensor) -> Tensor:
        return self.dynamics.diffusion_derivative(torch.as_tensor(t, dtype=x.dtype), x)  # type: ignore[union-attr]


@contextmanager
def global_state(trial: Trial) -> Iterator[None]:
    """Fails the check if what runs inside changes a global random generator or a global setting, and undoes that."""
    before, generators = _settings(), (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    try:
        yield
        after = _settings()
    finally:
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        random.setstate(generators[2])
        torch.set_default_dtype(before["default dtype"])
        torch.set_grad_enabled(before["grad mode"])
    changed = [name for name, value in before.items() if after[name] != value]
    if changed:
        raise trial.broken(
            f"a change of {', '.join(changed)}",
            "global state as it was found",
            "Take random numbers from the noise that the solver is given, and pass dtypes explicitly.",
        )


def _settings() -> dict[str, Any]:
    return {
        "torch's random generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random generator": _numpy_state(),
        "Python's random generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "thread count": torch.get_num_threads(),
    }


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return name, np.asarray(keys).tobytes(), *rest
