"""ER-SDE-Solver: extended reverse SDEs, given by a noise-scale function, and data predictions interpolated in rho.

The noise-scale function phi gives the stochasticity tau^2 = dlog phi / dlog rho - 1. With y = x / alpha a step s -> t
is, for the data prediction D,

    y_t = (phi_t / phi_s) y_s + int_{rho_t}^{rho_s} (phi_t / phi) D dlog phi + rho_t sqrt(1 - (G_t / G_s)^2) z

where G = phi / rho must not fall as rho grows. The latest values of D are interpolated by a polynomial in rho.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import DATA, Row, commit, commit_history
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import limit_row, regular_steps
from sdekit.solvers.grid_steps import history_weights
from sdekit.solvers.options import check_choice, check_flag
from sdekit.solvers.splitting import refuse_upwards
from sdekit.times import check_count

__all__ = ["ERSDE", "NOISE_SCALES", "NoiseScale"]

_QUADRATURE = 10
_PANEL = 1.0
"""The longest range of lambda for one Gauss rule: the default's e^{rho^0.3} is smooth on it to rounding."""
_RELEASED_POINTS = 100
_LARGEST = 700.0
_LOG_10 = math.log(10.0)


class NoiseScale(NamedTuple):
    """log G(rho), G = phi / rho, up to a constant, and its value at infinity; of arrays both log G and its slope dlog G
    / dlog rho = tau^2."""

    log_gain: Callable[[float], float]
    top: float
    arrays: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

    def slope(self, rho: float) -> float:
        """dlog G / dlog rho = tau^2."""
        return float(self.arrays(np.array([rho]))[1][0])


def _power(exponent: float) -> NoiseScale:
    """phi = rho^(1 + exponent)."""
    top = math.inf if exponent else 0.0
    return NoiseScale(
        lambda rho: exponent * math.log(rho), top, lambda rho: (exponent * np.log(rho), np.full_like(rho, exponent))
    )


def _raised(log_term: Callable[[Any], Any], slope: Callable[[Any], Any], top: float) -> NoiseScale:
    """phi = rho (e^u + 10) for u = log_term(rho), du / dlog rho = slope(rho)."""

    def log_gain(rho: float) -> float:
        u = log_term(rho)
        return max(u, 0.0) + math.log(math.exp(u - max(u, 0.0)) + 10 * math.exp(-max(u, 0.0)))

    def arrays(rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = log_term(rho)
        return np.logaddexp(u, _LOG_10), slope(rho) / (1 + 10 * np.exp(-np.maximum(u, -_LARGEST)))

    return NoiseScale(log_gain, top, arrays)


def _sde_4() -> NoiseScale:
    """phi = rho^0.9 log10(1 + 100 rho^1.5)."""

    def log_gain(rho: float) -> float:
        return -0.1 * math.log(rho) + math.log(math.log1p(100 * rho**1.5))

    def arrays(rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = 100 * rho**1.5
        log = np.log1p(u)
        return np.log(log) - 0.1 * np.log(rho), 1.5 * u / ((1 + u) * log) - 0.1

    return NoiseScale(log_gain, -math.inf, arrays)


NOISE_SCALES: dict[str, NoiseScale] = {
    "ode": _power(0.0),
    "sde": _power(1.0),
    "sde_1": _raised(lambda rho: -1 / rho, lambda rho: 1 / rho, math.log(11)),
    "sde_2": _power(0.5),
    "sde_3": _power(1.5),
    "sde_4": _sde_4(),
    "sde_5": _raised(lambda rho: rho**0.3, lambda rho: 0.3 * rho**0.3, math.inf),
}
"""phi by name, as the released code numbers them: rho; rho^2; rho (e^{-1/rho} + 10); rho^1.5; rho^2.5;
rho^0.9 log10(1 + 100 rho^1.5); rho (e^{rho^0.3} + 10)."""


@lru_cache(maxsize=64)
def _rule(panels: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gauss rule on each of these parts of [0, 1]."""
    nodes, weights = (np.array(v) for v in gauss_legendre(_QUADRATURE))
    return ((np.arange(panels)[:, None] + nodes) / panels).ravel(), np.tile(weights / panels, panels)


@register("er_sde", aliases=("ER-SDE", "er_sde_solver"))
@dataclass(frozen=True)
class ERSDE(PlanSolver):
    """ER-SDE-Solver (Cui et al., 2023): one data prediction a step.

    The stochasticity is a function of rho that the noise-scale function implies; the solver counts as one of the
    probability flow. The law from a fixed start is that of the reverse SDE of this stochasticity in the limit.

    The released third-order update takes a one-sided difference for the derivative of the prediction at s, without the
    term f'' of its error: an interior step is then of order 2, where the right one is of order 3. Its Riemann sums
    leave an error of order 1, which shows from some hundred steps on.

    Args:
        order: 1, 2 or 3, the number of predictions that a step interpolates, as far as there are any.
        noise_scale: phi, by the names in `sdekit.solvers.er_sde.NOISE_SCALES`; "ode" is the probability flow, "sde" the
            reverse SDE, "sde_5" the released default, which has tau^2 up to 0.12 for rho below 3.
        as_released: take the updates as released: `vp_3_order_taylor` in er_sde_solver.py of QinpengCui/ER-SDE-Solver
            at 25ca6c2, with its left Riemann sums of 100 points.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Cui et al., ER-SDE-Solver, 2023, arXiv:2309.06169, corrected"
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 3
    noise_scale: str = "sde_5"
    as_released: bool = False

    def __post_init__(self) -> None:
        if check_count("order", self.order) > 3:
            fix = "Use 3, or exp_adams for more."
            raise OptionError("order", got=repr(self.order), expected="1, 2 or 3", fix=fix)
        check_choice("noise_scale", self.noise_scale, tuple(NOISE_SCALES))
        check_flag("as_released", self.as_released)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        p, note = min(self.order, 2), "limited by the first steps" if self.order == 3 else ""
        if self.as_released and self.order > 1:
            p, note = 1, "limited by its Riemann sums, whose error is a hundredth of a step of order 1"
        return Order(deterministic=p, note=note) if self.noise_scale == "ode" else Order(weak=p, note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if self.noise_scale != "ode":
            refuse_upwards(self, times)
        rows: list[Row] = []
        history: list[tuple[int, float]] = []  # (row, rho) of the outputs, newest first
        levels = process.levels(times, rates=False)
        rhos, which = [at.rho for at in levels], regular_steps(levels)
        gain = NOISE_SCALES[self.noise_scale].log_gain
        gains = {k: gain(rhos[k]) for k in sorted({k for n in which for k in (n, n + 1)})}
        exact = {} if self.as_released else self._exact(levels, rhos, gains, which)
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if n not in gains or n + 1 not in gains:
                rows.append(self._limit(n, s, t))
                continue
            i = len(rows)
            history = [(i, rhos[n]), *history[: self.order - 1]]
            log_kept = self._falling(gains[n + 1] - gains[n], rhos[n], rhos[n + 1])
            ratio = math.exp(log_kept - (t.half_log_snr - s.half_log_snr))  # phi_t / phi_s
            if self.as_released:
                weights = self._released(s, t, ratio, [rho for _, rho in history])
            else:
                weights = exact[n] if len(history) > 1 else [1 - ratio]
            ages, outputs = [i - row for row, _ in history], [t.alpha * w for w in weights]
            std = t.sigma * math.sqrt(-math.expm1(2 * log_kept))
            rows.append(commit_history(n, s, DATA, t.alpha / s.alpha * ratio, ages, outputs, std))
        return rows

    def _limit(self, n: int, s: Level, t: Level) -> Row:
        """A step that touches sigma = 0 or alpha = 0: order 1."""
        if s.alpha > 0 or t.sigma == 0:
            return limit_row(n, s, t, "data", 0.0)
        scale = NOISE_SCALES[self.noise_scale]
        log_kept = self._falling(scale.log_gain(t.rho) - scale.top, math.inf, t.rho)
        std = t.sigma * math.sqrt(-math.expm1(2 * log_kept))
        return commit(n, s, DATA, t.sigma / s.sigma * math.exp(log_kept), {0: t.alpha}, {0: std})

    def _falling(self, found: float, high: float, low: float) -> float:
        """log(G(low) / G(high)), if it is at most 0."""
        if found > 0:
            raise OptionError(
                "noise_scale",
                got=f"{self.noise_scale!r} from sigma / alpha = {high:.6g} to {low:.6g}",
                expected="phi / rho that does not fall as rho grows",
                fix="Begin at less noise, or use another noise_scale such as 'sde_5'.",
            )
        return found

    def _exact(
        self, levels: list[Level], rhos: list[float], gains: dict[int, float], which: list[int]
    ) -> dict[int, list[float]]:
        """The weights of the predictions of these steps, from the integrals of (rho - rho_s)^k / (rho_t - rho_s)^k with
        the weight of the prediction, k < order: of all steps at once."""
        if not which or self.order == 1:
            return {}
        phi = NOISE_SCALES[self.noise_scale]
        lengths = [levels[n + 1].half_log_snr - levels[n].half_log_snr for n in which]
        rules = [_rule(max(1, math.ceil(abs(h) / _PANEL))) for h in lengths]
        counts = [len(points) for points, _ in rules]
        u, w = (np.concatenate([rule[i] for rule in rules]) for i in (0, 1))
        ends = ([values[n + k] for n in which] for values, k in ((rhos, 0), (rhos, 1), (gains, 1)))
        h, start, end, last = (np.repeat(np.array(v), counts) for v in (lengths, *ends))
        rest = (1 - u) * h  # lambda_t - lambda
        rho = end * np.exp(rest)
        gain, slope = phi.arrays(rho)
        moment = h * w * (1 + slope) * np.exp(last - gain - rest)
        place, first = (rho - start) / (end - start), np.cumsum([0, *counts[:-1]])
        found = []
        for _ in range(self.order):
            found.append(np.add.reduceat(moment, first))
            moment = moment * place
        return history_weights(rhos, which, found, self.order)

    def _released(self, s: Level, t: Level, ratio: float, nodes: list[float]) -> list[float]:
        """As released: amounts of the prediction, of its one-sided difference, and of the difference of two of those.

        With phi_t / phi at equal steps of rho, the nearer end of each: a left Riemann sum.
        """
        gain = NOISE_SCALES[self.noise_scale].log_gain
        d, width = t.rho - s.rho, (s.rho - t.rho) / _RELEASED_POINTS
        points = [t.rho + k * width for k in range(_RELEASED_POINTS)]
        inverse = [t.rho / r * math.exp(gain(t.rho) - gain(r)) for r in points]
        parts = [(1 - ratio, [1.0])]
        if len(nodes) > 1:
            slope = 1 / (nodes[0] - nodes[1])
            parts.append((d + width * math.fsum(inverse), [slope, -slope]))
        if len(nodes) > 2:
            before, half = 1 / (nodes[1] - nodes[2]), 2 / (nodes[0] - nodes[2])
            moment = math.fsum(v * (r - s.rho) for v, r in zip(inverse, points, strict=True))
            difference = [half * slope, -half * (slope + before), half * before]
            parts.append((d**2 / 2 + width * moment, difference))
        weights = [0.0] * len(nodes)
        for amount, difference in parts:
            for j, v in enumerate(difference):
                weights[j] += amount * v
        return weights
