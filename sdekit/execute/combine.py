"""Weighted sums of states: a few in-place passes, or out of place where gradients are recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from sdekit.plan.coefficients import Coefficient, apply

__all__ = ["Terms", "weighted_sum"]

Terms = list[tuple[Coefficient, Tensor]]


def weighted_sum(terms: Terms, out: Tensor | None) -> Tensor:
    """sum c_i x_i, written to `out` (which may be one of the x_i) where no gradient is recorded."""
    merged: dict[int, tuple[float, Tensor]] = {}
    for c, x in terms:
        if not isinstance(c, (int, float)):
            c, x = 1.0, apply(c, x)
        if c != 0:
            merged[id(x)] = (merged[id(x)][0] + c if id(x) in merged else c, x)
    if out is None or (torch.is_grad_enabled() and any(x.requires_grad for _, x in merged.values())):
        return _out_of_place(list(merged.values()), terms[0][1])
    own = merged.pop(id(out), None)
    rest = list(merged.values())
    if own is not None:
        if own[0] != 1:
            out.mul_(own[0])
    elif not rest:
        return out.zero_()
    else:
        # A coefficient of 1 saves a pass.
        unit = next((i for i, (c, _) in enumerate(rest) if c == 1), None)
        if unit is not None and len(rest) > 1:
            _, x = rest.pop(unit)
            c, other = rest.pop(0)
            torch.add(x, other, alpha=c, out=out)
        else:
            c, x = rest.pop(0)
            torch.mul(x, c, out=out)
    for c, x in rest:
        out.add_(x, alpha=c)
    return out


def _out_of_place(terms: list[tuple[float, Tensor]], like: Tensor) -> Tensor:
    if not terms:
        return torch.zeros_like(like)
    total = terms[0][1] * terms[0][0]
    for c, x in terms[1:]:
        total = total + c * x
    return total
