"""What an adaptive solve may do beside reaching the end: dense output, events, times to land on, jumps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdekit.control import FlowField, ODEField, adapt
from sdekit.control.dense import extension_of
from sdekit.control.observer import Observer
from sdekit.control.pieces import adapt_in_pieces
from sdekit.errors import InterfaceError, SolverMismatchError
from sdekit.monitor import Monitor
from sdekit.problem import Problem, with_saved
from sdekit.sde import SDE, check_two_arguments
from sdekit.solution import AdaptiveRun
from sdekit.times import times_as_floats

__all__ = ["NOTHING", "Wishes", "adapt_ode", "with_wishes"]


@dataclass(frozen=True)
class Wishes:
    """What is asked for.

    Attributes:
        dense: whether to record the steps.
        event: a function event(t, x), (B,), whose change of sign ends a sample.
        jumps: times at which drift or diffusion is discontinuous.
    """

    dense: bool = False
    event: Callable[[Tensor, Tensor], Tensor] | None = None
    jumps: frozenset[float] = frozenset()


NOTHING = Wishes()


def with_wishes(problem: Problem, dense: Any, event: Any, jump_times: Any, step_times: Any) -> tuple[Problem, Wishes]:
    """The problem, which lands on the jumps and step times too, and what is asked for.

    Raises:
        InterfaceError, OptionError: for an argument of the wrong kind or range.
        SolverMismatchError: for a solve that cannot do it.
    """
    if not isinstance(dense, bool):
        raise InterfaceError("dense", got=repr(dense), expected="True or False", fix="Pass a bool.")
    if event is not None:
        check_two_arguments("event", event)
    jumps, stops = (
        [] if given is None else times_as_floats(given, name)
        for name, given in (("jump_times", jump_times), ("step_times", step_times))
    )
    for name, asked in (("dense", dense), ("event", event is not None)):
        if asked:
            _check_observed(problem, name)
    for name, asked in (("jump_times", jumps), ("step_times", stops)):
        if asked:
            _check_chosen_steps(problem, name)
            problem = with_saved(problem, asked, name)
    return problem, Wishes(dense, event, frozenset(jumps))


def _check_observed(problem: Problem, name: str) -> None:
    """Whether steps can be looked at. Raises SolverMismatchError."""
    method: Any = problem.solver
    own = problem.tolerance is not None and not method.own_steps and not isinstance(problem.dynamics, SDE)
    if own and getattr(method.pair, "varying", None) is None:
        return
    raise SolverMismatchError(
        name,
        got=f"{name}= with {method.label if method else 'a plan'!r} for {problem.dynamics!r}",
        expected="an ODE or the flow of a model, and adaptive steps: rk45, tsit5, bosh3 or dop853 with rtol= or atol=",
        fix="Take one of these and a tolerance, and process.probability_flow(model) for a process.",
    )


def _check_chosen_steps(problem: Problem, name: str) -> None:
    """Whether the solver chooses its steps, and takes a jump into account. Raises SolverMismatchError."""
    method: Any = problem.solver
    got = f"{name}= with {method.label if method else 'a plan'!r}"
    if problem.tolerance is None:
        expected = "adaptive steps; fixed ones are the grid's"
        raise SolverMismatchError(name, got=got, expected=expected, fix="Put them into times, or pass rtol= or atol=.")
    if name == "step_times":
        return
    if method.own_steps:
        expected = "a solver of sdekit: this one calls the drift at the times themselves, once for both sides"
        raise SolverMismatchError(
            name, got=got, expected=expected, fix="Take rk45 or dop853, or solve from jump to jump."
        )
    low, high = getattr(method, "places", (0.0, 1.0))
    if isinstance(problem.dynamics, SDE) and not 0 <= low <= high <= 1:
        expected = "a solver that calls drift and diffusion inside its steps"
        raise SolverMismatchError(name, got=got, expected=expected, fix="Take sriw1, sosri2 or milstein.")


def adapt_ode(
    problem: Problem, wishes: Wishes, x: Tensor, monitor: Monitor, conditioning: Mapping[str, Any], **options: Any
) -> AdaptiveRun:
    """As `sdekit.control.adapt`, with what is asked for; the run then has `dense` and `event_t`."""
    method: Any = problem.solver
    times, observer = problem.times, None
    if wishes.dense or wishes.event is not None:
        # Samples that are not finite are never under way.
        failed = monitor.failed.view(-1, *(1,) * (x.ndim - 1))
        start = torch.where(failed, torch.zeros_like(x), x)
        observer = Observer(extension_of(method.tableau), start, times, wishes.event, wishes.dense)

    def field(state: Tensor, inner: Sequence[float]) -> FlowField | ODEField:
        if problem.model is None:
            made: FlowField | ODEField = ODEField(problem.dynamics, state, inner)
        else:
            made = FlowField(problem.model, state, inner, method.adaptive_clock, conditioning)
        if observer is not None:
            observer.field = made
        return made

    options |= {"observer": observer}
    if wishes.jumps:
        run = adapt_in_pieces(field, method, x, times, monitor, wishes.jumps, **options)
    else:
        run = adapt(field(x, times), method, x, times, monitor, **options)
    if observer is None:
        return run
    event_t = torch.from_numpy(observer.event_t) if wishes.event is not None else None
    return replace(run, dense=observer.dense if wishes.dense else None, event_t=event_t)
