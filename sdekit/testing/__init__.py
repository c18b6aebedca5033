"""Tools with which users test their own solvers, and with which sdekit tests its own."""

from __future__ import annotations

from sdekit.testing import strategies
from sdekit.testing.check_sde import SDEReport, check_sde
from sdekit.testing.conformance import Conformance, check_solver
from sdekit.testing.ingredients import Diffeomorphism, Sinh, SinhShear, StateNoise, state_noises
from sdekit.testing.local_order import LocalOrders, local_orders
from sdekit.testing.nonlinear import (
    Carried,
    CoxIngersollRoss,
    ExactProblem,
    Image,
    LogNormalMixture,
    exact_problems,
)
from sdekit.testing.orders import ObservedOrder, observed_order
from sdekit.testing.polynomial import Polynomial, PolynomialProblem, polynomial_problems
from sdekit.testing.problems import FAMILIES, OrderProblem, gaussian_problem, order_problems
from sdekit.testing.residuals import continuity_residual, fokker_planck_residual
from sdekit.testing.sde_path import SampledPath
from sdekit.testing.sde_problems import SDEProblem, sde_problems

__all__ = [
    "FAMILIES",
    "Carried",
    "Conformance",
    "CoxIngersollRoss",
    "Diffeomorphism",
    "ExactProblem",
    "Image",
    "LocalOrders",
    "LogNormalMixture",
    "ObservedOrder",
    "OrderProblem",
    "Polynomial",
    "PolynomialProblem",
    "SDEProblem",
    "SDEReport",
    "SampledPath",
    "Sinh",
    "SinhShear",
    "StateNoise",
    "check_sde",
    "check_solver",
    "continuity_residual",
    "exact_problems",
    "fokker_planck_residual",
    "gaussian_problem",
    "local_orders",
    "observed_order",
    "order_problems",
    "polynomial_problems",
    "sde_problems",
    "state_noises",
    "strategies",
]
