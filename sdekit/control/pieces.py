"""Adaptive steps across times at which the drift jumps: the solve ends just before each, and begins anew just after."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.control.fields import Field
from sdekit.control.loop import adapt
from sdekit.monitor import Monitor
from sdekit.shapes import beside
from sdekit.solution import AdaptiveRun, Status

__all__ = ["adapt_in_pieces"]


def adapt_in_pieces(
    make_field: Callable[[Tensor, Sequence[float]], Field],
    method: Any,
    x: Tensor,
    times: Sequence[float],
    monitor: Monitor,
    jumps: Collection[float],
    *,
    limit: int,
    save: Collection[int] = (),
    **options: Any,
) -> AdaptiveRun:
    """As `adapt`, for a drift that may be discontinuous at the times `jumps`, which are among `times`.

    The drift is called at the number next to a jump on the side on which the step lies, in the dtype of the times that
    it is given; never at the jump itself. The error control starts again there, with a first step of its own.
    """
    last = len(times) - 1
    cuts = sorted({0, last, *(i for i, t in enumerate(times) if t in jumps)})
    total: AdaptiveRun | None = None
    for first, end in itertools.pairwise(cuts):
        inner = list(times[first : end + 1])
        if times[first] in jumps:
            inner[0] = beside(times[first], times[-1], x.dtype)
        if times[end] in jumps:
            inner[-1] = beside(times[end], times[0], x.dtype)
        state = x if total is None else total.x
        left = limit if total is None else max(1, limit - int(total.nfe.max()) if len(x) else limit)
        kept = {i - first for i in save if (first < i <= end) or i == first == 0}
        done = None if total is None else (total.status != int(Status.SUCCESS)).numpy()
        field = make_field(state, inner)
        run = adapt(field, method, state, inner, monitor, limit=left, save=kept, done=done, **options)
        saved = {i + first: state for i, state in run.saved.items()}
        total = run if total is None else _joined(total, run)
        total.saved = {**total.saved, **saved} if first else saved
        if bool((run.status == int(Status.STOPPED)).any()):
            break
    return (
        total if total is not None else adapt(make_field(x, times), method, x, times, monitor, limit=limit, **options)
    )


def _joined(a: AdaptiveRun, b: AdaptiveRun) -> AdaptiveRun:
    """What `b` gives for the samples that `a` has brought to its end, and `a` for those that ended in it."""
    on = a.status == int(Status.SUCCESS)
    x = torch.where(on.view(-1, *(1,) * (a.x.ndim - 1)).to(a.x.device), b.x, a.x)
    status = torch.where(on, b.status, a.status)
    return AdaptiveRun(x, a.saved, a.nfe + b.nfe, a.steps + b.steps, a.rejected + b.rejected, status)
