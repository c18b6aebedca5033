"""What the marginals of an SDE or ODE satisfy, at points: residuals of the continuity and Fokker-Planck equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.calculus import check_diffusion
from sdekit.errors import InterfaceError, ShapeError
from sdekit.model import check_output
from sdekit.sde import ODE, SDE, check_two_arguments
from sdekit.shapes import check_state, expand_time

__all__ = ["LogProb", "continuity_residual", "fokker_planck_residual"]

LogProb = Callable[[Tensor, Tensor], Tensor]
"""log_prob(t, x) -> (B,): the log density of the marginal, up to a constant that does not depend on t or x."""

Function = Callable[[Tensor], Tensor]


def continuity_residual(flow: ODE | LogProb, log_prob: LogProb, t: float | Tensor, x: Tensor) -> Tensor:
    """(dp/dt + div(v p)) / p at points: zero where the ODE dx/dt = v carries the density p.

    Args:
        flow: an ODE, or its velocity v(t, x), like x.
        log_prob: log p(t, x), (B,), made of torch operations in t and x; t is float64 of shape () or (B, 1, ..., 1).
        t: a number, or one time per row, (B,) or (B, 1, ..., 1).
        x: the points, (B, *shape); everything is computed in float64, by n + 2 derivatives in n dimensions.

    Returns:
        (B,) float64, in units of 1 / time: compare it with the size of dp/dt / p.

    Raises:
        InterfaceError: for a flow that is neither an ODE nor callable, a log_prob that is not callable.
        ShapeError, ModelOutputError: for values of the wrong shape.
    """
    time, point = _at(t, x)
    velocity = flow.drift if isinstance(flow, ODE) else flow
    for argument, function in (("flow", velocity), ("log_prob", log_prob)):
        check_two_arguments(argument, function)

    density = _Density(log_prob, time, point)

    def flux(y: Tensor) -> Tensor:
        return check_output(velocity(time, y), y, "flow") * density(y)

    return density.rate + _divergence(flux, point)


def fokker_planck_residual(sde: SDE, log_prob: LogProb, t: float | Tensor, x: Tensor) -> Tensor:
    """(dp/dt + div(f p) - sum_ij d_i d_j (D_ij p) / 2) / p at points, D = g g^T: zero where p are the marginals.

    For a Stratonovich SDE the last sum is that of div(g_k div(g_k p)) over the columns of g; for an SDE that runs
    backward in time its sign is the other. No formula is shared with `SDE.reverse`.

    Args:
        sde: the SDE.
        log_prob, t, x: as for `continuity_residual`; n^2 second derivatives are taken in n dimensions.

    Returns:
        (B,) float64, in units of 1 / time.

    Raises:
        InterfaceError: for what is no SDE, or a log_prob that is not callable.
        ShapeError, ModelOutputError: for values of the wrong shape.
    """
    if not isinstance(sde, SDE):
        raise InterfaceError("sde", got=type(sde).__name__, expected="an SDE", fix="Make one with sdekit.make_sde.")
    check_two_arguments("log_prob", log_prob)
    time, point = _at(t, x)
    density = _Density(log_prob, time, point)
    half = 0.5 if sde.backward else -0.5

    def flux(y: Tensor) -> Tensor:
        drift = check_output(sde.drift(time, y), y, "drift") * density(y)
        return drift + half * _spread(sde, density, y)

    return density.rate + _divergence(flux, point)


class _Density:
    """p(t, y) / p(t, x) as a function of y, like y up to broadcasting; and d log p / dt at x, (B,)."""

    def __init__(self, log_prob: LogProb, t: Tensor, x: Tensor) -> None:
        def log(s: Tensor, y: Tensor) -> Tensor:
            out = log_prob(s, y)
            if not isinstance(out, Tensor) or out.shape != x.shape[:1]:
                got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
                fix = "Return one number for each row of x."
                raise ShapeError("log_prob", got=got, expected=f"({len(x)},)", fix=fix)
            return out

        at_x = torch.func.jvp(lambda s: log(s, x), (t,), (torch.ones_like(t),))
        self.t, self._log, self._base, self.rate = t, log, at_x[0], at_x[1]

    def __call__(self, y: Tensor) -> Tensor:
        return torch.exp(self._log(self.t, y) - self._base).reshape(-1, *(1,) * (y.ndim - 1))


def _spread(sde: SDE, density: _Density, y: Tensor) -> Tensor:
    """sum_j d_j (D_ij p) or sum_k g_k div(g_k p) at y, like y, over p(x)."""

    def weighted(z: Tensor) -> Tensor:
        g = _matrix(sde, density.t, z)
        p = density(z).reshape(-1, 1, 1)
        return p * g if sde.sde_type == "stratonovich" else p * (g @ g.mT)

    rows = sum(torch.func.jvp(weighted, (y,), (e,))[1][:, j] for j, e in enumerate(_basis(y)))
    if sde.sde_type == "stratonovich":
        rows = (_matrix(sde, density.t, y) @ rows[..., None])[..., 0]  # type: ignore[index]
    return rows.reshape(y.shape)  # type: ignore[union-attr]


def _matrix(sde: SDE, t: Tensor, x: Tensor) -> Tensor:
    """g as (B, n, m)."""
    g = check_diffusion(sde.diffusion(t, x), x, sde.noise_type)
    if sde.noise_type == "general":
        return g.reshape(len(x), -1, g.shape[-1])
    return torch.diag_embed(g.expand(x.shape).reshape(len(x), -1))


def _at(t: Any, x: Any) -> tuple[Tensor, Tensor]:
    point = check_state(x).detach().to(torch.float64)
    return expand_time(t, point).detach().to(point.device, torch.float64), point


def _divergence(flux: Function, x: Tensor) -> Tensor:
    """sum_i d flux_i / d x_i, (B,)."""
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for e in _basis(x):
        total = total + (torch.func.jvp(flux, (x,), (e,))[1] * e).flatten(1).sum(1)
    return total


def _basis(x: Tensor) -> list[Tensor]:
    size = math.prod(x.shape[1:])
    rows = torch.eye(size, dtype=torch.float64, device=x.device)
    return [row.reshape(x.shape[1:]).expand(x.shape) for row in rows]
