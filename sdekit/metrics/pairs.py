"""U-statistics of two samples, chunked: energy distance and maximum mean discrepancy, with their jackknife errors.

With a symmetric kernel k, samples x (n) and y (m), and means over all pairs of different points,

    A = mean k(x_i, y_j),   B = mean k(x_i, x_j),   C = mean k(y_i, y_j):

the energy distance is 2 A - B - C for k = |x - y|, and MMD^2 is B + C - 2 A for a Gaussian kernel. Both are unbiased:
of two samples of one law they have mean 0 and are as often negative. Sums of rows are enough for every value with one
point left out, and so for the jackknife's standard error. That one is right where the laws differ, and too large, by
about sqrt(2), where they do not, so that intervals cover there too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.philox import normals
from sdekit.metrics.samples import Estimated, chunk_rows, two_samples
from sdekit.shapes import finite_number

__all__ = ["energy_distance", "energy_estimate", "median_distance", "mmd2", "mmd2_estimate"]

_PICKED = 1000  # points whose distances give the median
_STREAM = 164

Kernel = Callable[[Tensor], Tensor]
"""From distances to values of the kernel, elementwise."""


class _Sums(NamedTuple):
    """Sums of kernel values over each row: x against y (n,), y against x (m,), x against x (n,), y against y (m,)."""

    xy: Tensor
    yx: Tensor
    xx: Tensor
    yy: Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| >= 0 of two laws, from samples; may come out negative.

    Args:
        x, y: (n, *shape) and (m, *shape), n and m at least 4, on one device.

    Raises:
        ShapeError, InterfaceError, OptionError: for samples that do not fit, are too few, or are not finite.
    """
    return energy_estimate(x, y).value


def energy_estimate(x: Tensor, y: Tensor) -> Estimated:
    """`energy_distance` with its standard error."""
    x, y = two_samples(x, y, least=4)
    return _u_statistic(_sums(x, y, lambda d: d), 1.0)


def mmd2(x: Tensor, y: Tensor, bandwidths: float | Sequence[float] | None = None) -> float:
    """The squared maximum mean discrepancy of two laws, from samples; may come out negative.

    Args:
        x, y: as `energy_distance`.
        bandwidths: h of the kernel exp(-|x - y|^2 / (2 h^2)), or several, whose kernels are averaged; by default the
            median distance of points of both samples.

    Raises:
        OptionError: for a bandwidth that is not positive; otherwise as `energy_distance`.
    """
    return mmd2_estimate(x, y, bandwidths).value


def mmd2_estimate(x: Tensor, y: Tensor, bandwidths: float | Sequence[float] | None = None) -> Estimated:
    """`mmd2` with its standard error."""
    x, y = two_samples(x, y, least=4)
    given = [median_distance(x, y)] if bandwidths is None else bandwidths
    widths = [
        finite_number("bandwidths", h, positive=True) for h in (given if isinstance(given, Sequence) else [given])
    ]
    if not widths:
        raise OptionError("bandwidths", got="none", expected="one or more", fix="Pass a positive number.")

    def kernel(distance: Tensor) -> Tensor:
        squares = distance.square_()
        return torch.stack([torch.exp(squares / (-2 * h * h)) for h in widths]).mean(0)

    return _u_statistic(_sums(x, y, kernel), -1.0)


def median_distance(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """The median distance between points of both samples, of at most 1000 of each, chosen by the seed.

    Raises:
        OptionError: where it is zero.
    """
    x, y = two_samples(x, y, least=2)
    picked = []
    for stream, sample in enumerate((x, y)):
        ids = torch.arange(len(sample), dtype=torch.int64)
        keys = normals(seed, ids, stream, 1, stream=_STREAM, dtype=torch.float64)[:, 0]
        picked.append(sample[keys.argsort()[:_PICKED].to(sample.device)])
    points = torch.cat(picked)
    rows = [_distances(points[i : i + 1], points[i + 1 :])[0] for i in range(len(points) - 1)]
    median = float(torch.cat(rows).median())
    if median <= 0:
        raise OptionError(
            "bandwidths", got="a median distance of 0", expected="points that differ", fix="Pass bandwidths."
        )
    return median


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # Not by a matrix product, which loses half of the digits of small distances.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _sums(x: Tensor, y: Tensor, kernel: Kernel) -> _Sums:
    rows = chunk_rows(max(len(x), len(y)))
    xy = []
    yx = x.new_zeros(len(y))
    for part in x.split(rows):
        values = kernel(_distances(part, y))
        xy.append(values.sum(1))
        yx += values.sum(0)
    return _Sums(torch.cat(xy), yx, _within(x, kernel, rows), _within(y, kernel, rows))


def _within(x: Tensor, kernel: Kernel, rows: int) -> Tensor:
    """Sums over all other points of the sample."""
    own = float(kernel(x.new_zeros(1)))
    return torch.cat([kernel(_distances(part, x)).sum(1) for part in x.split(rows)]) - own


def _u_statistic(sums: _Sums, sign: float) -> Estimated:
    """sign (2 A - B - C), and its standard error from the values with one point left out."""
    n, m = len(sums.xx), len(sums.yy)
    total = [float(v.sum()) for v in (sums.xy, sums.xx, sums.yy)]
    a, b, c = total[0] / (n * m), total[1] / (n * (n - 1)), total[2] / (m * (m - 1))
    variance = 0.0
    for cross, own, size, other in ((sums.xy, sums.xx, n, m), (sums.yx, sums.yy, m, n)):
        k, inner = size - 1, total[1] if own is sums.xx else total[2]
        left = 2 * (total[0] - cross) / (k * other) - (inner - 2 * own) / (k * (k - 1))
        variance += k / size * float((left - left.mean()).square().sum())
    return Estimated(sign * (2 * a - b - c), math.sqrt(variance))
