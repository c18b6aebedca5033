"""Distances between Gaussian laws in closed form, with their digits also where the laws are nearly equal.

A covariance may be a number, one variance for each direction, or a matrix. Where the two commute,

    W2^2 = |m1 - m2|^2 + sum_i (sqrt(p_i) - sqrt(c_i))^2,    sqrt(p) - sqrt(c) = (p - c) / (sqrt(p) + sqrt(c)).

Two matrices A and B need the optimal map T x with T A T = B. The Bures form tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 has
lost all digits where A and B differ by less than 1e-8 of themselves. With E = T - I and D = B - A, which is formed
without error there,

    E A + A E + E A E = D,    W2^2 = |m1 - m2|^2 + tr(E A E),

a sum of squares. E is found from A^1/2 B A^1/2 and then refined by its residual in this equation, until it has the
digits of D. Where neither A nor B is regular, the least distance of two square roots of them, ||A^1/2 - B^1/2 Q||, is
taken: a sum of squares too, with the rounding of the roots as its floor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError

__all__ = ["gaussian_kl", "gaussian_w2"]

Array = np.ndarray

_REFINEMENTS = 60
_SINGULAR = 1e-13  # of the largest eigenvalue: below it an eigenvalue of a matrix is rounding
_NEAR = 0.4  # |r| up to which r - log(1 + r) is summed as a series


def gaussian_w2(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> float:
    """Wasserstein-2 distance of N(mean1, cov1) and N(mean2, cov2).

    Relative accuracy about 1e-14 for covariances that are numbers or variances, and about 1e-15 times the condition
    number of the better one for matrices, however near the laws are.

    Args:
        mean1, mean2: (*shape), or numbers where the covariances tell the shape.
        cov1, cov2: each a number, (*shape) variances, or a (d, d) matrix, d the number of elements of a sample. May be
            singular.

    Raises:
        ShapeError: for shapes that do not fit.
        OptionError: for a covariance that is not symmetric and positive semi-definite, or what is not finite.
    """
    shift, a, b = _laws(mean1, cov1, mean2, cov2)
    spread = _commuting_spread(*_aligned(a, b)) if _commute(a, b) else _bures(_matrix(a), _matrix(b))
    return math.sqrt(float(shift @ shift) + spread)


def gaussian_kl(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> float:
    """Kullback-Leibler divergence KL(N(mean1, cov1) || N(mean2, cov2)), in nats.

    With mu the eigenvalues of C2^{-1} (C1 - C2) it is half of sum mu - log(1 + mu), plus half of the squared distance
    of the means in C2^{-1}: no large terms cancel. Infinite where one law lives on a smaller space than the other, or
    on another one.

    Arguments and errors as `gaussian_w2`.
    """
    shift, c1, c2 = _laws(mean1, cov1, mean2, cov2)
    if c1.ndim == c2.ndim == 1:
        return _diagonal_kl(shift, c1, c2)
    first, second = _matrix(c1), _matrix(c2)
    values, basis = np.linalg.eigh(second)
    floor = _SINGULAR * values[-1]
    kept = values > floor
    difference, along = basis.T @ (first - second) @ basis, basis.T @ shift
    outside = max(np.abs(difference[~kept]).max(initial=0.0), float((along[~kept] ** 2).sum()))
    if outside > floor:
        return math.inf
    root = np.sqrt(values[kept])
    mu = np.linalg.eigvalsh(difference[np.ix_(kept, kept)] / np.outer(root, root))
    if (mu <= -1 + _SINGULAR).any():
        return math.inf
    return 0.5 * float(excess(mu).sum() + ((along[kept] / root) ** 2).sum())


def excess(r: Any) -> Array:
    """r - log(1 + r) >= 0 for r > -1, without cancellation near 0; inf at -1."""
    r = np.asarray(r, dtype=np.float64)
    near = np.abs(r) < _NEAR
    small = np.where(near, r, 0.0)
    # log(1 + r) = 2 atanh(u) with u = r / (2 + r), and r - 2 u = r u.
    u = small / (2 + small)
    series, power = np.zeros_like(u), u**3
    for k in range(3, 33, 2):
        series += power / k
        power = power * u * u
    with np.errstate(divide="ignore"):
        return np.where(near, small * u - 2 * series, r - np.log1p(np.where(near, 0.0, r)))


def _diagonal_kl(shift: Array, c1: Array, c2: Array) -> float:
    flat = c2 == 0
    if ((c1 == 0) != flat).any() or (shift[flat] != 0).any():
        return math.inf
    c1, c2, shift = c1[~flat], c2[~flat], shift[~flat]
    return 0.5 * float(excess((c1 - c2) / c2).sum() + (shift**2 / c2).sum())


def _commute(a: Array, b: Array) -> bool:
    """Whether both are diagonal in one basis that is known: that of the axes, or any where one is a multiple of I."""
    return a.ndim == b.ndim == 1 or any(v.ndim == 1 and (v == v[0]).all() for v in (a, b))


def _aligned(a: Array, b: Array) -> tuple[Array, Array]:
    """The differences b - a and the sums of the roots, in the basis where both are diagonal."""
    if a.ndim == b.ndim == 1:
        return b - a, np.sqrt(a) + np.sqrt(b)
    full, number = (a, b[0]) if a.ndim == 2 else (b, a[0])
    difference = np.linalg.eigvalsh(full - number * np.eye(len(full)))
    return difference, np.sqrt(np.maximum(number + difference, 0.0)) + math.sqrt(number)


def _commuting_spread(difference: Array, roots: Array) -> float:
    change = np.divide(difference, roots, out=np.zeros_like(difference), where=roots > 0)
    return float(change @ change)


def _bures(a: Array, b: Array) -> float:
    """The square of the Bures distance of two matrices."""
    first, second = np.linalg.eigvalsh(a), np.linalg.eigvalsh(b)
    ratios = [v[0] / v[-1] if v[-1] > 0 else 0.0 for v in (first, second)]
    if max(ratios) <= _SINGULAR:
        return _procrustes(a, b)
    a, b = (a, b) if ratios[0] >= ratios[1] else (b, a)
    found = _map_less_identity(a, b)
    if found is None:
        return _procrustes(a, b)
    moved = found @ _factor(a)
    return float((moved * moved).sum())


def _map_less_identity(a: Array, b: Array) -> Array | None:
    """E = T - I for the optimal map T from N(0, a), a regular, to N(0, b); None where it does not settle."""
    d = b - a
    values, basis = np.linalg.eigh(a)
    root, inverse = (basis * np.sqrt(values)) @ basis.T, (basis / np.sqrt(values)) @ basis.T
    axes, y, _ = np.linalg.svd(root @ _factor(b))  # y: eigenvalues of (A^1/2 B A^1/2)^1/2, without a square
    sums = np.maximum(y[:, None] + y[None], _SINGULAR * y[0])
    into, out = root @ axes, inverse @ axes  # F = (R V)^T E (R V) solves F_ij (y_i + y_j) = residual_ij

    e = np.zeros_like(a)
    last = math.inf
    for _ in range(_REFINEMENTS):
        residual = d - (e @ a + a @ e + e @ a @ e)
        change = out @ ((into.T @ residual @ into) / sums) @ out.T
        change = 0.5 * (change + change.T)
        size = float(np.linalg.norm(change @ root))
        if not size < 0.5 * last:  # settled, or not going to
            break
        e, last = e + change, size
    return e if last <= 1e-9 * float(np.linalg.norm(e @ root)) or last == 0 else None


def _procrustes(a: Array, b: Array) -> float:
    """min over orthogonal Q of the squared Frobenius norm of A^1/2 - B^1/2 Q."""
    first, second = _factor(a), _factor(b)
    left, _, right = np.linalg.svd(second.T @ first)
    gap = first - second @ (left @ right)
    return float((gap * gap).sum())


def _factor(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _matrix(c: Array) -> Array:
    return np.diag(c) if c.ndim == 1 else c


def _laws(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> tuple[Array, Array, Array]:
    """mean1 - mean2 (d,), and the covariances as (d,) or (d, d)."""
    arrays = [_array(n, v) for n, v in (("mean1", mean1), ("mean2", mean2), ("cov1", cov1), ("cov2", cov2))]
    shapes = [m.shape for m in arrays[:2] if m.ndim]
    shape = shapes[0] if shapes else next((c.shape[:1] for c in arrays[2:] if c.ndim), (1,))
    if len(set(shapes)) > 1:
        raise ShapeError("mean2", got=f"shape {shapes[1]}", expected=f"{shape} as mean1", fix="Match the means.")
    size = int(np.prod(shape, dtype=int))
    first, second = (np.broadcast_to(m, shape).ravel() for m in arrays[:2])
    return first - second, _covariance("cov1", arrays[2], shape, size), _covariance("cov2", arrays[3], shape, size)


def _covariance(argument: str, c: Array, shape: tuple[int, ...], size: int) -> Array:
    if c.ndim == 0 or c.shape == shape:
        c = np.broadcast_to(c, shape).ravel()
        negative = bool((c < 0).any())
    elif c.shape == (size, size):
        scale = float(np.abs(c).max(initial=0.0))
        negative = bool(np.abs(c - c.T).max(initial=0.0) > 1e-10 * scale)
        c = 0.5 * (c + c.T)
        negative = negative or bool(np.linalg.eigvalsh(c).min(initial=0.0) < -1e-10 * scale)
    else:
        expected = f"a number, {shape} or ({size}, {size})"
        raise ShapeError(argument, got=f"shape {c.shape}", expected=expected, fix="Match the mean's shape.")
    if negative:
        got = "a negative variance, or a matrix that is not symmetric"
        raise OptionError(argument, got=got, expected="a positive semi-definite covariance", fix="Pass a covariance.")
    return c


def _array(argument: str, value: Any) -> Array:
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InterfaceError(
            argument,
            got=type(value).__name__,
            expected="an array of real numbers",
            fix="Pass a tensor or nested lists.",
        ) from error
    if not np.isfinite(array).all():
        raise OptionError(argument, got="NaN or infinity", expected="finite numbers", fix="Check how it was made.")
    return array
