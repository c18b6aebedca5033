"""Weak orders of stochastic samplers where the prediction is not linear: E cos(2 x + 1/2) on a mixture, by quadrature.

The registry's tests measure weak orders on Gaussian data, whose laws are exact. Here nothing is linear and nothing is
random; orders on a Gaussian that did not hold beyond it would show.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sdekit import EDM, solvers
from sdekit.plan import Plan
from tests.solvers.weak_quadrature import exact_expectation, expectation

# Points in each argument, few where a step reads two states before it, and nodes of each noise.
WIDE, DEEP = (40, 13), (24, 11)
RESTART = {"intervals": ((0.6, 1.2, 1, None),)}
SA, PLAIN = {"predictor_order": 2, "corrector_order": 2}, {"predictor_order": 2, "corrector_order": 0}
# The last number is the largest excess over the declared order: at few steps a third prediction does more than later.
CASES: list[tuple[str, dict[str, Any], tuple[int, int], tuple[int, int], float]] = [
    ("ddpm", {}, WIDE, (16, 32), 0.1),
    ("dpm_2_ancestral", {}, WIDE, (16, 32), 0.1),
    ("seeds_2", {}, WIDE, (16, 32), 0.1),
    ("seeds_2", {"r": 1.0, "second": "exact"}, WIDE, (16, 32), 0.5),
    ("seeds_3", {}, (40, 11), (32, 64), 0.1),
    ("exp_sra", {}, WIDE, (16, 32), 0.1),
    ("restart", RESTART, (50, 25), (16, 32), 0.1),
    ("er_sde", {"order": 2}, WIDE, (16, 32), 0.2),
    ("er_sde", {}, DEEP, (8, 16), 0.3),
    ("dpmpp_3m_sde", {}, DEEP, (8, 16), 1.0),
    ("sa_solver", SA, (20, 9), (8, 16), 1.0),
    ("sa_solver", PLAIN, (30, 11), (32, 64), 0.1),
    ("res_multistep_ancestral", {}, WIDE, (32, 64), 0.1),
    ("dpmpp_2m_sde", {}, WIDE, (32, 64), 0.1),
]


def planned(name: str, options: dict[str, Any], steps: int) -> Plan:
    solver = solvers.get(name, **options)
    return solver.plan(EDM(), np.geomspace(3.0, 0.4, steps + 1).tolist(), solver.implied_stochasticity)  # type: ignore[attr-defined]


def slope(plans: list[Plan], size: tuple[int, int]) -> float:
    errors = [abs(expectation(plan, *size) - exact_expectation(*plan.end)) for plan in plans]
    return math.log2(errors[0] / errors[1])


SLOW = ("seeds_3", "dpmpp_3m_sde", "dpmpp_2m_sde", "res_multistep_ancestral")


@pytest.mark.parametrize(
    "name, options, size, steps, excess",
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case[0] in SLOW or case[1:3] == ({}, DEEP) else [])
        for case in CASES
    ],
    ids=lambda v: str(v) if v else "",
)
def test_weak_order_on_a_mixture(
    name: str, options: dict[str, Any], size: tuple[int, int], steps: tuple[int, int], excess: float
) -> None:
    declared = solvers.get(name, **options).declared.weak
    assert declared is not None
    found = slope([planned(name, options, n) for n in steps], size)
    assert declared - 0.15 <= found <= declared + excess


def test_independent_noises_of_the_stages_are_noticed() -> None:
    """The mutant, of order 1: the stage's noise is not that of the step."""

    def independent(plan: Plan) -> Plan:
        rows = list(plan.rows)
        for i, row in enumerate(rows):
            if row.point is not None:
                noises = tuple((stream + 5, std) for stream, std in row.point.noises)
                rows[i] = replace(row, point=replace(row.point, noises=noises))
        return replace(plan, rows=tuple(rows))

    options = {"r": 1.0, "second": "exact"}
    plans = [independent(planned("seeds_2", options, n)) for n in (16, 32)]
    assert slope(plans, WIDE) < 1.4


def test_the_quadrature_has_the_gaussians_law() -> None:
    """Without steps that matter it is exact: one long step of DDPM to the same level, and the marginal itself."""
    plan = solvers.get("ddpm").plan(EDM(), [1.0, 1.0 - 1e-9])
    assert expectation(plan, *WIDE) == pytest.approx(exact_expectation(1.0, 1.0), abs=2e-6)
