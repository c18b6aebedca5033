"""Targets by name."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError
from sdekit.math.philox import normals
from sdekit.shapes import finite_number
from sdekit.targets.files import load_array
from sdekit.targets.low_rank import LowRank
from sdekit.targets.mixture import GaussianMixture, as_array

__all__ = ["digits", "empirical", "gaussian", "random_mixture", "ring"]

_PARAMETER_STREAM = 162


def ring(components: int = 8, radius: float = 4.0, std: float = 0.3) -> GaussianMixture:
    """Equal isotropic Gaussians on a circle in the plane; component k at angle 2 pi k / components."""
    count = _count("components", components)
    finite_number("radius", radius)
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    means = radius * torch.stack([torch.cos(angles), torch.sin(angles)], 1)
    return GaussianMixture(torch.ones(count), means, _std(std) ** 2)


def gaussian(mean: Any, cov: Any) -> GaussianMixture:
    """One Gaussian: the target on which solvers are exactly solvable.

    Args:
        mean: (d,) or (*shape).
        cov: a number, (d,) or (*shape) variances, or a (d, d) matrix.
    """
    m, c = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, cov))
    return GaussianMixture(torch.ones(1), m[None], c[None] if c.ndim else c)


def random_mixture(
    dim: int, components: int, seed: int, *, covariance: str = "isotropic", std: tuple[float, float] = (0.14, 0.5)
) -> GaussianMixture:
    """A mixture with random means N(0, I), weights between 1/2 and 2 up to their sum, and standard deviations in `std`.

    The least standard deviation keeps the flow smooth enough for convergence orders to show at moderate step counts.

    Args:
        dim: d.
        components: K.
        seed: the mixture depends on it and on the other arguments alone.
        covariance: "isotropic" (one variance for each component), "common" (one for all), "diagonal", "full" or
            "low_rank" (isotropic and ceil(d / 4) directions of a larger variance).
        std: the range that standard deviations along principal axes are drawn from, uniform in the logarithm.
    """
    d, count = _count("dim", dim), _count("components", components)
    rank = -(-d // 4)
    widths = {"common": 0, "isotropic": 1, "diagonal": d, "full": d, "low_rank": 1 + rank}
    if covariance not in widths:
        raise OptionError("covariance", got=repr(covariance), expected=", ".join(widths), fix="Choose one of these.")
    low, high = (finite_number("std", v, positive=True) for v in std)
    z = _table(seed, count, 1 + d, step=0)
    width = widths[covariance]
    position = torch.special.ndtr(_table(seed, count, max(width, 1), step=1))
    variances = torch.exp(2 * (math.log(low) + math.log(high / low) * position))
    weights = torch.exp(math.log(2) * (2 * torch.special.ndtr(z[:, 0]) - 1))
    c = variances[0, 0] if covariance == "common" else variances[:, 0] if width == 1 else variances
    if covariance == "full":
        bases = torch.linalg.qr(_table(seed, count, d * d, step=2).reshape(count, d, d)).Q
        c = (bases * variances[:, None]) @ bases.mT
        c = 0.5 * (c + c.mT)
    elif covariance == "low_rank":
        bases = torch.linalg.qr(_table(seed, count, d * rank, step=2).reshape(count, d, rank)).Q
        rest, *along = variances.sort(1).values.split([1, rank], 1)
        c = LowRank(bases * torch.sqrt(along[0] - rest)[:, None], rest[:, 0])
    return GaussianMixture(weights, z[:, 1:], c)


def digits(std: float = 0.1) -> GaussianMixture:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels scaled to [-1, 1], (64,), each with variance std^2.

    Raises:
        SdekitError: where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SdekitError(
            "digits",
            got="no scikit-learn",
            expected="scikit-learn, which holds the data",
            fix="Install it: pip install 'sdekit[bench]'.",
        ) from error
    images = np.asarray(load_digits()["data"], dtype=np.float64)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return empirical(torch.from_numpy(images / 8 - 1), std)


def empirical(data: Any, std: float = 0.0, *, key: str | None = None) -> GaussianMixture:
    """Data points with weight 1/n and variance std^2 each: what a model that memorises would learn.

    Args:
        data: (n, *shape), an array, or the path of a file that holds one: .npy, .npz or .safetensors. Integers become
            floats; nothing is scaled.
        std: the standard deviation about each point.
        key: which array, where a file holds several.

    Raises:
        OptionError: for a file that is missing, of another format or damaged, or a key that it does not have.
        ShapeError, InterfaceError: for data that is no array of n >= 1 real points.
        SdekitError: for a .safetensors file where safetensors is missing.
    """
    if isinstance(data, (str, os.PathLike)):
        data = load_array(data, key)
    elif key is not None:
        raise OptionError("key", got=repr(key), expected="None beside an array", fix="Pass key= with a path alone.")
    points = as_array("data", data)
    if points.ndim < 2 or not len(points):
        raise ShapeError(
            "data", got=f"shape {tuple(points.shape)}", expected="(n, *shape) with n >= 1", fix="Reshape it."
        )
    return GaussianMixture(torch.ones(len(points)), points, _std(std) ** 2)


def _table(seed: int, rows: int, columns: int, step: int) -> Tensor:
    ids = torch.arange(rows, dtype=torch.int64)
    return normals(seed, ids, step, columns, stream=_PARAMETER_STREAM, dtype=torch.float64)


def _count(argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InterfaceError(argument, got=repr(value), expected="an integer", fix="Pass a Python int.")
    if value < 1:
        raise OptionError(argument, got=repr(value), expected="at least 1", fix="Pass a positive integer.")
    return value


def _std(value: float) -> float:
    if finite_number("std", value) < 0:
        raise OptionError("std", got=repr(value), expected="a number >= 0", fix="Pass a standard deviation.")
    return float(value)
