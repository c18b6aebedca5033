"""Conversions of stochasticity: after them the coefficients of both solvers' plans are equal."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from sdekit import EDM, VP, AffineSDE, RectifiedFlow, solvers, stochasticity
from sdekit.errors import OptionError
from sdekit.plan import Plan
from tests.solvers.test_properties import LAMBDAS, PROCESSES, times

STEPS = [(a, b - a) for a, b in itertools.pairwise(LAMBDAS)]


def coefficients(plan: Plan) -> list[float]:
    """All numbers of all combinations, with the levels and weights of the calls."""
    found = []
    for row in plan.rows:
        found += [row.t, row.alpha, row.sigma, *row.weights]
        found += [float(v) for c in row.combinations() for v in c.coefficients()]  # type: ignore[arg-type]
    return found


def one_step(name: str, process, lam: float, h: float, tau: float | None = None, **options) -> list[float]:
    return coefficients(solvers.get(name, **options).plan(process, times(process, [lam, lam + h]), tau))


def same(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and a == pytest.approx(b, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("eta", [0.2, 0.7, 1.0])
def test_eta_of_ddim_and_of_ancestral_samplers(eta: float) -> None:
    for process, (lam, h) in itertools.product(PROCESSES[:4], STEPS):
        tau = stochasticity.from_ddim_eta(eta, h)
        want = one_step("exp_adams", process, lam, h, tau, order=1)
        for name in ("ddim", "euler_ancestral"):
            assert same(one_step(name, process, lam, h, eta=eta), want)
            wrong = one_step("exp_adams", process, lam, h, eta, order=1)
            assert eta == 1 or not same(one_step(name, process, lam, h, eta=eta), wrong)
        assert stochasticity.to_ddim_eta(tau, h) == pytest.approx(eta, rel=1e-13)
    assert stochasticity.from_ddim_eta(eta, 1e-9) == pytest.approx(eta, rel=1e-8)
    assert stochasticity.from_ddim_eta(0.0, 1.0) == stochasticity.to_ddim_eta(0.0, 1.0) == 0.0


def test_beyond_one_eta_ends_where_nothing_of_the_state_is_left() -> None:
    h = 0.5
    most = 1 / math.sqrt(-math.expm1(-2 * h))
    assert stochasticity.to_ddim_eta(3.0, h) < most
    assert stochasticity.from_ddim_eta(stochasticity.to_ddim_eta(1.6, h), h) == pytest.approx(1.6, rel=1e-12)
    with pytest.raises(OptionError, match=f"less than {most:.6g}"):
        stochasticity.from_ddim_eta(most + 1e-9, h)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 2.0])
def test_eta_of_k_diffusions_sde_solvers(eta: float) -> None:
    tau = stochasticity.from_sde_eta(eta)
    for process in PROCESSES[:3]:
        for name, other in (("dpmpp_2m_sde", "dpmpp_2m"), ("dpmpp_3m_sde", "dpmpp_3m")):
            grid = times(process)
            plans = [solvers.get(name, eta=eta).plan(process, grid), solvers.get(other).plan(process, grid, tau)]
            assert same(*map(coefficients, plans))
    assert stochasticity.to_sde_eta(tau) == pytest.approx(eta)


@pytest.mark.parametrize("gamma", [0.01, 0.2, math.sqrt(2) - 1])
def test_gamma_and_churn_of_edm(gamma: float) -> None:
    """The kick of one step: EDM's with gamma, and a splitting's with the stochasticity."""
    for lam, h in STEPS:
        tau = stochasticity.from_gamma(gamma, h)
        assert stochasticity.to_gamma(tau, h) == pytest.approx(gamma, rel=1e-13)
        grid = times(EDM(), [lam, lam + h])
        edm = solvers.get("edm_heun", churn=gamma).plan(EDM(), grid)
        splitting = solvers.get("splitting", inner="heun", form="churn", stochasticity=tau).plan(EDM(), grid)
        (a, b), (c, d) = ([row.t for row in plan.rows] for plan in (edm, splitting))
        assert (a, b) == pytest.approx((c, d), rel=1e-12)
        kicks = [plan.rows[0].kick for plan in (edm, splitting)]
        assert kicks[0] is not None and kicks[1] is not None
        first, second = ([float(v) for v in k.coefficients()] for k in kicks if k)  # type: ignore[arg-type]
        assert first == pytest.approx(second, rel=1e-12)
    assert stochasticity.churn_gamma(40.0, 18) == math.sqrt(2) - 1
    assert stochasticity.churn_gamma(1.8, 18) == pytest.approx(0.1)


def test_churn_tends_to_the_reverse_sde_of_its_stochasticity() -> None:
    """From a fixed start: mean and variance to order 1 in h, and not those of another stochasticity."""
    tau, errors = 0.8, []
    for n in (100, 200):
        lam = torch.linspace(-1, 1, n + 1).tolist()
        grid = times(EDM(), lam)
        gamma = stochasticity.to_gamma(tau, 2 / n)
        churned = solvers.get("edm_heun", churn=gamma * n).plan(EDM(), grid).gaussian_moments(0.7, 0.3, 1.9, 0.0)
        want, other = (
            solvers.get("exp_adams").plan(EDM(), grid, k).gaussian_moments(0.7, 0.3, 1.9, 0.0) for k in (tau, 0.9)
        )
        errors.append(abs(float(churned.mean - want.mean)) + abs(float(churned.cov - want.cov)))
        assert abs(float(churned.cov - other.cov)) > 1.5 * abs(float(churned.cov - want.cov))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("scale", ["ode", "sde", "sde_1", "sde_2", "sde_3", "sde_4", "sde_5"])
def test_phi_of_er_sde(scale: str) -> None:
    for process in (VP(), EDM()):
        grid, tau = times(process), stochasticity.from_er_sde(scale, process)
        plans = [solvers.get("er_sde", order=1, noise_scale=scale).plan(process, grid)]
        plans += [solvers.get("exp_adams", order=1).plan(process, grid, tau)]
        for a, b in zip(*(plan.rows for plan in plans), strict=True):
            assert a.base is not None and b.base is not None
            got, want = ([float(v) for v in c.coefficients()] for c in (a.base, b.base))  # type: ignore[arg-type]
            if scale == "ode":
                want = want[: len(got)]  # a noise of size 0 is left out
            assert got == pytest.approx(want, rel=1e-10)
    with pytest.raises(OptionError, match="noise_scale"):
        stochasticity.from_er_sde("sde_4", EDM())(1e5)
    with pytest.raises(OptionError, match="noise_scale"):
        stochasticity.from_er_sde("default", EDM())


@pytest.mark.parametrize("r", [0.05, 0.16])
def test_snr_of_langevin_steps(r: float) -> None:
    """One correction is Song et al.'s where |score| = |z| / sigma: x + e score + sqrt(2 e) z, e = 2 (r sigma)^2."""
    options = {"predictor": "ddim", "corrector": "euler", "delta": stochasticity.langevin_delta(r)}
    plan = solvers.get("predictor_corrector", **options).plan(VP(), [0.6, 0.4])
    sigma, base = plan.rows[1].sigma, plan.rows[1].base
    assert base is not None and plan.rows[1].weights == (0.0, 1.0)
    e = 2 * (r * sigma) ** 2
    assert [float(v) for v in base.coefficients()] == pytest.approx([1.0, -e / sigma, math.sqrt(2 * e)], rel=1e-13)  # type: ignore[arg-type]


def euler_ancestral_rf(sigmas: list[float], eta: float, s_noise: float) -> list[tuple[float, float, float]]:
    """ComfyUI's `sample_euler_ancestral_RF`, as (of x, of the data prediction, of the noise) for each step."""
    found = []
    for s, t in itertools.pairwise(sigmas):
        ratio = 1 + (t / s - 1) * eta
        down = t * ratio
        alpha, alpha_down = 1 - t, 1 - down
        renoise = math.sqrt(t**2 - down**2 * alpha**2 / alpha_down**2)
        part = down / s
        found.append((alpha / alpha_down * part, alpha / alpha_down * (1 - part), s_noise * renoise))
    return found


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_eta_of_flow_matching_ancestral_samplers(eta: float) -> None:
    grid = [1.0, 0.8, 0.55, 0.3, 0.05]
    solver = solvers.get("euler_ancestral", eta=eta, s_noise=1.003, clock="t")
    plan = solver.plan(RectifiedFlow(), grid)
    for row, want in zip(plan.rows, euler_ancestral_rf(grid, eta, 1.003), strict=True):
        assert row.base is not None and row.weights == (1.0, 0.0)
        assert [float(v) for v in row.base.coefficients()] == pytest.approx(list(want), rel=1e-12)  # type: ignore[arg-type]
    assert solver.fixed_stochasticity == stochasticity.from_sde_eta(eta)
    other = solvers.get("euler_ancestral", eta=eta, s_noise=1.003).plan(RectifiedFlow(), grid)
    assert other.rows[1] != plan.rows[1]  # in rho it is another sampler
    # On EDM, whose rho is t, both are lowered to rho_t^2 / rho_s for eta = 1.
    pair = [solvers.get("euler_ancestral", clock=c).plan(EDM(), [2.0, 1.0, 0.3]) for c in ("rho", "t")]
    assert same(*map(coefficients, pair))


def test_variances_of_ddpm() -> None:
    """The range is Nichol and Dhariwal's; the analytic variance is exact for a Gaussian, at any number of steps."""
    for process, v in itertools.product(PROCESSES[:3], (0.0, 0.3, 1.0)):
        grid = times(process)
        low, high, mixed = (
            [row.base.noises[0][1] for row in solvers.get("ddpm", **o).plan(process, grid).rows if row.base]
            for o in ({}, {"variance": "beta"}, {"variance": "range", "v": v})
        )
        for a, b, c in zip(low, high, mixed, strict=True):
            want = v * math.log(float(b) ** 2) + (1 - v) * math.log(float(a) ** 2)  # type: ignore[arg-type]
            assert float(c) ** 2 == pytest.approx(math.exp(want), rel=1e-12)  # type: ignore[arg-type]
    m, c = 0.7, 0.3
    for process, n in itertools.product(PROCESSES[:3], (1, 6)):

        def left(t: float, process: AffineSDE = process) -> float:  # type: ignore[assignment]
            (level,) = process.levels([t])
            return c * level.sigma**2 / (level.alpha**2 * c + level.sigma**2)

        solver = solvers.get("ddpm", variance="analytic", posterior_variance=left)
        plan = solver.plan(process, times(process, LAMBDAS[: n + 1]))
        law = plan.gaussian_moments(m, c)
        assert float(law.cov) == pytest.approx(plan.end[0] ** 2 * c + plan.end[1] ** 2, rel=1e-12)
        point = dataclasses.replace(solver, posterior_variance=0.0).plan(process, times(process, LAMBDAS[: n + 1]))
        assert abs(float(point.gaussian_moments(m, c).cov) / float(law.cov) - 1) > 1e-3
    for options in ({"v": 1.5}, {"posterior_variance": -1.0}, {"variance": "learned"}):
        with pytest.raises(OptionError):
            solvers.get("ddpm", **options)
    with pytest.raises(OptionError, match="posterior_variance"):
        solvers.get("ddpm", variance="analytic", posterior_variance=lambda t: -1.0).plan(VP(), [0.9, 0.5])


@pytest.mark.parametrize(
    "call",
    [
        lambda: stochasticity.from_sde_eta(-1.0),
        lambda: stochasticity.to_sde_eta(math.nan),
        lambda: stochasticity.from_ddim_eta(0.5, 0.0),
        lambda: stochasticity.to_ddim_eta(0.5, -1.0),
        lambda: stochasticity.from_gamma(-0.1, 1.0),
        lambda: stochasticity.to_gamma(1.0, math.inf),
        lambda: stochasticity.churn_gamma(1.0, 0),
        lambda: stochasticity.langevin_delta(0.6),
    ],
    ids=["sde", "to sde", "ddim", "to ddim", "gamma", "to gamma", "churn", "snr"],
)
def test_what_is_refused(call) -> None:
    with pytest.raises(OptionError):
        call()
