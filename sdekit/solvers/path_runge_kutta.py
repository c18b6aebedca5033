"""Runge-Kutta methods driven by a Brownian path: tableaus, and the step that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError
from sdekit.solvers.base import Increments, Stepper, StepResult

__all__ = ["PathRungeKutta", "PathTableau", "area_of"]

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PathTableau:
    """The coefficients of

        z_i = x + sum_{j < i} (a_ij h f_j + w_ij g_j W + h_ij g_j H)
        x_t = x + sum_j (b_j h f_j + bw_j g_j W + bh_j g_j H),

    f_j and g_j the drift and the diffusion at (s + c_j h, z_j), h = t - s, W and H the increments of the step.

    Args:
        c: the places of the stages.
        a, w, h: row i has i entries. Row i of `a` and of `w` may differ: a stage may lie at another place in the path
            than in the drift.
        b, bw, bh: weights.
        error: the weights (of f, g W and g H) of an error estimate, or None.

    Raises:
        OptionError: for rows of other lengths, or sums of b and bw that are not 1, of bh that is not 0.
    """

    c: tuple[float, ...]
    a: Rows
    w: Rows
    h: Rows
    b: tuple[float, ...]
    bw: tuple[float, ...]
    bh: tuple[float, ...]
    error: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        stages = len(self.c)
        weights = (self.b, self.bw, self.bh, *(self.error or ()))
        fits = all(len(rows) == stages and all(len(row) == i for i, row in enumerate(rows)) for rows in self._rows())
        sums = [math.fsum(v) - s for v, s in zip(weights, (1, 1, 0, 0, 0, 0), strict=False)]
        if not fits or any(len(v) != stages for v in weights) or max(abs(s) for s in sums) > 1e-14:
            raise OptionError(
                "tableau",
                got=f"{self}, with sums of weights off by {sums}",
                expected="row i with i entries, and weights that add up to 1, 1 and 0; those of the error to 0",
                fix="Correct it.",
            )

    def _rows(self) -> tuple[Rows, Rows, Rows]:
        return self.a, self.w, self.h

    def drifts(self) -> list[bool]:
        """Which stages need the drift: those that something else is made of."""
        return self._used((self.b,), (self.a,), 0)

    def diffusions(self) -> list[bool]:
        """Which stages need the diffusion."""
        return self._used((self.bw, self.bh), (self.w, self.h), 1)

    def _used(self, weights: tuple[tuple[float, ...], ...], rows: tuple[Rows, ...], first: int) -> list[bool]:
        errors = () if self.error is None else self.error[:1] if first == 0 else self.error[1:]
        stages = range(len(self.c))
        return [
            any(v[j] for v in (*weights, *errors)) or any(table[i][j] for table in rows for i in stages if i > j)
            for j in stages
        ]


@dataclass(frozen=True)
class PathRungeKutta(Stepper):
    """A method given by its tableau."""

    tableau: ClassVar[PathTableau]
    calculus: ClassVar[str] = "stratonovich"
    default_stochasticity: ClassVar[float] = 1.0

    @property
    def uses_area(self) -> bool:  # type: ignore[override]
        return any(self.tableau.bh) or any(any(row) for row in self.tableau.h)

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return sum(self.tableau.drifts())

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        table, h = self.tableau, t1 - t0
        slopes: list[Any] = []
        kicks: list[Any] = []
        areas: list[Any] = []
        for j, (drift, diffusion) in enumerate(zip(table.drifts(), table.diffusions(), strict=True)):
            noise = increments if diffusion else None
            t = t1 if table.c[j] == 1 else t0 + table.c[j] * h
            parts = ((table.a[j], slopes), (table.w[j], kicks), (table.h[j], areas))
            z = _add(x, *parts) if drift or noise is not None else x
            slopes.append(h * dynamics.drift(t, z) if drift else None)
            g = None if noise is None else dynamics.diffusion(t, z)
            kicks.append(None if noise is None else dynamics.product(g, noise.W))
            areas.append(None if noise is None or not self._area(j) else dynamics.product(g, area_of(noise)))
        new = _add(x, (table.b, slopes), (table.bw, kicks), (table.bh, areas))
        if table.error is None or not getattr(dynamics, "estimates", True):
            return StepResult(new)
        return StepResult(new, _add(torch.zeros_like(x), *zip(table.error, (slopes, kicks, areas), strict=True)))

    def _area(self, j: int) -> bool:
        """Whether stage j's product with H is used."""
        table = self.tableau
        weights = (table.bh, *((table.error[2],) if table.error else ()))
        return any(v[j] for v in weights) or any(row[j] for row in table.h if len(row) > j)


def area_of(increments: Increments) -> Tensor:
    """H. Raises InterfaceError where a caller of `step` gave none."""
    if increments.H is None:
        raise InterfaceError(
            "increments",
            got="no space-time Levy area H",
            expected="Increments(W, H)",
            fix="Solve by sdekit.solve, which draws H where the solver's uses_area is True.",
        )
    return increments.H


def _add(x: Tensor, *parts: tuple[tuple[float, ...], list[Any]]) -> Tensor:
    """x and what each weight puts in; what was not computed has no part in it."""
    for weights, values in parts:
        for weight, value in zip(weights, values, strict=False):
            if weight and value is not None:
                x = x + weight * value
    return x
