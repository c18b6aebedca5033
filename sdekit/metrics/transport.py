"""Wasserstein-2 distances of samples: sliced, by exact transport on random lines, and exact in few dimensions.

Both are biased upwards: two samples of one law are a distance of order n^(-1/2) (sliced) or n^(-1/d) apart. Compare
them with their noise floor (`sdekit.metrics.noise_floor`). Standard errors are those of the limit law: the squared
distance moves with a point by the value of the transport's dual potential there, so that its variance is that of the
potentials, var(phi) / n + var(psi) / m.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sdekit.errors import OptionError, SdekitError
from sdekit.math.philox import normals
from sdekit.metrics.samples import Estimated, chunk_rows, two_samples
from sdekit.times import check_count

__all__ = ["exact_w2", "exact_w2_estimate", "sliced_w2", "sliced_w2_estimate"]

_STREAM = 163
_MOST_POINTS, _MOST_DIMENSIONS = 2048, 4


def sliced_w2(x: Tensor, y: Tensor, projections: int = 256, seed: int = 0) -> float:
    """The square root of the mean, over random directions, of the squared 1-D Wasserstein-2 distance of projections.

    Args:
        x, y: (n, *shape) and (m, *shape), on one device.
        projections: the number of directions, uniform on the sphere. In one dimension there is but one.
        seed: of the directions: the same for equal seeds.

    Raises:
        ShapeError, InterfaceError, OptionError: for samples that do not fit, are too few, or are not finite.
    """
    return sliced_w2_estimate(x, y, projections, seed).value


def sliced_w2_estimate(x: Tensor, y: Tensor, projections: int = 256, seed: int = 0) -> Estimated:
    """`sliced_w2` with its standard error, which leaves out that of the directions: both samples share these."""
    x, y = two_samples(x, y, least=2)
    directions = _directions(x.shape[1], check_count("projections", projections), seed).to(x.device)
    total = 0.0
    phi, psi = x.new_zeros(len(x)), y.new_zeros(len(y))
    for part in directions.split(chunk_rows(2 * (len(x) + len(y))), 0):
        square, first, second = _on_lines(part @ x.mT, part @ y.mT)
        total, phi, psi = total + square, phi + first, psi + second
    count = len(directions)
    return _rooted(total / count, phi / count, psi / count)


def exact_w2(x: Tensor, y: Tensor, *, anyway: bool = False) -> float:
    """The exact Wasserstein-2 distance of the two empirical laws, by POT's network simplex.

    Args:
        x, y: (n, *shape) and (m, *shape), of at most 2048 points in at most 4 dimensions: in more, two samples of one
            law are n^(-1/d) apart, which hides what is to be measured.
        anyway: take more points or dimensions all the same.

    Raises:
        OptionError: for more points or dimensions.
        SdekitError: where POT is missing, or does not finish.
    """
    return exact_w2_estimate(x, y, anyway=anyway).value


def exact_w2_estimate(x: Tensor, y: Tensor, *, anyway: bool = False) -> Estimated:
    """`exact_w2` with its standard error."""
    x, y = two_samples(x, y, least=2)
    most, d = max(len(x), len(y)), x.shape[1]
    if not anyway and (most > _MOST_POINTS or d > _MOST_DIMENSIONS):
        raise OptionError(
            "x, y",
            got=f"{most} points in {d} dimensions",
            expected=f"at most {_MOST_POINTS} points in at most {_MOST_DIMENSIONS} dimensions",
            fix="Use sliced_w2 or energy_distance, whose noise does not grow with the dimension, or pass anyway=True.",
        )
    try:
        import ot
    except ImportError as error:
        raise SdekitError(
            "exact_w2",
            got="no POT",
            expected="POT, which solves transport",
            fix="Install it: pip install 'sdekit[bench]'.",
        ) from error
    cost = (x[:, None] - y[None]).square().sum(-1).cpu().numpy()
    uniform = [torch.full((len(v),), 1 / len(v), dtype=torch.float64).numpy() for v in (x, y)]
    with warnings.catch_warnings():  # what POT warns of is raised here
        warnings.simplefilter("ignore")
        square, log = ot.emd2(uniform[0], uniform[1], cost, numItermax=10**7, log=True)
    if log["warning"]:
        raise SdekitError("exact_w2", got=str(log["warning"]), expected="an optimal plan", fix="Use fewer points.")
    return _rooted(float(square), torch.as_tensor(log["u"]), torch.as_tensor(log["v"]))


def _rooted(square: float, phi: Tensor, psi: Tensor) -> Estimated:
    """The root of a squared distance, whose error is that of the square over twice the root."""
    variance = float(phi.var()) / len(phi) + float(psi.var()) / len(psi)
    value = math.sqrt(max(square, 0.0))
    return Estimated(value, math.sqrt(variance) / (2 * value) if value > 0 else 0.0)


def _directions(size: int, count: int, seed: int) -> Tensor:
    """Unit vectors (count, size)."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    ids = torch.arange(count, dtype=torch.int64)
    z = normals(seed, ids, 0, size, stream=_STREAM, dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True)


def _on_lines(x: Tensor, y: Tensor) -> tuple[float, Tensor, Tensor]:
    """For projections (p, n) and (p, m): the sum of squared distances, and of the potentials at each point.

    In one dimension points are matched by rank: each interval between neighbouring ranks i / n and j / m carries the
    mass of its length from one point to one other.
    """
    (xs, x_order), (ys, y_order) = x.sort(1), y.sort(1)
    n, m = x.shape[1], y.shape[1]
    if n == m:
        first = second = torch.arange(n, device=x.device)
        mass = x.new_full((n,), 1 / n)
    else:  # ranks in units of 1 / (n m), which are whole numbers
        edges = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
        mass = (edges.diff(prepend=edges.new_zeros(1)).double() / (n * m)).to(x.device)
        first, second = ((edges - 1) // m).to(x.device), ((edges - 1) // n).to(x.device)
    gap = xs[:, first] - ys[:, second]
    square = float((gap.square() @ mass).sum())
    sums = []
    for points, order, index, sign, size in ((xs, x_order, first, 1, n), (ys, y_order, second, -1, m)):
        # phi' = 2 (x - T x), with T the mean over what a point is matched to.
        slope = torch.zeros_like(points).index_add_(1, index, 2 * sign * size * gap * mass)
        steps = 0.5 * (slope[:, 1:] + slope[:, :-1]) * points.diff(dim=1)
        potential = torch.cat([torch.zeros_like(points[:, :1]), steps.cumsum(1)], 1)
        potential = potential - potential.mean(1, keepdim=True)
        sums.append(torch.zeros_like(points).scatter_(1, order, potential).sum(0))
    return square, sums[0], sums[1]
