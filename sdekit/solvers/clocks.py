"""Exponential Adams weights of predictions that are interpolated in another clock than lambda.

A step of an exponential Adams method adds int W(lambda) q(lambda) dlambda, where q goes through the latest predictions.
If q is a polynomial in a clock c(lambda), prediction E_j of time t_j has the weight

    b_j = int W(lambda) l_j(c(lambda)) dlambda,    l_j the Lagrange polynomials on the c(lambda_j).

Clocks are "lambda", "rho" = e^-lambda, "kappa" = e^lambda and "t". Only the clock up to an affine map matters, so it is
counted from the step's start in units of the step: 0 at s, 1 at t, below 0 before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import exponential_weights, interpolation_weights, moment_weights
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.exponential import (
    ExponentialStep,
    exponential_step,
    lambda_rule,
    multistep_rows,
    touches_end,
)

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

    def interpolation(levels: list[Level]) -> _Clock:
        return _Clock(process, levels, clock, prediction, tau, through_zero, order)

    return multistep_rows(
        process,
        times,
        tau,
        order=order,
        prediction=prediction,
        final_order=final_order,
        starts=starts,
        interpolation=None if clock == "lambda" else interpolation,
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
    """The weights of the steps of one grid; an `Interpolation`.

    Plain Adams weights times the total where the integral's weight is constant in the clock: the noise prediction in
    rho, and the data prediction in kappa without stochasticity. Elsewhere by Gauss-Legendre quadrature in lambda.
    """

    def __init__(
        self,
        process: AffineSDE,
        levels: list[Level],
        clock: str,
        prediction: str,
        tau: Stochasticity,
        through_zero: bool,
        order: int,
    ) -> None:
        self.levels, self.clock, self.sign = levels, clock, -1.0 if clock == "rho" else 1.0
        noise_in_rho = clock == "rho" and prediction == "noise"
        self.plain = (noise_in_rho and not callable(tau)) or (clock == "kappa" and prediction == "data" and tau == 0)
        self.through_zero = through_zero and noise_in_rho and tau == 0
        self.process, self.order = process, order
        self.known: dict[int, list[float]] = {}
        if not self.plain and not callable(tau):
            found = [(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(levels)) if not touches_end(s, t)]
            steps = [exponential_step(process, s, t, prediction, tau) for _, s, t in found]
            self.known = dict(zip((n for n, *_ in found), self._moments([n for n, *_ in found], steps), strict=True))

    def regular(self, s: Level, t: Level) -> bool:
        """Only asked for steps that touch an end."""
        return self.through_zero and t.sigma == 0 and s.alpha > 0

    def weights(self, n: int, step: ExponentialStep, outputs: Sequence[Level]) -> list[float]:
        if len(outputs) == 1:
            return [step.total]
        s, t = self.levels[n], self.levels[n + 1]
        nodes = [self._place(s, t, level) for level in outputs]
        if self.plain:
            return [step.total * w for w in exponential_weights(nodes, 0.0)]
        return moment_weights(nodes, self.known[n] if n in self.known else self._moments([n], [step])[0])

    def _moments(self, which: Sequence[int], steps: Sequence[ExponentialStep]) -> list[list[float]]:
        """For each of these steps int W(lambda) c^k dlambda, k < order."""
        if not steps:
            return []
        rules = [step.quadrature() for step in steps]
        counts = [len(points) for points, _ in rules]
        points, moment = (np.concatenate([rule[i] for rule in rules]) for i in (0, 1))
        ends = [(self.levels[n], self.levels[n + 1]) for n in which]
        h = np.repeat([t.half_log_snr - s.half_log_snr for s, t in ends], counts)
        if self.clock == "t":
            lambdas = np.repeat([s.half_log_snr for s, _ in ends], counts) + points * h
            start, whole = (np.repeat(v, counts) for v in zip(*((s.t, t.t - s.t) for s, t in ends), strict=True))
            values = (self.process.time_at(torch.from_numpy(lambdas)).numpy() - start) / whole
        else:
            values = np.expm1(self.sign * h * points) / np.expm1(self.sign * h)
        first, found = np.cumsum([0, *counts[:-1]]), []
        for _ in range(self.order):
            found.append(np.add.reduceat(moment, first))
            moment = moment * values
        return np.stack(found, 1).tolist()

    def _place(self, s: Level, t: Level, at: Level) -> float:
        """Where a level is in a step, counted in the clock: 0 at s, 1 at t."""
        if self.clock == "t":
            return (at.t - s.t) / (t.t - s.t)
        back, whole = (self.sign * (v.half_log_snr - s.half_log_snr) for v in (at, t))
        return math.expm1(back) / math.expm1(whole)
