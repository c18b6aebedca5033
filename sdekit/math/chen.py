"""Levy areas between Brownian motions: Chen's relation, and the area of a path from those of its steps.

For two coordinates j and k of a Brownian motion in R^m the Levy area of [s, t] is

    A_jk = (1/2) int_s^t (B_j - B_j(s)) dB_k - (1/2) int_s^t (B_k - B_k(s)) dB_j,

antisymmetric, of variance h^2 / 4. No path knows it exactly; from steps ever finer it is found ever better.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["joined", "levy_area"]


def joined(w: Tensor, area: Tensor, next_w: Tensor, next_area: Tensor) -> tuple[Tensor, Tensor]:
    """W and A over two intervals, one after the other: A + A' + (W W'^T - W' W^T) / 2, exactly.

    Args:
        w, next_w: (..., m), the increments of both intervals in the order of the step.
        area, next_area: (..., m, m).
    """
    outer = w[..., :, None] * next_w[..., None, :]
    return w + next_w, area + next_area + 0.5 * (outer - outer.mT)


def levy_area(w: Tensor, h: Tensor | None = None) -> Tensor:
    """The Levy area (..., m, m) of a path over consecutive steps, given what is known of each.

    Given W alone the mean of a step's own area is 0; given its space-time areas H too it is H_j W_k - W_j H_k. Their
    sum by Chen's relation is the mean of the whole area given all steps. For n equal steps of a path over [0, h] the
    error has the variance h^2 / (4 n), and h^2 / (12 n) with H.

    Args:
        w: (steps, ..., m), the increments of the steps, in order.
        h: their space-time areas, of the same shape.
    """
    before = torch.cumsum(w, 0) - w
    if h is not None:
        before = before + 2 * h  # 2 H W'^T - 2 W' H^T, halved below
    outer = torch.einsum("n...j,n...k->...jk", before, w)
    return 0.5 * (outer - outer.mT)
