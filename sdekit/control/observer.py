"""What sees the accepted steps of an adaptive ODE solve: dense output is recorded, events are looked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.dense import Dense, Extension, evaluate
from sdekit.errors import InterfaceError, ModelOutputError, NonFiniteError
from sdekit.shapes import time_like

__all__ = ["Observer"]

Event = Callable[[Tensor, Tensor], Tensor]
_HALVINGS = 200
_CLOSE = 1e-13  # of the times at hand: to what an event is located


class Observer:
    """Sees each accepted step.

    Args:
        extension: of the method.
        x: the start.
        times: where the solve goes.
        event: a function of (t, x) with one value for each sample, a sign change of which ends the sample; or None.
        keep: whether the steps are recorded.

    Attributes:
        dense: the record.
        event_t: (B,), float64, the time of each sample's event, NaN where there was none.
    """

    def __init__(self, extension: Extension, x: Tensor, times: list[float], event: Event | None, keep: bool) -> None:
        self.extension, self.event, self.keep = extension, event, keep
        self.dense = Dense(extension, x, times)
        self.event_t = np.full(len(x), np.nan)
        self._before = None if event is None else self._values(np.full(len(x), times[0]), x)

    def see(
        self,
        rows: np.ndarray,
        t0: np.ndarray,
        t1: np.ndarray,
        x: Tensor,
        new: Tensor,
        slopes: list[Tensor],
        accepted: np.ndarray,
    ) -> tuple[np.ndarray, Tensor] | None:
        """Steps of samples `rows` from t0 to t1. Which of them end inside (n,), and their states there; None if none.

        Args:
            slopes: of the stages, and at the new states.
        """
        if not accepted.any():
            return None
        index = torch.from_numpy(np.flatnonzero(accepted)).to(x.device)
        rows, start, end = rows[accepted], t0[accepted], t1[accepted]
        base = x.index_select(0, index)
        gain = torch.from_numpy(end - start).to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 1))
        polynomial = self.extension.polynomial([k.index_select(0, index) for k in slopes], gain)
        if self.keep:
            self.dense.add(rows, start, end, base, polynomial)
        if self.event is None or self._before is None:
            return None
        after = self._values(end, new.index_select(0, index))
        before = self._before[rows]
        self._before[rows] = after
        crossed = (before != 0) & (np.sign(before) != np.sign(after))
        if not crossed.any():
            return None
        theta = self._locate(np.flatnonzero(crossed), before[crossed], start, end, base, polynomial)
        when = start[crossed] + theta * (end - start)[crossed]
        self.event_t[rows[crossed]] = when
        if self.keep:
            self.dense.cut(rows[crossed], when)
        fired = np.zeros(len(accepted), dtype=bool)
        fired[np.flatnonzero(accepted)[crossed]] = True
        return fired, evaluate(base, polynomial, np.flatnonzero(crossed), theta)

    def _locate(
        self,
        at: np.ndarray,
        before: np.ndarray,
        start: np.ndarray,
        end: np.ndarray,
        base: Tensor,
        polynomial: list[Tensor],
    ) -> np.ndarray:
        """Where in (0, 1] the sign has changed, by bisection; the end of the last bracket, past the event."""
        low, high = np.zeros(len(at)), np.ones(len(at))
        length, size = end[at] - start[at], np.maximum(np.abs(start[at]), np.abs(end[at]))
        with torch.no_grad():
            for _ in range(_HALVINGS):
                if ((high - low) * np.abs(length) <= _CLOSE * np.maximum(size, np.abs(length))).all():
                    break
                middle = 0.5 * (low + high)
                values = self._values(start[at] + middle * length, evaluate(base, polynomial, at, middle))
                same = np.sign(values) == np.sign(before)
                low, high = np.where(same, middle, low), np.where(same, high, middle)
        return high

    def _values(self, t: np.ndarray, x: Tensor) -> np.ndarray:
        """The event function, checked. Raises InterfaceError, ModelOutputError or NonFiniteError."""
        event: Any = self.event
        if not callable(event):
            raise InterfaceError("event", got=type(event).__name__, expected="a function", fix="Pass event(t, x).")
        with torch.no_grad():
            point = x.detach().to(self.dense.start.dtype)
            out = event(time_like(torch.from_numpy(t), point), point.clone())
        if not isinstance(out, Tensor) or out.shape != (len(x),) or not out.is_floating_point():
            got = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            expected = f"a floating tensor of shape ({len(x)},), one value for each sample"
            raise ModelOutputError("event", got=got, expected=expected, fix="Reduce over all axes but the first.")
        values = out.detach().to("cpu", torch.float64).numpy().copy()
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise NonFiniteError("model", sample=int(bad[0]), step=0, t=float(t[bad[0]]))
        return values
