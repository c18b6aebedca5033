"""The error in law of a sampler on a Gaussian target, exactly: no Monte Carlo.

For data N(m, C) the reverse SDE of stochasticity kappa is linear. In the eigenbasis of C, with variance c and
S = alpha^2 c + sigma^2, the probability flow leaves the deviation z = (x - alpha m) / sqrt(S) as it is, and the rest
makes it decay:

    E z_t = D E z_s,   Var z_t = 1 - D^2 (1 - Var z_s),
    log D = -int kappa^2 / (1 + c e^{2 lambda}) dlambda   from lambda_s to lambda_t.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from sdekit.errors import OptionError
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import Plan
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity

if TYPE_CHECKING:
    from sdekit.testing.problems import OrderProblem

__all__ = ["reverse_law", "weak_error"]

_PANELS, _NODES = 16, 16


def reverse_law(
    problem: OrderProblem, tau: Stochasticity, start_mean: np.ndarray, start_cov: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) at the last time of the reverse SDE of stochasticity tau, from N(mean, cov)."""
    m, c, basis = _gaussian(problem)
    (a0, s0), (a1, s1) = _scales(problem)
    first, last = np.sqrt(a0**2 * c + s0**2), np.sqrt(a1**2 * c + s1**2)
    decay = np.exp(-_exponent(problem, tau, c))
    mean = a1 * m + (decay * last / first) * (basis.T @ start_mean - a0 * m)
    gain = decay * last / first
    cov = gain[:, None] * (basis.T @ start_cov @ basis) * gain + np.diag(last**2 * (1 - decay**2))
    return basis @ mean, basis @ cov @ basis.T


def weak_error(plan: Plan, problem: OrderProblem, tau: Stochasticity) -> float:
    """The distance of the output's law from the exact one, relative to the exact covariance, over all directions.

    From the exact marginal; and, unless the plan is stochastic while tau is 0 (there is then no SDE whose kernel it
    follows: churn), from a fixed point one standard deviation off the mean in each direction.

    Raises:
        OptionError: for a target of several components.
    """
    m, c, basis = _gaussian(problem)
    (a0, s0), (a1, s1) = _scales(problem)
    mean, cov = basis @ m, basis @ np.diag(c) @ basis.T
    eye = np.eye(len(m))
    root = basis * np.sqrt(a1**2 * c + s1**2)  # exact end covariance = root root^T
    starts = [(a0 * mean, a0**2 * cov + s0**2 * eye)]
    if not (plan.stochastic and not callable(tau) and tau == 0):
        starts.append((a0 * mean + basis @ np.sqrt(a0**2 * c + s0**2), 0 * eye))
    total = 0.0
    for start_mean, start_cov in starts:
        law = plan.gaussian_moments(mean, _simple(cov), start_mean, _simple(start_cov))
        exact_mean, exact_cov = reverse_law(problem, tau, start_mean, start_cov)
        got = law.cov.numpy()
        got = np.diag(got) if got.ndim == 1 else got
        shift = np.linalg.solve(root, law.mean.numpy() - exact_mean)
        change = np.linalg.solve(root, np.linalg.solve(root, got - exact_cov).T)
        total += float((shift**2).sum() + (change**2).sum())
    return math.sqrt(total / len(m))


def _simple(cov: np.ndarray) -> np.ndarray:
    """A diagonal covariance as its diagonal, for which moments are cheap."""
    diagonal = np.diag(cov)
    return diagonal if np.array_equal(cov, np.diag(diagonal)) else cov


def _gaussian(problem: OrderProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variances of the data along the eigenvectors of its covariance, and these as columns."""
    target = problem.target
    if target.components.count != 1:
        raise OptionError(
            "problem",
            got=f"a target of {target.components.count} components",
            expected="one Gaussian, whose output law is known exactly",
            fix="Use sdekit.testing.gaussian_problem(process), or target=sdekit.targets.gaussian(mean, cov).",
        )
    cov = target.cov.numpy()
    if np.array_equal(cov, np.diag(np.diag(cov))):
        values, basis = np.diag(cov), np.eye(len(cov))
    else:
        values, basis = np.linalg.eigh(cov)
    return basis.T @ target.mean.flatten().numpy(), values, basis


def _scales(problem: OrderProblem) -> list[tuple[float, float]]:
    return [(float(problem.process.alpha(t)), float(problem.process.sigma(t))) for t in problem.ends]


def _exponent(problem: OrderProblem, tau: Stochasticity, c: np.ndarray) -> np.ndarray:
    """int kappa^2 / (1 + c e^{2 lambda}) dlambda over the range, per variance."""
    low, high = problem.low, problem.high
    if not callable(tau):
        # The antiderivative is lambda - log(1 + c e^{2 lambda}) / 2.
        return tau**2 * (high - low - 0.5 * (np.log1p(c * math.exp(2 * high)) - np.log1p(c * math.exp(2 * low))))
    nodes, weights = gauss_legendre(_NODES)
    width = (high - low) / _PANELS
    points = [(low + width * (i + u), width * w) for i in range(_PANELS) for u, w in zip(nodes, weights, strict=True)]
    times = problem.process.time_at(torch.tensor([p for p, _ in points], dtype=torch.float64)).tolist()
    return sum(
        (
            w * stochasticity_at(tau, t) ** 2 / (1 + c * math.exp(2 * p))
            for (p, w), t in zip(points, times, strict=True)
        ),
        start=np.zeros_like(c),
    )
