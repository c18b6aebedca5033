"""Functions of single numbers whose bits do not depend on the numbers beside them.

PyTorch's own compute the last numbers of a tensor in another way than the others, and add along an axis in an order
that depends on the sizes of all: a sample's bits would depend on its place in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["powers", "sigmoid", "softplus", "total"]


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), with nothing lost or overflowing at either end."""
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), to relative accuracy at both ends."""
    return 1 / (1 + torch.exp(-x))


def powers(z: Tensor, count: int) -> Tensor:
    """(..., count): 1, z, z^2 and so on."""
    found, square = torch.ones_like(z).unsqueeze(-1), z.unsqueeze(-1)
    while found.shape[-1] < count:
        found, square = torch.cat((found, found * square), -1), square * square
    return found[..., :count]


def total(x: Tensor) -> Tensor:
    """The sum over the last axis, in halves."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = torch.cat((x[..., :half] + x[..., half : 2 * half], x[..., 2 * half :]), -1)
    return x.squeeze(-1)
