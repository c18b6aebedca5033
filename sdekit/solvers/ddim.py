"""DDIM and DDPM: one model call a step, the data prediction held constant over it."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.plan import DATA, NOISE, Row, commit
from sdekit.sde import Stochasticity
from sdekit.shapes import as_float64, finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.options import check_choice, check_not_negative

__all__ = ["DDIM", "DDPM", "ddim_row", "snr_clock"]

_LARGEST = math.log(sys.float_info.max)
_SLOW = 0.125


def ddim_row(step: int, s: Level, t: Level, eta: float = 0.0) -> Row:
    """x_t = alpha_t data + sigma_t (sqrt(1 - eta^2 q) noise + eta sqrt(q) z), q = 1 - e^{-2h}, h = lambda_t - lambda_s.

    Written with E = data and a = (sigma_t / sigma_s) sqrt(1 - eta^2 q) it is x_t = a x + (alpha_t - a alpha_s) E +
    eta sigma_t sqrt(q) z, which is finite for alpha_s = 0 and for sigma_t = 0. Upwards from sigma_s = 0 and to
    alpha_t = 0 (eta = 0) only the noise prediction says where to go.
    """
    if t.sigma == 0:
        return commit(step, s, DATA, 0.0, {0: t.alpha})
    if s.sigma == 0:
        return commit(step, s, NOISE, t.alpha / s.alpha, {0: t.sigma})
    if t.alpha == 0:
        return commit(step, s, NOISE, 0.0, {0: t.sigma})
    h = t.half_log_snr - s.half_log_snr
    q = -math.expm1(-2 * h)
    kept = math.sqrt(max(1 - eta**2 * q, 0.0)) if eta < 1 else math.exp(-h)
    a = (t.sigma / s.sigma) * kept
    # alpha_t - a alpha_s = alpha_t (1 - e^{-h} kept), without the subtraction.
    b = -t.alpha * math.expm1(-h + math.log(kept)) if kept > 0 else t.alpha
    return commit(step, s, DATA, a, {0: b}, {0: eta * t.sigma * math.sqrt(max(q, 0.0))} if eta else None)


def snr_clock(process: AffineSDE, times: list[float], tau: Stochasticity) -> tuple[float, ...] | None:
    """The clock in which the noise of the reverse SDE of constant tau is one Brownian path, at each time.

    With k = 2 tau^2 the noise of e^{tau^2 lambda} x / sigma is a Brownian path in e^{k lambda}, and sqrt(k) times one
    in (e^{k lambda} - 1) / k. The second is taken for k <= 1/8, where the first hardly moves.

    None where there is no such clock (tau a function), or where it leaves the range of floats.
    """
    if callable(tau):
        return None
    k = 2 * tau**2
    exponents = [k * v for v in process.half_log_snr(as_float64(times)).tolist()]
    if k == 0 or any(_LARGEST < e < math.inf for e in exponents):
        return None
    if k <= _SLOW:
        return tuple(math.expm1(e) / k for e in exponents)
    return tuple(math.exp(e) for e in exponents)


class SnrClocked(PlanSolver):
    """A sampler whose noises are the increments of the path in `snr_clock` of the stochasticity at hand."""

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return snr_clock(process, times, stochasticity)


@register("ddim")
@dataclass(frozen=True)
class DDIM(PlanSolver):
    """Denoising diffusion implicit models (Song, Meng and Ermon, ICLR 2021, eq. 12 and 16).

    Args:
        eta: 0 for the probability flow, 1 for DDPM; fixed eta tends to the reverse SDE of stochasticity eta.
    """

    family: ClassVar[str] = "DDIM"
    reference: ClassVar[str] = "Song, Meng and Ermon, Denoising Diffusion Implicit Models, ICLR 2021, eq. 12 and 16"

    eta: float = 0.0

    def __post_init__(self) -> None:
        eta = finite_number("eta", self.eta)
        if not 0 <= eta <= 1:
            raise OptionError(
                "eta",
                got=repr(self.eta),
                expected="a number in [0, 1]",
                fix="Use 0 for the deterministic sampler, 1 for DDPM.",
            )

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=1) if self.eta == 0 else Order(weak=1, strong=1)

    @property
    def fixed_stochasticity(self) -> float:  # type: ignore[override]
        return float(self.eta)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        return [ddim_row(n, s, t, self.eta) for n, (s, t) in enumerate(itertools.pairwise(levels))]

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        # For eta < 1 a step's noise is as large as that of the SDE of stochasticity eta only in the limit.
        return snr_clock(process, times, self.eta)


@register("ddpm")
@dataclass(frozen=True)
class DDPM(PlanSolver):
    """Ancestral sampling (Ho, Jain and Abbeel, NeurIPS 2020, eq. 6-7): exact for a point mass, or for N(0, I) on VP.

    With q = 1 - e^{-2h}: mean (sigma_t / sigma_s) e^{-h} x + alpha_t q data, variance by choice.

    Args:
        variance: "beta_tilde", sigma_t^2 q, exact for a point mass; "beta", sigma_s^2 q, exact for N(0, I) on VP;
            "range", beta^v beta_tilde^(1 - v), in which Improved DDPM (Nichol and Dhariwal, ICML 2021) learns v;
            "analytic", beta_tilde + (alpha_t q)^2 c, which is the best one (Bao, Li, Zhu and Zhang, Analytic-DPM, ICLR
            2022) with c the mean over coordinates of the variance of the data given x_s. No noise is added where
            sigma_t = 0.
        v: for "range", from 0 to 1.
        posterior_variance: c for "analytic", a number or a function of s that returns one: for data N(m, a) in each
            coordinate a sigma_s^2 / (alpha_s^2 a + sigma_s^2).

    Raises:
        OptionError: for another variance, v outside [0, 1], or a posterior variance that is negative or not finite.
    """

    family: ClassVar[str] = "DDIM"
    reference: ClassVar[str] = "Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020, eq. 6-7"
    declared: ClassVar[Order] = Order(weak=1, strong=1)
    fixed_stochasticity: ClassVar[float] = 1.0

    variance: str = "beta_tilde"
    v: float = 0.5
    posterior_variance: float | Callable[[float], float] = 0.0

    def __post_init__(self) -> None:
        check_choice("variance", self.variance, ("beta_tilde", "beta", "range", "analytic"))
        if not 0 <= finite_number("v", self.v) <= 1:
            fix = "Use 0 for 'beta_tilde', 1 for 'beta'."
            raise OptionError("v", got=repr(self.v), expected="a number in [0, 1]", fix=fix)
        if not callable(self.posterior_variance):
            check_not_negative("posterior_variance", self.posterior_variance)

    @property
    def plan_is_remembered(self) -> bool:  # type: ignore[override]
        return not callable(self.posterior_variance)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        return [self._row(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(levels))]

    def _row(self, step: int, s: Level, t: Level) -> Row:
        if t.sigma == 0:
            return commit(step, s, DATA, 0.0, {0: t.alpha})
        h = t.half_log_snr - s.half_log_snr
        q = -math.expm1(-2 * h)
        std = math.sqrt(q) * self._size(s, t, q)
        return commit(step, s, DATA, t.sigma / s.sigma * math.exp(-h), {0: t.alpha * q}, {0: std})

    def _size(self, s: Level, t: Level, q: float) -> float:
        """The standard deviation of the noise over sqrt(q)."""
        if self.variance == "beta_tilde":
            return t.sigma
        if self.variance == "beta":
            return s.sigma
        if self.variance == "range":
            return s.sigma**self.v * t.sigma ** (1 - self.v)
        c = self.posterior_variance
        if callable(c):
            c = c(s.t)
            check_not_negative(f"posterior_variance({s.t:.6g})", c)
        return math.sqrt(t.sigma**2 + t.alpha**2 * q * c)

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        return snr_clock(process, times, 1.0)
