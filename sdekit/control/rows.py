"""The samples that are under way, and calls of a field for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.fields import Field
from sdekit.errors import ModelOutputError, OutOfDomain

__all__ = ["Active", "Calls", "refused_rows"]


class Active:
    """Samples under way: arrays (n,), and tensors whose first axis they are.

    Attributes:
        rows: their indices in the batch.
        x, slope: the states reached, in the computing dtype, and the slopes there.
        u, h: where they are, and how long the next step should be.
        goal, end: the index of the time that they are going to, and its u.
        scale: of the field, at u.
        rejected, streak: how many steps were rejected, and how many since the last that was not.
        extra: calls made for a sample beside those made for all.
        history: what the controller remembers, (4, n), or None.
        alive: False for samples that are done but stay in the batch; None where none do.
    """

    arrays: tuple[str, ...] = ("rows", "u", "h", "goal", "end", "rejected", "streak", "extra")

    def __init__(self, x: Tensor, goals: np.ndarray, history: np.ndarray | None) -> None:
        n = len(x)
        self.rows = np.arange(n)
        self.x, self.slope = x, x
        self.u, self.h, self.scale = np.full(n, goals[0]), np.zeros(n), np.ones(1)
        self.goal, self.end = np.ones(n, dtype=np.int64), np.full(n, goals[1])
        self.rejected, self.streak, self.extra = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.history = history
        self.alive: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def under_way(self) -> np.ndarray:
        """(n,): which are not done."""
        return np.ones(len(self), dtype=bool) if self.alive is None else self.alive

    def index(self, which: np.ndarray) -> Tensor:
        """The positions where it is true, on the state's device."""
        return torch.from_numpy(np.flatnonzero(which)).to(self.x.device)

    def keep(self, which: np.ndarray) -> None:
        """Go on with some of them."""
        index = np.flatnonzero(which)
        for name in self.arrays:
            setattr(self, name, getattr(self, name)[index])
        if len(self.scale) > 1:
            self.scale = self.scale[index]
        if self.history is not None:
            self.history = self.history[:, index]
        at = torch.from_numpy(index).to(self.x.device)
        self.x, self.slope = self.x.index_select(0, at), self.slope.index_select(0, at)


class Calls:
    """Calls of a field for the active samples, less those that the model has refused in the step at hand.

    Attributes:
        refused: (n,), or None where none is.
        left_out: (n, 1, ..., 1), samples that are called at the start of the step instead of at its points, or None.
        full: how many calls were made for all that were active.
        made: how many calls in all.
    """

    def __init__(self, field: Field, active: Active, limit: int) -> None:
        self.field, self.active, self.limit = field, active, limit
        self.refused: np.ndarray | None = None
        self.left_out: Tensor | None = None
        self.full = self.made = 0

    @property
    def nfe(self) -> np.ndarray:
        """The calls made for each active sample."""
        return self.full + self.active.extra

    def begin(self, left_out: Tensor | None = None) -> None:
        """Enter a step."""
        self.refused, self.left_out = None, left_out

    def __call__(self, call: Any, point: Tensor, out: Tensor | None = None) -> Tensor:
        """The slopes at the points; those at the start of the step for samples that the model refuses.

        Args:
            out: may be used for them.
        """
        if self.left_out is not None:
            point = torch.where(self.left_out, self.active.x, point)
        if self.refused is None:
            self.made += 1
            self.full += 1
            try:
                return self.field(call, point, out)
            except OutOfDomain as error:
                self.refused = refused_rows(error, len(point))
        return self.some(call, point, ~self.refused)

    def some(self, call: Any, point: Tensor, wanted: np.ndarray) -> Tensor:
        """The same, for some of the samples only."""
        instead = self.active.slope
        refused = np.zeros(len(wanted), dtype=bool) if self.refused is None else self.refused
        while True:
            index = np.flatnonzero(wanted & ~refused)
            if len(index) == 0 or int(self.nfe[index].max()) >= self.limit:
                self.refused = refused | wanted  # the limit is told of before the next step
                return instead
            rows = torch.from_numpy(index).to(point.device)
            self.field.select(self.active.rows[index])
            self.made += 1
            self.active.extra[index] += 1
            try:
                out = self.field(self.field.take(call, rows), point.index_select(0, rows))
                return instead.index_copy(0, rows, out.to(instead.dtype))
            except OutOfDomain as error:
                refused = refused.copy()
                refused[index[refused_rows(error, len(index))]] = True
                self.refused = refused
            finally:
                self.field.select(self.active.rows)


def refused_rows(error: OutOfDomain, n: int) -> np.ndarray:
    """The rows that a model refuses. Raises ModelOutputError for a mask that is none."""
    mask = error.mask
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    values = np.asarray(mask) if isinstance(mask, (np.ndarray, Sequence)) else np.zeros(0)
    if values.dtype != bool or values.shape != (n,) or not values.any():
        raise ModelOutputError(
            "OutOfDomain(mask)",
            got=f"{values.dtype} of shape {values.shape}",
            expected=f"a bool tensor of shape ({n},), true for at least one sample",
            fix="Reduce over all axes but the first: (x < 0).flatten(1).any(1).",
        ) from error
    return values
