"""check_solver: what sdekit promises of its own solvers, verified on anyone's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdekit.errors import ConformanceError, OptionError, SolverMismatchError
from sdekit.solvers.base import Order, PlanSolver, Solver, Stepper
from sdekit.testing.adaptive_checks import ADAPTIVE_CHECKS
from sdekit.testing.orders import ObservedOrder, as_solver, observed_order
from sdekit.testing.plan_checks import PLAN_CHECKS
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.problems import (
    FAMILIES,
    HIGH,
    HIGH_STEPS,
    OrderProblem,
    gaussian_problem,
    limited_by_start,
    order_problems,
)
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.stepper_checks import STEPPER_CHECKS
from sdekit.testing.subject import Check, Trial, global_state

__all__ = ["Conformance", "check_solver"]

_TOLERANCE = 0.15
_HIGHEST_ON_STEPS = 4
_HIGHEST, _HIGHEST_STEPS = 7, (8, 12, 16, 24)
_STRONG_STEPS = (16, 32, 64)  # a second or two; with more the sampled paths cost more than they show


@dataclass(frozen=True)
class Conformance:
    """The checks that a solver passed.

    Attributes:
        solver: its label.
        checks: the name of each check, with what it found.
        orders: the orders measured.
    """

    solver: str
    checks: dict[str, str]
    orders: tuple[ObservedOrder, ...]

    def __str__(self) -> str:
        lines = [f"{self.solver} passes {len(self.checks)} checks"]
        lines += [f"  {name}: {detail}" for name, detail in self.checks.items()]
        return "\n".join(lines + [f"  {order}" for order in self.orders])


def check_solver(
    solver: str | Solver | type[Solver],
    *,
    grids: Sequence[str] = FAMILIES,
    problems: Sequence[OrderProblem] | None = None,
    steps: Sequence[int] | None = None,
    orders: bool = True,
) -> Conformance:
    """Verify that a solver keeps what sdekit promises, and reaches the orders that it declares.

    A solver of plans is checked for well-formed and repeatable plans, JSON, the number of model calls, agreement of the
    tensor route with the plan's meaning, seeds, independence of the rows of a batch, NaN that stays in its row, dtypes
    and global state; a stepper for what of this concerns it, and for its use of increments; an adaptive solver for
    errors that follow the tolerance, landing, and rows that do not know of each other. Both must be frozen values that
    can be pickled. Declared orders are measured, and must be reached to within 0.15: on each route that the solver has,
    weak ones on that of plans. Strong orders are those for the additive noise of a reverse SDE. A stepper is measured
    on every noise class for which it declares orders, in both directions of time: strong ones along paths, see
    `sde_problems`, weak ones by one step, see `polynomial_problems`.

    Args:
        solver: a name, a solver object, or a class, which is made with its default options.
        grids: the families on which orders are measured on the first problem; on the others it is the first family.
        problems: default those on VP, EDM and RectifiedFlow; on the short range of "start" in `order_problems` for
            solvers that their first steps limit. Weak orders are measured on `gaussian_problem()` of their processes.
            Strong orders, and deterministic ones up to 4 of the steps of a solver that also makes plans, are measured
            on the first problem and family only. Orders 5 and more, of solvers of several calls a step, reach rounding
            there before they show: they are measured on `order_problems()["sharp"]` and the first family, at fewer
            steps. Orders by noise class have problems of their own.
        steps: for `observed_order`; strong orders need fewer, by default 16, 32 and 64.
        orders: False leaves out the orders, which take most of the time.

    Returns:
        A `Conformance`, which prints as a report.

    Raises:
        ConformanceError: naming the first check that fails and the numbers found.
        UnknownNameError, InterfaceError: for what is not a solver.
    """
    method = as_solver(solver)
    passed: dict[str, str] = {}
    checks: dict[str, Check] = {"interface": _interface, "frozen value": _frozen}
    checks |= PLAN_CHECKS if isinstance(method, PlanSolver) else {}
    checks |= STEPPER_CHECKS if isinstance(method, Stepper) else {}
    checks |= ADAPTIVE_CHECKS if method.adaptive else {}
    for name, check in checks.items():
        with global_state(Trial(method, "global state")):
            passed[name] = _run(check, Trial(method, name))
    passed["global state"] = "generators and settings as they were"
    found = _orders(Trial(method, "order"), tuple(grids), problems, steps) if orders else []
    return Conformance(method.label, passed, tuple(found))


def _run(check: Check, trial: Trial) -> str:
    """A solver may raise anything; whatever it is, the report names the check and keeps the cause."""
    try:
        return check(trial)
    except ConformanceError:
        raise
    except Exception as error:
        raise trial.broken(
            f"{type(error).__name__}: {error}", "no error", "Correct the solver for this case."
        ) from error


def _interface(trial: Trial) -> str:
    """The declarations are of the kinds that sdekit reads."""
    solver = trial.solver
    if not isinstance(solver.declared, Order):
        raise trial.broken(f"declared = {solver.declared!r}", "an Order", "Set declared = Order(deterministic=...).")
    fixed = solver.fixed_stochasticity
    if not (fixed is None or (isinstance(fixed, (int, float)) and 0 <= fixed < float("inf"))):
        raise trial.broken(f"fixed_stochasticity = {fixed!r}", "None or a number >= 0", "Set one of them.")
    if isinstance(solver, Stepper) and solver.needs not in ("ode", "sde", "additive"):
        raise trial.broken(f"needs = {solver.needs!r}", "'ode', 'sde' or 'additive'", "Set one of them.")
    return "declarations of the right kinds"


def _frozen(trial: Trial) -> str:
    """A solver is a value: nothing can be set on it, equal options make equal solvers, and it can be pickled."""
    solver = trial.solver
    advice = "Make it a frozen dataclass at the top level of a module, with its options as fields."
    for name in (*vars(solver), "a_new_attribute"):
        try:
            setattr(solver, name, getattr(solver, name, None))
        except (AttributeError, TypeError):
            continue
        raise trial.broken(f"attribute {name!r}, which could be set", "a frozen object", advice)
    if not dataclasses.is_dataclass(solver) or copy.deepcopy(solver) != solver:
        raise trial.broken("a copy that is not equal", "a value", advice)
    try:
        pickle.dumps(solver)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise trial.broken(f"{type(error).__name__}: {error}", "a solver that can be pickled", advice) from error
    return "frozen, comparable, picklable"


def _orders(
    trial: Trial, families: tuple[str, ...], problems: Sequence[OrderProblem] | None, steps: Sequence[int] | None
) -> list[ObservedOrder]:
    if not families:
        raise OptionError("grids", got="none", expected="at least one family", fix="Leave it out for four.")
    standard = order_problems()
    flows = [standard[n] for n in ("vp", "edm", "rectified_flow")] if problems is None else list(problems)
    note = trial.solver.declared.note
    if problems is None and limited_by_start(note):
        # On a long range the first steps' error may cancel part of the others' for many doublings.
        flows = [replace(problem, low=standard["start"].low, high=standard["start"].high) for problem in flows]
    order: Any = trial.solver.declared.deterministic or 0
    if problems is None and steps is None and order >= HIGH and getattr(trial.solver, "calls_per_step", 1) > 1:
        flows, families = [standard["sharp"]], families[:1]
        steps = HIGH_STEPS if order < _HIGHEST else _HIGHEST_STEPS
    measured = []
    for i, problem in enumerate(flows):
        for family in families if i == 0 else families[:1]:
            measured += _measure(trial, problem, family, steps)
    if flows:
        measured += _on_steps(trial, flows[0], families[0], steps)
        measured += _strong(trial, flows[0], families[0], steps)
    return measured + _by_noise(trial)


def _measure(trial: Trial, problem: OrderProblem, family: str, steps: Sequence[int] | None) -> list[ObservedOrder]:
    """The declared deterministic and weak orders on one problem and one family of grids."""
    solver, found = trial.solver, []
    if solver.declared.deterministic is not None:
        found.append(_reached(trial, observed_order(solver, "deterministic", problem, family, steps)))
    if solver.declared.weak is not None and trial.plans:
        gaussian = gaussian_problem(problem.process, problem.low, problem.high)
        for tau in [0.5, 1.0] if solver.fixed_stochasticity is None else [None]:
            try:
                order = observed_order(solver, "weak", gaussian, family, steps, stochasticity=tau)
            except SolverMismatchError:
                continue  # the solver refuses this stochasticity, as it may
            found.append(_reached(trial, order))
    return found


def _on_steps(trial: Trial, problem: OrderProblem, family: str, steps: Sequence[int] | None) -> list[ObservedOrder]:
    """The deterministic order of the steps of a solver that makes plans too; higher ones hide in rounding."""
    solver = trial.solver
    order = solver.declared.deterministic
    if not (trial.plans and isinstance(solver, Stepper) and order is not None and order <= _HIGHEST_ON_STEPS):
        return []
    return [_reached(trial, observed_order(solver, "deterministic", problem, family, steps, route="step"))]


def _strong(trial: Trial, problem: OrderProblem, family: str, steps: Sequence[int] | None) -> list[ObservedOrder]:
    """The declared strong order, on each route."""
    solver, found = trial.solver, []
    if solver.declared.strong is None:
        return []
    counts = _STRONG_STEPS if steps is None else steps
    for route, kind in (("plan", PlanSolver), ("step", Stepper)):
        if not isinstance(solver, kind):
            continue
        try:
            order = observed_order(solver, "strong", problem, family, counts, route=route)
        except SolverMismatchError as error:
            raise trial.broken(
                f"a declared strong order of {solver.declared.strong}, but {error.got}",
                error.expected,
                f"{error.fix} Or declare strong=None.",
            ) from error
        found.append(_reached(trial, order))
    return found


def _by_noise(trial: Trial) -> list[ObservedOrder]:
    """The declared orders of a stepper on the noise classes, in both directions of time."""
    solver = trial.solver
    if not isinstance(solver, Stepper):
        return []
    found = []
    for kind, problems in (("strong", sde_problems()), ("weak", polynomial_problems())):
        names = [name for name, orders in solver.declared.noise.items() if getattr(orders, kind) is not None]
        both = [problems[way] for name in names for way in (name, f"{name}, down")]
        found += [_reached(trial, observed_order(solver, kind, problem)) for problem in both]
    return found


def _reached(trial: Trial, order: ObservedOrder) -> ObservedOrder:
    if not order.reaches(tolerance=_TOLERANCE):
        raise trial.broken(
            f"{order}", f"at least {order.declared} - {_TOLERANCE}", "Correct the solver, or declare less."
        )
    return order
