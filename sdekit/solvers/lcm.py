"""The sampler of consistency models: to the data prediction, and back with fresh noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.plan import DATA, Row, commit
from sdekit.sde import Stochasticity
from sdekit.solvers.ancestral import refuse_upwards
from sdekit.solvers.base import Order, PlanSolver, register

__all__ = ["LCM"]


@register("lcm", aliases=("LCM", "LCMScheduler", "k_lcm"))
@dataclass(frozen=True)
class LCM(PlanSolver):
    """Multistep consistency sampling, for models distilled to answer with a sample of the data.

        x_t = alpha_t data(s, x_s) + sigma_t z

    It is exact where the data prediction is the sample itself: for data at one point, or for a consistency model. With
    the mean that a diffusion model predicts it converges to nothing: more steps make the samples gather about means.
    Without noise at the last level it ends at the prediction: use a grid that ends at sigma = 0.

    diffusers' LCMScheduler replaces the prediction by c_out data + c_skip x besides, with c_skip next to 0 except at
    the smallest times. Its TCDScheduler with eta=1 is this, but for the noise of the first training time; with eta=0 it
    is `ddim`, and its default 0.3, a step of that to 0.7 of the next time and noise up from there, is not here.
    """

    family: ClassVar[str] = "consistency"
    reference: ClassVar[str] = (
        "Song, Dhariwal, Chen and Sutskever, Consistency Models, ICML 2023, Algorithm 1; "
        "comfy/k_diffusion/sampling.py of comfyanonymous/ComfyUI at 02159d8, sample_lcm"
    )
    declared: ClassVar[Order] = Order(note="none: it is for distilled models, and exact for data at one point")
    fixed_stochasticity: ClassVar[float] = 0.0

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        refuse_upwards(times, "solver", "'lcm'", "a solver of the probability flow")
        pairs = itertools.pairwise(process.levels(times, rates=False))
        return [commit(n, s, DATA, 0.0, {0: t.alpha}, {0: t.sigma}) for n, (s, t) in enumerate(pairs)]
