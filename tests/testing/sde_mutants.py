"""Steppers of SDEs with planted mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sdekit.solvers.base import NoiseOrder, Order, Stepper, StepResult


@dataclass(frozen=True)
class Milstein(Stepper):
    """For one coordinate or diagonal noise, in Ito's calculus; and mistakes to plant in it."""

    correction: float = 1.0
    signed: bool = False
    at: float = 0.0
    again: float = 0.0

    declared: ClassVar[Order] = Order(noise={"diagonal": NoiseOrder(1, None)})

    def step(self, dynamics: Any, t0: float, t1: float, x: Any, increments: Any, state: Any) -> StepResult:
        h = t1 - t0
        moved = x + h * dynamics.drift(t0 + self.at * h, x)
        if increments is None:
            return StepResult(moved)
        g, w = dynamics.diffusion(t0, x), increments.W
        by = 1e-5
        slope = (dynamics.diffusion(t0, x + by) - dynamics.diffusion(t0, x - by)) / (2 * by)
        less = self.correction * (h if self.signed else abs(h))
        return StepResult(moved + g * w * (1 + self.again) + g * slope * (w * w - less) / 2)


@dataclass(frozen=True)
class Altered(Stepper):
    """A stepper with a mistake: time 0 to 1 along the step at which drift or diffusion is really taken, or noise."""

    base: Any
    drift_at: Any = None
    diffusion_at: Any = None
    noise: Any = None
    as_calculus: str = ""

    declared: ClassVar[Order] = Order()
    uses_area: ClassVar[bool] = True

    @property
    def needs(self) -> str:  # type: ignore[override]
        return self.base.needs

    @property
    def calculus(self) -> str:  # type: ignore[override]
        return self.as_calculus or self.base.calculus

    def step(self, dynamics: Any, t0: float, t1: float, x: Any, increments: Any, state: Any) -> StepResult:
        inner = Moved(dynamics, t0, t1, self.drift_at, self.diffusion_at)
        return self.base.step(inner, t0, t1, x, self.noise(increments) if self.noise else increments, state)


class Moved:
    def __init__(self, inner: Any, t0: float, t1: float, drift_at: Any, diffusion_at: Any) -> None:
        self._inner, self._ends, self._moves = inner, (t0, t1), {"drift": drift_at, "diffusion": diffusion_at}

    def _time(self, name: str, t: float) -> float:
        move, (t0, t1) = self._moves[name], self._ends
        return t if move is None else t0 + move((t - t0) / (t1 - t0)) * (t1 - t0)

    def drift(self, t: float, x: Any) -> Any:
        return self._inner.drift(self._time("drift", t), x)

    def diffusion(self, t: float, x: Any) -> Any:
        return self._inner.diffusion(self._time("diffusion", t), x)

    def diffuse(self, t: float, x: Any, w: Any) -> Any:
        return self._inner.diffuse(self._time("diffusion", t), x, w)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
