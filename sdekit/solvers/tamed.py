"""The tamed Euler method, for drifts that grow faster than the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register

__all__ = ["TamedEulerMaruyama"]


@register("tamed_euler_maruyama", aliases=("tamed_euler",))
@dataclass(frozen=True)
class TamedEulerMaruyama(Stepper):
    """With h = t1 - t0 and the Euclidean norm |f| over one sample,

        x1 = x + h f / (1 + |h| |f|) + g W,    f = f(t0, x), g = g(t0, x).

    No step moves a sample by more than 1 through its drift. Where a drift such as -x^5 grows faster than x, moments of
    Euler-Maruyama diverge as the steps shrink, while those of this method stay bounded and it converges. Where |f| is
    large the drift is cut for as long as |h| |f| is not small: take euler_maruyama where the drift is Lipschitz.
    """

    family: ClassVar[str] = "Euler-Maruyama"
    reference: ClassVar[str] = "Hutzenthaler, Jentzen and Kloeden, Ann. Appl. Probab. 22 (2012), 1611-1641"
    declared: ClassVar[Order] = Order(
        deterministic=1,
        weak=1,
        strong=1,
        note="strong 1/2 where the diffusion depends on the state",
        noise={"additive": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        f = dynamics.drift(t0, x)
        norm = torch.linalg.vector_norm(f, dim=tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else f.abs()
        moved = x + h * (f / (1 + abs(h) * norm))
        return StepResult(moved if increments is None else moved + dynamics.diffuse(t0, x, increments.W))
