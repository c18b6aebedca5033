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

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import exponential_weights, interpolation_weights
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import DATA, NOISE, Row, commit
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.exponential_tableau import KROGSTAD, tableau_rows

__all__ = [
    "PANEL",
    "ExponentialStep",
    "Interpolation",
    "exponential_step",
    "krogstad_rows",
    "lambda_rule",
    "limit_row",
    "multistep_rows",
    "touches_end",
]

_QUADRATURE = 20
PANEL = 3.0
"""The longest range of lambda for one Gauss rule of that many points, so that e^lambda is integrated to rounding."""


@dataclass(frozen=True)
class ExponentialStep:
    """One step's linear part, noise and weights: x_t = scale x_s + sum b_j E_j + std z."""

    scale: float
    std: float
    total: float
    """sum b_j: what a constant prediction contributes."""
    weights: Callable[[list[float]], list[float]]
    """b_j for nodes r_j = (lambda_j - lambda_s) / h."""
    quadrature: Callable[[], tuple[np.ndarray, np.ndarray]]
    """Points (lambda - lambda_s) / h and weights of the step's integral of a prediction."""


class Interpolation(Protocol):
    """How a multistep method gets the weights of the steps of its grid; see `sdekit.solvers.clocks`."""

    def weights(self, n: int, step: ExponentialStep, outputs: Sequence[Level]) -> list[float]:
        """b_j of step n for outputs at these levels, the newest first."""
        ...

    def regular(self, s: Level, t: Level) -> bool:
        """Whether a step has these weights; where not, it takes the limit of order 1."""
        ...


def exponential_step(process: AffineSDE, s: Level, t: Level, prediction: str, tau: Stochasticity) -> ExponentialStep:
    """The step from s to t, both of finite lambda."""
    h = t.half_log_snr - s.half_log_snr
    if callable(tau):
        return _varying(process, s, t, h, prediction, tau)
    c = 1 + tau**2
    if prediction == "data":
        damping = math.exp(-(tau**2) * h)
        std = t.sigma * math.sqrt(-math.expm1(-2 * tau**2 * h)) if tau else 0.0
        total = -t.alpha * math.expm1(-c * h)
        return ExponentialStep(
            t.sigma / s.sigma * damping,
            std,
            total,
            lambda nodes: [t.alpha * c * h * w for w in exponential_weights(nodes, -c * h)],
            lambda: _constant(t.alpha * c * h, h, lambda u: -c * h * (1 - u)),
        )
    # sigma_t e^h = alpha_t rho_s, which does not overflow for a large h.
    std = tau * t.alpha * s.rho * math.sqrt(-math.expm1(-2 * h)) if tau else 0.0
    total = c * t.alpha * s.rho * math.expm1(-h)
    return ExponentialStep(
        t.alpha / s.alpha,
        std,
        total,
        lambda nodes: [-t.sigma * c * h * w for w in exponential_weights(nodes, h)],
        lambda: _constant(-t.alpha * s.rho * c * h, h, lambda u: -h * u),
    )


def _constant(factor: float, h: float, exponent: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The quadrature of factor e^exponent."""
    points, base = lambda_rule(h)
    return points, factor * base * np.exp(exponent(points))


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
    return ExponentialStep(
        scale,
        std,
        math.fsum(quad),
        lambda nodes: interpolation_weights(nodes, points, quad),
        lambda: (np.array(points), np.array(quad)),
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


def multistep_rows(
    process: AffineSDE,
    times: list[float],
    tau: Stochasticity,
    *,
    order: int,
    prediction: str = "data",
    second: str = "exact",
    third: str = "exact",
    final_order: int | None = None,
    starts: int = 0,
    interpolation: Callable[[list[Level]], Interpolation] | None = None,
) -> list[Row]:
    """Rows of an exponential Adams method.

    Args:
        order: the number of outputs that a step interpolates, as far as there are any.
        second: "half" replaces the weights of two nodes by total (1 + 1/(2r)), -total / (2r), r = h_last / h.
        third: "released" halves the second divided difference that the weights of three nodes give.
        final_order: a smaller order for the last step, or None.
        starts: how many first steps are taken by a single-step method of order 4 (deterministic only).
        interpolation: makes the weights for a grid's levels; None interpolates in lambda.
    """
    levels = process.levels(times)
    other = None if interpolation is None else interpolation(levels)
    last = len(levels) - 2
    rows: list[Row] = []
    history: list[tuple[int, Level]] = []  # the outputs at grid times and their rows, newest first
    for n, (s, t) in enumerate(itertools.pairwise(levels)):
        if touches_end(s, t) and not (other is not None and other.regular(s, t)):
            rows.append(limit_row(n, s, t, prediction, tau))  # a grid's first or last step: no history is needed
            continue
        history = [(len(rows), s), *history[: order - 1]]
        if n < starts and not touches_end(s, t):
            rows += krogstad_rows(process, n, s, t, prediction)
            continue
        q = min(len(history), final_order if final_order and n == last else order)
        step = exponential_step(process, s, t, prediction, tau)
        used = [level for _, level in history[:q]]
        b = other.weights(n, step, used) if other else _weights_in_lambda(step, s, t, used, (second, third))
        outputs = {len(rows) - at: w for (at, _), w in zip(history, b, strict=False)}
        rows.append(commit(n, s, DATA if prediction == "data" else NOISE, step.scale, outputs, {0: step.std}))
    return rows


def _weights_in_lambda(
    step: ExponentialStep, s: Level, t: Level, outputs: list[Level], variants: tuple[str, str]
) -> list[float]:
    h = t.half_log_snr - s.half_log_snr
    nodes = [(level.half_log_snr - s.half_log_snr) / h for level in outputs]
    if len(nodes) == 1:
        b = [step.total]
    elif len(nodes) == 2 and variants[0] == "half":
        half = step.total / (2 * -nodes[1])
        b = [step.total + half, -half]
    else:
        b = step.weights(nodes)
        if len(nodes) == 3 and variants[1] == "released":
            b = _with_half_a_difference(b, nodes)
    return b


def _with_half_a_difference(b: list[float], nodes: list[float]) -> list[float]:
    """Weights of three nodes without half the term of the second divided difference f'' / 2 of the prediction.

    A parabola contributes that difference times sum b_j r_j^2 once it is written with the derivative at r = 0.
    """
    moment = math.fsum(w * r * r for w, r in zip(b, nodes, strict=True))
    products = [math.prod(r - q for q in nodes if q != r) for r in nodes]
    return [w - 0.5 * moment / p for w, p in zip(b, products, strict=True)]


def touches_end(s: Level, t: Level) -> bool:
    """Whether lambda is infinite at s or at t."""
    return not (s.alpha > 0 and s.sigma > 0 and t.alpha > 0 and t.sigma > 0)


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
