"""Running plans on tensors."""

from __future__ import annotations

from sdekit.execute.run import execute

__all__ = ["execute"]
