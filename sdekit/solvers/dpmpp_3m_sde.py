"""dpmpp_3m_sde: three data predictions a step on the reverse SDE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, register
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.grid_steps import multistep_rows
from sdekit.solvers.options import check_choice, check_not_negative

__all__ = ["DPMpp3MSDE"]


@register("dpmpp_3m_sde", aliases=("k_dpmpp_3m_sde", "DPM++ 3M SDE"))
@dataclass(frozen=True)
class DPMpp3MSDE(SnrClocked):
    """`dpmpp_3m` on the reverse SDE, with orders 1 and 2 on the first steps.

    One normal a step limits the weak order to 2: the third prediction makes the error smaller, not its order higher.

    Args:
        eta: the square of the stochasticity, as in k-diffusion; 1 is the reverse SDE.
        as_released: take the second divided difference of the predictions, which is f'' / 2, as if it were f'':
            `sample_dpmpp_3m_sde` in k_diffusion/sampling.py of crowsonkb/k-diffusion at 4601bf0. "diffusers", for eta 1
            alone, has a wrong sign besides, which takes alpha_t times that difference away. It leaves weak order 1, and
            none where alpha times the slope of the data prediction is above 1, as between the modes of a mixture:
            errors grow from step to step there. `multistep_dpm_solver_third_order_update` with "sde-dpmsolver++" in
            src/diffusers/schedulers/scheduling_dpmsolver_multistep.py of huggingface/diffusers at 58eb52c, and 0.42.1.
        second: "exact" integrates the line through two predictions where there are only two, as k-diffusion does;
            "half" weights their difference by half the total. They are "heun" and "midpoint" in diffusers.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "sample_dpmpp_3m_sde, k_diffusion/sampling.py of crowsonkb/k-diffusion, corrected"

    eta: float = 1.0
    as_released: bool | str = False
    second: str = "exact"

    def __post_init__(self) -> None:
        check_not_negative("eta", self.eta)
        if not (isinstance(self.as_released, bool) or self.as_released == "diffusers"):
            raise OptionError(
                "as_released",
                got=repr(self.as_released),
                expected="True, False or 'diffusers'",
                fix="Use True for k-diffusion.",
            )
        if self.as_released == "diffusers" and self.eta != 1:
            raise OptionError(
                "as_released",
                got=f"'diffusers' with eta={self.eta!r}",
                expected="eta=1, the only one that diffusers has",
                fix="Use eta=1.0, or as_released=True, k-diffusion's, which takes any.",
            )
        check_choice("second", self.second, ("half", "exact"))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.as_released == "diffusers":
            note = "limited by a wrong sign in each step; none where alpha times the slope of the prediction is above 1"
            return Order(weak=1, note=note)
        if self.eta > 0:
            return Order(weak=2, strong=1, note="limited by one noise a step")
        limit = "half a second difference in each step" if self.as_released else "the first steps"
        return Order(deterministic=2, note=f"limited by {limit}")

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return math.sqrt(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        third = {False: "exact", True: "released", "diffusers": "other_sign"}[self.as_released]
        return multistep_rows(process, times, stochasticity, order=3, second=self.second, third=third)
