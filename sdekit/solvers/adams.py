"""The named exponential multistep samplers: exp_adams, dpmpp_2m, dpmpp_2m_sde."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError, SolverMismatchError, suggest
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import snr_clock
from sdekit.solvers.exponential import multistep_rows
from sdekit.times import check_count

__all__ = ["DPMpp2M", "DPMpp2MSDE", "ExpAdams"]

_HALF = ("half", "exact")
_START_ORDER = 4


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(repr(c) for c in choices)
        raise OptionError(argument, got=repr(value), expected=expected, fix=suggest(str(value), choices))


def _check_final_order(final_order: int | None, order: int) -> None:
    if final_order is not None and check_count("final_order", final_order) > order:
        raise OptionError(
            "final_order", got=repr(final_order), expected=f"1 to {order}, the order of the method", fix="Lower it."
        )


@register("exp_adams")
@dataclass(frozen=True)
class ExpAdams(PlanSolver):
    """Exponential Adams-Bashforth in lambda, for any stochasticity.

    Args:
        order: the number of outputs that a step interpolates, the order p of an interior step.
        prediction: "data" or "noise", what is interpolated.
        starter: "ramp" begins with orders 1, 2, ..., p; "single_step" takes the first p - 2 steps by a fourth-order
            exponential Runge-Kutta method of four calls each, which keeps the order up to p = 5 (deterministic only).
        final_order: a smaller order for the last step, or None for the full one.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = "Hochbruck and Ostermann, Exponential integrators, Acta Numerica 19 (2010)"

    order: int = 2
    prediction: str = "data"
    starter: str = "ramp"
    final_order: int | None = None

    def __post_init__(self) -> None:
        check_count("order", self.order)
        _check_choice("prediction", self.prediction, ("data", "noise"))
        _check_choice("starter", self.starter, ("ramp", "single_step"))
        _check_final_order(self.final_order, self.order)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        # One step of order q taken O(1) times costs 1 + q globally; a ramp begins with q = 1.
        p = min(self.order, 2 if self.starter == "ramp" else _START_ORDER + 1)
        if self.final_order is not None:
            p = min(p, self.final_order + 1)
        note = "limited by the first steps" if p < self.order else ""
        if self.starter == "single_step" and self.order > 2:
            return Order(deterministic=p, note=note)
        return Order(deterministic=p, weak=min(p, 2), strong=1, note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        starts = max(self.order - 2, 0) if self.starter == "single_step" else 0
        if starts and stochasticity != 0:
            raise SolverMismatchError(
                "starter",
                got=f"'single_step' with stochasticity {stochasticity!r}",
                expected="stochasticity 0",
                fix="Use starter='ramp': the weak order of these methods is at most 2 in any case.",
            )
        return multistep_rows(
            process,
            times,
            stochasticity,
            order=self.order,
            prediction=self.prediction,
            final_order=self.final_order,
            starts=starts,
        )

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return snr_clock(process, times, stochasticity)


@register("dpmpp_2m", aliases=("k_dpmpp_2m", "DPM++ 2M"))
@dataclass(frozen=True)
class DPMpp2M(PlanSolver):
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
        _check_choice("second", self.second, _HALF)
        _check_final_order(self.final_order, 2)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return multistep_rows(process, times, stochasticity, order=2, second=self.second, final_order=self.final_order)

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return snr_clock(process, times, stochasticity)


@register("dpmpp_2m_sde", aliases=("k_dpmpp_2m_sde", "DPM++ 2M SDE"))
@dataclass(frozen=True)
class DPMpp2MSDE(PlanSolver):
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
        _check_choice("second", self.second, _HALF)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=2) if self.eta == 0 else Order(weak=2, strong=1)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return math.sqrt(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return multistep_rows(process, times, stochasticity, order=2, second=self.second)

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return snr_clock(process, times, stochasticity)
