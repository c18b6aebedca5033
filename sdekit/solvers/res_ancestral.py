"""RES-2M with ancestral steps: a multistep method of the flow between exact noise kicks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.plan import DATA, Row, commit
from sdekit.sde import Stochasticity
from sdekit.solvers.ancestral import check_ancestral, inflated, lowered, single
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import snr_clock
from sdekit.solvers.exponential import exponential_step, touches_end

__all__ = ["ResMultistepAncestral"]


@register("res_multistep_ancestral", aliases=("res_2m_ancestral",))
@dataclass(frozen=True)
class ResMultistepAncestral(PlanSolver):
    """RES-2M, which is exponential Adams-Bashforth of order 2, down to rho_down, then noise: see `euler_ancestral`.

    The line through the last two data predictions has its older node at -h'_down / h_down, in units of the flow's part
    of the step: h_down = lambda_down - lambda_s here and h'_down in the step before. Noise leads back from lambda_down,
    so that the predictions lie a shorter way apart in lambda; but for eta = 1, where h_down = 2 h, this is
    `dpmpp_2m_sde(second="exact")` to rounding, and with the places in lambda it would be of weak order 1. The first
    step, and one from alpha = 0 or to sigma = 0, is of order 1.

    Args:
        eta: 0 for the probability flow, 1 for the reverse SDE; in between it tends to stochasticity eta.
        s_noise: the factor of the added noise.
    """

    family: ClassVar[str] = "ancestral"
    reference: ClassVar[str] = (
        "comfy/k_diffusion/sampling.py of comfyanonymous/ComfyUI at 02159d8, sample_res_multistep_ancestral"
    )

    eta: float = 1.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        check_ancestral(self.eta, self.s_noise)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.eta == 0:
            return Order(deterministic=2)
        if self.eta == 1:
            return inflated(self.eta, self.s_noise) or Order(weak=2, strong=1)
        note = "limited by eta < 1, 2 from the exact marginal"
        return inflated(self.eta, self.s_noise) or Order(weak=1, strong=1, note=note)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return float(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        rows: list[Row] = []
        before: float | None = None
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times, rates=False))):
            if touches_end(s, t):
                rows.append(single(n, s, t, self.eta, self.s_noise))
                before = None
                continue
            down, std = lowered(s, t, self.eta)
            h = down.half_log_snr - s.half_log_snr
            step = exponential_step(process, s, down, "data", 0.0)
            weights = [step.total] if before is None else step.weights([0.0, -before / h])
            rows.append(commit(n, s, DATA, step.scale, dict(enumerate(weights)), {0: self.s_noise * std}))
            before = h
        return rows

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        # Where a step's noise is not as large as that of the SDE, it is in the limit.
        return snr_clock(process, times, self.fixed_stochasticity)
