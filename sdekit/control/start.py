"""The first step of every sample, from two slopes."""

from __future__ import annotations

import numpy as np
import torch

from sdekit.control.attempt import Norm
from sdekit.control.fields import Field
from sdekit.control.rows import Active, Calls

__all__ = ["first_steps"]


def first_steps(field: Field, active: Active, calls: Calls, norm: Norm, order: int) -> np.ndarray:
    """The lengths of the first steps, (n,), by one more call; `active.slope` holds the slopes at the start.

    Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4, for each sample: with d_0 = |x|, d_1 =
    |f|, an Euler step of h_0 = 0.01 d_0 / d_1 gives d_2 = |f_1 - f| / h_0, the size of the second derivative; then h =
    min(100 h_0, (0.01 / max(d_1, d_2))^{1/k}), with k the power of h with which the error estimate falls.
    """
    whole = float(field.goals[-1]) - active.u
    with torch.no_grad(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x, slope = active.x, active.slope
        d0, d1 = norm(x, x, x), norm(slope, x, x) * active.scale
        h0 = np.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = np.minimum(np.where(np.isfinite(h0) & (h0 > 0), h0, 1e-6), whole)
        u = np.minimum(active.u + h0, field.goals[-1])
        nodes = field.nodes(u[None], h0, active.scale, active.goal, None)
        base = x if nodes.ratios is None else x * nodes.tensor(nodes.ratios[0], x)
        trial = calls(nodes.calls[0], base + nodes.tensor(nodes.gains[0], x) * slope)
        d2 = norm(trial - slope, x, x) * active.scale / h0
        steepest = np.maximum(d1, d2)
        h1 = np.where(steepest <= 1e-15, np.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** (1 / order))
    h = np.minimum(100 * h0, np.where(np.isfinite(h1), h1, 0.1 * h0))
    if calls.refused is not None:
        h = np.where(calls.refused, 0.1 * h0, h)
    return np.minimum(h, whole)
