"""A schedule derived from f(t) and g(t) alone: dx = f(t) x dt + g(t) dW, with x = data at t_data.

With A(t) = int f and U(t) = int g^2 e^{-2 A}, both from t_data,

    log alpha = A,    rho^2 = (sigma / alpha)^2 = U,    lambda = -1/2 log U.

`sdekit.schedules.panels` integrates both once. On a panel log alpha is a polynomial more than at its left end, and

    lambda(t) = lambda_left - 1/2 log1p(q),    q = (U - U_left) / U_left,

with another polynomial q, which loses nothing near either end of the range. The inverse is a Newton iteration on
log1p(q), which is nearly a line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.elementwise import powers, total
from sdekit.schedules.base import Schedule
from sdekit.schedules.panels import TERMS, Start, Tables, tabulate

__all__ = ["DerivedSchedule"]

Coefficient = Callable[[Tensor], Tensor]

_NEWTON = 60
_LAST_STEP = 1e-9  # of a Newton iteration: its square is what is left
_ENDS_HERE = 1e-12  # how far lambda may overshoot its last value by rounding


@dataclass(frozen=True, repr=False)
class DerivedSchedule(Schedule):
    """log alpha, log sigma and lambda of dx = f(t) x dt + g(t) dW on [t_data, t_end].

    lambda is exact to 1e-12 max(1, |lambda|) and log alpha to 1e-12 where f and g are smooth or have isolated jumps,
    and where they grow no faster than the rounding of t allows: within 1e-4 of the range from a pole at t_end a digit
    is lost with every factor of 10. Two schedules are equal where f and g are the same functions on the same range.

    Args:
        f, g: functions of a float64 tensor of any shape that return one of its shape and dtype, or a number. g > 0
            but for single times; both finite after t_data, where g^2 may be infinite if it is integrable.
        t_data: the time at which sigma = 0.
        t_end: the last time.

    Raises:
        InterfaceError: for f or g that are not functions, or return something other than float64.
        ShapeError: for f or g that return another shape than t's.
        OptionError: for values that are not finite, a negative g, a g that vanishes on an interval, functions that
            cannot be integrated, and, from the methods, times outside the range.
    """

    f: Coefficient
    g: Coefficient
    t_data: float
    t_end: float
    tables: Tables = field(init=False, compare=False)

    def __post_init__(self) -> None:
        for name, function in (("f", self.f), ("g", self.g)):
            _probe(name, function, self.t_end)
        with torch.no_grad():
            f, g = (functools.partial(_values, name, h) for name, h in (("f", self.f), ("g", self.g)))
            object.__setattr__(self, "tables", tabulate(f, g, self.t_data, self.t_end))

    def __repr__(self) -> str:
        names = (getattr(h, "__qualname__", type(h).__name__) for h in (self.f, self.g))
        return f"{', '.join(names)}, t_data={self.t_data!r}"

    def log_alpha(self, t: Tensor) -> Tensor:
        return self._at(t)[0]

    def log_sigma(self, t: Tensor) -> Tensor:
        log_alpha, half_log_snr = self._at(t)
        return log_alpha - half_log_snr

    def half_log_snr(self, t: Tensor) -> Tensor:
        return self._at(t)[1]

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return _call("f", self.f, t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return _call("g", self.g, t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        f = self.drift_coefficient(t)
        limit = torch.full_like(f, self.tables.start.drift)
        f = torch.where((t == self.t_data) & ~torch.isfinite(f), limit, f)
        return f * torch.exp(self.log_alpha(t))

    def sigma_rate(self, t: Tensor) -> Tensor:
        # (sigma^2)' = 2 f sigma^2 + g^2.
        sigma = torch.exp(self.log_sigma(t))
        rate = self.drift_coefficient(t) * sigma + 0.5 * self.diffusion_coefficient(t) ** 2 / sigma
        return torch.where(t == self.t_data, torch.full_like(rate, self.tables.start.sigma_rate), rate)

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log alpha and lambda; reads the device twice where t is a device tensor."""
        x = t - self.t_data
        if not bool(((x >= 0) & (t <= self.t_end)).all()):
            raise _outside("t", t, f"times in [{self.t_data:g}, {self.t_end:g}]")
        start, inner, ends, series = self._tables_on(t)
        i = torch.bucketize(t.detach(), inner)
        left, right, log_alpha, half_log_snr = ends[i].unbind(-1)
        z = ((t - left) - (right - t)) / (right - left)
        drift, noise = total(series[i, :2] * powers(z.clamp(min=-1), TERMS).unsqueeze(-2)).unbind(-1)
        log_alpha, half_log_snr = log_alpha + drift, half_log_snr - 0.5 * torch.log1p(noise)
        near = x < start.width
        if bool(near.any()):
            x = torch.where(near, x / start.width, 1.0)
            log_alpha = torch.where(near, start.log_alpha * x, log_alpha)
            half_log_snr = torch.where(near, start.half_log_snr - 0.5 * start.power * torch.log(x), half_log_snr)
        return log_alpha, half_log_snr

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        start, last = self.tables.start, self.tables.last
        if not bool((half_log_snr >= last - _ENDS_HERE * max(1.0, abs(last))).all()):
            raise _outside("half_log_snr", half_log_snr, f"at least {last:.6g}, its value at t = {self.t_end:g}")
        _, _, ends, series = self._tables_on(half_log_snr)
        i = torch.bucketize(-half_log_snr, -ends[1:, 3])
        left, right, _, first = ends[i].unbind(-1)
        z = _solve(series[i, 1:], (2 * (first - half_log_snr)).clamp(min=0))
        inside = left + (right - left) * (0.5 * (z + 1))
        early = half_log_snr > start.half_log_snr  # in closed form there
        x = torch.exp(torch.where(early, 2 * (start.half_log_snr - half_log_snr) / start.power, 0.0))
        return torch.where(early, self.t_data + start.width * x, inside)

    def _tables_on(self, t: Tensor) -> tuple[Start, Tensor, Tensor, Tensor]:
        found = self.tables
        return found.start, found.inner.to(t.device), found.ends.to(t.device), found.series.to(t.device)


def _solve(series: Tensor, goal: Tensor) -> Tensor:
    """z in [-1, 1] with log1p(q(z)) = goal, given q and q' (..., 2, 17): Newton, and bisection where it would leave."""
    low, high = -torch.ones_like(goal), torch.ones_like(goal)
    whole = torch.log1p(total(series[..., 0, :]))
    z = (2 * goal / whole - 1).clamp(-1, 1)
    found = torch.zeros_like(goal, dtype=torch.bool)  # and left alone while the others go on
    for _ in range(_NEWTON):
        q, slope = total(series * powers(z, TERMS).unsqueeze(-2)).unbind(-1)
        rest = torch.log1p(q) - goal
        low, high = torch.where(rest <= 0, z, low), torch.where(rest >= 0, z, high)
        step = rest * (1 + q) / slope
        done, new = step.abs() <= _LAST_STEP, z - step
        new = torch.where(done | ((new >= low) & (new <= high)), new, 0.5 * (low + high)).clamp(-1, 1)
        z, found = torch.where(found, z, new), found | done
        if bool(found.all()):  # planning is on the host: nothing waits
            break
    return z


def _call(name: str, function: Callable[[Tensor], Any], t: Tensor) -> Tensor:
    """f or g at float64 times, of their shape; a number stands for a constant."""
    value: Any = function(t)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.full_like(t, value)
    expected = f"a float64 tensor of the shape of t, {tuple(t.shape)}, or a number"
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        got = f"dtype {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        fix = f"Compute {name}(t) with torch, without leaving float64."
        raise InterfaceError(f"{name}(t)", got=got, expected=expected, fix=fix)
    if value.shape != t.shape:
        fix = "Use elementwise operations; torch.full_like(t, c) is a constant."
        raise ShapeError(f"{name}(t)", got=f"shape {tuple(value.shape)}", expected=expected, fix=fix)
    return value


def _probe(name: str, function: Any, t_end: float) -> None:
    """A function of times of any shape, finite at the end, that carries no gradient of its own."""
    if not callable(function):
        fix = f"Pass a function, for example {name}=lambda t: torch.full_like(t, 0.5)."
        raise InterfaceError(name, got=repr(function), expected="a function of t", fix=fix)
    for shape in ((), (1,), (2, 3)):
        value = _call(name, function, torch.full(shape, t_end, dtype=torch.float64))
        if value.requires_grad:
            expected, fix = "values without gradients: schedules are tabulated once", "Detach its parameters."
            raise InterfaceError(f"{name}(t)", got="a tensor that requires grad", expected=expected, fix=fix)
        if not bool(torch.isfinite(value).all()):
            got = f"{float(value.flatten()[0])} at t = {t_end:g}"
            fix = "End before a singularity: choose a smaller t_max."
            raise OptionError(f"{name}(t)", got=got, expected="finite values", fix=fix)


def _values(name: str, function: Coefficient, times: np.ndarray) -> np.ndarray:
    """f or g at an array of times, checked."""
    values = _call(name, function, torch.from_numpy(times.reshape(-1))).detach().cpu().numpy()
    bad = ~np.isfinite(values) | ((values < 0) & (name == "g"))
    if bad.any():
        i = int(np.argmax(bad))
        expected = "finite values" if name == "f" else "finite values >= 0"
        got = f"{values[i]} at t = {times.reshape(-1)[i]:.8g}"
        fix = "Correct the formula, or choose t_data and t_max so that this time lies outside."
        raise OptionError(f"{name}(t)", got=got, expected=expected, fix=fix)
    return values.reshape(times.shape)


def _outside(argument: str, values: Tensor, expected: str) -> OptionError:
    flat = values.detach().flatten().tolist()
    shown = ", ".join(f"{v:.6g}" for v in flat[:4]) + (", ..." if len(flat) > 4 else "")
    return OptionError(argument, got=shown, expected=expected, fix="Choose values inside, or give a larger t_max.")
