"""Running plans on tensors."""

from __future__ import annotations

from sdekit.execute.compiler import Program, compile_plan
from sdekit.execute.run import execute

__all__ = ["Program", "compile_plan", "execute"]
