"""The registry of solvers; importing this package registers those that come with sdekit."""

from __future__ import annotations

from sdekit.solvers import (  # noqa: F401  (registration)
    adams,
    adaptive,
    ancestral,
    ddim,
    dpm_adaptive,
    dpm_solver,
    dpmpp_3m_sde,
    edm,
    er_sde,
    euler_maruyama,
    exp_sra,
    exponential_runge_kutta,
    fast,
    foster,
    gradient_estimation,
    heunpp2,
    implicit,
    langevin,
    lcm,
    log_ode,
    milstein,
    multistep,
    other_names,
    pndm,
    preconditioned,
    res_ancestral,
    restart,
    runge_kutta,
    sa_solver,
    seeds,
    semi_linear,
    splitting,
    sra,
    srk,
    stratonovich,
    tamed,
    unipc,
    weak,
)
from sdekit.solvers.adaptive import EmbeddedRungeKutta
from sdekit.solvers.base import (
    Increments,
    NoiseOrder,
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
from sdekit.solvers.controller import Controller
from sdekit.solvers.embedded import Pair
from sdekit.solvers.tableau import Tableau

__all__ = [
    "Controller",
    "EmbeddedRungeKutta",
    "Increments",
    "NoiseOrder",
    "Order",
    "Pair",
    "PlanSolver",
    "Solver",
    "SolverInfo",
    "StepResult",
    "Stepper",
    "Tableau",
    "available",
    "get",
    "info",
    "register",
]

other_names.register_other_names()
