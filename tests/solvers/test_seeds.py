"""SEEDS-2 and SEEDS-3 are the published updates, to rounding, with noise that runs on through the stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sdekit import EDM, VP, solvers
from sdekit.errors import SolverMismatchError
from sdekit.plan import Plan, interpret
from sdekit.solvers.exponential import exponential_step
from sdekit.testing import gaussian_problem, observed_order
from tests.solvers import papers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, draw, nonlinear, times


def segments(plan: Plan, process, lam: Sequence[float], places: Sequence[float], pp: bool, kappa: float) -> np.ndarray:
    """The normals of the parts of each step that the plan's own make, (steps, parts, streams).

    n_j is what row j of a step adds; the part between u_j and u_{j+1} is (n_{j+1} - a n_j) / std there.
    """
    at = papers.scales_of(process)
    found = []
    for n, (ls, lt) in enumerate(itertools.pairwise(lam)):
        rows = [row for row in plan.rows if row.step == n]
        added: list[Any] = [dict((row.base or row.point).noises) for row in rows]  # type: ignore[union-attr]
        vectors = [np.array([float(a.get(k, 0.0)) for k in range(len(rows))]) for a in added]
        u = [ls, *(ls + r * (lt - ls) for r in places), lt]
        before, parts = np.zeros(len(rows)), []
        for (a, b), after in zip(itertools.pairwise(u), vectors, strict=True):
            (a_a, s_a), (a_b, s_b), h = at(a), at(b), b - a
            scale = s_b / s_a * math.exp(-(kappa**2) * h) if pp else a_b / a_a
            rate = -math.expm1(-2 * kappa**2 * h) if pp else kappa**2 * math.expm1(2 * h)
            parts.append((after - scale * before) / (s_b * math.sqrt(rate)))
            before = after
        found.append(parts)
    return np.array(found)


def seeds_2(
    at: papers.Scales, lam: list[float], x: float, z: np.ndarray, r: float, pp: bool, kappa: float, exact: bool
):
    """With h' = (1 + kappa^2) h; for noise prediction and kappa = 1 the factor is the paper's 2."""
    c = 1 + kappa**2
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        h, lm = lt - ls, ls + r * (lt - ls)
        (a_s, s_s), (a_m, s_m), (a_t, s_t) = at(ls), at(lm), at(lt)
        if pp:
            D = papers.data(at, ls, x)
            noise = math.sqrt(-math.expm1(-2 * r * h * kappa**2)) * z[i, 0]
            u = s_m / s_s * math.exp(-r * h * kappa**2) * x - a_m * math.expm1(-r * h * c) * D + s_m * noise
            d = papers.data(at, lm, u) - D
            b2 = (math.expm1(-h * c) + h * c) / (-h * c) / r if exact else math.expm1(-h * c) / (2 * r)
            x = s_t / s_s * math.exp(-h * kappa**2) * x - a_t * (math.expm1(-h * c) * D + b2 * d)
            rest = math.exp((r - 1) * h * kappa**2) * noise
            x += s_t * (rest + math.sqrt(-math.expm1(2 * (r - 1) * h * kappa**2)) * z[i, 1])
        else:
            e = papers.noise(at, ls, x)
            u = (
                a_m / a_s * x
                - c * s_m * math.expm1(r * h) * e
                + s_m * kappa * math.sqrt(math.expm1(2 * r * h)) * z[i, 0]
            )
            d = papers.noise(at, lm, u) - e
            b2 = (math.expm1(h) - h) / h / r if exact else math.expm1(h) / (2 * r)
            x = a_t / a_s * x - c * s_t * (math.expm1(h) * e + b2 * d)
            first = math.sqrt(math.exp(2 * h) - math.exp(2 * (1 - r) * h)) * z[i, 0]
            x += s_t * kappa * (first + math.sqrt(math.expm1(2 * (1 - r) * h)) * z[i, 1])
    return x


def seeds_3(at: papers.Scales, lam: list[float], x: float, z: np.ndarray, r1: float, r2: float, kappa: float) -> float:
    """Data prediction, as ComfyUI's seeds_3 has it too, with eta = kappa^2."""
    c, k = 1 + kappa**2, kappa**2
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        h = lt - ls
        l1, l2 = ls + r1 * h, ls + r2 * h
        (_, s_s), (a_1, s_1), (a_2, s_2), (a_t, s_t) = at(ls), at(l1), at(l2), at(lt)

        def phi_1(v: float) -> float:
            return math.expm1(v)

        def phi_2(v: float) -> float:
            return (math.expm1(v) - v) / v

        D = papers.data(at, ls, x)
        n = math.sqrt(-math.expm1(-2 * r1 * h * k)) * z[i, 0]
        x1 = s_1 / s_s * math.exp(-r1 * h * k) * x - a_1 * phi_1(-r1 * h * c) * D + s_1 * n
        D1 = papers.data(at, l1, x1)
        n = math.exp((r1 - r2) * h * k) * n + math.sqrt(-math.expm1(2 * (r1 - r2) * h * k)) * z[i, 1]
        x2 = s_2 / s_s * math.exp(-r2 * h * k) * x + s_2 * n
        x2 -= a_2 * (phi_1(-r2 * h * c) * D + r2 / r1 * phi_2(-r2 * h * c) * (D1 - D))
        D2 = papers.data(at, l2, x2)
        n = math.exp((r2 - 1) * h * k) * n + math.sqrt(-math.expm1(2 * (r2 - 1) * h * k)) * z[i, 2]
        x = s_t / s_s * math.exp(-h * k) * x + s_t * n
        x -= a_t * (phi_1(-h * c) * D + phi_2(-h * c) / r2 * (D2 - D))
    return x


def noises(parts: np.ndarray) -> np.ndarray:
    """The normals of the parts that `draw` makes."""
    values = np.array([[draw(i, k) for k in range(parts.shape[2])] for i in range(len(parts))])
    return np.einsum("ipk,ik->ip", parts, values)


def orthonormal(parts: np.ndarray) -> bool:
    return bool(np.allclose(parts @ parts.transpose(0, 2, 1), np.eye(parts.shape[1]), rtol=0, atol=1e-10))


@pytest.mark.parametrize("kappa", [0.6, 1.0])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("r, second", [(0.5, "half"), (0.5, "exact"), (0.3, "half"), (1.0, "exact")])
def test_seeds_2_is_the_papers(r: float, second: str, prediction: str, kappa: float) -> None:
    pp = prediction == "data"
    for process in PROCESSES[:2]:
        plan = solvers.get("seeds_2", r=r, second=second, prediction=prediction).plan(process, times(process), kappa)
        x = 2.3 * plan.start[0]
        if r < 1:
            parts = segments(plan, process, LAMBDAS, [r], pp, kappa)
            assert orthonormal(parts)
            z = noises(parts)
        else:
            z = np.array([[draw(i, 0), 0.0] for i in range(len(LAMBDAS) - 1)])
        want = seeds_2(papers.scales_of(process), LAMBDAS, x, z, r, pp, kappa, second == "exact")
        assert interpret(plan, nonlinear, x, draw) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("kappa", [0.6, 1.0])
def test_seeds_3_is_the_published_update(kappa: float) -> None:
    for process, (r1, r2) in itertools.product(PROCESSES[:2], ((1 / 3, 2 / 3), (0.2, 0.9))):
        plan = solvers.get("seeds_3", r1=r1, r2=r2).plan(process, times(process), kappa)
        parts = segments(plan, process, LAMBDAS, [r1, r2], True, kappa)
        assert orthonormal(parts)
        x = 2.3 * plan.start[0]
        want = seeds_3(papers.scales_of(process), LAMBDAS, x, noises(parts), r1, r2, kappa)
        assert interpret(plan, nonlinear, x, draw) == pytest.approx(want, rel=1e-12)


def test_without_noise_they_are_dpm_solvers() -> None:
    for process in PROCESSES:
        for name, other in (("seeds_2", "dpm_solver_2"), ("seeds_3", "dpm_solver_3")):
            for prediction in ("data", "noise"):
                plans = [
                    solvers.get(n, prediction=prediction).plan(process, times(process), 0.0) for n in (name, other)
                ]
                a, b = (interpret(p, nonlinear, 2.3 * p.start[0]) for p in plans)
                assert a == pytest.approx(b, rel=1e-13)


@pytest.mark.parametrize("name", ["seeds_2", "seeds_3"])
def test_laws_that_are_exact(name: str) -> None:
    """Data that is a point, for any stochasticity; the mean of any Gaussian for stochasticity 1."""
    for process, n in itertools.product(PROCESSES[::2], (1, 6)):
        grid = times(process, LAMBDAS[: n + 1])
        for kappa in (0.5, 1.0, 2.0, lambda t: 0.3 + t / (1 + t)):
            plan = solvers.get(name).plan(process, grid, kappa)
            law = plan.gaussian_moments(1.7, 0.0)
            assert float(law.mean) == pytest.approx(plan.end[0] * 1.7, rel=1e-13)
            assert float(law.cov) == pytest.approx(plan.end[1] ** 2, rel=1e-13)
        plan, c, m, x = solvers.get(name).plan(process, grid, 1.0), 0.3, 0.7, 1.9
        (a, s), (b, t) = plan.start, plan.end
        slope = (b * a * c + a / b * t**2) / (a**2 * c + s**2)
        law = plan.gaussian_moments(m, c, start_mean=x, start_cov=0.0)
        assert float(law.mean) == pytest.approx(b * m + slope * (x - a * m), rel=1e-12)


class Independent(solvers.PlanSolver):
    """SEEDS-2 with a mistake: the stage's noise is not the step's."""

    declared = solvers.Order(weak=1)
    default_stochasticity = 1.0

    def rows(self, process, times, stochasticity):
        import dataclasses

        rows = []
        for row in solvers.get("seeds_2").rows(process, times, stochasticity):
            if row.point is not None:
                size = math.hypot(*(float(v) for _, v in row.point.noises))
                row = dataclasses.replace(row, point=dataclasses.replace(row.point, noises=((1, size),)))
            rows.append(row)
        return rows


def test_independent_noises_would_leave_weak_order_one() -> None:
    found = observed_order(Independent(), "weak", gaussian_problem(), steps=(20, 40, 80, 160), stochasticity=1.0)
    assert 0.8 < found.value < 1.3, str(found)
    right = observed_order("seeds_2", "weak", gaussian_problem(), steps=(20, 40, 80, 160))
    assert right.value > 1.85 and right.errors[-1] < found.errors[-1] / 5


def test_the_noise_of_a_whole_step_is_that_of_the_exact_solution() -> None:
    """So that seeds_2 follows the path of other solvers; three noises are more than a path gives."""
    process = VP()
    grid = times(process)
    for kappa, name in itertools.product((0.5, 1.0), ("seeds_2", "seeds_3")):
        plan = solvers.get(name).plan(process, grid, kappa)
        last = [row for row in plan.rows if row.base is not None]
        for row, (s, t) in zip(last, itertools.pairwise(process.levels(grid)), strict=True):
            want = exponential_step(process, s, t, "data", kappa).std
            assert dict(row.base.noises) == {0: pytest.approx(want, rel=1e-13)}  # type: ignore[union-attr]
    assert solvers.get("seeds_2").plan(process, grid, 1.0).clock == solvers.get("ddpm").plan(process, grid).clock
    with pytest.raises(SolverMismatchError, match="path"):
        observed_order("seeds_3", "strong", steps=(16, 32, 64))


def test_a_last_step_to_zero_takes_one_call() -> None:
    for name, calls in (("seeds_2", 5), ("seeds_3", 7)):
        assert solvers.get(name).plan(EDM(), [2.0, 1.0, 0.5, 0.0], 1.0).nfe == calls


def test_paths_of_seeds_3_are_of_order_one() -> None:
    """Against a finer solution of another family, both with the noise of one path, of 512 paths, on EDM."""
    process, fine, low, high = EDM(), 768, -1.0, 1.0
    lam = np.linspace(low, high, fine + 1).tolist()
    z = np.random.default_rng(0).standard_normal((fine, 512))
    x = 2.3 * np.random.default_rng(1).standard_normal(512)

    def data(row, v: np.ndarray) -> np.ndarray:
        rho2, y = (row.sigma / row.alpha) ** 2, v / row.alpha
        return 0.1 / (0.1 + rho2) * y + rho2 / (0.1 + rho2) * np.tanh(y / (0.1 + rho2))

    exact = interpret(solvers.get("exp_adams").plan(process, times(process, lam), 1.0), data, x, lambda i, _: z[i])

    def error(n: int) -> float:
        plan = solvers.get("seeds_3").plan(process, times(process, lam[:: fine // n]), 1.0)
        drawn = {}
        for i in range(n):
            noise, added = np.zeros(512), []
            for k in range(i * fine // n, (i + 1) * fine // n):
                scale, h = math.exp(-2 * (lam[k + 1] - lam[k])), lam[k + 1] - lam[k]
                noise = scale * noise + math.exp(-lam[k + 1]) * math.sqrt(-math.expm1(-2 * h)) * z[k]
                if (k + 1) * 3 * n % fine == 0:
                    added.append(noise)
            rows: list[Any] = [row for row in plan.rows if row.step == i]
            sizes = [dict((row.base or row.point).noises) for row in rows]
            matrix = np.array([[float(a.get(c, 0.0)) for c in range(3)] for a in sizes])
            drawn[i] = np.linalg.solve(matrix, np.array(added))
        end = interpret(plan, data, x, lambda step, stream: drawn[step][stream])
        return float(np.sqrt(np.mean((end - exact) ** 2)))

    errors = [error(n) for n in (8, 16, 32)]
    slopes = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert 0.85 < slopes.mean() < 1.3, f"{errors} {slopes}"
