"""Samplers as programs of coefficients: rows, plans, and the interpreters that need no model."""

from __future__ import annotations

from sdekit.plan.coefficients import Block, Coefficient, Direction
from sdekit.plan.interpret import interpret, interpret_all
from sdekit.plan.program import Plan
from sdekit.plan.rows import DATA, NOISE, Combination, Row, combine, commit, commit_history, outputs_of, stage

__all__ = [
    "DATA",
    "NOISE",
    "Block",
    "Coefficient",
    "Combination",
    "Direction",
    "Plan",
    "Row",
    "combine",
    "commit",
    "commit_history",
    "interpret",
    "interpret_all",
    "outputs_of",
    "stage",
]
