"""What an adaptive solve of an ODE may do beside reaching the end: dense output, events, jumps of the drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdekit.control import ODEField, adapt
from sdekit.control.dense import extension_of
from sdekit.control.observer import Observer
from sdekit.control.pieces import adapt_in_pieces
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.monitor import Monitor
from sdekit.problem import Problem, with_saved
from sdekit.sde import ODE, check_two_arguments
from sdekit.solution import AdaptiveRun
from sdekit.times import times_as_floats

__all__ = ["NOTHING", "Wishes", "adapt_ode", "with_wishes"]


@dataclass(frozen=True)
class Wishes:
    """What is asked for.

    Attributes:
        dense: whether to record the steps.
        event: a function event(t, x), (B,), whose change of sign ends a sample.
        jumps: times at which the drift is discontinuous.
    """

    dense: bool = False
    event: Callable[[Tensor, Tensor], Tensor] | None = None
    jumps: frozenset[float] = frozenset()


NOTHING = Wishes()


def with_wishes(problem: Problem, dense: Any, event: Any, jump_times: Any) -> tuple[Problem, Wishes]:
    """The problem, which lands on the jumps too, and what is asked for.

    Raises:
        InterfaceError, OptionError: for an argument of the wrong kind or range, or events together with jumps.
        SolverMismatchError: for anything but adaptive steps of sdekit on an ODE.
    """
    if not isinstance(dense, bool):
        raise InterfaceError("dense", got=repr(dense), expected="True or False", fix="Pass a bool.")
    if event is not None:
        check_two_arguments("event", event)
    jumps = [] if jump_times is None else times_as_floats(jump_times, "jump_times")
    asked = [n for n, v in (("dense", dense), ("event", event is not None), ("jump_times", bool(jumps))) if v]
    if not asked:
        return problem, NOTHING
    own = problem.tolerance is not None and not getattr(problem.solver, "own_steps", False)
    if not own or problem.model is not None or not isinstance(problem.dynamics, ODE):
        raise SolverMismatchError(
            asked[0],
            got=f"{asked[0]}= with {problem.solver.label if problem.solver else 'a plan'!r} for {problem.dynamics!r}",
            expected="an ODE and adaptive steps: rk45, tsit5, bosh3 or dop853 with rtol= or atol=",
            fix="Pass sdekit.make_ode(drift) and a tolerance. The flow of a model is make_ode(model.velocity).",
        )
    if event is not None and jumps:
        raise OptionError(
            "event", got="an event beside jump_times", expected="one of them", fix="Solve from jump to jump."
        )
    if jumps:
        problem = with_saved(problem, jumps)
    return problem, Wishes(dense, event, frozenset(jumps))


def adapt_ode(problem: Problem, wishes: Wishes, x: Tensor, monitor: Monitor, **options: Any) -> AdaptiveRun:
    """As `sdekit.control.adapt`, with what is asked for; the run then has `dense` and `event_t`."""
    method: Any = problem.solver
    times = problem.times
    if not wishes.dense and wishes.event is None and not wishes.jumps:
        return adapt(ODEField(problem.dynamics, x, times), method, x, times, monitor, **options)
    observer = None
    if wishes.dense or wishes.event is not None:
        # Samples that are not finite are never under way.
        failed = monitor.failed.view(-1, *(1,) * (x.ndim - 1))
        start = torch.where(failed, torch.zeros_like(x), x)
        observer = Observer(extension_of(method.tableau), start, times, wishes.event, wishes.dense)
    if wishes.jumps:
        make = lambda state, inner: ODEField(problem.dynamics, state, inner)  # noqa: E731
        run = adapt_in_pieces(make, method, x, times, monitor, wishes.jumps, observer=observer, **options)
    else:
        run = adapt(ODEField(problem.dynamics, x, times), method, x, times, monitor, observer=observer, **options)
    if observer is None:
        return run
    event_t = torch.from_numpy(observer.event_t) if wishes.event is not None else None
    return replace(run, dense=observer.dense if wishes.dense else None, event_t=event_t)
