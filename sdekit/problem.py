"""What is to be solved and how: dynamics, grid and solver brought together and checked before any model call."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdekit import grids, solvers
from sdekit.affine import AffineSDE
from sdekit.brownian import check_intervals
from sdekit.calculus import LocalNoise, check_ignores_state
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.geometric import GeometricBrownianMotion
from sdekit.model import Model
from sdekit.noise_class import noise_classes
from sdekit.plan import Plan
from sdekit.reverse import AffineFlow, AffineReverse, Reverse, convert_to
from sdekit.sde import ODE, SDE, Stochasticity
from sdekit.shapes import time_like
from sdekit.solvers.base import PlanSolver, Solver, Stepper
from sdekit.times import check_count, check_times, times_as_floats
from sdekit.tolerances import check_path_order, follows_path, resolve_tolerance

__all__ = ["Problem", "check_noise", "path_clock", "path_noise", "prepare", "with_saved"]

_GENEROUS = 1000
_ATTEMPTS = 5000  # adaptive steps, after which a solve without max_nfe gives up


@dataclass(frozen=True)
class Problem:
    """What is to be solved and how, with everything checked."""

    dynamics: Any
    times: list[float]
    solver: Solver | None
    model: Model | None = None
    plan: Plan | None = None
    max_nfe: int | None = None
    tolerance: tuple[float, float] | None = None
    """rtol and atol of adaptive steps; None for fixed ones."""
    order: float = 0.0
    """The strong order of adaptive steps along a path."""
    gradients: str = "direct"
    """"direct", "checkpoint" or "adjoint", see `sdekit.gradients`."""

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn."""
        return self.plan.stochastic if self.plan is not None else isinstance(self.dynamics, SDE)

    @property
    def streams(self) -> int:
        """How many noises a step draws at most, from W on."""
        if self.plan is not None:
            return max((stream + 1 for _, stream in self.plan.noises()), default=1)
        return (
            3 if getattr(self.solver, "uses_time_area", False) else 1 + bool(getattr(self.solver, "uses_area", False))
        )

    @property
    def calls(self) -> int:
        """The number of model calls, as far as it is known beforehand; with adaptive steps those of the least steps."""
        per_step: Any = getattr(self.solver, "calls_per_step", 1)
        fixed = per_step * (len(self.times) - 1) + getattr(self.solver, "calls_at_start", 0)
        return self.plan.nfe if self.plan is not None else fixed if self.tolerance is None else fixed + 2

    @property
    def limit(self) -> int:
        """Where a stepper is stopped that makes more calls than it declares, or does not come to an end."""
        per_attempt: Any = getattr(self.solver, "calls_per_step", 1)
        attempts = _ATTEMPTS * (20 if self.stochastic else 1)
        generous = _GENEROUS * self.calls if self.tolerance is None else attempts * (per_attempt or 1)
        return generous if self.max_nfe is None else self.max_nfe


def prepare(
    dynamics: Any,
    times: Any,
    solver: str | Solver | Plan,
    *,
    steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_nfe: int | None = None,
) -> Problem:
    """Check and resolve dynamics, grid and solver; makes no model call. Raises as `solve`."""
    method = solvers.get(solver) if isinstance(solver, str) else solver
    if not isinstance(method, (Solver, Plan)):
        raise InterfaceError(
            "solver",
            got=method.__name__ if isinstance(method, type) else type(method).__name__,
            expected="a solver's name, a solver object or a Plan",
            fix="See sdekit.solvers.available() for names; make objects with sdekit.solvers.get(name, ...).",
        )
    tolerance = resolve_tolerance(method, rtol, atol, _is_stochastic(dynamics))
    if tolerance is None and getattr(method, "own_steps", False):
        raise OptionError(
            "rtol, atol",
            got=f"none with {_name(method)!r}, which chooses its steps",
            expected="one of them",
            fix="Pass rtol=1e-6, for example.",
        )
    if max_nfe is not None:
        check_count("max_nfe", max_nfe)
    affine = _as_affine(dynamics)
    if tolerance is not None:
        problem = _adaptive_problem(dynamics, affine, times, steps, method, tolerance)
    elif affine:
        problem = _affine_problem(dynamics, *affine, times, steps, method)
    else:
        problem = _bare(dynamics, times, steps, method)
    if max_nfe is not None and problem.calls > max_nfe:  # with adaptive steps, the least that there can be
        raise OptionError(
            "max_nfe",
            got=f"{max_nfe}, with a solve of {problem.calls} model calls",
            expected=f"{problem.calls} or more",
            fix="Use fewer steps or raise max_nfe.",
        )
    return replace(problem, max_nfe=max_nfe)


def path_clock(problem: Problem) -> Sequence[float]:
    """The time of the Brownian path at each grid point, for noise="path": the plan's clock, or t for a stepper.

    Raises:
        SolverMismatchError: for a plan whose noise is not what a path gives.
        OptionError: for steps that the path does not resolve.
    """
    plan = problem.plan
    if plan is None:
        clock, drawn = problem.times, [(n, 0) for n in range(len(problem.times) - 1)]
    elif plan.clock is not None and all(stream in (0, 1) for _, stream in plan.noises()):
        clock, drawn = plan.clock, list(plan.noises())
    else:
        raise SolverMismatchError(
            "noise",
            got=f"'path' with {plan.solver}",
            expected="a solver whose noise is the increment of a Brownian path over each step",
            fix="Use noise='step'; or euler_maruyama, ddpm, dpmpp_2m_sde or exp_sra at a constant stochasticity.",
        )
    steps = sorted({step for step, _ in drawn})
    ends = [[clock[step + k] for step in steps] for k in (0, 1)]
    check_intervals(*torch.tensor(ends, dtype=torch.float64))
    return clock


def path_noise(problem: Problem, noise: Any) -> str:
    """The noise of adaptive steps, "path". Raises SolverMismatchError for noise that cannot be asked for again."""
    if noise in ("step", "path"):
        return "path"
    raise SolverMismatchError(
        "noise",
        got=f"{noise!r} with tolerances for {type(problem.dynamics).__name__}",
        expected="'path': a rejected step must see the same noise again",
        fix="Leave it out, or take fixed steps.",
    )


def _as_affine(dynamics: Any) -> tuple[AffineSDE, Model, Stochasticity | None] | None:
    """Process, model and stochasticity (None where the solver chooses), for what has a model of an affine process."""
    if isinstance(dynamics, Model):
        return dynamics.process, dynamics, None
    if isinstance(dynamics, (AffineFlow, AffineReverse)):
        return dynamics.process, dynamics.model, dynamics.stochasticity
    if isinstance(dynamics, (SDE, ODE)):
        return None
    raise InterfaceError(
        "dynamics",
        got=f"the class {dynamics.__name__}" if isinstance(dynamics, type) else type(dynamics).__name__,
        expected="an SDE, an ODE, or a Model",
        fix="Wrap a network in sdekit.Model, functions in sdekit.make_sde or sdekit.make_ode.",
    )


def _affine_problem(
    dynamics: Any,
    process: AffineSDE,
    model: Model,
    asked: Stochasticity | None,
    times: Any,
    steps: int | None,
    method: Solver | Plan,
) -> Problem:
    grid = _own_grid(method, times, steps, process) or _affine_grid(process, times, steps)
    if isinstance(method, Plan):
        if method.times != tuple(grid):
            raise OptionError(
                "times", got="another grid than the plan's", expected="plan.times", fix="Pass plan.times."
            )
        return Problem(dynamics, grid, None, model, method)
    if isinstance(method, PlanSolver):
        tau = asked
        if tau is None:
            fixed = method.fixed_stochasticity
            tau = (method.default_stochasticity if grid[1] < grid[0] else 0.0) if fixed is None else fixed
        return Problem(dynamics, grid, method, model, method.plan(process, grid, tau))
    chosen = _reverse(dynamics, process, model, asked, grid, method)
    _check_times(process, chosen, grid, method)
    return _stepper_problem(chosen, grid, method)


def _own_grid(method: Solver | Plan, times: Any, steps: int | None, process: AffineSDE) -> list[float] | None:
    """A plan's own times where these are they: they were checked when it was made."""
    if not isinstance(method, Plan) or steps is not None or not isinstance(times, (list, tuple)):
        return None
    low, high = process.domain
    ends = method.times[0], method.times[-1]
    if method.times != tuple(times) or min(ends) < low or max(ends) > high:
        return None
    return list(method.times)


def _reverse(
    dynamics: Any, process: AffineSDE, model: Model, asked: Stochasticity | None, grid: list[float], method: Solver
) -> Any:
    """What a stepper steps: the dynamics asked for, or of a bare Model the reverse that the solver implies."""
    chosen = process.reverse(model, method.default_stochasticity) if asked is None else dynamics
    _check_direction(chosen, grid)
    return chosen


def _check_times(process: AffineSDE, dynamics: Any, grid: list[float], method: Any) -> None:
    """Whether an affine process has drift and diffusion at all times at which a stepper calls them: OptionError."""
    low, high = process.domain
    for t0, t1 in itertools.pairwise(grid):
        for t in (t0 + c * (t1 - t0) for c in getattr(method, "places", ()) if not 0 <= c <= 1):
            if not low <= t <= high:
                raise OptionError(
                    "times",
                    got=f"a step from {t0:.8g} to {t1:.8g}, for which {_name(method)!r} calls the drift at t = {t:.8g}",
                    expected=f"calls in [{low:g}, {high:g}], where {process!r} has one",
                    fix="Keep the grid farther inside, or take a solver that stays inside its steps: sosri2, sriw1.",
                )
    if isinstance(dynamics, SDE) and process.levels(grid[:1])[0].alpha == 0:
        raise OptionError(
            "times",
            got=f"a start at t = {grid[0]:.8g}, where alpha = 0 and the diffusion is infinite, for {_name(method)!r}",
            expected="a start at a smaller t",
            fix="Change it, or use a solver that takes the limit there: dpmpp_2m_sde, exp_sra, sra1.",
        )


def _affine_grid(process: AffineSDE, times: Any, steps: int | None) -> list[float]:
    grid = check_times(times, domain=process.domain)
    if steps is None:
        return grid
    check_count("steps", steps)
    _check_two_ends(grid)
    high, low = max(grid), min(grid)
    fine = grids.get(process.default_grid)(process, steps, t_start=high, t_end=low).tolist()
    return fine if grid[0] > grid[1] else fine[::-1]


def _bare(dynamics: Any, times: Any, steps: int | None, method: Solver | Plan) -> Problem:
    grid = check_times(times, domain=dynamics.domain if isinstance(dynamics, AffineSDE) else None)
    if steps is not None:
        check_count("steps", steps)
        _check_two_ends(grid)
        grid = torch.linspace(grid[0], grid[1], steps + 1, dtype=torch.float64).tolist()
        check_times(grid)
    _check_direction(dynamics, grid)
    if not isinstance(method, Stepper):
        raise SolverMismatchError(
            "solver",
            got=f"{_name(method)!r} for {type(dynamics).__name__}",
            expected="a solver that needs only drift and diffusion: "
            + _fitting(_surely(dynamics) if isinstance(dynamics, SDE) else None),
            fix=f"Pass a sdekit.Model or process.reverse(model): {_name(method)!r} needs an affine process.",
        )
    return _stepper_problem(dynamics, grid, method)


def _stepper_problem(dynamics: Any, grid: list[float], method: Solver) -> Problem:
    if isinstance(dynamics, SDE):
        # Some general noise has one column only, which is known when there is a state: see `check_noise`.
        _check_classes(dynamics, method, noise_classes(dynamics))
        calculus: Any = getattr(method, "calculus", "ito")
        # Ito and Stratonovich agree where the diffusion ignores the state.
        if not dynamics.additive and dynamics.sde_type != calculus:
            dynamics = convert_to(dynamics, calculus, grid[1] < grid[0])
    return Problem(dynamics, grid, method)


def _is_stochastic(dynamics: Any) -> bool:
    """Whether it is an SDE, or may be one: a Model, whose stochasticity the solver chooses."""
    return isinstance(dynamics, (SDE, Model))


def check_noise(problem: Problem, x: Tensor) -> Problem:
    """Whether the solver takes the noise that the SDE has at the start x; for general noise by one call of it.

    A user's additive noise is called at x and beside it, as solvers take that promise on trust.

    Returns:
        The problem, with the strong order where steps are adaptive.

    Raises:
        SolverMismatchError: where it does not.
        ModelOutputError: for a diffusion of the wrong shape.
        InterfaceError: for one that is declared additive and changes with x.
    """
    method, sde = problem.solver, problem.dynamics
    if problem.plan is not None or not isinstance(sde, SDE) or not getattr(method, "declared", None):
        return problem
    classes = noise_classes(sde, x, x[0].numel() + 2 if len(x) else None)
    adaptive = problem.tolerance is not None
    if sde.noise_type == "general" and len(x) and (adaptive or not _takes(method, classes)):
        columns = LocalNoise(sde, time_like(problem.times[0], x), x.clone()).g.shape[-1]  # g may write into it
        classes = noise_classes(sde, x, columns)
    if len(x):
        _check_classes(sde, method, classes, x)
        if sde.additive and not isinstance(sde, AffineSDE | AffineReverse):
            check_ignores_state(sde, time_like(problem.times[0], x), x)
    return replace(problem, order=check_path_order(method, classes)) if adaptive else problem


def _check_classes(sde: SDE, method: Any, classes: tuple[str, ...], x: Tensor | None = None) -> None:
    if _takes(method, classes):
        return
    kind = ("additive" if sde.additive else sde.noise_type) if x is None else classes[0]
    fix = "Choose one of them."
    if sde.additive:
        fix = "Choose one of them, or pass an ODE: sde.probability_flow(score)."
    elif classes == ("general",):
        fix = "Choose one of them, or set commutative = True if the columns of the diffusion commute."
    raise SolverMismatchError(
        "solver",
        got=f"{_name(method)!r} for {type(sde).__name__} ({sde.sde_type} SDE with {kind} noise)",
        expected="one of: " + _fitting(_surely(sde) if x is None else classes),
        fix=fix,
    )


def _surely(sde: SDE) -> tuple[str, ...]:
    """The noise classes that the SDE has in several coordinates, with several Brownian motions."""
    return noise_classes(sde, torch.zeros(1, 2), 2)


def _takes(method: Any, classes: tuple[str, ...]) -> bool:
    if method.needs in ("ode", "additive"):
        return method.needs == "additive" and "additive" in classes
    return not method.declared.noise or method.declared.on(classes) is not None


def _fitting(classes: tuple[str, ...] | None) -> str:
    """The steppers for SDEs of these noise classes; for None those for ODEs."""
    steppers = {i.name: solvers.get(i.name) for i in solvers.available()}
    fitting = [n for n, s in steppers.items() if isinstance(s, Stepper) and (classes is None or _takes(s, classes))]
    return ", ".join(fitting) or "none is registered"


def _check_direction(dynamics: Any, grid: list[float]) -> None:
    """A forward process runs up in time, a reverse SDE down; the SDE of a user may mean either."""
    down = grid[1] < grid[0]
    if isinstance(dynamics, (AffineSDE, GeometricBrownianMotion)) and down:
        raise OptionError(
            "times",
            got=f"a grid from {grid[0]!r} down to {grid[-1]!r} for {dynamics!r}, which runs forward",
            expected="increasing times",
            fix="To sample, pass its reverse: a sdekit.Model, or process.reverse(score).",
        )
    if isinstance(dynamics, SDE) and dynamics.backward and not down:
        raise SolverMismatchError(
            "times",
            got=f"increasing times, from {grid[0]!r} to {grid[-1]!r}, for {dynamics!r}",
            expected="decreasing times for a reverse SDE",
            fix="Reverse the grid, or pass the probability flow, which runs either way.",
        )
    if isinstance(dynamics, Reverse) and not dynamics.backward and down:
        raise SolverMismatchError(
            "times",
            got=f"decreasing times, from {grid[0]!r} to {grid[-1]!r}, for {dynamics!r}",
            expected="increasing times for the reverse of a reverse SDE",
            fix="Reverse the grid, or pass the probability flow, which runs either way.",
        )


def _name(method: Solver | Plan) -> str:
    return method.solver if isinstance(method, Plan) else method.name or type(method).__name__


def _check_two_ends(grid: list[float]) -> None:
    if len(grid) != 2:
        raise OptionError(
            "steps", got=f"steps beside a grid of {len(grid)} times", expected="two ends", fix="Leave one of them out."
        )


def _adaptive_problem(
    dynamics: Any,
    affine: tuple[AffineSDE, Model, Stochasticity | None] | None,
    times: Any,
    steps: int | None,
    method: Any,
    tolerance: tuple[float, float],
) -> Problem:
    if steps is not None:
        raise OptionError(
            "steps", got=f"{steps!r} beside tolerances", expected="one of the two", fix="Leave one of them out."
        )
    if follows_path(method) or isinstance(dynamics, SDE):
        if affine is None:
            problem = _bare(dynamics, times, None, method)
        else:
            grid = check_times(times, domain=affine[0].domain)
            if isinstance(method, PlanSolver) and not isinstance(method, Stepper):
                method.resolve_stochasticity(affine[2])  # of an SDE, which none of these takes
            problem = _stepper_problem(_reverse(dynamics, *affine, grid, method), grid, method)
        return replace(problem, tolerance=tolerance)
    if affine is None:
        return replace(_bare(dynamics, times, None, method), tolerance=tolerance)
    process, model, _ = affine
    if method.own_steps:
        flow = process.probability_flow(model)
        return Problem(flow, check_times(times, domain=process.domain), method, tolerance=tolerance)
    return Problem(dynamics, check_times(times, domain=process.domain), method, model, tolerance=tolerance)


def with_saved(problem: Problem, save: Any, argument: str = "save") -> Problem:
    """An adaptive problem that lands on the times of an argument too. Raises OptionError for a time outside."""
    if isinstance(save, str) or not (isinstance(save, Sequence) or hasattr(save, "tolist")):
        return problem
    wanted = times_as_floats(save, argument)
    first, last = problem.times[0], problem.times[-1]
    for t in wanted:
        if not min(first, last) <= t <= max(first, last):
            expected = f"times between {first!r} and {last!r}"
            raise OptionError(argument, got=f"t = {t!r}", expected=expected, fix="Leave it out, or extend times.")
    merged = sorted({*problem.times, *wanted}, reverse=last < first)
    return replace(problem, times=check_times(merged, argument=f"times and {argument}"))
