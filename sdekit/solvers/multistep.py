"""Adams-Bashforth on the noise prediction with weights that fit the steps: lms, deis, ipndm_v.

In y = x / alpha and rho = sigma / alpha the probability flow is dy = noise drho. A step integrates the polynomial
through the latest noise predictions: one in rho for lms, in t for DEIS, in another clock by choice; see
`sdekit.solvers.clocks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.math.phi import MAX_PHI
from sdekit.plan import NOISE, Row, commit
from sdekit.sde import Stochasticity
from sdekit.solvers.adams import check_order, ramped_order, single_step_starts
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.clocks import clocked_rows
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.solvers.options import check_choice, check_final_order, check_flag
from sdekit.solvers.pndm import transfer
from sdekit.times import check_count

__all__ = ["DEIS", "IPNDMV", "LMS"]

_STARTERS = ("ramp", "single_step")
_TERMS = 10_000  # of the sums that DEIS was released with
_DEIS = "Zhang and Chen, Fast Sampling of Diffusion Models with Exponential Integrator, ICLR 2023, arXiv:2204.13902"


def _flow_order(order: int, starter: str, final_order: int | None) -> Order:
    found = ramped_order(order, starter, final_order)
    return Order(deterministic=found.deterministic, note=found.note)


class _ClockedAdams(PlanSolver):
    """Adams-Bashforth on the noise prediction in a clock."""

    fixed_stochasticity: ClassVar[float] = 0.0

    order: int
    clock: str
    starter: str
    final_order: int | None

    def __post_init__(self) -> None:
        check_order(self.order, MAX_PHI)
        check_choice("starter", self.starter, _STARTERS)
        check_final_order(self.final_order, self.order)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return _flow_order(self.order, self.starter, self.final_order)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return clocked_rows(
            process,
            times,
            0.0,
            clock=self.clock,
            order=self.order,
            prediction="noise",
            final_order=self.final_order,
            starts=single_step_starts(self.order, self.starter, 0.0),
        )


@register("lms", aliases=("k_lms", "LMS"))
@dataclass(frozen=True)
class LMS(_ClockedAdams):
    """Linear multistep method of k-diffusion: Adams-Bashforth in rho = sigma / alpha with the weights of the steps.

    The weights are exact; those of `sample_lms` come from an adaptive quadrature, and agree to rounding. A step to
    sigma = 0, which in rho is like any other, keeps its order; one that touches alpha = 0 is of order 1.

    Args:
        order: the number of noise predictions that a step interpolates, the order p of an interior step.
        starter: "ramp" begins with orders 1, 2, ..., p; "single_step" takes the first p - 2 steps by a fourth-order
            exponential Runge-Kutta method of four calls each.
        final_order: a smaller order for the last step, or None for the full one.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = "k_diffusion/sampling.py of crowsonkb/k-diffusion at 4601bf0, sample_lms"
    clock: ClassVar[str] = "rho"  # type: ignore[misc]

    order: int = 4
    starter: str = "ramp"
    final_order: int | None = None


@register("deis", aliases=("DEIS",))
@dataclass(frozen=True)
class DEIS(_ClockedAdams):
    """Diffusion exponential integrator sampler (Zhang and Chen, 2023).

    With clock "t" it is tAB of the paper, with "rho" rhoAB, with "lambda" what diffusers calls DEIS. The rhoRK methods
    of the paper are `heun`, `kutta3` and `rk4` in rho. Weights are exact to rounding; those of released code for "t"
    come from a sum of 10,000 terms and are off by some 1e-4 of themselves, which leaves order 1 once steps are many.

    A step from alpha = 0 or to sigma = 0 is of order 1, except to sigma = 0 in the clock rho.

    Args:
        order: the number of noise predictions that a step interpolates, from 1: in the paper's tAB3 it is 4.
        clock: "t", "rho" or "lambda": in what they are interpolated.
        starter, final_order: as for `lms`.
        as_released: take the weights as released, for the clock "t" without starter and final_order: the values at the
            left ends of 10,000 equal parts of each step, in `get_one_coef_per_step_fn` of th_deis/multistep.py of
            qsh-zh/deis at a30709f.
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = _DEIS

    order: int = 3
    clock: str = "t"
    starter: str = "ramp"
    final_order: int | None = None
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("clock", self.clock, ("t", "rho", "lambda"))
        check_flag("as_released", self.as_released)
        if self.as_released and (self.clock, self.starter, self.final_order) != ("t", "ramp", None):
            raise OptionError(
                "as_released",
                got=f"True with clock={self.clock!r}, starter={self.starter!r}, final_order={self.final_order!r}",
                expected="clock='t', starter='ramp' and final_order=None, whose weights were released as sums",
                fix="Leave as_released out, or the others.",
            )

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.as_released:
            return Order(deterministic=1, note="limited by sums of 10,000 terms, once steps are hundreds")
        return super().declared

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if not self.as_released:
            return super().rows(process, times, stochasticity)
        rows: list[Row] = []
        history: list[float] = []  # the times of the outputs, newest first
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times, rates=False))):
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, "noise", 0.0))
                continue
            history = [s.t, *history[: self.order - 1]]
            weights = _summed_weights(process, s, t, history)
            rows.append(commit(n, s, NOISE, t.alpha / s.alpha, dict(enumerate(weights))))
        return rows


def _summed_weights(process: AffineSDE, s: Level, t: Level, nodes: Sequence[float]) -> list[float]:
    """int (alpha_t / alpha) g^2 / (2 sigma) l_j dt from s to t as a sum, for the Lagrange polynomials on the nodes."""
    at = s.t + (t.t - s.t) * np.arange(_TERMS) / _TERMS
    alpha, sigma, alpha_rate, sigma_rate = (
        f(torch.from_numpy(at)).numpy() for f in (process.alpha, process.sigma, process.alpha_rate, process.sigma_rate)
    )
    terms = t.alpha / alpha * (sigma_rate - sigma * alpha_rate / alpha) * (t.t - s.t) / _TERMS
    found = []
    for j, center in enumerate(nodes):
        others = [(at - v) / (center - v) for i, v in enumerate(nodes) if i != j]
        found.append(float((math.prod(others) * terms).sum()))
    return found


@register("ipndm_v")
@dataclass(frozen=True)
class IPNDMV(PlanSolver):
    """iPNDM with the weights of the steps: `lms` but for a step to sigma = 0, which is of order 1.

    The released weights of three and four outputs are not those of Adams-Bashforth: a factor of a product stands within
    a sum. With three they are where steps are equal; with four not even there.

    Args:
        order: the number of noise predictions that a step interpolates, 1 to 4.
        as_released: take the weights as released: `ipndm_v_sampler` in diff-solvers-main/solvers.py of
            zju-pi/diff-sampler at 3e34628, and the same in `sample_ipndm_v` of comfy/k_diffusion/sampling.py of
            comfyanonymous/ComfyUI at 02159d8.
    """

    family: ClassVar[str] = "Adams-Bashforth"
    reference: ClassVar[str] = f"{_DEIS}; variable steps: zju-pi/diff-sampler"
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 4
    as_released: bool = False

    def __post_init__(self) -> None:
        if check_count("order", self.order) > 4:
            raise OptionError("order", got=repr(self.order), expected="1 to 4", fix="Use lms for higher orders.")
        check_flag("as_released", self.as_released)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        found = _flow_order(self.order, "ramp", None)
        if self.as_released and self.order == 4:
            return replace(found, note=f"{found.note}; none on grids whose neighbouring steps differ at random")
        return found

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if not self.as_released:
            return clocked_rows(
                process, times, 0.0, clock="rho", order=self.order, prediction="noise", through_zero=False
            )
        rows: list[Row] = []
        history: list[float] = []  # rho of the outputs, newest first
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times, rates=False))):
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, "noise", 0.0))
                continue
            history = [s.rho, *history[: self.order - 1]]
            scale, amount = transfer(s, t)
            lengths = [a - b for a, b in itertools.pairwise([t.rho, *history])]
            weights = _released_weights(lengths)
            rows.append(commit(n, s, NOISE, scale, {age: amount * w for age, w in enumerate(weights)}))
        return rows


def _released_weights(lengths: Sequence[float]) -> list[float]:
    """Newest first, for this step's length in rho and those of the steps before it."""
    if len(lengths) == 1:
        return [1.0]
    h, h1 = lengths[:2]
    two = [(2 + h / h1) / 2, -(h / h1) / 2]
    if len(lengths) == 2:
        return two
    h2, r = lengths[2], lengths[1] / lengths[2]
    # Adams-Bashforth has (1 - h / (3 (h + h1))) / 2 times the quotient that follows.
    a = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    three = [two[0] + a, two[1] - (1 + r) * a, r * a]
    if len(lengths) == 3:
        return three
    h3 = lengths[3]
    q = h1 * (h1 + h2) / (h2 * (h2 + h3))
    # Adams-Bashforth has a minus between the two terms.
    b = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    b *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    return [three[0] + b, three[1] - (1 + r + q) * b, three[2] + (r + q * (1 + h2 / h3)) * b, -r * q * b]
