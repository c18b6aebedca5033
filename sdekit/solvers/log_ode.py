"""The log-ODE method: one ODE a step, whose field holds the areas between the Brownian motions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.calculus import LocalNoise
from sdekit.noise_class import noise_classes
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.solvers.options import check_choice
from sdekit.solvers.path_runge_kutta import area_of

__all__ = ["LogODE", "area_given_increments", "log_ode_step"]

_AREAS = ("mean", "davie_foster")


@register("log_ode")
@dataclass(frozen=True)
class LogODE(Stepper):
    """With h = t - s, the solution at u = 1 of dy/du = F(u, y), y(0) = x_s,

        F = h f + sum_k g_k W_k + sum_{j < k} A_jk [g_j, g_k]    at (s + u h, y),

    [g_j, g_k] the derivative of g_k along g_j less that of g_j along g_k, and A_jk = 1/2 int (W_j dW_k - W_k dW_j) the
    Levy area of the step. Of that ODE one step of Heun's method is taken, whose error is of the size of what F leaves
    out.

    With the true areas the strong order is 1 for any noise: see `log_ode_step`. Increments of the path do not settle
    them, and what W and H say of them leaves 1/2. Where the noise commutes the brackets are zero and are not computed:
    there this is `stochastic_heun`.

    Args:
        area: "mean": the mean of A given W and H, which is the nearest to A path by path. "davie_foster": normals of
            their own beside it, m (m - 1) / 2 for m Brownian motions, so that A has its variance given W and H.

    Raises:
        InterfaceError: at the first step, for noise that does not commute and that torch cannot differentiate.
    """

    family: ClassVar[str] = "log-ODE"
    reference: ClassVar[str] = "Foster, Oberhauser and Lyons, SIAM J. Numer. Anal. 58 (2020)"
    calculus: ClassVar[str] = "stratonovich"
    uses_area: ClassVar[bool] = True
    default_stochasticity: ClassVar[float] = 1.0
    declared: ClassVar[Order] = Order(
        deterministic=2,
        weak=2,
        strong=1,
        noise={"additive": NoiseOrder(1, 2), "commutative": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )

    area: str = "mean"

    def __post_init__(self) -> None:
        check_choice("area", self.area, _AREAS)

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return 2

    def extra_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        motions = math.prod(shape[1:])
        pairs = motions * (motions - 1) // 2
        return ((shape[0], pairs),) if self.area == "davie_foster" and pairs else ()

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        if increments is None:
            return StepResult(log_ode_step(dynamics, t0, t1, x, None, None))
        w = increments.W
        columns = w.shape[-1] if dynamics.noise_type == "general" else None
        if "commutative" in noise_classes(dynamics.dynamics, x, columns):
            return StepResult(log_ode_step(dynamics, t0, t1, x, w, None))
        if state is None:  # once: it calls g again, and reads the device
            dynamics.local_noise(t0, x).verify()
        z = increments.extra[0] if self.area == "davie_foster" else None
        area = area_given_increments(w.flatten(1), area_of(increments).flatten(1), abs(t1 - t0), z)
        return StepResult(log_ode_step(dynamics, t0, t1, x, w, area), None, True)


def area_given_increments(w: Tensor, h: Tensor, length: float, z: Tensor | None = None) -> Tensor:
    """Levy areas from W and H: E[A | W, H] = H W^T - W H^T, and with normals z its variance given them,

        Var[A_jk | W, H] = l^2 / 20 + l (H_j^2 + H_k^2) / 5    over a step of length l.

    Args:
        w, h: (B, m).
        z: (B, m (m - 1) / 2) standard normals, for the pairs j < k row by row; None for the mean.

    Returns:
        (B, m, m), antisymmetric.
    """
    half = h[:, :, None] * w[:, None, :]
    area = half - half.mT
    if z is None:
        return area
    j, k = torch.triu_indices(w.shape[1], w.shape[1], 1, device=w.device)
    spread = (length * length / 20 + (length / 5) * (h[:, j] ** 2 + h[:, k] ** 2)).sqrt() * z
    upper = torch.zeros_like(area).index_put((torch.arange(len(w), device=w.device)[:, None], j, k), spread)
    return area + upper - upper.mT


def log_ode_step(dynamics: Any, t0: float, t1: float, x: Tensor, w: Tensor | None, area: Tensor | None) -> Tensor:
    """One step of `LogODE` with areas (B, m, m) of your own, such as exact ones; None leaves the brackets out."""
    first = _field(dynamics, t0, x, t1 - t0, w, area)
    last = _field(dynamics, t1, x + first, t1 - t0, w, area)
    return x + 0.5 * (first + last)


def _field(dynamics: Any, t: float, x: Tensor, h: float, w: Tensor | None, area: Tensor | None) -> Tensor:
    moved = h * dynamics.drift(t, x)
    if w is None:
        return moved
    if area is None:
        return moved + dynamics.diffuse(t, x, w)
    noise = dynamics.local_noise(t, x)
    return moved + dynamics.product(noise.g, w) + _brackets(noise, area)


def _brackets(noise: LocalNoise, area: Tensor) -> Tensor:
    """sum_{j < k} A_jk [g_j, g_k] = sum_k (the derivative of g_k along sum_j g_j A_jk): one derivative for each k."""
    x, g = noise.x, noise.g
    if noise.sde.noise_type == "general":
        mixed = torch.einsum("b...j,bjk->b...k", g, area)
        parts = [noise.along(mixed[..., k])[..., k] for k in range(g.shape[-1])]
        return torch.stack(parts).sum(0)
    # A number times independent noise in each coordinate: g_k = g e_k.
    parts = [noise.along((g.reshape(-1, 1) * area[:, :, k]).reshape(x.shape)) for k in range(area.shape[-1])]
    return torch.stack([p.reshape(-1) for p in parts], 1).reshape(x.shape)
