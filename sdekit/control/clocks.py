"""The variables in which the probability flow of an affine process can be integrated.

With x = alpha x_0 + sigma eps and rho = sigma / alpha, in a variable s and for y = x / scale,

    clock    s                   scale                    dy/ds
    "t"      t                   1                        alpha' data + sigma' noise
    "rho"    rho                 alpha                    noise
    "lambda" log(alpha / sigma)  alpha                    -rho noise
    "theta"  atan(rho)           sqrt(alpha^2 + sigma^2)  (alpha noise - sigma data) / scale

"theta" is finite at both ends, alpha = 0 and sigma = 0; "rho" at the second only, "lambda" at neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.parameterisation import Schedules

__all__ = ["CLOCKS", "Clock", "of_times"]

Array = np.ndarray


class Clock(ABC):
    """A variable: functions of a process and an array of times, float64."""

    rates: bool = False
    """Whether `slope` reads the rates of alpha and sigma."""

    @abstractmethod
    def value(self, process: AffineSDE, t: Array) -> Array:
        """s, monotone in t; infinite where the variable is."""

    @abstractmethod
    def time(self, process: AffineSDE, s: Array) -> Array:
        """The time at which the variable has this value."""

    @abstractmethod
    def slope(self, at: Schedules) -> tuple[Array, Array, Array]:
        """scale, and the weights of data and of noise in dy/ds."""


class _Time(Clock):
    rates = True

    def value(self, process: AffineSDE, t: Array) -> Array:
        return t

    def time(self, process: AffineSDE, s: Array) -> Array:
        return s

    def slope(self, at: Schedules) -> tuple[Array, Array, Array]:
        return np.ones_like(at.alpha), at.alpha_rate, at.sigma_rate


class _Lambda(Clock):
    def value(self, process: AffineSDE, t: Array) -> Array:
        return of_times(process.half_log_snr, t)

    def time(self, process: AffineSDE, s: Array) -> Array:
        return of_times(process.time_at, s)

    def slope(self, at: Schedules) -> tuple[Array, Array, Array]:
        return at.alpha, np.zeros_like(at.alpha), -at.sigma / at.alpha


class _Rho(Clock):
    def value(self, process: AffineSDE, t: Array) -> Array:
        return of_times(process.rho, t)

    def time(self, process: AffineSDE, s: Array) -> Array:
        with np.errstate(divide="ignore"):
            return of_times(process.time_at, -np.log(s))

    def slope(self, at: Schedules) -> tuple[Array, Array, Array]:
        return at.alpha, np.zeros_like(at.alpha), np.ones_like(at.alpha)


class _Theta(Clock):
    def value(self, process: AffineSDE, t: Array) -> Array:
        return np.arctan2(of_times(process.sigma, t), of_times(process.alpha, t))

    def time(self, process: AffineSDE, s: Array) -> Array:
        with np.errstate(divide="ignore"):
            return of_times(process.time_at, -np.log(np.tan(s)))

    def slope(self, at: Schedules) -> tuple[Array, Array, Array]:
        scale = at.alpha * at.alpha
        scale += at.sigma * at.sigma
        np.sqrt(scale, out=scale)
        if not (scale.min(initial=1.0) > _SQUARED and scale.max(initial=1.0) < 1 / _SQUARED):
            scale = np.hypot(at.alpha, at.sigma)  # three times as slow
        return scale, -at.sigma / scale, at.alpha / scale


_SQUARED = 1e-140  # numbers between this and its inverse have squares that keep their digits


def of_times(function: Callable[[Tensor], Tensor], t: Array) -> Array:
    """A schedule's function at an array of times."""
    return function(torch.from_numpy(np.ascontiguousarray(t))).numpy()


CLOCKS: dict[str, Clock] = {"t": _Time(), "rho": _Rho(), "lambda": _Lambda(), "theta": _Theta()}
