"""The sums over slopes that a step of a Runge-Kutta pair is made of, for small states on a CPU, without gradients.

In C, where a compiler is at hand (`sdekit.math.native`); by NumPy, whose operations cost a fraction of PyTorch's on few
elements, where none is. Both give the same bits: elementwise products and sums in one order, whatever the batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.math.native import Native
from sdekit.shapes import uninitialised_like

__all__ = ["NATIVE", "Sums", "combined", "kernels"]

_BITS = {torch.float64: "64", torch.float32: "32"}
_LONG = 200


class Sums:
    """Sums over slopes of states (n, *shape), float64 or float32, contiguous.

    Args:
        like: a state.
        weights: for each stage after the first, those of the slopes before it; then those that give the new state.
        estimates: (1 or 2, slopes), those that give the errors.
        library: the kernels, or None: see `kernels`.

    Attributes:
        slopes: (n, *shape) each, to be filled.
    """

    def __init__(
        self, like: Tensor, weights: Sequence[np.ndarray], estimates: np.ndarray, library: ctypes.CDLL | None
    ) -> None:
        self._room = like.new_zeros(estimates.shape[1] * like.numel())
        self._weights = [torch.from_numpy(w).to(like.dtype) for w in (*weights, *estimates)]
        self._stages, self._library = len(weights), library
        if library is not None:
            self._places = [(w.data_ptr(), w.shape[0]) for w in self._weights]
            self._stage, self._error = (_function(library, name, like.dtype) for name in ("stage", "error"))
        self.shrink(like)

    def shrink(self, like: Tensor) -> None:
        """For fewer samples: the slopes are to be filled anew."""
        self.shape, count = like.shape, len(self._weights[-1])
        slopes = self._room[: count * like.numel()].view(count, *like.shape)
        self.slopes = slopes.unbind()
        if self._library is None:
            self._arrays, self._products = slopes.numpy(), np.zeros(slopes.shape, slopes.numpy().dtype)
        else:
            place, stride = slopes.data_ptr(), like.numel()
            self._tables = [(place, stride, *weights) for weights in self._places]
            self._sizes = _sizes(like)

    def stage(self, i: int, base: Tensor, gains: Tensor, ratios: Tensor | None, row: int) -> Tensor:
        """(base + gain sum_j weights_ij slopes_j) ratio, with a gain and a ratio for each sample, float64.

        Args:
            i: which weights.
            gains: (n,).
            ratios: (m, n) and contiguous, of which the given row holds; None where they are 1.
        """
        if self._library is None:
            total = _times_rows(self._sum(i), gains)
            total += base.numpy()
            return torch.from_numpy(total if ratios is None else _times_rows(total, ratios[row]))
        out = uninitialised_like(base)
        scales = None if ratios is None else ratios.data_ptr() + 8 * row * ratios.shape[1]
        self._stage(out.data_ptr(), base.data_ptr(), *self._tables[i], gains.data_ptr(), scales, *self._sizes)
        return out

    def error(self, i: int, base: Tensor, new: Tensor, floor: float | None) -> np.ndarray:
        """The estimate i, over max(|base|, |new|) + floor unless that is None."""
        i += self._stages
        if self._library is None:
            e = self._sum(i)
            if floor is not None:
                size = np.maximum(np.abs(base.numpy()), np.abs(new.numpy()))
                size += floor
                e /= size
            return e
        out, least = uninitialised_like(base), -1.0 if floor is None else floor
        self._error(out.data_ptr(), base.data_ptr(), new.data_ptr(), *self._tables[i], least, base.numel())
        return out.numpy()

    def _sum(self, i: int) -> np.ndarray:
        """By NumPy."""
        weights = self._weights[i].numpy()
        count = len(weights)
        column = weights.reshape(-1, *(1,) * (self._arrays.ndim - 1))
        products = np.multiply(self._arrays[:count], column, out=self._products[:count])
        if products[0].size > 1:
            return np.add.reduce(products, 0)
        total = products[0].copy()  # NumPy adds single numbers in another order
        for product in products[1:]:
            total += product
        return total


def combined(
    a: Tensor, b: Tensor, weights: Tensor, row: int, library: ctypes.CDLL | None, out: Tensor | None = None
) -> Tensor:
    """weights_0 a + weights_1 b, with numbers for each sample; of b's dtype.

    Args:
        weights: (2, m, n), float64 and contiguous, of which the given row holds.
        out: like a, contiguous, and of no memory in common with a and b. It may be used for the result.
    """
    if library is not None and a.dtype == b.dtype and a.is_contiguous() and b.is_contiguous():
        run = _function(library, "combine", a.dtype)
        if out is None:
            out = uninitialised_like(a)
        _, rows, n = weights.shape
        place = weights.data_ptr() + 8 * row * n
        run(out.data_ptr(), a.data_ptr(), b.data_ptr(), place, place + 8 * rows * n, *_sizes(a))
        return out
    x, y = a.to(b.dtype).numpy(), b.numpy()
    sums = _times_rows(x, weights[0, row])
    sums += _times_rows(y, weights[1, row])
    return torch.from_numpy(sums)


def kernels(x: Tensor) -> ctypes.CDLL | None:
    """For states like this one; None where NumPy is used."""
    return NATIVE.get(0) if x.dtype in _BITS else None


def _times_rows(x: np.ndarray, numbers: Tensor) -> np.ndarray:
    """x (n, *shape) with each row times its number.

    Broadcasting along rows of few elements is slow: in long batches the numbers are repeated.
    """
    values = numbers.numpy().astype(x.dtype, copy=False)
    width = x[0].size if len(x) else 0
    if len(values) > _LONG and 1 < width <= 32:
        return x * np.repeat(values, width).reshape(x.shape)
    return x * values.reshape(-1, *(1,) * (x.ndim - 1))


def _sizes(x: Tensor) -> tuple[int, int]:
    """n, and the elements of a sample."""
    n = x.shape[0]
    return n, x.numel() // n if n else 0


@lru_cache(maxsize=64)
def _function(library: ctypes.CDLL, name: str, dtype: torch.dtype) -> Any:
    return getattr(library, f"sdekit_{name}_{_BITS[dtype]}")


def _results(shape: tuple[int, int], dtype: torch.dtype, library: ctypes.CDLL | None) -> list[Tensor]:
    """What each function gives on some numbers, NaN and infinity among them."""
    count, size = 9, shape[0] * shape[1]
    numbers = torch.sin(torch.arange(1.0, size * (count + 2) + 1, dtype=torch.float64)).to(dtype)
    x, y, *slopes = numbers.view(count + 2, *shape)
    rows = [torch.cos(torch.arange(shape[0], dtype=torch.float64) + k) for k in range(2)]
    weights = [np.cos(np.arange(1.0, n + 1)) for n in (1, 2, count)]
    sums = Sums(x, weights, np.stack([weights[2], -weights[2]]), library)
    for room, slope in zip(sums.slopes, slopes, strict=True):
        room.copy_(slope)
    found = [sums.stage(i, x, rows[0], ratios, 1) for i in range(3) for ratios in (None, torch.stack(rows))]
    sums.slopes[2][0, 0], y[-1, -1], x[-1, 0] = torch.inf, torch.nan, torch.nan
    found += [torch.from_numpy(sums.error(i, x, y, floor)) for i in range(2) for floor in (None, 0.1)]
    numbers = torch.stack([*rows, *rows[::-1]]).view(2, 2, -1)
    return [*found, *(combined(x, y, numbers, row, library) for row in range(2))]


def _right(library: Any) -> bool:
    """Whether a build gives the bits of NumPy."""
    for dtype in _BITS:
        for shape in ((1, 1), (300, 1), (131, 2), (90, 5), (3, 700)):
            pairs = zip(_results(shape, dtype, library), _results(shape, dtype, None), strict=True)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
                return False
    return True


NATIVE = Native(_right, "stages.c", enough=0)
"""The kernels; built when they are first asked for."""
