"""Tools with which users test their own solvers, and with which sdekit tests its own."""

from __future__ import annotations

from sdekit.testing import strategies
from sdekit.testing.conformance import Conformance, check_solver
from sdekit.testing.orders import ObservedOrder, observed_order
from sdekit.testing.problems import FAMILIES, OrderProblem, gaussian_problem, order_problems

__all__ = [
    "FAMILIES",
    "Conformance",
    "ObservedOrder",
    "OrderProblem",
    "check_solver",
    "gaussian_problem",
    "observed_order",
    "order_problems",
    "strategies",
]
