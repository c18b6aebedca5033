"""The order of convergence of a solver, measured against exact answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from sdekit import solvers
from sdekit.errors import InterfaceError, OptionError, SdekitError, SolverMismatchError, UnknownNameError, suggest
from sdekit.sde import Stochasticity, make_ode
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver, Solver, Stepper
from sdekit.testing.estimate import Estimate, estimate, least_squares
from sdekit.testing.local_order import LOCAL_STEPS, local_orders
from sdekit.testing.polynomial import PolynomialProblem, polynomial_problems
from sdekit.testing.problems import SEEDED, OrderProblem, gaussian_problem, order_problems, problem_for
from sdekit.testing.sde_orders import SDE_STEPS, order_on, strong_on_sde, takes
from sdekit.testing.sde_problems import SDEProblem
from sdekit.testing.strong import PATHS, strong_estimate, strong_run
from sdekit.testing.weak import weak_error
from sdekit.times import check_count

__all__ = ["ObservedOrder", "as_solver", "observed_order"]

KINDS = ("deterministic", "weak", "strong")
_STEPS = (20, 40, 80, 160)
_COARSE = (6, 8, 12, 16)  # where those are at rounding too soon to show an order, as for order 8
_MOST = 1280
_SETTLED = 0.06  # slopes p + b / N that differ by twice this, then by this, are within 0.09 of p on average
_SEEDS = {"random": 2, "irregular": 8}
_FLOOR = 1e-13  # of the state's scale: references and rounding are seen to be better; ten times that is dropped
_WEAK_FLOOR = 1e-13


@dataclass(frozen=True)
class ObservedOrder:
    """A measured order of convergence.

    Attributes:
        value: the order; inf where the solver is exact on the problem.
        low, high: an interval for it; see `sdekit.testing.estimate`.
        kind: "deterministic", "weak" or "strong".
        solver, problem, grid: what was measured, as text.
        stochasticity: with which the solver was run.
        steps, nfe, errors: the step counts, the model calls made, and the errors, geometric means over seeds.
        slopes: local slopes of log error against log steps, where the errors are above rounding.
        declared: the order that the solver declares, or None.
        route: "plan" or "step", the route that was measured.
    """

    value: float
    low: float
    high: float
    kind: str
    solver: str
    problem: str
    grid: str
    stochasticity: Stochasticity
    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    errors: tuple[float, ...]
    slopes: tuple[float, ...]
    declared: float | None
    route: str = "plan"

    def reaches(self, order: float | None = None, tolerance: float = 0.15) -> bool:
        """Whether the measured order is at least `order`, by default the declared one, less the tolerance."""
        wanted = self.declared if order is None else order
        return wanted is None or self.value >= wanted - tolerance

    def __str__(self) -> str:
        declared = "none" if self.declared is None else f"{self.declared:g}"
        points = ", ".join(f"{n}: {e:.2e}" for n, e in zip(self.steps, self.errors, strict=True))
        return (
            f"{self.solver}, {self.kind} order on {self.problem}, grid {self.grid}, {self.route} route, stochasticity "
            f"{self.stochasticity}: measured {self.value:.2f} in [{self.low:.2f}, {self.high:.2f}], declared "
            f"{declared}; errors by steps {points}"
        )


def observed_order(
    solver: str | Solver | type[Solver],
    kind: str = "deterministic",
    problem: OrderProblem | SDEProblem | PolynomialProblem | None = None,
    grid: str | Callable[..., Tensor] | None = None,
    steps: Sequence[int] | None = None,
    *,
    stochasticity: Stochasticity | None = None,
    route: str | None = None,
) -> ObservedOrder:
    """The order at which a solver converges.

    "deterministic" runs the probability flow from several points and compares with where the exact flow ends. "weak"
    needs a Gaussian target: the law of the output is computed exactly, without sampling, from the exact marginal and,
    where the solver follows the reverse SDE of a known stochasticity, from a fixed point too; the error is a norm over
    all directions of both means and covariances.
    "strong" compares 256 paths, or as many as the problem has starts where these are more, with a finer solution of
    another family on the same Brownian path, see `sdekit.testing.strong`; its interval covers 95 % of resampled sets of
    paths.

    A stepper is measured on an SDE of any noise: "strong" on an `SDEProblem` against the exact solution along each of
    512 paths, see `sdekit.testing.sde_orders`; "weak" by the expectations of one step, without sampling, see
    `sdekit.testing.local_order`.

    Args:
        solver: a name, a solver object, or a class, which is made with its default options.
        kind: "deterministic", "weak" or "strong".
        problem: default `gaussian_problem()` for "weak", else of `order_problems()` "vp", or for a deterministic order
            that the first steps limit "start", and for one of 5 or 6 with several calls a step "sharp". To measure a
            stepper on any SDE, one of `sde_problems()` or your own `SDEProblem`; for "weak" also one of
            `polynomial_problems()`, by default that of the widest noise class that it takes, where it makes no plans.
        grid: a family, see `OrderProblem.grid`; default "half_log_snr", on an `SDEProblem` "uniform". Random ones are
            averaged over seeds.
        steps: three or more rising step counts; default 20 to 160, doubled up to 1280 while the slopes still change,
            except on "irregular" grids and for "strong"; 6 to 16 where errors at 20 to 160 are at rounding; 16, 32 and
            64 on an `SDEProblem`. For the weak order of a stepper one over the lengths of the steps, default 32 to 256.
        stochasticity: for a solver that takes any; default 0, or 1 for "weak" and "strong".
        route: "plan", or "step", on which the flow or the reverse SDE is given as bare drift and diffusion; default
            "plan" where the solver makes plans. The weak order is one of plans.

    Raises:
        UnknownNameError: for an unknown solver, kind or grid, with near names.
        OptionError: for step counts that cannot show an order, or errors at rounding for all but one or two of them.
        SolverMismatchError: for a kind, a stochasticity or a route that the solver does not have.
    """
    method = as_solver(solver)
    if kind not in KINDS:
        raise UnknownNameError("kind", got=repr(kind), expected=" or ".join(map(repr, KINDS)), fix=_near(kind))
    if problem is None and kind == "weak" and isinstance(method, Stepper) and not isinstance(method, PlanSolver):
        problem = _widest(method)
    if isinstance(problem, (SDEProblem, PolynomialProblem)):
        return _on_sde(method, kind, problem, grid, steps, route)
    if problem is None and kind == "deterministic":
        problem, fitting = problem_for(method.declared, getattr(method, "calls_per_step", 1))
        steps = fitting if steps is None else steps
    elif problem is None:
        problem = gaussian_problem() if kind == "weak" else order_problems()["vp"]
    steps_only = _route(method, kind, route) == "step"
    declared = _declared(method, kind)
    family = "half_log_snr" if grid is None else grid
    tau = _stochasticity(method, kind, stochasticity)
    seeds = range(_SEEDS[family]) if isinstance(family, str) and family in SEEDED else range(1)
    measure = _strong if kind == "strong" else _settled
    counts = None if steps is None else tuple(steps)
    found, counts, runs = measure(method, kind, problem, family, seeds, tau, counts, steps_only)
    route = "step" if steps_only else "plan"
    return _observed(method, kind, problem.name, family, tau, found, counts, runs, declared, route)


_Runs = list[list[tuple[float, int]]]


def _observed(
    method: Any,
    kind: str,
    problem: str,
    family: Any,
    tau: Stochasticity,
    found: Estimate,
    counts: Sequence[int],
    runs: _Runs,
    declared: float | None,
    route: str,
) -> ObservedOrder:
    errors = [[error for error, _ in row] for row in runs]
    return ObservedOrder(
        value=found.value,
        low=found.low,
        high=found.high,
        kind=kind,
        solver=method.label,
        problem=problem,
        grid=family if isinstance(family, str) else getattr(family, "__name__", repr(family)),
        stochasticity=tau,
        steps=tuple(counts),
        nfe=tuple(calls for _, calls in runs[0]),
        errors=tuple(math.prod(column) ** (1 / len(column)) for column in zip(*errors, strict=True)),
        slopes=found.slopes,
        declared=declared,
        route=route,
    )


def _widest(method: Stepper) -> PolynomialProblem | None:
    """The problem of the widest noise class that it takes; None for a stepper of ODEs."""
    taken = [n for n, p in polynomial_problems().items() if not p.down and takes(method, p)]
    return polynomial_problems()[taken[-1]] if taken else None


def _on_sde(
    method: Any,
    kind: str,
    problem: SDEProblem | PolynomialProblem,
    grid: Any,
    steps: Sequence[int] | None,
    route: str | None,
) -> ObservedOrder:
    """Orders on an SDE as it stands, which steppers have."""
    weak = kind == "weak"
    if kind not in ("strong", "weak") or route == "plan" or not (weak or isinstance(problem, SDEProblem)):
        raise SolverMismatchError(
            "kind, route",
            got=f"{kind!r}, {route!r} on {problem.name!r}, an SDE",
            expected="'strong' on an SDEProblem or 'weak', on the route 'step'",
            fix="Ask for that, or pass an OrderProblem.",
        )
    orders = order_on(method, problem)
    declared = None if orders is None else orders.weak if weak else orders.strong
    if weak:
        counts = LOCAL_STEPS if steps is None else _check_steps(steps)
        local = local_orders(method, problem, counts)
        q = local.estimates["weak"]
        found = replace(q, value=q.value - 1, low=q.low - 1, high=q.high - 1, slopes=tuple(v - 1 for v in q.slopes))
        runs = [[(error, method.calls_per_step) for error in local.errors["weak"]]]
        return _observed(method, kind, problem.name, "one step", 1.0, found, counts, runs, declared, "step")
    family = "uniform" if grid is None else grid
    counts = SDE_STEPS if steps is None else _check_steps(steps)
    found, strong = strong_on_sde(method, problem, family, counts, range(_SEEDS.get(family, 1)))  # type: ignore[arg-type]
    runs = [list(zip(run.errors, run.nfe, strict=True)) for run in strong]
    return _observed(method, kind, problem.name, family, 1.0, found, counts, runs, declared, "step")


def _settled(
    method: Any,
    kind: str,
    problem: OrderProblem,
    family: Any,
    seeds: range,
    tau: Stochasticity,
    steps: tuple[int, ...] | None,
    bare: bool,
) -> tuple[Estimate, list[int], _Runs]:
    """Errors without sampling noise, at more and more steps until the slopes settle."""
    measure = partial(_deterministic, bare=bare) if kind == "deterministic" else _weak
    counts: list[int] = []
    runs: _Runs = [[] for _ in seeds]
    planned = _STEPS if steps is None else _check_steps(steps)
    while True:
        counts += planned
        for seed, row in zip(seeds, runs, strict=True):
            row += [measure(method, problem, problem.grid(family, n, seed), tau) for n in planned]
        errors = [[error for error, _ in row] for row in runs]
        coarser = steps is None and counts[0] != _COARSE[0]
        try:
            found = _estimate(family, counts, errors, kind, problem)
        except OptionError:
            if not coarser:
                raise
            found = None
        if found is None or (coarser and found.used == 0):  # at rounding at once, which may be exact or of high order
            planned, counts, runs = _COARSE, [], [[] for _ in seeds]
            continue
        if steps is not None or family == "irregular" or counts[-1] >= _MOST or not _unsettled(found, len(counts)):
            return found, counts, runs
        planned = (2 * counts[-1],)


def _strong(
    method: Any,
    kind: str,
    problem: OrderProblem,
    family: Any,
    seeds: range,
    tau: Stochasticity,
    steps: tuple[int, ...] | None,
    bare: bool,
) -> tuple[Estimate, list[int], _Runs]:
    counts = list(_STEPS if steps is None else _check_steps(steps))
    paths = max(PATHS, problem.count)
    grids = [[problem.grid(family, n, seed) for n in counts] for seed in seeds]
    runs = [strong_run(method, problem, of_seed, tau, bare, paths) for of_seed in grids]
    found = strong_estimate(counts, runs, least_squares if family == "irregular" else estimate)
    return found, counts, [list(zip(run.errors, run.nfe, strict=True)) for run in runs]


def as_solver(solver: Any) -> Any:
    """A solver object from a name, an object or a class. Raises UnknownNameError or InterfaceError."""
    if isinstance(solver, str):
        return solvers.get(solver)
    if isinstance(solver, type) and issubclass(solver, (PlanSolver, Stepper)):
        try:
            return solver()
        except TypeError as error:
            raise InterfaceError(
                "solver",
                got=f"class {solver.__name__}: {error}",
                expected="a class with a default for each option",
                fix="Make the solver object yourself and pass that.",
            ) from error
    if isinstance(solver, (PlanSolver, Stepper)):
        return solver
    raise InterfaceError(
        "solver",
        got=type(solver).__name__,
        expected="a solver's name, a PlanSolver or a Stepper",
        fix="See sdekit.solvers.available() for names; derive your own from sdekit.solvers.PlanSolver or Stepper.",
    )


def _near(kind: Any) -> str:
    return suggest(str(kind), KINDS)


def _declared(method: Solver, kind: str) -> float | None:
    return getattr(method.declared, kind)


def _unsettled(found: Estimate, points: int) -> bool:
    """Whether the last slopes still move, with no point lost to rounding yet."""
    changes = [abs(b - a) for a, b in itertools.pairwise(found.slopes[-3:])]
    return found.used == points and (changes[-1] > _SETTLED or changes[0] > 2 * _SETTLED)


def _route(method: Any, kind: str, asked: str | None) -> str:
    has = {"plan": isinstance(method, PlanSolver), "step": isinstance(method, Stepper)}
    if asked is not None and asked not in has:
        raise UnknownNameError("route", got=repr(asked), expected="'plan' or 'step'", fix=suggest(str(asked), has))
    route = asked or ("plan" if has["plan"] else "step")
    if not has[route] or (kind == "weak" and asked == "step"):
        raise SolverMismatchError(
            "route",
            got=f"{route!r}, kind {kind!r} for {method.label}",
            expected="a route that the solver has, 'plan' for the weak order",
            fix="Leave it out.",
        )
    return route


def _check_steps(steps: Sequence[int]) -> tuple[int, ...]:
    counts = tuple(steps)
    for n in counts:
        check_count("steps", n)
    if len(counts) < 3 or any(b <= a for a, b in itertools.pairwise(counts)):
        raise OptionError(
            "steps", got=repr(counts), expected="three or more rising step counts", fix="Double them: 20, 40, 80, 160."
        )
    return counts


def _stochasticity(method: Any, kind: str, asked: Stochasticity | None) -> Stochasticity:
    """What to plan with; deterministic orders are those of the probability flow."""
    if not isinstance(method, PlanSolver) and kind != "strong":
        if kind == "weak" or asked not in (None, 0):
            raise SolverMismatchError(
                "kind",
                got=f"{kind!r}, stochasticity {asked!r} for {method.label}, which is a stepper only",
                expected="'deterministic' at stochasticity 0, or 'strong'",
                fix="The exact law of an output is computed from a plan: derive from PlanSolver to have it measured.",
            )
        return 0.0
    if kind != "deterministic":
        fixed = method.fixed_stochasticity
        tau = (1.0 if fixed is None else fixed) if asked is None else asked
        tau = method.resolve_stochasticity(tau) if isinstance(method, PlanSolver) else tau
        if kind == "strong" and (tau == 0 or getattr(method, "needs", "sde") == "ode"):
            raise SolverMismatchError(
                "kind",
                got=f"'strong' for {method.label} at stochasticity {tau!r}",
                expected="a solver of SDEs at a stochasticity above 0",
                fix="Ask for kind='deterministic'.",
            )
        return tau
    if asked is not None and (callable(asked) or asked != 0):
        raise OptionError(
            "stochasticity", got=repr(asked), expected="0 for a deterministic order", fix="Ask for kind='weak'."
        )
    return method.resolve_stochasticity(0.0)


def _deterministic(
    method: Any, problem: OrderProblem, times: Tensor, tau: Stochasticity, bare: bool
) -> tuple[float, int]:
    """The root mean square over starts of the distance to the exact end, and the model calls made."""
    model = problem.model
    flow = problem.process.probability_flow(model)
    if bare:
        flow = make_ode(flow.drift)
    elif method.plan(problem.process, times, 0.0).stochastic:
        raise SolverMismatchError(
            "kind", got=f"'deterministic' for {method.label}, which draws noise", expected="'weak'", fix="Ask for it."
        )
    result = solve(flow, problem.starts(), times, method, checks="end")
    difference = result.x - problem.exact()
    return float(difference.flatten(1).norm(dim=1).square().mean().sqrt()), int(result.nfe[0])


def _weak(method: PlanSolver, problem: OrderProblem, times: Tensor, tau: Stochasticity) -> tuple[float, int]:
    plan = method.plan(problem.process, times, tau)
    return weak_error(plan, problem, tau), plan.nfe


def _estimate(
    family: Any, counts: Sequence[int], errors: list[list[float]], kind: str, problem: OrderProblem
) -> Estimate:
    floor = _WEAK_FLOOR if kind == "weak" else _FLOOR * float(problem.exact().square().mean().sqrt())
    try:
        return (least_squares if family == "irregular" else estimate)(counts, errors, floor)
    except SdekitError as error:
        points = ", ".join(f"{n}: {e:.1e}" for n, e in zip(counts, errors[0], strict=True))
        error.add_note(f"on {problem.name}, grid {family}: errors by steps {points}")
        raise
