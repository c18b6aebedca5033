"""Strong order 3/2 for additive noise: SRA1 and ShARK, on reverse SDEs as plans, on any additive SDE as steppers.

Both take the increment W and the space-time Levy area H of each step; W / 2 + H is the mean of B - B(t0) over it. In a
plan stream 0 is W and stream 1 is H, each divided by its standard deviation: sqrt(h) and sqrt(h / 12). A step from
alpha = 0, where g is infinite, takes the limit x_t = alpha_t data + sigma_t z instead.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.affine import AffineSDE, Level
from sdekit.errors import InterfaceError
from sdekit.plan import Row, combine, commit, stage
from sdekit.reverse import drift_weights, stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Increments, NoiseOrder, Order, PlanSolver, Stepper, StepResult, register
from sdekit.solvers.exponential import limit_row

__all__ = ["SRA1", "ShARK"]

_AREA = 1 / math.sqrt(12)  # the standard deviation of H in units of sqrt(h)


class _Additive(PlanSolver, Stepper):
    """Two drifts a step, at s and at s + place (t - s)."""

    family: ClassVar[str] = "stochastic Runge-Kutta"
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise={"additive": NoiseOrder(1.5, 2)})
    default_stochasticity: ClassVar[float] = 1.0
    needs: ClassVar[str] = "additive"
    uses_area: ClassVar[bool] = True
    calls_per_step: int = 2
    place: ClassVar[float]

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        inner = process.levels([s + self.place * (t - s) for s, t in itertools.pairwise(times)])
        taus = [stochasticity_at(stochasticity, t) for t in times]
        diffusion = process.diffusion_coefficient(torch.tensor(times, dtype=torch.float64)).tolist()
        g = [k * v if k else 0.0 for k, v in zip(taus, diffusion, strict=True)]
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if s.alpha == 0 and taus[n] > 0:
                rows.append(limit_row(n, s, t, "data", taus[n]))
                continue
            root = math.sqrt(abs(t.t - s.t))
            weights = drift_weights(s, stochasticity), drift_weights(inner[n], stochasticity)
            rows += self._step(n, s, inner[n], t.t - s.t, weights, g[n] * root, g[n + 1] * root)
        return rows

    @abstractmethod
    def _step(
        self,
        n: int,
        s: Level,
        inner: Level,
        h: float,
        weights: tuple[tuple[float, float], tuple[float, float]],
        first: float,
        last: float,
    ) -> list[Row]:
        """The two rows of a step of length h; `first` and `last` are g sqrt(|h|) at its ends."""

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return tuple(times)


def _area(increments: Increments) -> Tensor:
    if increments.H is None:
        raise InterfaceError(
            "increments", got="W alone", expected="W and the space-time Levy area H", fix="Pass Increments(W, H)."
        )
    return increments.H


@register("sra1")
@dataclass(frozen=True)
class SRA1(_Additive):
    """With M = W / 2 + H, h = t - s:

        u   = x + 3/4 h F(s, x) + 3/2 g_t M
        x_t = x + h (F(s, x) / 3 + 2/3 F(s + 3/4 h, u)) + g_t (W - M) + g_s M.

    On a bare Model it solves the reverse SDE of stochasticity 1.
    """

    reference: ClassVar[str] = "Roessler, SIAM J. Numer. Anal. 48 (2010), 922-952, SRA1"
    place: ClassVar[float] = 0.75

    def _step(self, n: int, s: Level, inner: Level, h: float, weights: Any, first: float, last: float) -> list[Row]:
        mean = {0: 0.75 * last, 1: 1.5 * _AREA * last}
        ends = {0: 0.5 * (first + last), 1: _AREA * (first - last)}
        return [
            stage(n, s, weights[0], 1.0, {0: 0.75 * h}, mean),
            commit(n, inner, weights[1], 1.0, {1: h / 3, 0: 2 * h / 3}, ends),
        ]

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        f = dynamics.drift(t0, x)
        point = x + 0.75 * h * f
        if increments is None:
            return StepResult(x + h * (f / 3 + dynamics.drift(t0 + 0.75 * h, point) * (2 / 3)))
        w, mean = increments.W, increments.W / 2 + _area(increments)
        g = dynamics.diffusion(t1, x)
        last = dynamics.product(g, mean)
        f = f / 3 + dynamics.drift(t0 + 0.75 * h, point + 1.5 * last) * (2 / 3)
        return StepResult(x + h * f + (dynamics.product(g, w) - last + dynamics.diffuse(t0, x, mean)))


@register("shark")
@dataclass(frozen=True)
class ShARK(_Additive):
    """With y = x + g_s H, h = t - s:

        u   = y + 5/6 (h F(s, y) + g_s W)
        x_t = x + h (2/5 F(s, y) + 3/5 F(s + 5/6 h, u)) + (g_s + g_t) W / 2 + (g_s - g_t) H.

    On a bare Model it solves the reverse SDE of stochasticity 1.
    """

    reference: ClassVar[str] = "Foster, dos Reis and Strange, arXiv:2210.17543, eq. 6.1"
    place: ClassVar[float] = 5 / 6

    def _step(self, n: int, s: Level, inner: Level, h: float, weights: Any, first: float, last: float) -> list[Row]:
        kick = combine(1.0, None, {1: _AREA * first}) if first else None
        # The base is y = x + g_s H from the kick on.
        ends = {0: 0.5 * (first + last), 1: -_AREA * last}
        return [
            stage(n, s, weights[0], 1.0, {0: h * 5 / 6}, {0: first * 5 / 6}, kick=kick),
            commit(n, inner, weights[1], 1.0, {1: 0.4 * h, 0: 0.6 * h}, ends),
        ]

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        if increments is None:
            f = dynamics.drift(t0, x)
            return StepResult(x + h * (0.4 * f + 0.6 * dynamics.drift(t0 + h * 5 / 6, x + h * f * (5 / 6))))
        w, area = increments.W, _area(increments)
        g, last = dynamics.diffusion(t0, x), dynamics.diffusion(t1, x)
        point, first = x + dynamics.product(g, area), dynamics.product(g, w)
        f = dynamics.drift(t0, point)
        slope = 0.4 * f + 0.6 * dynamics.drift(t0 + h * 5 / 6, point + (h * f + first) * (5 / 6))
        noise = (first + dynamics.product(last, w)) / 2 + (point - x) - dynamics.product(last, area)
        return StepResult(x + h * slope + noise)
