"""Gauss quadrature rules, correctly rounded to float64."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

import numpy as np

from sdekit.errors import OptionError

__all__ = ["MAX_POINTS", "gauss_hermite", "gauss_legendre"]

MAX_POINTS = 256
"""The largest number of points of a rule."""

Rule = tuple[tuple[float, ...], tuple[float, ...]]


@lru_cache(maxsize=64)
def gauss_legendre(n: int) -> Rule:
    """(nodes, weights) with sum_i weights_i q(nodes_i) = int_0^1 q(u) du for every polynomial q of degree < 2n.

    The nodes are ascending. Raises OptionError unless 1 <= n <= MAX_POINTS.
    """
    nodes, weights = _symmetric_rule(n, lambda k: Decimal(k * k) / (4 * k * k - 1))
    return tuple(float((1 + x) / 2) for x in nodes), tuple(float(w) for w in weights)


@lru_cache(maxsize=64)
def gauss_hermite(n: int) -> Rule:
    """(nodes, weights) with sum_i weights_i q(nodes_i) = E q(Z), Z ~ N(0, 1), for every polynomial q of degree < 2n.

    The nodes are ascending. Raises OptionError unless 1 <= n <= MAX_POINTS.
    """
    nodes, weights = _symmetric_rule(n, Decimal)
    return tuple(map(float, nodes)), tuple(map(float, weights))


def _symmetric_rule(n: int, beta: Callable[[int], Decimal]) -> tuple[list[Decimal], list[Decimal]]:
    """The n-point rule of the even probability density whose monic polynomials are p_{k+1} = x p_k - beta(k) p_{k-1}.

    The eigenvalues of the Jacobi matrix (Golub and Welsch) start a Newton iteration in 50 digits: 1e-13 squared twice
    is 1e-52. Then w = beta(1) ... beta(n - 1) / (p_n'(x) p_{n-1}(x)).
    """
    if not 1 <= n <= MAX_POINTS:
        raise OptionError("n", got=repr(n), expected=f"1 <= n <= {MAX_POINTS}", fix="Use fewer points.")
    with decimal.localcontext(decimal.Context(prec=50, Emin=-999999, Emax=999999)):
        betas = [beta(k) for k in range(1, n)]
        side = np.sqrt(np.array([float(b) for b in betas]))
        starts = np.linalg.eigvalsh(np.diag(side, 1) + np.diag(side, -1))
        product = Decimal(1)
        for b in betas:
            product *= b
        nodes, weights = [], []
        for start in starts[n // 2 :]:  # the middle one, if any, and those above 0
            x = Decimal(float(start)) if nodes or n % 2 == 0 else Decimal(0)
            for _ in range(3):
                value, slope, below = _evaluate(x, betas)
                x -= value / slope
            _, slope, below = _evaluate(x, betas)
            nodes.append(x)
            weights.append(product / (slope * below))
        half = n // 2
        mirrored = [-x for x in reversed(nodes[n - 2 * half :])]
        return mirrored + nodes, list(reversed(weights[n - 2 * half :])) + weights


def _evaluate(x: Decimal, betas: list[Decimal]) -> tuple[Decimal, Decimal, Decimal]:
    """p_n(x), p_n'(x), p_{n-1}(x) by the three-term recurrence and its derivative."""
    below, value, slope_below, slope = Decimal(1), x, Decimal(0), Decimal(1)
    for b in betas:
        below, value, slope_below, slope = value, x * value - b * below, slope, value + x * slope - b * slope_below
    return value, slope, below
