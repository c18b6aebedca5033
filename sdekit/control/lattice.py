"""Where adaptive steps along Brownian paths lie: on the dyadic lattice between two times.

Step (j, k) of [a, b] goes from a + (b - a) j / 2^k to a + (b - a) (j + 1) / 2^k. Its two halves are (2j, k + 1) and
(2j + 1, k + 1); it is the first half of a step of twice the length where j is even. So a time at which a step ended,
accepted or not, is the end of a later step unless the path up to it was accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdekit.math.dyadic import LEVELS

__all__ = ["FINEST", "Lattice"]

FINEST = 50
"""The largest k; j then has 50 bits, which a float64 holds."""


class Lattice:
    """The lattices between times[i] and times[i + 1], either direction."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times = np.asarray(times, dtype=np.float64)

    def at(self, goal: np.ndarray, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The times of lattice points on the way to times[goal], (n,); equal points have equal bits."""
        a, b = self.times[goal - 1], self.times[goal]
        part = np.ldexp(j.astype(np.float64), -k)
        return np.where(part == 1, b, a + (b - a) * part)

    def width(self, goal: np.ndarray) -> np.ndarray:
        """The distance between the two times, (n,)."""
        return np.abs(self.times[goal] - self.times[goal - 1])

    def level(self, goal: np.ndarray, h: np.ndarray) -> np.ndarray:
        """The k of the longest steps that are no longer than h, (n,)."""
        with np.errstate(divide="ignore"):
            wanted = np.ceil(np.log2(self.width(goal) / h) - 1e-9)
        return np.clip(np.nan_to_num(wanted, nan=FINEST, posinf=FINEST + 1), 0, FINEST + 1).astype(np.int64)

    @staticmethod
    def coarsest(j: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The least level at which the point (j, k) lies, (n,)."""
        lowest = j & -j
        zeros = np.where(j == 0, k, np.round(np.log2(np.maximum(lowest, 1).astype(np.float64))).astype(np.int64))
        return np.maximum(k - zeros, 0)

    @staticmethod
    def moved(j: np.ndarray, k: np.ndarray, to: np.ndarray) -> np.ndarray:
        """The point (j, k) counted at level `to`, at which it lies."""
        finer, coarser = np.maximum(to - k, 0), np.maximum(k - to, 0)
        return (j << finer) >> coarser

    def resolved(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Whether a path gives increments between these times, wherever they lie on their side of 0."""
        return (np.abs(end - start) >= _leaf(start, end)) | (np.sign(start) * np.sign(end) < 0)

    def finest(self, goal: np.ndarray) -> np.ndarray:
        """A level that is resolved all the way, with two to spare, (n,)."""
        leaf = _leaf(self.times[goal - 1], self.times[goal])
        return np.maximum(np.floor(np.log2(self.width(goal) / leaf)).astype(np.int64) - 2, 0)


def _leaf(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The least interval of a path at the farther of two times."""
    far = np.maximum(np.abs(start), np.abs(end))
    return np.ldexp(0.5, np.frexp(far)[1] - LEVELS)
