"""The exact law of the reverse SDE, and the weak error measured against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import OptionError
from sdekit.testing import OrderProblem, gaussian_problem
from sdekit.testing.weak import reverse_law, weak_error

PROBLEM = gaussian_problem()
C = np.array([0.04, 0.3, 1.0, 3.0])
M = np.array([0.3, -0.8, 0.5, 1.1])


def _scales(problem: OrderProblem) -> list[float]:
    p = problem.process
    return [float(f(t)) for t in problem.ends for f in (p.alpha, p.sigma)]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, lambda t: 1 - t])
def test_marginals_are_carried_into_marginals(tau):
    a0, s0, a1, s1 = _scales(PROBLEM)
    mean, cov = reverse_law(PROBLEM, tau, a0 * M, np.diag(a0**2 * C + s0**2))
    np.testing.assert_allclose(mean, a1 * M, rtol=1e-14)
    np.testing.assert_allclose(cov, np.diag(a1**2 * C + s1**2), rtol=1e-14)


def test_at_stochasticity_one_it_is_the_conditional_of_the_forward_process():
    """x_t given x_s, t < s, by Bayes: Cov(x_t, x_s) = alpha_t alpha_s c + (alpha_s / alpha_t) sigma_t^2."""
    a0, s0, a1, s1 = _scales(PROBLEM)
    x = np.array([1.0, -2.0, 0.5, 3.0])
    covariance = a0 * a1 * C + (a0 / a1) * s1**2
    slope = covariance / (a0**2 * C + s0**2)
    mean, cov = reverse_law(PROBLEM, 1.0, x, np.zeros((4, 4)))
    np.testing.assert_allclose(mean, a1 * M + slope * (x - a0 * M), rtol=1e-12)
    np.testing.assert_allclose(np.diag(cov), a1**2 * C + s1**2 - slope * covariance, rtol=1e-12)


def test_at_stochasticity_zero_it_is_the_flow():
    x = np.array([1.0, -2.0, 0.5, 3.0])
    mean, cov = reverse_law(PROBLEM, 0.0, x, np.zeros((4, 4)))
    flow = PROBLEM.model.flow(torch.from_numpy(x)[None], *PROBLEM.ends)[0]
    np.testing.assert_allclose(mean, flow.numpy(), rtol=1e-12)
    assert np.abs(cov).max() == 0


def test_a_function_of_time_that_is_constant_agrees_with_the_number():
    x = np.array([1.0, -2.0, 0.5, 3.0])
    number = reverse_law(PROBLEM, 0.7, x, np.eye(4))
    function = reverse_law(PROBLEM, lambda t: 0.7, x, np.eye(4))
    np.testing.assert_allclose(function[0], number[0], rtol=1e-13)
    np.testing.assert_allclose(function[1], number[1], rtol=1e-13, atol=1e-16)


def test_error_ignores_the_axes_of_the_covariance():
    """A rotated Gaussian gives the same error: all directions count, and none can cancel another."""
    plan = sdekit.solvers.get("ddpm").plan(PROBLEM.process, PROBLEM.grid("half_log_snr", 10))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    turned = OrderProblem("turned", sdekit.VP(), sdekit.targets.gaussian(turn @ M, turn @ np.diag(C) @ turn.T))
    assert weak_error(plan, turned, 1.0) == pytest.approx(weak_error(plan, PROBLEM, 1.0), rel=1e-9)


@pytest.mark.parametrize("direction", range(4))
def test_no_direction_is_overlooked(direction: int):
    """DDPM's larger variance is exact for variance 1 alone; the error sees each direction by itself."""
    solver = sdekit.solvers.get("ddpm", variance="beta")
    plan = solver.plan(PROBLEM.process, PROBLEM.grid("half_log_snr", 20))
    one = OrderProblem("one", sdekit.VP(), sdekit.targets.gaussian([0.0], [C[direction]]))
    error = weak_error(plan, one, 1.0)
    # The kernel of N(0, 1) data is exact in mean and variance on VP.
    assert error < 1e-12 if C[direction] == 1 else error > 1e-2


def test_churn_is_compared_from_the_marginal_only():
    solver = sdekit.solvers.get("edm_heun", churn=4.0)
    plan = solver.plan(PROBLEM.process, PROBLEM.grid("half_log_snr", 160))
    assert weak_error(plan, PROBLEM, 0.0) < 5e-3  # from a fixed point it would be the kernel of some noise, not of none


def test_mixtures_are_refused():
    problem = OrderProblem("ring", sdekit.VP(), sdekit.targets.ring())
    plan = sdekit.solvers.get("ddpm").plan(problem.process, problem.grid("uniform", 3))
    with pytest.raises(OptionError, match="8 components"):
        weak_error(plan, problem, 1.0)
