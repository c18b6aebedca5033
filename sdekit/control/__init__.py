"""Adaptive steps: chosen for each sample by the error of each step, for ODEs and along Brownian paths."""

from __future__ import annotations

from sdekit.control.clocks import CLOCKS
from sdekit.control.fields import FlowField, ODEField
from sdekit.control.loop import adapt
from sdekit.control.stochastic import adapt_sde

__all__ = ["CLOCKS", "FlowField", "ODEField", "adapt", "adapt_sde"]
