"""What a solver takes from the model."""

from __future__ import annotations

from sdekit.plan import DATA, NOISE
from sdekit.processes import EDM
from sdekit.solvers.base import PlanSolver, Solver, Stepper

__all__ = ["prediction_of"]


def prediction_of(solver: Solver) -> str:
    """What a method extrapolates: "data", "noise", a "residual" of both, or the "drift", read off a plan."""
    if not isinstance(solver, PlanSolver):
        return "drift"
    rows = solver.plan(EDM(), [2.0 ** (1 - i) for i in range(9)], solver.implied_stochasticity).rows
    kinds = {DATA: "data", NOISE: "noise"}
    other = "drift" if isinstance(solver, Stepper) else "residual"
    return " and ".join(sorted({kinds.get(row.weights, other) for row in rows}))
