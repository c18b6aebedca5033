"""Weights that integrate or evaluate the polynomial through given nodes, on the host in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sdekit.errors import OptionError, ShapeError
from sdekit.math.phi import MAX_PHI, phi_arrays, phis

__all__ = ["exponential_moments", "exponential_weights", "interpolation_weights", "moment_weights"]

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
    return _weights(nodes, exponential_moments(len(nodes), zeta))


def exponential_moments(count: int, zeta: Any) -> list[Any]:
    """int_0^1 e^((1 - u) zeta) u^k du = k! phi_{k+1}(zeta) for k < count.

    Args:
        zeta: a float, or an array, for which each moment is one.
    """
    values = phi_arrays(count, zeta) if isinstance(zeta, np.ndarray) else phis(count, zeta)
    return [factorial * value for factorial, value in zip(_FACTORIAL, values[1:], strict=False)]


def moment_weights(nodes: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    """Weights w_j with sum_j w_j q(r_j) = I(q) for deg q < len(nodes), from moments I(u^k), k < len(nodes), of a
    functional I: an integral over [0, 1] with a weight of one sign, and nodes of 0 and below, lose no digit.

    Nodes and moments are floats, or arrays of one shape for many functionals at once; so are the weights then.

    Raises:
        OptionError: no nodes, more than MAX_PHI, two equal ones or one that is not finite.
        ShapeError: fewer moments than nodes.
    """
    _check_nodes(nodes)
    if len(moments) < len(nodes):
        raise ShapeError(
            "moments", got=f"{len(moments)}", expected=f"{len(nodes)}, one for each node", fix="Pass as many."
        )
    return _weights(nodes, moments[: len(nodes)])


def _weights(nodes: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    if len(nodes) <= len(_FEW):
        return _FEW[len(nodes) - 1](*nodes, *moments)
    weights = []
    for j, center in enumerate(nodes):
        # moments holds I(u^k prod_{i < j} (u - r_i)); the loop brings in the nodes after j
        tail, scale = moments, 1.0
        for i, node in enumerate(nodes):
            if i != j:
                scale *= center - node
            if i > j:
                tail = [above - node * value for value, above in pairwise(tail)]
        weights.append(tail[0] / scale)
        moments = [above - center * value for value, above in pairwise(moments)]
    return weights


def _one(a: Any, m: Any) -> list[Any]:
    return [m]


def _two(a: Any, b: Any, m: Any, m1: Any) -> list[Any]:
    d = a - b
    return [(m1 - b * m) / d, (a * m - m1) / d]


def _three(a: Any, b: Any, c: Any, m: Any, m1: Any, m2: Any) -> list[Any]:
    ab, ac, bc = a - b, a - c, b - c
    return [
        (m2 - (b + c) * m1 + b * c * m) / (ab * ac),
        ((a + c) * m1 - m2 - a * c * m) / (ab * bc),
        (m2 - (a + b) * m1 + a * b * m) / (ac * bc),
    ]


def _four(a: Any, b: Any, c: Any, d: Any, m: Any, m1: Any, m2: Any, m3: Any) -> list[Any]:
    ab, ac, ad, bc, bd, cd = a - b, a - c, a - d, b - c, b - d, c - d
    return [
        (m3 - (b + c + d) * m2 + (b * c + (b + c) * d) * m1 - b * c * d * m) / (ab * ac * ad),
        (m3 - (a + c + d) * m2 + (a * c + (a + c) * d) * m1 - a * c * d * m) / (-ab * bc * bd),
        (m3 - (a + b + d) * m2 + (a * b + (a + b) * d) * m1 - a * b * d * m) / (ac * bc * cd),
        (m3 - (a + b + c) * m2 + (a * b + (a + b) * c) * m1 - a * b * c * m) / (-ad * bd * cd),
    ]


_FEW = (_one, _two, _three, _four)
"""The same for few nodes and as many moments, written out: most of the time of planning goes here."""


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
    sums, right = [float(left[-1].sum())], factors[-1]
    for j in range(len(nodes) - 2, -1, -1):
        sums.append(float(left[j] @ right))
        if j:
            right = right * factors[j]
    sums.reverse()
    scales = [math.prod([center - node for node in nodes if node != center]) for center in nodes]
    return [total / scale for total, scale in zip(sums, scales, strict=True)]


def _check_nodes(nodes: Sequence[Any]) -> None:
    """Refuse what no interpolation polynomial goes through."""
    if not 1 <= len(nodes) <= MAX_PHI:
        raise OptionError("nodes", got=f"{len(nodes)} nodes", expected=f"1 to {MAX_PHI}", fix="Use a shorter history.")
    if isinstance(nodes[-1], np.ndarray):
        ordered = np.sort(nodes, axis=0)
        right = bool((ordered[1:] > ordered[:-1]).all() and np.isfinite(ordered).all())
    else:
        right = len(set(nodes)) == len(nodes) and all(map(math.isfinite, nodes))
    if not right:
        raise OptionError(
            "nodes",
            got=", ".join(f"{node:.6g}" if np.ndim(node) == 0 else "an array" for node in nodes),
            expected="finite, distinct nodes",
            fix="Drop repeated times from the history.",
        )
