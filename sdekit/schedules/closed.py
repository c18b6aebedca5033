"""Schedules of affine processes: log alpha and log sigma as functions of time, without cancellation at either end.

For dx = f(t) x dt + g(t) dW the state is x_t = alpha x_0 + sigma eps. Every schedule answers in float64 on tensors of
any shape. With lambda = log(alpha / sigma), rho = sigma / alpha and ' = d/dt,

    f = (log alpha)',    g^2 = (sigma^2)' - 2 f sigma^2 = -2 sigma^2 lambda'.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.shapes import finite_number

__all__ = ["EDMSchedule", "HeatSchedule", "OUSchedule", "RFSchedule", "Schedule", "VESchedule", "VPSchedule"]


@dataclass(frozen=True)
class Schedule(ABC):
    """What a process must say about its marginals; each method takes and returns a float64 tensor."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def log_sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def half_log_snr(self, t: Tensor) -> Tensor:
        """lambda = log alpha - log sigma, in a form that keeps its digits where sigma or alpha is small."""

    @abstractmethod
    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """The inverse of `half_log_snr`."""

    @abstractmethod
    def drift_coefficient(self, t: Tensor) -> Tensor:
        """f(t)."""

    @abstractmethod
    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        """g(t) >= 0."""

    @abstractmethod
    def alpha_rate(self, t: Tensor) -> Tensor:
        """d alpha / dt, finite wherever the limit is."""

    @abstractmethod
    def sigma_rate(self, t: Tensor) -> Tensor:
        """d sigma / dt, finite wherever the limit is."""


@dataclass(frozen=True)
class VPSchedule(Schedule):
    """alpha = e^{-B/2}, sigma^2 = 1 - e^{-B}, B = beta_min t + (beta_max - beta_min) t^2 / 2."""

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        low = finite_number("beta_min", self.beta_min)
        high = finite_number("beta_max", self.beta_max, positive=True)
        if low < 0 or high < low:
            raise OptionError(
                "beta_min, beta_max",
                got=f"{low}, {high}",
                expected="0 <= beta_min <= beta_max",
                fix="Swap or correct them.",
            )

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self._integral(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(-torch.expm1(-self._integral(t)))

    def half_log_snr(self, t: Tensor) -> Tensor:
        # -1/2 log(expm1(B)), written so that a large B does not overflow.
        b = self._integral(t)
        return -0.5 * (b + torch.log(-torch.expm1(-b)))

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        b = torch.logaddexp(torch.zeros_like(half_log_snr), -2 * half_log_snr)
        slope = self.beta_max - self.beta_min
        # The root of the quadratic in the form that does not subtract; 0 / 0 only for beta_min = 0 at t = 0.
        root = 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))
        return torch.where(b == 0, torch.zeros_like(b), root)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._beta(t))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t) * torch.exp(self.log_alpha(t))

    def sigma_rate(self, t: Tensor) -> Tensor:
        # sigma sigma' = -alpha alpha' because alpha^2 + sigma^2 = 1.
        rate = 0.5 * self._beta(t) * torch.exp(2 * self.log_alpha(t) - self.log_sigma(t))
        if self.beta_min > 0:
            return rate
        # sigma ~ sqrt(beta_max / 2) t near 0, where the product above is 0 / 0.
        return torch.where(t == 0, math.sqrt(0.5 * self.beta_max), rate)


@dataclass(frozen=True)
class VESchedule(Schedule):
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        low = finite_number("sigma_min", self.sigma_min, positive=True)
        high = finite_number("sigma_max", self.sigma_max, positive=True)
        if high <= low:
            raise OptionError(
                "sigma_min, sigma_max",
                got=f"{low}, {high}",
                expected="0 < sigma_min < sigma_max",
                fix="Swap or correct them.",
            )

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + self._rate * t

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -self.log_sigma(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return (-half_log_snr - math.log(self.sigma_min)) / self._rate

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return math.sqrt(2 * self._rate) * torch.exp(self.log_sigma(t))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return self._rate * torch.exp(self.log_sigma(t))


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """alpha = 1, sigma = t."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-half_log_snr)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(2 * t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class RFSchedule(Schedule):
    """alpha = 1 - t, sigma = t: the straight line between data (t = 0) and noise (t = 1)."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-half_log_snr)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(2 * t / (1 - t))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class OUSchedule(Schedule):
    """alpha = e^{-theta t}, sigma^2 = s^2 (1 - e^{-2 theta t}) / (2 theta), s the diffusion."""

    theta: float
    diffusion: float

    def __post_init__(self) -> None:
        finite_number("theta", self.theta, positive=True)
        finite_number("sigma", self.diffusion, positive=True)

    @property
    def _stationary(self) -> float:
        """The stationary variance s^2 / (2 theta)."""
        return self.diffusion**2 / (2 * self.theta)

    def log_alpha(self, t: Tensor) -> Tensor:
        return -self.theta * t

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * (math.log(self._stationary) + torch.log(-torch.expm1(-2 * self.theta * t)))

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -self.theta * t - self.log_sigma(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        # log1p(e^{-2 lambda} / v) as a logaddexp: nothing overflows for a very negative lambda.
        log_ratio = -2 * half_log_snr - math.log(self._stationary)
        return torch.logaddexp(torch.zeros_like(log_ratio), log_ratio) / (2 * self.theta)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -self.theta)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.diffusion)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -self.theta * torch.exp(-self.theta * t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        # (sigma^2)' = s^2 - 2 theta sigma^2 = s^2 alpha^2.
        return 0.5 * self.diffusion**2 * torch.exp(-2 * self.theta * t - self.log_sigma(t))


@dataclass(frozen=True)
class HeatSchedule(Schedule):
    """alpha = 1, sigma^2 = s^2 t, s the diffusion: Brownian motion started at the data."""

    diffusion: float

    def __post_init__(self) -> None:
        finite_number("sigma", self.diffusion, positive=True)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.diffusion) + 0.5 * torch.log(t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -self.log_sigma(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-2 * half_log_snr) / self.diffusion**2

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.diffusion)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return 0.5 * self.diffusion / torch.sqrt(t)
