"""UniPC: exponential Adams predictors and correctors in lambda, one call a step.

A step s -> t predicts x_t through the predictions at s and before (UniP), calls the model there, and with the new
prediction takes the step again (UniC). Released code writes both as

    x_t = a x_s + A (phi_1 h m_0 + B sum_k c_k (m_k - m_0) / r_k),    r_k = (lambda_k - lambda_s) / h,

and solves for the c_k, in which B cancels: all such systems are those of the interpolating polynomial. B matters only
where a system of one unknown is replaced by c = 1/2: in UniP with one prediction before, and in UniC with none.

The variant without B, which the code calls vary_coeff, is released with a mistake. With K predictions besides m_0, old
ones and last the new, it inverts C_jk = r_j^k / (k + 1)! for the derivatives d_k = sum_j C^{-1}_kj (m_j - m_0) / r_j,
k < K, of which the step takes sum_k h phi_{k+2} d_k. The released corrector leaves out the old ones' share of the last
d, and of the new one's takes that of the last d but one, times the last phi.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.math.phi import MAX_PHI
from sdekit.plan import DATA, NOISE, Combination, Row, commit, outputs_of
from sdekit.sde import Stochasticity
from sdekit.solvers.adams import START_ORDER, check_order, single_step_starts
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import krogstad_rows, limit_row, regular_steps, touches_end
from sdekit.solvers.grid_steps import GridSteps
from sdekit.solvers.options import check_choice, check_final_order, check_flag

__all__ = ["UniPC"]


class _Step(NamedTuple):
    """One regular step: scale x + weights of predictions, newest first."""

    scale: float
    rows: list[int]
    """That made the predictions at its start and before."""
    predicting: list[float]
    """UniP."""
    correcting: list[float]
    """UniC; its first prediction is that at the step's end."""


def _released(nodes: list[Any], total: Any, moments: Sequence[Any]) -> list[Any]:
    """The weights of the released corrector of varying coefficients, from the integrals of r^k."""
    count = len(nodes) - 1
    r = np.stack(nodes[1:], -1)
    factorials = np.cumprod(np.arange(1.0, count + 1))
    phi = np.stack(moments[1:], -1) / factorials
    inverse = np.linalg.inv(r[..., None] ** np.arange(count) / factorials)
    old = (phi[..., None, :-1] @ inverse[..., :-1, :-1])[..., 0, :] / r[..., :-1]
    others = [*np.moveaxis(old, -1, 0), phi[..., -1] * inverse[..., max(count - 2, 0), -1]]
    return [total - sum(others), *others]


@register("unipc", aliases=("UniPC",))
@dataclass(frozen=True)
class UniPC(PlanSolver):
    """UniPC of any order on the probability flow.

    A corrector raises the order of a step by one. It needs the call at the step's end, which the next step makes
    anyway; so the last step is not corrected unless asked for, and the state that is saved at a time inside is the
    predicted one, at which the model was called. The names `uni_pc` and `uni_pc_bh2` are
    ComfyUI's: order 3 with variant "bh1" and "bh2", where its code sets lower_order_final=True besides.

    Args:
        order: p, the number of predictions that the predictor interpolates, 1 to 19, without a corrector
            20; p + 1 for the corrector.
        prediction: "data" or "noise", what is interpolated.
        variant: "bh2" or "bh1", the choice of B(h) where it matters; "exact" solves each system in full: what the
            paper calls varying coefficients.
        corrector: "pec" as above; "pece" calls the model again at the corrected state, two calls a step, and corrects
            the last step too; "none" is UniP.
        starter: "ramp" begins with p = 1, 2, ...; "single_step" takes the first p - 2 steps by a fourth-order
            exponential Runge-Kutta method of four calls each.
        final_order: a smaller p for the last step, or None for the full one.
        lower_order_final: end with p = ..., 2, 1, as released code does by default.
        correct_last: with "pec", correct the last step too, for one call more.
        as_released: with "exact", take the corrector as released: `multistep_uni_pc_vary_update` in uni_pc.py of
            wl-zhao/UniPC at cf9de85, of order 1 for p > 1. The others are released as they are here.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Zhao, Bai, Rao, Zhou and Lu, UniPC, NeurIPS 2023, arXiv:2302.04867"
    fixed_stochasticity: ClassVar[float] = 0.0
    released_with: ClassVar[dict[str, Any]] = {"variant": "exact"}

    order: int = 2
    prediction: str = "data"
    variant: str = "bh2"
    corrector: str = "pec"
    starter: str = "ramp"
    final_order: int | None = None
    lower_order_final: bool = False
    correct_last: bool = False
    as_released: bool = False

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_choice("variant", self.variant, ("bh1", "bh2", "exact"))
        check_choice("corrector", self.corrector, ("pec", "pece", "none"))
        check_order(self.order, MAX_PHI - (self.corrector != "none"))
        check_choice("starter", self.starter, ("ramp", "single_step"))
        check_final_order(self.final_order, self.order)
        for name in ("lower_order_final", "correct_last", "as_released"):
            check_flag(name, getattr(self, name))
        if self.lower_order_final and self.final_order is not None:
            raise OptionError(
                "final_order", got=f"{self.final_order!r} beside lower_order_final", expected="one", fix="Leave it out."
            )
        if self.correct_last and self.corrector != "pec":
            raise OptionError(
                "correct_last",
                got=f"True with corrector={self.corrector!r}",
                expected="corrector='pec': 'pece' corrects the last step anyway, 'none' none",
                fix="Leave it out.",
            )

    @property
    def _variant(self) -> str:
        return "released" if self.variant == "exact" and self.as_released else self.variant

    @property
    def _starts(self) -> int:
        return single_step_starts(self.order, self.starter, 0.0)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        gain = int(self.corrector != "none")
        full = self.order + gain
        # A step of order q taken O(1) times costs q + 1 globally; a ramp begins with p = 1.
        first = (START_ORDER if self._starts else 1 + gain) + 1
        final = 1 if self.lower_order_final else self.final_order or self.order
        last = final + (self.corrector == "pece" or self.correct_last) + 1
        p = min(full, first, last)
        if self.order > 1 and gain and self._variant == "released":
            return Order(deterministic=1, note="limited by the corrector as released in each step")
        limits = [name for name, limit in (("first", first), ("last", last)) if p == limit < full]
        note = f"limited by the {' and '.join(limits)} steps" if limits else ""
        return Order(deterministic=p, note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        last, regular = len(levels) - 2, set(regular_steps(levels))
        steps = self._steps(process, levels)
        rows: list[Row] = []
        calls: list[int] = []  # the rows of the outputs at grid times, newest first
        open_step: _Step | None = None  # predicted, not yet corrected
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if n not in regular:
                rows.append(self._limit(n, s, t, len(rows), open_step))
                open_step = None
                continue
            calls = [len(rows), *calls[: self.order]]
            if n not in steps:
                rows += krogstad_rows(process, n, s, t, self.prediction)
                continue
            scale, predicting, correcting = steps[n]
            step = _Step(scale, calls, predicting, correcting)
            again = self.corrector == "pece" or (self.correct_last and n == last)
            rows += self._step_rows(n, s, t, len(rows), step, open_step, again)
            open_step = step if self.corrector == "pec" else None
        return rows

    @property
    def _weights(self) -> tuple[float, float]:
        return DATA if self.prediction == "data" else NOISE

    def _steps(self, process: AffineSDE, levels: list[Level]) -> dict[int, tuple[float, list[float], list[float]]]:
        """Scale, and as in `_Step`, of each step that is neither the single-step method's nor at an end."""
        last, first = len(levels) - 2, int(touches_end(*levels[:2]))
        which = [n for n in regular_steps(levels) if n >= max(first, self._starts)]
        if not which:
            return {}
        counts = []
        for n in which:
            q = self.final_order if self.final_order and n == last else self.order
            if self.lower_order_final:
                q = min(q, last - n + 1)
            counts.append(min(n + 1 - first, q))
        steps = GridSteps(process, levels, which, self.prediction, 0.0, max(counts) + (self.corrector != "none"))
        h = steps.t.half_log_snr - steps.s.half_log_snr
        amount = h * (steps.t.alpha if self.prediction == "data" else -steps.t.sigma)

        def special(part: slice | int, nodes: list[Any], total: Any, moments: Sequence[Any]) -> list[Any] | None:
            # Two nodes, of which the second is at r = 1 for the corrector: a system of one unknown.
            if len(nodes) != 2 or self.variant == "exact":
                return None
            other = 0.5 * (amount[part] if self.variant == "bh1" else total) / nodes[1]
            return [total - other, other]

        def correcting(part: slice | int, nodes: list[Any], total: Any, moments: Sequence[Any]) -> list[Any] | None:
            released = self._variant == "released"
            return _released(nodes, total, moments) if released else special(part, nodes, total, moments)

        predictors = steps.weights(counts, special)
        correctors = [[]] * len(which)
        if self.corrector != "none":
            correctors = [[new, *old] for *old, new in steps.weights(counts, correcting, ahead=True)]
        return dict(zip(which, zip(steps.linear()[0], predictors, correctors, strict=True), strict=True))

    def _step_rows(
        self, n: int, s: Level, t: Level, i: int, step: _Step, before: _Step | None, again: bool
    ) -> list[Row]:
        """Row i, called at s: corrects the step before and predicts this one; another one corrects it, where asked."""
        w, ages = self._weights, [i - j for j in step.rows]
        scale, predicting = step.scale, step.predicting
        if before is None:
            first = Combination(scale, outputs_of(ages, predicting))
            base, point = (first, None) if self.corrector == "none" else (None, first)
        else:
            # Both have the newest of one history.
            whole = [scale * b for b in before.correcting]
            whole = [a + b for a, b in itertools.zip_longest(whole, predicting, fillvalue=0.0)]
            base = Combination(before.scale, outputs_of(ages, before.correcting))
            point = Combination(scale * before.scale, outputs_of(ages, whole))
        first = Row(s.t, s.alpha, s.sigma, w, base, point, n)
        if not again:
            return [first]
        corrected = Combination(scale, outputs_of([0, *[age + 1 for age in ages]], step.correcting))
        return [first, Row(t.t, t.alpha, t.sigma, w, corrected, None, n)]

    def _limit(self, n: int, s: Level, t: Level, i: int, before: _Step | None) -> Row:
        """A step of order 1 that touches sigma = 0 or alpha = 0; it corrects the step before if its output can."""
        row = limit_row(n, s, t, self.prediction, 0.0)
        if before is None or row.base is None:
            return row
        weights, made = before.predicting, before.rows
        if row.weights == self._weights:
            weights, made = before.correcting, [i, *made]
        scale = float(row.base.base)  # type: ignore[arg-type]
        outputs = {i - j: scale * b for j, b in zip(made, weights, strict=False)}
        for age, b in row.base.outputs:
            outputs[age] = outputs.get(age, 0.0) + float(b)  # type: ignore[arg-type]
        return commit(n, s, row.weights, scale * before.scale, outputs)
