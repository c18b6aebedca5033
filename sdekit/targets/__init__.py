"""Targets with exact answers: Gaussian mixtures and what diffusion makes of them."""

from __future__ import annotations

from sdekit.targets.exact import ExactModel
from sdekit.targets.library import digits, empirical, gaussian, random_mixture, ring
from sdekit.targets.low_rank import LowRank
from sdekit.targets.mixture import GaussianMixture

__all__ = ["ExactModel", "GaussianMixture", "LowRank", "digits", "empirical", "gaussian", "random_mixture", "ring"]
