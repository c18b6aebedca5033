"""Squared distances to many points by matrix products, without the digits that expanded squares lose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Split", "add"]


def add(result: Tensor, term: Tensor, factor: float = 1.0) -> Tensor:
    """result + factor term; without gradients in place: result is a temporary."""
    if torch.is_grad_enabled():
        return torch.add(result, term, alpha=factor)
    return result.add_(term, alpha=factor)


@dataclass(frozen=True)
class Split:
    """|y - m_k|^2 by matrix products, to the accuracy of the differences themselves.

    y and m are cut at a fixed unit u into y = y_h + y_l, u small enough to keep many bits and large enough that
    products of the high parts, and their sums over d axes, are exact integers times u^2 in the dtype. Then

        |y - m|^2 = (|y_h|^2 - 2 y_h m_h + |m_h|^2)  +  y_l (y + y_h) - 2 (y_h m_l + y_l m) + m_l (m + m_h),

    where the bracket is exact and the rest is smaller by 2^-bits (2^-22 for d = 64 in float64). A y far outside the
    means loses exactness, where the distance is as large as its terms and there is nothing to cancel.
    """

    unit: float
    high: Tensor  # (K, d)
    low: Tensor  # (K, 2 d): what multiplies (y_h, y_l)
    high_squares: Tensor  # (K,)
    low_squares: Tensor  # (K,)

    @classmethod
    def of(cls, means: Tensor) -> Split:
        precision = {torch.float64: 53, torch.float32: 24}[means.dtype]
        # Sums of d products below (2^bits)^2, times 4 for the square of a difference.
        bits = max(1, (precision - 2 - math.ceil(math.log2(means.shape[1]))) // 2)
        largest = float(means.abs().max())
        unit = 2.0 ** (math.frexp(largest)[1] - bits) if largest else 1.0
        high = torch.round(means / unit) * unit
        low = means - high
        return cls(
            unit,
            high,
            torch.cat([low, means], 1),
            (high * high).sum(1),
            (low * (means + high)).sum(1),
        )

    def squares(self, y: Tensor) -> Tensor:
        """|y - m_k|^2, (B, K); y: (B, d). Its gradient passes through the low part alone and is right."""
        high = torch.round(y.detach() / self.unit) * self.unit
        low = y - high
        leading = add((high * high).sum(1, keepdim=True) + self.high_squares, high @ self.high.mT, -2.0)
        rest = (low * (y + high)).sum(1, keepdim=True) + self.low_squares
        return add(add(leading, torch.cat([high, low], 1) @ self.low.mT, -2.0), rest)
