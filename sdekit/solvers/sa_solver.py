"""SA-Solver: exponential Adams predictors and correctors on the reverse SDE, one or two calls a step.

A step s -> t of the exact solution, in the form of `sdekit.solvers.exponential`, predicts x_t through the predictions
at s and before. The corrector takes the step again, with the prediction at the predicted state among its nodes and with
the same noise, so that all it changes is the weights:

    predicted  x_p = a x_s + sum_j b_j E_j + std z
    corrected  x_c = x_p + sum_j (c_j - b_j) E_j + c_new E_new.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import DATA, NOISE, Row, commit_history
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, register
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.exponential import limit_row, regular_steps
from sdekit.solvers.grid_steps import GridSteps
from sdekit.solvers.options import check_choice
from sdekit.times import check_count

__all__ = ["SASolver"]

_HIGHEST = 8


class _Step(NamedTuple):
    """A step as predicted, and the weights of its corrector; newest first."""

    scale: float
    std: float
    rows: list[int]
    """That made the predictions at its start and before."""
    predicting: list[float]
    change: list[float]
    """What the corrector adds to the predicted state; its first prediction is that at the step's end."""


@register("sa_solver", aliases=("SA-Solver", "sa"))
@dataclass(frozen=True)
class SASolver(SnrClocked):
    """SA-Solver (Xue et al., 2023) for any stochasticity, a number or a function of t: the paper's tau.

    The corrector needs the call at the step's end. With "pec" that is the call which the next step makes anyway, so the
    last step is not corrected, and the state that is saved at a time inside is the predicted one. Without noise it is
    UniPC with its systems solved in full. On the reverse SDE one normal a step limits the weak order to 2 and the
    strong order to 1, whatever the nodes.

    Args:
        predictor_order: p, the number of predictions that the predictor interpolates.
        corrector_order: q, the number of predictions that the corrector interpolates, the new one included; 0 for none.
            An interior step is of order min(p + 1, q).
        prediction: "data" or "noise", what is interpolated.
        mode: "pec", one call a step, or "pece", which calls the model again at the corrected state.
        second: "exact" integrates the line through two predictions; "few_steps" weights their difference by half the
            step, as the released code does with few steps and diffusers always (data prediction only).
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Xue, Yi, Luo, Zhang, Sun, Li and Ma, SA-Solver, NeurIPS 2023, arXiv:2309.05019"
    default_stochasticity: ClassVar[float] = 1.0

    predictor_order: int = 3
    corrector_order: int = 4
    prediction: str = "data"
    mode: str = "pec"
    second: str = "exact"

    def __post_init__(self) -> None:
        check_count("predictor_order", self.predictor_order)
        if self.corrector_order != 0:
            check_count("corrector_order", self.corrector_order)
        if max(self.predictor_order, self.corrector_order) > _HIGHEST:
            raise OptionError(
                "predictor_order, corrector_order",
                got=f"{self.predictor_order}, {self.corrector_order}",
                expected=f"at most {_HIGHEST} nodes",
                fix="Lower it: orders above 4 bring nothing here.",
            )
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_choice("mode", self.mode, ("pec", "pece"))
        check_choice("second", self.second, ("exact", "few_steps"))
        if self.second == "few_steps" and self.prediction == "noise":
            fix = "Use prediction='data', or second='exact'."
            raise OptionError("second", got="'few_steps' with prediction='noise'", expected="data prediction", fix=fix)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        p, q = self.predictor_order, self.corrector_order
        full = min(p + 1, q) if q else p
        # A step of order k taken O(1) times costs k + 1 globally: the first has one prediction, and with "pec" the last
        # is not corrected.
        first = (min(2, q) if q else 1) + 1
        last = (full if q and self.mode == "pece" else p) + 1
        order = min(full, first, last)
        limits = [name for name, limit in (("first", first), ("last", last)) if order == limit < full]
        note = f"limited by the {' and '.join(limits)} steps" if limits else ""
        return Order(deterministic=order, weak=min(order, 2), strong=1, note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        steps = self._steps(process, levels, stochasticity)
        rows: list[Row] = []
        calls: list[int] = []  # the rows of the outputs at grid times, newest first
        open_step: _Step | None = None  # predicted, not yet corrected
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            i = len(rows)
            if n not in steps:
                row = limit_row(n, s, t, self.prediction, stochasticity)
                rows.append(row if open_step is None else self._corrected_first(row, open_step, i))
                open_step = None
                continue
            calls = [i, *calls[:_HIGHEST]]
            step = _Step(*steps[n][:2], calls, *steps[n][2:])
            ages = [i - j for j in calls]
            weights = step.predicting
            if open_step is not None:
                # Both have the newest of one history.
                corrected = [step.scale * w for w in open_step.change]
                weights = [a + b for a, b in itertools.zip_longest(corrected, weights, fillvalue=0.0)]
            rows.append(commit_history(n, s, self._weights, step.scale, ages, weights, step.std))
            open_step = step if self.corrector_order else None
            if open_step is not None and self.mode == "pece":
                again = [0, *[age + 1 for age in ages]]
                rows.append(commit_history(n, t, self._weights, 1.0, again, step.change, 0.0))
                open_step = None
        return rows

    @property
    def _weights(self) -> tuple[float, float]:
        return DATA if self.prediction == "data" else NOISE

    def _steps(
        self, process: AffineSDE, levels: list[Level], tau: Stochasticity
    ) -> dict[int, tuple[float, float, list[float], list[float]]]:
        """Scale, std and weights, as in `_Step`, of each step that touches no end."""
        which = regular_steps(levels)
        if not which:
            return {}
        most = max(self.predictor_order, self.corrector_order)
        steps = GridSteps(process, levels, which, self.prediction, tau, most)

        def few_steps(part: slice | int, nodes: list[Any], total: Any, moments: Sequence[Any]) -> list[Any] | None:
            if len(nodes) != 2:
                return None
            s, t = steps.s, steps.t
            squares = np.array([stochasticity_at(tau, at) ** 2 for at in s.t.tolist()])
            amount = t.alpha * (t.half_log_snr - s.half_log_snr) * (1 + squares)
            other = 0.5 * amount[part] / nodes[1]
            return [total - other, other]

        special = few_steps if self.second == "few_steps" else None
        known = [n + 1 - which[0] for n in which]
        predictors = steps.weights([min(k, self.predictor_order) for k in known], special)
        changes: list[list[float]] = [[]] * len(which)
        if self.corrector_order:
            correctors = steps.weights([min(k, self.corrector_order - 1) for k in known], special, ahead=True)
            changes = [
                [new, *[c - b for c, b in itertools.zip_longest(old, predicting, fillvalue=0.0)]]
                for (*old, new), predicting in zip(correctors, predictors, strict=True)
            ]
        return dict(zip(which, zip(*steps.linear(), predictors, changes, strict=True), strict=True))

    def _corrected_first(self, row: Row, before: _Step, i: int) -> Row:
        """A step of order 1 that touches sigma = 0 or alpha = 0, and before it the correction if its output can."""
        if row.base is None or row.base.base == 0 or row.weights != self._weights:
            return row
        made, scale = [i, *before.rows], float(row.base.base)  # type: ignore[arg-type]
        outputs = {i - j: scale * w for j, w in zip(made, before.change, strict=False)}
        for age, w in row.base.outputs:
            outputs[age] = outputs.get(age, 0.0) + float(w)  # type: ignore[arg-type]
        return replace(row, base=replace(row.base, outputs=tuple(sorted(outputs.items()))))
