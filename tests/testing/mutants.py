"""Solvers with one planted mistake each, which the estimator must reject, and sound twins, which it must accept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sdekit.affine import Level
from sdekit.math.phi import phis
from sdekit.plan import DATA, NOISE, Combination, Row, commit, stage
from sdekit.solvers import get
from sdekit.solvers.base import Increments, Order, PlanSolver, Stepper, StepResult
from sdekit.solvers.exponential import krogstad_rows


@dataclass(frozen=True)
class ThirdOrder(PlanSolver):
    """EAB3 in noise or data prediction from closed-form weights, started by two single steps of order 4."""

    declared = Order(deterministic=3)
    fixed_stochasticity = 0.0

    prediction: str = "data"
    last: float = 2.0  # the factor of phi_3; 1 is the released 3M
    old_sigma: bool = False  # sigma_s (alpha_s) for sigma_t (alpha_t) in the weights
    first_order_end: bool = False

    def rows(self, process, times, stochasticity):
        levels = process.levels(times)
        rows: list[Row] = []
        history: list[tuple[int, float]] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            history.insert(0, (len(rows), s.half_log_snr))
            if n < 2:
                rows += krogstad_rows(process, n, s, t, self.prediction)
                continue
            end = self.first_order_end and n == len(levels) - 2
            rows.append(self._row(n, s, t, history[: 1 if end else 3], len(rows)))
        return rows

    def _row(self, n: int, s: Level, t: Level, history: list[tuple[int, float]], row: int) -> Row:
        h = t.half_log_snr - s.half_log_snr
        at = s if self.old_sigma else t
        if self.prediction == "data":
            scale, amount, z, weights = t.sigma / s.sigma, at.alpha * h, -h, DATA
        else:
            scale, amount, z, weights = t.alpha / s.alpha, -at.sigma * h, h, NOISE
        _, p1, p2, p3 = phis(3, z)
        if len(history) == 1:
            return commit(n, s, weights, scale, {0: amount * p1})
        r = (s.half_log_snr - history[1][1]) / h
        q = (history[1][1] - history[2][1]) / h
        f = self.last * p3
        w = (
            p1 + p2 * (1 / r + 1 / (r + q)) + f / (r * (r + q)),
            -p2 * (r + q) / (r * q) - f / (r * q),
            p2 * r / (q * (r + q)) + f / (q * (r + q)),
        )
        return commit(n, s, weights, scale, {row - i: amount * v for (i, _), v in zip(history, w, strict=True)})


@dataclass(frozen=True)
class Rewritten(PlanSolver):
    """A registered solver whose rows a function changes."""

    base: Any
    change: Callable[[Row, list[Level]], Row]

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.base.declared

    @property
    def fixed_stochasticity(self) -> float | None:  # type: ignore[override]
        return self.base.fixed_stochasticity

    def rows(self, process, times, stochasticity):
        levels = process.levels(times)
        return [self.change(row, levels) for row in self.base.rows(process, times, stochasticity)]


def with_outputs(row: Row, outputs: dict[int, float]) -> Row:
    assert row.base is not None
    return replace(row, base=Combination(row.base.base, tuple(outputs.items()), row.base.noises))


def with_noise(row: Row, factor: float) -> Row:
    assert row.base is not None
    noises = tuple((stream, factor * c) for stream, c in row.base.noises)
    return replace(row, base=Combination(row.base.base, row.base.outputs, noises))


def flip_difference(row: Row, _: list[Level]) -> Row:
    """w0 + d, -d becomes w0 - d, +d."""
    assert row.base is not None
    w = dict(row.base.outputs)
    return with_outputs(row, {0: w[0] + 2 * w[1], 1: -w[1]}) if len(w) == 2 else row


def equal_steps(row: Row, levels: list[Level]) -> Row:
    """The two-step weights for equal steps on whatever grid: d (h / h_last) becomes d."""
    assert row.base is not None
    w = dict(row.base.outputs)
    if len(w) < 2:
        return row
    a, b, c = (levels[row.step + i].half_log_snr for i in (-1, 0, 1))
    d = w[1] * (b - a) / (c - b)
    return with_outputs(row, {0: w[0] + w[1] - d, 1: d})


def stage_at_step_end(row: Row, levels: list[Level]) -> Row:
    """The model called at the step's end, at the point of its middle."""
    t = levels[row.step + 1]
    return replace(row, t=t.t, alpha=t.alpha, sigma=t.sigma) if row.point is None else row


def off_by_tenth(row: Row, levels: list[Level]) -> Row:
    """The first weight one tenth of a relative step too large: a consistent method of order 1."""
    assert row.base is not None
    h = levels[row.step + 1].half_log_snr - levels[row.step].half_log_snr
    return with_outputs(row, {age: w * (1 + 0.1 * h) for age, w in row.base.outputs})


def older_std(row: Row, levels: list[Level]) -> Row:
    """Noise of sigma_s where sigma_t is meant."""
    s, t = levels[row.step], levels[row.step + 1]
    return with_noise(row, s.sigma / t.sigma)


def doubled_noise(row: Row, _: list[Level]) -> Row:
    """The step's noise and another one of the same size: drawn twice."""
    assert row.base is not None
    (_, std), *_ = row.base.noises
    return replace(row, base=Combination(row.base.base, row.base.outputs, ((0, std), (1, std))))


def halved_exponent(row: Row, levels: list[Level]) -> Row:
    """sqrt(1 - e^{-h}) where sqrt(1 - e^{-2h}) is meant."""
    h = levels[row.step + 1].half_log_snr - levels[row.step].half_log_snr
    return with_noise(row, math.sqrt(math.expm1(-h) / math.expm1(-2 * h)))


@dataclass(frozen=True)
class TwoStage(PlanSolver):
    """The two-stage exponential method of stochasticity 1 with r = 1/2.

    The noise of the stage is the first half of the step's own. `shared=False` draws two independent ones instead.
    """

    declared = Order(weak=2, strong=1)
    fixed_stochasticity = 1.0

    shared: bool = True

    def rows(self, process, times, stochasticity):
        levels = process.levels(times)
        middles = process.levels_at([(s.half_log_snr + t.half_log_snr) / 2 for s, t in itertools.pairwise(levels)])
        rows = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            m, h = middles[n], t.half_log_snr - s.half_log_snr
            _, p1, p2 = phis(2, -2 * h)
            half = math.sqrt(-math.expm1(-h))
            inner = -m.alpha * math.expm1(-h)
            rows.append(stage(n, s, DATA, m.sigma / s.sigma * math.exp(-h / 2), {0: inner}, {0: m.sigma * half}))
            if self.shared:
                noises = {0: t.sigma * math.exp(-h / 2) * half, 1: t.sigma * half}
            else:
                noises = {1: t.sigma * math.sqrt(-math.expm1(-2 * h))}
            w = 2 * h * t.alpha
            outputs = {0: w * 2 * p2, 1: w * (p1 - 2 * p2)}
            rows.append(commit(n, m, DATA, t.sigma / s.sigma * math.exp(-h), outputs, noises))
        return rows


HEUN = get("heun")


@dataclass(frozen=True)
class StepOnly(Stepper):
    """The stepper of a registered solver, without its plans; `early` evaluates the last stage at the step's start."""

    base: Any = HEUN
    early: bool = False

    needs = "ode"

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.base.declared

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Any, increments: Increments | None, state: Any
    ) -> StepResult:
        if not self.early:
            return self.base.step(dynamics, t0, t1, x, increments, state)
        k = dynamics.drift(t0, x)
        return StepResult(x + (t1 - t0) / 2 * (k + dynamics.drift(t0, x + (t1 - t0) * k)))
