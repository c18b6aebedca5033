"""The order tests notice planted mistakes, and the limits that the notes name are real."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sdekit import solvers
from sdekit.plan import Row
from sdekit.solvers import Order, PlanSolver
from sdekit.testing import ObservedOrder, observed_order, order_problems

STEPS = (20, 40, 80)
START = order_problems()["start"]


@dataclass(frozen=True)
class Mutant(PlanSolver):
    """A solver whose rows are changed."""

    base: PlanSolver
    change: Callable[[list[Row]], list[Row]]

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.base.declared

    @property
    def fixed_stochasticity(self) -> float | None:  # type: ignore[override]
        return self.base.fixed_stochasticity

    def rows(self, process: Any, times: list[float], stochasticity: Any) -> Sequence[Row]:
        return self.change(list(self.base.rows(process, times, stochasticity)))


def unchanged(rows: list[Row]) -> list[Row]:
    return rows


def sigma_t_in_the_first_stage(rows: list[Row]) -> list[Row]:
    """sigma_t / sigma_s for sigma_m / sigma_s (alpha for noise prediction) where the first stage starts from x."""
    found = []
    for i, row in enumerate(rows):
        if row.base is None and row.point is not None and (i == 0 or rows[i - 1].step != row.step):
            mid = rows[i + 1]
            end = next((r for r in rows[i:] if r.step > row.step), mid)
            ratio = end.sigma / mid.sigma if row.weights == (1.0, 0.0) else end.alpha / mid.alpha
            row = replace(row, point=replace(row.point, base=row.point.base * ratio))  # type: ignore[operator]
        found.append(row)
    return found


def noise_drawn_twice(rows: list[Row]) -> list[Row]:
    """A stage with a noise of its own, of the same variance."""
    found = []
    for row in rows:
        if row.point is not None and row.point.noises:
            std = math.sqrt(math.fsum(v**2 for _, v in row.point.noises))  # type: ignore[operator]
            row = replace(row, point=replace(row.point, noises=((1, std),)))
        found.append(row)
    return found


def noise_of_the_longer_step(rows: list[Row]) -> list[Row]:
    """1 % more noise than was taken away."""
    return [
        replace(row, base=replace(row.base, noises=tuple((k, 1.01 * v) for k, v in row.base.noises)))  # type: ignore[operator]
        if row.base is not None
        else row
        for row in rows
    ]


def measured(solver: PlanSolver, change: Callable[[list[Row]], list[Row]], **more: Any) -> ObservedOrder:
    kind = "weak" if solver.declared.deterministic is None else "deterministic"
    return observed_order(Mutant(solver, change), kind, steps=STEPS, **more)


@pytest.mark.parametrize(
    "name, options, change, falls_to",
    [
        ("dpmpp_2s", {}, sigma_t_in_the_first_stage, 1),
        ("dpm_solver_3", {}, sigma_t_in_the_first_stage, 2),
        ("dpmpp_sde", {}, noise_drawn_twice, 1),
        ("dpmpp_sde", {}, noise_of_the_longer_step, 0),
        ("dpmpp_2s_ancestral", {}, noise_of_the_longer_step, 0),
    ],
)
def test_a_mistake_lowers_the_order(name: str, options: dict[str, Any], change: Any, falls_to: int) -> None:
    found = measured(solvers.get(name, **options), change)
    assert not found.reaches() and found.value < falls_to + 0.35, str(found)


LIMITS = [
    ("half a second difference", "dpmpp_3m", {"starter": "single_step"}, {"as_released": True}, 3),
    ("a missing corrector", "unipc", {}, {"corrector": "none"}, 3),
    ("a missing corrector at order 3", "unipc", {"order": 3, "starter": "single_step"}, {"corrector": "none"}, 4),
    ("a first-order last step", "unipc", {}, {"final_order": 1}, 3),
    ("a first-order last step of three calls", "dpm_solver_3", {}, {"final_order": 1}, 3),
    ("a ramp", "unipc", {"order": 3, "starter": "single_step"}, {"starter": "ramp"}, 4),
    ("another r2", "dpm_solver_3", {}, {"r2": 0.6}, 3),
]


@pytest.mark.parametrize("name, options, mistake, order", [v[1:] for v in LIMITS], ids=[v[0] for v in LIMITS])
def test_a_limit_is_real(name: str, options: dict[str, Any], mistake: dict[str, Any], order: int) -> None:
    """With the option the declared order is lower, and measured; without it the full one is."""
    right, wrong = solvers.get(name, **options), solvers.get(name, **{**options, **mistake})
    assert right.declared.deterministic == order == wrong.declared.deterministic + 1 or name == "dpmpp_3m"
    assert measured(right, unchanged, problem=START).reaches(order)
    found = measured(wrong, unchanged, problem=START)
    assert not found.reaches(order) and found.reaches(), str(found)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("name", ["dpmpp_2s_ancestral", "dpmpp_sde"])
def test_the_law_from_the_exact_marginal_is_of_order_two(name: str, eta: float) -> None:
    """For any eta; from a fixed start it is of order 2 for dpmpp_sde with eta = 1 only, as declared."""

    @dataclass(frozen=True)
    class AsFlow(Mutant):
        fixed_stochasticity = 0.0  # then the law from the marginal alone is compared

    solver = solvers.get(name, eta=eta)
    found = observed_order(AsFlow(solver, unchanged), "weak", steps=STEPS)
    assert abs(found.value - 2) < 0.2, str(found)


@pytest.mark.parametrize(
    "name, eta, order", [("dpmpp_2s_ancestral", 1.0, 1), ("dpmpp_sde", 0.5, 1), ("dpmpp_sde", 1.0, 2)]
)
def test_the_law_from_a_fixed_start(name: str, eta: float, order: int) -> None:
    """Against the reverse SDE of stochasticity eta, whose marginals they have as well."""

    @dataclass(frozen=True)
    class AsSDE(Mutant):
        fixed_stochasticity = eta

    found = observed_order(AsSDE(solvers.get(name, eta=eta), unchanged), "weak", steps=STEPS)
    assert abs(found.value - order) < 0.3, str(found)
