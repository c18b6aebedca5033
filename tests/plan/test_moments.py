"""The exact law of a sampler's output against recursions written by hand, and its three paths against each other."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from sdekit import EDM, VP, Plan, RectifiedFlow, solvers
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.plan import DATA, Block, Direction, commit, interpret, interpret_all
from sdekit.solvers import PlanSolver

NAMES = [i.name for i in solvers.available() if isinstance(solvers.get(i.name), PlanSolver)]
GENERATOR = np.random.default_rng(0)
BASIS = np.linalg.qr(GENERATOR.normal(size=(3, 3)))[0]
VALUES = np.array([0.2, 1.0, 2.5])
MATRIX = BASIS * VALUES @ BASIS.T
MEAN = np.array([0.7, -1.2, 0.1])


def times(process, n: int = 6) -> list[float]:
    return (
        np.linspace(0.9, 0.05, n + 1).tolist()
        if not isinstance(process, EDM)
        else np.geomspace(20, 0.05, n + 1).tolist()
    )


def test_one_step_of_ddpm_by_hand() -> None:
    process, (t, s) = VP(), (0.4, 0.6)
    (a_s, s_s, l_s), (a_t, s_t, l_t) = (
        (float(process.alpha(u)), float(process.sigma(u)), float(process.half_log_snr(u))) for u in (s, t)
    )
    m, c = 0.7, 0.3
    gain = a_s * c / (a_s**2 * c + s_s**2)
    q = 1 - math.exp(-2 * (l_t - l_s))
    a, b = s_t / s_s * math.exp(-(l_t - l_s)), a_t * q
    law = solvers.get("ddpm").plan(process, [s, t]).gaussian_moments(m, c)
    slope = a + b * gain
    mean = slope * a_s * m + b * (1 - gain * a_s) * m
    assert float(law.mean) == pytest.approx(mean, rel=1e-14)
    assert float(law.cov) == pytest.approx(slope**2 * (a_s**2 * c + s_s**2) + s_t**2 * q, rel=1e-14)
    # From a fixed point instead of the marginal.
    law = solvers.get("ddpm").plan(process, [s, t]).gaussian_moments(m, c, start_mean=2.0, start_cov=0.0)
    assert float(law.mean) == pytest.approx(slope * 2.0 + b * (1 - gain * a_s) * m, rel=1e-14)
    assert float(law.cov) == pytest.approx(s_t**2 * q, rel=1e-14)


@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_2m_by_the_two_by_two_recursion(process, kappa: float) -> None:
    # State (x - alpha m, D_{n-1} - m) with D - m = K (x - alpha m): T = [[a + b0 K, b1], [K, 0]].
    grid, c = times(process), 0.4
    lam = process.half_log_snr(torch.tensor(grid, dtype=torch.float64)).tolist()
    alpha, sigma = (
        process.alpha(torch.tensor(grid, dtype=torch.float64)).tolist(),
        process.sigma(torch.tensor(grid, dtype=torch.float64)).tolist(),
    )
    P = np.array([[alpha[0] ** 2 * c + sigma[0] ** 2, 0.0], [0.0, 0.0]])
    for n in range(len(grid) - 1):
        h, w = lam[n + 1] - lam[n], 1 + kappa**2
        total = alpha[n + 1] * (1 - math.exp(-w * h))
        half = 0.0 if n == 0 else total * h / (2 * (lam[n] - lam[n - 1]))
        gain = alpha[n] * c / (alpha[n] ** 2 * c + sigma[n] ** 2)
        a = sigma[n + 1] / sigma[n] * math.exp(-(kappa**2) * h)
        T = np.array([[a + (total + half) * gain, -half], [gain, 0.0]])
        P = T @ P @ T.T
        P[0, 0] += sigma[n + 1] ** 2 * (1 - math.exp(-2 * kappa**2 * h))
    law = solvers.get("dpmpp_2m").plan(process, grid, kappa).gaussian_moments(0.7, c)
    assert float(law.cov) == pytest.approx(P[0, 0], rel=1e-12)
    assert float(law.mean) == pytest.approx(alpha[-1] * 0.7, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_number_diagonal_eigenbasis_and_dense_agree(name: str) -> None:
    plan = solvers.get(name).plan(VP(), times(VP()))
    each = [plan.gaussian_moments(float(m), float(v)) for m, v in zip(BASIS.T @ MEAN, VALUES, strict=True)]
    mean = BASIS @ np.array([float(e.mean) for e in each])
    cov = BASIS * np.array([float(e.cov) for e in each]) @ BASIS.T
    full = plan.gaussian_moments(MEAN, MATRIX)
    start = float(plan.start[0]) ** 2 * MATRIX + float(plan.start[1]) ** 2 * np.eye(3)
    dense = plan.gaussian_moments(MEAN, MATRIX, start_cov=start)
    for law in (full, dense):
        np.testing.assert_allclose(law.mean, mean, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(law.cov, cov, rtol=1e-12, atol=1e-13)
    diagonal = plan.gaussian_moments(MEAN, VALUES)
    as_matrix = plan.gaussian_moments(MEAN, np.diag(VALUES))
    np.testing.assert_allclose(np.diag(diagonal.cov), as_matrix.cov, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(diagonal.mean, as_matrix.mean, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_law_is_what_the_plan_does_to_its_start_and_noises(name: str) -> None:
    # Black box: run the plan on the zero start, on a unit start, and with each noise switched on alone.
    plan, m, c = solvers.get(name).plan(VP(), times(VP(), 4)), 0.7, 0.4
    tau = 0.5 if solvers.get(name).fixed_stochasticity is None else None
    plan = plan if tau is None else solvers.get(name).plan(VP(), times(VP(), 4), tau)

    def data(row, x: float) -> float:
        gain = row.alpha * c / (row.alpha**2 * c + row.sigma**2)
        return m + gain * (x - row.alpha * m)

    def run(start: float, on: tuple[int, int] | None = None) -> float:
        return interpret(plan, data, start, lambda step, stream: float((step, stream) == on))

    zero = run(0.0)
    slope, noises = run(1.0) - zero, [run(0.0, key) - zero for key in plan.noises()]
    law = plan.gaussian_moments(m, c, start_mean=0.3, start_cov=0.8)
    assert float(law.mean) == pytest.approx(zero + 0.3 * slope, rel=1e-12)
    assert float(law.cov) == pytest.approx(0.8 * slope**2 + sum(v**2 for v in noises), rel=1e-12)
    assert float(law.cov) != pytest.approx(0.8 * slope**2 + sum(noises) ** 2, rel=1e-3) or len(noises) < 2


def test_start_laws_of_every_shape() -> None:
    plan = solvers.get("dpmpp_2m_sde").plan(VP(), times(VP()))
    S = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]])
    dense = plan.gaussian_moments(MEAN, np.diag(VALUES), start_mean=np.ones(3), start_cov=S)
    eigen = plan.gaussian_moments(MEAN, MATRIX, start_mean=np.ones(3), start_cov=2.0)
    full = plan.gaussian_moments(MEAN, MATRIX, start_mean=np.ones(3), start_cov=2.0 * np.eye(3))
    np.testing.assert_allclose(eigen.cov, full.cov, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(eigen.mean, full.mean, rtol=1e-12, atol=1e-13)
    # Each coordinate is its slope times its start, plus noise of its own.
    ends = [plan.gaussian_moments(MEAN, VALUES, start_mean=np.full(3, v), start_cov=0.0) for v in (0.0, 1.0)]
    slopes = (ends[1].mean - ends[0].mean).numpy()
    np.testing.assert_allclose(dense.cov, np.outer(slopes, slopes) * S + np.diag(ends[0].cov), rtol=1e-12, atol=1e-16)
    image = plan.gaussian_moments(np.zeros((2, 3)), np.ones((2, 3)))
    assert image.mean.shape == image.cov.shape == (2, 3)
    assert plan.gaussian_moments(np.zeros((2, 3)), np.eye(6)).cov.shape == (6, 6)
    tensors = plan.gaussian_moments(torch.zeros(3), torch.ones(3))
    np.testing.assert_array_equal(tensors.cov, plan.gaussian_moments(np.zeros(3), np.ones(3)).cov)
    assert plan.gaussian_moments(0.0, np.ones(3), start_mean=np.ones(3)).mean.shape == (3,)
    assert plan.gaussian_moments(0.0, 1.0, start_mean=np.ones(3)).cov.shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_point_masses_and_both_singular_ends_are_finite(name: str) -> None:
    for process, grid in ((RectifiedFlow(), [1.0, 0.6, 0.3, 0.0]), (VP(), [1.0, 0.5, 0.0])):
        try:
            plan = solvers.get(name).plan(process, grid)
        except OptionError:
            continue
        for cov in (0.0, [0.0, 1.0], [[1.0, 1.0], [1.0, 1.0]]):
            law = plan.gaussian_moments([0.5, -0.5], cov)
            assert torch.isfinite(law.mean).all() and torch.isfinite(law.cov).all()
            assert (law.cov.diagonal() if law.cov.ndim == 2 else law.cov).min() >= 0


def test_rows_in_velocity_have_a_law_at_sigma_zero() -> None:
    # Heun in t ends with a call at sigma = 0, where noise does not follow from data by division.
    plan = solvers.get("heun", clock="t").plan(RectifiedFlow(), np.linspace(1, 0, 401))
    law = plan.gaussian_moments(0.7, 0.4)
    assert float(law.cov) == pytest.approx(0.4, rel=1e-4) and float(law.mean) == pytest.approx(0.7, rel=1e-4)
    with pytest.raises(OptionError, match="sigma = 0"):
        interpret(plan, lambda row, x: x, 1.0)


def two_steps(first, second) -> Plan:
    """x <- first x + D / 4 + second z, twice, at alpha = 0.6, sigma = 0.8."""
    level = VP().levels([0.5])[0]._replace(alpha=0.6, sigma=0.8)
    rows = tuple(commit(n, level, DATA, first, {0: 0.25}, {0: second}) for n in range(2))
    return Plan("mine", (1.0, 0.75, 0.5), rows, (0.3, 0.95), (0.6, 0.8), "VP()")


def test_directions_act_on_each_direction() -> None:
    a, b = np.array([0.5, 0.9]), np.array([0.1, 0.7])
    plan = two_steps(Direction(a), Direction(b))
    for cov in (0.4, [0.4, 0.4], 0.4 * np.eye(2)):
        law = plan.gaussian_moments([0.2, -0.1], cov)
        for i in range(2):
            alone = two_steps(float(a[i]), float(b[i])).gaussian_moments([0.2, -0.1][i], 0.4)
            assert float(law.mean[i]) == pytest.approx(float(alone.mean), rel=1e-13)
            got = law.cov[i] if law.cov.ndim == 1 else law.cov[i, i]
            assert float(got) == pytest.approx(float(alone.cov), rel=1e-13)
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        plan.gaussian_moments(0.2, 0.4)


def test_blocks_mix_the_first_axis() -> None:
    A, N = np.array([[0.5, 0.2], [-0.1, 0.9]]), np.array([[0.3, 0.0], [0.2, 0.1]])
    plan = two_steps(Block(A), Block(N))
    c, K = 0.4, 0.6 * 0.4 / (0.36 * 0.4 + 0.64)
    m, mean = np.array([0.2, -0.1]), 0.3 * np.array([0.2, -0.1])
    P = (0.3**2 * c + 0.95**2) * np.eye(2)
    for _ in range(2):
        T = A + 0.25 * K * np.eye(2)
        mean, P = T @ mean + 0.25 * (1 - K * 0.6) * m, T @ P @ T.T + N @ N.T
    law = plan.gaussian_moments(m, c)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(law.cov, P, rtol=1e-13)
    wide = plan.gaussian_moments(np.stack([m, m, m], 1), c)
    np.testing.assert_allclose(wide.mean, np.stack([mean] * 3, 1), rtol=1e-13)
    np.testing.assert_allclose(wide.cov, np.kron(P, np.eye(3)), rtol=1e-13, atol=1e-15)
    with pytest.raises(ShapeError):
        plan.gaussian_moments(0.2, 0.4)


def test_every_family_keeps_the_mean_of_the_exact_marginal_but_those_in_t() -> None:
    for name in NAMES:
        plan = solvers.get(name).plan(VP(), times(VP(), 8))
        error = abs(float(plan.gaussian_moments(0.7, 0.4).mean) - 0.7 * plan.end[0])
        # The reverse-diffusion predictor steps in t too.
        assert (error < 1e-13) == (name not in ("euler_maruyama", "sra1", "shark", "predictor_corrector")), name
    assert (
        abs(
            float(solvers.get("heun", clock="t").plan(VP(), times(VP(), 8)).gaussian_moments(0.7, 0.4).mean)
            - 0.7 * plan.end[0]
        )
        > 1e-4
    )


def test_a_planted_sigma_changes_the_law() -> None:
    plan = solvers.get("dpmpp_2m").plan(VP(), times(VP(), 20))
    row = plan.rows[10]
    wrong = dataclasses.replace(row, base=dataclasses.replace(row.base, base=1.0))  # type: ignore[type-var]
    mutant = dataclasses.replace(plan, rows=(*plan.rows[:10], wrong, *plan.rows[11:]))
    assert abs(float(mutant.gaussian_moments(0.7, 0.4).cov - plan.gaussian_moments(0.7, 0.4).cov)) > 1e-2


def test_bad_laws_are_named() -> None:
    plan = solvers.get("ddim").plan(VP(), [0.9, 0.5])
    for cov in (-1.0, [1.0, -1.0], math.nan, [[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]):
        with pytest.raises(OptionError, match="cov"):
            plan.gaussian_moments([0.0, 0.0], cov)
    for start in (-1.0, [1.0, -1.0]):
        for cov in (1.0, np.eye(2)):
            with pytest.raises(OptionError, match="start_cov"):
                plan.gaussian_moments([0.0, 0.0], cov, start_cov=start)
    for mean, cov, more in (
        ([0.0, 0.0], np.eye(3), {}),
        ([0.0, 0.0], np.ones(3), {}),
        (0.0, np.eye(2), {}),
        ([0.0, 0.0], 1.0, {"start_mean": np.zeros(3)}),
        ([0.0, 0.0], 1.0, {"start_cov": np.ones(3)}),
    ):
        with pytest.raises(ShapeError):
            plan.gaussian_moments(mean, cov, **more)
    usual = {"mean": [0.0, 0.0], "cov": 1.0}
    for argument in ("mean", "cov", "start_mean", "start_cov"):
        for value in ([math.nan, 0.0], math.inf):
            with pytest.raises(OptionError, match=f"^{argument}: got NaN or infinity"):
                plan.gaussian_moments(**{**usual, argument: value})
        for value in (np.ones(2) + 1j, torch.ones(2) + 1j, "a", [None, object()]):
            with pytest.raises(InterfaceError, match=f"^{argument}: .* real numbers"):
                plan.gaussian_moments(**{**usual, argument: value})
    with pytest.raises(OptionError, match="cov: got NaN or infinity"):
        plan.gaussian_moments([0.0, 0.0], np.full((2, 2), math.nan))


def test_the_interpreter_visits_the_grid_and_draws_each_noise_once() -> None:
    plan = solvers.get("dpmpp_2m_sde").plan(VP(), times(VP(), 5))
    calls: list[tuple[int, int]] = []

    def noise(step: int, stream: int) -> float:
        calls.append((step, stream))
        return 0.5

    states = interpret_all(plan, lambda row, x: 0.1 * x, 1.0, noise)
    assert len(states) == 6 and states[0] == 1.0 and calls == [(i, 0) for i in range(5)]
    assert states[-1] == interpret(plan, lambda row, x: 0.1 * x, 1.0, lambda i, k: 0.5)
    shorter = dataclasses.replace(plan, times=plan.times[:4], rows=plan.rows[:3])
    assert all(
        a == b for a, b in itertools.zip_longest(interpret_all(shorter, lambda r, x: 0.1 * x, 1.0, noise), states[:4])
    )
