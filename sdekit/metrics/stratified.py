"""Samples of mixtures whose components occur as often as they should."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.math.philox import normals
from sdekit.shapes import uninitialised_like
from sdekit.targets import ExactModel, GaussianMixture
from sdekit.times import check_count

__all__ = ["stratified_marginal", "stratified_sample"]

_STREAM = 165
_OFFSET_STREAM, _NOISE_STREAM = 166, 167


def stratified_sample(target: GaussianMixture, n: int, seed: int = 0) -> Tensor:
    """(n, *shape) draws of a mixture in which component k occurs floor(n w_k) or ceil(n w_k) times; target's dtype.

    Drawn one by one, the counts of components scatter by sqrt(n w (1 - w)), which moves the sample by more than what a
    good sampler gets wrong within a component. Here draw i takes the component at (i + u) / n of the cumulated
    weights, one u for all: each draw has the mixture's law, but draws are not independent. Components come in order.

    Raises:
        OptionError, InterfaceError: for fewer than one draw, or a seed out of range.
    """
    check_count("n", n)
    u = torch.special.ndtr(
        normals(seed, torch.zeros(1, dtype=torch.int64), 0, 1, stream=_OFFSET_STREAM, dtype=torch.float64)
    )
    edges = torch.cumsum(target.weights.cpu().double(), 0)
    places = (torch.arange(n, dtype=torch.float64) + u[0, 0]) / n
    index = torch.searchsorted(edges, places, right=True).clamp(max=len(edges) - 1).to(target.device)
    z = _normals(target, n, seed, _STREAM)
    spread = uninitialised_like(z)
    for k, rows in zip(*_runs(index), strict=True):
        spread[rows] = target.components.colour(k, z[rows])
    return target.means[index] + spread.reshape(n, *target.shape)


def stratified_marginal(model: ExactModel, t: float, n: int, seed: int = 0) -> Tensor:
    """(n, *shape) draws of x_t = alpha x_0 + sigma eps with x_0 from `stratified_sample`: starts for a sampler."""
    x0 = stratified_sample(model.target, n, seed)
    alpha, sigma = model.scales(t, x0)
    return alpha * x0 + sigma * _normals(model.target, n, seed, _NOISE_STREAM).reshape(x0.shape)


def _normals(target: GaussianMixture, n: int, seed: int, stream: int) -> Tensor:
    ids = torch.arange(n, dtype=torch.int64)
    return normals(seed, ids, 0, target.size, stream=stream, dtype=torch.float64).to(target.device, target.dtype)


def _runs(index: Tensor) -> tuple[list[int], list[slice]]:
    """The components that occur, rising, and where each stands."""
    values, counts = index.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0).tolist()
    return values.tolist(), [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
