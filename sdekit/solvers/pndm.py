"""Pseudo linear multistep methods: iPNDM, PNDM and PLMS, Adams-Bashforth with the weights of equal steps.

Each step is DDIM's transfer of a combined noise prediction E,

    x_t = (alpha_t / alpha_s) x_s + alpha_t (rho_t - rho_s) E,    rho = sigma / alpha,

with E = E_0; (3 E_0 - E_1) / 2; (23 E_0 - 16 E_1 + 5 E_2) / 12; (55 E_0 - 59 E_1 + 37 E_2 - 9 E_3) / 24. Those are the
weights of equal steps in rho. Where neighbouring steps differ by O(h) of their length, as on smooth grids, each step is
wrong by O(h^3), so that no more than order 2 is left; where they differ at random, by O(h^2), so that order 1 is left.
`lms` has the weights that fit the steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.math.interpolation import exponential_weights
from sdekit.math.phi import MAX_PHI
from sdekit.plan import NOISE, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.solvers.adams import check_order
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.times import check_count

__all__ = ["IPNDM", "PLMS", "PNDM", "transfer"]

_IRREGULAR = "order 1 on grids whose neighbouring steps differ at random"
_REFERENCE = "Liu, Ren, Lin and Zhao, Pseudo Numerical Methods for Diffusion Models on Manifolds, ICLR 2022"


def transfer(s: Level, t: Level) -> tuple[float, float]:
    """alpha_t / alpha_s and alpha_t (rho_t - rho_s): Euler's step in rho with the noise prediction."""
    # sigma_t - (alpha_t / alpha_s) sigma_s without the subtraction
    return t.alpha / s.alpha, t.alpha * s.rho * math.expm1(s.half_log_snr - t.half_log_snr)


@lru_cache(maxsize=32)
def _equal_step_weights(order: int) -> tuple[float, ...]:
    """The Adams-Bashforth weights of equal steps, newest first: they add up to 1."""
    return tuple(exponential_weights([-float(j) for j in range(order)], 0.0))


def _order(order: int) -> Order:
    if order == 1:
        return Order(deterministic=1)
    limited = "limited by weights that are those of equal steps: " if order > 2 else ""
    return Order(deterministic=2, note=limited + _IRREGULAR)


def _adams_row(n: int, s: Level, t: Level, history: list[int], row: int) -> Row:
    """A step from the outputs of these rows, newest first."""
    scale, amount = transfer(s, t)
    weights = _equal_step_weights(len(history))
    return commit(n, s, NOISE, scale, {row - at: amount * w for at, w in zip(history, weights, strict=True)})


def _improved_euler(n: int, s: Level, t: Level) -> list[Row]:
    """The transfer of the mean of the outputs at s and at where the first alone leads."""
    scale, amount = transfer(s, t)
    return [stage(n, s, NOISE, scale, {0: amount}), commit(n, t, NOISE, scale, {1: 0.5 * amount, 0: 0.5 * amount})]


def _pseudo_runge_kutta(n: int, s: Level, mid: Level, t: Level) -> list[Row]:
    """The classical Runge-Kutta method with transfers for its stages."""
    half, to_mid = transfer(s, mid)
    scale, amount = transfer(s, t)
    return [
        stage(n, s, NOISE, half, {0: to_mid}),
        stage(n, mid, NOISE, half, {0: to_mid}),
        stage(n, mid, NOISE, scale, {0: amount}),
        commit(n, t, NOISE, scale, {3: amount / 6, 2: amount / 3, 1: amount / 3, 0: amount / 6}),
    ]


def _rows(process: AffineSDE, times: list[float], order: int, starts: int, start: str) -> list[Row]:
    """Rows of a method that takes its first steps by another one.

    Args:
        start: "improved_euler" or "runge_kutta", the method of the first `starts` steps.
    """
    levels = process.levels(times)
    pairs = list(itertools.pairwise(levels))
    first = next((n for n, (s, t) in enumerate(pairs) if not touches_end(s, t)), 0)
    begun = range(first, min(first + starts, len(pairs)))
    middles = process.levels([0.5 * (pairs[n][0].t + pairs[n][1].t) for n in begun]) if start == "runge_kutta" else []
    rows: list[Row] = []
    history: list[int] = []
    for n, (s, t) in enumerate(pairs):
        if touches_end(s, t):
            rows.append(limit_row(n, s, t, "noise", 0.0))  # a grid's first or last step
            continue
        history = [len(rows), *history[: order - 1]]
        if n in begun and start == "runge_kutta":
            rows += _pseudo_runge_kutta(n, s, middles[n - first], t)
        elif n in begun:
            rows += _improved_euler(n, s, t)
        else:
            rows.append(_adams_row(n, s, t, history, len(rows)))
    return rows


@register("ipndm")
@dataclass(frozen=True)
class IPNDM(PlanSolver):
    """Improved PNDM (Zhang and Chen, 2023): begins with orders 1, 2, ..., one call a step.

    A step that touches sigma = 0 or alpha = 0 is of order 1. As `sample_ipndm` of ComfyUI, and IPNDMScheduler of
    diffusers but for its last step. `ipndm_v` has the weights that fit the steps.

    Args:
        order: the number of outputs that a step combines; 4 in released code.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = (
        "Zhang and Chen, Fast Sampling of Diffusion Models with Exponential Integrator, ICLR 2023, arXiv:2204.13902"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 4

    def __post_init__(self) -> None:
        check_order(self.order, MAX_PHI)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return _order(self.order)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return _rows(process, times, self.order, 0, "improved_euler")


@register("pndm")
@dataclass(frozen=True)
class PNDM(PlanSolver):
    """PNDM (Liu et al., 2022): F-PNDM, or S-PNDM with order=2.

    F-PNDM begins with three pseudo Runge-Kutta steps of four calls, their second and third stage in the middle in t;
    S-PNDM with one of two calls, the improved Euler method. A step that touches sigma = 0 or alpha = 0 is of order 1.

    Args:
        order: 4 or 2, the number of outputs that a step combines.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = f"{_REFERENCE}, arXiv:2202.09778"
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 4

    def __post_init__(self) -> None:
        if self.order not in (2, 4) or isinstance(self.order, bool):
            fix = "Use plms or ipndm for other orders."
            raise OptionError("order", got=repr(self.order), expected="4 (F-PNDM) or 2 (S-PNDM)", fix=fix)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return _order(self.order)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if self.order == 2:
            return _rows(process, times, 2, 1, "improved_euler")
        return _rows(process, times, 4, 3, "runge_kutta")


@register("plms")
@dataclass(frozen=True)
class PLMS(PlanSolver):
    """PNDM without Runge-Kutta steps, as latent diffusion runs it: one improved Euler step, then orders 2, 3, 4.

    As PNDMScheduler of diffusers with skip_prk_steps. A step that touches sigma = 0 or alpha = 0 is of order 1.

    Args:
        order: the number of outputs that a step combines, from 2; 4 in released code.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = f"{_REFERENCE}; plms.py of CompVis/latent-diffusion"
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 4

    def __post_init__(self) -> None:
        check_count("order", self.order, least=2)
        check_order(self.order, MAX_PHI)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return _order(self.order)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return _rows(process, times, self.order, 1, "improved_euler")
