"""Grids with equal steps in some clock: t, half-log-SNR, powers of sigma / alpha, angles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.grids.base import Span, named
from sdekit.schedules import VPSchedule
from sdekit.shapes import finite_number
from sdekit.times import check_count

__all__ = [
    "cosine",
    "exponential",
    "flow_shift",
    "half_log_snr",
    "karras",
    "linear_quadratic",
    "quadratic",
    "uniform",
    "vp",
]


def _steps(span: Span, first: float, last: float) -> Tensor:
    """Equal steps from first to last."""
    return torch.linspace(first, last, span.steps + 1, dtype=torch.float64)


@named("uniform", aliases=("normal", "linspace", "Uniform", "Normal"))
def uniform(span: Span) -> Tensor:
    """Equal steps in t."""
    return span.exact(_steps(span, span.start, span.end))


@named("half_log_snr", aliases=("logsnr", "lambda"))
def half_log_snr(span: Span) -> Tensor:
    """Equal steps in lambda = log(alpha / sigma), which must be finite at both ends."""
    return span.at(_steps(span, *span.half_log_snr()))


@named("karras", aliases=("edm", "Karras"))
def karras(span: Span, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma / alpha)^(1 / rho): equation 5 of Karras et al., NeurIPS 2022. t_start must have alpha > 0.

    Args:
        rho: the exponent.
    """
    power = finite_number("rho", rho, positive=True)
    first, last = (math.exp(-value / power) for value in span.half_log_snr(end=False))
    values = _steps(span, first, last)
    return span.at(-power * torch.log(values))


@named("exponential", aliases=("polyexponential", "Exponential", "Polyexponential"))
def exponential(span: Span, rho: float = 1.0) -> Tensor:
    """log(sigma / alpha) at the power rho of equal steps: for rho = 1 the same times as `half_log_snr`.

    The names are k-diffusion's, whose sigma is our sigma / alpha. rho > 1 puts more steps at the clean end,
    as its polyexponential schedule does. Both ends must have a finite lambda.

    Args:
        rho: the exponent.
    """
    power = finite_number("rho", rho, positive=True)
    first, last = span.half_log_snr()
    return span.at(last + (first - last) * span.fractions() ** power)


@named("quadratic")
def quadratic(span: Span, power: float = 2.0) -> Tensor:
    """Equal steps in the square root of the time since the clean end of the domain.

    Args:
        power: the inverse of the exponent; 2 is the square root.
    """
    exponent = finite_number("power", power, positive=True)
    origin = span.process.domain[0]
    roots = ((t - origin) ** (1 / exponent) for t in (span.start, span.end))
    return span.exact(origin + _steps(span, *roots) ** exponent)


@named("cosine", aliases=("kl_optimal", "KL Optimal"))
def cosine(span: Span) -> Tensor:
    """Equal steps in the angle atan(sigma / alpha), along which a cosine schedule moves evenly.

    Finite at sigma = 0 and at alpha = 0. The same spacing as the one that ComfyUI calls kl_optimal.
    """
    process = span.process
    first, last = (math.atan2(float(process.sigma(t)), float(process.alpha(t))) for t in (span.start, span.end))
    return span.at(-torch.log(torch.tan(_steps(span, first, last))))


@named("vp")
def vp(span: Span, beta_min: float = 0.1, beta_max: float = 20.0) -> Tensor:
    """Equal steps in the time of `sdekit.VP(beta_min, beta_max)`, whatever the process. t_start must have alpha > 0.

    Args:
        beta_min, beta_max: those of the VP process whose sigma / alpha is taken.
    """
    schedule = VPSchedule(beta_min, beta_max)
    ends = torch.tensor(span.half_log_snr(end=False), dtype=torch.float64)
    first, last = schedule.time_at(ends).tolist()
    return span.at(schedule.half_log_snr(_steps(span, first, last)))


@named("flow_shift")
def flow_shift(span: Span, shift: float = 3.0) -> Tensor:
    """Equal steps in u, where sigma / alpha = shift u / (1 - u): on a rectified flow t = shift u / (1 + (shift - 1) u).

    Finite at sigma = 0 and at alpha = 0. The time shift of Esser et al., Scaling Rectified Flow Transformers for
    High-Resolution Image Synthesis, ICML 2024; a dynamic shift with parameter mu is shift = e^mu.

    Args:
        shift: above 1 for more steps at the noisy end; 1 for equal steps of a rectified flow.
    """
    factor = finite_number("shift", shift, positive=True)
    process = span.process
    pairs = [(float(process.sigma(t)), factor * float(process.alpha(t))) for t in (span.start, span.end)]
    u = _steps(span, *(sigma / (sigma + alpha) for sigma, alpha in pairs))
    return span.at(torch.log((1 - u) / u) - math.log(factor))


@named("linear_quadratic")
def linear_quadratic(span: Span, threshold: float = 0.025, linear_steps: int | None = None) -> Tensor:
    """Small equal steps in t first, down by the fraction `threshold` of the range, then steps that grow linearly.

    Made for flow matching, where t = sigma. The second half continues the first with the same slope.

    Args:
        threshold: the fraction of the range that the small steps cover, between 0 and 1.
        linear_steps: how many of them, fewer than steps; default half.
    """
    low, n = finite_number("threshold", threshold), span.steps
    if not 0 < low < 1:
        raise OptionError("threshold", got=repr(threshold), expected="a number between 0 and 1", fix="Use 0.025.")
    if n == 1:
        return span.between(span.fractions())
    m = n // 2 if linear_steps is None else check_count("linear_steps", linear_steps)
    if m >= n:
        raise OptionError("linear_steps", got=repr(m), expected=f"fewer than steps = {n}", fix="Lower it.")
    # Through (m, threshold) with the slope of the first part there, and through (n, 1).
    i = torch.arange(n + 1, dtype=torch.float64)
    slope, past = low / m, (i - m).clamp(min=0)
    curve = (1 - low - slope * (n - m)) / (n - m) ** 2
    return span.between(1 - (slope * i + curve * past**2))
