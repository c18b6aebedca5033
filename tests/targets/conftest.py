"""A mixture written out as loops over samples and components, in NumPy or in 60 digits: the truth of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import targets
from sdekit.targets.low_rank import LowRankComponents
from tests.small_states import one_thread, own_cache

__all__ = ["one_thread", "own_cache"]  # of all tests here


@dataclass
class Loops:
    """The formulas of the field for one sample at a time: no eigenbasis, no expansion, no shared sums."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def _terms(self, alpha: float, sigma: float, x: np.ndarray) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        d = len(x)
        for w, m, c in zip(self.weights, self.means, self.covariances, strict=True):
            S = alpha**2 * c + sigma**2 * np.eye(d)
            difference = x - alpha * m
            solved = np.linalg.solve(S, difference)
            log = np.log(w) - 0.5 * (difference @ solved + np.linalg.slogdet(S)[1] + d * np.log(2 * np.pi))
            yield log, solved, m + alpha * c @ solved

    def point(self, alpha: float, sigma: float, x: np.ndarray) -> dict[str, np.ndarray]:
        terms = list(self._terms(alpha, sigma, x))
        logs = np.array([log for log, _, _ in terms])
        log_prob = np.logaddexp.reduce(logs)
        r = np.exp(logs - log_prob)
        solved, mu = np.array([s for _, s, _ in terms]), np.array([m for _, _, m in terms])
        data, noise = r @ mu, sigma * (r @ solved)
        cov = np.zeros((len(x), len(x)))
        for k, c in enumerate(self.covariances):
            S = alpha**2 * c + sigma**2 * np.eye(len(x))
            cov += r[k] * (sigma**2 * np.linalg.solve(S, c) + np.outer(mu[k] - data, mu[k] - data))
        return {"data": data, "noise": noise, "score": -r @ solved, "log_prob": log_prob, "cov": cov}

    def batch(self, name: str, alphas: list[float], sigmas: list[float], x: Tensor) -> Tensor:
        rows = [self.point(a, s, r)[name] for a, s, r in zip(alphas, sigmas, x.double().numpy(), strict=True)]
        return torch.from_numpy(np.array(rows))


def full_covariances(g: targets.GaussianMixture) -> np.ndarray:
    variances, bases = g.components.variances, g.components.bases
    if isinstance(g.components, LowRankComponents):
        rest = variances[:, :1, None] * torch.eye(g.size, dtype=torch.float64)
        return (rest + (bases * (variances[:, 1:] - variances[:, :1])[:, None]) @ bases.mT).numpy()
    variances = variances.expand(-1, g.size)
    if bases is None:
        return np.array([np.diag(v) for v in variances.numpy()])
    return np.array([u @ np.diag(v) @ u.T for u, v in zip(bases.numpy(), variances.numpy(), strict=True)])


@pytest.fixture
def loops() -> Callable[[targets.GaussianMixture], Loops]:
    """Makes the loop form of a mixture."""
    return lambda g: Loops(g.weights.numpy(), g.means.flatten(1).numpy(), full_covariances(g))


@pytest.fixture
def sixty_digits() -> Callable[..., dict[str, np.ndarray]]:
    """data, score and log_prob of a mixture with diagonal covariances at one point, evaluated in 60 digits."""

    def evaluate(g: targets.GaussianMixture, alpha: float, sigma: float, x: Tensor) -> dict[str, np.ndarray]:
        mp = mpmath.mp
        with mpmath.workdps(60):
            a, s2 = mp.mpf(alpha), mp.mpf(sigma) ** 2
            point = [mp.mpf(v) for v in x.tolist()]
            logs, datas, scores = [], [], []
            for w, m, c in zip(
                g.weights.tolist(), g.means.tolist(), g.components.variances.expand(-1, g.size).tolist(), strict=True
            ):
                variances = [a * a * mp.mpf(v) + s2 for v in c]
                z = [(p - a * mp.mpf(q)) / v for p, q, v in zip(point, m, variances, strict=True)]
                quadratic = mpmath.fsum(
                    u * u * v + mpmath.log(2 * mp.pi * v) for u, v in zip(z, variances, strict=True)
                )
                logs.append(mpmath.log(mp.mpf(w)) - quadratic / 2)
                datas.append([mp.mpf(q) + a * mp.mpf(v) * u for q, v, u in zip(m, c, z, strict=True)])
                scores.append([-u for u in z])
            top = max(logs)
            e = [mpmath.exp(v - top) for v in logs]
            total = mpmath.fsum(e)

            def mean(rows: list) -> np.ndarray:
                columns = zip(*rows, strict=True)
                return np.array(
                    [float(mpmath.fsum(r * v for r, v in zip(e, column, strict=True)) / total) for column in columns]
                )

            return {"data": mean(datas), "score": mean(scores), "log_prob": np.array(float(top + mpmath.log(total)))}

    return evaluate
