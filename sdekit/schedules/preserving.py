"""Variance-preserving schedules, alpha^2 + sigma^2 = 1, and the sub-VP one, whose variance stays below that."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.elementwise import sigmoid, softplus
from sdekit.schedules.base import Schedule
from sdekit.shapes import finite_number

__all__ = ["CosineSchedule", "DiscreteVPSchedule", "SubVPSchedule", "VPSchedule"]


class _FromIntegral(Schedule):
    """alpha = e^{-B/2} with B(t) = int beta: what the schedules with a beta share."""

    @abstractmethod
    def _integral(self, t: Tensor) -> Tensor:
        """B(t)."""

    @abstractmethod
    def _beta(self, t: Tensor) -> Tensor:
        """B'(t)."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self._integral(t)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t) * torch.exp(self.log_alpha(t))


class _Preserving(_FromIntegral):
    """sigma^2 = 1 - e^{-B}."""

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(-torch.expm1(-self._integral(t)))

    def half_log_snr(self, t: Tensor) -> Tensor:
        # -1/2 log(expm1(B)), written so that a large B does not overflow.
        b = self._integral(t)
        return -0.5 * (b + torch.log(-torch.expm1(-b)))

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._beta(t))


def _integral_at(half_log_snr: Tensor) -> Tensor:
    """B of a variance-preserving schedule, log1p(e^{-2 lambda})."""
    return softplus(-2 * half_log_snr)


@dataclass(frozen=True)
class _LinearBeta(_FromIntegral):
    """B = beta_min t + (beta_max - beta_min) t^2 / 2."""

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

    def _time_of(self, b: Tensor) -> Tensor:
        """The t at which B(t) = b."""
        slope = self.beta_max - self.beta_min
        # The root of the quadratic in the form that does not subtract; 0 / 0 only for beta_min = 0 at t = 0.
        root = 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))
        return torch.where(b == 0, torch.zeros_like(b), root)


@dataclass(frozen=True)
class VPSchedule(_LinearBeta, _Preserving):
    """alpha = e^{-B/2}, sigma^2 = 1 - e^{-B}, B = beta_min t + (beta_max - beta_min) t^2 / 2."""

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        return self._time_of(_integral_at(half_log_snr))

    def sigma_rate(self, t: Tensor) -> Tensor:
        # sigma sigma' = -alpha alpha' because alpha^2 + sigma^2 = 1.
        rate = 0.5 * self._beta(t) * torch.exp(2 * self.log_alpha(t) - self.log_sigma(t))
        if self.beta_min > 0:
            return rate
        # sigma ~ sqrt(beta_max / 2) t near 0, where the product above is 0 / 0.
        return torch.where(t == 0, math.sqrt(0.5 * self.beta_max), rate)


@dataclass(frozen=True)
class SubVPSchedule(_LinearBeta):
    """alpha = e^{-B/2}, sigma = 1 - e^{-B}, so that rho = 2 sinh(B / 2); B as for `VPSchedule`."""

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(-self._integral(t)))

    def half_log_snr(self, t: Tensor) -> Tensor:
        b = self._integral(t)
        return -(0.5 * b + torch.log(-torch.expm1(-b)))

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        # 2 asinh(rho / 2); for a large rho it is 2 log rho + 2 / rho^2, and rho may overflow.
        far = half_log_snr < -20
        near = 2 * torch.asinh(0.5 * torch.exp(-torch.where(far, torch.zeros_like(half_log_snr), half_log_snr)))
        return self._time_of(torch.where(far, -2 * half_log_snr, near))

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(self._beta(t) * -torch.expm1(-2 * self._integral(t)))

    def sigma_rate(self, t: Tensor) -> Tensor:
        return self._beta(t) * torch.exp(-self._integral(t))


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """alpha = cos(theta) / cos(theta_0), sigma^2 = 1 - alpha^2, theta = (pi / 2) (t + s) / (1 + s), theta_0 at t = 0.

    Every formula keeps its digits at both ends: cos(theta) is the sine of (pi / 2) (1 - t) / (1 + s), and sigma^2
    cos(theta_0)^2 = sin(theta - theta_0) sin(theta + theta_0).
    """

    offset: float

    def __post_init__(self) -> None:
        if finite_number("s", self.offset) < 0:
            raise OptionError("s", got=repr(self.offset), expected="a number >= 0", fix="The published one is 0.008.")

    @property
    def _speed(self) -> float:
        """d theta / dt."""
        return 0.5 * math.pi / (1 + self.offset)

    @property
    def _start(self) -> tuple[float, float]:
        """theta_0 and its cosine."""
        angle = self.offset * self._speed
        return angle, math.cos(angle)

    def _sine_and_cosine(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sin(theta), cos(theta)."""
        return torch.sin((t + self.offset) * self._speed), torch.sin((1 - t) * self._speed)

    def log_alpha(self, t: Tensor) -> Tensor:
        angle, cosine = self._start
        # Close to 0 a quotient of cosines next to 1 would lose what log1p keeps:
        # cos(theta) / cos(theta_0) - 1 = -2 sin((theta - theta_0) / 2) sin((theta + theta_0) / 2) / cos(theta_0).
        x = t * self._speed
        drop = -2 * torch.sin(0.5 * x) * torch.sin(0.5 * x + angle) / cosine
        return torch.where(t < 0.5, torch.log1p(drop.clamp(min=-0.9)), torch.log(self._sine_and_cosine(t)[1] / cosine))

    def _log_sine_product(self, t: Tensor) -> Tensor:
        """log(sigma^2 cos(theta_0)^2)."""
        x = t * self._speed
        return torch.log(torch.sin(x) * torch.sin(x + 2 * self._start[0]))

    def log_sigma(self, t: Tensor) -> Tensor:
        # Close to 1 sigma is next to 1, and its logarithm is that of 1 - alpha^2.
        alpha = torch.exp(self.log_alpha(t))
        far = 0.5 * torch.log1p(-(torch.where(t > 0.5, alpha, torch.zeros_like(alpha)) ** 2))
        near = 0.5 * self._log_sine_product(t) - math.log(self._start[1])
        return torch.where(t > 0.5, far, near)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return torch.log(self._sine_and_cosine(t)[1]) - 0.5 * self._log_sine_product(t)

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        angle, cosine = self._start
        variance, alpha = sigmoid(-2 * half_log_snr), torch.sqrt(sigmoid(2 * half_log_snr))
        sine = torch.sqrt(math.sin(angle) ** 2 + variance * cosine**2)
        theta = torch.atan(sine / (alpha * cosine))
        # sin(theta - theta_0); 0 / 0 only for s = 0 at t = 0.
        small = torch.where(variance == 0, torch.zeros_like(variance), variance * cosine**2 / torch.sin(theta + angle))
        early = torch.asin(small.clamp(max=1)) / self._speed
        late = 1 - torch.asin(alpha * cosine) / self._speed
        return torch.where(half_log_snr > 0, early, late)

    def drift_coefficient(self, t: Tensor) -> Tensor:
        sine, cosine = self._sine_and_cosine(t)
        return -self._speed * sine / cosine

    def diffusion_coefficient(self, t: Tensor) -> Tensor:
        return torch.sqrt(-2 * self.drift_coefficient(t))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -self._speed / self._start[1] * self._sine_and_cosine(t)[0]

    def sigma_rate(self, t: Tensor) -> Tensor:
        # sigma sigma' = -alpha alpha'.
        sine, cosine = self._sine_and_cosine(t)
        rate = self._speed / self._start[1] ** 2 * sine * cosine / torch.exp(self.log_sigma(t))
        # Without an offset sigma = sin(theta), and the quotient is 0 / 0 at t = 0.
        return torch.where(t == 0, self._speed, rate) if self.offset == 0 else rate


@dataclass(frozen=True)
class DiscreteVPSchedule(_Preserving):
    """alpha(n)^2 = (1 - beta_1) ... (1 - beta_n) at the whole times n = 0 ... N, log alpha linear between them.

    So f and g are constant between whole times; at one of them they are those of the step that ends there.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas:
            raise OptionError("betas", got="none", expected="one beta for each step", fix="Pass a list of numbers.")
        for i, beta in enumerate(self.betas):
            if not 0 < beta < 1:
                raise OptionError(
                    "betas",
                    got=f"{beta!r} at index {i}",
                    expected="0 < beta < 1: without noise a step cannot be inverted, and beta = 1 leaves no data",
                    fix="Clip them, for example at 0.999.",
                )

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        """B at 0 ... N, and its slopes, float64 on the host."""
        return torch.tensor(list(self._knots()), dtype=torch.float64), torch.tensor(self._slopes, dtype=torch.float64)

    @property
    def _slopes(self) -> list[float]:
        return [-math.log1p(-beta) for beta in self.betas]

    def _knots(self) -> Iterator[float]:
        # Exact sums, rounded once: a thousand roundings would cost three digits.
        return map(float, accumulate(map(Fraction, self._slopes), initial=Fraction(0)))

    def _step(self, t: Tensor) -> Tensor:
        """The index of the step that t lies in or ends."""
        return (torch.ceil(t) - 1).clamp(0, len(self.betas) - 1).long()

    def _integral(self, t: Tensor) -> Tensor:
        knots, slopes = (v.to(t.device) for v in self._tables)
        n = self._step(t.detach())
        return knots[n] + (t - n) * slopes[n]

    def _beta(self, t: Tensor) -> Tensor:
        return self._tables[1].to(t.device)[self._step(t.detach())]

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        knots, slopes = (v.to(half_log_snr.device) for v in self._tables)
        b = _integral_at(half_log_snr)
        n = torch.bucketize(b.detach(), knots[1:-1])
        return n + (b - knots[n]) / slopes[n]

    def sigma_rate(self, t: Tensor) -> Tensor:
        return 0.5 * self._beta(t) * torch.exp(2 * self.log_alpha(t) - self.log_sigma(t))
