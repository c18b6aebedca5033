"""Why a sample cannot go on, in words."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdekit.control.attempt import Stages
from sdekit.control.nodes import Nodes
from sdekit.errors import NonFiniteError, SdekitError, UnfinishedError
from sdekit.solution import Status

__all__ = ["Trace", "cause_of_underflow", "explain"]


class Trace:
    """One attempt: for the samples `rows` their states, and what came of it.

    Attributes:
        calls: how many calls were made before, for each sample.
        index: of the attempt.
        refused: where the model refused to answer.
    """

    new: Tensor
    error: np.ndarray
    refused: np.ndarray | None = None

    def __init__(
        self, stages: Stages, rows: np.ndarray, x: Tensor, nodes: Nodes, calls: np.ndarray, index: int
    ) -> None:
        self.stages, self.rows, self.x, self.nodes = stages, rows, x, nodes
        self.scheme, self.norm = stages.scheme, stages.norm
        self.calls, self.index = calls, index
        self.kept: dict[int, Sample] = {}

    def keep(self, which: np.ndarray) -> None:
        """Note what concerns some of the samples: the stages are about to be run again."""
        self.kept = {int(self.rows[at]): Sample(self, int(at)) for at in np.flatnonzero(which)}

    def of(self, row: int) -> Sample | None:
        """What concerns one sample of the original batch, if it took part."""
        if row in self.kept:
            return self.kept[row]
        found = np.flatnonzero(self.rows == row)
        return Sample(self, int(found[0])) if len(found) else None


class Sample:
    """One sample of a trace."""

    def __init__(self, trace: Trace, at: int) -> None:
        self.trace, self.at = trace, at
        self.slopes = trace.stages.slopes(at)
        self.weights, self.estimate = trace.stages.weights(at)
        self.x = trace.x[at].detach().flatten()

    def point(self, slope: int) -> Tensor:
        """The state at which a slope was asked for."""
        t = self.trace
        if slope == 0:
            return self.x
        node = t.scheme.node(slope)
        base = self.x if t.nodes.ratios is None else self.x * t.nodes.ratios[node][self.at]
        return base + float(t.nodes.gains[node][self.at]) * self.sum(self.weights[slope - 1])

    def sum(self, weights: np.ndarray) -> Tensor:
        """A combination of slopes."""
        return torch.stack([w * k for w, k in zip(weights.tolist(), self.slopes, strict=False)]).sum(0)

    def first_bad(self) -> tuple[str, int]:
        """Whose fault a value is that is not finite, and in which stage it appeared."""
        for stage, slope in enumerate(self.slopes):
            if not bool(torch.isfinite(slope).all()):
                finite = bool(torch.isfinite(self.point(stage)).all())
                return "model" if finite else "solver", stage
        return "solver", len(self.slopes) - 1

    def component(self) -> int:
        """The element with the largest error."""
        t = self.trace
        size = torch.maximum(self.x.abs(), t.new[self.at].detach().flatten().abs())
        error = self.sum(self.estimate).abs()
        scaled = (error / (t.norm.atol + t.norm.rtol * size)).nan_to_num(nan=torch.inf)
        return int(scaled.argmax()) if scaled.numel() else 0

    def stiffness(self) -> float:
        """h times the Lipschitz constant seen between the last two evaluations of the step."""
        last = len(self.slopes) - 1
        apart = torch.linalg.vector_norm(self.point(last) - self.point(last - 1))
        change = torch.linalg.vector_norm(self.slopes[last] - self.slopes[last - 1])
        return float(change / apart) * float(self.trace.nodes.size[self.at])

    def is_stiff(self) -> bool:
        """Whether the step is as long as stability allows: explicit methods turn unstable at h L of 2.5 to 6.

        Exponential methods do not: a decay that is the same for all of x, which is in L, is exact in them.
        """
        return self.trace.scheme.varying is None and 2.0 < self.stiffness() < 20.0

    def is_below_rounding(self, eps: float) -> bool:
        """Whether the tolerance is less than ten roundings of the state."""
        size = float(self.x.abs().max()) if self.x.numel() else 0.0
        return self.trace.norm.atol + self.trace.norm.rtol * size < 10 * eps * size

    def growth(self) -> float:
        """The relative growth of the state in one step, outwards."""
        square = float((self.x * self.x).sum())
        rate = float((self.x * self.slopes[0]).sum()) / square if square else 0.0
        return rate * float(self.trace.nodes.gains[-1][self.at])


def cause_of_underflow(sample: Sample | None, eps: float) -> Status:
    """Why steps became too short. eps: of the dtype in which the dynamics are called."""
    if sample is None:
        return Status.STEP_UNDERFLOW
    t, at = sample.trace, sample.at
    if t.refused is not None and t.refused[at]:
        return Status.OUT_OF_DOMAIN
    if not np.isfinite(t.error[at]):
        return Status.NON_FINITE
    if sample.is_below_rounding(eps):
        return Status.TOLERANCE
    return Status.BLOW_UP if sample.growth() > 1e-4 else Status.STEP_UNDERFLOW


def explain(status: Status, row: int, t: float, h: float, sample: Sample | None) -> SdekitError:
    """The error to raise for one sample."""
    if status is Status.NON_FINITE and sample is not None:
        trace = sample.trace
        source, stage = sample.first_bad()
        where = float(trace.nodes.times[trace.scheme.node(stage), sample.at]) if stage else t
        call = int(trace.calls[sample.at]) + stage - 1
        return NonFiniteError(source, sample=row, step=trace.index, t=where, call=call)
    if status is Status.NON_FINITE:
        return NonFiniteError("model", sample=row, step=0, t=t, call=0)
    component = 0 if sample is None else sample.component()
    return UnfinishedError(status.name, sample=row, t=t, step_size=h, component=component, what=status.message)
