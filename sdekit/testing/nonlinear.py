"""SDEs with noise that depends on the state, whose marginals, scores and probability flows are known exactly.

Four ways to such a problem: the image of an affine process under a diffeomorphism, whose drift follows from Ito's
formula; geometric Brownian motion started at a mixture of log-normal laws; the square-root process started at a Gamma
law of its own shape, which stays one; and Langevin dynamics with any noise, in equilibrium or carried along by the
exact flow of an affine process. All formulas are written out by hand: nothing here differentiates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.geometric import GeometricBrownianMotion
from sdekit.processes import VP, Heat, OrnsteinUhlenbeck
from sdekit.sde import SDE
from sdekit.shapes import as_float64
from sdekit.targets import GaussianMixture
from sdekit.testing.ingredients import Diffeomorphism, Sinh, SinhShear, StateNoise, state_noises

__all__ = [
    "Carried",
    "CoxIngersollRoss",
    "ExactProblem",
    "Image",
    "LogNormalMixture",
    "exact_problems",
]

Calculus = Literal["ito", "stratonovich"]


class ExactProblem(ABC):
    """An SDE in n dimensions with marginals that are known at all times.

    Times are numbers, or tensors of shape () or (B, 1); states are (B, n), float64 for full accuracy.

    Attributes:
        sde: the SDE, which runs upwards in time.
        times: an early and a late time between which everything is smooth.
    """

    sde: SDE
    times: tuple[float, float]

    @abstractmethod
    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        """log p_t(x), (B,), made of torch operations in t and x."""

    @abstractmethod
    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        """grad log p_t(x), (B, n)."""

    @abstractmethod
    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        """n draws of p_t, float64."""

    @abstractmethod
    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        """Where the probability flow carries x (B, n), in either direction of time."""


class _Mixture:
    """A Gaussian mixture of diagonal components under an affine process, differentiable in t and x."""

    def __init__(self, target: GaussianMixture, process: AffineSDE) -> None:
        self.target, self.process, self.model = target, process, target.under(process)

    def _parts(self, t: float | Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log (w_k N_k) as (B, K), y - alpha m_k and the variances as (B, K, n)."""
        alpha, sigma = (s.reshape(-1, 1, 1) for s in (self.process.alpha(t), self.process.sigma(t)))
        variance = alpha**2 * self.target.components.variances + sigma**2
        z = y[:, None] - alpha * self.target.means
        logs = -0.5 * (z**2 / variance + torch.log(2 * math.pi * variance)).sum(-1)
        return self.target.weights.log() + logs, z, variance

    def log_prob(self, t: float | Tensor, y: Tensor) -> Tensor:
        return torch.logsumexp(self._parts(t, y)[0], 1)

    def score(self, t: float | Tensor, y: Tensor) -> Tensor:
        logs, z, variance = self._parts(t, y)
        return -(torch.softmax(logs, 1)[..., None] * (z / variance)).sum(1)

    def rates(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """f and g^2, to broadcast against (B, n)."""
        return self.process.drift_coefficient(t), self.process.diffusion_coefficient(t) ** 2

    def velocity(self, t: float | Tensor, y: Tensor) -> Tensor:
        f, variance_rate = self.rates(t)
        return f * y - 0.5 * variance_rate * self.score(t, y)


class _ImageSDE(SDE):
    """dx = (J f y + g^2/2 laplacian phi) dt + g J dW at y = phi^{-1}(x), J = d phi / d y; or J f y dt + g J o dW."""

    def __init__(self, mixture: _Mixture, diffeomorphism: Diffeomorphism, calculus: Calculus) -> None:
        self._mixture, self._map, self.sde_type = mixture, diffeomorphism, calculus
        self.noise_type = "diagonal" if diffeomorphism.elementwise else "general"

    def __repr__(self) -> str:
        return f"Image({self._mixture.process!r}, {type(self._map).__name__}, {self.sde_type})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        y, (f, variance_rate) = self._map.inverse(x), self._mixture.rates(t)
        moved = _apply(self._map, y, f * y)
        return moved if self.sde_type == "stratonovich" else moved + 0.5 * variance_rate * self._map.laplacian(y)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        g, jacobian = torch.sqrt(self._mixture.rates(t)[1]), self._map.jacobian(self._map.inverse(x))
        return (g if g.ndim == 0 else g.reshape(-1, *(1,) * (jacobian.ndim - 1))) * jacobian


def _apply(diffeomorphism: Diffeomorphism, y: Tensor, v: Tensor) -> Tensor:
    jacobian = diffeomorphism.jacobian(y)
    return jacobian * v if diffeomorphism.elementwise else (jacobian @ v[..., None])[..., 0]


class Image(ExactProblem):
    """The image x = phi(y) of y under an affine process: dx follows from Ito's formula, or from the chain rule.

    Args:
        target: the data y(0), with isotropic or diagonal covariances.
        process: carries y.
        diffeomorphism: phi.
        times: see `ExactProblem`.
        calculus: in which the SDE is written; the law is the same.
    """

    def __init__(
        self,
        target: GaussianMixture,
        process: AffineSDE,
        diffeomorphism: Diffeomorphism,
        times: tuple[float, float],
        calculus: Calculus = "ito",
    ) -> None:
        self._mixture, self._map, self.times = _Mixture(target, process), diffeomorphism, times
        self.sde = _ImageSDE(self._mixture, diffeomorphism, calculus)

    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        y = self._map.inverse(x)
        return self._mixture.log_prob(t, y) - self._map.log_det(y)

    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        y = self._map.inverse(x)
        s, jacobian = self._mixture.score(t, y) - self._map.log_det_gradient(y), self._map.jacobian(y)
        return s / jacobian if self._map.elementwise else torch.linalg.solve(jacobian.mT, s)

    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        return self._map.forward(self._mixture.model.sample(t, n, seed))

    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        return self._map.forward(self._mixture.model.flow(self._map.inverse(x), t_from, t_to))


class LogNormalMixture(ExactProblem):
    """Geometric Brownian motion whose logarithm starts at a Gaussian mixture."""

    def __init__(self, target: GaussianMixture, mu: float, sigma: float, times: tuple[float, float]) -> None:
        self.sde, self.times = GeometricBrownianMotion(mu, sigma), times
        self._mixture, self._shift = _Mixture(target, Heat(sigma)), mu - 0.5 * sigma**2

    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        y = torch.log(x)
        return self._mixture.log_prob(t, y - self._shift * as_float64(t)) - y.sum(1)

    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        return (self._mixture.score(t, torch.log(x) - self._shift * as_float64(t)) - 1) / x

    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        return torch.exp(self._mixture.model.sample(t, n, seed) + self._shift * t)

    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        y = self._mixture.model.flow(torch.log(x) - self._shift * t_from, t_from, t_to)
        return torch.exp(y + self._shift * t_to)


class _SquareRoot(SDE):
    def __init__(self, rate: float, level: float, sigma: float) -> None:
        self.rate, self.level, self.sigma = rate, level, sigma

    def __repr__(self) -> str:
        return f"CoxIngersollRoss({self.rate}, {self.level}, {self.sigma})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.rate * (self.level - x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return self.sigma * torch.sqrt(x)


class CoxIngersollRoss(ExactProblem):
    """dx_i = rate (level - x_i) dt + sigma sqrt(x_i) dW_i, x_i > 0.

    Started at a Gamma law of shape a = 2 rate level / sigma^2 and any scale, it stays one of shape a, with

        scale(t) = e^{-rate t} scale(0) + (1 - e^{-rate t}) sigma^2 / (2 rate),

    and the probability flow from s to t is x scale(t) / scale(s).

    Args:
        rate, level, sigma: positive.
        start: scale(0); sigma^2 / (2 rate) starts in equilibrium.
        dimension: how many independent coordinates.
        times: see `ExactProblem`.
    """

    def __init__(
        self, rate: float, level: float, sigma: float, start: float, dimension: int, times: tuple[float, float]
    ) -> None:
        self.sde, self.times, self.dimension = _SquareRoot(rate, level, sigma), times, dimension
        self.shape, self.rate, self.start, self.end = 2 * rate * level / sigma**2, rate, start, sigma**2 / (2 * rate)

    def scale(self, t: float | Tensor) -> Tensor:
        """The scale of the Gamma law at t."""
        time = as_float64(t)
        return self.end + (self.start - self.end) * torch.exp(-self.rate * time)

    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        scale, a = self.scale(t), self.shape
        return ((a - 1) * torch.log(x) - x / scale - a * torch.log(scale) - math.lgamma(a)).sum(1)

    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        return (self.shape - 1) / x - 1 / self.scale(t)

    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        draws = np.random.default_rng(seed).standard_gamma(self.shape, (n, self.dimension))
        return torch.from_numpy(draws) * self.scale(t)

    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        return x * (self.scale(t_to) / self.scale(t_from))


class _CarriedSDE(SDE):
    """b = v + (div D + D s) / 2 with v the velocity of the law; without the correction in Stratonovich's form."""

    def __init__(self, problem: Carried, noise: StateNoise, calculus: Calculus) -> None:
        self._problem, self._noise, self.sde_type, self.noise_type = problem, noise, calculus, noise.noise_type

    def __repr__(self) -> str:
        return f"Carried({self.noise_type} noise, {self.sde_type}, moving={self._problem.moving})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        noise = self._noise
        pull = noise.contraction(t, x) + noise.squared(t, x, self._problem.score(t, x))
        if self.sde_type == "ito":
            pull = pull + noise.correction(t, x)
        return self._problem.velocity(t, x) + 0.5 * pull

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return self._noise.g(t, x)


class Carried(ExactProblem):
    """Langevin dynamics dx = (v + div D / 2 + D s / 2) dt + g dW, D = g g^T, of any noise g.

    Its law is the Gaussian mixture that an affine process makes of its data, and v the velocity of that law; or the law
    stands still, v = 0, and this is Langevin dynamics in equilibrium.

    Args:
        target: the data, with isotropic or diagonal covariances.
        process: the affine process.
        noise: g.
        times: see `ExactProblem`.
        moving: False holds the law at times[0].
        calculus: in which the SDE is written; the law is the same.
    """

    def __init__(
        self,
        target: GaussianMixture,
        process: AffineSDE,
        noise: StateNoise,
        times: tuple[float, float],
        *,
        moving: bool = True,
        calculus: Calculus = "ito",
    ) -> None:
        self._mixture, self.times, self.moving = _Mixture(target, process), times, moving
        self.sde = _CarriedSDE(self, noise, calculus)

    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        return self._mixture.log_prob(t if self.moving else self.times[0], x)

    def score(self, t: float | Tensor, x: Tensor) -> Tensor:
        return self._mixture.score(t if self.moving else self.times[0], x)

    def velocity(self, t: float | Tensor, x: Tensor) -> Tensor:
        """That of the probability flow, (B, n)."""
        return self._mixture.velocity(t, x) if self.moving else torch.zeros_like(x)

    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        return self._mixture.model.sample(t if self.moving else self.times[0], n, seed)

    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        return self._mixture.model.flow(x, t_from, t_to) if self.moving else x.clone()


def exact_problems() -> dict[str, ExactProblem]:
    """One problem of each kind in two dimensions, by name."""
    target = GaussianMixture([0.4, 0.6], [[-0.8, 0.3], [0.7, -0.5]], [[0.15, 0.3], [0.25, 0.1]])
    vp, ou = VP(0.5, 4.0), OrnsteinUhlenbeck(1.0, 1.1)
    found: dict[str, ExactProblem] = {
        "sinh": Image(target, vp, Sinh(), (0.1, 0.9)),
        "shear": Image(target, ou, SinhShear(), (0.1, 0.8)),
        "shear, stratonovich": Image(target, ou, SinhShear(), (0.1, 0.8), "stratonovich"),
        "geometric Brownian motion": LogNormalMixture(target, 0.4, 0.6, (0.1, 1.0)),
        "square root": CoxIngersollRoss(1.0, 1.0, 0.5, 0.04, 2, (0.2, 1.2)),
    }
    for name, noise in state_noises().items():
        found[f"langevin, {name}"] = Carried(target, ou, noise, (0.2, 0.9), moving=False)
        found[f"carried, {name}"] = Carried(target, ou, noise, (0.1, 0.8))
    general = state_noises()["general"]
    found["carried, stratonovich"] = Carried(target, ou, general, (0.1, 0.8), calculus="stratonovich")
    return found
