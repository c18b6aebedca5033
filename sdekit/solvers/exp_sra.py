"""exp_sra: an exponential Runge-Kutta method of strong order 3/2 for the reverse SDE in data prediction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE
from sdekit.plan import DATA, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, register
from sdekit.solvers.ddim import SnrClocked
from sdekit.solvers.exponential import exponential_step, limit_row

__all__ = ["ExpSRA"]

_PLACE = 0.75
_SHARED, _OWN = math.sqrt(3) / 2, 0.5


@register("exp_sra")
@dataclass(frozen=True)
class ExpSRA(SnrClocked):
    """SRA1 in the exponential form: two data predictions a step, for any stochasticity.

    With r at three quarters of the step in lambda, a, b and std of the exact solution in the form of
    `sdekit.solvers.exponential`, and b_s, b_r the weights that integrate the line through both predictions:

        x_r = a_r x + b_r D_s + std_r (sqrt(3)/2 z_0 + z_1 / 2)
        x_t = a_t x + b_s D_s + b_r D_r + std_t z_0.

    z_0 is the step's noise, and z_1 its space-time Levy area, both divided by their standard deviations, in the clock
    of the plan. The stage's noise has the variance of the exact solution there, and with the step's the covariance
    that SRA1 needs: the mean of the path over the step, times 3/2, has correlation sqrt(3)/2 with its end. For data
    that is a point the method is exact. A step from alpha = 0 or to sigma = 0 takes the limits of order 1.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    reference: ClassVar[str] = (
        "derived for sdekit from SRA1 of Roessler, SIAM J. Numer. Anal. 48 (2010), and the exponential form of the SDE"
    )
    declared: ClassVar[Order] = Order(
        deterministic=2, weak=2, strong=1.5, note="order 1 on a step from alpha = 0 or to sigma = 0"
    )
    default_stochasticity: ClassVar[float] = 1.0

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        regular = [
            (n, s, t)
            for n, (s, t) in enumerate(itertools.pairwise(levels))
            if all(v > 0 for v in (s.alpha, s.sigma, t.alpha, t.sigma))
        ]
        places = [s.half_log_snr + _PLACE * (t.half_log_snr - s.half_log_snr) for _, s, t in regular]
        inner = dict(zip([n for n, _, _ in regular], process.levels_at(places), strict=True)) if places else {}
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if n not in inner:
                rows.append(limit_row(n, s, t, "data", stochasticity))
                continue
            part, whole = (exponential_step(process, s, v, "data", stochasticity) for v in (inner[n], t))
            noises = {0: _SHARED * part.std, 1: _OWN * part.std}
            first, second = whole.weights([0.0, _PLACE])
            rows.append(stage(n, s, DATA, part.scale, {0: part.total}, noises))
            rows.append(commit(n, inner[n], DATA, whole.scale, {1: first, 0: second}, {0: whole.std}))
        return rows
