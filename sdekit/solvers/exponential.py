"""Exponential Adams methods in lambda: DPM-Solver++(nM), SA-Solver's predictor and their relatives, of any order.

Step s -> t, h = lambda_t - lambda_s, tau the stochasticity, I = int tau^2 dlambda over the step. The exact solutions

    data:   x_t = (sigma_t / sigma_s) e^{-I} x_s + sigma_t sqrt(1 - e^{-2I}) z
                  + sigma_t int (1 + tau^2) e^{lambda} e^{-J} data dlambda,    J = int_lambda^{lambda_t} tau^2
    noise:  x_t = (alpha_t / alpha_s) x_s + alpha_t sqrt(2 int tau^2 e^{-2 lambda} dlambda) z
                  - alpha_t int (1 + tau^2) e^{-lambda} noise dlambda

become methods by interpolating the prediction through its latest values (Lu et al., DPM-Solver++, 2022; Xue et al.,
SA-Solver, NeurIPS 2023; Hochbruck and Ostermann, Acta Numerica 2010, for exponential multistep methods).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import exponential_moments, moment_weights
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import DATA, NOISE, Row, commit
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.exponential_tableau import KROGSTAD, tableau_rows

__all__ = [
    "PANEL",
    "ExponentialStep",
    "exponential_step",
    "krogstad_rows",
    "lambda_rule",
    "limit_row",
    "regular_steps",
    "touches_end",
]

_QUADRATURE = 20
PANEL = 3.0
"""The longest range of lambda for one Gauss rule of that many points, so that e^lambda is integrated to rounding."""


Quadrature = tuple[Sequence[int], np.ndarray, np.ndarray]
"""How many points each step has, and for all steps in a row points (lambda - lambda_s) / h and weights."""


@dataclass(frozen=True)
class ExponentialStep:
    """One step's linear part, noise and integral of a prediction: x_t = scale x_s + sum b_j E_j + std z.

    Numbers for a step between two levels, arrays for many between levels of arrays.
    """

    scale: Any
    std: Any
    total: Any
    """sum b_j: what a constant prediction contributes."""
    moments: Callable[[int], Sequence[Any]]
    """The integral of r^k, r = (lambda - lambda_s) / h, for each k below this."""
    quadrature: Callable[[], Quadrature]
    """A rule for the same integral, of arrays alone."""

    def weights(self, nodes: Sequence[Any]) -> list[Any]:
        """b_j for nodes r_j = (lambda_j - lambda_s) / h."""
        return moment_weights(nodes, self.moments(len(nodes)))


def exponential_step(process: AffineSDE, s: Level, t: Level, prediction: str, tau: Stochasticity) -> ExponentialStep:
    """The step from s to t, both of finite lambda: numbers, or arrays for many steps at once."""
    h: Any = t.half_log_snr - s.half_log_snr
    many = isinstance(h, np.ndarray)
    if callable(tau):
        return _each_varying(process, s, t, prediction, tau) if many else _varying(process, s, t, h, prediction, tau)
    m: Any = np if many else math
    c = 1 + tau**2
    if prediction == "data":
        return ExponentialStep(
            t.sigma / s.sigma * m.exp(-(tau**2) * h),
            t.sigma * m.sqrt(-m.expm1(-2 * tau**2 * h)) if tau else 0.0,
            -t.alpha * m.expm1(-c * h),
            lambda count: [t.alpha * c * h * v for v in exponential_moments(count, -c * h)],
            lambda: _constant(t.alpha * c * h, h, -c * h, 0.0 * h),
        )
    # sigma_t e^h = alpha_t rho_s, which does not overflow for a large h.
    reach = t.alpha * (s.sigma / s.alpha)
    return ExponentialStep(
        t.alpha / s.alpha,
        tau * reach * m.sqrt(-m.expm1(-2 * h)) if tau else 0.0,
        c * reach * m.expm1(-h),
        lambda count: [-t.sigma * c * h * v for v in exponential_moments(count, h)],
        lambda: _constant(-reach * c * h, h, 0.0 * h, -h),
    )


def _constant(factor: np.ndarray, h: np.ndarray, first: np.ndarray, last: np.ndarray) -> Quadrature:
    """Of factor e^v for v that is linear from first to last."""
    rules = [lambda_rule(length) for length in h.tolist()]
    counts = [len(points) for points, _ in rules]
    points, base = (np.concatenate([rule[i] for rule in rules]) for i in (0, 1))
    first, change, factor = (np.repeat(v, counts) for v in (first, last - first, factor))
    return counts, points, factor * base * np.exp(first + points * change)


def _each_varying(
    process: AffineSDE, s: Level, t: Level, prediction: str, tau: Callable[[float], float]
) -> ExponentialStep:
    pairs = [(Level(*a), Level(*b)) for a, b in zip(*(np.stack(v, 1).tolist() for v in (s, t)), strict=True)]
    steps = [exponential_step(process, a, b, prediction, tau) for a, b in pairs]

    def quadrature() -> Quadrature:
        counts, points, quad = zip(*(step.quadrature() for step in steps), strict=True)
        return [count for (count,) in counts], np.concatenate(points), np.concatenate(quad)

    scale, std, total = np.array([(step.scale, step.std, step.total) for step in steps]).T

    def moments(count: int) -> np.ndarray:
        return np.array([step.moments(count) for step in steps]).T

    return ExponentialStep(scale, std, total, moments, quadrature)  # type: ignore[arg-type]


def _varying(
    process: AffineSDE, s: Level, t: Level, h: float, prediction: str, tau: Callable[[float], float]
) -> ExponentialStep:
    """As above for tau a function of t, by Gauss-Legendre quadrature in lambda."""
    points, base = (v.tolist() for v in lambda_rule(h))

    def squares(fractions: Sequence[float]) -> list[float]:
        times = process.time_at(torch.tensor([s.half_log_snr + u * h for u in fractions], dtype=torch.float64)).tolist()
        return [stochasticity_at(tau, time) ** 2 for time in times]

    tau2 = squares(points)
    if prediction == "noise":
        # alpha_t e^{-lambda} = sigma_t e^{(1 - u) h}.
        quad = [-t.sigma * h * w * (1 + k) * math.exp((1 - u) * h) for u, w, k in zip(points, base, tau2, strict=True)]
        variance = math.fsum(
            2 * h * w * k * math.exp(2 * (1 - u) * h) for u, w, k in zip(points, base, tau2, strict=True)
        )
        scale, std = t.alpha / s.alpha, t.sigma * math.sqrt(variance)
    else:
        # int_lambda^{lambda_t} tau^2 from each node by a rule of its own on [u, 1].
        rest = []
        for u in points:
            inner = squares([u + (1 - u) * v for v in points])
            rest.append((1 - u) * h * math.fsum(w * k for w, k in zip(base, inner, strict=True)))
        whole = h * math.fsum(w * k for w, k in zip(base, tau2, strict=True))
        quad = [
            t.alpha * h * w * (1 + k) * math.exp(-(1 - u) * h - r)
            for u, w, k, r in zip(points, base, tau2, rest, strict=True)
        ]
        scale, std = t.sigma / s.sigma * math.exp(-whole), t.sigma * math.sqrt(-math.expm1(-2 * whole))
    at, amounts = np.array(points), np.array(quad)
    return ExponentialStep(
        scale,
        std,
        math.fsum(quad),
        lambda count: [math.fsum(amounts * at**k) for k in range(count)],
        lambda: ([len(at)], at, amounts),
    )


def lambda_rule(length: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] for functions of a range of lambda of this length: Gauss rules on equal panels.

    They integrate e^lambda, and functions of t(lambda), to rounding: of the latter the poles are pi / 2 away.
    """
    return _rule(max(1, math.ceil(abs(length) / PANEL)))


@lru_cache(maxsize=64)
def _rule(panels: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = (np.array(v) for v in gauss_legendre(_QUADRATURE))
    return ((np.arange(panels)[:, None] + nodes) / panels).ravel(), np.tile(weights / panels, panels)


def touches_end(s: Level, t: Level) -> bool:
    """Whether lambda is infinite at s or at t."""
    return not (s.alpha > 0 and s.sigma > 0 and t.alpha > 0 and t.sigma > 0)


def regular_steps(levels: Sequence[Level]) -> list[int]:
    """The steps that touch no end."""
    inside = [at.alpha > 0 and at.sigma > 0 for at in levels]
    return [n for n in range(len(levels) - 1) if inside[n] and inside[n + 1]]


def limit_row(n: int, s: Level, t: Level, prediction: str, tau: Stochasticity) -> Row:
    """A step that touches sigma = 0 or alpha = 0: the limits of order 1.

    To sigma = 0 it is x_t = alpha_t data, and from there (upwards) x_t = (alpha_t / alpha_s) x_s + sigma_t noise; to
    alpha = 0 (upwards) it is x_t = sigma_t noise. From alpha = 0, where lambda = -inf, stochasticity has had time to
    replace all noise, so that x_t = alpha_t data + sigma_t z; without it x_t = (sigma_t / sigma_s) x_s + alpha_t data.
    """
    if t.sigma == 0:
        if prediction == "noise" and s.alpha > 0:
            return commit(n, s, NOISE, t.alpha / s.alpha, {0: -t.alpha * s.rho})
        return commit(n, s, DATA, 0.0, {0: t.alpha})
    if s.sigma == 0:
        return commit(n, s, NOISE, t.alpha / s.alpha, {0: t.sigma})
    if t.alpha == 0:
        return commit(n, s, NOISE, 0.0, {0: t.sigma})
    if stochasticity_at(tau, s.t) > 0:
        return commit(n, s, DATA, 0.0, {0: t.alpha}, {0: t.sigma})
    return commit(n, s, DATA, t.sigma / s.sigma, {0: t.alpha})


def krogstad_rows(process: AffineSDE, n: int, s: Level, t: Level, prediction: str) -> list[Row]:
    """One step of ETDRK4 in the form of Krogstad (J. Comput. Phys. 203, 2005), four calls, on the flow in lambda."""
    (mid,) = process.levels_at([s.half_log_snr + 0.5 * (t.half_log_snr - s.half_log_snr)])
    return tableau_rows(KROGSTAD, n, s, t, {0.5: mid}, prediction)
