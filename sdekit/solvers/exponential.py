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

import torch

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import exponential_weights, interpolation_weights
from sdekit.math.phi import phis
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import DATA, NOISE, Row, commit, stage
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity

__all__ = ["ExponentialStep", "exponential_step", "krogstad_rows", "limit_row", "multistep_rows", "touches_end"]

_QUADRATURE = 20
_PANEL = 3.0
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
        )
    # sigma_t e^h = alpha_t rho_s, which does not overflow for a large h.
    std = tau * t.alpha * s.rho * math.sqrt(-math.expm1(-2 * h)) if tau else 0.0
    total = c * t.alpha * s.rho * math.expm1(-h)
    return ExponentialStep(
        t.alpha / s.alpha, std, total, lambda nodes: [-t.sigma * c * h * w for w in exponential_weights(nodes, h)]
    )


def _varying(
    process: AffineSDE, s: Level, t: Level, h: float, prediction: str, tau: Callable[[float], float]
) -> ExponentialStep:
    """As above for tau a function of t, by Gauss-Legendre quadrature in lambda."""
    points, base = _rule(math.ceil(abs(h) / _PANEL))

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
    return ExponentialStep(scale, std, math.fsum(quad), lambda nodes: interpolation_weights(nodes, points, quad))


@lru_cache(maxsize=64)
def _rule(panels: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1], composed of Gauss rules on equal panels."""
    nodes, weights = gauss_legendre(_QUADRATURE)
    points = [(i + x) / panels for i in range(panels) for x in nodes]
    return points, [w / panels for _ in range(panels) for w in weights]


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
) -> list[Row]:
    """Rows of an exponential Adams method.

    Args:
        order: the number of outputs that a step interpolates, as far as there are any.
        second: "half" replaces the weights of two nodes by total (1 + 1/(2r)), -total / (2r), r = h_last / h.
        third: "released" halves the second divided difference that the weights of three nodes give.
        final_order: a smaller order for the last step, or None.
        starts: how many first steps are taken by a single-step method of order 4 (deterministic only).
    """
    levels = process.levels(times)
    last = len(levels) - 2
    rows: list[Row] = []
    history: list[tuple[int, float]] = []  # (row, lambda) of the outputs at grid times, newest first
    for n, (s, t) in enumerate(itertools.pairwise(levels)):
        if touches_end(s, t):
            rows.append(limit_row(n, s, t, prediction, tau))  # a grid's first or last step: no history is needed
            continue
        history = [(len(rows), s.half_log_snr), *history[: order - 1]]
        if n < starts:
            rows += krogstad_rows(process, n, s, t, prediction)
            continue
        q = min(len(history), final_order if final_order and n == last else order)
        rows.append(_adams_row(process, n, s, t, prediction, tau, history[:q], len(rows), (second, third)))
    return rows


def _adams_row(
    process: AffineSDE,
    n: int,
    s: Level,
    t: Level,
    prediction: str,
    tau: Stochasticity,
    history: list[tuple[int, float]],
    row: int,
    variants: tuple[str, str],
) -> Row:
    step = exponential_step(process, s, t, prediction, tau)
    h = t.half_log_snr - s.half_log_snr
    nodes = [(lam - s.half_log_snr) / h for _, lam in history]
    if len(nodes) == 1:
        b = [step.total]
    elif len(nodes) == 2 and variants[0] == "half":
        half = step.total / (2 * -nodes[1])
        b = [step.total + half, -half]
    else:
        b = step.weights(nodes)
        if len(nodes) == 3 and variants[1] == "released":
            b = _with_half_a_difference(b, nodes)
    outputs = {row - at: w for (at, _), w in zip(history, b, strict=True)}
    weights = DATA if prediction == "data" else NOISE
    return commit(n, s, weights, step.scale, outputs, {0: step.std})


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
    h = t.half_log_snr - s.half_log_snr
    (mid,) = process.levels_at([s.half_log_snr + 0.5 * h])
    z = -h if prediction == "data" else h
    _, h1, h2 = phis(2, z / 2)
    _, p1, p2, p3 = phis(3, z)
    weights = DATA if prediction == "data" else NOISE

    def scale(to: Level) -> float:
        return to.sigma / s.sigma if prediction == "data" else to.alpha / s.alpha

    def amount(to: Level) -> float:
        return h * (to.alpha if prediction == "data" else -to.sigma)

    def weighted(to: Level, *b: float) -> dict[int, float]:
        """Coefficients of the stages' outputs, newest first, from weights listed oldest first."""
        return {age: amount(to) * w for age, w in enumerate(reversed(b))}

    middle = 2 * p2 - 4 * p3
    return [
        stage(n, s, weights, scale(mid), weighted(mid, 0.5 * h1)),
        stage(n, mid, weights, scale(mid), weighted(mid, 0.5 * h1 - h2, h2)),
        stage(n, mid, weights, scale(t), weighted(t, p1 - 2 * p2, 0.0, 2 * p2)),
        commit(n, t, weights, scale(t), weighted(t, p1 - 3 * p2 + 4 * p3, middle, middle, 4 * p3 - p2)),
    ]
