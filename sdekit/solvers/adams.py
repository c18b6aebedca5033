"""The named exponential multistep samplers: exp_adams, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.math.phi import MAX_PHI
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, register
from sdekit.solvers.clocks import CLOCKS, clocked_rows
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.grid_steps import multistep_rows
from sdekit.solvers.options import check_choice, check_final_order, check_flag
from sdekit.times import check_count

__all__ = [
    "START_ORDER",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp3M",
    "ExpAdams",
    "check_order",
    "ramped_order",
    "single_step_starts",
]

_HALF, _STARTERS = ("half", "exact"), ("ramp", "single_step")
START_ORDER = 4
"""Of the single-step method that takes the first steps."""


def check_order(order: int, most: int) -> None:
    """Refuse an order that is no whole number from 1 to `most`, as far as weights are computed without loss."""
    if check_count("order", order) > most:
        raise OptionError("order", got=repr(order), expected=f"1 to {most}", fix="Use a lower order.")


def ramped_order(order: int, starter: str, final_order: int | None) -> Order:
    """The orders of a method whose interior steps have this one."""
    # One step of order q taken O(1) times costs 1 + q globally; a ramp begins with q = 1.
    first = 2 if starter == "ramp" else START_ORDER + 1
    last = order if final_order is None else final_order + 1
    p = min(order, first, last)
    limits = [name for name, limit in (("first", first), ("last", last)) if p == limit < order]
    note = f"limited by the {' and '.join(limits)} steps" if limits else ""
    if starter == "single_step" and order > 2:
        return Order(deterministic=p, note=note)
    return Order(deterministic=p, weak=min(p, 2), strong=1, note=note)


def single_step_starts(order: int, starter: str, stochasticity: Stochasticity) -> int:
    """How many first steps are taken by the single-step method. Raises SolverMismatchError where it cannot take any."""
    starts = max(order - 2, 0) if starter == "single_step" else 0
    if starts and stochasticity != 0:
        raise SolverMismatchError(
            "starter",
            got=f"'single_step' with stochasticity {stochasticity!r}",
            expected="stochasticity 0",
            fix="Use starter='ramp': the weak order of these methods is at most 2 in any case.",
        )
    return starts


@register("exp_adams", aliases=("res_multistep", "res_2m"))
@dataclass(frozen=True)
class ExpAdams(SnrClocked):
    """Exponential Adams-Bashforth, for any stochasticity; with its defaults RES-2M (`res_multistep` of ComfyUI).

    Args:
        order: the number of outputs that a step interpolates, the order p of an interior step, 1 to 20.
        prediction: "data" or "noise", what is interpolated.
        starter: "ramp" begins with orders 1, 2, ..., p; "single_step" takes the first p - 2 steps by a fourth-order
            exponential Runge-Kutta method of four calls each, which keeps the order up to p = 5 (deterministic only).
        final_order: a smaller order for the last step, or None for the full one.
        clock: "lambda", "rho" = e^-lambda, "kappa" = e^lambda or "t": in what they are interpolated.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Hochbruck and Ostermann, Exponential integrators, Acta Numerica 19 (2010)"

    order: int = 2
    prediction: str = "data"
    starter: str = "ramp"
    final_order: int | None = None
    clock: str = "lambda"

    def __post_init__(self) -> None:
        check_order(self.order, MAX_PHI)
        check_choice("clock", self.clock, CLOCKS)
        check_choice("prediction", self.prediction, ("data", "noise"))
        check_choice("starter", self.starter, _STARTERS)
        check_final_order(self.final_order, self.order)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return ramped_order(self.order, self.starter, self.final_order)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return clocked_rows(
            process,
            times,
            stochasticity,
            clock=self.clock,
            order=self.order,
            prediction=self.prediction,
            final_order=self.final_order,
            starts=single_step_starts(self.order, self.starter, stochasticity),
        )


@register("dpmpp_2m", aliases=("k_dpmpp_2m", "DPM++ 2M"))
@dataclass(frozen=True)
class DPMpp2M(SnrClocked):
    """DPM-Solver++(2M) (Lu et al., 2022): two data predictions a step, order 1 on the first; for any stochasticity.

    Args:
        second: "half" weights the difference by half the total, as published; "exact" integrates the interpolant.
        final_order: 1 for a last step of order 1, as `lower_order_final` does elsewhere; None for the full one.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver++, 2022, arXiv:2211.01095, Algorithm 2"
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1)

    second: str = "half"
    final_order: int | None = None

    def __post_init__(self) -> None:
        check_choice("second", self.second, _HALF)
        check_final_order(self.final_order, 2)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return multistep_rows(process, times, stochasticity, order=2, second=self.second, final_order=self.final_order)


@register("dpmpp_3m")
@dataclass(frozen=True)
class DPMpp3M(SnrClocked):
    """DPM-Solver++ with three data predictions a step, orders 1 and 2 on the first steps; for any stochasticity.

    The released third-order update multiplies the second divided difference of the predictions, which is f'' / 2, as if
    it were f'': it is of order 2, where the right one is of order 3.

    Args:
        as_released: take the update as released: `multistep_dpm_solver_third_update` in dpm_solver_pytorch.py of
            LuChengTHU/dpm-solver at 52bc3fb, and the same in `sample_dpmpp_3m_sde` of k_diffusion/sampling.py of
            crowsonkb/k-diffusion at 4601bf0.
        second: "exact" integrates the line through two predictions where there are only two, as k-diffusion does;
            "half" weights their difference by half the total, as diffusers does by default.
        starter: "ramp" begins with orders 1 and 2; "single_step" takes the first step by a fourth-order exponential
            Runge-Kutta method of four calls (deterministic only).
        final_order: 1 or 2 for a last step of that order, or None for the full one.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver++, 2022, arXiv:2211.01095, corrected"

    as_released: bool = False
    second: str = "exact"
    starter: str = "ramp"
    final_order: int | None = None

    def __post_init__(self) -> None:
        check_flag("as_released", self.as_released)
        check_choice("second", self.second, _HALF)
        check_choice("starter", self.starter, _STARTERS)
        check_final_order(self.final_order, 3)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        found = ramped_order(3, self.starter, self.final_order)
        if self.as_released:
            note = "limited by half a second difference in each step"
            found = replace(found, deterministic=2, note=note)
        return found

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return multistep_rows(
            process,
            times,
            stochasticity,
            order=3,
            second=self.second,
            third="released" if self.as_released else "exact",
            final_order=self.final_order,
            starts=single_step_starts(3, self.starter, stochasticity),
        )


@register("dpmpp_2m_sde", aliases=("k_dpmpp_2m_sde", "DPM++ 2M SDE"))
@dataclass(frozen=True)
class DPMpp2MSDE(SnrClocked):
    """SDE-DPM-Solver++(2M) (Lu et al., 2022): `dpmpp_2m` on the reverse SDE.

    Args:
        eta: the square of the stochasticity, as in k-diffusion; 1 is the reverse SDE.
        second: as for `dpmpp_2m`; "half" and "exact" are k-diffusion's "midpoint" and "heun".
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = DPMpp2M.reference

    eta: float = 1.0
    second: str = "half"

    def __post_init__(self) -> None:
        if finite_number("eta", self.eta) < 0:
            raise OptionError("eta", got=repr(self.eta), expected="0 or more", fix="Use 1 for the reverse SDE.")
        check_choice("second", self.second, _HALF)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=2) if self.eta == 0 else Order(weak=2, strong=1)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return math.sqrt(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return multistep_rows(process, times, stochasticity, order=2, second=self.second)
