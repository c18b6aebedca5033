"""The points of one attempted step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Nodes"]


class Nodes(NamedTuple):
    """m points of n samples: x_i = ratio_i x + gain_i sum_j a_ij k_j, with k the slopes that the field returns.

    Attributes:
        times: (m, n), float64.
        gains: m arrays (n,): the signed step times the scale at each node.
        ratios: (m, n): the scale at each node over that at the start; None where all are 1.
        size: (n,): the step times the scale at its end, by which slopes become changes of x.
        scale: the scale at the end, (n,), or (1,) where it is 1.
        calls: what the field is told at each node.
    """

    times: np.ndarray
    gains: Sequence[np.ndarray] | np.ndarray
    ratios: np.ndarray | None
    size: np.ndarray
    scale: np.ndarray
    calls: Sequence[Any]

    @staticmethod
    def tensor(values: np.ndarray, x: Tensor) -> Tensor:
        """Of x's dtype and on its device, (n, 1, ..., 1)."""
        return Nodes.column(torch.from_numpy(values), x)

    @staticmethod
    def column(values: Tensor, x: Tensor) -> Tensor:
        """Of x's dtype and on its device, (n, 1, ..., 1)."""
        return values.to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 1))
