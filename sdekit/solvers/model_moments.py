"""The mean and the variance of the data, as a model knows them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, OptionError
from sdekit.model import Model
from sdekit.plan.coefficients import Block, Direction
from sdekit.shapes import finite_number
from sdekit.solvers.options import check_choice
from sdekit.solvers.preconditioned import Moments
from sdekit.times import check_count

__all__ = ["moments_of_model"]

_NOISY = -4.0
"""The half-log-SNR where a model is asked, unless its process ends before."""


def moments_of_model(
    model: Model,
    shape: tuple[int, ...],
    per: str = "sample",
    *,
    t: float | None = None,
    probes: int = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Moments:
    """The moments that the data's Gaussian would have, from the data prediction D at x = 0 and its slope there.

    With K = alpha dD/dx it is D(0) = (1 - K) m and c = rho^2 K / (1 - K): exact at any time for Gaussian data, and for
    any data but for terms of the size c / rho^2 where the noise is large.

    Args:
        shape: of one sample.
        per: as for `moments_of`: "sample", "direction", or "covariance", of samples of shape (d,).
        t: where to ask; default where log(alpha / sigma) = -4, or the noisiest time if there is none such.
        probes: how many copies of the sample the model is given at once. Variances per direction and covariances take
            a call for each as many directions. One number is from one call, by random signs where the sample has more
            numbers than that.
        seed: of the signs.

    Raises:
        ModelOutputError: if the prediction has no gradient, or the slope is not that of any Gaussian.
        OptionError: for a covariance of samples with several axes, or a time without data or noise.
    """
    check_choice("per", per, ("sample", "direction", "covariance"))
    if per == "covariance" and len(shape) != 1:
        raise OptionError("per", got=f"'covariance' for shape {shape}", expected="shape (d,)", fix="Use 'direction'.")
    process, count = model.process, check_count("probes", probes)
    if t is None:
        noisiest = float(process.half_log_snr(process.t_max))
        t = float(process.time_at(_NOISY)) if noisiest < _NOISY else process.t_max
    at = process.levels([finite_number("t", t)])[0]
    if not (at.alpha > 0 and at.sigma > 0):
        raise OptionError("t", got=repr(t), expected="a time with data and noise", fix="Move it off that end.")
    size = torch.Size(shape).numel()
    like: dict[str, Any] = {"dtype": dtype, "device": device}
    slopes = [torch.eye(size, **like)[i : i + count] for i in range(0, size, count)]
    if per == "sample" and size > count:
        signs = torch.randint(0, 2, (count, size), generator=torch.Generator().manual_seed(seed))
        slopes = [(2 * signs - 1).to(**like)]
    mean, found = torch.zeros(size), []
    for v in slopes:
        x = torch.zeros(len(v), *shape, **like).requires_grad_()
        with torch.enable_grad():
            data = model.data(t, x)
            mean, rows = data[0].detach().to(torch.float64).flatten(), _slopes(data, x, v)
        found.append(rows if per == "covariance" else (rows * v).to(torch.float64))
    if per == "covariance":
        k = at.alpha * torch.cat(found).to(torch.float64)
        k = 0.5 * (k + k.T)
        _check(torch.linalg.eigvalsh(k))
        rest = torch.eye(size, dtype=k.dtype, device=k.device) - k
        variance: Any = at.rho**2 * torch.linalg.solve(rest, k)
        return Moments(torch.linalg.solve(rest, mean), Block((0.5 * (variance + variance.T)).cpu().numpy()))
    if per == "direction":
        k = at.alpha * torch.cat(found).sum(1)
        variance = Direction((at.rho**2 * k / (1 - k)).reshape(shape).cpu().numpy())
    else:
        k = at.alpha * torch.cat(found).sum() / size / (len(found[0]) if size > count else 1)
        variance = float(at.rho**2 * k / (1 - k))
    _check(k)
    return Moments((mean / (1 - k)).reshape(shape), variance)


def _slopes(data: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """v dD/dx, a row for each."""
    if not data.requires_grad:
        raise ModelOutputError(
            "net",
            got="a prediction without a gradient in x",
            expected="one that torch can differentiate",
            fix="Estimate the moments from data with moments_of.",
        )
    return torch.autograd.grad(data, x, v.reshape(x.shape).to(data.dtype))[0].detach().reshape(v.shape)


def _check(k: Tensor) -> None:
    """That some Gaussian has these slopes: 0 <= K < 1."""
    low, high = float(k.min()), float(k.max())
    if not (low >= 0 and high < 1):
        raise ModelOutputError(
            "net",
            got=f"alpha times the slope of the data prediction from {low:.3g} to {high:.3g}",
            expected="numbers from 0 to 1, as for a Gaussian",
            fix="Ask at another t, or estimate the moments from data with moments_of.",
        )
