"""One stochasticity, and what other libraries call eta, tau, churn, gamma, phi and snr.

sdekit's stochasticity tau is the factor of the noise in the reverse SDE, a number or a function of t: 0 is the
probability flow, 1 the reverse SDE. Elsewhere the same solvers take

    SA-Solver (the paper, diffusers)          tau        itself
    azula's SDE samplers                      eta        itself
    k-diffusion dpmpp_2m_sde, dpmpp_3m_sde;
    ComfyUI seeds_2, seeds_3, sa_solver       eta        tau^2
    DDIM; k-diffusion's ancestral samplers    eta        of one step: eta^2 = (1 - e^{-2 tau^2 h}) / (1 - e^{-2h})
    ComfyUI euler_ancestral_RF                eta        tau^2, where steps are short
    EDM                                       gamma      of one step: tau^2 = log(1 + gamma) / h, where steps are short
    EDM                                       S_churn    gamma = min(S_churn / steps, sqrt(2) - 1)
    ER-SDE-Solver                             phi        tau^2 = dlog phi / dlog rho - 1, a function of rho
    Song et al., Langevin steps               snr        delta = 4 snr^2

with h = lambda_t - lambda_s > 0, the step in half log-SNR, and rho = sigma / alpha. All functions take and return
floats; those of a step hold for that step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError
from sdekit.shapes import finite_number
from sdekit.solvers.er_sde import NOISE_SCALES
from sdekit.solvers.options import check_choice

__all__ = [
    "churn_gamma",
    "from_ddim_eta",
    "from_er_sde",
    "from_gamma",
    "from_sde_eta",
    "langevin_delta",
    "to_ddim_eta",
    "to_gamma",
    "to_sde_eta",
]

_EDM_LIMIT = math.sqrt(2) - 1


def _not_negative(argument: str, value: float) -> float:
    if (number := finite_number(argument, value)) < 0:
        raise OptionError(argument, got=repr(value), expected="0 or more", fix="Use 0 for the probability flow.")
    return number


def _positive(argument: str, value: float) -> float:
    if (number := finite_number(argument, value)) <= 0:
        fix = "Pass half_log_snr(t) - half_log_snr(s) of a step towards the data."
        raise OptionError(argument, got=repr(value), expected="more than 0", fix=fix)
    return number


def from_sde_eta(eta: float) -> float:
    """The stochasticity sqrt(eta) of k-diffusion's dpmpp_2m_sde and dpmpp_3m_sde, ComfyUI's seeds and sa_solver.

    Raises:
        OptionError: for eta that is negative or not finite.
    """
    return math.sqrt(_not_negative("eta", eta))


def to_sde_eta(tau: float) -> float:
    """The inverse of `from_sde_eta`: tau^2. Raises OptionError."""
    return _not_negative("tau", tau) ** 2


def from_ddim_eta(eta: float, h: float) -> float:
    """The stochasticity at which a step of length h of DDIM with this eta is one of the reverse SDE.

    tau^2 = -log(1 - eta^2 (1 - e^{-2h})) / (2h), which is eta^2 for short steps and 1 for eta = 1. The same for
    k-diffusion's ancestral samplers, whose eta is DDIM's.

    Raises:
        OptionError: for h that is not above 0, for a negative eta, or one so large that nothing of the state is left.
    """
    eta, h = _not_negative("eta", eta), _positive("h", h)
    if eta == 1:
        return 1.0
    lost = eta**2 * -math.expm1(-2 * h)
    if lost >= 1:
        raise OptionError(
            "eta", got=repr(eta), expected=f"less than {1 / math.sqrt(-math.expm1(-2 * h)):.6g}", fix="Lower it."
        )
    return math.sqrt(-math.log1p(-lost) / (2 * h))


def to_ddim_eta(tau: float, h: float) -> float:
    """The inverse of `from_ddim_eta`: sqrt((1 - e^{-2 tau^2 h}) / (1 - e^{-2h})). Raises OptionError."""
    tau, h = _not_negative("tau", tau), _positive("h", h)
    return math.sqrt(math.expm1(-2 * tau**2 * h) / math.expm1(-2 * h))


def from_gamma(gamma: float, h: float) -> float:
    """The stochasticity sqrt(log(1 + gamma) / h) that churn tends to: EDM raises rho to rho (1 + gamma) before a step.

    The kick is that of `splitting(form="churn")` with this stochasticity; in law the whole is the reverse SDE's to
    leading order.

    Raises:
        OptionError: for a negative gamma, or h that is not above 0.
    """
    return math.sqrt(math.log1p(_not_negative("gamma", gamma)) / _positive("h", h))


def to_gamma(tau: float, h: float) -> float:
    """The inverse of `from_gamma`: e^{tau^2 h} - 1. Raises OptionError."""
    return math.expm1(_not_negative("tau", tau) ** 2 * _positive("h", h))


def churn_gamma(churn: float, steps: int) -> float:
    """EDM's gamma of S_churn over this many steps: min(S_churn / steps, sqrt(2) - 1). Raises OptionError."""
    return min(_not_negative("churn", churn) / _positive("steps", steps), _EDM_LIMIT)


def from_er_sde(noise_scale: str, process: AffineSDE) -> Callable[[float], float]:
    """The stochasticity as a function of t that a noise-scale function of `er_sde` implies on a process.

    tau(t) = sqrt(dlog phi / dlog rho - 1) at rho(t). It goes into `process.reverse`, for example, or into the
    `stochasticity` of a plan.

    Args:
        noise_scale: "ode", "sde" or "sde_1" to "sde_5", as for `er_sde`.
        process: whose times the function takes.

    Raises:
        OptionError: for an unknown name; from the function, where phi does not rise as fast as rho.
    """
    check_choice("noise_scale", noise_scale, tuple(NOISE_SCALES))
    slope = NOISE_SCALES[noise_scale].slope

    def tau(t: float) -> float:
        rho = float(process.rho(t))
        if (square := slope(rho)) < 0:
            raise OptionError(
                "noise_scale",
                got=f"{noise_scale!r} at sigma / alpha = {rho:.6g}",
                expected="phi that rises at least as fast as rho",
                fix="Begin at less noise, or use another function.",
            )
        return math.sqrt(square)

    return tau


def langevin_delta(snr: float) -> float:
    """delta of `predictor_corrector` for Song et al.'s signal-to-noise ratio r: 4 r^2.

    They take steps of 2 (r |z| / |score|)^2 with the norms at hand; this is what it is where |score| = |z| / sigma, as
    where noise is all there is. (Their alpha is 1 for VE, and nearly so for VP.)

    Raises:
        OptionError: for r that is negative, not finite, or above 1/2, where delta would be above 1.
    """
    if (r := _not_negative("snr", snr)) > 0.5:
        raise OptionError("snr", got=repr(snr), expected="at most 0.5", fix="Use 0.16, as for CIFAR-10, or less.")
    return 4 * r**2
