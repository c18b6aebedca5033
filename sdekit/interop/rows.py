"""Solvers with steps of their own, run for each sample by itself: a sample's result does not depend on the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import (
    BackendError,
    InterfaceError,
    NonFiniteError,
    OptionError,
    OutOfDomain,
    SdekitError,
    UnfinishedError,
)
from sdekit.integrate import Dynamics
from sdekit.interop.backend import Caller
from sdekit.monitor import Monitor
from sdekit.sde import ODE
from sdekit.shapes import compute_dtype
from sdekit.solution import AdaptiveRun, Partial, Status, StepInfo
from sdekit.solvers.base import Increments, StepResult

__all__ = ["Rows", "Stretch", "solve_rows"]


class Stretch(NamedTuple):
    """What a solver returns for one interval: the state at its end, and the steps that it took."""

    x: Tensor
    accepted: int
    rejected: int


class Rows:
    """A solver that goes from one time to another by steps of its own, for one sample at a time."""

    adaptive: ClassVar[bool] = True
    own_steps: ClassVar[bool] = True

    @abstractmethod
    def advance(self, caller: Caller, t0: float, t1: float, x: Tensor, rtol: float, atol: float) -> Stretch:
        """From (t0, x) to t1; x is (1, *shape)."""

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        """Not to be had. Raises OptionError."""
        raise OptionError(
            "rtol, atol",
            got="none",
            expected="a tolerance, by which this solver chooses its steps",
            fix="Pass rtol=1e-6, for example.",
        )


class _Sample:
    """One sample under way."""

    def __init__(self, dynamics: ODE, x: Tensor, checks: str, limit: int) -> None:
        self.inner = Dynamics(dynamics, x, Monitor(x, checks, False), limit)
        self.x = x.to(compute_dtype(x.dtype), copy=True)
        self.steps = self.rejected = 0
        self.status = Status.STOPPED
        self.done = False

    def fail(self, status: Status) -> None:
        self.status, self.done = status, True
        self.x = torch.full_like(self.x, torch.nan)


def solve_rows(
    dynamics: ODE,
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
) -> AdaptiveRun:
    """Solve from times[0] to times[-1], landing on each time between; `callback` is called at each.

    Raises:
        BackendError, UnfinishedError, NonFiniteError: where a sample fails, unless the monitor masks.
    """
    known = monitor.failed.tolist()
    samples = [_Sample(dynamics, x[i : i + 1], monitor.checks, limit) for i in range(len(x))]
    for sample, bad in zip(samples, known, strict=True):
        if bad:
            sample.fail(Status.NON_FINITE)
    saved = {0: x.clone()} if 0 in save else {}
    last, stopped = len(times) - 1, False
    for i in range(last):
        for row, sample in enumerate(samples):
            before = sample.inner.calls
            if not sample.done:
                _advance(sample, row, method, times, i, (rtol, atol), monitor, samples)
            if advance is not None:
                advance(sample.inner.calls - before)
        state = _join(samples, x)
        if i + 1 in save and i + 1 != last:
            saved[i + 1] = state
        calls = sum(sample.inner.calls for sample in samples)
        if callback is not None and callback(StepInfo(i, times[i], times[i + 1], state.clone(), None, calls)) is True:
            stopped = True
            break
    for sample in samples:
        if not sample.done and not stopped:
            sample.status = Status.SUCCESS
    final = _join(samples, x)
    _check_end(final, samples, monitor, times, stopped)
    if last in save:
        saved[last] = final
    return AdaptiveRun(
        final,
        saved,
        torch.tensor([s.inner.calls for s in samples], dtype=torch.int64),
        torch.tensor([s.steps for s in samples], dtype=torch.int64),
        torch.tensor([s.rejected for s in samples], dtype=torch.int64),
        torch.tensor([int(s.status) for s in samples], dtype=torch.int64),
    )


def _check_end(final: Tensor, samples: list[_Sample], monitor: Monitor, times: Sequence[float], stopped: bool) -> None:
    """What is returned, in the dtype in which it is returned."""
    try:
        monitor.state(final, len(times) - 2, times[-1])
    except NonFiniteError as error:
        error.partial = _partial(samples, final, times[-1])
        raise


def _advance(
    sample: _Sample,
    row: int,
    method: Any,
    times: Sequence[float],
    i: int,
    tolerance: tuple[float, float],
    monitor: Monitor,
    samples: list[_Sample],
) -> None:
    """One sample over one interval; its failure is recorded where the monitor masks, else raised."""
    t0, t1 = times[i], times[i + 1]
    sample.inner.begin(i)
    caller = Caller(sample.inner, t0, t1, sample.x.dtype, many=True)
    start = sample.x
    try:
        result = method.advance(caller, t0, t1, start, *tolerance)
        sample.inner.monitor.state(result.x, i, t1)
        sample.x = _checked(result.x, start)
        sample.steps += result.accepted
        sample.rejected += result.rejected
    except BaseException as error:
        status = _status(error)
        if status is not None and monitor.mask:
            sample.fail(status)
            monitor.failed[row] = True
            return
        where = f"raised for sample {row}, between t = {t0:.8g} and {t1:.8g}, of a sdekit solve with {method.name}"
        if isinstance(error, SdekitError):
            raise _named(error, row, caller.last, _partial(samples, start, t0), where) from error.__cause__
        error.add_note(where)
        raise


def _status(error: BaseException) -> Status | None:
    """The status of a failure that a mask may hide."""
    kinds = {NonFiniteError: Status.NON_FINITE, OutOfDomain: Status.OUT_OF_DOMAIN, BackendError: Status.BACKEND}
    if isinstance(error, OptionError) and error.argument == "max_nfe":
        return Status.MAX_NFE
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), None)


def _named(error: SdekitError, row: int, t: float, partial: Partial, where: str) -> SdekitError:
    """The error to raise, which names the sample."""
    if isinstance(error, NonFiniteError):
        error = NonFiniteError(error.source, sample=row, step=error.step, t=error.t, call=error.call)
    elif _status(error) is Status.MAX_NFE:
        what = Status.MAX_NFE.message
        error = UnfinishedError("MAX_NFE", sample=row, t=t, step_size=0.0, component=0, what=what)
    elif isinstance(error, BackendError):
        error.sample = row
    error.partial = partial
    error.add_note(where)
    return error


def _checked(x: Any, start: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.shape != start.shape or x.dtype != start.dtype:
        raise InterfaceError(
            "advance", got=type(x).__name__, expected="a state like the start", fix="Return Stretch(x, ...)."
        )
    return x


def _join(samples: list[_Sample], x: Tensor) -> Tensor:
    return torch.cat([s.x for s in samples]).to(x.dtype) if samples else x.clone()


def _partial(samples: list[_Sample], x: Tensor, t: float) -> Partial:
    state = torch.cat([s.x.detach() for s in samples]).to(x.dtype) if samples else x
    nfe = torch.tensor([s.inner.calls for s in samples], dtype=torch.int64)
    return Partial(state, t, nfe, torch.tensor([int(s.status) for s in samples], dtype=torch.int64))
