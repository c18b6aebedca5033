"""The sampler of Karras et al.: Heun's method in rho, with optional churn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import NOISE, Combination, Row, combine, commit, stage
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import ddim_row
from sdekit.solvers.options import check_not_negative

__all__ = ["EDMHeun"]


@register("edm_heun", aliases=("edm",))
@dataclass(frozen=True)
class EDMHeun(PlanSolver):
    """Heun's method in rho; with churn each step begins by raising the noise from rho to rho (1 + gamma).

    gamma = min(churn / steps, sqrt(2) - 1) where s_min <= rho <= s_max, cut so that the raised level stays inside the
    process's domain. The kick x <- (alpha_hat / alpha) x + alpha_hat sqrt(rho_hat^2 - rho^2) s_noise z preserves the
    marginals for s_noise = 1, so the weak order is the flow's. A step to sigma = 0 or from alpha = 0 is DDIM's.

    Args:
        churn: S_churn of the paper, in units of steps; 0 is deterministic.
        s_min, s_max: the range of rho in which noise is added.
        s_noise: the factor of the added noise.
    """

    family: ClassVar[str] = "Runge-Kutta"
    reference: ClassVar[str] = (
        "Karras, Aittala, Aila and Laine, Elucidating the Design Space of Diffusion-Based Generative Models, "
        "NeurIPS 2022, Algorithms 1 and 2"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("churn", "s_min", "s_noise"):
            check_not_negative(name, getattr(self, name))
        if self.s_max != math.inf:
            finite_number("s_max", self.s_max)
        if not self.s_max > self.s_min:
            raise OptionError(
                "s_max", got=repr(self.s_max), expected=f"more than s_min = {self.s_min}", fix="Raise it."
            )

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.churn > 0 and self.s_noise != 1:
            return Order(note="none: with s_noise other than 1 the variance is off however many steps are taken")
        note = "order 1 on a step from alpha = 0 or to sigma = 0"
        return Order(deterministic=2, note=note) if self.churn == 0 else Order(weak=2, note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        raised = self._raised(process, levels)
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            hat = raised[n]
            kick = self._kick(s, hat) if hat is not s else None
            if 0 in (hat.alpha, t.alpha, t.sigma):
                rows.append(replace(ddim_row(n, hat, t), kick=kick))
                continue
            a, b = t.alpha / hat.alpha, t.alpha * (t.rho - hat.rho)
            rows.append(stage(n, hat, NOISE, a, {0: b}, kick=kick))
            rows.append(commit(n, t, NOISE, a, {0: b / 2, 1: b / 2}))
        return rows

    def _raised(self, process: AffineSDE, levels: list[Level]) -> list[Level]:
        """The level at which each step's flow begins."""
        gamma = min(self.churn / (len(levels) - 1), math.sqrt(2) - 1)
        highest = float(process.rho(process.domain[1])) if math.isfinite(process.domain[1]) else math.inf
        goals = [
            min(s.rho * (1 + gamma), highest) if gamma and self.s_min <= s.rho <= self.s_max else s.rho
            for s in levels[:-1]
        ]
        moved = [i for i, s in enumerate(levels[:-1]) if s.rho < goals[i] < math.inf]
        found = dict(zip(moved, process.levels_at([-math.log(goals[i]) for i in moved]), strict=True)) if moved else {}
        return [found.get(i, s) for i, s in enumerate(levels[:-1])]

    def _kick(self, s: Level, hat: Level) -> Combination:
        std = hat.alpha * math.sqrt((hat.rho - s.rho) * (hat.rho + s.rho)) * self.s_noise
        return combine(hat.alpha / s.alpha, None, {0: std})
