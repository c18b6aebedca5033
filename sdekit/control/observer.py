"""What sees the accepted steps of an adaptive ODE solve: dense output is recorded, events are looked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.dense import Dense, Extension, evaluate
from sdekit.control.fields import Field
from sdekit.control.nodes import Nodes
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
        field: what is integrated; to be set before the first step, and where another takes its place.
    """

    field: Field

    def __init__(self, extension: Extension, x: Tensor, times: list[float], event: Event | None, keep: bool) -> None:
        self.extension, self.event, self.keep = extension, event, keep
        self.dense = Dense(extension, x, times)
        self.event_t = np.full(len(x), np.nan)
        self._reached = np.full(len(x), times[0])
        self._before = None if event is None else self._values(self._reached, x)

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
            slopes: of the stages, and at the new states, as the field gives them.
        """
        if not accepted.any():
            return None
        index = torch.from_numpy(np.flatnonzero(accepted)).to(x.device)
        rows, end = rows[accepted], t1[accepted]
        (start, scale), (stop, _) = self.field.place(t0[accepted]), self.field.place(end)
        base, width = x.index_select(0, index), stop - start
        if scale is not None:
            base = base / Nodes.tensor(scale, base)
        gain = Nodes.tensor(self.field.sign * width, x)
        polynomial = self.extension.polynomial([k.index_select(0, index) for k in slopes], gain)
        if self.keep:
            since = self._reached[rows]
            self.dense.add(rows, since, end.copy(), start, width, base, polynomial, self.field)
        self._reached[rows] = end
        if self.event is None or self._before is None:
            return None
        after = self._values(end, new.index_select(0, index))
        before = self._before[rows]
        self._before[rows] = after
        crossed = np.flatnonzero((before != 0) & (np.sign(before) != np.sign(after)))
        if not len(crossed):
            return None
        theta, when, states = self._locate(crossed, before[crossed], start, width, base, polynomial)
        when = np.where(theta == 1, end[crossed], when)
        self.event_t[rows[crossed]] = when
        if self.keep:
            self.dense.cut(rows[crossed], when)
        fired = np.zeros(len(accepted), dtype=bool)
        fired[np.flatnonzero(accepted)[crossed]] = True
        return fired, states

    def _locate(
        self,
        at: np.ndarray,
        before: np.ndarray,
        start: np.ndarray,
        width: np.ndarray,
        base: Tensor,
        polynomial: list[Tensor],
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Where in (0, 1] the sign has changed, the times and states there, by bisection: ends of the last brackets."""
        low, high = np.zeros(len(at)), np.ones(len(at))
        width, size = width[at], np.maximum(np.abs(start[at]), np.abs(start[at] + width[at]))

        def there(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
            t = self.field.times(start[at] + theta * width)
            return theta, t, evaluate(base, polynomial, at, theta, self.field.place(t)[1])

        with torch.no_grad():
            for _ in range(_HALVINGS):
                if ((high - low) * width <= _CLOSE * np.maximum(size, width)).all():
                    break
                middle = 0.5 * (low + high)
                _, t, states = there(middle)
                same = np.sign(self._values(t, states)) == np.sign(before)
                low, high = np.where(same, middle, low), np.where(same, high, middle)
        return there(high)

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
            raise NonFiniteError("event", sample=int(bad[0]), step=0, t=float(t[bad[0]]))
        return values
