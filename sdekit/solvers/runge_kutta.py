"""Explicit Runge-Kutta methods: on the probability flow in rho or in t as plans, on any ODE as steppers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError, suggest
from sdekit.plan import NOISE, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.solvers import tableau
from sdekit.solvers.base import Increments, Order, PlanSolver, Stepper, StepResult, register
from sdekit.solvers.ddim import ddim_row
from sdekit.solvers.tableau import Tableau

__all__ = ["RK4", "Euler", "Heun", "Kutta3", "Midpoint", "Ralston", "RungeKutta"]


@dataclass(frozen=True)
class RungeKutta(PlanSolver, Stepper):
    """An explicit Runge-Kutta method.

    In rho = sigma / alpha the flow of y = x / alpha is dy/drho = noise, so that a step from s to t with h = rho_t -
    rho_s is x_t = (alpha_t / alpha_s) x_s + alpha_t h sum b_i E_i with E_i = noise at rho_s + c_i h. In t it is the
    textbook form on dx/dt = velocity. A bare ODE is always solved in t.

    Where alpha = 0 at an end (rho infinite), and at sigma_t = 0 where a stage would fall there, the step is DDIM's.

    Args:
        clock: "rho" or "t", for affine processes.
    """

    tableau: ClassVar[Tableau]
    family: ClassVar[str] = "Runge-Kutta"
    needs: ClassVar[str] = "ode"
    fixed_stochasticity: ClassVar[float] = 0.0

    clock: str = "rho"

    def __post_init__(self) -> None:
        if self.clock not in ("rho", "t"):
            raise OptionError(
                "clock", got=repr(self.clock), expected="'rho' or 't'", fix=suggest(str(self.clock), ("rho", "t"))
            )

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return len(self.tableau.c)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=self.tableau.order, note="order 1 on a step from alpha = 0 or to sigma = 0")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        inner = self._inner_levels(process, levels)
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if self.clock == "t":
                rows += self._rows_in_t(n, s, t, inner[n])
            elif 0 in (s.alpha, t.alpha) or (t.sigma == 0 and 1.0 in self.tableau.c):
                rows.append(ddim_row(n, s, t))
            else:
                rows += self._rows_in_rho(n, s, t, inner[n])
        return rows

    def _inner_levels(self, process: AffineSDE, levels: list[Level]) -> list[list[Level]]:
        """For each step the process at the stages, ends taken from the grid itself and inner ones computed at once."""
        fractions = [c for c in self.tableau.c if c not in (0.0, 1.0)]
        pairs = [(s, t, c) for s, t in itertools.pairwise(levels) for c in fractions]
        if self.clock == "t":
            computed = process.levels([s.t + c * (t.t - s.t) for s, t, c in pairs]) if pairs else []
        else:
            computed = process.levels_at([-math.log(s.rho + c * (t.rho - s.rho)) for s, t, c in pairs]) if pairs else []
        found = iter(computed)
        return [
            [s if c == 0.0 else t if c == 1.0 else next(found) for c in self.tableau.c]
            for s, t in itertools.pairwise(levels)
        ]

    def _rows_in_rho(self, n: int, s: Level, t: Level, at: list[Level]) -> list[Row]:
        a, b, h = self.tableau.a, self.tableau.b, t.rho - s.rho
        rows = []
        for i in range(len(b) - 1):
            nxt = at[i + 1]
            outputs = {i - j: nxt.alpha * h * a[i + 1][j] for j in range(i + 1)}
            rows.append(stage(n, at[i], NOISE, nxt.alpha / s.alpha, outputs))
        last = len(b) - 1
        rows.append(
            commit(n, at[last], NOISE, t.alpha / s.alpha, {last - j: t.alpha * h * b[j] for j in range(last + 1)})
        )
        return rows

    def _rows_in_t(self, n: int, s: Level, t: Level, at: list[Level]) -> list[Row]:
        a, b, h = self.tableau.a, self.tableau.b, t.t - s.t
        rows = []
        for i in range(len(b) - 1):
            outputs = {i - j: h * a[i + 1][j] for j in range(i + 1)}
            rows.append(stage(n, at[i], (at[i].alpha_rate, at[i].sigma_rate), 1.0, outputs))
        last = len(b) - 1
        weights = (at[last].alpha_rate, at[last].sigma_rate)
        rows.append(commit(n, at[last], weights, 1.0, {last - j: h * b[j] for j in range(last + 1)}))
        return rows

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h, slopes = t1 - t0, []
        for c, row in zip(self.tableau.c, self.tableau.a, strict=True):
            point = x
            for a, k in zip(row, slopes, strict=True):
                if a:
                    point = point + (h * a) * k
            slopes.append(dynamics.drift(t1 if c == 1.0 else t0 + c * h, point))
        for b, k in zip(self.tableau.b, slopes, strict=True):
            if b:
                x = x + (h * b) * k
        return StepResult(x)


@register("euler", aliases=("k_euler", "flow_euler"))
@dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method; in rho it is DDIM."""

    tableau: ClassVar[Tableau] = tableau.EULER
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1"


@register("midpoint")
@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """The explicit midpoint rule (Runge, 1895)."""

    tableau: ClassVar[Tableau] = tableau.MIDPOINT
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1"


@register("heun", aliases=("k_heun", "flow_heun"))
@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method, the explicit trapezoidal rule; in rho it is the sampler that Karras et al. (2022) recommend."""

    tableau: ClassVar[Tableau] = tableau.HEUN
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1"


@register("ralston")
@dataclass(frozen=True)
class Ralston(RungeKutta):
    """The method of two stages and order 2 with the least bound on its error (Ralston, 1962)."""

    tableau: ClassVar[Tableau] = tableau.RALSTON
    reference: ClassVar[str] = "Ralston, Runge-Kutta methods with minimum error bounds, Math. Comp. 16 (1962)"


@register("kutta3")
@dataclass(frozen=True)
class Kutta3(RungeKutta):
    """The method of Kutta (1901) of three stages; in rho it is DEIS's rho3Kutta."""

    tableau: ClassVar[Tableau] = tableau.KUTTA3
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1"


@register("rk4")
@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical method of Kutta (1901)."""

    tableau: ClassVar[Tableau] = tableau.RK4
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.1, Table 1.2"
