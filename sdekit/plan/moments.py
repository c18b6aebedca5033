"""The exact law of a sampler's output for Gaussian data: no Monte Carlo.

For data N(m, C) both predictions are affine in the state: with S = alpha^2 C + sigma^2,

    data(t, x) = m + alpha C S^{-1} (x - alpha m),    noise(t, x) = sigma S^{-1} (x - alpha m),

so the output of a plan is affine in its start and its noises. The plan is interpreted on the coefficients of that
affine map: slot 0 holds the constant, the next slots the directions of the start, one more slot (or d of them) each
noise. Mean and covariance follow exactly. Where C is a number, a diagonal, or shares its eigenvectors with the start
and the plan's coefficients are numbers, directions do not mix and one slot stands for each noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.plan.coefficients import Block, Direction, check_fits
from sdekit.plan.interpret import interpret_with
from sdekit.plan.program import Plan
from sdekit.plan.rows import Row

__all__ = ["GaussianLaw", "extrapolated", "gaussian_moments"]

Array = np.ndarray


@dataclass(frozen=True)
class GaussianLaw:
    """A Gaussian law: mean (*shape); cov a diagonal (*shape), or (d, d) where it is not diagonal. Float64."""

    mean: Tensor
    cov: Tensor


def gaussian_moments(plan: Plan, mean: Any, cov: Any, start_mean: Any = None, start_cov: Any = None) -> GaussianLaw:
    """See `Plan.gaussian_moments`.

    Raises:
        ShapeError: for a covariance whose shape fits neither the mean's nor (d, d).
        InterfaceError: for what is no array of real numbers.
        OptionError: for numbers that are not finite, or a covariance that is not symmetric positive semi-definite.
    """
    m, c = _array("mean", mean), _array("cov", cov)
    given = (("start_mean", start_mean), ("start_cov", start_cov))
    starts = [None if v is None else _array(name, v) for name, v in given]
    coefficients = [v for row in plan.rows for k in row.combinations() for v in k.coefficients()]
    shape = _sample_shape(m, c, starts[0])
    for v in coefficients:
        check_fits(v, shape)
    m = np.broadcast_to(m, shape)
    alpha, sigma = plan.start
    first = alpha * m if starts[0] is None else np.broadcast_to(starts[0], shape)
    start, full = starts[1], not _is_diagonal(c, shape)
    mixes = any(isinstance(v, Block) for v in coefficients)
    directional = any(isinstance(v, Direction) for v in coefficients)
    if not full and not mixes and (start is None or _is_diagonal(start, shape)):
        c = np.broadcast_to(c, shape)
        _check_variances("cov", c)
        initial = alpha**2 * c + sigma**2 if start is None else np.broadcast_to(start, shape)
        _check_variances("start_cov", initial)
        out, var = _propagate(plan, m, c, first, np.sqrt(initial))
        return GaussianLaw(torch.tensor(out), torch.tensor(var))
    matrix = _matrix("cov", c, shape)
    if full and not mixes and not directional and (start is None or start.ndim == 0):
        return _in_eigenbasis(plan, m, matrix, first, start)
    initial = alpha**2 * matrix + sigma**2 * np.eye(m.size) if start is None else _matrix("start_cov", start, shape)
    return _dense(plan, m, matrix, first, initial)


def _sample_shape(m: Array, c: Array, start_mean: Array | None) -> tuple[int, ...]:
    """The shape of one sample: the mean's, where it is not a number."""
    shapes = [v.shape for v in (m, start_mean) if v is not None and v.ndim]
    if len(set(shapes)) > 1:
        raise ShapeError("start_mean", got=f"shape {shapes[1]}", expected=f"{shapes[0]} as the mean", fix="Match it.")
    if shapes:
        return shapes[0]
    if c.ndim > 1:
        raise ShapeError(
            "mean",
            got=f"a number beside a covariance of shape {c.shape}",
            expected="the mean in the shape of one sample",
            fix="Pass it in full: the covariance may be a matrix, or variances in the shape of a sample.",
        )
    return c.shape


def extrapolated(row: Row, point: Array, m: Array, c: Array) -> Array:
    """p data + q noise at a point, for data N(m, c) in each direction; the first axis of the point holds its mean."""
    p, q = row.weights
    variance = row.alpha**2 * c + row.sigma**2
    # A point mass at sigma = 0: the data is its mean whatever the state, and noise has no meaning.
    slope = (p * row.alpha) * c + q * row.sigma
    gain = np.divide(slope, variance, out=np.zeros_like(variance), where=variance > 0)
    out = gain * point
    out[0] += m * (p - gain * row.alpha)
    return out


def _propagate(plan: Plan, m: Array, c: Array, first: Array, std: Array) -> tuple[Array, Array]:
    """Mean and variance per direction, for directions that do not mix."""
    noises = {key: 2 + i for i, key in enumerate(plan.noises())}
    slots = np.zeros((2 + len(noises), *m.shape))
    slots[0], slots[1] = first, std

    def noise(step: int, stream: int) -> Array:
        unit = np.zeros_like(slots)
        unit[noises[step, stream]] = 1.0
        return unit

    out = interpret_with(plan, lambda row, point: extrapolated(row, point, m, c), slots, noise)[-1]
    return out[0], (out[1:] ** 2).sum(0)


def _in_eigenbasis(plan: Plan, m: Array, matrix: Array, first: Array, start: Array | None) -> GaussianLaw:
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, 0.0)
    alpha, sigma = plan.start
    initial = alpha**2 * values + sigma**2 if start is None else np.full_like(values, start)
    _check_variances("start_cov", initial)
    mean, var = _propagate(plan, vectors.T @ m.ravel(), values, vectors.T @ first.ravel(), np.sqrt(initial))
    cov = (vectors * var) @ vectors.T
    return GaussianLaw(torch.from_numpy((vectors @ mean).reshape(m.shape)), torch.from_numpy(cov))


def _dense(plan: Plan, m: Array, matrix: Array, first: Array, initial: Array) -> GaussianLaw:
    """Mean and covariance where directions mix: d slots for the start and for each noise."""
    d = m.size
    noises = {key: 1 + d * (1 + i) for i, key in enumerate(plan.noises())}
    slots = np.zeros((1 + d * (1 + len(noises)), *m.shape))
    slots[0] = first
    slots[1 : 1 + d] = _root(initial).T.reshape(d, *m.shape)

    def extrapolated(row: Row, point: Array) -> Array:
        p, q = row.weights
        variance = row.alpha**2 * matrix + row.sigma**2 * np.eye(d)
        slope = p * row.alpha * matrix + q * row.sigma * np.eye(d)
        gain = np.linalg.solve(variance, slope).T if row.sigma else slope @ np.linalg.pinv(variance)
        out = point.reshape(len(point), d) @ gain.T
        out[0] += p * m.ravel() - gain @ (row.alpha * m.ravel())
        return out.reshape(point.shape)

    def noise(step: int, stream: int) -> Array:
        unit = np.zeros_like(slots)
        at = noises[step, stream]
        unit[at : at + d] = np.eye(d).reshape(d, *m.shape)
        return unit

    out = interpret_with(plan, extrapolated, slots, noise)[-1]
    directions = out[1:].reshape(-1, d)
    return GaussianLaw(torch.from_numpy(out[0].copy()), torch.from_numpy(directions.T @ directions))


def _root(matrix: Array) -> Array:
    """A square root R with R R^T = matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _array(argument: str, value: Any) -> Array:
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        # As float64 None would be NaN, and what is complex its real part.
        array = None if value is None or array.dtype.kind == "c" else array.astype(np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None:
        raise InterfaceError(argument, got=repr(value), expected="an array of real numbers", fix="Pass a tensor.")
    if not np.isfinite(array).all():
        raise OptionError(argument, got="NaN or infinity", expected="finite numbers", fix="Check how it was made.")
    return array


def _is_diagonal(c: Array, shape: tuple[int, ...]) -> bool:
    return c.ndim == 0 or c.shape == shape


def _matrix(argument: str, c: Array, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    if c.ndim == 0 or c.shape == shape:
        c = np.diag(np.broadcast_to(c, shape).ravel())
    if c.shape != (size, size):
        expected = f"a number, {shape} or ({size}, {size})"
        raise ShapeError(argument, got=f"shape {c.shape}", expected=expected, fix="Match the mean's shape.")
    scale = max(float(np.abs(c).max(initial=0.0)), 1e-300)
    if np.abs(c - c.T).max(initial=0.0) > 1e-10 * scale or np.linalg.eigvalsh(c).min(initial=0.0) < -1e-10 * scale:
        raise OptionError(
            argument, got="a matrix that is not", expected="symmetric positive semi-definite", fix="Pass a covariance."
        )
    return 0.5 * (c + c.T)


def _check_variances(argument: str, c: Array) -> None:
    if not (np.isfinite(c).all() and (c >= 0).all()):
        raise OptionError(argument, got=str(c), expected="finite variances >= 0", fix="Pass a covariance.")
