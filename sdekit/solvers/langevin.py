"""Samplers with Langevin steps: predictor_corrector, and annealed_langevin, which has nothing else.

A Langevin step at a fixed time, of size delta, in one of two forms:

    exact   x <- alpha D + sqrt(1 - delta) (x - alpha D) + sqrt(delta) sigma z
    euler   x <- x - (delta / 2) sigma noise + sqrt(delta) sigma z

with D and noise the predictions. "euler" is x + e score + sqrt(2 e) z for e = delta sigma^2 / 2, as Song et al. write
it; "exact" keeps the law of data that is a point. Both leave other marginals by a bias of order delta.

Song et al. choose e = 2 (r |z| / |score|)^2 with the norms of the state at hand. A plan is known before the first model
call and cannot. Where noise is all there is, |score| = |z| / sigma, and that is delta = 4 r^2: see
`sdekit.stochasticity.langevin_delta`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import DATA, NOISE, Row, combine, commit
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import ddim_row
from sdekit.solvers.exponential import limit_row
from sdekit.solvers.options import check_choice, check_not_negative
from sdekit.solvers.splitting import refuse_upwards
from sdekit.times import check_count

__all__ = ["AnnealedLangevin", "PredictorCorrector"]

_FORMS = ("exact", "euler")
_BIASED = "none: steps of fixed delta leave a bias of order delta, however many steps are taken"


def _langevin(step: int, t: Level, delta: float, form: str, stream: int, scale: float = 1.0) -> Row:
    """One Langevin step at t, of a state that is multiplied by `scale` before."""
    kick = None if scale == 1 else combine(scale)
    noises = {stream: math.sqrt(delta) * t.sigma}
    if form == "euler":
        return commit(step, t, NOISE, 1.0, {0: -0.5 * delta * t.sigma}, noises, kick=kick)
    # 1 - sqrt(1 - delta), without the subtraction.
    moved = -math.expm1(0.5 * math.log1p(-delta)) if delta < 1 else 1.0
    return commit(step, t, DATA, 1 - moved, {0: t.alpha * moved}, noises, kick=kick)


def _check_delta(delta: float | None) -> None:
    if delta is not None and not 0 < finite_number("delta", delta) <= 1:
        fix = "Use 0.01 to 0.1, or None for steps that shrink with the grid's."
        raise OptionError("delta", got=repr(delta), expected="a number in (0, 1], or None", fix=fix)


@register("predictor_corrector", aliases=("pc", "pc_langevin"))
@dataclass(frozen=True)
class PredictorCorrector(PlanSolver):
    """A predictor's step, then Langevin steps at its end (Song et al., 2021), of one call each.

    Without `delta` the Langevin steps shrink with the grid's, delta = 1 - e^{-2 rate h}. Each then adds `rate` to the
    square of the stochasticity, and the whole converges to that reverse SDE. Of a fixed delta they converge to nothing:
    more steps bring the law to one that is off by an amount of order delta. None is taken at sigma = 0.

    Args:
        predictor: "reverse_diffusion", "ancestral" (DDPM) or "ddim", of stochasticity 1, 1 and 0.
        corrections: how many Langevin steps follow.
        rate: of the Langevin steps that shrink with the grid's.
        delta: the size of all Langevin steps, in (0, 1], or None.
        corrector: "exact" or "euler", see `sdekit.solvers.langevin`.
    """

    family: ClassVar[str] = "Langevin"
    reference: ClassVar[str] = (
        "Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, Score-Based Generative Modeling through SDEs, ICLR 2021"
    )

    predictor: str = "reverse_diffusion"
    corrections: int = 1
    rate: float = 0.5
    delta: float | None = None
    corrector: str = "exact"

    def __post_init__(self) -> None:
        check_choice("predictor", self.predictor, ("reverse_diffusion", "ancestral", "ddim"))
        if self.corrections != 0:
            check_count("corrections", self.corrections)
        check_not_negative("rate", self.rate)
        _check_delta(self.delta)
        check_choice("corrector", self.corrector, _FORMS)

    @property
    def _biased(self) -> bool:
        return self.delta is not None and self.corrections > 0

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self._biased:
            return Order(note=_BIASED)
        return Order(weak=1) if self.fixed_stochasticity else Order(deterministic=1)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        own = 0.0 if self.predictor == "ddim" else 1.0
        return own if self._biased else math.sqrt(own + self.corrections * self.rate)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if self._biased:
            refuse_upwards(self, times)
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times))):
            rows.append(self._predict(n, s, t))
            h = t.half_log_snr - s.half_log_snr
            delta = -math.expm1(-2 * self.rate * h) if self.delta is None else self.delta
            if t.sigma > 0 and delta > 0:
                rows += [_langevin(n, t, delta, self.corrector, 1 + k) for k in range(self.corrections)]
        return rows

    def _predict(self, n: int, s: Level, t: Level) -> Row:
        if self.predictor != "reverse_diffusion" or 0 in (s.alpha, s.sigma, t.alpha, t.sigma):
            return ddim_row(n, s, t, 0.0 if self.predictor == "ddim" else 1.0)
        # x_t = x_s - (a - 1) x_s + G^2 score + G z, where x_s = a x_t + G z is the forward SDE's transition.
        q = -math.expm1(2 * (s.half_log_snr - t.half_log_snr))
        return commit(n, s, DATA, 2 - s.alpha / t.alpha - q, {0: s.alpha * q}, {0: s.sigma * math.sqrt(q)})


@register("annealed_langevin", aliases=("ald",))
@dataclass(frozen=True)
class AnnealedLangevin(PlanSolver):
    """Annealed Langevin dynamics (Song and Ermon, 2019): at each time Langevin steps, of one call each, and no more.

    The state follows the grid by its scale alpha alone; all else is left to the Langevin steps, which must be many. Of
    a fixed delta they leave a bias of order delta. Without it delta = min(1, rate sqrt(h)): the bias and the lag behind
    the grid, of order h / delta, then both are of order 1/2. A step from alpha = 0 or to sigma = 0 is DDPM's.

    Args:
        corrections: how many Langevin steps at each time; the paper's T, 100 there.
        rate: of Langevin steps that shrink with the grid's.
        delta: the size of all Langevin steps, in (0, 1], or None. The paper's epsilon is delta times the square of its
            lowest sigma.
        corrector: "euler", as published, or "exact", see `sdekit.solvers.langevin`.
    """

    family: ClassVar[str] = "Langevin"
    reference: ClassVar[str] = "Song and Ermon, Generative Modeling by Estimating Gradients, NeurIPS 2019, Algorithm 1"
    fixed_stochasticity: ClassVar[float] = 0.0

    corrections: int = 10
    rate: float = 1.0
    delta: float | None = None
    corrector: str = "euler"

    def __post_init__(self) -> None:
        check_count("corrections", self.corrections)
        check_not_negative("rate", self.rate)
        _check_delta(self.delta)
        check_choice("corrector", self.corrector, _FORMS)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(weak=0.5) if self.delta is None else Order(note=_BIASED)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        refuse_upwards(self, times)
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(process.levels(times))):
            if t.sigma == 0 or s.alpha == 0:
                rows.append(limit_row(n, s, t, "data", 1.0))
                continue
            h = t.half_log_snr - s.half_log_snr
            delta = min(1.0, self.rate * math.sqrt(h)) if self.delta is None else self.delta
            scales = [t.alpha / s.alpha, *(1.0 for _ in range(self.corrections - 1))]
            rows += [_langevin(n, t, delta, self.corrector, k, v) for k, v in enumerate(scales)]
        return rows
