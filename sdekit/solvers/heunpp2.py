"""Heun++: three noise predictions a step, weighted by how small the noise is where they are made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.plan import NOISE, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.solvers.pndm import transfer

__all__ = ["HeunPP2"]


@register("heunpp2")
@dataclass(frozen=True)
class HeunPP2(PlanSolver):
    """Heun++ of ComfyUI: Euler steps from s to t and on to the next time u, then the step s -> t with

        E = (1 - w_t - w_u) E_s + w_t E_t + w_u E_u,    w_t = rho_t / (3 rho_max), w_u = rho_u / (3 rho_max),

    rho_max the largest rho = sigma / alpha at which a regular step begins or ends. The last step but one has E_s and
    E_t, with rho_t / (2 rho_max); the last one is Euler's. Whatever the step, these weights are not those of order 2.

    A step that touches sigma = 0 or alpha = 0 is of order 1 and one call.
    """

    family: ClassVar[str] = "Runge-Kutta"
    reference: ClassVar[str] = "comfy/k_diffusion/sampling.py of comfyanonymous/ComfyUI at 02159d8, sample_heunpp2"
    fixed_stochasticity: ClassVar[float] = 0.0
    declared: ClassVar[Order] = Order(deterministic=1, note="its weights are those of no method of order 2")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        pairs = list(itertools.pairwise(levels))
        regular = [not touches_end(s, t) for s, t in pairs]
        largest = max((v.rho for pair, ok in zip(pairs, regular, strict=True) if ok for v in pair), default=1.0)
        rows: list[Row] = []
        for n, (s, t) in enumerate(pairs):
            left = len(pairs) - 1 - n
            if not regular[n]:
                rows.append(limit_row(n, s, t, "noise", 0.0))
            elif left == 0:
                scale, amount = transfer(s, t)
                rows.append(commit(n, s, NOISE, scale, {0: amount}))
            elif left == 1:
                rows += _two_calls(n, s, t, largest)
            else:
                rows += _three_calls(n, s, t, levels[n + 2], largest)
        return rows


def _two_calls(n: int, s: Level, t: Level, largest: float) -> list[Row]:
    scale, amount = transfer(s, t)
    w = t.rho / (2 * largest)
    return [stage(n, s, NOISE, scale, {0: amount}), commit(n, t, NOISE, scale, {1: (1 - w) * amount, 0: w * amount})]


def _three_calls(n: int, s: Level, t: Level, u: Level, largest: float) -> list[Row]:
    scale, amount = transfer(s, t)
    on, beyond = transfer(t, u)
    w_t, w_u = t.rho / (3 * largest), u.rho / (3 * largest)
    return [
        stage(n, s, NOISE, scale, {0: amount}),
        stage(n, t, NOISE, on * scale, {1: on * amount, 0: beyond}),
        commit(n, u, NOISE, scale, {2: (1 - w_t - w_u) * amount, 1: w_t * amount, 0: w_u * amount}),
    ]
