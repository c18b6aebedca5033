"""Stochastic Runge-Kutta methods of strong order 3/2 from tableaus, on any Ito SDE with noise of their class.

A step follows its tableau's recipe: each stage calls drift and diffusion at most once, and not at all where the value
is known already or has no weight. See `sdekit.solvers.stochastic_tableau` for the formulas.

Downwards in time h = t1 - t0 < 0 multiplies the drift and places the stages, |h| scales all that comes of the noise.

StepResult.error, like x, estimates the error of the step after the natural embedding of Rackauckas and Nie (Discrete
Contin. Dyn. Syst. B 22, 2017, 2731-2761): it is |E_D| + |E_N| with

    E_D = h (sum_i alpha_i f_i - f_1)    and E_N the terms of x_1 in I and I_111 (for additive noise that in I).

x_1 - E_D - E_N is of strong order 1. So the estimate falls as |h|^(3/2), and as h^2 where there is no noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.calculus import columns_times
from sdekit.errors import InterfaceError
from sdekit.solvers import stochastic_tableau
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.solvers.stochastic_tableau import Recipe, SRATableau, SRITableau, Terms

__all__ = ["SOSRA", "SOSRA2", "SOSRI", "SOSRI2", "SRA2", "SRA3", "SRIW1", "SRIW2", "StochasticRungeKutta"]


class _Noise(NamedTuple):
    """The variables of a step and how a diffusion multiplies them.

    Attributes:
        mean: W / 2 + H, that is I_10 / |h|; shaped to multiply the diffusion entry by entry, unless `matrix`.
        weights: W, I_11 / sqrt|h|, `mean` and I_111 / |h|; the second and the last are W where no weight takes them.
        column: general noise with one column, which is used as one like x.
        matrix: general noise with several.
    """

    mean: Tensor
    weights: tuple[Tensor, ...]
    column: bool
    matrix: bool

    def diffusion(self, dynamics: Any, t: float, x: Tensor) -> Tensor:
        g = dynamics.diffusion(t, x)
        return g[..., 0] if self.column else g

    def add(self, x: Tensor, g: Tensor, w: Tensor, scale: float = 1.0) -> Tensor:
        """x + scale g w."""
        if self.matrix:
            return torch.add(x, columns_times(g, w), alpha=scale)
        return torch.addcmul(x, g, w, value=scale)


def _noise(recipe: Recipe, general: bool, length: float, x: Tensor, increments: Increments) -> _Noise:
    w, area = increments.W, increments.H
    if area is None:
        raise InterfaceError(
            "increments", got="W alone", expected="W and the space-time Levy area H", fix="Pass Increments(W, H)."
        )
    column = general and w.shape[-1] == 1
    if column:
        w, area = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (w, area))
    mean = torch.add(area, w, alpha=0.5)
    double = triple = w
    if any(weights[1] or weights[3] for weights, _ in recipe.noises):
        square = w * w
        double = square * (0.5 / math.sqrt(length)) - 0.5 * math.sqrt(length)
        triple = w * (square * (1 / (6 * length)) - 0.5)
    return _Noise(mean, (w, double, mean, triple), column, general and not column)


def _plus(x: Tensor, scale: float, terms: Terms, values: Mapping[int, Tensor]) -> Tensor:
    """x + scale sum of coefficient times value."""
    for coefficient, j in terms:
        x = torch.add(x, values[j], alpha=scale * coefficient)
    return x


@dataclass(frozen=True)
class StochasticRungeKutta(Stepper):
    """A method of strong order 3/2 by its tableau; where there is no noise, the Runge-Kutta method of a0 and alpha.

    Sub-classes set `tableau`, of either kind, and `declared`.
    """

    tableau: ClassVar[SRATableau | SRITableau]
    family: ClassVar[str] = "stochastic Runge-Kutta"
    default_stochasticity: ClassVar[float] = 1.0
    uses_area: ClassVar[bool] = True

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return self.tableau.recipe.drift_calls

    @property
    def places(self) -> tuple[float, float]:  # type: ignore[override]
        return self.tableau.recipe.places

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h, recipe = t1 - t0, self.tableau.recipe
        general = increments is not None and dynamics.noise_type == "general"
        noise = None if increments is None else _noise(recipe, general, abs(h), x, increments)
        root = math.sqrt(abs(h))
        f: dict[int, Tensor] = {}
        g: dict[int, Tensor] = {}
        for i, (drift, diffusion) in enumerate(recipe.stages):
            if drift is not None:
                point = _plus(x, h, drift.drifts, f)
                if noise is not None:
                    for b, j in drift.noises:
                        point = noise.add(point, g[j], noise.mean, b)
                f[i] = dynamics.drift(_place(t0, t1, drift.place), point)
            if diffusion is not None and noise is not None:
                point = x
                if not noise.matrix:  # then g ignores x
                    point = _plus(_plus(x, h, diffusion.drifts, f), root, diffusion.noises, g)
                g[i] = noise.diffusion(dynamics, _place(t0, t1, diffusion.place), point)
        if not getattr(dynamics, "estimates", True):
            return StepResult(_end(recipe, h, x, f, g, noise))
        return _finish(recipe, h, x, f, g, noise)


def _place(t0: float, t1: float, place: float) -> float:
    return t1 if place == 1.0 else t0 + place * (t1 - t0)


def _end(
    recipe: Recipe, h: float, x: Tensor, f: Mapping[int, Tensor], g: Mapping[int, Tensor], noise: _Noise | None
) -> Tensor:
    """The new state alone."""
    x = _plus(x, h, recipe.drifts, f)
    if noise is not None:
        for weights, j in recipe.noises:
            total = _combined(weights, noise.weights)
            x = x if total is None else noise.add(x, g[j], total)
    return x


def _finish(
    recipe: Recipe, h: float, x: Tensor, f: Mapping[int, Tensor], g: Mapping[int, Tensor], noise: _Noise | None
) -> StepResult:
    """The new state from all drifts and diffusions, and the estimate of the error."""
    coefficient, first = recipe.drifts[0]
    slope = _plus(f[first] * coefficient, 1.0, recipe.drifts[1:], f)
    error = (slope - f[0]).abs() * abs(h)
    x = torch.add(x, slope, alpha=h)
    if noise is None:
        return StepResult(x, error)
    last = torch.zeros_like(x)
    for weights, j in recipe.noises:
        total = _combined(weights[:2], noise.weights[:2])
        x = x if total is None else noise.add(x, g[j], total)
        total = _combined(weights[2:], noise.weights[2:])
        last = last if total is None else noise.add(last, g[j], total)
    return StepResult(x + last, error + last.abs())


def _combined(weights: Sequence[float], variables: Sequence[Tensor]) -> Tensor | None:
    """The sum of weight times variable; None where all weights are zero."""
    total: Tensor | None = None
    for weight, variable in zip(weights, variables, strict=True):
        if weight:
            total = variable * weight if total is None else torch.add(total, variable, alpha=weight)
    return total


_ADDITIVE = {"additive": NoiseOrder(1.5, 2)}
_ITO = {**_ADDITIVE, "scalar": NoiseOrder(1.5, 1.5), "diagonal": NoiseOrder(1.5, 1.5)}
_ROESSLER = "Roessler, SIAM J. Numer. Anal. 48 (2010), 922-952"
_OPTIMISED = "Rackauckas and Nie, arXiv:1804.04344"


class _Additive(StochasticRungeKutta):
    """For a diffusion without x, of any shape."""

    needs: ClassVar[str] = "additive"


@register("sra2")
@dataclass(frozen=True)
class SRA2(_Additive):
    """Roessler's SRA2: two drifts; the diffusion at t0 + h/3 and t1."""

    tableau: ClassVar[SRATableau] = stochastic_tableau.SRA2
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ADDITIVE)
    reference: ClassVar[str] = f"{_ROESSLER}, SRA2"


@register("sra3")
@dataclass(frozen=True)
class SRA3(_Additive):
    """Roessler's SRA3: three drifts, of deterministic order 3; the diffusion at both ends."""

    tableau: ClassVar[SRATableau] = stochastic_tableau.SRA3
    declared: ClassVar[Order] = Order(deterministic=3, weak=2, strong=1.5, noise=_ADDITIVE)
    reference: ClassVar[str] = f"{_ROESSLER}, SRA3"


@register("sosra")
@dataclass(frozen=True)
class SOSRA(_Additive):
    """Stability-optimised, for additive noise: three drifts, three diffusions."""

    tableau: ClassVar[SRATableau] = stochastic_tableau.SOSRA
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ADDITIVE)
    reference: ClassVar[str] = f"{_OPTIMISED}, SOSRA"


@register("sosra2")
@dataclass(frozen=True)
class SOSRA2(_Additive):
    """Stability-optimised, for additive noise and stiffer drifts: three drifts, the diffusion at both ends."""

    tableau: ClassVar[SRATableau] = stochastic_tableau.SOSRA2
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ADDITIVE)
    reference: ClassVar[str] = f"{_OPTIMISED}, SOSRA2"


@register("sriw1", aliases=("srid1",))
@dataclass(frozen=True)
class SRIW1(StochasticRungeKutta):
    """Roessler's method for scalar and diagonal Ito noise: two drifts, four diffusions; the table srid1 of torchsde."""

    tableau: ClassVar[SRITableau] = stochastic_tableau.SRIW1
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ITO)
    reference: ClassVar[str] = f"{_ROESSLER}, class SRI"


@register("sriw2", aliases=("srid2",))
@dataclass(frozen=True)
class SRIW2(StochasticRungeKutta):
    """Roessler's method for scalar and diagonal Ito noise: three drifts, of deterministic order 3, and four diffusions.

    It is torchsde's srk, whose table is srid2.
    """

    tableau: ClassVar[SRITableau] = stochastic_tableau.SRIW2
    declared: ClassVar[Order] = Order(deterministic=3, weak=2, strong=1.5, noise=_ITO)
    reference: ClassVar[str] = f"{_ROESSLER}, class SRI"


@register("sosri")
@dataclass(frozen=True)
class SOSRI(StochasticRungeKutta):
    """Stability-optimised, for scalar and diagonal Ito noise: four drifts, four diffusions.

    It calls the drift at t0 - 0.042 h and t0 + 3.75 h, outside the step: where the drift does not exist beyond the end
    of the grid, the last steps must be short enough, or another method taken.
    """

    tableau: ClassVar[SRITableau] = stochastic_tableau.SOSRI
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ITO)
    reference: ClassVar[str] = f"{_OPTIMISED}, SOSRI"


@register("sosri2")
@dataclass(frozen=True)
class SOSRI2(StochasticRungeKutta):
    """Stability-optimised, for scalar and diagonal Ito noise and stiffer drifts: four drifts, four diffusions."""

    tableau: ClassVar[SRITableau] = stochastic_tableau.SOSRI2
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1.5, noise=_ITO)
    reference: ClassVar[str] = f"{_OPTIMISED}, SOSRI2"
