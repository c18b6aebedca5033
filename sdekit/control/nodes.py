"""The points of one attempted step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Nodes", "times_rows"]


class Nodes(NamedTuple):
    """m points of n samples: x_i = ratio_i x + gain_i sum_j a_ij k_j, with k the slopes that the field returns.

    Attributes:
        times: (m, n), float64.
        gains: m arrays (n,): the signed step times the scale at each node.
        ratios: m arrays (n,): the scale at each node over that at the start; None where all are 1.
        size: (n,): the step times the scale at its end, by which slopes become changes of x.
        scale: the scale at the end, (n,), or (1,) where it is 1.
        calls: what the field is told at each node.
    """

    times: np.ndarray
    gains: Sequence[np.ndarray]
    ratios: Sequence[np.ndarray] | None
    size: np.ndarray
    scale: np.ndarray
    calls: Sequence[Any]

    @staticmethod
    def tensor(values: np.ndarray, x: Tensor) -> Tensor:
        """Of x's dtype and on its device, (n, 1, ..., 1)."""
        return torch.from_numpy(values).to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 1))


def times_rows(x: np.ndarray, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """x (n, *shape) with each row times its number, (n,) of the same dtype; written to `out` if given.

    Broadcasting along rows of few elements is slow: in long batches these go by columns, or the numbers are repeated.
    """
    n = len(values)
    if n > _LONG:
        width = x.size // n
        if 1 < width <= 4:
            out = np.zeros(x.shape, x.dtype) if out is None else out
            flat, into = x.reshape(n, width), out.reshape(n, width)
            for j in range(width):
                np.multiply(flat[:, j], values, out=into[:, j])
            return out
        if 1 < width <= 32:
            return np.multiply(x, np.repeat(values, width).reshape(x.shape), out=out)
    return np.multiply(x, values[:, None] if x.ndim == 2 else values.reshape(n, *(1,) * (x.ndim - 1)), out=out)


_LONG = 200
