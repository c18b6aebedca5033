"""Targets with exact answers: Gaussian mixtures and what diffusion makes of them."""

from __future__ import annotations

from sdekit.targets.exact import ExactModel
from sdekit.targets.library import (
    checkerboard,
    digits,
    empirical,
    gaussian,
    heavy_clusters,
    ill_conditioned_gaussian,
    lattice,
    low_rank_gaussian,
    random_mixture,
    ring,
    spiral,
)
from sdekit.targets.low_rank import LowRank
from sdekit.targets.mixture import GaussianMixture

__all__ = [
    "ExactModel",
    "GaussianMixture",
    "LowRank",
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
