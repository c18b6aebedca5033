"""Samplers whose plans do the same with other numbers run through the same lines: one stands for all.

What is proven of numbers (orders, formulas, laws) is proven for each; what is proven of the machinery, for each kind.
"""

from __future__ import annotations

import itertools
from typing import Any

import sdekit
from sdekit.plan import DATA, NOISE
from sdekit.solvers.base import PlanSolver

__all__ = ["kind_of_plan", "plan_kinds", "plan_solvers"]


def kind_of_plan(solver: Any) -> frozenset[Any]:
    """What the rows of a plan do, without their numbers: what they read and write, and where in a step they stand."""
    rows = solver.plan(sdekit.VP(), [0.9, 0.7, 0.5, 0.3, 0.1], solver.implied_stochasticity).rows
    ends = [a.step != b.step for a, b in itertools.pairwise(rows)] + [True]

    def reads(c: Any) -> Any:
        ages = [] if c is None else [age for age, _ in c.outputs]
        older = min(2, sum(age > 0 for age in ages))
        return c and (c.base == 0, 0 in ages, older, tuple(stream for stream, _ in c.noises))

    return frozenset(
        (end, row.weights in (DATA, NOISE), reads(row.kick), reads(row.base), reads(row.point))
        for row, end in zip(rows, ends, strict=True)
    )


def plan_solvers() -> list[str]:
    """The names of all solvers that make plans."""
    return [i.name for i in sdekit.solvers.available() if isinstance(sdekit.solvers.get(i.name), PlanSolver)]


def plan_kinds() -> list[str]:
    """The first name of each kind."""
    kinds: dict[frozenset[Any], str] = {}
    for name in plan_solvers():
        kinds.setdefault(kind_of_plan(sdekit.solvers.get(name)), name)
    return list(kinds.values())
