"""Plans on tensors: one loop for every method.

All scalars are Python floats, computed in float64 before the loop. With gradients off, each combination is a few
in-place passes over buffers that are made once; with gradients on, the same combinations are formed out of place. Model
outputs are used where they lie: a conversion of parameterisation is folded into the coefficients, or costs one pass
where the output is needed again by later rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, SdekitError
from sdekit.execute.binding import BoundRow, bind
from sdekit.execute.combine import Terms, weighted_sum
from sdekit.execute.outputs import Outputs, same_memory
from sdekit.model import Model
from sdekit.monitor import Monitor
from sdekit.noise import NoiseSource, PlainNoise, StepNoise
from sdekit.plan import Combination, Plan, Row
from sdekit.plan.coefficients import scaled
from sdekit.shapes import compute_dtype, uninitialised_like
from sdekit.solution import Partial, Run, StepInfo

__all__ = ["execute"]


def execute(
    plan: Plan,
    model: Model,
    x: Tensor,
    noise: NoiseSource | None,
    monitor: Monitor,
    *,
    save: Collection[int] = (),
    callback: Callable[[StepInfo], Any] | None = None,
    advance: Callable[[int], Any] | None = None,
    conditioning: Mapping[str, Any] | None = None,
) -> Run:
    """Run a plan from x (B, *shape), whose dtype is the dtype in which the model is called.

    Args:
        noise: the source of the steps' noises; may be None for a deterministic plan.
        save: the grid indices whose states are kept.
        callback: called after each step; returning True stops.
        advance: called with the number of model calls made, for a progress bar.

    Raises:
        NonFiniteError: from the monitor. Whatever is raised carries a note with step and t; errors of sdekit carry
            `partial`.
    """
    bound = bind(plan, model)
    machine = _Machine(plan, noise, monitor, x)
    run = Run(machine.point)
    if 0 in save:
        run.saved[0] = x.clone()
    for i, item in enumerate(bound):
        row = item.row
        try:
            out = machine.call(i, item, model, conditioning or {})
            denoised = _denoised(item, out, machine.point) if callback is not None else None
            machine.update(i, item, out)
        except BaseException as error:
            _annotate(error, row, i, Partial(run.x, plan.times[run.steps], i))
            raise
        run.nfe += 1
        if advance is not None:
            advance(1)
        if i + 1 < len(bound) and bound[i + 1].row.step == row.step:
            continue
        run.steps, run.x = row.step + 1, machine.point
        if run.steps in save:
            run.saved[run.steps] = machine.point.to(x.dtype, copy=True)
        if callback is not None:
            t, t_next = plan.times[row.step], plan.times[row.step + 1]
            info = StepInfo(row.step, t, t_next, machine.point.to(x.dtype, copy=True), denoised, run.nfe)
            if callback(info) is True:
                run.stopped = True
                break
    monitor.state(machine.point, run.steps - 1, plan.times[run.steps])
    return run


def _denoised(item: BoundRow, out: Tensor, point: Tensor) -> Tensor | None:
    y, m = item.denoise
    if not (abs(y) < float("inf") and abs(m) < float("inf")):
        return None
    return (y * point + m * out).detach()


def _annotate(error: BaseException, row: Row, call: int, partial: Partial) -> None:
    """Say where in the solve an exception arose; those of user code pass through otherwise unchanged."""
    if isinstance(error, SdekitError):
        error.partial = partial
    else:
        error.add_note(f"raised in model call {call}, step {row.step}, t = {row.t:.8g} of a sdekit solve")


class _Machine:
    """base, point, outputs and noises during one run."""

    def __init__(self, plan: Plan, noise: NoiseSource | None, monitor: Monitor, x: Tensor) -> None:
        self.plan, self.noise, self.monitor, self.dtype = plan, noise, monitor, x.dtype
        # The start is the caller's: it is copied unless out-of-place sums will leave it alone anyway.
        self.base = x.to(compute_dtype(x.dtype)) if x.requires_grad else x.to(compute_dtype(x.dtype), copy=True)
        self.point = self.base
        self.outputs = Outputs()
        self._stage: Tensor | None = None
        self._noises: dict[int, Tensor] = {}
        self._drawn: set[int] = set()
        self._step = -1

    def call(self, i: int, item: BoundRow, model: Model, conditioning: Mapping[str, Any]) -> Tensor:
        """The model's output for row i, checked; E is kept if later rows need it."""
        row = item.row
        if row.kick is not None:
            self.base = self.point = self._combine(row.kick, row, i, item, None, self.base)
        point = self.point if self.point.dtype == self.dtype else self.point.to(self.dtype)
        handed = point.clone() if point.is_inference() and i == 0 else point
        version = None if point.is_inference() else point._version
        holders = sys.getrefcount(point)
        out = model.network(row.t, handed, **conditioning)
        edited = not torch.equal(handed, point) if version is None else point._version != version
        if edited:
            raise ModelOutputError(
                "net",
                got=f"a change in place of its input in call {i}",
                expected="an input that is left as it is",
                fix="Work on a copy: x = x.clone().",
            )
        if out is not point and same_memory(out, point):
            out = out.clone()
        if sys.getrefcount(point) > holders and out is not point:
            # The model keeps its input, to record it perhaps: what it holds must not change under it.
            self._leave(point)
        self.outputs.check()
        self.monitor.output(out, self.point, row.step, row.t, i)
        if item.stored:
            self.outputs.store(i, item, out, self.point)
        return out

    def update(self, i: int, item: BoundRow, out: Tensor) -> None:
        """Form the new base and point."""
        row = item.row
        point = None
        if row.point is not None:
            point = self._combine(row.point, row, i, item, out, self._stage_buffer())
            self._stage = point
        if row.base is not None:
            self.base = self._combine(row.base, row, i, item, out, self.base)
        self.point = self.base if point is None else point
        self.outputs.release(i, self.plan.last_use)

    def _stage_buffer(self) -> Tensor | None:
        if self._stage is None or self._stage.requires_grad:
            self._stage = uninitialised_like(self.base.detach())
        return self._stage

    def _leave(self, held: Tensor) -> None:
        """Go on in fresh buffers where a tensor of ours is held by someone else."""
        if held is self.base:
            self.base = self.base.clone()
            self.point = self.base
        elif held is self._stage:
            self.point = self._stage = held.clone()

    def _combine(
        self, c: Combination, row: Row, i: int, item: BoundRow, out: Tensor | None, into: Tensor | None
    ) -> Tensor:
        terms: Terms = [(c.base, self.base)]
        for age, b in c.outputs:
            if age == 0 and not item.stored and out is not None:
                terms += [(scaled(b, item.m), out), (scaled(b, item.y), self.point)]
            else:
                kept = self.outputs.kept[i - age]
                terms.append((scaled(b, kept.scale), kept.tensor))
        terms += [(b, self._draw(row, stream)) for stream, b in c.noises]
        return weighted_sum(terms, into)

    def _draw(self, row: Row, stream: int) -> Tensor:
        """This step's noise of a stream, drawn once; its buffer serves every step."""
        if self._step != row.step:
            self._step, self._drawn = row.step, set()
        if stream not in self._drawn and self.noise is not None:
            buffer = self._noises.get(stream)
            buffer = uninitialised_like(self.base.detach()) if buffer is None else buffer
            self._noises[stream] = self.noise.fill(buffer, row.step, stream)
            self._drawn.add(stream)
            if not isinstance(self.noise, (StepNoise, PlainNoise)):
                self.monitor.noise(self._noises[stream], row.step, row.t)
        return self._noises[stream]
