"""Ancestral samplers: euler_ancestral, dpm_2_ancestral, dpmpp_2s_ancestral and dpmpp_sde, as k-diffusion defines them.

With rho = sigma / alpha and a step s -> t,

    rho_up = eta rho_t sqrt(1 - rho_t^2 / rho_s^2),    rho_down = sqrt(rho_t^2 - rho_up^2):

a solver of the flow goes from rho_s to rho_down and alpha_t rho_up z is added, which leads to rho_t. Both parts keep
the marginals, so that the law of the samples is as exact as the solver of the flow. In lambda the flow's step is longer
than the grid's, twice as long for eta = 1. To sigma = 0 and from alpha = 0 the step is of order 1.

The process may be any. Where ComfyUI samples flow-matching models it lowers in t instead, see `euler_ancestral`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.plan import DATA, Row, commit, stage
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.ddim import ddim_row, snr_clock
from sdekit.solvers.dpm_solver import check_ratio, steps_with_inner, two_stage_rows
from sdekit.solvers.exponential import exponential_step, touches_end
from sdekit.solvers.options import check_choice, check_not_negative

__all__ = [
    "DPM2Ancestral",
    "DPMpp2SAncestral",
    "DPMppSDE",
    "EulerAncestral",
    "check_ancestral",
    "inflated",
    "lowered",
    "refuse_upwards",
    "single",
]

_REFERENCE = "k_diffusion/sampling.py of crowsonkb/k-diffusion at 4601bf0, {}"


def lowered(s: Level, t: Level, eta: float) -> tuple[Level, float]:
    """Where the flow's part of a step ends, and the noise that is added then: rho_down in x's scale at t, and
    alpha_t rho_up = eta sigma_t sqrt(1 - e^{-2h}).
    """
    h = t.half_log_snr - s.half_log_snr
    q = -math.expm1(-2 * h)
    # log(rho_down / rho_t) = log sqrt(1 - eta^2 q), which is -h for eta = 1.
    fall = -h if eta == 1 else 0.5 * math.log1p(-(eta**2) * q)
    down = t._replace(sigma=t.sigma * math.exp(fall), half_log_snr=t.half_log_snr - fall)
    return down, eta * t.sigma * math.sqrt(q) if eta else 0.0


def refuse_upwards(times: Sequence[float], option: str, value: object, other: str) -> None:
    """For a method that adds noise though it counts as a solver of the flow."""
    if times[1] > times[0]:
        raise SolverMismatchError(
            "times",
            got=f"increasing times with {option} = {value}",
            expected="decreasing times where noise is added",
            fix=f"Reverse the grid, or use {other}.",
        )


def check_ancestral(eta: float, s_noise: float) -> None:
    """Refuse what is not an eta in [0, 1] and a factor of 0 or more."""
    if not 0 <= finite_number("eta", eta) <= 1:
        fix = "Use 0 for the probability flow, 1 for as much noise as the reverse SDE."
        raise OptionError("eta", got=repr(eta), expected="a number in [0, 1]", fix=fix)
    check_not_negative("s_noise", s_noise)


def inflated(eta: float, s_noise: float) -> Order | None:
    """What is declared where the added noise is not the one that keeps the marginals."""
    if eta > 0 and s_noise != 1:
        return Order(note="none: with s_noise other than 1 the variance is off however many steps are taken")
    return None


def single(n: int, s: Level, t: Level, eta: float, s_noise: float) -> Row:
    """A step of one call: DDIM's, with its noise scaled."""
    row = ddim_row(n, s, t, eta)
    if row.base is None or s_noise == 1:
        return row
    noises = tuple((stream, s_noise * std) for stream, std in row.base.noises if s_noise)  # type: ignore[operator]
    return replace(row, base=replace(row.base, noises=noises))


@register("euler_ancestral", aliases=("euler_a", "k_euler_ancestral", "k_euler_a", "Euler a"))
@dataclass(frozen=True)
class EulerAncestral(PlanSolver):
    """Euler's method in rho down to rho_down, then noise: `ddim` with the same eta.

    With clock="t" the step goes down to the time t (1 - eta (s - t) / s) of the process, and the forward SDE's
    transition leads back from there to t. On RectifiedFlow that is ComfyUI's `sample_euler_ancestral_RF`; it tends to
    the reverse SDE of stochasticity sqrt(eta).

    Args:
        eta: 0 for the probability flow, 1 for DDPM; fixed eta tends to the reverse SDE of stochasticity eta.
        s_noise: the factor of the added noise.
        clock: "rho" or "t", what is lowered.
    """

    family: ClassVar[str] = "ancestral"
    reference: ClassVar[str] = _REFERENCE.format("sample_euler_ancestral")

    eta: float = 1.0
    s_noise: float = 1.0
    clock: str = "rho"

    def __post_init__(self) -> None:
        check_ancestral(self.eta, self.s_noise)
        check_choice("clock", self.clock, ("rho", "t"))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        if self.eta == 0:
            return Order(deterministic=1)
        return inflated(self.eta, self.s_noise) or Order(weak=1, strong=1)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return float(self.eta) if self.clock == "rho" else math.sqrt(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        pairs = list(itertools.pairwise(levels))
        if self.clock == "rho" or self.eta == 0:
            return [single(n, s, t, self.eta, self.s_noise) for n, (s, t) in enumerate(pairs)]
        goals = [t.t * (1 - self.eta * (s.t - t.t) / s.t) for s, t in pairs]
        if min(goals) < process.domain[0]:
            raise SolverMismatchError(
                "clock",
                got=f"'t', which goes down to t = {min(goals):.6g} on {process!r}",
                expected=f"times from {process.domain[0]} on",
                fix="Use clock='rho'.",
            )
        downs = process.levels(goals)
        return [self._in_time(n, s, down, t) for n, ((s, t), down) in enumerate(zip(pairs, downs, strict=True))]

    def _in_time(self, n: int, s: Level, down: Level, t: Level) -> Row:
        """Euler to `down`, then the transition up to t."""
        row = ddim_row(n, s, down)
        if t.sigma == 0 or row.base is None:
            return row
        a = t.alpha / down.alpha
        std = t.sigma * math.sqrt(-math.expm1(2 * (t.half_log_snr - down.half_log_snr)))
        outputs = {age: a * float(b) for age, b in row.base.outputs}  # type: ignore[arg-type]
        return commit(n, s, row.weights, a * float(row.base.base), outputs, {0: self.s_noise * std})  # type: ignore[arg-type]

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        # Where a step's noise is not as large as that of the SDE, it is in the limit.
        return snr_clock(process, times, self.fixed_stochasticity)


@dataclass(frozen=True)
class TwoStageAncestral(PlanSolver):
    """A step of two calls down to rho_down, its stage in the middle in lambda, then noise.

    The law of the samples is of order 2 where it starts from the exact marginal. Single paths, and the law from a fixed
    start, follow the reverse SDE of stochasticity eta to order 1 only: it counts as a solver of the probability flow.

    Args:
        eta: 0 for the probability flow, up to 1.
        s_noise: the factor of the added noise.
    """

    family: ClassVar[str] = "ancestral"
    fixed_stochasticity: ClassVar[float] = 0.0
    prediction: ClassVar[str]

    eta: float = 1.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        check_ancestral(self.eta, self.s_noise)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        note = "order 1 on a step from alpha = 0 or to sigma = 0"
        if self.eta == 0:
            return Order(deterministic=2, note=note)
        return inflated(self.eta, self.s_noise) or Order(weak=2, note=f"from the exact marginal; {note}")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if self.eta:
            refuse_upwards(times, "eta", self.eta, "a solver of the probability flow such as dpmpp_2s")
        levels = process.levels(times)
        pairs = [(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(levels)) if not touches_end(s, t)]
        parts = [lowered(s, t, self.eta) for _, s, t in pairs]
        # For eta = 1 the middle is t, which rounding must not leave.
        goals = [0.5 * (s.half_log_snr + down.half_log_snr) for (_, s, _), (down, _) in zip(pairs, parts, strict=True)]
        mids = [t for _, _, t in pairs] if self.eta == 1 or not goals else process.levels_at(goals)
        inner = {n: (mid, *part) for (n, _, _), mid, part in zip(pairs, mids, parts, strict=True)}
        rows: list[Row] = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            if n in inner:
                mid, down, std = inner[n]
                noises = {0: self.s_noise * std}
                rows += two_stage_rows(process, n, s, mid, down, self.prediction, r1=0.5, noises=noises)
            else:
                rows.append(single(n, s, t, self.eta, self.s_noise))
        return rows


@register("dpm_2_ancestral", aliases=("dpm_2_a", "k_dpm_2_a", "k_dpm_2_ancestral", "DPM2 a"))
@dataclass(frozen=True)
class DPM2Ancestral(TwoStageAncestral):
    """`dpm_solver_2`, the midpoint method in log sigma, down to rho_down, then noise."""

    reference: ClassVar[str] = _REFERENCE.format("sample_dpm_2_ancestral")
    prediction: ClassVar[str] = "noise"


@register("dpmpp_2s_ancestral", aliases=("dpmpp_2s_a", "k_dpmpp_2s_a", "DPM++ 2S a"))
@dataclass(frozen=True)
class DPMpp2SAncestral(TwoStageAncestral):
    """DPM-Solver++(2S) down to rho_down, then noise; for eta = 0 `dpmpp_2s`."""

    reference: ClassVar[str] = _REFERENCE.format("sample_dpmpp_2s_ancestral")
    prediction: ClassVar[str] = "data"


@register("dpmpp_sde", aliases=("k_dpmpp_sde", "DPM++ SDE"))
@dataclass(frozen=True)
class DPMppSDE(PlanSolver):
    """Two calls a step, both states with noise of one Brownian path.

    With `lowered` for s -> m, m at lambda_s + r1 h, and for s -> t, and D = (1 - 1/(2 r1)) D_s + D_m / (2 r1),

        x_m = alpha_m ((rho_down,m / rho_s) x_s / alpha_s + (1 - rho_down,m / rho_s) D_s + rho_up,m z_m)
        x_t = alpha_t ((rho_down,t / rho_s) x_s / alpha_s + (1 - rho_down,t / rho_s) D   + rho_up,t z_t).

    z_t is stream 0 of the step and z_m = c z_t + sqrt(1 - c^2) z' with z' its stream 1, where c^2 is the share of the
    step's path that lies before m, in the clock e^{2 eta^2 lambda} in which that noise is a Brownian path for eta = 1.
    Independent noises would leave order 1.

    Args:
        eta: 0 for the probability flow, 1 for the reverse SDE; in between it tends to stochasticity eta.
        r1: where in the step the second call is, in lambda: 0 < r1 <= 1.
        s_noise: the factor of the added noise.
    """

    family: ClassVar[str] = "ancestral"
    reference: ClassVar[str] = _REFERENCE.format("sample_dpmpp_sde")

    eta: float = 1.0
    r1: float = 0.5
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        check_ancestral(self.eta, self.s_noise)
        check_ratio("r1", self.r1)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        note = "order 1 on a step from alpha = 0 or to sigma = 0"
        if self.eta == 0:
            return Order(deterministic=2, note=note)
        if self.eta < 1:
            note = f"limited by eta < 1, 2 from the exact marginal; {note}"
        return inflated(self.eta, self.s_noise) or Order(weak=2 if self.eta == 1 else 1, note=note)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return float(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, process.levels(times), [self.r1])):
            rows += [single(n, s, t, self.eta, self.s_noise)] if not inner else self._step(process, n, s, inner[0], t)
        return rows

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        # For eta < 1 the noise of a step depends on its length: no common path.
        return snr_clock(process, times, 1.0) if self.eta == 1 else None

    def _step(self, process: AffineSDE, n: int, s: Level, mid: Level, t: Level) -> list[Row]:
        (down_mid, std_mid), (down, std) = lowered(s, mid, self.eta), lowered(s, t, self.eta)
        to_mid, to_t = (exponential_step(process, s, v, "data", 0.0) for v in (down_mid, down))
        shared = self._shared(t.half_log_snr - s.half_log_snr)
        own = math.sqrt(max(1 - shared**2, 0.0))
        noises = {0: self.s_noise * std_mid * shared, 1: self.s_noise * std_mid * own}
        second = to_t.total / (2 * self.r1)
        return [
            stage(n, s, DATA, to_mid.scale, {0: to_mid.total}, noises),
            commit(n, mid, DATA, to_t.scale, {1: to_t.total - second, 0: second}, {0: self.s_noise * std}),
        ]

    def _shared(self, h: float) -> float:
        """sqrt((v_m - v_s) / (v_t - v_s)) for v = e^{2 eta^2 lambda}; written for any h without overflow."""
        k = 2 * self.eta**2 * h
        if k == 0:
            return math.sqrt(self.r1)
        return math.sqrt(math.exp((self.r1 - 1) * k) * math.expm1(-self.r1 * k) / math.expm1(-k))
