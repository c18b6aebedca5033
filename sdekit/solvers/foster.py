"""Methods that take the space-time Levy area H beside the increment W: of the additive, commutative and general noise.

W / 2 + H is the mean of B - B(t0) over the step: a stage moved by it stands where the path is on average. H also gives
int (u - t0) dB = h (W / 2 - H), so that a diffusion that changes in time is followed to the order of h^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.solvers.path_runge_kutta import PathRungeKutta, PathTableau, area_of

__all__ = ["SEA", "GeneralShARK", "SPaRK", "SlowRK"]

_FAMILY = "stochastic Runge-Kutta"


@register("sea")
@dataclass(frozen=True)
class SEA(Stepper):
    """The shifted Euler method for additive noise: with h = t - s,

        x_t = x_s + h f(s + h / 2, x_s + g_s (W / 2 + H)) + (g_s + g_t) W / 2 + (g_s - g_t) H.

    Strong order 1, as Euler-Maruyama has, with local errors of order 2 instead of 3/2.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Foster, dos Reis and Strange, arXiv:2210.17543, eq. 5.8"
    needs: ClassVar[str] = "additive"
    uses_area: ClassVar[bool] = True
    default_stochasticity: ClassVar[float] = 1.0
    declared: ClassVar[Order] = Order(deterministic=1, weak=1, strong=1, noise={"additive": NoiseOrder(1, 1)})

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        middle = t0 + 0.5 * h
        if increments is None:
            return StepResult(x + h * dynamics.drift(middle, x))
        w, area = increments.W, area_of(increments)
        first, last = dynamics.diffusion(t0, x), dynamics.diffusion(t1, x)
        f = dynamics.drift(middle, x + dynamics.product(first, 0.5 * w + area))
        noise = dynamics.product(first, 0.5 * w + area) + dynamics.product(last, 0.5 * w - area)
        return StepResult(x + h * f + noise)


@register("slowrk")
@dataclass(frozen=True)
class SlowRK(PathRungeKutta):
    """Strong order 3/2 where the noise commutes: with h = t - s, f at (s, x_s), m = s + h / 2 and y = x_s + h f / 2,

        k_1, ..., k_4: the stages g(m, .) W of the classical Runge-Kutta method from y
        u   = x_s + 3/4 h f + 3/4 k_3 + 3/2 g(m, y_3) H, y_3 = y + k_2 / 2
        x_t = x_s + h (f + 2 f(s + 3/4 h, u)) / 3 + (k_1 + 2 k_2 + 2 k_3 + k_4) / 6
              + 2 (g(m, y_3) - g(t, x_s + h f + k_2 / 2)) H.

    Two drifts and five diffusions a step. Where the noise does not commute the strong order is 1/2.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Foster, dos Reis and Strange, arXiv:2210.17543, eq. 6.2"
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=2,
        strong=1.5,
        noise={"additive": NoiseOrder(1.5, 2), "commutative": NoiseOrder(1.5, 2), "general": NoiseOrder(0.5, 1)},
    )
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 0.5, 0.5, 0.5, 0.5, 0.75, 1.0),
        a=((), (0.5,), (0.5, 0.0), (0.5, 0.0, 0.0), (0.5, *[0.0] * 3), (0.75, *[0.0] * 4), (1.0, *[0.0] * 5)),
        w=(
            *((), (0.0,), (0.0, 0.5), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 1.0)),
            *((0.0, 0.0, 0.0, 0.75, 0.0), (0.0, 0.0, 0.5, 0.0, 0.0, 0.0)),
        ),
        h=(*((0.0,) * i for i in range(5)), (0.0, 0.0, 0.0, 1.5, 0.0), (0.0,) * 6),
        b=(1 / 3, 0.0, 0.0, 0.0, 0.0, 2 / 3, 0.0),
        bw=(0.0, 1 / 6, 1 / 3, 1 / 3, 1 / 6, 0.0, 0.0),
        bh=(0.0, 0.0, 0.0, 2.0, 0.0, 0.0, -2.0),
    )


_OUTER, _INNER = (3 - math.sqrt(3)) / 6, math.sqrt(3) / 3


@register("spark")
@dataclass(frozen=True)
class SPaRK(PathRungeKutta):
    """The splitting path Runge-Kutta method, with an error estimate: with h = t - s, m = s + h / 2,

        y_1 = x_s,  y_2 = x_s + (h f_1 + g_1 W) / 2 + sqrt(3) g_1 H,  y_3 = x_s + h f_2 + g_2 W, at s, m and t
        x_t = x_s + a (h f_1 + g_1 W) + b (h f_2 + g_2 W) + a (h f_3 + g_3 W) + (g_1 - g_3) H

    with a = (3 - sqrt(3)) / 6 and b = sqrt(3) / 3. The estimate is the difference from the trapezoidal rule on y_1 and
    y_3. Strong order 3/2 for additive noise, 1 where the noise commutes, 1/2 otherwise.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Foster, arXiv:2311.14201, definition 1.6"
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=2,
        strong=1.5,
        noise={"additive": NoiseOrder(1.5, 2), "commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 0.5, 1.0),
        a=((), (0.5,), (0.0, 1.0)),
        w=((), (0.5,), (0.0, 1.0)),
        h=((), (math.sqrt(3),), (0.0, 0.0)),
        b=(_OUTER, _INNER, _OUTER),
        bw=(_OUTER, _INNER, _OUTER),
        bh=(1.0, 0.0, -1.0),
        error=((_OUTER - 0.5, _INNER, _OUTER - 0.5), (_OUTER - 0.5, _INNER, _OUTER - 0.5), (1.0, 0.0, -1.0)),
    )


@register("shark_general")
@dataclass(frozen=True)
class GeneralShARK(PathRungeKutta):
    """ShARK with a diffusion that depends on the state: with h = t - s, g at (s, x_s) and y = x_s + g H,

        u   = y + 5/6 (h f(s, y) + g(s, y) W)
        x_t = x_s + 2/5 (h f(s, y) + g(s, y) W) + 3/5 (h f(r, u) + g(r, u) W) + 6/5 (g(s, y) - g(r, u)) H

    with r = s + 5/6 h. Two drifts and three diffusions a step. Strong order 3/2 for additive noise, 1 where the noise
    commutes, 1/2 otherwise.
    """

    family: ClassVar[str] = _FAMILY
    reference: ClassVar[str] = "Foster, dos Reis and Strange, arXiv:2210.17543, eq. 6.1"
    declared: ClassVar[Order] = SPaRK.declared
    tableau: ClassVar[PathTableau] = PathTableau(
        c=(0.0, 0.0, 5 / 6),
        a=((), (0.0,), (0.0, 5 / 6)),
        w=((), (0.0,), (0.0, 5 / 6)),
        h=((), (1.0,), (1.0, 0.0)),
        b=(0.0, 0.4, 0.6),
        bw=(0.0, 0.4, 0.6),
        bh=(0.0, 1.2, -1.2),
    )
