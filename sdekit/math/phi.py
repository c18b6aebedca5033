"""The phi functions of exponential integrators, on the host in float64.

phi_0(z) = e^z and phi_k(z) = int_0^1 e^((1 - u) z) u^(k - 1) / (k - 1)! du for k >= 1. They satisfy phi_k(0) = 1 / k!
and phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z (Hochbruck and Ostermann, "Exponential integrators", Acta Numerica 2010).
"""

from __future__ import annotations

import math
import sys

import numpy as np

from sdekit.errors import OptionError

__all__ = ["MAX_PHI", "phi", "phi_arrays", "phis"]

MAX_PHI = 20
"""The largest k. Every factorial up to here is exact in float64."""

_RECIPROCAL = [1.0 / math.factorial(k) for k in range(MAX_PHI + 1)]

_OVERFLOW = math.log(sys.float_info.max)

# The recurrence upwards loses about 1 / (k! |z| phi_{k+1}) in each step, the series gains rounding with |z|, so each
# k has a |z| from which the recurrence is the better one. These were found by search: with them every k <= 6 is
# within 6e-16 of the exact value at |z| <= 30 of either sign.
_SWITCH = [0.0, 1.0, *(k + 1.0 for k in range(2, MAX_PHI + 1))]


def phi(k: int, z: float) -> float:
    """phi_k(z), to a relative error below 1e-15 for k <= 6. See `phis` for the arguments and errors."""
    return phis(k, z)[k]


def phis(n: int, z: float) -> list[float]:
    """[phi_0(z), ..., phi_n(z)] in float64, each to a relative error below 1e-15 for n <= 6.

    From a |z| of about k + 1 phi_k comes from expm1(z) / z and the recurrence upwards; below it phi_n comes from its
    Taylor series sum_j z^j / (n + j)! and the others from the recurrence downwards, phi_k = z phi_{k+1} + 1 / k!,
    which is stable there.

    Args:
        n: the last index, 0 <= n <= MAX_PHI.
        z: any float; phi_k(-inf) = 0, phi_k(z) = inf where e^z overflows (z > 709.78), and NaN gives NaN.

    Raises:
        OptionError: n is out of range.
    """
    if not 0 <= n <= MAX_PHI:
        raise OptionError("n", got=repr(n), expected=f"0 <= n <= {MAX_PHI}", fix="Use a lower order.")
    if z > _OVERFLOW:
        return [math.inf] * (n + 1)
    values = [math.exp(z)]
    size, k = abs(z), 0
    if n and size >= 1.0:
        value, k = math.expm1(z) / z, 1
        values.append(value)
        while k < n and size >= _SWITCH[k + 1]:
            value = (value - _RECIPROCAL[k]) / z
            values.append(value)
            k += 1
    if k < n:
        value = _series(n, z)
        tail = [value]
        for j in range(n - 1, k, -1):
            value = value * z + _RECIPROCAL[j]
            tail.append(value)
        values += reversed(tail)
    return values


def phi_arrays(n: int, z: np.ndarray) -> np.ndarray:
    """(n + 1, *z.shape): `phis` of each element, to the same accuracy. Raises OptionError: n is out of range."""
    if not 0 <= n <= MAX_PHI:
        raise OptionError("n", got=repr(n), expected=f"0 <= n <= {MAX_PHI}", fix="Use a lower order.")
    size = np.abs(z)
    values = np.zeros((n + 1, *z.shape))
    values[0] = np.exp(z)
    if not n:
        return values
    # Where both ways make sense, phi_k comes from below for |z| < _SWITCH[k], from above elsewhere.
    small = np.where(size < _SWITCH[n], z, 0.0)
    divisors = n + np.arange(1.0, _terms(float(np.abs(small).max(initial=0.0))) + 1)
    terms = np.cumprod(small / divisors.reshape(-1, *(1,) * z.ndim), axis=0)
    values[n] = (1.0 + terms[::-1].sum(0)) * _RECIPROCAL[n]
    for k in range(n - 1, 0, -1):
        values[k] = values[k + 1] * small + _RECIPROCAL[k]
    if not (size >= 1.0).any():
        return values
    large = np.where(size >= 1.0, z, 1.0)
    up = np.expm1(large) / large
    for k in range(1, n + 1):
        values[k] = np.where(size < _SWITCH[k], values[k], up)
        up = (up - _RECIPROCAL[k]) / large
    return values


def _terms(size: float) -> int:
    """How many terms of the series of phi_n are enough for |z| = size < n + 1."""
    return int(min(13.0 + 6.0 * size, 17.0 + 3.5 * size)) if size == size else 1


def _series(n: int, z: float) -> float:
    """sum_j z^j / (n + j)! by Horner's rule."""
    total = 1.0
    for j in range(n + _terms(abs(z)), n, -1):
        total = 1.0 + total * z / j
    return total * _RECIPROCAL[n]
