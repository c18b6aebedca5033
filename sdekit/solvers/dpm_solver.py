"""Single-step exponential methods in lambda: DPM-Solver-2 and 3, DPM-Solver++(2S) and (3S).

A step s -> t with h = lambda_t - lambda_s calls the model at lambda_s, giving m_0, and at lambda_s + r_i h, giving m_i.
Each state within it is an integral of predictions before, as in `sdekit.solvers.exponential`:

    x_1  holds m_0 constant
    x_2  takes the line through m_0 and m_1 ("exact"), or m_0 + (m_1 - m_0) r_2 / (2 r_1) as constant ("half")
    x_t  of two calls takes m_0 + (m_1 - m_0) / (2 r_1) as constant ("half"), or the line through both ("exact");
         of three calls the line through m_0 and m_2 ("line"), or the parabola through all ("parabola")

"half" and "line" are what Lu et al. publish for x_t, the others what their code calls "taylor". Of three calls both are
of order 3 for r_2 = 2/3 alone: else the error of x_2 does not cancel. "corrected" is the parabola with the difference
m_1 - m_0 in x_2 multiplied by 2 (r_2 - r_1) / (r_2 (2 - 3 r_1)), which makes it of order 3 for any r_1 < r_2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import DATA, NOISE, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import exponential_step, limit_row, touches_end
from sdekit.solvers.options import check_choice, check_final_order

__all__ = [
    "DPMSolver2",
    "DPMSolver3",
    "DPMpp2S",
    "DPMpp3S",
    "check_ratio",
    "one_stage_row",
    "steps_with_inner",
    "two_stage_rows",
]

_DPM_SOLVER = "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver, NeurIPS 2022, arXiv:2206.00927"


def check_ratio(argument: str, value: float, above: float = 0.0) -> None:
    """Refuse what is not a place within a step: above < value <= 1."""
    if not above < finite_number(argument, value) <= 1:
        raise OptionError(argument, got=repr(value), expected=f"a number in ({above:g}, 1]", fix="Take 1/2.")


def steps_with_inner(
    process: AffineSDE, levels: list[Level], ratios: Sequence[float]
) -> Iterator[tuple[Level, Level, list[Level]]]:
    """Each step's s and t, and the levels at lambda_s + r h, computed at once; none for a step that touches an end."""
    pairs = list(itertools.pairwise(levels))
    goals = [
        s.half_log_snr + r * (t.half_log_snr - s.half_log_snr)
        for s, t in pairs
        for r in ratios
        if r != 1 and not touches_end(s, t)
    ]
    found = iter(process.levels_at(goals) if goals else [])
    for s, t in pairs:
        yield s, t, [] if touches_end(s, t) else [t if r == 1 else next(found) for r in ratios]


def two_stage_rows(
    process: AffineSDE,
    n: int,
    s: Level,
    mid: Level,
    t: Level,
    prediction: str,
    *,
    r1: float,
    second: str = "half",
    noises: Mapping[int, float] | None = None,
) -> list[Row]:
    """A step of two calls, at s and at mid, a ratio r1 of the way to t in lambda; noises are added at its end."""
    weights = DATA if prediction == "data" else NOISE
    to_mid, to_t = (exponential_step(process, s, v, prediction, 0.0) for v in (mid, t))
    if second == "half":
        b1 = to_t.total / (2 * r1)
        b0 = to_t.total - b1
    else:
        b0, b1 = to_t.weights([0.0, r1])
    return [
        stage(n, s, weights, to_mid.scale, {0: to_mid.total}),
        commit(n, mid, weights, to_t.scale, {1: b0, 0: b1}, noises),
    ]


def _three_stage_rows(
    process: AffineSDE, n: int, s: Level, inner: list[Level], t: Level, solver: ThreeStage
) -> list[Row]:
    r1, r2, prediction = solver.r1, solver.r2, solver.prediction
    weights = DATA if prediction == "data" else NOISE
    one, two, end = (exponential_step(process, s, v, prediction, 0.0) for v in (*inner, t))
    c1 = two.total * r2 / (2 * r1) if solver.second == "half" else two.weights([0.0, r1 / r2])[1]
    if solver.third == "corrected":
        c1 *= 2 * (r2 - r1) / (r2 * (2 - 3 * r1))
    c0 = two.total - c1
    if solver.third == "line":
        (b0, b2), b1 = end.weights([0.0, r2]), 0.0
    else:
        b0, b1, b2 = end.weights([0.0, r1, r2])
    return [
        stage(n, s, weights, one.scale, {0: one.total}),
        stage(n, inner[0], weights, two.scale, {1: c0, 0: c1}),
        commit(n, inner[1], weights, end.scale, {2: b0, 1: b1, 0: b2}),
    ]


def one_stage_row(process: AffineSDE, n: int, s: Level, t: Level, prediction: str) -> Row:
    """A step of one call, which holds its prediction constant."""
    step = exponential_step(process, s, t, prediction, 0.0)
    return commit(n, s, DATA if prediction == "data" else NOISE, step.scale, {0: step.total})


@dataclass(frozen=True)
class TwoStage(PlanSolver):
    """A method of two calls a step on the probability flow.

    Where sigma = 0 or alpha = 0 at an end of a step, it is a step of order 1 and one call.

    Args:
        r1: where in the step the second call is, in lambda: 0 < r1 <= 1.
        second: "half" weights the difference by half the total, as published; "exact" integrates the interpolant.
        prediction: "data" or "noise", what is interpolated.
        final_order: 1 for a last step of order 1, as `lower_order_final` does elsewhere; None for the full one.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    fixed_stochasticity: ClassVar[float] = 0.0
    declared: ClassVar[Order] = Order(deterministic=2, note="order 1 on a step from alpha = 0 or to sigma = 0")

    r1: float = 0.5
    second: str = "half"
    prediction: str = "data"
    final_order: int | None = None

    def __post_init__(self) -> None:
        check_ratio("r1", self.r1)
        check_choice("second", self.second, ("half", "exact"))
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_final_order(self.final_order, 2)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, levels, [self.r1])):
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, self.prediction, 0.0))
            elif self.final_order == 1 and n == len(levels) - 2:
                rows.append(one_stage_row(process, n, s, t, self.prediction))
            else:
                rows += two_stage_rows(process, n, s, inner[0], t, self.prediction, r1=self.r1, second=self.second)
        return rows


@register("dpm_solver_2", aliases=("dpm_2", "k_dpm_2", "DPM2"))
@dataclass(frozen=True)
class DPMSolver2(TwoStage):
    """DPM-Solver-2 (Lu et al., 2022): the flow of the noise prediction.

    With r1 = 1/2 and half weights it is k-diffusion's dpm_2: Euler steps in sigma / alpha, through the geometric mean.
    """

    reference: ClassVar[str] = f"{_DPM_SOLVER}, Algorithm 1"

    prediction: str = "noise"


@register("dpmpp_2s")
@dataclass(frozen=True)
class DPMpp2S(TwoStage):
    """DPM-Solver++(2S) (Lu et al., 2022): the flow of the data prediction."""

    reference: ClassVar[str] = "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver++, 2022, arXiv:2211.01095, Algorithm 1"


@dataclass(frozen=True)
class ThreeStage(PlanSolver):
    """A method of three calls a step on the probability flow.

    Where sigma = 0 or alpha = 0 at an end of a step, it is a step of order 1 and one call.

    Args:
        r1, r2: where in the step the other calls are, in lambda: 0 < r1 < r2 <= 1.
        third: "line" takes the line through the first and the third prediction, as published; "parabola" all three;
            "corrected" all three with a third call that is of use for any r2: the others need r2 = 2/3 for order 3.
        second: "exact" integrates the line that leads to the third call, as published; "half" weights the difference
            by half the total there, as diffusers does.
        prediction: "noise" or "data", what is interpolated.
        final_order: 1 or 2 for a last step of that order, of as many calls; None for the full one.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    fixed_stochasticity: ClassVar[float] = 0.0

    r1: float = 1 / 3
    r2: float = 2 / 3
    third: str = "line"
    prediction: str = "noise"
    final_order: int | None = None
    second: str = "exact"

    def __post_init__(self) -> None:
        check_ratio("r1", self.r1)
        check_ratio("r2", self.r2, self.r1)
        check_choice("third", self.third, ("line", "parabola", "corrected"))
        check_choice("second", self.second, ("exact", "half"))
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_final_order(self.final_order, 3)
        if self.third == "corrected" and math.isclose(self.r1, 2 / 3, rel_tol=1e-6):
            raise OptionError(
                "r1", got=f"{self.r1!r} with third='corrected'", expected="another number than 2/3", fix="Take 1/3."
            )

    @property
    def declared(self) -> Order:  # type: ignore[override]
        p = 3 if self.third == "corrected" or math.isclose(self.r2, 2 / 3, rel_tol=1e-12) else 2
        limited = "limited by r2, which is not 2/3; " if p < 3 else ""
        if self.final_order is not None and self.final_order + 1 < p:
            p, limited = self.final_order + 1, "limited by the last step; "
        return Order(deterministic=p, note=f"{limited}order 1 on a step from alpha = 0 or to sigma = 0")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, levels, [self.r1, self.r2])):
            order = self.final_order or 3 if n == len(levels) - 2 else 3
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, self.prediction, 0.0))
            elif order == 1:
                rows.append(one_stage_row(process, n, s, t, self.prediction))
            elif order == 2:
                rows += two_stage_rows(process, n, s, inner[0], t, self.prediction, r1=self.r1)
            else:
                rows += _three_stage_rows(process, n, s, inner, t, self)
        return rows


@register("dpm_solver_3")
@dataclass(frozen=True)
class DPMSolver3(ThreeStage):
    """DPM-Solver-3 (Lu et al., 2022): the flow of the noise prediction."""

    reference: ClassVar[str] = f"{_DPM_SOLVER}, Algorithm 2"


@register("dpmpp_3s")
@dataclass(frozen=True)
class DPMpp3S(ThreeStage):
    """DPM-Solver++ of three calls a step: DPM-Solver-3 on the flow of the data prediction, as in the authors' code."""

    reference: ClassVar[str] = "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver++, 2022, arXiv:2211.01095, and its code"

    prediction: str = "data"
