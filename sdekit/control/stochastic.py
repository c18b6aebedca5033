"""The adaptive loop for SDEs: steps of each sample's own along its Brownian path.

The path is a function of time, so a step that is tried again, shorter, sees the noise it saw before; and steps lie on
dyadic lattices, so that no time up to which a rejected step looked is passed over. Both are needed: a solver that draws
new noise after a rejection, or forgets where it looked, prefers some paths to others, and its law is wrong (Foster,
arXiv:2311.14201). Between those limits a controller proposes the length of each step, rounded down to the lattice.

The error of a step is the stepper's own estimate or, where it has none, the difference between one step and two of half
its length; the two are then what is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.brownian import BrownianPath
from sdekit.control.attempt import Norm
from sdekit.control.lattice import FINEST, Lattice
from sdekit.control.rescaled import Rescaled
from sdekit.control.rows import Active, refused_rows
from sdekit.control.session import Session
from sdekit.errors import NonFiniteError, OutOfDomain, SdekitError, SolverMismatchError, UnfinishedError
from sdekit.increments import Increments
from sdekit.integrate import Dynamics, checked_step
from sdekit.monitor import Monitor
from sdekit.sde import SDE
from sdekit.shapes import beside, compute_dtype
from sdekit.solution import AdaptiveRun, Status, StepInfo

__all__ = ["adapt_sde"]

_PATIENCE = 60  # rejections in a row
_FIRST = 0.1  # of its size, or of the tolerance if that is more: by how much the first step moves the state


class _Walkers(Active):
    """Samples under way: Active, with the lattice points j at levels k where they stand, and what they met last.

    Attributes:
        k_tried: the level of the last attempt.
        met: the status that the last attempt alone would lead to: that of NaN, of a refusal, or of success.
    """

    arrays = (*Active.arrays, "j", "k", "k_tried", "met")

    def __init__(self, x: Tensor, goals: np.ndarray, history: np.ndarray | None) -> None:
        super().__init__(x, goals, history)
        self.j, self.k, self.k_tried, self.met = (np.zeros(len(x), dtype=np.int64) for _ in range(4))


def adapt_sde(
    sde: SDE,
    stepper: Any,
    x: Tensor,
    times: Sequence[float],
    path: Callable[[int, int], BrownianPath],
    monitor: Monitor,
    *,
    rtol: float,
    atol: float,
    order: float,
    controller: Any,
    limit: int,
    jumps: Collection[float] = (),
    save: Collection[int] = (),
    callback: Callable[[StepInfo], Any] | None = None,
    advance: Callable[[int], Any] | None = None,
) -> AdaptiveRun:
    """Solve from times[0] to times[-1], landing on each time between.

    Args:
        sde: in the stepper's calculus.
        path: makes the Brownian path for a number of coordinates and of moments.
        monitor: has seen the start.
        order: the strong order of the stepper on this noise, at least 1.
        controller: see `sdekit.solvers.controller`.
        limit: how many drift calls may be made for one sample.
        jumps: those of `times` at which drift or diffusion jumps; they are called at the numbers next to it instead.
        save: indices of the times whose states are kept.

    Raises:
        UnfinishedError, NonFiniteError: where a sample fails, unless the monitor masks.
    """
    norm = Norm(rtol, atol, x.to(compute_dtype(x.dtype)))
    loop = _Loop(sde, stepper, x, times, path, monitor, norm, order, controller, limit)
    if jumps:
        loop.sides = _sides(times, jumps, x.dtype)
    return loop.solve(frozenset(save), callback, advance)


class _Loop(Session):
    """One solve."""

    active: _Walkers
    what = "of an SDE with adaptive steps"
    sides: np.ndarray | None = None
    """(2, times): for the way to each time, where functions are called at its two ends; None where nothing jumps."""

    def __init__(
        self,
        sde: SDE,
        stepper: Any,
        x: Tensor,
        times: Sequence[float],
        path: Callable[[int, int], BrownianPath],
        monitor: Monitor,
        norm: Norm,
        order: float,
        controller: Any,
        limit: int,
    ) -> None:
        super().__init__(x, times, monitor, limit)
        self.sde, self.stepper, self.norm, self.controller = sde, stepper, norm, controller
        self.exponent, self.lattice = order + 0.5, Lattice(times)
        state = x.to(compute_dtype(x.dtype), copy=True, memory_format=torch.contiguous_format)
        self.active = _Walkers(state, self.lattice.times, None)
        self.dtype, self.made = x.dtype, 0
        # Masking: a stepper whose iteration fails for a sample then leaves infinity there, and the step is rejected.
        self.calls = Dynamics(sde, x, Monitor(x, "off", True), limit + 1)
        shape = self.calls.increment_shape(self.times[0], state) if len(x) else x.shape
        self.noise_shape = tuple(shape[1:])
        area, time_area = (bool(getattr(stepper, name, False)) for name in ("uses_area", "uses_time_area"))
        self.area, self.moments = area or time_area, 3 if time_area else 2
        extra: Any = getattr(stepper, "extra_shapes", None)
        if extra is not None and extra(tuple(shape)):
            raise SolverMismatchError(
                "rtol, atol",
                got=f"tolerances with {stepper!r}, which draws normals that are not of the path",
                expected="a solver that takes W and its areas alone",
                fix="Take sriw1, milstein or spark, or fixed steps.",
            )
        self.path = path(int(np.prod(self.noise_shape, dtype=np.int64)), self.moments)
        self.flag: bool | None = None
        self.doubles: bool | None = None
        """Whether errors are found by steps of half the length; None until the stepper has shown it."""

    @property
    def calls_made(self) -> int:
        return self.made

    def begin(self) -> None:
        """The first steps: so long that neither drift nor noise moves the state by more than `_FIRST`."""
        a = self.active
        a.history = self.controller.no_history(len(a)) if self.controller.remembers else None
        whole = self.lattice.width(a.goal)
        with torch.no_grad(), np.errstate(divide="ignore", invalid="ignore"):
            size = np.maximum(self.norm(a.x, a.x, a.x), 1.0) * _FIRST
            try:
                t = self.times[0] if self.sides is None else float(self.sides[0, 1])
                drift = self.calls.drift(t, a.x)
                one = torch.ones(len(a), *self.noise_shape, dtype=a.x.dtype, device=a.x.device)
                noise = self.calls.diffuse(t, a.x, one)
                h = np.minimum(size / self.norm(drift, a.x, a.x), (size / self.norm(noise, a.x, a.x)) ** 2)
            except OutOfDomain:
                h = whole / 64  # the samples that it names are told apart in the first step
        self.made = self.calls.calls
        h = np.where(np.isfinite(h) & (h > 0), np.minimum(h, whole), whole / 64)
        a.k = np.minimum(self.lattice.level(a.goal, h), self.lattice.finest(a.goal))

    def attempt(self, save: frozenset[int]) -> None:
        """One step of every active sample, accepted for some, rejected for others."""
        a, lattice = self.active, self.lattice
        start, end = lattice.at(a.goal, a.j, a.k), lattice.at(a.goal, a.j + 1, a.k)
        short = ~lattice.resolved(start, end) | (a.k > FINEST)
        if self.doubles is not False:
            middle = lattice.at(a.goal, 2 * a.j + 1, a.k + 1)
            short |= ~(lattice.resolved(start, middle) & lattice.resolved(middle, end))
        if short.any():
            self.fail(short, Status.STEP_UNDERFLOW)
            return
        new, error = self.steps(start, end)
        self.attempts += 1
        step = np.abs(end - start)
        accepted = error <= 1  # NaN is not
        factor = self.proposed(error, step, accepted)
        a.x = new if accepted.all() else torch.where(self.column(accepted), new, a.x)
        wanted = lattice.level(a.goal, step * factor)
        j = np.where(accepted, a.j + 1, a.j)
        least = np.where(accepted, lattice.coarsest(j, a.k), a.k + 1)
        k = np.minimum(np.maximum(wanted, least), FINEST + 1)
        a.j, a.k, a.u = lattice.moved(j, a.k, k), k, np.where(accepted, end, start)
        a.h = step * factor
        a.rejected += ~accepted
        a.streak = np.where(accepted, 0, a.streak + 1)
        arrived = accepted & (a.j == np.int64(1) << a.k)
        if arrived.any():
            self.arrive(arrived, save)
        self.look_ahead(error, accepted)

    def steps(self, start: np.ndarray, end: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """New states, and errors in units of the tolerance: infinite for what is NaN or refused by the model."""
        a = self.active
        index = np.arange(len(a))
        a.met[:], a.k_tried = int(Status.SUCCESS), a.k
        error, new = np.full(len(a), np.inf), a.x
        while len(index):
            try:
                found, estimate = self.tried(index, start[index], end[index])
            except OutOfDomain as refusal:
                refused = refused_rows(refusal, len(index))
                a.met[index[refused]] = int(Status.OUT_OF_DOMAIN)
                index = index[~refused]
                continue
            at = torch.from_numpy(index).to(a.x.device)
            old = a.x if len(index) == len(a) else a.x.index_select(0, at)
            with torch.no_grad():
                error[index] = self.norm(estimate, old, found)
            finite = np.isfinite(error[index])
            a.met[index[~finite]] = int(Status.NON_FINITE)
            if found.requires_grad and not finite.all():
                index = index[finite]  # tried without the others: 0 times their infinite derivatives would be NaN
                continue
            new = found if len(index) == len(a) else new.index_copy(0, at, found)
            break
        return new, np.where(np.isnan(error), np.inf, error)

    def tried(self, index: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[Tensor, Tensor]:
        """New states and estimates of their errors for some of the samples."""
        a = self.active
        rows = torch.from_numpy(a.rows[index]).to(a.x.device)
        x = a.x if len(index) == len(a) else a.x.index_select(0, torch.from_numpy(index).to(a.x.device))
        whole, estimate = self.step(rows, start, end, x)
        if self.doubles is None:
            self.doubles = estimate is None
        if estimate is not None and not self.doubles:
            return whole, estimate
        middle = self.lattice.at(a.goal[index], 2 * a.j[index] + 1, a.k[index] + 1)
        half, _ = self.step(rows, start, middle, x)
        twice, _ = self.step(rows, middle, end, half)
        return twice, twice - whole

    def step(self, rows: Tensor, start: np.ndarray, end: np.ndarray, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The stepper's step of the samples `rows`, and its own estimate of the error."""
        s, t = (torch.from_numpy(v).to(x.device) for v in (start, end))
        drawn = self.path.increment(s, t, rows)
        root = (t - s).abs().sqrt()[:, None]
        w, *areas = ((v / root).reshape(len(x), *self.noise_shape).to(x.dtype) for v in drawn)
        increments = Increments(w, areas[0] if self.area else None, areas[1] if self.moments == 3 else None)
        shape = (-1, *(1,) * (x.ndim - 1))
        calls = Dynamics(
            Rescaled(self.sde, s.reshape(shape), t.reshape(shape), self.limits(rows, shape)),
            x.new_zeros(0, dtype=self.dtype),
            self.calls.monitor,
            self.limit + 1,
            estimates=True,
        )
        try:
            made = self.stepper.step(calls, 0.0, 1.0, x, increments, self.flag)
            new, estimate, state = checked_step(made, x)
            # What a step leaves of one sample's state is not the next step's; that something is settled, is.
            self.flag = True if state is True else None
        finally:
            self.made += calls.calls
        return new, estimate

    def limits(self, rows: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        """Between which times the functions of samples `rows` may be called."""
        if self.sides is None:
            return None
        goal = self.active.goal[np.searchsorted(self.active.rows, rows.cpu().numpy())]
        sides = torch.from_numpy(self.sides[:, goal]).to(rows.device)
        return sides.amin(0).reshape(shape), sides.amax(0).reshape(shape)

    def proposed(self, error: np.ndarray, step: np.ndarray, accepted: np.ndarray) -> np.ndarray:
        """The factors of the next steps; none grows after a rejection."""
        a = self.active
        factor = self.controller.after_acceptance(np.where(accepted, error, 1.0), step, a.history, self.exponent)
        if a.history is not None:
            self.controller.remember(np.where(accepted, error, 1.0), step, a.history, accepted)
        factor = np.where((a.streak > 0) & accepted, np.minimum(factor, 1.0), factor)
        if accepted.all():
            return factor
        return np.where(accepted, factor, self.controller.after_rejection(np.maximum(error, 1.0), self.exponent))

    def arrive(self, arrived: np.ndarray, save: frozenset[int]) -> None:
        """Samples that have reached a time: on to the next, or out of the batch."""
        a = self.active
        for goal in np.unique(a.goal[arrived]).tolist():
            if goal in save or goal == self.last:
                here = arrived & (a.goal == goal)
                self.results.reach(goal, a.rows[here], a.x if here.all() else a.x.index_select(0, a.index(here)))
        final = arrived & (a.goal == self.last)
        on = arrived & ~final
        if on.any():
            a.goal = a.goal + on
            a.j = np.where(on, 0, a.j)
            a.k = np.where(on, np.minimum(self.lattice.level(a.goal, a.h), FINEST), a.k)
        if final.any():
            self.results.status[a.rows[final]] = int(Status.SUCCESS)
            self.drop(final)

    def look_ahead(self, error: np.ndarray, accepted: np.ndarray) -> None:
        """Fail the samples for which another step makes no sense."""
        a = self.active
        if not len(a):
            return
        if (a.streak >= _PATIENCE).any():
            self.fail(a.streak >= _PATIENCE, Status.REJECTIONS)
        per_step: Any = getattr(self.stepper, "calls_per_step", None) or 1
        if len(a) and self.made + per_step * (3 if self.doubles else 1) > self.limit:
            self.fail(np.ones(len(a), dtype=bool), Status.MAX_NFE)

    def fail(self, which: np.ndarray, status: Status) -> None:
        """Take samples out of the batch, or raise the error of the first."""
        a = self.active
        for at in np.flatnonzero(which).tolist():
            row = int(a.rows[at])
            # Steps that were given up because of what they met; that it is not there at a shorter one is not known.
            cause = Status(a.met[at]) if a.met[at] and status is not Status.MAX_NFE else status
            self.results.status[row] = int(cause)
            if not self.monitor.mask:
                raise self.explained(cause, row, at)
            self.monitor.failed[row] = True
        self.drop(which)

    def explained(self, status: Status, row: int, at: int) -> SdekitError:
        """The error to raise for one sample."""
        a = self.active
        t, h = float(a.u[at]), float(a.h[at])
        if status is Status.NON_FINITE:
            return self.gave_up(row, at) or NonFiniteError("model", sample=row, step=self.attempts, t=t)
        component = int(a.x[at].detach().abs().argmax()) if a.x[at].numel() else 0
        return UnfinishedError(status.name, sample=row, t=t, step_size=h, component=component, what=status.message)

    def gave_up(self, row: int, at: int) -> UnfinishedError | None:
        """The error of a stepper whose own iteration failed in a sample's last, rejected attempt, which is repeated."""
        a = self.active
        a.j[at], a.k[at] = a.j[at] >> (a.k[at] - a.k_tried[at]), a.k_tried[at]
        index = np.array([at])
        start, end = (self.lattice.at(a.goal[index], a.j[index] + n, a.k[index]) for n in (0, 1))
        self.calls.monitor.mask = False
        try:
            self.tried(index, start, end)
        except UnfinishedError as error:
            what = "the solver's own iteration fails, however short the step; give it more iterations, or take another"
            t, h, component = float(start[0]), float(abs(end[0] - start[0])), error.component
            return UnfinishedError(error.cause, sample=row, t=t, step_size=h, component=component, what=what)
        return None

    def drop(self, which: np.ndarray) -> None:
        """Samples that are done leave the batch."""
        a = self.active
        self.results.leave(a, which, np.full(len(a), self.made), self.attempts)
        a.keep(~which)

    def result(self, save: frozenset[int]) -> AdaptiveRun:
        """What there is, of samples that have arrived and of those under way."""
        a = self.active
        self.results.leave(a, a.under_way(), np.full(len(a), self.made), self.attempts)
        return self.results.run(self.last, save, a)


def _sides(times: Sequence[float], jumps: Collection[float], dtype: torch.dtype) -> np.ndarray:
    """As `_Loop.sides`."""
    way = list(itertools.pairwise(times))
    starts = [beside(a, b, dtype) if a in jumps else a for a, b in way]
    ends = [beside(b, a, dtype) if b in jumps else b for a, b in way]
    return np.array([[times[0], *starts], [times[0], *ends]])
