"""Exact laws of outputs: against the coefficient form of moments, textbook recursions, and exact dynamics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sdekit import VE, VP, RectifiedFlow, grids, solvers, targets
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.metrics import gaussian_kl, gaussian_w2, plan_law_error
from sdekit.metrics.exact import reversed_law
from sdekit.metrics.law import Axes, Law
from sdekit.metrics.recursion import _compressed, propagated
from sdekit.plan.coefficients import Direction
from sdekit.testing import gaussian_problem
from sdekit.testing.weak import reverse_law

MEAN, VARIANCES = np.array([0.3, -0.8, 1.0]), np.array([0.04, 0.5, 3.0])
START = np.array([0.1, 0.2, -0.3]), np.array([0.9, 1.0, 1.3])
PLANS = [
    *[(name, 0.0) for name in ("ddim", "heun", "dpmpp_2m", "unipc", "pndm", "exp_adams", "dpm_solver_3")],
    *[(name, 1.0) for name in ("euler_maruyama", "ddpm", "dpmpp_2m_sde", "dpmpp_sde", "seeds_3", "sa_solver")],
    ("exp_adams", 0.6),
    ("edm_heun", 0.0),
    ("restart", 0.0),
    ("splitting", 1.0),
]


@pytest.mark.parametrize(("name", "tau"), PLANS)
def test_registers_have_the_law_of_the_coefficients(name: str, tau: float):
    method = solvers.get(name)
    fixed = method.fixed_stochasticity
    plan = method.plan(VP(), grids.half_log_snr(VP(), 12), tau if fixed is None else fixed)
    expected = plan.gaussian_moments(MEAN, VARIANCES, *START)
    mean, variance = propagated(plan, MEAN, VARIANCES, *START)
    np.testing.assert_allclose(mean, expected.mean.numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(variance, expected.cov.numpy(), rtol=1e-13)


def test_two_registers_keep_their_correlation():
    """The mutant: each register compressed by itself."""
    stack = np.random.default_rng(0).normal(size=(2, 9, 3))
    found = _compressed({"state": stack[0], 1: stack[1]})
    for i, j in (("state", "state"), ("state", 1), (1, 1)):
        first, second = (stack[0 if k == "state" else 1] for k in (i, j))
        expected = (first[1:] * second[1:]).sum(0)
        np.testing.assert_allclose((found[i][1:] * found[j][1:]).sum(0), expected, rtol=1e-13)
    assert found["state"].shape == (3, 3)
    alone = {k: _compressed({k: v})[k] for k, v in (("state", stack[0]), (1, stack[1]))}
    wrong = (alone["state"][1:] * alone[1][1:]).sum(0)
    assert np.abs(wrong - (stack[0, 1:] * stack[1, 1:]).sum(0)).min() > 0.1


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, lambda t: 0.5 + t])
def test_exact_dynamics_agree_with_the_order_tests(tau):
    problem = gaussian_problem()
    axes = Axes(problem.target.mean.numpy(), np.diag(problem.target.cov.numpy()).copy())
    law = Law(np.array([1.0, 2.0, -1.0, 0.0]), np.array([0.5, 1.0, 2.0, 0.0]))
    mean, cov = reverse_law(problem, tau, law.mean, np.diag(law.variance))
    found = reversed_law(problem.process, axes, *problem.ends, tau, law)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.variance, np.diag(cov), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_ends_of_time(tau: float):
    """From alpha = 0 to sigma = 0: the flow scales what it is given, the SDE forgets it."""
    axes, process = Axes(MEAN, VARIANCES), RectifiedFlow()
    found = reversed_law(process, axes, 1.0, 0.0, tau, Law(np.zeros(3) + 0.1, np.full(3, 1.44)))
    if tau:
        np.testing.assert_allclose(found, axes.data, rtol=1e-14)
    else:
        np.testing.assert_allclose(found.variance, 1.44 * VARIANCES, rtol=1e-14)
        np.testing.assert_allclose(found.mean, MEAN + np.sqrt(VARIANCES) * 0.1, rtol=1e-14)
    with pytest.raises(OptionError, match="function"):
        reversed_law(process, axes, 1.0, 0.0, lambda t: 1.0, axes.data)


def test_law_error_is_that_of_the_moments():
    cov = torch.tensor([[0.25, 0.1], [0.1, 1.0]], dtype=torch.float64)
    mean = torch.tensor([0.7, -1.0], dtype=torch.float64)
    plan = solvers.get("euler_maruyama").plan(VP(), grids.half_log_snr(VP(), 30), 1.0)
    found = plan_law_error(plan, targets.gaussian(mean, cov), start=(0.2, 1.5))
    law = plan.gaussian_moments(mean, cov, torch.full((2,), 0.2), 1.5**2)
    alpha, sigma = plan.end
    exact = alpha**2 * cov + sigma**2 * torch.eye(2)
    assert found.mean == pytest.approx(float((law.mean - alpha * mean).norm()), rel=1e-9)
    assert found.covariance == pytest.approx(float((law.cov - exact).norm()), rel=1e-9)
    assert found.w2 == pytest.approx(gaussian_w2(law.mean, law.cov, alpha * mean, exact), rel=1e-9)
    assert found.kl == pytest.approx(gaussian_kl(law.mean, law.cov, alpha * mean, exact), rel=1e-9)
    assert found.scale == pytest.approx(math.sqrt(float(alpha**2 * mean.square().sum() + exact.trace())))
    assert (found.nfe, found.relative) == (30, found.w2 / found.scale)


def test_law_error_at_each_end():
    target, process = targets.gaussian([0.7], 0.25), VP()
    plan = solvers.get("exp_adams", order=3).plan(process, grids.half_log_snr(process, 400), 0.0)
    from_marginal = plan_law_error(plan, target)
    assert from_marginal.w2 < 2e-6
    assert plan_law_error(plan, target, start="prior").w2 == pytest.approx(2.30e-3, rel=0.01)
    # Truncation at t = 1e-3: rho^2 / (2 std), up rescaled, down denoised.
    by_hand = 0.5 * (float(process.rho(1e-3)) ** 2) / 0.5
    for finish in ("rescaled", "denoised"):
        assert plan_law_error(plan, target, against="data", finish=finish).w2 == pytest.approx(by_hand, rel=0.02)
    unscaled = plan_law_error(plan, target, against="data")
    assert unscaled.mean == pytest.approx(0.7 * (1 - float(process.alpha(1e-3))), rel=1e-6)


def test_what_is_refused():
    plan = solvers.get("ddim").plan(VP(), grids.half_log_snr(VP(), 5))
    one = targets.gaussian([0.7, 0.1], 0.25)
    with pytest.raises(OptionError, match="8 components"):
        plan_law_error(plan, targets.ring())
    with pytest.raises(InterfaceError, match="GaussianMixture"):
        plan_law_error(plan, 3.0)  # type: ignore[arg-type]
    wrong: list[dict[str, Any]] = [{"start": "nowhere"}, {"start": 1.0}, {"start": (0.0, -1.0)}]
    for options in (*wrong, {"against": "x"}, {"finish": "x"}):
        with pytest.raises(OptionError):
            plan_law_error(plan, one, **options)
    with pytest.raises(OptionError, match="against='data'"):
        plan_law_error(plan, one, finish="denoised")
    method = solvers.get("preconditioned_adams", data_variance=torch.tensor([0.2, 1.0]))
    plan = method.plan(VE(), grids.half_log_snr(VE(), 5))
    assert any(isinstance(v, Direction) for row in plan.rows for c in row.combinations() for v in c.coefficients())
    with pytest.raises(SolverMismatchError, match="for each direction"):
        plan_law_error(plan, one)
