"""The adaptive loop: every sample has a step, an error and a status of its own, and leaves the batch when it arrives.

Control is in NumPy float64 on the host; tensors hold states and slopes only. Time is u = sign s with s the field's
variable, so that u increases. Samples under way are the rows of `Active`; what they leave behind is in `Results`. A
row's numbers do not depend on the other rows: operations on states are elementwise, or within one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.attempt import Norm, Scheme, Small, Tensors, Varying
from sdekit.control.failure import Trace, cause_of_underflow, explain
from sdekit.control.fields import Field
from sdekit.control.nodes import Nodes
from sdekit.control.observer import Observer
from sdekit.control.rows import Active, Calls
from sdekit.control.session import Session
from sdekit.control.start import first_steps
from sdekit.errors import SdekitError
from sdekit.monitor import Monitor, bad_samples
from sdekit.shapes import compute_dtype
from sdekit.solution import AdaptiveRun, Status, StepInfo

__all__ = ["adapt"]

_STRETCH = 1.01  # how much longer a step may become so that it ends at a goal
_SMALL = 2**15  # elements, up to which sums in one pass are faster
_PATIENCE = 60  # rejections in a row
_FINEST = 8 * np.finfo(np.float64).eps  # of |u|: a shorter step would be mostly rounding


def adapt(
    field: Field,
    method: Any,
    x: Tensor,
    times: Sequence[float],
    monitor: Monitor,
    *,
    rtol: float,
    atol: float,
    limit: int,
    save: Collection[int] = (),
    callback: Callable[[StepInfo], Any] | None = None,
    advance: Callable[[int], Any] | None = None,
    observer: Observer | None = None,
    done: np.ndarray | None = None,
) -> AdaptiveRun:
    """Solve from times[0] to times[-1], landing on each time between.

    Args:
        method: has `pair`, `filter`, `first_step` and `compact`: see `sdekit.solvers.adaptive`.
        monitor: has seen the start.
        limit: how many calls may be made for one sample.
        save: indices of the times whose states are kept.
        observer: sees the accepted steps, and may end samples inside them.
        done: (B,), samples that have ended before, and stay where they are.

    Raises:
        UnfinishedError, NonFiniteError: where a sample fails, unless the monitor masks.
    """
    loop = _Loop(field, method, x, times, monitor, rtol, atol, limit, observer)
    loop.done = done
    return loop.solve(frozenset(save), callback, advance)


class _Loop(Session):
    """One solve."""

    def __init__(
        self,
        field: Field,
        method: Any,
        x: Tensor,
        times: Sequence[float],
        monitor: Monitor,
        rtol: float,
        atol: float,
        limit: int,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(x, times, monitor, limit)
        self.field, self.method, self.observer = field, method, observer
        self.scheme, self.filter = Scheme(method.pair), method.filter
        self.eps = torch.finfo(x.dtype).eps
        state = x.to(compute_dtype(x.dtype), copy=True, memory_format=torch.contiguous_format)
        self.norm, self.strict = Norm(rtol, atol, state), monitor.checks == "full"
        history = self.filter.no_history(len(x)) if self.filter.remembers else None
        self.active = Active(state, field.goals, history)
        self.calls = Calls(field, self.active, limit)
        small = x.device.type == "cpu" and x.numel() <= _SMALL and not torch.is_grad_enabled() and observer is None
        small &= self.scheme.varying is None
        kind = Small if small else Tensors if self.scheme.varying is None else Varying
        self.stages = kind(self.scheme, self.norm)
        field.copied = small
        self.slowed = False  # whether the last step of any sample was rejected
        self.finest = _FINEST * float(np.abs(field.goals).max())

    @property
    def calls_made(self) -> int:
        return self.calls.made

    def at(self, u: np.ndarray) -> np.ndarray:
        return np.array(self.field.times(u))

    def enter(self, save: frozenset[int]) -> None:
        a = self.active
        if not self.method.compact:
            a.alive = np.ones(len(a), dtype=bool)
        super().enter(save)
        if a.alive is not None and not a.alive.all():  # they stay in the batch
            a.x = torch.where(self.column(~a.alive), torch.zeros_like(a.x), a.x)

    def begin(self) -> None:
        """The slopes at the start, and the first steps."""
        a = self.active
        self.calls.begin()
        call, a.scale = self.field.start(len(a))
        a.slope = self.calls(call, a.x)
        if self.calls.refused is not None:
            self.fail(self.calls.refused, Status.OUT_OF_DOMAIN)
        bad = bad_samples(a.slope, torch.zeros(len(a), dtype=torch.bool, device=a.x.device)) if len(a) else None
        if bad is not None:
            self.fail(bad.cpu().numpy(), Status.NON_FINITE)
        if not self.going():
            return
        self.calls.begin()
        first = self.method.first_step
        if first is None:
            a.h = first_steps(self.field, a, self.calls, self.norm, self.scheme.order)
        else:
            a.h = np.full(len(a), first)
        self.look_ahead(None)

    def attempt(self, save: frozenset[int]) -> None:
        """One step of every active sample, accepted for some, rejected for others."""
        a = self.active
        room = a.end - a.u
        spare = room - a.h * _STRETCH
        lands = None if np.minimum.reduce(spare) > 0 else spare <= 0
        step = a.h if lands is None else np.where(lands, room, a.h)
        u_end = a.u + step
        if lands is not None:
            u_end = np.where(lands, a.end, u_end)
        u = self.scheme.fractions * step
        u += a.u
        np.minimum(u, u_end, out=u)
        u[-1] = u_end
        nodes = self.field.nodes(u, step, a.scale, a.goal, lands)
        trace = Trace(self.stages, a.rows, a.x, nodes, self.calls.nfe, self.attempts)
        self.calls.begin()
        new, end, error = self.stages.run(self.calls, a.x, a.slope, nodes)
        trace.new, trace.error, trace.refused = new, error, self.calls.refused
        if new.requires_grad and not (finite := np.isfinite(error)).all():
            trace.keep(~finite)
            new, end, error = self.run_without(nodes, ~finite)
        self.field.check()
        if not self.scheme.reuses_end:
            arrives = False if lands is None or self.observer else lands & (a.goal == self.last)
            end = self.end_slope(nodes, new, (error <= 1) & ~arrives)
        if self.calls.refused is not None:
            error[self.calls.refused] = np.inf
        if a.alive is not None:
            error[~a.alive] = 0
        trace.error = error
        self.attempts += 1
        seen = None
        if self.observer is not None:
            ends = (self.field.times(a.u), self.field.times(u_end))
            slopes = [*self.stages.tensors(), *(() if self.scheme.reuses_end else (end,))]
            seen = self.observer.see(a.rows, *ends, a.x, new, slopes, (error <= 1) & a.under_way())
        if np.maximum.reduce(error) <= 1:  # NaN is not
            self.advance_all(step, error, u_end, new, end, nodes)
            bad = None
        else:
            bad = np.flatnonzero(~(error <= 1))
            self.advance_most(bad, step, error, u_end, new, end, nodes)
        if seen is not None:
            lands, bad = self.end_inside(seen, lands, bad)
        if lands is not None:
            self.arrive(lands, bad, save)
        self.look_ahead(trace)

    def run_without(self, nodes: Nodes, out: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """The step again, the samples `out` called where they are: 0 times an infinite derivative would be NaN."""
        a = self.active
        if (self.calls.nfe + self.scheme.calls > self.limit).any():
            return a.x, a.slope, np.full(len(a), np.inf)  # the limit is told of before the next step
        self.calls.begin(self.column(out))
        new, end, error = self.stages.run(self.calls, a.x, a.slope, nodes)
        error[out] = np.inf
        return new, end, error

    def end_inside(
        self, seen: tuple[np.ndarray, Tensor], lands: np.ndarray | None, bad: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Samples that end inside their step: out of the batch, with the states there. The masks for the others."""
        a, (fired, states) = self.active, seen
        self.results.reach(self.last, a.rows[fired], states)
        self.results.status[a.rows[fired]] = int(Status.EVENT)
        self.drop(fired)
        if a.alive is not None:
            return lands, bad
        stay = ~fired
        if bad is not None:
            bad = np.flatnonzero(np.isin(np.flatnonzero(stay), bad))
        return (None if lands is None or not stay.any() else lands[stay]), bad

    def end_slope(self, nodes: Nodes, new: Tensor, wanted: np.ndarray) -> Tensor:
        """The slopes at the new states, where the next step begins with them."""
        a = self.active
        if wanted.all() or (a.alive is not None and wanted.any()):
            return self.calls(nodes.calls[-1], new)
        return self.calls.some(nodes.calls[-1], new, wanted) if wanted.any() else a.slope

    def advance_all(
        self, step: np.ndarray, error: np.ndarray, u_end: np.ndarray, new: Tensor, end: Tensor, nodes: Nodes
    ) -> None:
        """Every sample's step is accepted."""
        a = self.active
        factor = self.filter.after_acceptance(error, step, a.history, self.scheme.order)
        if a.history is not None:
            self.filter.remember(error, step, a.history, None if step is a.h else step == a.h)
        if self.slowed:
            self.hold(factor)
            a.streak[:] = 0
            self.slowed = False
        a.x, a.slope, a.u, a.scale = new, end, u_end, nodes.scale
        self.propose(step * factor, step)

    def advance_most(
        self,
        bad: np.ndarray,
        step: np.ndarray,
        error: np.ndarray,
        u_end: np.ndarray,
        new: Tensor,
        end: Tensor,
        nodes: Nodes,
    ) -> None:
        """All steps are accepted but those of the samples `bad`, which stay where they are, with the slopes there."""
        a, order = self.active, self.scheme.order
        a.x, a.slope = self.stages.restore(new, a.x, bad), self.stages.restore(end, a.slope, bad)
        u_end[bad] = a.u[bad]
        a.u = u_end
        if len(nodes.scale) > 1:
            scale = nodes.scale.copy()
            scale[bad] = a.scale[bad]
            a.scale = scale
        lost = error[bad]
        error[bad] = 1.0
        factor = self.filter.after_acceptance(error, step, a.history, order)
        if a.history is not None:
            whole = step == a.h
            whole[bad] = False
            self.filter.remember(error, step, a.history, whole)
        if self.slowed:
            self.hold(factor)
        factor[bad] = self.filter.after_rejection(np.where(np.isfinite(lost), lost, np.inf), order)
        error[bad] = lost
        streak = a.streak[bad] + 1
        a.streak[:] = 0
        a.streak[bad] = streak
        a.rejected[bad] += 1
        self.slowed = True
        short = step * factor
        self.propose(short, step)
        a.h[bad] = short[bad]

    def hold(self, factor: np.ndarray) -> None:
        """No longer steps after a rejection."""
        after = np.flatnonzero(self.active.streak)
        factor[after] = np.minimum(factor[after], 1.0)

    def propose(self, proposed: np.ndarray, step: np.ndarray) -> None:
        """The next steps. One that was cut short by a time between says little about the one after it."""
        a = self.active
        a.h = proposed if self.last == 1 else np.where(step < a.h, np.maximum(proposed, a.h), proposed)

    def arrive(self, lands: np.ndarray, bad: np.ndarray | None, save: frozenset[int]) -> None:
        """Samples that have reached a time: on to the next, or out of the batch."""
        a = self.active
        landed = lands if a.alive is None else lands & a.alive
        if bad is not None:
            landed = landed.copy()
            landed[bad] = False
        if not landed.any():
            return
        final = landed & (a.goal == self.last)
        for goal in np.unique(a.goal[landed]).tolist() if self.last > 1 else [self.last]:
            if goal in save or goal == self.last:
                here = landed & (a.goal == goal)
                self.results.reach(goal, a.rows[here], a.x if here.all() else a.x.index_select(0, a.index(here)))
        if self.last > 1:
            a.goal = a.goal + (landed & ~final)
            a.end = np.where(landed & ~final, self.field.goals[a.goal], a.end)
        if final.any():
            self.results.status[a.rows[final]] = int(Status.SUCCESS)
            self.drop(final)

    def look_ahead(self, trace: Trace | None) -> None:
        """Fail the samples for which another step makes no sense."""
        if self.slowed and trace is not None and self.strict and not np.isfinite(trace.error).all():
            self.blame(trace)
        a = self.active
        if not self.going():
            return
        if not np.minimum.reduce(a.h) >= self.finest:
            short = (a.h < _FINEST * np.maximum(np.abs(a.u), np.abs(a.end))) & (a.h * _STRETCH < a.end - a.u)
            self.fail(short | ~(a.h > 0), None, trace)
        if self.slowed and (a.streak >= _PATIENCE).any():
            self.fail(a.streak >= _PATIENCE, Status.REJECTIONS, trace)
        if self.calls.made + self.scheme.calls > self.limit:
            self.fail(self.calls.nfe + self.scheme.calls > self.limit, Status.MAX_NFE, trace)

    def blame(self, trace: Trace) -> None:
        """Fail the samples for which the model returned NaN or infinity at a finite state: checks="full"."""
        rows = [int(row) for row in trace.rows[~np.isfinite(trace.error)]]
        at_fault = [row for row in rows if (sample := trace.of(row)) and sample.first_bad()[0] == "model"]
        self.fail(np.isin(self.active.rows, at_fault), Status.NON_FINITE, trace)

    def fail(self, which: np.ndarray, status: Status | None, trace: Trace | None = None) -> None:
        """Take samples out of the batch, or raise the error of the first; without a status the cause is looked for."""
        a = self.active
        if a.alive is not None:
            which = which & a.alive
        for at in np.flatnonzero(which).tolist():
            row = int(a.rows[at])
            sample = None if trace is None else trace.of(row)
            cause = cause_of_underflow(sample, self.eps) if status is None else status
            if cause is Status.MAX_NFE and sample is not None:
                rough, stiff = sample.is_below_rounding(self.eps), sample.is_stiff()
                cause = Status.TOLERANCE if rough else Status.STIFF if stiff else cause
            self.results.status[row] = int(cause)
            if not self.monitor.mask:
                raise explain(cause, row, float(self.at(a.u[at : at + 1])[0]), float(a.h[at]), sample)
            self.monitor.failed[row] = True
        if which.any():
            self.drop(which)

    def drop(self, which: np.ndarray) -> None:
        """Samples that are done leave the batch, unless the method keeps it whole."""
        a = self.active
        self.results.leave(a, which, self.calls.nfe, self.attempts)
        if a.alive is None:
            a.keep(~which)
            self.field.select(a.rows)
        else:
            a.alive &= ~which
            a.end, a.h = np.where(which, a.u, a.end), np.where(which, 1.0, a.h)

    def result(self, save: frozenset[int]) -> AdaptiveRun:
        """What there is, of samples that have arrived and of those under way."""
        a = self.active
        self.results.leave(a, a.under_way(), self.calls.nfe, self.attempts)
        return self.results.run(self.last, save, a)

    def annotate(self, error: BaseException) -> None:
        super().annotate(error)
        batch, whole = len(self.active), len(self.results.status)
        if batch < whole and not isinstance(error, SdekitError):
            error.add_note(
                f"The batch had {batch} of {whole} samples, as the others had arrived. For a drift that holds a value "
                "for each sample, pass a solver with compact=False."
            )
