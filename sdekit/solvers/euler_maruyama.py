"""Euler-Maruyama: on the reverse SDE of an affine process as a plan, on any Ito SDE as a stepper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.plan import Row, commit
from sdekit.reverse import drift_weights, stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Increments, NoiseOrder, Order, PlanSolver, Stepper, StepResult, register
from sdekit.solvers.exponential import limit_row

__all__ = ["EulerMaruyama"]


@register("euler_maruyama", aliases=("em",))
@dataclass(frozen=True)
class EulerMaruyama(PlanSolver, Stepper):
    """x_t = x_s + h drift(s, x_s) + diffusion(s, x_s) (W_t - W_s), h = t - s.

    On a bare Model it solves the reverse SDE of stochasticity 1. A step from alpha = 0, where g is infinite, takes the
    limit instead: x_t = alpha_t data + sigma_t z.
    """

    family: ClassVar[str] = "Euler-Maruyama"
    reference: ClassVar[str] = (
        "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 10.2"
    )
    default_stochasticity: ClassVar[float] = 1.0

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(
            deterministic=1,
            weak=1,
            strong=1,
            note="strong 1/2 where the diffusion depends on the state",
            noise={"additive": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
        )

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        rows = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            tau, h = stochasticity_at(stochasticity, s.t), t.t - s.t
            if s.alpha == 0 and tau > 0:  # g is infinite there
                rows.append(limit_row(n, s, t, "data", tau))
                continue
            weights = drift_weights(s, tau)
            # g^2 = 2 sigma (g^2 / (2 sigma)).
            std = tau * math.sqrt(2 * s.sigma * s.half_variance_rate * abs(h)) if tau else 0.0
            rows.append(commit(n, s, weights, 1.0, {0: h}, {0: std}))
        return rows

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return tuple(times)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        moved = x + (t1 - t0) * dynamics.drift(t0, x)
        return StepResult(moved if increments is None else moved + dynamics.diffuse(t0, x, increments.W))
