"""From errors to an order of convergence: local slopes, and an interval that admits what they do not settle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from sdekit.errors import OptionError

__all__ = ["Estimate", "estimate", "least_squares"]


@dataclass(frozen=True)
class Estimate:
    """An order between `low` and `high`, the local slopes it comes from, and how many step counts entered."""

    value: float
    low: float
    high: float
    slopes: tuple[float, ...]
    used: int


def estimate(steps: Sequence[int], errors: Sequence[Sequence[float]], floor: float) -> Estimate:
    """The order from errors at rising step counts: the median of the last two local slopes.

    Slopes are those of the geometric mean over seeds. The interval covers the last two, their extrapolation to the
    limit of infinitely many steps (a slope p + b / N) and half as far again, what an error of `floor` in each point can
    do to them, and two standard errors of the mean over seeds.

    Args:
        steps: the step counts, rising.
        errors: a row for each seed, one error per step count.
        floor: the size of rounding errors; points from the first below ten times that on are dropped.

    Returns:
        An `Estimate`; of infinite order where every point is below the floor: the method is exact there.

    Raises:
        OptionError: for fewer than three step counts above the floor, which settle nothing.
    """
    kept = _above(errors, 10 * floor)
    if kept == 0:
        return Estimate(math.inf, math.inf, math.inf, (), 0)
    if kept < 3:
        raise OptionError(
            "steps",
            got=f"{kept} of {len(steps)} step counts with errors above rounding ({10 * floor:.1e})",
            expected="three or more",
            fix="Use fewer steps, closer together, or a problem that is harder to solve.",
        )
    slopes = [_slopes(steps[:kept], row[:kept]) for row in errors]
    mean = [fmean(column) for column in zip(*slopes, strict=True)]
    last, before = mean[-1], mean[-2]
    ratio = steps[kept - 1] / steps[kept - 2]
    extrapolated = last + 1.5 * (last - before) / (ratio - 1)
    smallest = min(row[kept - 1] for row in errors)
    noise = 2 * math.log1p(floor / smallest) / math.log(ratio)
    if len(slopes) > 1:
        noise += 2 * stdev(0.5 * (s[-1] + s[-2]) for s in slopes) / math.sqrt(len(slopes))
    low, high = (f(last, before, extrapolated) for f in (min, max))
    return Estimate(0.5 * (last + before), low - noise, high + noise, tuple(mean), kept)


def least_squares(steps: Sequence[int], errors: Sequence[Sequence[float]], floor: float) -> Estimate:
    """The order on grids whose errors scatter: one slope fitted to all seeds, each with a constant of its own.

    Arguments and errors as for `estimate`; the interval is two standard errors of the fit.
    """
    fewer = estimate(steps, errors, floor)
    if fewer.used == 0:
        return fewer
    x = [math.log(n) for n in steps[: fewer.used]]
    rows = [[math.log(e) for e in row[: fewer.used]] for row in errors]
    dx = [v - fmean(x) for v in x]
    spread = math.fsum(v * v for v in dx)
    fits = [-math.fsum(v * y for v, y in zip(dx, row, strict=True)) / spread for row in rows]
    slope = fmean(fits)
    residual = math.fsum((y - fmean(row) + slope * v) ** 2 for row in rows for v, y in zip(dx, row, strict=True))
    freedom = max(len(rows) * (len(x) - 1) - 1, 1)
    half = 2 * math.sqrt(residual / freedom / (len(rows) * spread))
    return Estimate(slope, slope - half, slope + half, fewer.slopes, fewer.used)


def _above(errors: Sequence[Sequence[float]], level: float) -> int:
    """How many step counts come before the first one at which some seed's error is below the level."""
    for i, column in enumerate(zip(*errors, strict=True)):
        if min(column) < level:
            return i
    return len(errors[0])


def _slopes(steps: Sequence[int], errors: Sequence[float]) -> list[float]:
    points = list(zip(steps, errors, strict=True))
    return [math.log(e / f) / math.log(m / n) for (n, e), (m, f) in itertools.pairwise(points)]
