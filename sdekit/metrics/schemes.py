"""Two discretizations of the reverse SDE of VP, as Pierret and Galerne compare them; for their protocol alone.

Both hold the score constant over a step, not the data or the noise prediction, which no registered plan does: they are
kept to reproduce published numbers. `ddpm` and `exp_adams` take as many calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.plan import NOISE, Row, commit
from sdekit.processes import VP
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver

__all__ = ["FirstOrderDDPM", "FrozenScore"]

_SOURCE = "Pierret and Galerne, ICML 2025 (arXiv 2405.14250), and their Gaussian_diffusion_W2.ipynb at 8d02029"


@dataclass(frozen=True)
class FrozenScore(PlanSolver):
    """Their exponential integrator (EI): linear drift and noise exactly, the score constant over a step.

    With a = alpha_t / alpha_s: x_t = a x_s + 2 (a - 1) score_s + sqrt(a^2 - 1) z.
    """

    reference: ClassVar[str] = _SOURCE
    fixed_stochasticity: ClassVar[float] = 1.0
    declared: ClassVar[Order] = Order(weak=1)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        rows = []
        for n, (s, t) in enumerate(_pairs(process, times)):
            growth = float(process.log_alpha(t.t) - process.log_alpha(s.t))
            gain, std = 2 * math.expm1(growth), math.sqrt(math.expm1(2 * growth))
            rows.append(commit(n, s, NOISE, math.exp(growth), {0: -gain / s.sigma}, {0: std}))
        return rows


@dataclass(frozen=True)
class FirstOrderDDPM(PlanSolver):
    """Their DDPM: the chain of Ho, Jain and Abbeel with beta = (s - t) beta(s).

    x_t = (x_s + beta score_s) / sqrt(1 - beta) + sqrt(beta) z. `ddpm(variance="beta")` has the exact 1 - beta, the
    square of alpha_s / alpha_t.
    """

    reference: ClassVar[str] = _SOURCE
    fixed_stochasticity: ClassVar[float] = 1.0
    declared: ClassVar[Order] = Order(weak=1)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        rows = []
        for n, (s, t) in enumerate(_pairs(process, times)):
            beta = (s.t - t.t) * float(process.diffusion_coefficient(s.t)) ** 2
            if beta >= 1:
                raise OptionError(
                    "times",
                    got=f"a step with beta = {beta:.3g} at t = {s.t:.3g}",
                    expected="beta < 1",
                    fix="Take more steps.",
                )
            scale = 1 / math.sqrt(1 - beta)
            rows.append(commit(n, s, NOISE, scale, {0: -scale * beta / s.sigma}, {0: math.sqrt(beta)}))
        return rows


def _pairs(process: AffineSDE, times: list[float]) -> list[tuple[Level, Level]]:
    if not isinstance(process, VP):
        raise SolverMismatchError(
            "process", got=repr(process), expected="sdekit.VP, on which the scheme is defined", fix="Use ddpm."
        )
    return list(itertools.pairwise(process.levels(times)))
