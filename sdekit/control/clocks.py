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

__all__ = ["CLOCKS", "Clock"]


class Clock(ABC):
    """A variable: functions of a process and an array of times, float64."""

    @abstractmethod
    def value(self, process: AffineSDE, t: np.ndarray) -> np.ndarray:
        """s, monotone in t; infinite where the variable is."""

    @abstractmethod
    def time(self, process: AffineSDE, s: np.ndarray) -> np.ndarray:
        """The time at which the variable has this value."""

    @abstractmethod
    def slope(self, process: AffineSDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """scale, and the weights of data and of noise in dy/ds."""


class _Time(Clock):
    def value(self, process: AffineSDE, t: np.ndarray) -> np.ndarray:
        return t

    def time(self, process: AffineSDE, s: np.ndarray) -> np.ndarray:
        return s

    def slope(self, process: AffineSDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.ones_like(t), _of(process.alpha_rate, t), _of(process.sigma_rate, t)


class _Lambda(Clock):
    def value(self, process: AffineSDE, t: np.ndarray) -> np.ndarray:
        return _of(process.half_log_snr, t)

    def time(self, process: AffineSDE, s: np.ndarray) -> np.ndarray:
        return _of(process.time_at, s)

    def slope(self, process: AffineSDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        alpha = _of(process.alpha, t)
        return alpha, np.zeros_like(t), -_of(process.sigma, t) / alpha


class _Rho(Clock):
    def value(self, process: AffineSDE, t: np.ndarray) -> np.ndarray:
        return _of(process.rho, t)

    def time(self, process: AffineSDE, s: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return _of(process.time_at, -np.log(s))

    def slope(self, process: AffineSDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _of(process.alpha, t), np.zeros_like(t), np.ones_like(t)


class _Theta(Clock):
    def value(self, process: AffineSDE, t: np.ndarray) -> np.ndarray:
        return np.arctan2(_of(process.sigma, t), _of(process.alpha, t))

    def time(self, process: AffineSDE, s: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return _of(process.time_at, -np.log(np.tan(s)))

    def slope(self, process: AffineSDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        alpha, sigma = _of(process.alpha, t), _of(process.sigma, t)
        scale = np.hypot(alpha, sigma)
        return scale, -sigma / scale, alpha / scale


def _of(function: Callable[[Tensor], Tensor], t: np.ndarray) -> np.ndarray:
    return function(torch.from_numpy(np.ascontiguousarray(t))).numpy()


CLOCKS: dict[str, Clock] = {"t": _Time(), "rho": _Rho(), "lambda": _Lambda(), "theta": _Theta()}
