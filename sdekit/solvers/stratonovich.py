"""Methods for Stratonovich SDEs that take increments of the path alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.solvers.path_runge_kutta import PathRungeKutta, PathTableau

__all__ = ["EulerHeun", "ReversibleHeun", "StochasticHeun", "StochasticMidpoint"]

_ONE = ((), (0.0,))  # two stages, the second not moved


@register("euler_heun")
@dataclass(frozen=True)
class EulerHeun(PathRungeKutta):
    """Euler's method in the drift, the trapezoidal rule in the noise: with h = t - s, f and g at (s, x_s),

        z   = x_s + g W
        x_t = x_s + h f + 1/2 (g + g(t, z)) W.

    Strong order 1 where the noise commutes, 1/2 otherwise.
    """

    family: ClassVar[str] = "Stratonovich Runge-Kutta"
    reference: ClassVar[str] = "Rümelin, SIAM J. Numer. Anal. 19 (1982), 604-613"
    declared: ClassVar[Order] = Order(
        deterministic=1,
        weak=1,
        strong=1,
        noise={"commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 1.0), a=_ONE, w=((), (1.0,)), h=_ONE, b=(1.0, 0.0), bw=(0.5, 0.5), bh=(0.0, 0.0)
    )


@register("stochastic_heun")
@dataclass(frozen=True)
class StochasticHeun(PathRungeKutta):
    """The trapezoidal rule: with h = t - s, f and g at (s, x_s),

        z   = x_s + h f + g W
        x_t = x_s + 1/2 h (f + f(t, z)) + 1/2 (g + g(t, z)) W.

    Strong order 1 where the noise commutes, 1/2 otherwise. On an ODE it is Heun's method.
    """

    family: ClassVar[str] = "Stratonovich Runge-Kutta"
    reference: ClassVar[str] = "Rümelin, SIAM J. Numer. Anal. 19 (1982), 604-613"
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=2,
        strong=1,
        noise={"additive": NoiseOrder(1, 2), "commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 1.0), a=((), (1.0,)), w=((), (1.0,)), h=_ONE, b=(0.5, 0.5), bw=(0.5, 0.5), bh=(0.0, 0.0)
    )


@register("stochastic_midpoint")
@dataclass(frozen=True)
class StochasticMidpoint(PathRungeKutta):
    """The midpoint rule: with h = t - s, f and g at (s, x_s), m = (s + t) / 2,

        z   = x_s + 1/2 (h f + g W)
        x_t = x_s + h f(m, z) + g(m, z) W.

    Strong order 1 where the noise commutes, 1/2 otherwise. On an ODE it is the explicit midpoint rule.
    """

    family: ClassVar[str] = "Stratonovich Runge-Kutta"
    reference: ClassVar[str] = "Rümelin, SIAM J. Numer. Anal. 19 (1982), 604-613"
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=1,
        strong=1,
        noise={"commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 0.5), a=((), (0.5,)), w=((), (0.5,)), h=_ONE, b=(0.0, 1.0), bw=(0.0, 1.0), bh=(0.0, 0.0)
    )


class _Second(NamedTuple):
    """The second state z of a reversible step, and drift and diffusion there; g is None for an ODE."""

    z: Tensor
    f: Tensor
    g: Tensor | None


@register("reversible_heun")
@dataclass(frozen=True)
class ReversibleHeun(Stepper):
    """A step that can be undone exactly, by one call of drift and diffusion: with h = t - s and a second state z,

        z_t = 2 x_s - z_s + h f(s, z_s) + g(s, z_s) W
        x_t = x_s + 1/2 h (f(s, z_s) + f(t, z_t)) + 1/2 (g(s, z_s) + g(t, z_t)) W,

    where z = x at the start. `inverse` goes from (x_t, z_t) to (x_s, z_s), so that gradients need no stored states.

    Strong order 1 where the noise commutes, 1/2 otherwise: x - z changes its sign from step to step, so that what it
    does to x averages out. On an ODE it is of order 2.
    """

    family: ClassVar[str] = "Stratonovich Runge-Kutta"
    reference: ClassVar[str] = "Kidger, Foster, Li and Lyons, arXiv:2105.13493, algorithm 1"
    calculus: ClassVar[str] = "stratonovich"
    default_stochasticity: ClassVar[float] = 1.0
    calls_at_start: ClassVar[int] = 1
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=1,
        strong=1,
        noise={"commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h, w = t1 - t0, None if increments is None else increments.W
        here = _at(dynamics, t0, x, w) if state is None else state
        there = _at(dynamics, t1, _advance(dynamics, x, here, h, w), w)
        return StepResult(x + _mean(dynamics, here, there, h, w), None, there)

    def inverse(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> tuple[Tensor, Any]:
        """Undo the step from t0 to t1.

        Args:
            x, state: what the step returned.
            increments: what it took: those of the path from t0 to t1.

        Returns:
            The x and the state that it began with; for a first step, which is given None, the state that it made.
        """
        h, w = t1 - t0, None if increments is None else increments.W
        here = _at(dynamics, t0, _advance(dynamics, x, state, -h, None if w is None else -w), w)
        return x - _mean(dynamics, here, state, h, w), here


def _at(dynamics: Any, t: float, z: Tensor, w: Tensor | None) -> _Second:
    return _Second(z, dynamics.drift(t, z), None if w is None else dynamics.diffusion(t, z))


def _advance(dynamics: Any, x: Tensor, here: _Second, h: float, w: Tensor | None) -> Tensor:
    z = 2 * x - here.z + h * here.f
    return z if w is None else z + dynamics.product(here.g, w)


def _mean(dynamics: Any, here: _Second, there: _Second, h: float, w: Tensor | None) -> Tensor:
    """What x moves by: the trapezoidal rule on z."""
    moved = 0.5 * h * (here.f + there.f)
    if w is None or here.g is None or there.g is None:
        return moved
    return moved + 0.5 * (dynamics.product(here.g, w) + dynamics.product(there.g, w))
