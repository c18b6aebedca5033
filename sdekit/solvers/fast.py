"""DPM-Solver with a given number of model calls: `dpm_fast`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.dpm_solver import one_stage_row
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.solvers.exponential_tableau import tableau_rows, third_order_gamma, three_stages, two_stages
from sdekit.solvers.options import check_choice
from sdekit.times import check_count

__all__ = ["DPMFast"]

_FARTHEST = 0.6
"""Of the second of three calls: towards 2/3 the weights that keep order 3 grow without bound."""


@register("dpm_fast", aliases=("k_dpm_fast", "DPM fast"))
@dataclass(frozen=True)
class DPMFast(PlanSolver):
    """DPM-Solver of orders 3, 2 and 1 in turn, with one model call for each step of the grid, at the grid's times.

    Three steps of the grid are one step of DPM-Solver-3, its inner calls at the two times between, so that the states
    saved there are stages, of lower order. What three do not divide is left for the end. On the grid of `times` it is
    k-diffusion's sample_dpm_fast without noise; and with prediction="data" and second="half" it is the single-step
    scheduler of order 3 of diffusers on any grid on which third="line" is taken.

    Args:
        prediction: "noise" or "data", what is interpolated.
        third: "corrected" keeps order 3 wherever the grid puts the calls, by the weights of `etdrk3`, which are those
            published where the third is at 2/3 in lambda; "line" takes these everywhere.
        second: "published" takes half weights in steps of two calls and the exact integral in those of three; or
            "half" or "exact" for both, see `dpm_solver_3`.
        tail: "released" ends with steps of orders 2 and 1, 1, or 2 where the number of calls is 0, 1 or 2 modulo 3;
            "full" with order 3, two steps of order 2, or one.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    reference: ClassVar[str] = (
        "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver, NeurIPS 2022, arXiv:2206.00927; sample_dpm_fast of k-diffusion"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    prediction: str = "noise"
    third: str = "corrected"
    second: str = "published"
    tail: str = "released"

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_choice("third", self.third, ("corrected", "line"))
        check_choice("second", self.second, ("published", "half", "exact"))
        check_choice("tail", self.tail, ("released", "full"))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        ends = "order 1 on a step from alpha = 0 or to sigma = 0"
        if self.third == "line":
            return Order(deterministic=2, note=f"limited by the places of the calls, unless they are of thirds; {ends}")
        if self.tail == "released":
            note = f"limited by the last step, unless the number of calls is 2 modulo 3; {ends}"
            return Order(deterministic=2, note=note)
        return Order(deterministic=3, note=f"order 2 where the second of three calls is beyond 0.6 of them; {ends}")

    def orders(self, calls: int) -> list[int]:
        """The orders of the steps, which are also their numbers of calls."""
        rest = calls % 3
        if self.tail == "released":
            tail = [2, 1] if rest == 0 else [rest]
        else:
            tail = [] if rest == 0 else [2, 2] if rest == 1 and calls > 1 else [rest]
        return [3] * ((calls - sum(tail)) // 3) + tail

    def times(
        self, process: AffineSDE, steps: int, *, t_start: float | None = None, t_end: float | None = None
    ) -> list[float]:
        """The grid of k-diffusion's sample_dpm_fast: steps of equal length in lambda, whatever their order.

        Args:
            steps: the number of calls; the grid has one time more.
            t_start, t_end: its ends; by default those of the process.

        Raises:
            OptionError: where lambda is infinite at an end.
        """
        check_count("steps", steps)
        first, last = process.t_max if t_start is None else t_start, process.t_min if t_end is None else t_end
        start, end = process.levels([first, last])
        if touches_end(start, end):
            raise OptionError(
                "t_start, t_end",
                got=f"{first!r}, {last!r}",
                expected="times at which alpha and sigma are positive",
                fix="Move the end inside.",
            )
        orders = self.orders(steps)
        h = (end.half_log_snr - start.half_log_snr) / len(orders)
        inner = [start.half_log_snr + (i + j / q) * h for i, q in enumerate(orders) for j in range(q)]
        return [start.t, *(level.t for level in process.levels_at(inner[1:])), end.t]

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        count = len(levels) - 1
        first = int(touches_end(*levels[:2]))
        last = count - int(count > first and touches_end(*levels[-2:]))
        rows = [limit_row(0, levels[0], levels[1], self.prediction, 0.0)] if first else []
        n = first
        for order in self.orders(last - first) if last > first else []:
            rows += self._step(process, n, levels[n : n + order + 1])
            n += order
        if last < count:
            rows.append(limit_row(last, levels[-2], levels[-1], self.prediction, 0.0))
        return rows

    def _step(self, process: AffineSDE, n: int, at: list[Level]) -> list[Row]:
        """One step through these levels, whose rows are one for each step of the grid."""
        s, *between, t = at
        if not between:
            return [one_stage_row(process, n, s, t, self.prediction)]
        h = t.half_log_snr - s.half_log_snr
        inner = {(level.half_log_snr - s.half_log_snr) / h: level for level in between}
        c2, *others = inner
        if others:
            c3 = others[0]
            keep = self.third == "line" or c2 > _FARTHEST or math.isclose(c3, 2 / 3, rel_tol=1e-12)
            gamma = 0.0 if keep else third_order_gamma(c2, c3)
            tableau = three_stages(c2, c3, gamma, "half" if self.second == "half" else "exact")
        else:
            tableau = two_stages(c2, "exact" if self.second == "exact" else "half")
        rows = tableau_rows(tableau, n, s, t, inner, self.prediction)
        return [replace(row, step=n + j) for j, row in enumerate(rows)]
