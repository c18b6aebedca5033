"""check_solver accepts sound solvers and names the promise that each broken one breaks."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import ConformanceError, InterfaceError, OptionError, UnknownNameError
from sdekit.solvers.base import PlanSolver, Stepper
from sdekit.solvers.euler_maruyama import EulerMaruyama
from sdekit.testing import FAMILIES, check_solver, order_problems
from sdekit.testing.orders import as_solver
from tests.testing import broken

QUICK = {"grids": ("half_log_snr",), "problems": [order_problems()["vp"]], "steps": (20, 40, 80)}

BROKEN = [
    (broken.DeclaresANumber, "interface"),
    (broken.Mutable, "frozen value"),
    (broken.HoldsAFunction, "frozen value"),
    (broken.DrawsGlobally, "global state"),
    (broken.DrawsFromNumPy, "global state"),
    (broken.SetsDefaultDtype, "global state"),
    (broken.WrongSigma, "plan"),
    (broken.OutsideTheDomain, "plan"),
    (broken.FlatClock, "plan"),
    (broken.RefusesEverything, "plan"),
    (broken.NeedsTwoSteps, "plan"),
    (broken.Fickle, "repeatable plan"),
    (broken.PopsTheGrid, "repeatable plan"),
    (broken.ChangingPlan, "repeatable plan"),
    (broken.IgnoresStochasticity, "stochasticity"),
    (broken.Inexact, "JSON"),
    (broken.Cancelling, "interpreter"),
    (broken.Overdeclared, "order"),
    (broken.WritesToX, "stepper: input"),
    (broken.NarrowsX, "stepper: input"),
    (broken.ForwardOnly, "stepper: input"),
    (broken.OwnNoise, "global state"),
    (broken.Remembers, "stepper: repeatable"),
    (broken.Miscounted, "stepper: drift calls"),
    (broken.SkipsTheCounter, "stepper: drift calls"),
    (broken.NoiseTwice, "stepper: increments"),
    (broken.NoiseUnscaled, "stepper: increments"),
    (broken.BatchNorm, "stepper: batch split"),
    (broken.SpreadsNaN, "stepper: masked rows"),
    (broken.HalfStep, "order"),
]


@pytest.mark.parametrize("solver, check", BROKEN, ids=[b[0].__name__ for b in BROKEN])
def test_broken_solvers_are_told_apart(solver, check):
    with pytest.raises(ConformanceError) as caught:
        check_solver(solver, **QUICK)
    assert caught.value.check == check, str(caught.value)
    assert solver.__name__ in str(caught.value) and repr(check) in str(caught.value)
    assert caught.value.got and caught.value.expected and caught.value.fix
    assert isinstance(caught.value, AssertionError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.check, again.solver, str(again)) == (check, caught.value.solver, str(caught.value))


@pytest.mark.parametrize("solver", [broken.Good, broken.GoodStepper(), "dpmpp_2m_sde", "heun", EulerMaruyama], ids=str)
def test_sound_solvers_pass(solver):
    report = check_solver(solver, **QUICK)
    stepper, planner = "stepper: increments" in report.checks, "plan" in report.checks
    assert stepper or planner
    assert report.orders and all(order.reaches() for order in report.orders)
    text = str(report)
    assert all(name in text for name in report.checks) and "measured" in text


# What is declared and not so, and what the report says of it.
STRONG = [
    (broken.StrongEuler, r"strong order on vp.*plan route.*measured (0\.9|1\.0).*declared 1\.5"),
    (broken.AreaOfTheOtherSign, r"strong order on vp.*plan route.*measured (0\.9|1\.[01]).*declared 1\.5"),
    (broken.StepAreaOfTheOtherSign, r"strong order on vp.*step route.*measured (0\.9|1\.[01]).*declared 1\.5"),
    (broken.OverdeclaredStepper, r"strong order on vp.*step route.*measured (0\.9|1\.0).*declared 1\.5"),
    (broken.WithoutAClock, "strong order of 1, but.*without a clock.*noise_clock"),
    (broken.StrongODE, "strong order of 1, but.*above 0.*strong=None"),
    (broken.ShortSteps, r"deterministic order on vp.*step route.*measured -?0\.[01]"),
]


@pytest.mark.parametrize("solver, match", STRONG, ids=[b[0].__name__ for b in STRONG])
def test_strong_orders_are_measured_on_each_route(solver, match):
    with pytest.raises(ConformanceError, match=match) as caught:
        check_solver(solver, **QUICK | {"steps": (16, 32, 64)})
    assert caught.value.check == "order"


def test_strong_orders_are_reported_for_each_route():
    report = check_solver("sra1", **QUICK | {"steps": (16, 32, 64)})
    strong = [order for order in report.orders if order.kind == "strong"]
    (problem,) = {order.problem for order in strong if order.route == "plan"}
    found = {order.route: order for order in strong if order.problem == problem}
    assert found["plan"].errors == pytest.approx(found["step"].errors, rel=1e-6)
    assert all(order.declared == 1.5 and order.reaches() for order in found.values())
    assert {o.route for o in report.orders if o.kind == "deterministic"} == {"plan", "step"}


NAMES = [i.name for i in sdekit.solvers.available()]


@pytest.mark.slow
@pytest.mark.parametrize("name, family", list(zip(NAMES, itertools.cycle(FAMILIES), strict=False)), ids=str)
def test_every_registered_solver_passes_with_its_orders(name: str, family: str):
    """On one family of grids each, in turn; test_orders_slow.py has the others.

    High orders come out of rounding on one of them only, and sosri leaves the domain on others.
    """
    high = (as_solver(name).declared.deterministic or 0) >= 5
    options = {"grids": ("half_log_snr" if high or name == "sosri" else family,)}
    report = check_solver(name, **options)
    solver = as_solver(name)
    kinds = ("deterministic", "strong", "weak") if isinstance(solver, PlanSolver) else ("deterministic", "strong")
    wanted = {kind for kind in kinds if getattr(solver.declared, kind) is not None}
    for orders in solver.declared.noise.values() if isinstance(solver, Stepper) else ():
        wanted |= {kind for kind in ("strong", "weak") if getattr(orders, kind) is not None}
    assert {order.kind for order in report.orders} == wanted


@pytest.mark.parametrize("name", NAMES[::3])
def test_every_registered_solver_keeps_the_promises(name: str):
    """All but the orders, which test_orders.py measures; the slow test above has all solvers, with theirs."""
    report = check_solver(name, orders=False)
    assert len(report.checks) >= (14 if isinstance(as_solver(name), PlanSolver) else 9) and not report.orders


def test_a_solver_made_inside_a_function_cannot_be_sent_to_a_worker():
    @dataclasses.dataclass(frozen=True)
    class Local(broken.Good):
        """As sound as its base, but pickle cannot find it."""

    with pytest.raises(ConformanceError, match="pickle"):
        check_solver(Local, orders=False)


def test_numbers_are_in_the_message():
    with pytest.raises(ConformanceError, match=r"measured 0\.9\d.*declared 2.*at least 2 - 0\.15"):
        check_solver(broken.Overdeclared, **QUICK)


def test_state_is_put_back_after_a_solver_that_changed_it():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for solver in (broken.DrawsGlobally, broken.DrawsFromNumPy, broken.SetsDefaultDtype):
        with pytest.raises(ConformanceError):
            check_solver(solver, **QUICK)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_what_is_no_solver_is_refused():
    with pytest.raises(UnknownNameError, match="dpmpp_2m"):
        check_solver("dpmpp2m")
    with pytest.raises(InterfaceError, match="function"):
        check_solver(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="class PlanSolver"):
        check_solver(PlanSolver)  # abstract
    with pytest.raises(OptionError, match="grids"):
        check_solver("ddim", grids=())
