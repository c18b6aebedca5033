"""What a network predicts, and every conversion between predictions.

For x = alpha x_0 + sigma eps the predictions are all of the form p x_0 + q eps given x, so each is named by its weights
(p, q) on data and noise, with ' = d/dt:

    data (1, 0)    noise (0, 1)    score (0, -1/sigma)    velocity (alpha', sigma')    v (-sigma, alpha)

A native prediction M then gives any other as y x + m M. The pairs (y, m) below come from solving the two equations
x = alpha x_0 + sigma eps and M = p_M x_0 + q_M eps by hand, so that no conversion divides by alpha near alpha = 0 or by
sigma near sigma = 0 unless the wanted quantity itself cannot be known there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sdekit.shapes import finite_number

__all__ = ["PREDICTIONS", "EDMPreconditioning", "Schedules", "convert", "weights"]

Array = np.ndarray


@dataclass(frozen=True)
class Schedules:
    """alpha, sigma and their rates at some times: float64 arrays of one shape."""

    alpha: Array
    sigma: Array
    alpha_rate: Array
    sigma_rate: Array

    @property
    def delta(self) -> Array:
        """alpha sigma' - alpha' sigma > 0."""
        return self.alpha * self.sigma_rate - self.alpha_rate * self.sigma


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where a = 0: a quantity that is not asked for costs nothing even where it is infinite."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if b.all():
        return a / b
    a, b = np.broadcast_arrays(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a == 0, 0.0, a / np.where(a == 0, 1.0, b))


def weights(prediction: str, s: Schedules) -> tuple[Array, Array]:
    """The weights (p, q) on data and noise that define a prediction."""
    zero, one = np.zeros_like(s.alpha), np.ones_like(s.alpha)
    if prediction == "data":
        return one, zero
    if prediction == "noise":
        return zero, one
    if prediction == "score":
        return zero, -_ratio(one, s.sigma)
    if prediction == "velocity":
        return s.alpha_rate, s.sigma_rate
    return -s.sigma, s.alpha


Conversion = Callable[[Array, Array, Schedules], tuple[Array, Array]]


def _from_data(p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    y = _ratio(q, s.sigma)
    return y, p - y * s.alpha


def _from_noise(p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    y = _ratio(p, s.alpha)
    return y, q - y * s.sigma


def _from_score(p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    y = _ratio(p, s.alpha)
    return y, -s.sigma * (q - y * s.sigma)


def _from_velocity(p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    return (p * s.sigma_rate - q * s.alpha_rate) / s.delta, (q * s.alpha - p * s.sigma) / s.delta


def _from_v(p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    n = s.alpha**2 + s.sigma**2
    return (p * s.alpha + q * s.sigma) / n, (q * s.alpha - p * s.sigma) / n


@dataclass(frozen=True)
class EDMPreconditioning:
    """The wrapper of Karras et al. (NeurIPS 2022, eq. 7, Table 1).

    With y = x / alpha it is data = c_skip y + c_out F(c_in y; ln(rho) / 4), where

    c_skip = sd^2 / (rho^2 + sd^2), c_out = rho sd / sqrt(rho^2 + sd^2), c_in = 1 / sqrt(rho^2 + sd^2).

    Args:
        sigma_data: sd, the standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        finite_number("sigma_data", self.sigma_data, positive=True)

    def input_scale(self, s: Schedules) -> Array:
        """c_in / alpha, the factor of x at the network's input; written to stay finite at alpha = 0."""
        return 1 / np.hypot(s.sigma, s.alpha * self.sigma_data)

    def network_time(self, s: Schedules) -> Array:
        """ln(rho) / 4."""
        with np.errstate(divide="ignore"):
            return 0.25 * (np.log(s.sigma) - np.log(s.alpha))

    def convert(self, p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
        """(y, m) with p x_0 + q eps = y x + m F. noise = (y - data) / rho without the subtraction."""
        # With u = hypot(sigma, alpha sd): c_skip / alpha = alpha sd^2 / u^2, c_out = sigma sd / u.
        u, sd = np.hypot(s.sigma, s.alpha * self.sigma_data), self.sigma_data
        y = (p * s.alpha * sd**2 + q * s.sigma) / u**2
        m = sd * (p * s.sigma - q * s.alpha) / u
        return y, m


PREDICTIONS: dict[str, Conversion] = {
    "data": _from_data,
    "noise": _from_noise,
    "score": _from_score,
    "velocity": _from_velocity,
    "v": _from_v,
}


def convert(native: str | EDMPreconditioning, p: Array, q: Array, s: Schedules) -> tuple[Array, Array]:
    """(y, m) such that p x_0 + q eps = y x + m M for the native prediction M; infinite where that cannot be known."""
    rule = native.convert if isinstance(native, EDMPreconditioning) else PREDICTIONS[native]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y, m = rule(np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64), s)
    return y, m
