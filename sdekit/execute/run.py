"""Plans on tensors: one loop for every method.

All scalars are Python floats, computed in float64 before the loop. With gradients off, each combination is one in-place
pass over buffers that are made once, or one for each term where there is no kernel for it; with gradients on, the same
combinations are formed out of place. Model outputs are used where they lie: a conversion of parameterisation is folded
into the coefficients, or costs one pass where the output is needed again by later rows.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, SdekitError
from sdekit.execute.compiler import Program
from sdekit.execute.outputs import Outputs
from sdekit.execute.registers import BASE, OUT, Call, Sum
from sdekit.math import combinations
from sdekit.model import Model, check_output
from sdekit.monitor import Monitor
from sdekit.noise import OWN, NoiseSource
from sdekit.plan import Plan, Row
from sdekit.shapes import compute_dtype, uninitialised_like
from sdekit.solution import Partial, Run, StepInfo

__all__ = ["execute"]


def execute(
    program: Program,
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
    """Run a compiled plan from x (B, *shape), whose dtype is the dtype in which the model is called.

    Args:
        program: what `compile_plan` makes of the plan and this model.
        noise: the source of the steps' noises; may be None for a deterministic plan.
        save: the grid indices whose states are kept.
        callback: called after each step; returning True stops.
        advance: called with the number of model calls made, for a progress bar.

    Raises:
        NonFiniteError: from the monitor. Whatever is raised carries a note with step and t; errors of sdekit carry
            `partial`.
    """
    plan = program.plan
    machine = _Machine(program, model, noise, monitor, x, conditioning or {})
    run = Run(machine.registers[BASE])
    if 0 in save:
        run.saved[0] = x.clone()
    steps = plan.steps
    for i, call in enumerate(program.calls):
        row = call.row
        try:
            if call.overwritten:
                run.x = machine.snapshot(run.x)
            machine.call(i, call)
            denoised = machine.denoised(call) if callback is not None else None
            machine.update(call)
            run.nfe += 1
            if call.ends:
                run.steps, run.x = row.step + 1, machine.registers[call.after]
                if run.steps in save:
                    run.saved[run.steps] = run.x.to(x.dtype, copy=True)
                    monitor.state(run.saved[run.steps], row.step, plan.times[run.steps])
                elif run.steps == steps:
                    monitor.state(run.x.to(x.dtype), row.step, plan.times[run.steps])
            if advance is not None:
                advance(1)
            if call.ends and callback is not None and callback(_info(plan, row, run, x.dtype, denoised)) is True:
                run.stopped = True
                monitor.state(run.x.to(x.dtype), row.step, plan.times[run.steps])
                break
        except BaseException as error:
            _annotate(error, row, i, Partial(run.x.to(x.dtype), plan.times[run.steps], run.nfe))
            raise
    return run


def _info(plan: Plan, row: Row, run: Run, dtype: torch.dtype, denoised: Tensor | None) -> StepInfo:
    t, t_next = plan.times[row.step], plan.times[row.step + 1]
    return StepInfo(row.step, t, t_next, run.x.to(dtype, copy=True), denoised, run.nfe)


def _annotate(error: BaseException, row: Row, call: int, partial: Partial) -> None:
    """Say where in the solve an exception arose; those of user code pass through otherwise unchanged."""
    if isinstance(error, SdekitError):
        error.partial = partial
    error.add_note(f"raised in model call {call}, step {row.step}, t = {row.t:.8g} of a sdekit solve")


class _Machine:
    """The registers of one run, and what fills them."""

    def __init__(
        self,
        program: Program,
        model: Model,
        noise: NoiseSource | None,
        monitor: Monitor,
        x: Tensor,
        conditioning: Mapping[str, Any],
    ) -> None:
        self.model, self.noise, self.monitor, self.conditioning = model, noise, monitor, conditioning
        self.replaced = type(model).network is not Model.network
        """Whether a subclass has its own `network`, whose output is then not yet checked."""
        self.calls, self.ahead = program.calls, max(16, x.numel() // max(1, 16 * len(x)))
        """For how many calls the network's times are made at once: a sixteenth of the state's memory."""
        self.times: list[tuple[Tensor, float | None]] = []
        self.all_conditioning = {**model.conditioning, **conditioning}
        self.dtype, self.computes = x.dtype, compute_dtype(x.dtype)
        self.shape, self.device = x.shape, x.device
        self.direct = model.dtype is None and model.output is None
        """Whether what net returns is the prediction as it is."""
        self.gradients = torch.is_grad_enabled()
        self.recording = self.gradients and x.requires_grad
        """Once true, no tensor is changed any more: the graph may need it."""
        self.converts = self.dtype is not self.computes
        self.counts = not torch.is_inference_mode_enabled()
        """Whether tensors count their changes."""
        self.watched = monitor.checks == "full"
        self.registers: list[Any] = [None] * program.registers
        # The start is the caller's: it is copied unless it will be left alone anyway.
        self.registers[BASE] = x.to(self.computes) if self.recording else _copy(x.detach(), self.computes)
        self.fused: Any = combinations.kernel(self.registers[BASE], len(program.calls))
        """Takes a combination in one pass; None where there is none, and once the model returns what it cannot read."""
        self.table, self.size = program.coefficients.buffer_info()[0], x.numel()
        self.outputs = Outputs(self.registers)
        self._snapshot: Tensor | None = None
        self.handed: Tensor | None = None
        """The last register that the model was given, and the address of its storage."""
        self.storage = 0

    def call(self, i: int, call: Call) -> None:
        """Call the model, check what it returns, and keep that if later rows need it."""
        if call.kick is not None:
            self._draw(call.row, call.kick_noises)
            self._sums((call.kick,))
        r, at = self.registers, call.point
        point = given = handed = r[at]
        if self.converts or not self.counts:
            given = point.to(self.dtype)
            handed = given.clone() if i == 0 and not self.counts else given
        if handed is not self.handed:
            self.handed, self.storage = handed, handed.untyped_storage()._cdata
        version = handed._version if self.counts else None
        holders = sys.getrefcount(handed) + _storage_users(self.storage)
        out = self._answer(i, call, handed)
        if handed._version != version if self.counts else i == 0 and not _identical(handed, given):
            raise ModelOutputError(
                "net",
                got=f"a change in place of its input in call {i}",
                expected="an input that is left as it is",
                fix="Work on a copy: x = x.clone().",
            )
        if handed is point and not self.recording:
            if point.requires_grad:  # the model's own business: it differentiates in its input
                point.requires_grad_(False)
            if sys.getrefcount(handed) + _storage_users(self.storage) > holders:
                # The model returns its input, or keeps it to record it: that memory is left to it.
                r[at] = point.clone()
        self._receive(out)
        if call.live:
            self.outputs.check(call.live)
        if self.watched:
            self.monitor.output(out, given, call.row.step, call.row.t, i)
        if call.keep is not None:
            self.outputs.store(call.keep, self.recording)

    def update(self, call: Call) -> None:
        """Form the new base and point."""
        if call.noises:
            self._draw(call.row, call.noises)
        self._sums(call.sums)
        if call.dead:
            self.outputs.release(call.dead)
        self.registers[OUT] = None

    def denoised(self, call: Call) -> Tensor | None:
        """The data prediction at the point, a new tensor, or None where it is not determined."""
        y, m = call.denoise
        if not (abs(y) < float("inf") and abs(m) < float("inf")):
            return None
        return (y * self.registers[call.point] + m * self.registers[OUT]).detach()

    def snapshot(self, x: Tensor) -> Tensor:
        """A copy of x in a buffer that serves all steps, so that a failure later in the step can still show it."""
        if self.recording:
            return x
        if self._snapshot is None:
            self._snapshot = uninitialised_like(x)
        return self._snapshot.copy_(x)

    def _answer(self, i: int, call: Call, handed: Tensor) -> Tensor:
        """What the model says, checked."""
        model = self.model
        if self.replaced:
            return check_output(model.network(call.row.t, handed, **self.conditioning), handed, "network")
        place = i % self.ahead
        if place == 0:
            self.times = model.network_times([c.row.t for c in self.calls[i : i + self.ahead]], handed)
        time, scale = self.times[place]
        if scale is not None or not self.direct:
            return model.answer(handed, time, scale, self.all_conditioning)
        out = model.net(handed, time, **self.all_conditioning)
        # The usual case of `check_output`, at half its price.
        usual = type(out) is Tensor and out.dtype is self.computes and out.layout is torch.strided
        if usual and out.shape == self.shape and out.device == self.device:
            return out
        return check_output(out, handed, "net")

    def _receive(self, out: Tensor) -> None:
        self.registers[OUT] = out
        if self.fused is not None and not (out.dtype is self.computes and combinations.plain(out)):
            self.fused = None
        if self.gradients and out.requires_grad:
            self.recording = True

    def _sums(self, sums: Sequence[Sum]) -> None:
        r = self.registers
        for combination in sums:
            into, _, passes, fused = combination
            if self.recording or passes is None:
                r[into] = combination.out_of_place(r)
                continue
            if r[into] is None:
                r[into] = uninitialised_like(r[BASE])
            if self.fused is None or not fused:
                combination.in_place(r)
            else:
                self._fuse(into, fused)

    def _fuse(self, into: int, fused: list[tuple[int, tuple[int, ...]]]) -> None:
        r = self.registers
        out = r[into].data_ptr()
        for at, places in fused:
            terms = [r[a].data_ptr() for a in places]
            self.fused(out, self.size, self.table + at, len(terms), *terms, *_REST[len(terms)])

    def _draw(self, row: Row, noises: list[tuple[int, int]]) -> None:
        """This step's noises; the buffers serve every step."""
        for stream, register in noises:
            buffer = self.registers[register]
            if buffer is None:
                buffer = uninitialised_like(self.registers[BASE].detach())
            if self.noise is not None:
                filled = self.noise.fill(buffer, row.step, stream)
                self.registers[register] = buffer if filled is buffer else buffer.copy_(filled)
                if not isinstance(self.noise, OWN):
                    self.monitor.noise(buffer, row.step, row.t)


def _copy(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _identical(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


_REST = [(None,) * (combinations.TERMS - n) for n in range(combinations.TERMS + 1)]

# Counts the tensors that view a memory. Without it, any input counts as held: right, and a copy slower.
_storage_users: Callable[[int], int] = getattr(torch._C, "_storage_Use_Count", lambda storage: next(_always_more))
_always_more = itertools.count()
