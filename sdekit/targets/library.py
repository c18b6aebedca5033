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

__all__ = [
    "checkerboard",
    "digits",
    "empirical",
    "gaussian",
    "heavy_clusters",
    "ill_conditioned_gaussian",
    "lattice",
    "low_rank_gaussian",
    "random_mixture",
    "ring",
    "spiral",
]

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


def ill_conditioned_gaussian(
    dim: int = 16, condition: float = 1e6, *, rotated: bool = False, seed: int = 0
) -> GaussianMixture:
    """N(0, C) with variances from 1 down to 1 / condition, equally spaced in the logarithm: stiff in some directions.

    Args:
        dim: d, at least 2.
        condition: the ratio of the largest and the smallest variance, at least 1.
        rotated: whether the axes are turned at random, by the seed, instead of those of the state.
    """
    d = _count("dim", dim)
    if d < 2 or finite_number("condition", condition) < 1:
        got = f"dim = {dim}, condition = {condition}"
        raise OptionError("dim, condition", got=got, expected="dim >= 2 and condition >= 1", fix="Raise them.")
    variances = torch.exp(-math.log(condition) * torch.linspace(0, 1, d, dtype=torch.float64))
    return gaussian(torch.zeros(d), _turned(variances, seed) if rotated else variances)


def low_rank_gaussian(dim: int = 64, rank: int = 4, std: float = 0.01, *, seed: int = 0) -> GaussianMixture:
    """N(0, C) of variance 1 in `rank` directions drawn by the seed, and std^2 in all others: data near a subspace.

    With std = 0 it lies in the subspace, and has no density, score or noise at sigma = 0.
    """
    d, r = _count("dim", dim), _count("rank", rank)
    if r > d:
        raise OptionError("rank", got=repr(rank), expected=f"at most dim = {dim}", fix="Lower it.")
    rest = _std(std) ** 2
    if rest > 1:
        raise OptionError("std", got=repr(std), expected="a number in [0, 1]", fix="The subspace has variance 1.")
    basis = torch.linalg.qr(_table(seed, 1, d * r, step=2).reshape(1, d, r)).Q
    return GaussianMixture(torch.ones(1), torch.zeros(1, d), LowRank(basis * math.sqrt(1 - rest), rest))


def heavy_clusters(
    components: int = 6,
    weight_ratio: float = 1e3,
    std: tuple[float, float] = (0.05, 1.0),
    *,
    dim: int = 2,
    radius: float = 4.0,
    seed: int = 0,
) -> GaussianMixture:
    """A few isotropic clusters of very unequal weights and widths: the heaviest is the narrowest.

    Weights fall by `weight_ratio` from the first cluster to the last while standard deviations rise through `std`, both
    equally spaced in the logarithm. Means lie at `radius` from the origin, in directions drawn by the seed. Rare wide
    clusters are what averages over samples do not see.
    """
    count, d = _count("components", components), _count("dim", dim)
    finite_number("radius", radius)
    if finite_number("weight_ratio", weight_ratio) < 1:
        raise OptionError("weight_ratio", got=repr(weight_ratio), expected="at least 1", fix="Turn it over.")
    low, high = (finite_number("std", v, positive=True) for v in std)
    places = torch.linspace(0, 1, count, dtype=torch.float64)
    directions = _table(seed, count, d, step=3)
    means = radius * directions / directions.norm(dim=1, keepdim=True)
    stds = low * torch.exp(math.log(high / low) * places)
    return GaussianMixture(torch.exp(-math.log(weight_ratio) * places), means, stds**2)


def lattice(side: int = 5, spacing: float = 2.0, std: float = 0.1) -> GaussianMixture:
    """side x side equal narrow Gaussians on a square lattice in the plane, centred: separatrices in both directions."""
    n = _count("side", side)
    places = finite_number("spacing", spacing) * (torch.arange(n, dtype=torch.float64) - 0.5 * (n - 1))
    means = torch.cartesian_prod(places, places)
    return GaussianMixture(torch.ones(n * n), means, _std(std) ** 2)


def checkerboard(cells: int = 4, per_cell: int = 4, half_width: float = 2.0, std: float = 0.1) -> GaussianMixture:
    """The cells (i, j) with i + j even of a cells x cells board on [-half_width, half_width]^2.

    Each is filled with per_cell x per_cell equal Gaussians on a lattice, so that its edges are as sharp as std. Few
    paths of the flow are far from a separatrix.
    """
    n, k = _count("cells", cells), _count("per_cell", per_cell)
    width = 2 * finite_number("half_width", half_width, positive=True) / n
    inner = width * ((torch.arange(k, dtype=torch.float64) + 0.5) / k)
    within = torch.cartesian_prod(inner, inner).reshape(-1, 2)
    corners = [[i * width - half_width, j * width - half_width] for i in range(n) for j in range(n) if (i + j) % 2 == 0]
    means = (torch.tensor(corners, dtype=torch.float64)[:, None] + within).reshape(-1, 2)
    return GaussianMixture(torch.ones(len(means)), means, _std(std) ** 2)


def spiral(
    components: int = 96, arms: int = 2, turns: float = 1.5, radius: float = 4.0, std: float = 0.08
) -> GaussianMixture:
    """Archimedean spirals in the plane, made of equal narrow Gaussians: arms lie close, so that paths part late.

    Component k of an arm of n is at u = (k + 1) / n of its length in angle: angle 2 pi turns u, distance radius u from
    the centre. Arms are turned against each other by equal angles.

    Args:
        components: of all arms together, a multiple of `arms`.
    """
    count, number = _count("components", components), _count("arms", arms)
    if count % number:
        raise OptionError("components", got=repr(components), expected=f"a multiple of {arms}", fix="Change one.")
    u = (torch.arange(count // number, dtype=torch.float64) + 1) / (count // number)
    turned = 2 * math.pi * torch.arange(number, dtype=torch.float64)[:, None] / number
    angles = 2 * math.pi * finite_number("turns", turns) * u + turned
    distances = finite_number("radius", radius) * u
    means = torch.stack([distances * torch.cos(angles), distances * torch.sin(angles)], -1).reshape(-1, 2)
    return GaussianMixture(torch.ones(count), means, _std(std) ** 2)


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


def _turned(variances: Tensor, seed: int) -> Tensor:
    """A covariance of these variances along axes drawn by the seed."""
    d = len(variances)
    basis = torch.linalg.qr(_table(seed, 1, d * d, step=2).reshape(d, d)).Q
    cov = (basis * variances) @ basis.mT
    return 0.5 * (cov + cov.mT)


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
