"""Gradient estimation: Euler's method in rho with a noise prediction extrapolated from the last two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.plan import NOISE, Row, commit
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.solvers.pndm import transfer

__all__ = ["GradientEstimation"]


@register("gradient_estimation")
@dataclass(frozen=True)
class GradientEstimation(PlanSolver):
    """The gradient-estimation sampler (Permenter and Yuan, 2024), one call a step.

    DDIM's step with gamma E_0 + (1 - gamma) E_1 for the noise prediction E_0, where E_1 is the one before; the first
    step, and one that touches sigma = 0 or alpha = 0, is DDIM's. As `sample_gradient_estimation` of ComfyUI.

    Args:
        gamma: 2 as published: for short steps its error is DDIM's with the other sign. 1 is DDIM, 3/2 `ipndm` of
            order 2.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = (
        "Permenter and Yuan, Interpreting and Improving Diffusion Models from an Optimization Perspective, ICML 2024, "
        "arXiv:2306.04848"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    gamma: float = 2.0

    def __post_init__(self) -> None:
        finite_number("gamma", self.gamma)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.gamma == 1.5:
            return Order(deterministic=2, note="order 1 on grids whose neighbouring steps differ at random")
        return Order(deterministic=1)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        rows: list[Row] = []
        last: int | None = None  # the row of the last regular step
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times, rates=False))):
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, "noise", 0.0))
                continue
            scale, amount = transfer(s, t)
            new, old = (1.0, 0.0) if last is None else (float(self.gamma), 1.0 - self.gamma)
            rows.append(commit(n, s, NOISE, scale, {0: new * amount, 1: old * amount}))
            last = n
        return rows
