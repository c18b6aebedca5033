"""The model outputs that later rows need, kept with as few copies as is safe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError
from sdekit.execute.binding import BoundRow
from sdekit.shapes import uninitialised_like

__all__ = ["Outputs", "same_memory"]


@dataclass
class _Kept:
    """A tensor F with E = scale F. `version` is set for a tensor that belongs to the model."""

    scale: float
    tensor: Tensor
    version: int | None = None


class Outputs:
    """The extrapolated quantities E that later rows need, by row.

    A model may return its input, or rewrite one buffer at every call. The first output that would be kept as it is is
    therefore copied; if the next one lies in the same memory and that has been rewritten, all are copied from then on.
    """

    def __init__(self) -> None:
        self.kept: dict[int, _Kept] = {}
        self._free: list[Tensor] = []
        self._first: tuple[Tensor, int] | None = None
        self._copies: bool | None = None

    def store(self, i: int, bound: BoundRow, out: Tensor, point: Tensor) -> None:
        """Keep E of row i."""
        y, m = bound.y, bound.m
        if torch.is_grad_enabled() and (out.requires_grad or point.requires_grad):
            self.kept[i] = _Kept(1.0, y * point + m * out)
        elif y == 0:
            self.kept[i] = self._borrow(m, out, point)
        else:
            buffer = self._free.pop() if self._free else uninitialised_like(point)
            if abs(m) >= abs(y):
                self.kept[i] = _Kept(m, torch.add(out, point, alpha=y / m, out=buffer))
            else:
                self.kept[i] = _Kept(y, torch.add(point, out, alpha=m / y, out=buffer))

    def _borrow(self, scale: float, out: Tensor, point: Tensor) -> _Kept:
        if self._copies is None:
            if out.is_inference():  # does not count its changes
                self._copies = True
            elif self._first is None:
                self._first = (out, out._version)
                return _Kept(scale, self._copy(out))
            else:
                first, version = self._first
                self._copies, self._first = same_memory(out, first) and out._version != version, None
        if self._copies or same_memory(out, point):
            return _Kept(scale, self._copy(out))
        return _Kept(scale, out, out._version)

    def _copy(self, out: Tensor) -> Tensor:
        return self._free.pop().copy_(out) if self._free else out.clone()

    def check(self) -> None:
        """Raise if the model has rewritten an output that is still in use."""
        for i, kept in self.kept.items():
            if kept.version is not None and kept.tensor._version != kept.version:
                raise ModelOutputError(
                    "net",
                    got=f"a later call that changed the tensor returned by call {i}",
                    expected="outputs that stay as they were returned",
                    fix="Return a new tensor from each call.",
                )

    def release(self, i: int, last_use: tuple[int, ...]) -> None:
        """Forget what row i was the last to read; take back the buffers that are ours."""
        for j in [j for j in self.kept if last_use[j] <= i]:
            kept = self.kept.pop(j)
            if kept.version is None and not kept.tensor.requires_grad:
                self._free.append(kept.tensor)


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share storage."""
    return a.numel() > 0 and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
