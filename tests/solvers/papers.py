"""Published updates, transcribed with the papers' letters in float64: what the plans are held against.

Nothing here uses sdekit's weights. A state is a float; the model is `nonlinear`, a function of rho and x / alpha.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.solvers.test_properties import At, draw, nonlinear

Scales = Callable[[float], tuple[float, float]]


def scales_of(process: Any) -> Scales:
    """lambda -> (alpha, sigma)."""

    def at(lam: float) -> tuple[float, float]:
        t = process.time_at(torch.tensor(lam, dtype=torch.float64))
        return float(process.alpha(t)), float(process.sigma(t))

    return at


def data(at: Scales, lam: float, x: float) -> float:
    return nonlinear(At(*at(lam)), x)


def noise(at: Scales, lam: float, x: float) -> float:
    alpha, sigma = at(lam)
    return (x - alpha * data(at, lam, x)) / sigma


def dpm_solver_2(at: Scales, lam: list[float], x: float, r1: float = 0.5, taylor: bool = False) -> float:
    """Lu et al. 2022, DPM-Solver-2; "taylor" as in dpm_solver_pytorch.py."""
    for ls, lt in itertools.pairwise(lam):
        h, lm = lt - ls, ls + r1 * (lt - ls)
        (a_s, _), (a_m, s_m), (a_t, s_t) = at(ls), at(lm), at(lt)
        e = noise(at, ls, x)
        u = a_m / a_s * x - s_m * math.expm1(r1 * h) * e
        d = noise(at, lm, u) - e
        x = a_t / a_s * x - s_t * math.expm1(h) * e
        x -= s_t / r1 * (math.expm1(h) / h - 1) * d if taylor else s_t / (2 * r1) * math.expm1(h) * d
    return x


def dpmpp_2s(at: Scales, lam: list[float], x: float, r1: float = 0.5, taylor: bool = False) -> float:
    """Lu et al. 2022, DPM-Solver++(2S)."""
    for ls, lt in itertools.pairwise(lam):
        h, lm = lt - ls, ls + r1 * (lt - ls)
        (_, s_s), (a_m, s_m), (a_t, s_t) = at(ls), at(lm), at(lt)
        m = data(at, ls, x)
        u = s_m / s_s * x - a_m * math.expm1(-r1 * h) * m
        d = data(at, lm, u) - m
        x = s_t / s_s * x - a_t * math.expm1(-h) * m
        x += a_t / r1 * (math.expm1(-h) / h + 1) * d if taylor else -a_t / (2 * r1) * math.expm1(-h) * d
    return x


def dpm_solver_3(
    at: Scales, lam: list[float], x: float, r1: float = 1 / 3, r2: float = 2 / 3, taylor: bool = False, pp: bool = False
) -> float:
    """Lu et al. 2022, DPM-Solver-3, and its form on the data prediction (pp)."""
    # The data form is the noise form with h, alpha and sigma exchanged: z = -h, the scale sigma, the amount -alpha.
    predict, sign = (data, -1.0) if pp else (noise, 1.0)
    for ls, lt in itertools.pairwise(lam):
        h = lt - ls
        z, l1, l2 = sign * h, ls + r1 * h, ls + r2 * h
        own, other = zip(*((at(v)[::-1] if pp else at(v)) for v in (ls, l1, l2, lt)), strict=True)
        phi_11, phi_12, phi_1 = math.expm1(r1 * z), math.expm1(r2 * z), math.expm1(z)
        phi_22 = math.expm1(r2 * z) / (r2 * z) - 1
        phi_2 = phi_1 / z - 1
        phi_3 = phi_2 / z - 0.5
        e = predict(at, ls, x)
        x1 = own[1] / own[0] * x - other[1] * phi_11 * e
        e1 = predict(at, l1, x1)
        x2 = own[2] / own[0] * x - other[2] * phi_12 * e - r2 / r1 * other[2] * phi_22 * (e1 - e)
        e2 = predict(at, l2, x2)
        x = own[3] / own[0] * x - other[3] * phi_1 * e
        if taylor:
            d1_0, d1_1 = (e1 - e) / r1, (e2 - e) / r2
            d1 = (r2 * d1_0 - r1 * d1_1) / (r2 - r1)
            d2 = 2 * (d1_1 - d1_0) / (r2 - r1)
            x -= other[3] * phi_2 * d1 + other[3] * phi_3 * d2
        else:
            x -= other[3] / r2 * phi_2 * (e2 - e)
    return x


def dpmpp_3m(at: Scales, lam: list[float], x: float, released: bool, half: bool = False, kappa2: float = 0.0) -> float:
    """The multistep update as k-diffusion and dpm_solver_pytorch.py release it, and with 2 D2 for D2."""
    D: list[float] = []
    H: list[float] = []
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        (_, s_s), (a_t, s_t) = at(ls), at(lt)
        D.insert(0, data(at, ls, x))
        h = lt - ls
        z = h * (1 + kappa2)
        phi_1 = math.expm1(-z)
        phi_2 = phi_1 / z + 1
        phi_3 = phi_2 / z - 0.5
        x = s_t / s_s * math.exp(-kappa2 * h) * x - a_t * phi_1 * D[0]
        if len(D) == 2:
            d = (D[0] - D[1]) / (H[0] / h)
            x += -0.5 * a_t * phi_1 * d if half else a_t * phi_2 * d
        elif len(D) > 2:
            r0, r1 = H[0] / h, H[1] / h
            d1_0, d1_1 = (D[0] - D[1]) / r0, (D[1] - D[2]) / r1
            d1 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            x += a_t * phi_2 * d1 - a_t * phi_3 * (d2 if released else 2 * d2)
        x += s_t * math.sqrt(-math.expm1(-2 * kappa2 * h)) * draw(i, 0)
        H.insert(0, h)
    return x


def unipc(at: Scales, lam: list[float], x: float, order: int, variant: str, pp: bool, corrector: str = "pec") -> float:
    """Zhao et al. 2023: the systems R rho = b / B solved as they stand, by numpy.

    variant "exact" keeps the systems of one unknown, which the released code replaces by rho = 1/2.
    """
    predict, sign = (data, -1.0) if pp else (noise, 1.0)
    last = len(lam) - 2
    history: list[tuple[float, float]] = []
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        if i == 0 or corrector == "pece":
            history.insert(0, (ls, predict(at, ls, x)))
        p, h = min(order, len(history)), lt - ls
        hh = sign * h
        (own_s, _), (own_t, other_t) = (at(v)[::-1] if pp else at(v) for v in (ls, lt))
        B = hh if variant == "bh1" else math.expm1(hh)
        r = [(history[k][0] - ls) / h for k in range(1, p)]
        m0 = history[0][1]
        d = [(history[k][1] - m0) / r[k - 1] for k in range(1, p)]
        b, h_phi, factorial = [], math.expm1(hh) / hh - 1, 1
        for k in range(1, p + 1):
            b.append(h_phi * factorial / B)
            factorial *= k + 1
            h_phi = h_phi / hh - 1 / factorial

        def solved(nodes: list[float], b: list[float] = b) -> np.ndarray:
            R = np.array([[v**k for v in nodes] for k in range(len(nodes))]).reshape(len(nodes), len(nodes))
            return np.linalg.solve(R, np.array(b[: len(nodes)]))

        first = own_t / own_s * x - other_t * math.expm1(hh) * m0
        rho = np.array([0.5]) if p == 2 and variant != "exact" else solved(r)
        predicted = first - other_t * B * float(sum(rho * d))
        if corrector == "none" or (corrector == "pec" and i == last):
            x = predicted
            if corrector == "none" and i < last:
                history.insert(0, (lt, predict(at, lt, x)))
            continue
        new = predict(at, lt, predicted)
        rho = np.array([0.5]) if p == 1 and variant != "exact" else solved([*r, 1.0])
        x = first - other_t * B * float(sum(rho * [*d, new - m0]))
        if corrector == "pec":
            history.insert(0, (lt, new))
    return x


def get_ancestral_step(sigma_s: float, sigma_t: float, eta: float) -> tuple[float, float]:
    """k-diffusion: (sigma_down, sigma_up)."""
    up = min(sigma_t, eta * math.sqrt(sigma_t**2 * (sigma_s**2 - sigma_t**2) / sigma_s**2))
    return math.sqrt(sigma_t**2 - up**2), up


def euler_ancestral(lam: list[float], y: float, eta: float, s_noise: float) -> float:
    """k-diffusion's, in its x = x_0 + sigma eps."""
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        s, t = math.exp(-ls), math.exp(-lt)
        down, up = get_ancestral_step(s, t, eta)
        y += (y - nonlinear(At(1.0, s), y)) / s * (down - s)
        y += s_noise * up * draw(i, 0)
    return y


def dpmpp_2s_ancestral(lam: list[float], y: float, eta: float, s_noise: float) -> float:
    """k-diffusion's, in its x = x_0 + sigma eps."""
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        s, t = math.exp(-ls), math.exp(-lt)
        down, up = get_ancestral_step(s, t, eta)
        h = -math.log(down) - ls
        mid = math.exp(-(ls + 0.5 * h))
        u = mid / s * y - math.expm1(-0.5 * h) * nonlinear(At(1.0, s), y)
        y = down / s * y - math.expm1(-h) * nonlinear(At(1.0, mid), u)
        y += s_noise * up * draw(i, 0)
    return y


def dpmpp_sde(lam: list[float], y: float, eta: float, r: float, s_noise: float) -> float:
    """k-diffusion's, in its x = x_0 + sigma eps, with the noise of a path in e^{2 eta^2 lambda}."""
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        lm = ls + r * (lt - ls)
        s, m, t = (math.exp(-v) for v in (ls, lm, lt))
        v_s, v_m, v_t = (math.exp(2 * eta**2 * v) for v in (ls, lm, lt))
        c2 = (v_m - v_s) / (v_t - v_s) if eta else r
        whole, part = draw(i, 0), math.sqrt(c2) * draw(i, 0) + math.sqrt(max(1 - c2, 0)) * draw(i, 1)
        down, up = get_ancestral_step(s, m, eta)
        D = nonlinear(At(1.0, s), y)
        u = down / s * y - (down / s - 1) * D + s_noise * up * part
        fac = 1 / (2 * r)
        down, up = get_ancestral_step(s, t, eta)
        D = (1 - fac) * D + fac * nonlinear(At(1.0, m), u)
        y = down / s * y - (down / s - 1) * D + s_noise * up * whole
    return y
