"""Every declared strong order is reached: errors of paths against a finer solution of another family.

The problems and planted mistakes that show what the measure can see are in testing/test_strong.py.
"""

from __future__ import annotations

import pytest

import sdekit
from sdekit.solvers import PlanSolver
from sdekit.testing import order_problems
from tests.order_cases import STRONG, OrderCase

PROBLEMS = order_problems()
SHORT = 0.15


# Methods for general SDEs make no plans; their orders by noise class are in testing/test_sde_orders.py too.
FAST = [c for c in STRONG if c.default and c.tau in (None, 1.0) and isinstance(c.solver, PlanSolver)]


@pytest.mark.parametrize("case", FAST, ids=str)
def test_declared_order_is_reached(case: OrderCase):
    found = case.observe(steps=(16, 32, 64))
    assert found.declared is not None and found.reaches(tolerance=SHORT), str(found)
    # At few steps terms of order 2 still show in methods of order 3/2.
    assert found.value <= found.declared + (0.25 if found.declared == 1 else 0.6), str(found)


def test_every_registered_solver_is_measured():
    """With its default options, where it declares a strong order."""
    measured = {c.name for c in STRONG if c.default}
    declared = {i.name for i in sdekit.solvers.available() if i.order.strong is not None}
    assert declared <= measured, declared - measured


@pytest.mark.slow
@pytest.mark.parametrize("case", STRONG, ids=str)
def test_declared_order_is_reached_at_more_steps(case: OrderCase):
    found = case.observe()
    assert found.reaches(tolerance=SHORT) and found.high > found.declared - 0.1, str(found)
    assert found.value <= found.declared + (0.25 if found.declared == 1 else 0.6), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name, grid", [("edm", "karras"), ("rectified_flow", "uniform"), ("ve", "random")])
@pytest.mark.parametrize("solver", ["ddpm", "euler_maruyama", "exp_sra", "sra1"])
def test_declared_order_is_reached_on_other_processes(solver: str, name: str, grid: str):
    found = sdekit.testing.observed_order(solver, "strong", PROBLEMS[name], grid, (16, 32, 64))
    assert found.reaches(tolerance=SHORT), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["sra1", "shark"])
def test_order_three_halves_is_the_limit(solver: str):
    """Not 2: with more steps the slopes come down."""
    found = sdekit.testing.observed_order(solver, "strong", steps=(80, 160, 320))
    assert 1.35 <= found.value <= 1.75, str(found)
