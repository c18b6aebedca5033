"""Solvers that break one promise each. They live in a module of their own so that pickle finds their classes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from sdekit.plan import Combination, Plan, Row
from sdekit.solvers import get
from sdekit.solvers.base import Increments, Order, PlanSolver, Stepper, StepResult
from sdekit.solvers.ddim import ddim_row
from sdekit.solvers.euler_maruyama import EulerMaruyama
from sdekit.solvers.sra import SRA1


def ddim_rows(process, times, eta=0.0):
    levels = process.levels(times)
    return [ddim_row(n, s, t, eta) for n, (s, t) in enumerate(itertools.pairwise(levels))]


@dataclass(frozen=True)
class Good(PlanSolver):
    """DDIM once more, as a user would write it."""

    declared = Order(deterministic=1)
    fixed_stochasticity = 0.0

    def rows(self, process, times, stochasticity):
        return ddim_rows(process, times)


@dataclass(frozen=True)
class Overdeclared(Good):
    declared = Order(deterministic=2)


@dataclass(frozen=True)
class DeclaresANumber(Good):
    declared = 1  # type: ignore[assignment]


class Mutable(Good):
    """Not a dataclass of its own, and attributes can be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class HoldsAFunction(Good):
    scale: Callable[[float], float] = field(default=lambda v: v)


@dataclass(frozen=True)
class Fickle(Good):
    """Random rows, from a generator of its own."""

    generator = random.Random(0)

    def rows(self, process, times, stochasticity):
        return ddim_rows(process, times, eta=1e-3 * self.generator.random())


@dataclass(frozen=True)
class DrawsGlobally(Good):
    def rows(self, process, times, stochasticity):
        torch.rand(1)
        return ddim_rows(process, times)


@dataclass(frozen=True)
class DrawsFromNumPy(Good):
    def rows(self, process, times, stochasticity):
        np.random.rand()  # noqa: NPY002
        return ddim_rows(process, times)


@dataclass(frozen=True)
class SetsDefaultDtype(Good):
    def rows(self, process, times, stochasticity):
        torch.set_default_dtype(torch.float64)
        return ddim_rows(process, times)


@dataclass(frozen=True)
class PopsTheGrid(Good):
    def rows(self, process, times, stochasticity):
        rows = ddim_rows(process, times)
        times.pop()
        return rows


@dataclass(frozen=True)
class WrongSigma(Good):
    """sigma of the step's end beside the time of its start."""

    def rows(self, process, times, stochasticity):
        ends = process.levels(times[1:])
        return [
            Row(r.t, r.alpha, ends[r.step].sigma, r.weights, r.base, r.point, r.step) for r in ddim_rows(process, times)
        ]


@dataclass(frozen=True)
class OutsideTheDomain(Good):
    def rows(self, process, times, stochasticity):
        rows = ddim_rows(process, times)
        first = rows[0]
        return [Row(-1.0, first.alpha, first.sigma, first.weights, first.base, first.point, 0), *rows[1:]]


@dataclass(frozen=True)
class NeedsTwoSteps(Good):
    def rows(self, process, times, stochasticity):
        rows = ddim_rows(process, times)
        return [rows[0], rows[1], *rows[2:]]


@dataclass(frozen=True)
class FlatClock(Good):
    declared = Order(weak=1)
    fixed_stochasticity = 1.0

    def rows(self, process, times, stochasticity):
        return ddim_rows(process, times, eta=1.0)

    def noise_clock(self, process, times, stochasticity):
        return tuple(0.0 for _ in times)


@dataclass(frozen=True)
class IgnoresStochasticity(Good):
    fixed_stochasticity = None


@dataclass(frozen=True)
class RefusesEverything(Good):
    fixed_stochasticity = None

    def rows(self, process, times, stochasticity):
        return get("ddim", eta=0.3).plan(process, times, 0.7).rows


@dataclass(frozen=True)
class Inexact(Good):
    """Coefficients that JSON cannot hold exactly."""

    def rows(self, process, times, stochasticity):
        def inexact(row: Row) -> Row:
            assert row.base is not None
            base: Any = Fraction(row.base.base) * Fraction(3, 1) / 3 + Fraction(1, 10**40)
            return Row(row.t, row.alpha, row.sigma, row.weights, Combination(base, row.base.outputs), None, row.step)

        return [inexact(r) for r in ddim_rows(process, times)]


@dataclass(frozen=True)
class ChangingPlan(Good):
    """Overrides plan() so that what runs is not what was planned before."""

    plans = 0

    def plan(self, process, times, stochasticity=None) -> Plan:
        type(self).plans += 1
        shift = 1.0 + 1e-9 * (type(self).plans % 3)
        plan = super().plan(process, times, stochasticity)
        rows = tuple(
            Row(r.t, r.alpha, r.sigma, r.weights, Combination(r.base.base * shift, r.base.outputs), None, r.step)
            for r in plan.rows
            if r.base is not None
        )
        return Plan(plan.solver, plan.times, rows, plan.start, plan.end, plan.process)


@dataclass(frozen=True)
class Cancelling(Good):
    """A huge term added and taken away again: right in exact arithmetic, a loss of digits on tensors."""

    def rows(self, process, times, stochasticity):
        def cancelling(row: Row, before: bool) -> Row:
            assert row.base is not None
            outputs = dict(row.base.outputs)
            if before:
                outputs = {0: outputs[0] + 1e5, 1: -1e5}
            return Row(
                row.t,
                row.alpha,
                row.sigma,
                row.weights,
                Combination(row.base.base, tuple(outputs.items())),
                None,
                row.step,
            )

        return [cancelling(r, i > 0) for i, r in enumerate(ddim_rows(process, times))]


@dataclass(frozen=True)
class GoodStepper(Stepper):
    """Euler for ODEs and SDEs with additive noise."""

    declared = Order(deterministic=1, strong=1)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Any, increments: Increments | None, state: Any
    ) -> StepResult:
        moved = x + (t1 - t0) * dynamics.drift(t0, x)
        return StepResult(moved if increments is None else moved + dynamics.diffuse(t0, x, increments.W))


@dataclass(frozen=True)
class WritesToX(GoodStepper):
    def step(self, dynamics, t0, t1, x, increments, state):
        x += (t1 - t0) * dynamics.drift(t0, x)
        return StepResult(x if increments is None else x + dynamics.diffuse(t0, x, increments.W))


@dataclass(frozen=True)
class NarrowsX(GoodStepper):
    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(super().step(dynamics, t0, t1, x, increments, state).x.float())


@dataclass(frozen=True)
class BatchNorm(GoodStepper):
    """A step that depends on the norm of the whole batch."""

    def step(self, dynamics, t0, t1, x, increments, state):
        result = super().step(dynamics, t0, t1, x, increments, state).x
        return StepResult(result * (1 + 1e-15 * torch.nan_to_num(x).norm()))


@dataclass(frozen=True)
class SpreadsNaN(GoodStepper):
    """Splits of a batch agree, as the mean that is added is zero unless some row is NaN."""

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(super().step(dynamics, t0, t1, x, increments, state).x + 0 * x.mean())


@dataclass(frozen=True)
class Remembers(GoodStepper):
    """Keeps the last slope on itself instead of in the state."""

    last = None

    def step(self, dynamics, t0, t1, x, increments, state):
        slope = dynamics.drift(t0, x)
        mixed = slope if type(self).last is None or type(self).last.shape != x.shape else (slope + type(self).last) / 2
        type(self).last = None if t1 == 0.1 else slope
        moved = x + (t1 - t0) * mixed
        return StepResult(moved if increments is None else moved + dynamics.diffuse(t0, x, increments.W))


@dataclass(frozen=True)
class OwnNoise(GoodStepper):
    def step(self, dynamics, t0, t1, x, increments, state):
        moved = x + (t1 - t0) * dynamics.drift(t0, x)
        if increments is None:
            return StepResult(moved)
        return StepResult(moved + dynamics.diffuse(t0, x, torch.randn_like(x) * abs(t1 - t0) ** 0.5))


@dataclass(frozen=True)
class NoiseTwice(GoodStepper):
    def step(self, dynamics, t0, t1, x, increments, state):
        result = super().step(dynamics, t0, t1, x, increments, state).x
        return StepResult(result if increments is None else result + dynamics.diffuse(t0, x, increments.W))


@dataclass(frozen=True)
class NoiseUnscaled(GoodStepper):
    """Right where there is no drift and where g is 0.7, but not scaled by g elsewhere."""

    def step(self, dynamics, t0, t1, x, increments, state):
        moved = x + (t1 - t0) * dynamics.drift(t0, x)
        return StepResult(moved if increments is None else moved + 0.7 * increments.W)


@dataclass(frozen=True)
class Miscounted(GoodStepper):
    calls_per_step = 2


@dataclass(frozen=True)
class SkipsTheCounter(GoodStepper):
    """Calls the user's drift behind the back of what counts and checks the calls."""

    def step(self, dynamics, t0, t1, x, increments, state):
        inner = getattr(dynamics, "dynamics", dynamics)
        inner.drift(torch.as_tensor(t0, dtype=x.dtype), x)
        return super().step(dynamics, t0, t1, x, increments, state)


@dataclass(frozen=True)
class ForwardOnly(GoodStepper):
    def step(self, dynamics, t0, t1, x, increments, state):
        if t1 > t0:
            raise ValueError("only down")
        return super().step(dynamics, t0, t1, x, increments, state)


@dataclass(frozen=True)
class HalfStep(GoodStepper):
    """Half a step of Euler: consistent with nothing."""

    declared = Order(deterministic=1)
    needs = "ode"

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(x + 0.5 * (t1 - t0) * dynamics.drift(t0, x))


@dataclass(frozen=True)
class StrongEuler(EulerMaruyama):
    """Euler-Maruyama, declared of the strong order of SRA1."""

    declared = Order(deterministic=1, weak=1, strong=1.5)  # type: ignore[assignment]


@dataclass(frozen=True)
class AreaOfTheOtherSign(SRA1):
    """In the plan: W / 2 - H for W / 2 + H in the stage. The law of a step is the same."""

    def _step(self, n, s, inner, h, weights, first, last):
        first_row, last_row = super()._step(n, s, inner, h, weights, first, last)
        point = first_row.point
        noises = tuple((k, -v if k == 1 else v) for k, v in point.noises)
        return [replace(first_row, point=Combination(point.base, point.outputs, noises)), last_row]


@dataclass(frozen=True)
class StepAreaOfTheOtherSign(SRA1):
    """The same in the steps, while the plan is sound."""

    def step(self, dynamics, t0, t1, x, increments, state):
        if increments is not None:
            increments = Increments(increments.W, -increments.H)
        return super().step(dynamics, t0, t1, x, increments, state)


@dataclass(frozen=True)
class WithoutAClock(EulerMaruyama):
    """Declares a strong order, but its noises are of no path."""

    def noise_clock(self, process, times, stochasticity):
        return None


@dataclass(frozen=True)
class OverdeclaredStepper(GoodStepper):
    """Euler, declared of strong order 3/2."""

    declared = Order(deterministic=1, strong=1.5)


@dataclass(frozen=True)
class StrongODE(GoodStepper):
    """Takes no SDE, and declares a strong order."""

    needs = "ode"


@dataclass(frozen=True)
class ShortSteps(EulerMaruyama):
    """Its plan is sound, its steps end too soon."""

    declared = Order(deterministic=1)  # type: ignore[assignment]

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(super().step(dynamics, t0, t0 + 0.9 * (t1 - t0), x, increments, state).x)
