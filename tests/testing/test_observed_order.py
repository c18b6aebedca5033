"""observed_order: what it takes, what it returns and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, NonFiniteError, OptionError, SolverMismatchError, UnknownNameError
from sdekit.solvers import get
from sdekit.solvers.base import PlanSolver
from sdekit.solvers.ddim import DDIM
from sdekit.testing import OrderProblem, gaussian_problem, observed_order, order_problems
from tests.testing import mutants
from tests.testing.broken import Good, GoodStepper

FEW = (20, 40, 80)
TARGET = order_problems()["vp"].target


def test_names_objects_and_classes_are_taken_alike():
    found = [observed_order(s, steps=FEW) for s in ("ddim", DDIM(), DDIM)]
    assert found[0] == found[1] == found[2]
    assert found[0].solver == "ddim(eta=0.0)" and found[0].declared == 1
    assert found[0].steps == FEW and found[0].nfe == FEW
    assert found[0].problem == "vp" and found[0].grid == "half_log_snr" and found[0].kind == "deterministic"
    assert found[0].low <= found[0].value <= found[0].high


def test_errors_are_distances_to_the_exact_end():
    """The reported errors, once more by hand."""
    problem = order_problems()["vp"]
    found = observed_order("heun", grid="karras", steps=FEW)
    for steps, error in zip(found.steps, found.errors, strict=True):
        x = sdekit.solve(problem.model, problem.starts(), problem.grid("karras", steps), "heun").x
        assert error == pytest.approx(float((x - problem.exact()).square().sum(1).mean().sqrt()), rel=1e-12)
    assert found.nfe == (40, 80, 160)


def test_user_solvers_and_steppers_are_measured():
    assert observed_order(Good, steps=FEW).reaches()
    stepper = observed_order(GoodStepper, steps=FEW)
    in_t = observed_order(get("euler", clock="t"), steps=FEW)
    assert stepper.errors == pytest.approx(in_t.errors, rel=1e-9)  # a bare ODE is solved in t
    assert stepper.nfe == FEW


def test_grids_may_be_functions():
    def mine(process, steps, *, t_start, t_end):
        return torch.linspace(t_start, t_end, steps + 1, dtype=torch.float64)

    found = observed_order("ddim", grid=mine, steps=FEW)
    assert found.grid == "mine"
    assert found.errors == pytest.approx(observed_order("ddim", grid="uniform", steps=FEW).errors, rel=1e-6)


def test_reaches_and_text():
    found = observed_order("ddim", steps=FEW)
    assert found.reaches() and found.reaches(1.1) and not found.reaches(1.3) and found.reaches(1.3, tolerance=0.4)
    for part in ("ddim(eta=0.0)", "deterministic", "vp", "half_log_snr", "declared 1", "20: ", f"{found.value:.2f}"):
        assert part in str(found)
    assert observed_order("heun", "weak", steps=FEW).declared is None
    assert "declared none" in str(observed_order("heun", "weak", steps=FEW))
    assert observed_order("heun", "weak", steps=FEW).reaches()


def test_an_exact_solver_has_infinite_order():
    """Data prediction is constant on a point mass, and DDIM then exact on any grid."""
    target = sdekit.targets.gaussian([0.3, -0.7], 0.0)
    problem = OrderProblem("point", sdekit.VP(), target)
    found = observed_order("ddim", problem=problem, steps=FEW)
    assert math.isinf(found.value) and found.reaches() and max(found.errors) < 1e-11
    # And a solver that is not exact there has its order.
    assert observed_order(get("euler", clock="t"), problem=problem, steps=FEW).value == pytest.approx(1, abs=0.2)


def test_default_stochasticity():
    assert observed_order("dpmpp_2m", "weak", steps=FEW).stochasticity == 1.0
    assert observed_order("dpmpp_2m", steps=FEW).stochasticity == 0.0
    assert observed_order("ddim", "weak", steps=FEW).stochasticity == 0.0  # its own
    assert observed_order("dpmpp_2m", "weak", steps=FEW, stochasticity=0.5).stochasticity == 0.5


@dataclass(frozen=True)
class FlowStepper(GoodStepper):
    """For ODEs alone."""

    needs = "ode"


def test_a_stepper_of_sdes_has_a_weak_order():
    found = observed_order(GoodStepper, "weak")
    assert found.problem == "general" and found.route == "step" and abs(found.value - 1) < 0.05, str(found)


def test_kinds_that_do_not_fit():
    with pytest.raises(UnknownNameError, match="'weak'"):
        observed_order("ddim", "waek")
    with pytest.raises(SolverMismatchError, match="above 0"):
        observed_order("ddim", "strong")
    with pytest.raises(SolverMismatchError, match="1, which the solver implies"):
        observed_order("ddpm")
    with pytest.raises(SolverMismatchError, match="draws noise"):
        observed_order(get("edm_heun", churn=4.0))
    with pytest.raises(OptionError, match="kind='weak'"):
        observed_order("dpmpp_2m", stochasticity=0.5)
    with pytest.raises(SolverMismatchError, match="a stepper only"):
        observed_order(FlowStepper, "weak")
    with pytest.raises(SolverMismatchError, match="a stepper only"):
        observed_order(GoodStepper, stochasticity=1.0)
    with pytest.raises(OptionError, match="one Gaussian"):
        observed_order("ddpm", "weak", order_problems()["vp"])


def test_routes():
    """Of a solver that has both, either; the flow's clock is t on that of steps."""
    plan, step = (observed_order(get("heun", clock="t"), steps=FEW, route=route) for route in ("plan", "step"))
    assert (plan.route, step.route) == ("plan", "step") and step.errors == pytest.approx(plan.errors, rel=1e-9)
    assert observed_order(GoodStepper, steps=FEW).route == "step" and "step route" in str(step)
    with pytest.raises(UnknownNameError, match="'step'"):
        observed_order("heun", route="stp")
    for solver, kind, route in (("ddim", "deterministic", "step"), (GoodStepper, "deterministic", "plan")):
        with pytest.raises(SolverMismatchError, match="route that the solver has"):
            observed_order(solver, kind, route=route)
    with pytest.raises(SolverMismatchError, match="weak"):
        observed_order("euler_maruyama", "weak", route="step")


@pytest.mark.slow
def test_fewer_steps_where_the_default_ones_are_all_at_rounding():
    found = observed_order("dop853")
    assert found.steps[:4] == (6, 8, 12, 16) and found.reaches() and found.value < 8.35, str(found)


@pytest.mark.parametrize("steps", [(20, 40), (20, 20, 40), (80, 40, 20), (0, 20, 40), ()])
def test_step_counts_that_show_no_order(steps):
    with pytest.raises(OptionError, match="steps"):
        observed_order("ddim", steps=steps)


def test_what_is_no_solver():
    with pytest.raises(UnknownNameError, match="dpmpp_2m"):
        observed_order("dpmpp2m")
    with pytest.raises(InterfaceError, match="int"):
        observed_order(3)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="class PlanSolver"):
        observed_order(PlanSolver)
    with pytest.raises(UnknownNameError, match="karras"):
        observed_order("ddim", grid="karas")


def test_steps_are_added_until_the_slopes_have_settled():
    """Equal steps in t end with long ones in half-log-SNR: 160 steps are not enough for order 3 there."""
    solver = get("exp_adams", order=3, prediction="noise", starter="single_step")
    short = observed_order(solver, grid="uniform", steps=(20, 40, 80, 160))
    found = observed_order(solver, grid="uniform")
    assert not short.reaches() and found.reaches()
    assert found.steps[:4] == (20, 40, 80, 160) and found.steps[4] == 320 and max(found.steps) <= 1280
    assert found.errors[:4] == short.errors and len(found.slopes) == len(found.steps) - 1
    assert observed_order("ddim").steps == (20, 40, 80, 160)  # settled at once


def test_a_problem_that_is_too_easy_says_so():
    with pytest.raises(OptionError, match="errors above rounding") as caught:
        observed_order("rk4", problem=OrderProblem("short", sdekit.VP(), TARGET, 0.0, 0.05), steps=(2, 20, 40))
    assert any("errors by steps" in note for note in caught.value.__notes__)


def test_a_diverging_solver_is_an_error_not_an_order():
    def blow(row, levels):
        return mutants.with_outputs(row, {age: 1e200 * w for age, w in row.base.outputs})

    with pytest.raises(NonFiniteError):
        observed_order(mutants.Rewritten(get("euler", clock="t"), blow))


def test_gaussian_problem_on_every_process_agrees_in_half_log_snr():
    """Data-prediction tables depend on half-log-SNR alone: the relative weak error is the same on each process."""
    solver = get("dpmpp_2m_sde")
    found = [
        observed_order(solver, "weak", gaussian_problem(p, -1.0, 1.0), steps=FEW).errors
        for p in (sdekit.VP(), sdekit.VE(), sdekit.RectifiedFlow())
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-9) and found[2] == pytest.approx(found[0], rel=1e-9)


@pytest.mark.parametrize("name, problem", [("sa_solver", "start"), ("tsit5", "sharp"), ("ddim", "vp")])
def test_the_default_problem_shows_the_order(name, problem):
    """On "vp" they read 2.7 for 3 and 4.4 for 5: the first steps hide, and errors there are soon at rounding."""
    found = observed_order(name)
    assert found.problem == problem and found.reaches(), str(found)


@pytest.mark.slow
def test_default_problems_show_every_order():
    for info in sdekit.solvers.available():
        if sdekit.solvers.get(info.name).declared.deterministic is not None:
            found = observed_order(info.name)
            assert found.reaches(), str(found)
