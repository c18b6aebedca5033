"""Every declared order is reached, on every family of grids, and where more is measured the declaration is the limit.

Orders are measured on intervals with sigma > 0 at both ends. The sweep over all processes is in test_orders_slow.py.
"""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.solvers import PlanSolver
from sdekit.testing import FAMILIES, gaussian_problem, observed_order, order_problems
from tests.order_cases import CASES, DETERMINISTIC, LIMITED, WEAK, OrderCase

PROBLEMS = order_problems()
SHORT, OVER = 0.15, 0.35
IRREGULAR = (
    "dpmpp_2m()",
    "exp_adams(order=3,prediction=data,starter=single_step)",
)
IRREGULAR_WEAK = ("ddpm()", "dpmpp_2m_sde()", "edm_heun(churn=4.0)", "dpmpp_2s_ancestral()", "dpmpp_sde()")


def _fast() -> list[tuple[OrderCase, str]]:
    """Solvers as their names stand for them, and every other set of options with noise, each on one of the four
    families, in turn. tests/plan/test_interpret.py has deterministic options; the slow sweep has all of both, with more
    families and the other processes.
    """
    chosen = []
    for i, case in enumerate(CASES):
        named = case.default and case.tau in (None, 0.0, 1.0)
        if not (named or (case.kind == "weak" and not case.rotated and not callable(case.tau) and i % 2)):
            continue
        few = case.rotated and case.kind == "deterministic"
        family = FAMILIES[0] if case.on is not None else ("half_log_snr", "karras")[i % 2] if few else FAMILIES[i % 4]
        chosen.append((case, family))
    return chosen


def _steps(case: OrderCase) -> tuple[int, ...] | None:
    """Few where few show the order: half of all calls are those of the largest number of steps."""
    if case.limited and "final_order" not in dict(case.options):
        return (20, 40, 80, 160)  # with more the slope only falls, see below
    declared = case.solver.declared.deterministic if case.kind == "deterministic" else None
    if declared is not None and case.rotated:
        return (20, 40, 80)
    return (20, 40, 80) if declared is not None and declared <= 2 else None


@pytest.mark.parametrize("case, grid", _fast(), ids=str)
def test_declared_order_is_reached(case: OrderCase, grid: str):
    """On VP. More than 0.35 above the declaration is measured only where the first steps are the limit, which shows on
    a shorter range: see `test_ramped_start_is_the_limit`."""
    found = case.observe(grid=grid, steps=case.steps or _steps(case))
    assert found.declared is not None and found.reaches(tolerance=SHORT), str(found)
    assert case.limited or found.value <= found.declared + OVER, str(found)


def test_every_registered_solver_is_measured():
    """With its default options, in each kind for which it declares an order."""
    for info in sdekit.solvers.available():
        default = sdekit.solvers.get(info.name)
        kinds = {c.kind for c in CASES if c.default and c.name == info.name}
        # The law of an output is computed from a plan; the weak orders of the others are in tests/solvers.
        has = ("deterministic", "weak") if isinstance(default, PlanSolver) else ("deterministic",)
        declared = {k for k in has if getattr(default.declared, k) is not None}
        assert (declared or default.declared.note.startswith("none")) and declared <= kinds, info.name


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c.default or c.name == "exp_adams" else pytest.mark.slow) for c in LIMITED],
    ids=str,
)
def test_first_or_last_step_is_the_limit(case: OrderCase):
    """A step of order q taken once costs h^{q+1}, so the whole is of order q + 1 at most, however many outputs an
    interior step interpolates. A ramp begins with q = 1; final_order is q of the last step.

    On half-log-SNR -2 to 2 such steps fall where the data prediction hardly moves: their error is small, and slopes up
    to 3.7 are measured while that of the interior steps dies out. On 0 to 1 they weigh as much as all others, and what
    is declared is what is measured. With stochasticity the order of an interior step is 2 besides.
    """
    start = PROBLEMS["start"] if case.kind == "deterministic" else gaussian_problem(low=0.0, high=1.0)
    steps = (20, 40, 80, 160) if case.kind == "deterministic" else (80, 160, 320)
    found = case.observe(start, "half_log_snr", steps)
    assert found.declared is not None and abs(found.value - found.declared) <= 0.25, str(found)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [3, 4, 5])
def test_the_starting_error_alone_is_of_order_two(order: int, prediction: str):
    """Self-started minus started by a single-step method of order 4: the term that the ramp adds, on the long range."""
    problem = PROBLEMS["vp"]
    ends = {}
    for starter in ("ramp", "single_step"):
        solver = sdekit.solvers.get("exp_adams", order=order, prediction=prediction, starter=starter)
        for steps in (40, 80, 160):
            times = problem.grid("half_log_snr", steps)
            ends[starter, steps] = sdekit.solve(problem.model, problem.starts(), times, solver).x
    terms = [float((ends["ramp", n] - ends["single_step", n]).norm()) for n in (40, 80, 160)]
    slopes = torch.log2(torch.tensor(terms[:-1]) / torch.tensor(terms[1:]))
    assert float((slopes - 2).abs().max()) < 0.3, f"{terms}, {slopes}"


@pytest.mark.parametrize("order", [3, 4])
def test_without_its_low_order_step_the_order_is_full(order: int):
    """The other half of the proof: on the same problem the full order is reached without that step."""
    solver = sdekit.solvers.get("exp_adams", order=order, starter="single_step")
    found = observed_order(solver, problem=PROBLEMS["start"], steps=(40, 80, 160))
    assert found.declared == order and found.reaches(tolerance=SHORT), str(found)


@pytest.mark.parametrize(
    "case",
    [c for c in DETERMINISTIC if str(c) in IRREGULAR],
    ids=str,
)
def test_irregular_steps_keep_the_order(case: OrderCase):
    """Steps of independent random lengths: fixed multistep coefficients would fall to order 1 here."""
    found = case.observe(grid="irregular", steps=(20, 40, 80))
    assert found.reaches(tolerance=0.3), str(found)


@pytest.mark.parametrize("case", [c for c in WEAK if str(c) in IRREGULAR_WEAK], ids=str)
def test_irregular_steps_keep_the_weak_order(case: OrderCase):
    found = case.observe(grid="irregular", steps=(20, 40, 80, 160))
    assert found.reaches(tolerance=0.3), str(found)


def test_inflated_churn_declares_nothing_because_it_does_not_converge():
    """s_noise = 1.007 adds too much variance by an amount that does not depend on the number of steps."""
    solver = sdekit.solvers.get("edm_heun", churn=4.0, s_noise=1.007)
    assert solver.declared.weak is None and solver.declared.deterministic is None
    assert sdekit.solvers.get("edm_heun", s_noise=1.007).declared.deterministic == 2  # no churn, no noise
    found = observed_order(solver, "weak", steps=(160, 320, 640))
    assert abs(found.value) < 0.1 and found.errors[-1] > 1e-3, str(found)


def test_dpmpp_2m_sde_without_noise_is_dpmpp_2m():
    """eta = 0 leaves the probability flow: a deterministic order, and no weak one."""
    solver = sdekit.solvers.get("dpmpp_2m_sde", eta=0.0)
    found = observed_order(solver)
    assert (solver.declared.deterministic, solver.declared.weak) == (2, None)
    assert found.reaches() and found.errors == observed_order("dpmpp_2m").errors
