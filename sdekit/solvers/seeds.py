"""SEEDS: exponential Runge-Kutta methods for the reverse SDE whose stages share their noise.

With s = u_0 < u_1 < ... < t in lambda, each state is the integral of predictions before it, as in
`sdekit.solvers.dpm_solver`, and the exact solution's noise over all of its part of the step, which runs on:

    n_0 = 0,    n_{j+1} = a(u_j, u_{j+1}) n_j + std(u_j, u_{j+1}) z',    z' a fresh normal.

a and std are the exact solution's, `sdekit.solvers.exponential`. Independent noises would leave weak order 1. What is
drawn is z of the whole step first, then what each stage before has of its own: n_j given n_{j+1} is a Gaussian with

    n_j = std(s, u_j) (c z_{j+1} + sqrt(1 - c^2) z'),    c = a(u_j, u_{j+1}) std(s, u_j) / std(s, u_{j+1}),

z_{j+1} being n_{j+1} / std(s, u_{j+1}). So the step's noise is stream 0, whatever the stages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.plan import DATA, NOISE, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.dpm_solver import check_ratio, steps_with_inner
from sdekit.solvers.exponential import ExponentialStep, exponential_step, limit_row
from sdekit.solvers.options import check_choice

__all__ = ["Seeds2", "Seeds3"]

_PAPER = "Gonzalez, Fernandez, Tran, Gherbi, Hajri and Masmoudi, SEEDS, NeurIPS 2023, arXiv:2305.14267"
_NOTE = "order 1 on a step from alpha = 0 or to sigma = 0"


def _shared_noises(
    process: AffineSDE, s: Level, inner: list[Level], t: Level, prediction: str, tau: Stochasticity
) -> tuple[list[ExponentialStep], list[dict[int, float]]]:
    """The steps from s to each state, t last, and the noise of each state by stream."""
    levels = [*inner, t]
    whole = [exponential_step(process, s, v, prediction, tau) for v in levels]
    noises = [{0: whole[-1].std}]
    unit = {0: 1.0}  # the standardised noise of the state after
    for j in reversed(range(len(inner))):
        c = exponential_step(process, levels[j], levels[j + 1], prediction, tau).scale
        c = c * whole[j].std / whole[j + 1].std if whole[j + 1].std else 0.0
        c = min(c, 1.0)
        unit = {stream: c * v for stream, v in unit.items()}
        unit[len(inner) - j] = math.sqrt((1 - c) * (1 + c))
        noises.insert(0, {stream: whole[j].std * v for stream, v in unit.items()})
    return whole, noises


@register("seeds_2", aliases=("seeds", "SEEDS-2"))
@dataclass(frozen=True)
class Seeds2(SnrClocked):
    """SEEDS-2 (Gonzalez et al., 2023): two calls a step, for any stochasticity.

    A step from alpha = 0 or to sigma = 0 takes one call and the limits of order 1.

    Args:
        r: where in the step the second call is, in lambda: 0 < r <= 1.
        second: "half" weights the difference of predictions by half the total, as published; "exact" integrates the
            line through both. ComfyUI's seeds_2 calls them "phi_1" and "phi_2".
        prediction: "data" or "noise", what is interpolated.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    reference: ClassVar[str] = _PAPER
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1, note=_NOTE)
    default_stochasticity: ClassVar[float] = 1.0

    r: float = 0.5
    second: str = "half"
    prediction: str = "data"

    def __post_init__(self) -> None:
        check_ratio("r", self.r)
        check_choice("second", self.second, ("half", "exact"))
        check_choice("prediction", self.prediction, ("data", "noise"))

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        weights = DATA if self.prediction == "data" else NOISE
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, process.levels(times), [self.r])):
            if not inner:
                rows.append(limit_row(n, s, t, self.prediction, stochasticity))
                continue
            (mid,) = inner
            (one, end), noises = _shared_noises(process, s, [mid], t, self.prediction, stochasticity)
            b1 = end.total / (2 * self.r)
            b0, b1 = (end.total - b1, b1) if self.second == "half" else end.weights([0.0, self.r])
            rows.append(stage(n, s, weights, one.scale, {0: one.total}, noises[0]))
            rows.append(commit(n, mid, weights, end.scale, {1: b0, 0: b1}, noises[1]))
        return rows


@register("seeds_3", aliases=("SEEDS-3",))
@dataclass(frozen=True)
class Seeds3(PlanSolver):
    """SEEDS-3 (Gonzalez et al., 2023): three calls a step, for any stochasticity.

    On the probability flow it is DPM-Solver-3, of order 3; on the reverse SDE its weak order is 2, that of its paths 1.
    Its three noises a step are more than the increment of a path, so that it takes none with noise="path". A step from
    alpha = 0 or to sigma = 0 takes one call and the limits of order 1.

    Args:
        r1, r2: where in the step the other calls are, in lambda: 0 < r1 < r2 <= 1. Order 3 needs r2 = 2/3.
        prediction: "data" or "noise", what is interpolated.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    reference: ClassVar[str] = _PAPER
    default_stochasticity: ClassVar[float] = 1.0

    r1: float = 1 / 3
    r2: float = 2 / 3
    prediction: str = "data"

    def __post_init__(self) -> None:
        check_ratio("r1", self.r1)
        check_ratio("r2", self.r2, self.r1)
        check_choice("prediction", self.prediction, ("data", "noise"))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if math.isclose(self.r2, 2 / 3, rel_tol=1e-12):
            return Order(deterministic=3, weak=2, note=_NOTE)
        return Order(deterministic=2, weak=2, note=f"limited by r2, which is not 2/3; {_NOTE}")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        weights = DATA if self.prediction == "data" else NOISE
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, process.levels(times), [self.r1, self.r2])):
            if not inner:
                rows.append(limit_row(n, s, t, self.prediction, stochasticity))
                continue
            (one, two, end), noises = _shared_noises(process, s, inner, t, self.prediction, stochasticity)
            c0, c1 = two.weights([0.0, self.r1 / self.r2])
            b0, b2 = end.weights([0.0, self.r2])
            rows.append(stage(n, s, weights, one.scale, {0: one.total}, noises[0]))
            rows.append(stage(n, inner[0], weights, two.scale, {1: c0, 0: c1}, noises[1]))
            rows.append(commit(n, inner[1], weights, end.scale, {2: b0, 0: b2}, noises[2]))
        return rows
