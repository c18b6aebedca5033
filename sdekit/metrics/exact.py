"""Where the reverse dynamics themselves carry a Gaussian law: what a sampler tends to with ever more steps.

In a principal axis of the data, of variance c, let S = alpha^2 c + sigma^2 and z = (x - alpha m) / sqrt(S). The reverse
SDE of stochasticity kappa makes z decay towards a standard normal:

    E z_t = G E z_s,    Var z_t = 1 - G^2 (1 - Var z_s),
    log G = -int kappa^2 / (1 + c / rho^2) dlambda = -(kappa^2 / 2) log((c + rho_s^2) / (c + rho_t^2))

with rho = sigma / alpha; the last form is that of a constant kappa. G = 1 for the flow.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError
from sdekit.math.quadrature import gauss_legendre
from sdekit.metrics.law import Axes, Law
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity

__all__ = ["reversed_law"]

_PANELS, _NODES = 64, 16


def reversed_law(process: AffineSDE, axes: Axes, s: float, t: float, tau: Stochasticity, law: Law) -> Law:
    """The law at t of the reverse dynamics started from this law at s > t.

    Raises:
        OptionError: for a stochasticity that is a function where alpha or sigma is 0 at an end.
    """
    first, last = process.levels([s, t])
    kept = _kept(process, axes.variances, first, last, tau)
    before, after = axes.marginal((first.alpha, first.sigma)), axes.marginal((last.alpha, last.sigma))
    ratio = np.divide(after.variance, before.variance, out=np.zeros_like(kept), where=before.variance > 0)
    mean = after.mean + kept * np.sqrt(ratio) * (law.mean - before.mean)
    # S_t (1 - G^2 (1 - v / S_s)) without the subtraction of two numbers near 1.
    return Law(mean, after.variance + kept**2 * ratio * (law.variance - before.variance))


def _kept(process: AffineSDE, c: np.ndarray, s: Level, t: Level, tau: Stochasticity) -> np.ndarray:
    """G in each axis."""
    if not callable(tau):
        kappa = stochasticity_at(tau, s.t)
        if kappa == 0:
            return np.ones_like(c)
        if s.alpha == 0:
            return np.zeros_like(c)
        return ((c + t.rho**2) / (c + s.rho**2)) ** (0.5 * kappa**2)
    if not (math.isfinite(s.half_log_snr) and math.isfinite(t.half_log_snr)):
        raise OptionError(
            "times",
            got=f"from t = {s.t:g} to {t.t:g}, where alpha or sigma is 0",
            expected="alpha and sigma > 0 at both ends for a stochasticity that is a function",
            fix="Move the ends, or use a constant stochasticity.",
        )
    nodes, weights = gauss_legendre(_NODES)
    width = (t.half_log_snr - s.half_log_snr) / _PANELS
    places = (np.arange(_PANELS)[:, None] + np.array(nodes)).ravel() * width + s.half_log_snr
    times = process.time_at(torch.from_numpy(places)).tolist()
    squares = np.array([stochasticity_at(tau, time) ** 2 for time in times])
    rates = squares[:, None] / (1 + c * np.exp(2 * places)[:, None])
    return np.exp(-(np.tile(weights, _PANELS) * width) @ rates)
