"""What samples leave behind when they arrive, fail, or are asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdekit.control.rows import Active
from sdekit.solution import AdaptiveRun, Status

__all__ = ["Results"]


class Results:
    """States by index of time, and statistics, of a batch.

    States are collected in pieces and joined at the end, so that gradients pass.
    """

    def __init__(self, x: Tensor) -> None:
        self.start, n = x, len(x)
        self.pieces: dict[int, list[tuple[np.ndarray, Tensor]]] = {}
        self.nfe, self.steps, self.rejected = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.status, self.reached = np.full(n, int(Status.STOPPED)), np.full(n, np.nan)  # the u reached

    def reach(self, goal: int, rows: np.ndarray, x: Tensor) -> None:
        """States at a time."""
        self.pieces.setdefault(goal, []).append((rows, x))

    def leave(self, active: Active, which: np.ndarray, nfe: np.ndarray, attempts: int) -> None:
        """Samples that are done, one way or the other; nfe is that of all active ones."""
        rows, rejected = active.rows[which], active.rejected[which]
        self.reached[rows], self.nfe[rows] = active.u[which], nfe[which]
        self.rejected[rows], self.steps[rows] = rejected, attempts - rejected

    def states(self, goal: int, rest: list[tuple[np.ndarray, Tensor]]) -> Tensor:
        """The states at a time, in x's dtype; those of `rest`, or NaN, where a sample has not reached it."""
        pieces = [*self.pieces.get(goal, ()), *rest]
        known = np.concatenate([rows for rows, _ in pieces]) if pieces else np.zeros(0, dtype=np.int64)
        missing = np.setdiff1d(np.arange(len(self.status)), known)
        tensors = [piece.to(self.start.dtype) for _, piece in pieces]
        if len(missing) or not tensors:
            tensors.append(self.start.new_full((len(missing), *self.start.shape[1:]), torch.nan))
        order = np.argsort(np.concatenate([known, missing]), kind="stable")
        return torch.cat(tensors)[torch.from_numpy(order).to(self.start.device)]

    def run(self, last: int, save: frozenset[int], active: Active) -> AdaptiveRun:
        """All of it; what is still under way stays where it is."""
        alive = active.under_way()
        final = self.states(last, [(active.rows[alive], active.x.index_select(0, active.index(alive)))])
        saved = {i: self.states(i, []) for i in sorted(save) if i in self.pieces and i != last}
        if last in save:
            saved[last] = final
        counts = (torch.from_numpy(v.copy()) for v in (self.nfe, self.steps, self.rejected, self.status))
        return AdaptiveRun(final, saved, *counts)
