"""The softmax of logits that are linear in matrix products, in one pass through memory.

In C, where a compiler is at hand (`sdekit.math.native`): PyTorch's operations pass through memory six times.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.math.native import Native

__all__ = ["NATIVE", "Logits", "fused_softmax"]

_THREADS = 2
"""With more threads PyTorch's operations, which share their work, are as fast as one thread of the kernel."""


class Logits(NamedTuple):
    """bias + scale z + squares norms: with (K,) for the first three and (B,) for the norms, all contiguous.

    Where scale is a number there are no squares.
    """

    bias: Tensor
    scale: Tensor | float
    squares: Tensor | None = None
    norms: Tensor | None = None


def fused_softmax(z: Tensor, logits: Logits, least: float, axis: int) -> bool:
    """Whether z has been overwritten by the softmax of its logits over the axis.

    It is not where there is no kernel, on other devices than a CPU, and in float32.

    Args:
        z: (B, K) and contiguous for axis 1, (K, B) with contiguous rows for axis 0.
        least: exponentials are held above e^least, which is over -700.
    """
    if z.dtype != torch.float64 or z.device.type != "cpu" or torch.get_num_threads() > _THREADS:
        return False
    library = NATIVE.get(0)
    if library is None:
        return False
    _run(library, z, logits, least, axis)
    return True


def _run(library: ctypes.CDLL, z: Tensor, logits: Logits, least: float, axis: int) -> None:
    bias, scale, squares, norms = logits
    if isinstance(scale, Tensor) and squares is not None and norms is not None:
        tables = (bias.data_ptr(), scale.data_ptr(), squares.data_ptr(), norms.data_ptr(), 0.0)
    else:
        tables = (bias.data_ptr(), None, None, None, scale)
    if axis == 1:
        library.sdekit_softmax_rows(z.data_ptr(), *tables, *z.shape, least)
    else:
        library.sdekit_softmax_columns(z.data_ptr(), *tables, z.shape[1], z.stride(0), len(z), least)


def _right(library: Any) -> bool:
    """Whether a build gives the softmax of PyTorch on some logits, to rounding, and NaN where it does."""
    z = torch.sin(torch.arange(40.0 * 37, dtype=torch.float64)).view(40, 37) * 300
    k, b = torch.cos(torch.arange(37.0, dtype=torch.float64)), torch.linspace(0, 9, 40, dtype=torch.float64)
    z[3, 36], z[4, 0], z[5, 2] = math.nan, math.inf, -math.inf
    for logits in (Logits(k, 0.7), Logits(k, k + 2, k - 1, b)):
        rest = 0.0 if logits.squares is None else logits.squares * b[:, None]
        expected = torch.softmax(k + logits.scale * z + rest, 1).clamp_min(math.exp(-300.0))
        rows, columns = z.clone(), z.mT.contiguous()
        _run(library, rows, logits, -300.0, 1)
        _run(library, columns, logits, -300.0, 0)
        if not all(torch.allclose(r, expected, 1e-12, 1e-130, equal_nan=True) for r in (rows, columns.mT)):
            return False
    return True


NATIVE = Native(_right, "softmax.c", enough=0)
"""The kernel; built when it is first asked for."""
