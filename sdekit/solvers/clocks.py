"""Exponential Adams weights of predictions that are interpolated in another clock than lambda.

A step of an exponential Adams method adds int W(lambda) q(lambda) dlambda, where q goes through the latest predictions.
If q is a polynomial in a clock c(lambda), prediction E_j of time t_j has the weight

    b_j = int W(lambda) l_j(c(lambda)) dlambda,    l_j the Lagrange polynomials on the c(lambda_j).

Clocks are "lambda", "rho" = e^-lambda, "kappa" = e^lambda and "t". Only the clock up to an affine map matters, so it is
counted from the step's start in units of the step: 0 at s, 1 at t, below 0 before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import interpolation_weights
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.exponential import ExponentialStep, lambda_rule
from sdekit.solvers.grid_steps import multistep_rows

__all__ = ["CLOCKS", "adams_weights", "clocked_rows"]

CLOCKS = ("lambda", "rho", "kappa", "t")


def clocked_rows(
    process: AffineSDE,
    times: list[float],
    tau: Stochasticity,
    *,
    clock: str,
    order: int,
    prediction: str,
    final_order: int | None = None,
    starts: int = 0,
    through_zero: bool = True,
) -> list[Row]:
    """Rows of an exponential Adams method whose outputs are interpolated in this clock; see `multistep_rows`.

    Args:
        through_zero: whether a step to sigma = 0 keeps its order where the clock allows it: the noise prediction in
            rho without stochasticity. Elsewhere it is of order 1.
    """

    interpolation = None if clock == "lambda" else _Clock(process, clock, prediction, tau, through_zero)
    return multistep_rows(
        process,
        times,
        tau,
        order=order,
        prediction=prediction,
        final_order=final_order,
        starts=starts,
        interpolation=interpolation,
    )


def adams_weights(
    start: float,
    end: float,
    nodes: Sequence[float],
    weight: Callable[[np.ndarray], np.ndarray],
    clock: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[float]:
    """b_j = int weight(lambda) l_j(clock(lambda)) dlambda from start to end, for any weight and any clock.

    Args:
        start, end: the step, in lambda.
        nodes: the values of lambda at which the outputs were made.
        weight: a function of an array of lambdas, smooth over ranges of length 3.
        clock: the same, strictly monotone; the outputs are interpolated by a polynomial in it. None is lambda itself.

    Raises:
        OptionError: no nodes, more than 20, two equal ones or one that is not finite.
    """
    u, w = lambda_rule(end - start)
    lambdas, at = start + u * (end - start), np.array(nodes, dtype=np.float64)
    quad = weight(lambdas) * w * (end - start)
    if clock is None:
        return interpolation_weights(at.tolist(), lambdas, quad)
    return interpolation_weights(clock(at).tolist(), clock(lambdas), quad)


class _Clock:
    """Another clock than lambda; an `Interpolation`.

    The moments are those of a constant where the integral's weight is constant in the clock: the noise prediction in
    rho, and the data prediction in kappa without stochasticity. Elsewhere by Gauss-Legendre quadrature in lambda.
    """

    def __init__(self, process: AffineSDE, clock: str, prediction: str, tau: Stochasticity, through_zero: bool) -> None:
        self.process, self.clock, self.sign = process, clock, -1.0 if clock == "rho" else 1.0
        noise_in_rho = clock == "rho" and prediction == "noise"
        self.plain = (noise_in_rho and not callable(tau)) or (clock == "kappa" and prediction == "data" and tau == 0)
        self.through_zero = through_zero and noise_in_rho and tau == 0

    def regular(self, s: Level, t: Level) -> bool:
        return self.through_zero and t.sigma == 0 and s.alpha > 0

    def place(self, s: Level, t: Level, at: Level) -> Any:
        if self.clock == "t":
            return (at.t - s.t) / (t.t - s.t)
        back, whole = (self.sign * (v.half_log_snr - s.half_log_snr) for v in (at, t))
        return np.expm1(back) / np.expm1(whole)

    def moments(self, s: Level, t: Level, exact: ExponentialStep, count: int) -> Sequence[Any]:
        if self.plain:
            return [exact.total / (k + 1) for k in range(count)]
        counts, points, moment = exact.quadrature()
        start, end = (_repeated(level, counts) for level in (s, t))
        lambdas = start.half_log_snr + points * (end.half_log_snr - start.half_log_snr)
        times = self.process.time_at(torch.from_numpy(lambdas)).numpy() if self.clock == "t" else lambdas
        at = start._replace(t=times, half_log_snr=lambdas)
        values, first, found = self.place(start, end, at), np.cumsum([0, *counts[:-1]]), []
        for _ in range(count):
            found.append(np.add.reduceat(moment, first))
            moment = moment * values
        return found


def _repeated(level: Any, counts: Sequence[int]) -> Any:
    """Each step's level for as many points."""
    return Level(*np.repeat(np.stack(level), counts, 1))
