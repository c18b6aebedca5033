"""What a solve returns, and what a callback sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from torch import Tensor

from sdekit.errors import OptionError

__all__ = ["AdaptiveRun", "Partial", "Run", "Solution", "Status", "StepInfo"]


class Status(IntEnum):
    """How the solve of one sample ended."""

    SUCCESS = 0
    NON_FINITE = 1
    STOPPED = 2
    MAX_NFE = 3
    STIFF = 4
    BLOW_UP = 5
    TOLERANCE = 6
    STEP_UNDERFLOW = 7
    REJECTIONS = 8
    OUT_OF_DOMAIN = 9
    BACKEND = 10
    EVENT = 11

    @property
    def message(self) -> str:
        """What it means and what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.SUCCESS: "reached the last time",
    Status.NON_FINITE: "NaN or infinity appeared; the row is NaN. Solve it with on_failure='raise' to see where",
    Status.STOPPED: "stopped by the callback before the last time",
    Status.MAX_NFE: "max_nfe calls were made before the last time was reached; raise max_nfe, or loosen the tolerances",
    Status.STIFF: "max_nfe calls were made, with steps held short by stability: the equation is stiff; "
    "raise max_nfe, or loosen the tolerances",
    Status.BLOW_UP: "the state grew without bound at a time before the last",
    Status.TOLERANCE: "the tolerance is below the rounding error of the state; raise rtol or atol, or use float64",
    Status.STEP_UNDERFLOW: "the step became shorter than the rounding of t, or than a path resolves; loosen the "
    "tolerances, or look for a jump or a singularity there",
    Status.REJECTIONS: "the error did not fall with the step: the drift is noisy, or not a function of t and x",
    Status.OUT_OF_DOMAIN: "the model refused the state, however short the step",
    Status.EVENT: "the event happened before the last time",
    Status.BACKEND: "the solver of another package failed; solve with on_failure='raise' to see what it says",
}


@dataclass(frozen=True)
class Solution:
    """The result of `sdekit.solve`.

    Attributes:
        x: the final state (B, *shape), in the dtype and on the device of the start.
        xs: the saved states (saved, B, *shape).
        t: their times, float64.
        nfe, steps, rejected, status: per sample, (B,), int64; status holds `Status` values.
        success: whether every sample reached the last time.
        message: what happened, in words.
        route: "plan" or "step".
        provenance: everything needed to repeat the solve: solver, options, seed, grid, dtypes, versions.
        event_t: (B,), float64: when each sample's event happened, NaN where it did not; None without `event`.
        dense: with dense=True, the record that `at` reads.
    """

    x: Tensor
    xs: Tensor
    t: Tensor
    nfe: Tensor
    steps: Tensor
    rejected: Tensor
    status: Tensor
    route: str
    provenance: dict[str, Any] = field(default_factory=dict)
    event_t: Tensor | None = None
    dense: Any = None

    def at(self, t: float | Tensor) -> Tensor:
        """The states (B, *shape) at a time between the ends, or at a time (B,) for each sample; with dense=True.

        Raises:
            OptionError: without dense=True, or at a time that a sample has not reached.
        """
        if self.dense is None:
            raise OptionError(
                "dense", got="a solve without it", expected="dense=True", fix="Solve with dense=True, or save=[t]."
            )
        return self.dense.at(t)

    @property
    def success(self) -> bool:
        return bool((self.status == Status.SUCCESS).all())

    @property
    def message(self) -> str:
        counts = {s: int((self.status == s).sum()) for s in Status}
        return "; ".join(f"{n} sample(s): {s.message}" for s, n in counts.items() if n) or "no samples"


@dataclass(frozen=True)
class StepInfo:
    """What a callback is given after each step; return True from the callback to stop the solve.

    With adaptive steps a step is one attempt of all samples that have not reached the end: t and t_next are then
    (B,) float64 tensors on the host, equal where a sample's step was rejected or the sample is at the end.

    Attributes:
        i: the index of the step.
        t, t_next: its ends.
        x: the state at t_next, a copy.
        denoised: the last data prediction of the step, or None where there is none.
        nfe: model calls so far.
    """

    i: int
    t: float | Tensor
    t_next: float | Tensor
    x: Tensor
    denoised: Tensor | None
    nfe: int


@dataclass(frozen=True)
class Partial:
    """What a failed solve had reached: the state at the last grid time passed, that time, and the model calls made.

    With adaptive steps t, nfe and status are (B,) tensors on the host: each sample's own.
    """

    x: Tensor
    t: float | Tensor
    nfe: int | Tensor
    status: Tensor | None = None


@dataclass
class Run:
    """What a loop gives: the state, saved states by grid index, calls, steps, and whether a callback stopped it.

    `state` is what the last step left for a next one; `kept` are parts of the steps, with the x and state before them.
    """

    x: Tensor
    saved: dict[int, Tensor] = field(default_factory=dict)
    nfe: int = 0
    steps: int = 0
    stopped: bool = False
    state: Any = None
    kept: list[tuple[range, Tensor, Any]] = field(default_factory=list)


@dataclass
class AdaptiveRun:
    """What an adaptive loop gives: states and saved states, and (B,) int64 tensors on the host.

    `dense` and `event_t` are there where they were asked for.
    """

    x: Tensor
    saved: dict[int, Tensor]
    nfe: Tensor
    steps: Tensor
    rejected: Tensor
    status: Tensor
    dense: Any = None
    event_t: Tensor | None = None
