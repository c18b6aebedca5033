"""Adaptive steps: chosen for each sample by the error that an embedded pair estimates."""

from __future__ import annotations

from sdekit.control.clocks import CLOCKS
from sdekit.control.fields import FlowField, ODEField
from sdekit.control.loop import adapt

__all__ = ["CLOCKS", "FlowField", "ODEField", "adapt"]
