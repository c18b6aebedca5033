"""Restart sampling: the released sampler, the order of its flow, contraction, and what it refuses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

import sdekit
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.plan import Plan, Row, interpret
from sdekit.solvers import Order, PlanSolver
from sdekit.testing import observed_order

VP, EDM = sdekit.VP(), sdekit.EDM()


def restart(intervals=((0.2, 1.0, 2, None),), **options) -> PlanSolver:
    return sdekit.solvers.get("restart", intervals=intervals, **options)


def bent(sigma: float, x):
    return np.sin(1.3 * x + sigma) + 0.2


def released(x, noises, grid, restarts, s_noise):
    """`restart_sampler` of generate_restart.py with S_churn = 0, on a grid of sigmas; restarts maps the index of a
    level to (points, repetitions, t_max)."""

    def heun(x, s, t):
        d = (x - bent(s, x)) / s
        y = x + (t - s) * d
        return x + (t - s) * 0.5 * (d + (y - bent(t, y)) / t)

    noise = iter(noises)
    for i, (s, t) in enumerate(itertools.pairwise(grid)):
        x = heun(x, s, t)
        points, repetitions, t_max = restarts.get(i + 1, (0, 0, 0.0))
        for _ in range(repetitions):
            way = (t_max ** (1 / 7) + np.arange(points) / (points - 1) * (t ** (1 / 7) - t_max ** (1 / 7))) ** 7
            x = x + next(noise) * math.sqrt(way[0] ** 2 - way[-1] ** 2) * s_noise
            for a, b in itertools.pairwise(way):
                x = heun(x, a, b)
    return x


@pytest.mark.parametrize("s_noise", [1.0, 1.003])
def test_it_is_the_released_sampler(s_noise):
    grid = sdekit.grids.get("karras")(EDM, 9).tolist()
    intervals = [(grid[6], 1.7, 3, 4), (grid[3], 30.0, 1, 2)]
    plan = restart(intervals, s_noise=s_noise).plan(EDM, grid)
    rng = np.random.default_rng(0)
    start, noises = rng.standard_normal(6) * 80, rng.standard_normal((4, 6))
    table = dict(zip(plan.noises(), noises, strict=True))
    found = interpret(plan, lambda row, x: bent(row.sigma, x), start, lambda step, stream: table[step, stream])
    expected = released(start, noises, grid, {6: (5, 3, 1.7), 3: (3, 1, 30.0)}, s_noise)
    assert np.abs(found - expected).max() < 1e-12
    assert [row.step for row in plan.rows] == [0] * 2 + [1] * 2 + [2] * 6 + [3] * 2 + [4] * 2 + [5] * 26 + sorted(
        [6, 7, 8] * 2
    )


@pytest.mark.parametrize("inner, order", [("heun", 2), ("dpm_solver_3", 3), ("rk4", 4)])
def test_the_weak_order_is_the_flows(inner, order):
    """Two intervals, one inside the other's range; the ends are not on the grid."""
    solver = restart([(0.2, 1.0, 2, None), (0.5, 2.0, 1, None)], inner=inner)
    assert solver.declared.weak == order
    found = observed_order(solver, "weak", grid="karras", steps=(20, 40, 80))
    assert order - 0.15 <= found.value <= order + 0.35, str(found)


@pytest.mark.parametrize("options", [{"s_noise": 1.01}, {"intervals": [(0.2, 1.0, 2, 3)]}], ids=str)
def test_what_does_not_converge_declares_nothing(options):
    solver = restart(**options)
    assert solver.declared.weak is None and solver.declared.note.startswith("none")
    found = observed_order(solver, "weak", steps=(40, 80, 160))
    assert abs(found.value) < 0.1 and found.errors[-1] > 1e-4, str(found)


@dataclass(frozen=True)
class SameNoise(PlanSolver):
    """A mutant: every repetition draws the same noise."""

    fixed_stochasticity = 0.0
    declared = Order(weak=2)

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        def first(row: Row) -> Row:
            kick = row.kick
            return row if kick is None else replace(row, kick=replace(kick, noises=((0, kick.noises[0][1]),)))

        return [first(row) for row in restart().rows(process, times, 0.0)]


def test_one_noise_for_all_repetitions_shows():
    assert not observed_order(SameNoise(), "weak", steps=(20, 40, 80)).reaches(2)


def test_a_restart_forgets_where_it_started():
    """A shift of the state at rho_min keeps its size in a kick and falls by sqrt(c + rho^2) on the way down."""
    c, low, high = 0.49, 0.3, 2.0
    grid = np.exp(np.linspace(math.log(3.0), math.log(0.3), 61)).tolist()
    factor = math.sqrt((c + low**2) / (c + high**2))
    for repetitions in (1, 2, 3):
        plan = restart([(low, high, repetitions, 60)], inner="rk4").plan(EDM, grid)
        law = plan.gaussian_moments(0.0, c, start_mean=1.0, start_cov=c + 9.0)
        flow = math.sqrt((c + low**2) / (c + 9.0))
        assert float(law.mean) == pytest.approx(flow * factor**repetitions, rel=1e-6)
        assert float(law.cov) == pytest.approx(c + low**2, rel=1e-6)


def calls(plan: Plan) -> list[int]:
    return [sum(row.step == n for row in plan.rows) for n in range(plan.steps)]


def test_where_an_interval_stands_in_the_grid():
    grid = [4.0, 2.0, 1.0, 0.5, 0.25]

    def counts(*interval) -> list[int]:
        return calls(restart([interval], inner="ddim").plan(EDM, grid))

    assert counts(1.0, 3.0, 2, None) == [1, 1 + 2 * 2, 1, 1]  # on a level: 3 -> 2 -> 1, twice
    assert counts(0.7, 1.5, 3, None) == [1, 1, 2 + 3 * 2, 1]  # between levels: 1 -> 0.7, (1.5 -> 1 -> 0.7), 0.7 -> 0.5
    assert counts(0.7, 0.9, 1, None) == [1, 1, 2 + 1, 1]
    assert counts(0.25, 9.0, 1, 2) == [1, 1, 1, 1 + 2]  # at the last level, from above the first
    assert counts(0.2, 1.0, 1, None) == counts(4.0, 5.0, 1, None) == [1, 1, 1, 1]  # not passed
    low, high = (float(EDM.time_at(-math.log(v))) for v in (0.7, 1.5))
    times = [row.t for row in restart([(0.7, 1.5, 1, None)], inner="ddim").plan(EDM, grid).rows]
    assert times == pytest.approx([4.0, 2.0, 1.0, high, 1.0, low, 0.5], rel=1e-12)


def test_two_intervals_that_begin_together_draw_noises_of_their_own():
    plan = restart([(1.0, 3.0, 2, None), (1.0, 2.0, 3, 1)], inner="ddim").plan(EDM, [4.0, 2.0, 1.0, 0.5])
    assert list(plan.noises()) == [(1, k) for k in range(5)]


def test_from_alpha_0_and_to_sigma_0():
    """Rows stay finite, and point-mass data is met exactly."""
    process = sdekit.RectifiedFlow()
    times = [1.0, 0.8, 0.5, 0.2, 0.0]
    plan = restart([(0.1, 1.5, 2, None), (0.6, 3.0, 1, 2)], inner="dpmpp_2s").plan(process, times)
    law = plan.gaussian_moments(0.3, np.zeros(2))
    assert np.allclose(law.mean, 0.3, atol=1e-12) and np.allclose(law.cov, 0.0, atol=1e-12)


def test_without_intervals_it_is_the_flow_itself():
    times = sdekit.grids.get("karras")(VP, 5).tolist()
    assert restart([]).plan(VP, times).rows == sdekit.solvers.get("heun").plan(VP, times).rows
    assert restart([]).declared.deterministic == 2 and not restart([]).plan(VP, times[::-1]).stochastic


def test_what_it_refuses():
    with pytest.raises(SolverMismatchError, match="multistep"):
        restart(inner="dpmpp_2m")
    with pytest.raises(SolverMismatchError, match="decreasing"):
        restart().plan(VP, [0.1, 0.9])
    with pytest.raises(OptionError, match="rho_max"):
        restart([(0.2, 1e4, 1, None)]).plan(VP, [0.9, 1e-3])
    with pytest.raises(OptionError, match="rho_min < rho_max"):
        restart([(1.0, 0.2, 1, None)])
    with pytest.raises(InterfaceError, match="repetitions"):
        restart([(0.2, 1.0, 1.5, None)])
    with pytest.raises(OptionError, match="steps"):
        restart([(0.2, 1.0, 1, 0)])
    for wrong in ("karras", 3, [0.2, 1.0, 1, None], [(0.2, 1.0)]):
        with pytest.raises(InterfaceError, match="intervals"):
            restart(wrong)
