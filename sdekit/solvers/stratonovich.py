"""Methods for Stratonovich SDEs that take increments of the path alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdekit.solvers.base import NoiseOrder, Order, register
from sdekit.solvers.path_runge_kutta import PathRungeKutta, PathTableau

__all__ = ["EulerHeun", "StochasticHeun", "StochasticMidpoint"]

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
