"""Plans in high precision: float64 agrees with mpmath, and orders of convergence come out to three digits."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from sdekit import VE, VP, solvers
from sdekit.plan import DATA, Plan, commit, interpret, stage
from sdekit.solvers import PlanSolver

NAMES = [i.name for i in solvers.available() if isinstance(solvers.get(i.name), PlanSolver)]


def gaussian_data(row, x):
    """The posterior mean of N(0.7, 0.4), in the arithmetic of x."""
    c, m, a, s = mpf(0.4), mpf(0.7), mpf(row.alpha), mpf(row.sigma)
    gain = a * c / (a * a * c + s * s)
    return m + gain * (x - a * m)


def gaussian_data_in_floats(row, x: float) -> float:
    gain = row.alpha * 0.4 / (row.alpha**2 * 0.4 + row.sigma**2)
    return 0.7 + gain * (x - row.alpha * 0.7)


def mixture_data(row, x):
    """The posterior mean of equal Gaussians N(0.7, 0.4) and N(-0.7, 0.4)."""
    c, m, a, s = mpf(0.4), mpf(0.7), mpf(row.alpha), mpf(row.sigma)
    variance = a * a * c + s * s
    return a * c / variance * x + s * s / variance * m * mpmath.tanh(a * m * x / variance)


def exact(plan: Plan, x: mpf) -> mpf:
    """The flow of the one Gaussian."""
    (a, s), (b, t) = plan.start, plan.end
    scale = mpmath.sqrt((mpf(b) ** 2 * mpf(0.4) + mpf(t) ** 2) / (mpf(a) ** 2 * mpf(0.4) + mpf(s) ** 2))
    return mpf(b) * mpf(0.7) + scale * (x - mpf(a) * mpf(0.7))


@pytest.mark.parametrize("name", NAMES)
def test_float64_agrees_with_50_digits(name: str) -> None:
    times = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.01]
    # The 6 to 12 stages of the first magnify roundings on long steps, and dpm_fast takes three of the grid's at once.
    if solvers.info(name).adaptive or name == "dpm_fast":
        times = np.interp(np.arange(25) / 4, np.arange(7), times).tolist()
    plan = solvers.get(name).plan(VP(), times)

    def noise(step: int, stream: int) -> float:
        return math.sin(1.0 + step + 10 * stream)

    with mpmath.workdps(50):
        high = interpret(plan, gaussian_data, mpf(0.5), lambda i, k: mpf(noise(i, k)))
        low = interpret(plan, gaussian_data_in_floats, 0.5, noise)
        assert abs(high - mpf(low)) < mpf(1e-14)


def order(solver, grid: Callable[[int], list[float]], n: int) -> float:
    """From the differences between n, 2 n, 4 n and 8 n steps, their leading correction removed by extrapolation."""
    with mpmath.workdps(40):
        x = [interpret(solver.plan(VE(1.0, 6.0), grid(k * n), 0.0), mixture_data, mpf(3.1)) for k in (1, 2, 4, 8)]
        first, second, third = (abs(a - b) for a, b in itertools.pairwise(x))
        return float(2 * mpmath.log(second / third, 2) - mpmath.log(first / second, 2))


def smooth(n: int) -> list[float]:
    """A smooth grid of uneven steps, sigma from 6 down to 1."""
    return [1 - (i / n + 0.1 * math.sin(math.pi * i / n) ** 2) for i in range(n + 1)]


@pytest.mark.parametrize("name", [n for n in NAMES if solvers.get(n).declared.deterministic])
def test_the_limit_is_the_exact_flow(name: str) -> None:
    plan = solvers.get(name).plan(VE(1.0, 6.0), smooth(400), 0.0)
    with mpmath.workdps(40):
        error = abs(interpret(plan, gaussian_data, mpf(3.1)) - exact(plan, mpf(3.1)))
    assert error < {1: 5e-3, 2: 2e-5, 3: 1e-7, 4: 1e-9, 5: 1e-9, 8: 1e-12}[solvers.get(name).declared.deterministic]


@pytest.mark.parametrize(
    "name, options, steps",
    [
        ("ddim", {}, 200),
        ("euler", {}, 200),
        ("midpoint", {}, 100),
        ("heun", {}, 100),
        ("rk4", {}, 30),
        ("heun", {"clock": "t"}, 100),
        ("rk4", {"clock": "t"}, 30),
        ("edm_heun", {}, 100),
        ("dpmpp_2m", {}, 100),
        ("exp_adams", {"order": 1}, 200),
        ("exp_adams", {"order": 2, "prediction": "noise"}, 100),
        ("exp_adams", {"order": 3, "starter": "single_step", "prediction": "noise"}, 60),
        ("exp_adams", {"order": 4, "starter": "single_step", "prediction": "noise"}, 60),
        ("exp_adams", {"order": 5, "starter": "single_step"}, 120),
        ("dpm_solver_2", {}, 100),
        ("dpm_solver_2", {"r1": 0.3, "second": "exact"}, 100),
        ("dpmpp_2s", {}, 100),
        ("dpm_solver_3", {}, 60),
        ("dpm_solver_3", {"third": "parabola", "prediction": "data"}, 60),
        ("dpm_solver_3", {"r2": 0.6}, 100),
        ("dpmpp_3m", {"starter": "single_step"}, 250),
        ("dpmpp_3m", {"starter": "single_step", "as_released": True}, 100),
        ("unipc", {"order": 1}, 100),
        ("unipc", {}, 100),
        ("unipc", {"variant": "bh1", "prediction": "noise"}, 100),
        ("unipc", {"variant": "exact"}, 250),
        ("unipc", {"order": 3, "starter": "single_step"}, 160),
        ("unipc", {"order": 4, "starter": "single_step", "corrector": "pece", "prediction": "noise"}, 100),
        ("unipc", {"order": 3, "starter": "single_step", "corrector": "none"}, 300),
    ],
)
def test_orders_come_out_to_two_digits_in_milliseconds(name: str, options, steps: int) -> None:
    solver = solvers.get(name, **options)
    assert order(solver, smooth, steps) == pytest.approx(solver.declared.deterministic, abs=0.03)


def test_start_up_and_last_step_limit_the_order_as_declared() -> None:
    # A ramp of orders 1, 2, 3 costs the third order; so does a last step of order 1.
    ramp, capped = (
        solvers.get("exp_adams", order=3),
        solvers.get("exp_adams", order=3, starter="single_step", final_order=1),
    )
    assert ramp.declared.deterministic == capped.declared.deterministic == 2
    for solver in (ramp, capped):
        assert order(solver, smooth, 100) == pytest.approx(2, abs=0.05)


def test_a_planted_mistake_is_seen_at_once() -> None:
    # sigma_s for sigma_t in one coefficient of every row: no longer a consistent method.
    class Wrong:
        def plan(self, process, times, tau):
            plan = solvers.get("dpmpp_2m").plan(process, times, tau)
            rows = [
                dataclasses.replace(
                    r, base=dataclasses.replace(r.base, outputs=((0, sum(b for _, b in r.base.outputs)),))
                )
                for r in plan.rows
            ]
            return dataclasses.replace(plan, rows=tuple(rows))

    assert order(Wrong(), smooth, 100) == pytest.approx(1, abs=0.05)


def test_a_noise_that_a_step_uses_twice_is_drawn_once() -> None:
    level = VP().levels([0.5])[0]
    rows = (stage(0, level, DATA, 1.0, {0: 0.1}, {0: 1.0}), commit(0, level, DATA, 1.0, {0: 0.1}, {0: 10.0, 1: 100.0}))
    plan = Plan("mine", (0.5, 0.4), rows, (level.alpha, level.sigma), (0.9, 0.4), "VP()")
    drawn: list[tuple[int, int]] = []

    def noise(step: int, stream: int) -> float:
        drawn.append((step, stream))
        return float(len(drawn))

    # point = 1 + 0.1 * 1 + 1, E = point, x = 1 + 0.1 * 2.1 + 10 * 1 + 100 * 2.
    assert interpret(plan, lambda row, x: x, 1.0, noise) == pytest.approx(211.21, rel=1e-14)
    assert drawn == [(0, 0), (0, 1)]
