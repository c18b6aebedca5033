"""The registry of solvers; importing this package registers those that come with sdekit."""

from __future__ import annotations

from sdekit.solvers import (  # noqa: F401  (registration)
    adams,
    ancestral,
    ddim,
    dpm_solver,
    edm,
    euler_maruyama,
    exp_sra,
    runge_kutta,
    sra,
    unipc,
)
from sdekit.solvers.base import (
    Increments,
    Order,
    PlanSolver,
    Solver,
    SolverInfo,
    Stepper,
    StepResult,
    available,
    get,
    info,
    register,
)

__all__ = [
    "Increments",
    "Order",
    "PlanSolver",
    "Solver",
    "SolverInfo",
    "StepResult",
    "Stepper",
    "available",
    "get",
    "info",
    "register",
]
