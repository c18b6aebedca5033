"""Weights that integrate or evaluate the polynomial through given nodes, on the host in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sdekit.errors import OptionError, ShapeError
from sdekit.math.phi import MAX_PHI, phis

__all__ = ["exponential_weights", "interpolation_weights"]

_FACTORIAL = [float(math.factorial(k)) for k in range(MAX_PHI + 1)]


def exponential_weights(nodes: Sequence[float], zeta: float) -> list[float]:
    """Weights w_j of the exponential Adams step: sum_j w_j q(r_j) = int_0^1 e^((1 - u) zeta) q(u) du for deg q <
    len(nodes).

    So they solve sum_j w_j r_j^k = k! phi_{k+1}(zeta), k < len(nodes). Here w_j is the integral of the Lagrange
    polynomial l_j: each factor u - r_i turns the moments m_k into m_{k+1} - r_i m_k. For nodes in the past all these
    terms have one sign, so that no digit is lost, however close or far the nodes are.

    Args:
        nodes: r_j = (lambda_j - lambda_s) / h, distinct: 0 is the current value, below 0 the past, 1 a corrector's
            new value.
        zeta: the exponent over the step, for example -h with data prediction and h with noise prediction.

    Raises:
        OptionError: no nodes, more than MAX_PHI, two equal ones or one that is not finite.
    """
    _check_nodes(nodes)
    n = len(nodes)
    values = phis(n, zeta)
    moments = [factorial * value for factorial, value in zip(_FACTORIAL, values[1:], strict=False)]
    weights = []
    for j, center in enumerate(nodes):
        # moments holds int e^((1 - u) zeta) u^k prod_{i < j} (u - r_i) du; the loop brings in the nodes after j
        tail, scale = moments, 1.0
        for i, node in enumerate(nodes):
            if i != j:
                scale *= center - node
            if i > j:
                tail = [above - node * value for value, above in pairwise(tail)]
        weights.append(tail[0] / scale)
        moments = [above - center * value for value, above in pairwise(moments)]
    return weights


def interpolation_weights(
    nodes: Sequence[float], points: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray
) -> list[float]:
    """Weights v_j = sum_q weights_q l_j(points_q), with l_j the Lagrange basis polynomials on `nodes`.

    So sum_j v_j f(nodes_j) is the quadrature sum_q weights_q p(points_q) of the polynomial p through (nodes_j,
    f(nodes_j)). Each l_j(x) is formed as a product, which is accurate to a few units in the last place also for x at
    or near a node.

    Args:
        nodes: distinct, in any order, at least one.
        points, weights: the quadrature; equally many.

    Raises:
        OptionError: no nodes, two equal ones or one that is not finite.
        ShapeError: points and weights differ in number.
    """
    _check_nodes(nodes)
    if len(points) != len(weights):
        raise ShapeError(
            "weights", got=f"{len(weights)} weights", expected=f"{len(points)}, one for each point", fix="Pass as many."
        )
    # prod_{i != j} (point - r_i) for every j: products from the left times products from the right
    factors = np.asarray(points, dtype=np.float64) - np.array(nodes, dtype=np.float64)[:, None]
    left = [np.asarray(weights, dtype=np.float64)]
    for factor in factors[:-1]:
        left.append(left[-1] * factor)
    sums, right = [], np.ones(len(points))
    for product, factor in zip(reversed(left), reversed(factors), strict=True):
        sums.append(float(product @ right))
        right = right * factor
    sums.reverse()
    scales = [math.prod([center - node for node in nodes if node != center]) for center in nodes]
    return [total / scale for total, scale in zip(sums, scales, strict=True)]


def _check_nodes(nodes: Sequence[float]) -> None:
    """Refuse what no interpolation polynomial goes through."""
    if not 1 <= len(nodes) <= MAX_PHI:
        raise OptionError("nodes", got=f"{len(nodes)} nodes", expected=f"1 to {MAX_PHI}", fix="Use a shorter history.")
    if len(set(nodes)) < len(nodes) or not all(map(math.isfinite, nodes)):
        raise OptionError(
            "nodes",
            got=repr(list(nodes)),
            expected="finite, distinct nodes",
            fix="Drop repeated times from the history.",
        )
