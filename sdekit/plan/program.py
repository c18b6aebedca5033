"""The plan: a fixed-step sampler as a value, known before the first model call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sdekit.errors import OptionError
from sdekit.plan.coefficients import is_finite
from sdekit.plan.rows import Row
from sdekit.times import check_times

if TYPE_CHECKING:
    from sdekit.plan.moments import GaussianLaw

__all__ = ["Plan"]

_FIX = "Correct the solver's rows(), or choose a grid that it can use."


@dataclass(frozen=True)
class Plan:
    """Rows of coefficients for one solver on one grid of one affine process.

    Args:
        solver: the name or description of the solver that made it.
        times: the grid, steps + 1 times in the order in which they are visited.
        rows: one per model call; see `sdekit.plan.rows`.
        start, end: (alpha, sigma) of the process at the first and the last time.
        process: the process as text, for people.
        clock: for stochastic plans whose step noise is an increment W(c_s) - W(c_t) of one Brownian path, the clock c
            at each grid time; else None.

    Raises:
        OptionError: for rows that refer to what is not there, or for coefficients that are not finite.
    """

    solver: str
    times: tuple[float, ...]
    rows: tuple[Row, ...]
    start: tuple[float, float]
    end: tuple[float, float]
    process: str
    clock: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.times) < 2 or not self.rows:
            raise _bad(
                "times, rows", f"{len(self.times)} times and {len(self.rows)} rows", "two times and a row at least"
            )
        check_times(self.times, argument="plan times")
        if not all(math.isfinite(v) for v in (*self.start, *self.end)):
            raise _bad("start, end", f"{self.start}, {self.end}", "finite numbers")
        steps = [row.step for row in self.rows]
        if (
            steps[0] != 0
            or steps[-1] != len(self.times) - 2
            or any(b - a not in (0, 1) for a, b in itertools.pairwise(steps))
        ):
            raise _bad("rows", f"steps {steps}", f"each of the steps 0..{len(self.times) - 2} in order")
        for i, row in enumerate(self.rows):
            if not _plainly_right(i, row):
                self._check_row(i, row)

    def _check_row(self, i: int, row: Row) -> None:
        where = f"row {i}, step {row.step}, t = {row.t:.6g}"
        if not all(math.isfinite(v) for v in (row.t, row.alpha, row.sigma, *row.weights)):
            end = "alpha" if row.alpha == 0 else "sigma" if row.sigma == 0 else ""
            fix = f"Move the end of the grid off this time, where {end} = 0, or use ddim, dpmpp_2m or exp_adams, which "
            raise _bad(
                "rows",
                f"a call at t = {row.t}, alpha = {row.alpha}, sigma = {row.sigma}, weights {row.weights}, in {where}",
                "finite numbers",
                fix + "take the limit there." if end else _FIX,
            )
        for c in row.combinations():
            if not all(is_finite(v) for v in c.coefficients()):
                raise _bad("rows", f"an infinite or undefined coefficient in {where}: {c}", "finite coefficients")
            if any(not 0 <= age <= i for age, _ in c.outputs):
                raise _bad("rows", f"an output older than the first call in {where}: {c}", f"ages in 0..{i}")
            if any(stream < 0 for stream, _ in c.noises):
                raise _bad("rows", f"a negative stream in {where}: {c}", "streams from 0")
        if row.kick is not None and row.kick.outputs:
            raise _bad("rows", f"outputs in the kick of {where}", "a combination of base and noises")

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.times) - 1

    @property
    def nfe(self) -> int:
        """The number of model calls."""
        return len(self.rows)

    @cached_property
    def stochastic(self) -> bool:
        """Whether any row uses noise."""
        return any(c.noises for row in self.rows for c in row.combinations())

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """For the output of each row, the last row that reads it."""
        last = list(range(len(self.rows)))
        for i, row in enumerate(self.rows):
            for c in row.combinations():
                for age, _ in c.outputs:
                    last[i - age] = i
        return tuple(last)

    @cached_property
    def memory(self) -> int:
        """The largest number of model outputs, the newest included, that are needed at once."""
        alive = (sum(last >= i for last in self.last_use[: i + 1]) for i in range(len(self.rows)))
        return max(alive)

    def noises(self) -> Iterator[tuple[int, int]]:
        """Each (step, stream) that is drawn, once."""
        drawn = {(row.step, stream): None for row in self.rows for c in row.combinations() for stream, _ in c.noises}
        return iter(drawn)

    def gaussian_moments(self, mean: Any, cov: Any, start_mean: Any = None, start_cov: Any = None) -> GaussianLaw:
        """The exact law of the output for Gaussian data N(mean, cov): no sampling; see `sdekit.plan.moments`.

        Args:
            mean: the data's mean: (*shape), or a number beside a covariance that is a number or (d,).
            cov: the data's covariance: a number, (*shape) for a diagonal, or (d, d) with d the size of one sample.
            start_mean, start_cov: the law of the start; default the exact marginal at the first time.

        Raises:
            ShapeError: for shapes that do not fit each other or the plan's coefficients.
            InterfaceError: for what is no array of real numbers.
            OptionError: for numbers that are not finite, or a covariance that is not symmetric and positive
                semi-definite.
        """
        from sdekit.plan.moments import gaussian_moments

        return gaussian_moments(self, mean, cov, start_mean, start_cov)

    def describe(self) -> str:
        """The program as text, a line per model call."""
        from sdekit.plan.text import describe

        return describe(self)

    def to_json(self) -> str:
        """The program as JSON; `from_json` restores it exactly."""
        from sdekit.plan.text import to_json

        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Plan:
        """A plan from `to_json`. Raises OptionError for text that is not a plan of a known version."""
        from sdekit.plan.text import from_json

        return from_json(text)


def _plainly_right(i: int, row: Row) -> bool:
    """Whether a row needs no closer look, as most do: numbers alone, all finite, every reference in range."""
    total: Any = row.t + row.alpha + row.sigma + row.weights[0] + row.weights[1]
    for c in (row.base, row.point):
        if c is not None:
            if c.base.__class__ is not float:
                return False
            total += c.base
            for age, b in c.outputs:
                if b.__class__ is not float or not 0 <= age <= i:
                    return False
                total += b
            for stream, b in c.noises:
                if b.__class__ is not float or stream < 0:
                    return False
                total += b
    # One sum is finite only if all terms are.
    return row.kick is None and math.isfinite(total)


def _bad(argument: str, got: str, expected: str, fix: str = _FIX) -> OptionError:
    return OptionError(f"plan {argument}", got=got, expected=expected, fix=fix)
