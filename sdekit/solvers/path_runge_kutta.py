"""Runge-Kutta methods driven by a Brownian path: tableaus, and the step that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError
from sdekit.solvers.base import Increments, Stepper, StepResult

__all__ = ["PathRungeKutta", "PathTableau", "area_of"]

Rows = tuple[tuple[float, ...], ...]
Terms = tuple[tuple[float, int], ...]


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

    @cached_property
    def recipe(self) -> Recipe:
        """The tableau without what is zero or needed by nothing."""
        errors = self.error or ((), (), ())
        used = [
            [
                any(v[j] for v in (weights, error) if v) or any(row[j] for row in rows[j + 1 :])
                for j in range(len(self.c))
            ]
            for weights, error, rows in zip((self.b, self.bw, self.bh), errors, self._rows(), strict=True)
        ]
        stages = [
            Stage(c, drift, kick, area, tuple(_terms(rows[j]) for rows in self._rows()))
            for j, (c, drift, kick, area) in enumerate(zip(self.c, *used, strict=True))
        ]
        weights = tuple(map(_terms, (self.b, self.bw, self.bh)))
        return Recipe(stages, weights, None if self.error is None else tuple(map(_terms, self.error)))


def _terms(weights: tuple[float, ...]) -> Terms:
    return tuple((weight, j) for j, weight in enumerate(weights) if weight)


class Stage(NamedTuple):
    """One stage: its place, whether f, g W and g H are needed there, and the terms of each that make its point."""

    c: float
    drift: bool
    kick: bool
    area: bool
    point: tuple[Terms, ...]


class Recipe(NamedTuple):
    """What a step does: its stages, and the terms of each kind that give the new state and the error."""

    stages: list[Stage]
    weights: tuple[Terms, ...]
    error: tuple[Terms, ...] | None


@dataclass(frozen=True)
class PathRungeKutta(Stepper):
    """A method given by its tableau: each stage calls drift and diffusion at most once, and only where needed."""

    tableau: ClassVar[PathTableau]
    calculus: ClassVar[str] = "stratonovich"
    default_stochasticity: ClassVar[float] = 1.0

    @property
    def uses_area(self) -> bool:  # type: ignore[override]
        return any(stage.area for stage in self.tableau.recipe.stages)

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return sum(stage.drift for stage in self.tableau.recipe.stages)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        recipe, h = self.tableau.recipe, t1 - t0
        values: tuple[dict[int, Tensor], ...] = ({}, {}, {})
        for j, stage in enumerate(recipe.stages):
            noise = increments if stage.kick or stage.area else None
            if not stage.drift and noise is None:
                continue
            t, z = t1 if stage.c == 1 else t0 + stage.c * h, _add(x, stage.point, values)
            if stage.drift:
                values[0][j] = h * dynamics.drift(t, z)
            if noise is not None:
                g = dynamics.diffusion(t, z)
                if stage.kick:
                    values[1][j] = dynamics.product(g, noise.W)
                if stage.area:
                    values[2][j] = dynamics.product(g, area_of(noise))
        new = _add(x, recipe.weights, values)
        if recipe.error is None or not getattr(dynamics, "estimates", True):
            return StepResult(new)
        return StepResult(new, _add(torch.zeros_like(x), recipe.error, values))


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


def _add(x: Tensor, terms: tuple[Terms, ...], values: tuple[dict[int, Tensor], ...]) -> Tensor:
    """x and the terms of each kind; what was not computed, as there is no noise, has no part in it."""
    for some, known in zip(terms, values, strict=True):
        for weight, j in some:
            if j in known:
                x = torch.add(x, known[j], alpha=weight)
    return x
