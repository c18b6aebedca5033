"""dpmpp_3m_sde: three data predictions a step on the reverse SDE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, register
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.grid_steps import multistep_rows
from sdekit.solvers.options import check_choice, check_flag, check_not_negative

__all__ = ["DPMpp3MSDE"]


@register("dpmpp_3m_sde", aliases=("k_dpmpp_3m_sde", "DPM++ 3M SDE"))
@dataclass(frozen=True)
class DPMpp3MSDE(SnrClocked):
    """`dpmpp_3m` on the reverse SDE, with orders 1 and 2 on the first steps.

    One normal a step limits the weak order to 2: the third prediction makes the error smaller, not its order higher.

    Args:
        eta: the square of the stochasticity, as in k-diffusion; 1 is the reverse SDE.
        as_released: take the second divided difference of the predictions, which is f'' / 2, as if it were f'':
            `sample_dpmpp_3m_sde` in k_diffusion/sampling.py of crowsonkb/k-diffusion at 4601bf0.
        second: "exact" integrates the line through two predictions where there are only two, as k-diffusion does;
            "half" weights their difference by half the total.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "sample_dpmpp_3m_sde, k_diffusion/sampling.py of crowsonkb/k-diffusion, corrected"

    eta: float = 1.0
    as_released: bool = False
    second: str = "exact"

    def __post_init__(self) -> None:
        check_not_negative("eta", self.eta)
        check_flag("as_released", self.as_released)
        check_choice("second", self.second, ("half", "exact"))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.eta > 0:
            return Order(weak=2, strong=1, note="limited by one noise a step")
        limit = "half a second difference in each step" if self.as_released else "the first steps"
        return Order(deterministic=2, note=f"limited by {limit}")

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return math.sqrt(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        third = "released" if self.as_released else "exact"
        return multistep_rows(process, times, stochasticity, order=3, second=self.second, third=third)
