"""Restart sampling: on the way down, go back up by exact noise and flow down again, several times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import InterfaceError, OptionError
from sdekit.plan import Combination, Row
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.options import check_not_negative
from sdekit.solvers.splitting import KickedFlow, flow_solver, kick_up, leg_rows, refuse_upwards, remembered
from sdekit.times import check_count

__all__ = ["Interval", "Restart"]

Interval = tuple[float, float, int, int | None]
"""(rho_min, rho_max, repetitions, steps)."""

_KARRAS = 7.0
_SAME = 1e-9
"""How near in lambda a level of the grid is taken for the end of an interval."""


@register("restart")
@dataclass(frozen=True)
class Restart(KickedFlow):
    """Restart sampling (Xu et al., NeurIPS 2023) with any single-step solver of the probability flow.

    Where the grid passes rho_min, noise is added that takes the state up to rho_max exactly, and the flow takes it down
    to rho_min again, as often as the interval says; the part of the grid's step that is left follows. All this belongs
    to that step of the plan. A kick and a flow keep the marginals, so that the law of the samples is wrong by the
    error of the flow's solver alone. It has that solver's order where the steps of the intervals grow in number with
    the grid's.

    An interval whose rho_min the grid does not pass has no effect. rho = sigma / alpha is the sigma of the paper's
    processes, whose code calls it t, moves t_min to the nearest level of its grid, and counts levels rather than steps.

    Args:
        inner: the flow's solver, a name or an object; see `sdekit.solvers.splitting.flow_solver` for which are refused.
        intervals: (rho_min, rho_max, repetitions, steps) each. So many steps are spaced as the seventh root of rho, the
            grid of the paper; with None they are the grid's own levels in between.
        s_noise: the factor of the added noise.
    """

    family: ClassVar[str] = "splitting"
    reference: ClassVar[str] = (
        "Xu, Deng, Cheng, Tian, Liu and Jaakkola, Restart Sampling for Improving Generative Processes, NeurIPS 2023, "
        "arXiv:2306.14878; benchmarks/generate_restart.py of Newbeeer/diffusion_restart_sampling at 8cbcb07"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    inner: str | PlanSolver = "heun"
    intervals: tuple[Interval, ...] = ((0.2, 1.0, 2, None),)
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        flow_solver("inner", self.inner)
        check_not_negative("s_noise", self.s_noise)
        object.__setattr__(self, "intervals", _checked(self.intervals))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.intervals and self.s_noise != 1:
            return Order(note="none: with s_noise other than 1 the variance is off however many steps are taken")
        if any(steps is not None for *_, steps in self.intervals):
            return Order(note="none: the steps of an interval do not grow in number with the grid's")
        return self.of_flow(kicked=bool(self.intervals))

    @property
    def plan_is_remembered(self) -> bool:  # type: ignore[override]
        return remembered(self.inner)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if not self.intervals:
            return self.flow.rows(process, times, 0.0)
        refuse_upwards(self, times)
        parts = self._parts(process, process.levels(times))
        legs = leg_rows(self.flow, process, [leg for _, _, leg in parts])
        rows: list[Row] = []
        stream = 0
        for (n, kick, _), leg in zip(parts, legs, strict=True):
            stream = stream if rows and rows[-1].step == n else 0
            first: Combination | None = None
            if kick is not None:
                first, stream = kick_up(*kick, stream, self.s_noise), stream + 1
            rows += [replace(row, step=n, kick=None if i else first) for i, row in enumerate(leg)]
        return rows

    def _parts(
        self, process: AffineSDE, levels: list[Level]
    ) -> list[tuple[int, tuple[Level, Level] | None, list[float]]]:
        """The flow's pieces in order: the step each belongs to, the kick before it, from and to, and its times."""
        parts: list[tuple[int, tuple[Level, Level] | None, list[float]]] = []
        waiting = self._ends(process, levels)
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            at = s
            while waiting and waiting[0][0].half_log_snr <= t.half_log_snr + _near(t):
                low, high, interval = waiting.pop(0)
                low = t if abs(low.half_log_snr - t.half_log_snr) <= _near(t) else low
                if low.half_log_snr > at.half_log_snr + _near(at):
                    parts.append((n, None, [at.t, low.t]))
                    at = low
                parts += [(n, (at, high), self._way_down(process, levels, high, at, interval))] * interval[2]
            if at is not t:
                parts.append((n, None, [at.t, t.t]))
        return parts

    def _ends(self, process: AffineSDE, levels: list[Level]) -> list[tuple[Level, Level, Interval]]:
        """The levels of the intervals that the grid passes, the noisiest first."""
        first, last = levels[0], levels[-1]
        passed = [
            v
            for v in self.intervals
            if first.half_log_snr + _near(first) < -math.log(v[0]) <= last.half_log_snr + _near(last)
        ]
        if not passed:
            return []
        found = iter(process.levels_at([-math.log(rho) for v in passed for rho in v[:2]]))
        ends = [(low, high, v) for v, low, high in ((v, next(found), next(found)) for v in passed)]
        bottom, top = process.domain
        for low, high, v in ends:
            # time_at continues a schedule beyond its domain or stops at its end: the level tells.
            if not (low.t >= bottom and high.t <= top and abs(high.half_log_snr + math.log(v[1])) <= _near(high)):
                raise OptionError(
                    "intervals",
                    got=f"{v} on {process!r}",
                    expected=f"rho_max up to the {float(process.rho(top)):.6g} that the process reaches",
                    fix="Lower rho_max.",
                )
        return sorted(ends, key=lambda end: end[0].half_log_snr)

    def _way_down(
        self, process: AffineSDE, levels: list[Level], high: Level, low: Level, interval: Interval
    ) -> list[float]:
        """The times of one repetition's flow."""
        rho_max, steps = interval[1], interval[3]
        if steps is None:
            inside = [
                v.t for v in levels if high.half_log_snr + _near(high) < v.half_log_snr < low.half_log_snr - _near(low)
            ]
            return [high.t, *inside, low.t]
        a, b = rho_max ** (1 / _KARRAS), low.rho ** (1 / _KARRAS)
        goals = [-_KARRAS * math.log(a + i / steps * (b - a)) for i in range(1, steps)]
        inside = [v.t for v in process.levels_at(goals)] if goals else []
        return [high.t, *inside, low.t]


def _near(level: Level) -> float:
    return _SAME * max(1.0, abs(level.half_log_snr)) if math.isfinite(level.half_log_snr) else 0.0


def _checked(intervals: Any) -> tuple[Interval, ...]:
    """The intervals as tuples of numbers."""
    expected = "a sequence of (rho_min, rho_max, repetitions, steps)"
    fix = "Pass intervals=[(0.06, 0.3, 2, 3)], for one."
    if isinstance(intervals, str) or not isinstance(intervals, Sequence):
        raise InterfaceError("intervals", got=repr(intervals), expected=expected, fix=fix)
    found: list[Interval] = []
    for interval in intervals:
        if isinstance(interval, str) or not isinstance(interval, Sequence) or len(interval) != 4:
            raise InterfaceError("intervals", got=repr(interval), expected=expected, fix=fix)
        low, high = (finite_number("intervals", v, positive=True) for v in interval[:2])
        if not low * (1 + _SAME) < high:
            raise OptionError("intervals", got=repr(interval), expected="rho_min < rho_max", fix="Swap them.")
        repetitions, steps = interval[2:]
        check_count("repetitions", repetitions)
        found.append((low, high, int(repetitions), None if steps is None else check_count("steps", steps)))
    return tuple(found)
