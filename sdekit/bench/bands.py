"""How far an error over starts can be trusted: its interval, and whether that of another sampler differs.

An error is the root of a ratio of means over starts, R^2 = mean e / mean y, of squared distances e from the exact ends
and of their squares y. Other starts would give another: by the delta method, of the logarithm, with both means paired,

    se(log R) = 1/2 sd(e / mean e - y / mean y) / sqrt(n),    R exp(+- t se(log R)),

where t is Student's for n - 1. On the logarithm the interval is of one sort for all sizes, and never below zero. Where
one start makes most of the error se is near 1/2, and the interval a factor of 2.8 either way for 32 starts. Errors with
such tails are larger than they look, since most sets of starts have none of the rare ones: of nominal 95 % the interval
then holds less, as any computed from these starts does; resampling them and taking percentiles holds less still.

Samplers are compared on the same starts, where much of what differs from start to start is the same in both:

    log R_a - log R_b = 1/2 log(mean a / mean b),    se = 1/2 sd(a / mean a - b / mean b) / sqrt(n).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["LEVEL", "apart", "nothing", "of_squares", "over_starts"]

LEVEL = 0.95
"""Of the intervals."""

_DIGITS = 4  # significant ones of what is kept of each start
_FEWEST = 2


def over_starts(end: Tensor, exact: Tensor) -> dict[str, Any]:
    """The error of ends (n, *shape) against the exact ones, relative to the size of these, both root mean squares.

    Returns:
        `error`; `low` and `high`, its interval; `starts`, for each the distance relative to the same size, of which
        the error is the root mean square. All None where an end is not finite, and the interval for a single start.
    """
    error = float((end - exact).norm() / exact.norm())
    return of_squares((end - exact).flatten(1).square().sum(1), exact.flatten(1).square().sum(1), error)


def of_squares(distances: Tensor, ends: Tensor, error: float | None = None) -> dict[str, Any]:
    """The same of squared distances (n,) from exact ends, and of the squares (n,) of these.

    Args:
        error: where it is known to the last bit.
    """
    error = math.sqrt(float(distances.mean() / ends.mean())) if error is None else error
    if not math.isfinite(error):
        return nothing()
    squares, sizes = distances.numpy(), ends.numpy()
    starts = [float(f"{v:.{_DIGITS}g}") for v in np.sqrt(squares / sizes.mean())]
    factor = math.exp(_student(len(starts)) * _spread(squares, sizes)) if len(starts) >= _FEWEST else None
    interval = (None, None) if factor is None else (error / factor, error * factor)
    return {"error": error, "low": interval[0], "high": interval[1], "starts": starts}


def nothing() -> dict[str, Any]:
    """What stands for an error where there is none."""
    return {"error": None, "low": None, "high": None, "starts": None}


def apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the errors of two samplers on the same starts, `starts` of each, differ at `LEVEL`."""
    if len(a) != len(b) or len(a) < _FEWEST:
        return False
    first, second = np.square(a), np.square(b)
    if not (first.any() and second.any()):
        return bool(first.any() or second.any())
    ratio = 0.5 * math.log(first.mean() / second.mean())
    return abs(ratio) > _student(len(a)) * _spread(first, second)


def _spread(a: np.ndarray, b: np.ndarray) -> float:
    """The standard error of the logarithm of the root of mean a / mean b, pair by pair."""
    if not a.any():
        return 0.0  # an exact end at every start
    terms = a / a.mean() - b / b.mean()
    return 0.5 * float(terms.std(ddof=1)) / math.sqrt(len(terms))


@cache
def _student(count: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.5 + 0.5 * LEVEL))
