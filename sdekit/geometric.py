"""Geometric Brownian motion: multiplicative noise with exact transitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import OptionError, ShapeError
from sdekit.math.philox import SIMULATE_STREAM, normals
from sdekit.sde import SDE
from sdekit.seeds import resolve_seed
from sdekit.shapes import as_float64, check_state, compute_dtype, expand_time, finite_number
from sdekit.times import check_times

__all__ = ["GeometricBrownianMotion"]


@dataclass(frozen=True)
class GeometricBrownianMotion(SDE):
    """dx = mu x dt + sigma x dW (Ito), with independent noise in every coordinate.

    log |x| is a Brownian motion: x(t) = x(s) exp((mu - sigma^2 / 2) (t - s) + sigma (W_t - W_s)). Coordinates keep
    their sign; 0 stays 0.

    Args:
        mu: the rate of growth of the mean, any number.
        sigma: the volatility, greater than 0.

    Raises:
        InterfaceError, OptionError: for parameters that are not so.
    """

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        finite_number("mu", self.mu)
        finite_number("sigma", self.sigma, positive=True)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """mu x."""
        return self.mu * x

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """sigma x."""
        return self.sigma * x

    def diffusion_derivative(self, t: Tensor, x: Tensor) -> Tensor:
        """sigma, like x."""
        return torch.full_like(x, self.sigma)

    def transition(self, t_from: float | Tensor, t_to: float | Tensor) -> tuple[Tensor, Tensor]:
        """Shift and std of log |x(t_to)| given x(t_from), for t_to >= t_from: N(log |x| + shift, std^2), float64.

        Raises:
            OptionError: for t_to before t_from.
        """
        span = as_float64(t_to) - as_float64(t_from)
        if not bool((span >= 0).all()):
            raise OptionError(
                "t_to",
                got=f"a time {float(-span.min()):.6g} before t_from",
                expected="t_to >= t_from",
                fix="Swap them.",
            )
        return (self.mu - 0.5 * self.sigma**2) * span, self.sigma * torch.sqrt(span)

    def moments(self, t_from: float | Tensor, t_to: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x(t_to) given x(t_from) = x, like x (B, *shape).

        Args:
            t_from, t_to: numbers or one time per row; raises as `transition`.
        """
        shift, std = self._spread(t_from, t_to, check_state(x))
        mean = x.to(compute_dtype(x.dtype)) * torch.exp(shift + 0.5 * std**2)
        return mean.to(x.dtype), (mean.abs() * torch.sqrt(torch.expm1(std**2))).to(x.dtype)

    def log_prob(self, t_from: float | Tensor, t_to: float | Tensor, x_from: Tensor, x_to: Tensor) -> Tensor:
        """log density of x(t_to) = x_to given x(t_from) = x_from, summed over coordinates: (B,).

        -inf where a coordinate has changed its sign or is zero. Raises as `transition`, and OptionError for t_to =
        t_from, where there is no density.
        """
        z, std = self._standard(t_from, t_to, x_from, x_to)
        each = -0.5 * (z**2 + math.log(2 * math.pi)) - torch.log(std * x_to.abs())
        return torch.where(x_from * x_to > 0, each, -math.inf).flatten(1).sum(1)

    def score(self, t_from: float | Tensor, t_to: float | Tensor, x_from: Tensor, x_to: Tensor) -> Tensor:
        """The gradient of `log_prob` in x_to, like x_to: what denoising score matching regresses on. Raises as it."""
        z, std = self._standard(t_from, t_to, x_from, x_to)
        return -(1 + z / std) / x_to

    def simulate(self, x0: Tensor, times: Sequence[float] | Tensor, seed: int | None = None) -> Tensor:
        """A path from x(times[0]) = x0, exact in law: shape (len(times), B, *shape).

        Args:
            times: increasing.
            seed: the path of row i depends on (seed, i) alone; None draws one integer from torch's generator.
        """
        check_state(x0, "x0")
        grid = check_times(times, direction="up")
        key = resolve_seed(seed)
        ids = torch.arange(len(x0), dtype=torch.int64, device=x0.device)
        dtype = compute_dtype(x0.dtype)
        path, x = [x0.clone()], x0.to(dtype)
        for i in range(len(grid) - 1):
            shift, std = (float(v) for v in self.transition(grid[i], grid[i + 1]))
            z = normals(key, ids, i, math.prod(x.shape[1:]), stream=SIMULATE_STREAM, dtype=dtype, device=x.device)
            x = x * torch.exp(shift + std * z.reshape(x.shape))
            path.append(x.to(x0.dtype))
        return torch.stack(path)

    def _spread(self, t_from: Any, t_to: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """`transition`, to broadcast against x in its computing dtype."""
        ends = (expand_time(t, x) for t in (t_from, t_to))
        shift, std = (v.to(compute_dtype(x.dtype)) for v in self.transition(*ends))
        return shift, std

    def _standard(self, t_from: Any, t_to: Any, x_from: Tensor, x_to: Tensor) -> tuple[Tensor, Tensor]:
        """The standard normal that leads from x_from to x_to, and its factor in log |x|."""
        check_state(x_from, "x_from")
        check_state(x_to, "x_to")
        if x_from.shape != x_to.shape:
            expected = f"{tuple(x_from.shape)} as x_from"
            raise ShapeError("x_to", got=f"shape {tuple(x_to.shape)}", expected=expected, fix="Match it.")
        shift, std = self._spread(t_from, t_to, x_to)
        if bool((std == 0).any()):
            raise OptionError("t_to", got="t_to = t_from", expected="t_to > t_from", fix="Let some time pass.")
        return (torch.log((x_to / x_from).abs()) - shift) / std, std
