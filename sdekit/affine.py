"""Affine processes: dx = f(t) x dt + g(t) dW, whose marginals are x_t = alpha x_0 + sigma eps."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.philox import PRIOR_STREAM, SIMULATE_STREAM, normals
from sdekit.schedules import DerivedSchedule, Schedule
from sdekit.schedules.derived import Coefficient
from sdekit.sde import SDE
from sdekit.seeds import resolve_seed
from sdekit.shapes import as_float64, check_dtype, check_state, compute_dtype, expand_time, finite_number
from sdekit.times import check_times

__all__ = ["AffineSDE", "Level"]

_LARGEST = math.log(sys.float_info.max)


class Level(NamedTuple):
    """A process at one time, as host floats. Ends are exact: sigma = 0 has half_log_snr = inf, alpha = 0 has -inf."""

    t: float
    alpha: float
    sigma: float
    half_log_snr: float
    alpha_rate: float
    sigma_rate: float

    @property
    def rho(self) -> float:
        """sigma / alpha; inf beyond the range of floats."""
        return math.exp(-self.half_log_snr) if self.half_log_snr > -_LARGEST else math.inf

    @property
    def half_variance_rate(self) -> float:
        """g^2 / (2 sigma) = sigma' - sigma alpha' / alpha: the weight of epsilon in -g^2/2 score; inf at alpha = 0."""
        if self.alpha == 0:
            return math.inf
        return self.sigma_rate - self.sigma * (self.alpha_rate / self.alpha)


@dataclass(frozen=True, eq=False, init=False)
class AffineSDE(SDE):
    """dx = f(t) x dt + g(t) dW with independent noise in every coordinate; data at small t, noise at large t.

    Either from f and g, from which everything else is derived by integrating from t_data on, or from a schedule that
    knows its marginals in closed form. Drift and diffusion follow from them and are final: other dynamics derive from
    `SDE`.

    Its functions of time (alpha, sigma, half_log_snr and so on) take a number inside the domain, or a tensor of any
    shape. Numbers outside are refused; tensors are not looked at, since that would wait for their device: outside the
    domain the answers mean nothing and may be NaN.

    Args:
        f, g: functions of a float64 tensor of any shape that return a float64 tensor of its shape, or a number.
        schedule: log alpha, log sigma and their relatives instead; see `sdekit.schedules.Schedule`.
        t_min, t_max: the default ends of sampling.
        t_data: the time at which x is data, for f and g; 0 unless given.
        domain: the closed interval in which times are accepted, by default from t_data (with a schedule: t_min) to
            t_max; may reach the singular ends sigma = 0 and, with a schedule, alpha = 0.
        default_grid: the name of a grid that is finite between t_max and t_min; for f and g "half_log_snr" unless
            given, or "uniform" where t_min = t_data.

    Raises:
        InterfaceError: for f or g that are not functions of a tensor, or a schedule that is none.
        ShapeError: for f or g that return another shape than that of t.
        OptionError: for ends out of order, or f and g that cannot be integrated; see
            `sdekit.schedules.DerivedSchedule`.
    """

    schedule: Schedule
    t_min: float
    t_max: float
    domain: tuple[float, float]
    default_grid: str

    noise_type: ClassVar = "scalar"
    additive: ClassVar = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("drift", "diffusion"):
            if getattr(cls, name) is not getattr(AffineSDE, name):
                raise InterfaceError(
                    f"{cls.__name__}.{name}",
                    got="an override",
                    expected="the drift and diffusion of an affine process, which follow from its schedule",
                    fix="Derive from sdekit.SDE instead.",
                )

    def __init__(
        self,
        f: Coefficient | None = None,
        g: Coefficient | None = None,
        *,
        schedule: Schedule | None = None,
        t_min: float,
        t_max: float,
        t_data: float | None = None,
        domain: tuple[float, float] | None = None,
        default_grid: str | None = None,
    ) -> None:
        low, high = finite_number("t_min", t_min), finite_number("t_max", t_max)
        if schedule is None:
            data = 0.0 if t_data is None else finite_number("t_data", t_data)
            domain = (data, high) if domain is None else domain
            _check_ends(low, high, domain, data)
            schedule = DerivedSchedule(*_both(f, g), data, finite_number("domain", domain[1]))
            default_grid = default_grid or ("half_log_snr" if low > data else "uniform")
        else:
            _require_schedule(schedule, f, g, t_data)
            domain = (low, high) if domain is None else domain
            _check_ends(low, high, domain)
        values = (schedule, low, high, domain, default_grid or "uniform")
        for name, value in zip(("schedule", "t_min", "t_max", "domain", "default_grid"), values, strict=True):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        ends = f"t_min={self.t_min!r}, t_max={self.t_max!r}"
        start = "" if isinstance(self.schedule, DerivedSchedule) else "schedule="
        return f"{type(self).__name__}({start}{self.schedule!r}, {ends})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AffineSDE) and (self.schedule, self.domain) == (other.schedule, other.domain)

    def __hash__(self) -> int:
        return hash((self.schedule, self.domain))

    # The schedule. Each takes a number or a tensor and returns a float64 tensor of its shape.

    def log_alpha(self, t: float | Tensor) -> Tensor:
        """log alpha(t)."""
        return self.schedule.log_alpha(self._time(t))

    def log_sigma(self, t: float | Tensor) -> Tensor:
        """log sigma(t); -inf where sigma = 0."""
        return self.schedule.log_sigma(self._time(t))

    def alpha(self, t: float | Tensor) -> Tensor:
        """alpha(t), the factor of the data."""
        return self.schedule.alpha(self._time(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """sigma(t), the standard deviation of the noise."""
        return self.schedule.sigma(self._time(t))

    def half_log_snr(self, t: float | Tensor) -> Tensor:
        """lambda(t) = log(alpha / sigma), strictly decreasing."""
        return self.schedule.half_log_snr(self._time(t))

    def rho(self, t: float | Tensor) -> Tensor:
        """rho(t) = sigma / alpha, the noise level of x / alpha."""
        return torch.exp(-self.half_log_snr(t))

    def time_at(self, half_log_snr: float | Tensor) -> Tensor:
        """The time at which lambda has this value."""
        return self.schedule.time_at(as_float64(half_log_snr))

    def drift_coefficient(self, t: float | Tensor) -> Tensor:
        """f(t)."""
        return self.schedule.drift_coefficient(self._time(t))

    def diffusion_coefficient(self, t: float | Tensor) -> Tensor:
        """g(t)."""
        return self.schedule.diffusion_coefficient(self._time(t))

    def alpha_rate(self, t: float | Tensor) -> Tensor:
        """d alpha / dt."""
        return self.schedule.alpha_rate(self._time(t))

    def sigma_rate(self, t: float | Tensor) -> Tensor:
        """d sigma / dt."""
        return self.schedule.sigma_rate(self._time(t))

    def levels(self, times: Sequence[float] | Tensor, *, rates: bool = True) -> list[Level]:
        """The process at several times at once, as host floats: what planning reads.

        Args:
            rates: whether the rates are needed; NaN otherwise, for half of the work.
        """
        t = as_float64(times).detach().cpu()
        values = (t, self.alpha(t), self.sigma(t), self.half_log_snr(t))
        changes = (self.alpha_rate(t), self.sigma_rate(t)) if rates else ()
        unknown = (math.nan,) * (2 - len(changes))
        return [Level(*row, *unknown) for row in torch.stack((*values, *changes), -1).tolist()]

    def levels_at(self, half_log_snr: Sequence[float] | Tensor) -> list[Level]:
        """The process at the times where lambda has these values."""
        return self.levels(self.time_at(as_float64(half_log_snr)))

    # Dynamics.

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """f(t) x."""
        dtype = compute_dtype(x.dtype)
        return self.drift_coefficient(expand_time(t, x)).to(dtype) * x.to(dtype)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """g(t), of shape () or (B, 1, ..., 1)."""
        return self.diffusion_coefficient(expand_time(t, x)).to(compute_dtype(x.dtype))

    # Marginals and transitions.

    @property
    def prior(self) -> tuple[float, float]:
        """Mean and standard deviation of the noise that sampling starts from at t_max: (0, sigma(t_max))."""
        return 0.0, float(self.sigma(self.t_max))

    def sample_prior(
        self,
        shape: Sequence[int],
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """A draw of N(0, sigma(t_max)^2), shape (B, *shape).

        Args:
            seed: row i depends on (seed, i) alone; None draws one integer from torch's generator.
        """
        batch, size = _batch_and_size(shape)
        ids = torch.arange(batch, dtype=torch.int64, device=device)
        dtype = torch.get_default_dtype() if dtype is None else check_dtype(dtype)
        z = normals(resolve_seed(seed), ids, 0, size, stream=PRIOR_STREAM, dtype=dtype, device=device)
        return z.reshape(tuple(shape)) * self.prior[1]

    def perturb(self, t: float | Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        """alpha(t) x0 + sigma(t) noise, in x0's dtype. t: (), (B,) or (B, 1, ..., 1); x0, noise: (B, *shape)."""
        check_state(x0, "x0")
        check_state(noise, "noise")
        if noise.shape != x0.shape:
            raise ShapeError(
                "noise", got=f"shape {tuple(noise.shape)}", expected=f"{tuple(x0.shape)} as x0", fix="Match it."
            )
        time = self._inside("t", expand_time(t, x0))
        dtype = compute_dtype(x0.dtype)
        return (self.alpha(time).to(dtype) * x0.to(dtype) + self.sigma(time).to(dtype) * noise.to(dtype)).to(x0.dtype)

    def transition(self, t_from: float | Tensor, t_to: float | Tensor) -> tuple[Tensor, Tensor]:
        """Scale and std of x(t_to) given x(t_from) for t_to >= t_from: N(scale x, std^2), float64.

        std^2 = sigma_to^2 - scale^2 sigma_from^2 = sigma_to^2 (1 - e^{2 (lambda_to - lambda_from)}).
        """
        a, b = self._inside("t_from", as_float64(t_from)), self._inside("t_to", as_float64(t_to))
        if bool((b < a).any()):
            raise OptionError(
                "t_to", got=f"{_brief(b)} before t_from = {_brief(a)}", expected="t_to >= t_from", fix="Swap them."
            )
        # Where both times coincide at sigma = 0 or alpha = 0 a difference is inf - inf: nothing has happened.
        same, zero = a == b, torch.zeros((), dtype=torch.float64, device=(a + b).device)
        scale = torch.exp(torch.where(same, zero, self.log_alpha(b) - self.log_alpha(a)))
        change = torch.where(same, zero, self.half_log_snr(b) - self.half_log_snr(a))
        return scale, self.sigma(b) * torch.sqrt(-torch.expm1(2 * change))

    def simulate(self, x0: Tensor, times: Sequence[float] | Tensor, seed: int | None = None) -> Tensor:
        """A path of the forward SDE from x(times[0]) = x0, exact in law: shape (len(times), B, *shape).

        Args:
            times: increasing, inside the domain.
            seed: the path of row i depends on (seed, i) alone; None draws one integer from torch's generator.
        """
        check_state(x0, "x0")
        grid = as_float64(check_times(times, domain=self.domain, direction="up"))
        key = resolve_seed(seed)
        ids = torch.arange(len(x0), dtype=torch.int64, device=x0.device)
        dtype = compute_dtype(x0.dtype)
        path, x = [x0.clone()], x0.to(dtype)
        for i in range(grid.numel() - 1):
            scale, std = (float(v) for v in self.transition(grid[i], grid[i + 1]))
            z = normals(key, ids, i, math.prod(x.shape[1:]), stream=SIMULATE_STREAM, dtype=dtype, device=x.device)
            x = scale * x + std * z.reshape(x.shape)
            path.append(x.to(x0.dtype))
        return torch.stack(path)

    def _time(self, t: float | Tensor) -> Tensor:
        """A time as a float64 tensor; whatever is no tensor must lie in the domain."""
        if isinstance(t, Tensor):
            return as_float64(t)
        if t.__class__ is float and self.domain[0] <= t <= self.domain[1]:
            return torch.tensor(t, dtype=torch.float64)
        return self._inside("t", as_float64(t))

    def _inside(self, argument: str, t: Tensor) -> Tensor:
        """Times must lie in the domain; reads the device once where t is a device tensor."""
        low, high = self.domain
        if not bool(((t >= low) & (t <= high)).all()):
            raise OptionError(
                argument, got=_brief(t), expected=f"times in [{low}, {high}] for {self!r}", fix="Choose times inside."
            )
        return t


def _check_ends(low: float, high: float, domain: tuple[float, float], data: float = -math.inf) -> None:
    if data > low:
        got = f"{data} with t_min, t_max = {low}, {high}"
        fix = "Time runs from data up to noise: for data at large t, substitute t -> -t in f and g."
        raise OptionError("t_data", got=got, expected="t_data <= t_min", fix=fix)
    if not data <= domain[0] <= low < high <= domain[1]:
        raise OptionError(
            "t_min, t_max",
            got=f"{low}, {high}",
            expected=f"{domain[0]} <= t_min < t_max <= {domain[1]}",
            fix="Swap or correct them.",
        )


def _both(f: Any, g: Any) -> tuple[Coefficient, Coefficient]:
    if f is None or g is None:
        got = "neither" if f is None and g is None else f"{'g' if f is None else 'f'} alone"
        fix = "Pass both, or schedule=, or use a named process such as sdekit.VP()."
        raise InterfaceError("f, g", got=got, expected="two functions of t", fix=fix)
    return f, g


def _require_schedule(schedule: Any, *others: Any) -> None:
    if not isinstance(schedule, Schedule):
        fix = "Use sdekit.VP() or another named process, or derive a schedule."
        raise InterfaceError("schedule", got=type(schedule).__name__, expected="a sdekit.schedules.Schedule", fix=fix)
    if any(other is not None for other in others):
        got = "together with f, g or t_data"
        raise OptionError("schedule", got=got, expected="one or the other", fix="A schedule knows f, g and its data.")


def _brief(t: Tensor) -> str:
    values = t.flatten().tolist()
    return (
        f"{values[0]:.6g}"
        if len(values) == 1
        else "[" + ", ".join(f"{v:.6g}" for v in values[:4]) + (", ...]" if len(values) > 4 else "]")
    )


def _batch_and_size(shape: Sequence[int]) -> tuple[int, int]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in sizes):
        raise ShapeError("shape", got=repr(shape), expected="(B, *shape) of non-negative integers", fix="Pass a tuple.")
    return sizes[0], math.prod(sizes[1:])
