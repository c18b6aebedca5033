"""Grids that pick from the times a network was trained on, or follow a distribution or a published table."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError, suggest
from sdekit.grids.base import Span, named
from sdekit.grids.convert import from_sigmas, training_count
from sdekit.shapes import finite_number
from sdekit.times import check_count

__all__ = ["align_your_steps", "beta", "beta_sigma", "ddim_uniform", "sgm_uniform", "simple", "trailing"]

# sigma / alpha at the eleven times of Sabour et al., Align Your Steps, ICML 2024.
_ALIGNED = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
_ROUNDING = 5e-4  # of these numbers of three decimals; Stable Diffusion ends at 14.6146


@named("sgm_uniform", aliases=("SGM Uniform",), zero_for_end=True)
def sgm_uniform(span: Span) -> Tensor:
    """Equal steps in t, of which an appended zero replaces the last time instead of following it."""
    return span.between(span.fractions())


def _picked(span: Span, ranks: list[int], count: int) -> Tensor:
    """The training times of these ranks, then the end; the k-th of `count` lies k / count of the way to the start.

    The way is from the clean end of the domain, or from t_end where that is given.
    """
    origin = span.process.domain[0] if span.own_end else span.end
    times = [origin + (span.start - origin) * rank / count for rank in ranks]
    if times[-1] <= span.end and not span.replaced:
        raise OptionError(
            "steps",
            got=f"{span.steps}, for which the grid {span.name!r} picks t = {times[-1]:g} before the end {span.end:g}",
            expected="steps that are longer than the one between training times",
            fix="Use fewer steps, lower t_end, or append_zero=True.",
        )
    return torch.tensor([*times, span.end], dtype=torch.float64)


def _count(span: Span, timesteps: int | None) -> int:
    count = training_count(span.process, timesteps, argument="timesteps")
    if span.steps > count:
        expected = f"at most the {count} training times that the grid {span.name!r} picks from"
        raise OptionError("steps", got=repr(span.steps), expected=expected, fix="Use fewer, or raise timesteps=.")
    return count


@named("simple", aliases=("Simple",), zero_for_end=True)
def simple(span: Span, timesteps: int | None = None) -> Tensor:
    """Every (N / steps)-th of N training times from the noisiest on, rounded up; then t_end, or an appended zero.

    Args:
        timesteps: N; default the number of betas of a `DiscreteVP`, else 1000.
    """
    count = _count(span, timesteps)
    return _picked(span, [count - i * count // span.steps for i in range(span.steps)], count)


@named("trailing", zero_for_end=True)
def trailing(span: Span, timesteps: int | None = None) -> Tensor:
    """As `simple`, rounded to the nearest training time: the spacing that diffusers calls trailing.

    Args:
        timesteps: N; default the number of betas of a `DiscreteVP`, else 1000.
    """
    count = _count(span, timesteps)
    ranks = [round(Fraction(count * (span.steps - i), span.steps)) for i in range(span.steps)]
    return _picked(span, ranks, count)


@named("ddim_uniform", aliases=("leading", "DDIM"), zero_for_end=True)
def ddim_uniform(span: Span, timesteps: int | None = None, offset: int = 1) -> Tensor:
    """Every floor(N / steps)-th of N training times from the cleanest on; then t_end, or an appended zero.

    As published it starts below t_max, where there is more data left than in the prior that samples are drawn from;
    an explicit t_start is kept, with equal steps from there.

    Args:
        timesteps: N; default the number of betas of a `DiscreteVP`, else 1000.
        offset: how many of the cleanest training times are left out: 1 for ComfyUI's ddim_uniform and Stable
            Diffusion's leading spacing, 0 for plain leading spacing.
    """
    count, skipped = _count(span, timesteps), check_count("offset", offset, least=0)
    last, first = 1 + skipped, 1 + skipped + (span.steps - 1) * (count // span.steps)
    if first > count:
        expected = f"at most {count - first + skipped} for {span.steps} steps of {count} training times"
        raise OptionError("offset", got=repr(offset), expected=expected, fix="Lower it.")
    if span.own_start:
        return _picked(span, list(range(first, last - 1, -(count // span.steps))), count)
    (clean, _) = _picked(span, [last], count).tolist()
    steps = torch.linspace(span.start, clean, span.steps, dtype=torch.float64)
    return span.exact(torch.cat([steps, steps.new_zeros(1)]))


def _quantiles(span: Span, alpha: float, beta: float) -> Tensor:
    """The quantiles 1 ... 0 of the beta distribution in equal steps."""
    from scipy.special import betaincinv

    shape = [finite_number(name, value, positive=True) for name, value in (("alpha", alpha), ("beta", beta))]
    return torch.from_numpy(np.asarray(betaincinv(*shape, span.fractions().numpy())))


@named("beta", zero_for_end=True)
def beta(span: Span, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """t at quantiles of a beta distribution between both ends, dense at both; ComfyUI's grid of this name.

    ComfyUI rounds to training times: so does `.round()` where they are whole, on a `DiscreteVP`.
    Lee et al., Beta Sampling is All You Need, 2024.

    Args:
        alpha, beta: the shape; below 1 for dense ends, both 1 for equal steps.
    """
    return span.between(_quantiles(span, alpha, beta))


@named("beta_sigma", aliases=("Beta",))
def beta_sigma(span: Span, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """sigma / alpha at quantiles of a beta distribution; diffusers' and A1111's beta. t_start must have alpha > 0.

    Args:
        alpha, beta: the shape; both 1 for equal steps in sigma / alpha.
    """
    first, last = (math.exp(-value) for value in span.half_log_snr(end=False))
    return span.at(-torch.log(last + (first - last) * _quantiles(span, alpha, beta)))


def _published(process: AffineSDE, level: float) -> tuple[float, float]:
    """The time of a published sigma / alpha, and that level; an end that it passes by its rounding stands for it."""
    for t, outwards in zip(process.domain, (-1.0, 1.0), strict=True):
        end = float(process.rho(t)) if math.isfinite(t) else math.inf
        if 0 < outwards * (level - end) <= _ROUNDING:
            return t, end
    return float(from_sigmas(process, level)), level


@named("align_your_steps", aliases=("ays", "Align Your Steps"))
def align_your_steps(span: Span, model: str = "sd15") -> Tensor:
    """The eleven optimised noise levels of Align Your Steps, interpolated in half-log-SNR for other numbers of steps.

    Ends that are given stretch the table; by default it is as published, but for an end that lies beyond the process's
    by no more than the rounding of its three decimals: there the process's end is taken.

    Args:
        model: which table: "sd15", "sdxl" or "svd" (Stable Diffusion 1.5, XL, Video).
    """
    if model not in _ALIGNED:
        fix = suggest(str(model), _ALIGNED)
        raise OptionError("model", got=repr(model), expected="the name of a table", fix=fix)
    levels = list(_ALIGNED[model])
    # The ends of the table, unless others are given: then they stretch it.
    if span.own_start:
        start, levels[0] = _published(span.process, levels[0])
        span = replace(span, start=start)
    if span.own_end:
        end, levels[-1] = _published(span.process, levels[-1])
        span = replace(span, end=end)
    table = -np.log(levels)
    places = np.interp(np.linspace(0, 1, span.steps + 1), np.linspace(0, 1, len(table)), table)
    first, last = span.half_log_snr()
    return span.at(torch.from_numpy(first + (last - first) * (places - table[0]) / (table[-1] - table[0])))
