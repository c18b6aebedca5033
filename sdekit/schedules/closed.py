"""The schedules of VE, EDM, the rectified flow, Ornstein-Uhlenbeck and heat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.elementwise import sigmoid, softplus
from sdekit.schedules.base import Schedule
from sdekit.shapes import finite_number

__all__ = ["EDMSchedule", "HeatSchedule", "OUSchedule", "RFSchedule", "VESchedule"]


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

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

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

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def half_log_snr(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return sigmoid(-half_log_snr)

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
        # log1p(e^{-2 lambda} / v): nothing overflows for a very negative lambda.
        log_ratio = -2 * half_log_snr - math.log(self._stationary)
        return softplus(log_ratio) / (2 * self.theta)

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
