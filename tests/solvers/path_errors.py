"""Errors of single paths against a finer solution of another family on the same Brownian motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

import sdekit
from sdekit.testing.sde_path import SampledPath

__all__ = ["strong_slope"]


def strong_slope(
    solver: Any,
    sde: sdekit.SDE,
    ends: tuple[float, float],
    reference: str,
    counts: Sequence[int] = (8, 16, 32),
    fine: int = 128,
    paths: int = 128,
) -> tuple[float, list[float]]:
    """The slope of root mean square errors over the step counts, each half the next, and these errors."""
    edges = torch.linspace(*ends, fine + 1, dtype=torch.float64).tolist()
    x = torch.linspace(-1, 1, paths, dtype=torch.float64)[:, None]
    path = SampledPath(edges, paths, 1)

    def end(name: Any, steps: int) -> torch.Tensor:
        times = edges[:: fine // steps]
        return sdekit.solve(sde, x, times, name, noise=path.noise(times)).x

    exact = end(reference, fine)
    errors = [float((end(solver, n) - exact).square().mean().sqrt()) for n in counts]
    return math.log2(errors[0] / errors[-1]) / (len(counts) - 1), errors
