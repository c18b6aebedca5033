"""The model outputs that later rows need, kept with as few copies as is safe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError
from sdekit.execute.registers import OUT, Keep
from sdekit.shapes import uninitialised_like

__all__ = ["Outputs", "same_memory"]


class Outputs:
    """Keeps outputs in their slots of the list of registers.

    A model may rewrite one buffer at every call. The first output that would be kept as it is is therefore copied; if
    the next one lies in the same memory, and is not the very same tensor with the same content, all are copied from
    then on. Outputs that are kept where they lie are watched by their version counters; inference tensors have none and
    are copied.
    """

    def __init__(self, registers: list[Any]) -> None:
        self.registers = registers
        self._buffers: dict[int, Tensor] = {}  # ours, by slot
        self._versions: dict[int, int] = {}  # of the model's tensors, by slot
        self._first: tuple[Tensor, int, int] | None = None  # tensor, version, slot of its copy
        self._copies: bool | None = None

    def store(self, keep: Keep, recording: bool) -> None:
        """Keep E of the row at hand; out of place where gradients are recorded."""
        r, (slot, first, second, ratio) = self.registers, keep
        if recording:
            r[slot] = r[first] + ratio * r[second] if ratio else r[OUT].clone()
        elif ratio:
            r[slot] = torch.add(r[first], r[second], alpha=ratio, out=self._buffer(slot))
        else:
            out = r[OUT]
            try:
                version = out._version
            except RuntimeError:  # an inference tensor
                version = None
            if version is None or self._copies or (self._copies is None and self._decide(out, slot)):
                r[slot] = self._buffer(slot).copy_(out)
            else:
                r[slot], self._versions[slot] = out, version

    def check(self, live: list[tuple[int, int]]) -> None:
        """Raise if the model has rewritten an output that is still in use."""
        for slot, i in live:
            if slot in self._versions and self.registers[slot]._version != self._versions[slot]:
                raise ModelOutputError(
                    "net",
                    got=f"a later call that changed the tensor returned by call {i}",
                    expected="outputs that stay as they were returned",
                    fix="Return a new tensor from each call.",
                )

    def release(self, dead: list[int]) -> None:
        """Let go of what is read no more."""
        for slot in dead:
            self.registers[slot] = None
            self._versions.pop(slot, None)

    def _buffer(self, slot: int) -> Tensor:
        if slot not in self._buffers:
            self._buffers[slot] = uninitialised_like(self.registers[OUT].detach())
        return self._buffers[slot]

    def _decide(self, out: Tensor, slot: int) -> bool:
        """Whether to copy this output, and from the second on, all of them."""
        if self._first is None:
            self._first = (out, out._version, slot)
            return True
        (first, version, copy), self._first = self._first, None
        self._copies = same_memory(out, first)
        if out is first and out._version == version:  # a constant, or written to behind the counter's back
            self._copies = not torch.equal(out, self._buffers[copy])
        return self._copies


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share storage."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
