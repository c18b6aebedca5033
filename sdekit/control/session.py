"""What the adaptive loops share: one solve from its start to what it returns, and whom it tells on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.results import Results
from sdekit.control.rows import Active
from sdekit.errors import NonFiniteError, SdekitError
from sdekit.monitor import Monitor
from sdekit.solution import AdaptiveRun, Partial, Status, StepInfo

__all__ = ["Session"]


class Session(ABC):
    """One solve.

    Attributes:
        active, results: the samples under way, and what they leave behind.
        attempts: how many steps were tried.
        last: the index of the last time.
    """

    active: Active
    what = "with adaptive steps"
    done: np.ndarray | None = None
    """(B,), samples that have ended before: they take no steps."""

    def __init__(self, x: Tensor, times: Sequence[float], monitor: Monitor, limit: int) -> None:
        self.times, self.last, self.monitor, self.limit = times, len(times) - 1, monitor, limit
        self.results, self.attempts = Results(x), 0
        self.told = torch.full((len(x),), float(times[0]), dtype=torch.float64)

    @property
    @abstractmethod
    def calls_made(self) -> int:
        """How many model calls were made in all."""

    @abstractmethod
    def drop(self, which: np.ndarray) -> None:
        """Samples that are done leave the batch."""

    @abstractmethod
    def begin(self) -> None:
        """What comes before the first step."""

    @abstractmethod
    def attempt(self, save: frozenset[int]) -> None:
        """One step of every active sample."""

    @abstractmethod
    def result(self, save: frozenset[int]) -> AdaptiveRun:
        """What there is, of samples that have arrived and of those under way."""

    def at(self, u: np.ndarray) -> np.ndarray:
        """The times of the samples' own variable."""
        return np.array(u)

    def going(self) -> bool:
        """Whether any sample is under way."""
        alive = self.active.alive
        return len(self.active) > 0 if alive is None else bool(alive.any())

    def solve(
        self,
        save: frozenset[int],
        callback: Callable[[StepInfo], Any] | None,
        advance: Callable[[int], Any] | None,
    ) -> AdaptiveRun:
        """To the end, or until the callback stops it."""
        try:
            self.enter(save)
            stopped = self._steps(save, callback, advance)
        except BaseException as error:
            self.annotate(error)
            raise
        run = self.result(save)
        if not stopped:
            self._check_end(run)
        return run

    def enter(self, save: frozenset[int]) -> None:
        """The start, without samples that are not finite or have ended before."""
        if 0 in save:
            self.results.reach(0, self.active.rows, self.active.x)
        known = self.monitor.failed.cpu().numpy()
        if known.any():
            self.results.status[known] = int(Status.NON_FINITE)
        if self.done is not None:
            self.results.status[self.done] = int(Status.EVENT)
            known = known | self.done
        if known.any():
            self.drop(known)

    def _steps(
        self,
        save: frozenset[int],
        callback: Callable[[StepInfo], Any] | None,
        advance: Callable[[int], Any] | None,
    ) -> bool:
        if self.going():
            self.begin()
            if advance is not None:
                advance(self.calls_made)
        while self.going():
            made = self.calls_made
            self.attempt(save)
            if advance is not None:
                advance(self.calls_made - made)
            if callback is not None and self._tell(callback):
                return True
        return False

    def partial(self) -> Partial:
        """What every sample has reached, and when."""
        run = self.result(frozenset())
        return Partial(run.x.detach(), torch.from_numpy(self.at(self.results.reached)), run.nfe, run.status)

    def _tell(self, callback: Callable[[StepInfo], Any]) -> bool:
        """Call the callback; true where it stops the solve."""
        partial = self.partial()
        before, self.told = self.told, torch.as_tensor(partial.t)
        info = StepInfo(self.attempts - 1, before, self.told, partial.x.clone(), None, self.calls_made)
        return callback(info) is True

    def annotate(self, error: BaseException) -> None:
        """Say where in the solve an exception arose; those of user code pass through otherwise unchanged."""
        if isinstance(error, SdekitError):
            error.partial = self.partial()
        t = self.at(self.active.u)
        span = f", between t = {t.min():.8g} and {t.max():.8g}" if len(t) else ""
        error.add_note(f"raised in attempt {self.attempts}{span}, of a sdekit solve {self.what}")

    def _check_end(self, run: AdaptiveRun) -> None:
        """What is returned, in the dtype in which it is returned: half precisions overflow there.

        A sample that has ended before has no state at later times: NaN, which is no failure.
        """
        over = (run.status == int(Status.EVENT)).to(run.x.device).view(-1, *(1,) * (run.x.ndim - 1))
        for goal, x in {**run.saved, self.last: run.x}.items():
            if goal != self.last or self.done is not None:
                x = torch.where(over, torch.zeros_like(x), x)
            try:
                self.monitor.state(x, self.attempts, self.times[goal])
            except NonFiniteError as error:
                error.partial = self.partial()
                raise

    def column(self, which: np.ndarray) -> Tensor:
        """(n, 1, ..., 1), on the state's device."""
        x = self.active.x
        return torch.from_numpy(which).to(x.device).view(-1, *(1,) * (x.ndim - 1))
