"""Schedules of affine processes: log alpha and log sigma as functions of time, without cancellation at either end.

For dx = f(t) x dt + g(t) dW the state is x_t = alpha x_0 + sigma eps. Every schedule answers in float64 on tensors of
any shape. With lambda = log(alpha / sigma), rho = sigma / alpha and ' = d/dt,

    f = (log alpha)',    g^2 = (sigma^2)' - 2 f sigma^2 = -2 sigma^2 lambda'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule(ABC):
    """What a process must say about its marginals; each method takes and returns a float64 tensor."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def log_sigma(self, t: Tensor) -> Tensor: ...

    def alpha(self, t: Tensor) -> Tensor:
        """alpha(t); a schedule whose alpha needs no logarithm says so here, as in `sigma`."""
        return torch.exp(self.log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t)."""
        return torch.exp(self.log_sigma(t))

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
