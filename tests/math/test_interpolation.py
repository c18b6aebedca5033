"""Weights of interpolating quadratures against a Vandermonde solve in 60 digits, and their exactness on polynomials."""

from __future__ import annotations

import math
import random

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdekit.errors import OptionError, ShapeError
from sdekit.math import interpolation as module
from sdekit.math.interpolation import exponential_weights, interpolation_weights, moment_weights
from sdekit.math.phi import phis
from sdekit.math.quadrature import gauss_legendre

# The catalogue asks for 2.5e-14 on five irregular nodes.
TOLERANCE = 5e-15
IRREGULAR = [0.0, -1.1, -1.9, -3.2, -4.0]
STEPS = [sign * h for h in (2.0, 0.5, 1e-1, 1e-2, 1e-4, 1e-8) for sign in (1, -1)]


def exact_weights(nodes: list[float], zeta: float) -> list[mpmath.mpf]:
    """sum_j w_j r_j^k = k! phi_{k+1}(zeta), solved in 60 digits."""
    with mpmath.workdps(60):
        n = len(nodes)
        powers = mpmath.matrix(n, n)
        moments = mpmath.matrix(n, 1)
        for k in range(n):
            moments[k] = mpmath.hyp1f1(1, k + 2, mpmath.mpf(zeta)) / (k + 1)
            for j in range(n):
                powers[k, j] = mpmath.mpf(nodes[j]) ** k
        return list(mpmath.lu_solve(powers, moments))


def worst_error(nodes: list[float], zeta: float) -> float:
    """The largest relative error of a single weight."""
    weights = exponential_weights(nodes, zeta)
    return max(float(abs((w - e) / e)) for w, e in zip(weights, exact_weights(nodes, zeta), strict=True))


@pytest.mark.parametrize("zeta", STEPS)
@pytest.mark.parametrize("n", range(1, 6))
def test_exponential_weights_on_irregular_nodes(n, zeta):
    assert worst_error(IRREGULAR[:n], zeta) < 1e-15


@pytest.mark.parametrize("n", range(1, 7))
def test_arrays_of_nodes_are_so_many_functionals(n):
    rng = np.random.default_rng(n)
    nodes = [1.0 - np.cumsum(rng.uniform(0.2, 3.0, (n, 8)), 0)[j] for j in range(n)]
    zeta = np.concatenate([rng.uniform(-9.0, 9.0, 4), rng.uniform(-0.4, 0.4, 4)])
    found = np.array(exponential_weights(nodes, zeta))
    for i in range(8):
        assert found[:, i] == pytest.approx(
            exponential_weights([float(v[i]) for v in nodes], float(zeta[i])), rel=1e-13
        )
    if n > 1:
        nodes[1] = np.where(np.arange(8) == 5, nodes[0], nodes[1])
        with pytest.raises(OptionError, match="distinct"):
            exponential_weights(nodes, zeta)


@pytest.mark.parametrize("corrector", [False, True])
def test_exponential_weights_on_random_nodes(corrector):
    """Gaps from 1e-4 to 10: nearly equal nodes lose nothing."""
    rng = random.Random(0)
    for _ in range(150):
        nodes = [1.0, 0.0] if corrector else [0.0]
        for _ in range(rng.randint(0, 4)):
            nodes.append(nodes[-1] - 10 ** rng.uniform(-4, 1))
        assert worst_error(nodes, rng.choice((1, -1)) * 10 ** rng.uniform(-8, 1)) < TOLERANCE


def test_the_comparison_refuses_naive_phi_functions(monkeypatch):
    def naive(n: int, z: float) -> list[float]:
        values = [math.exp(z)]
        for k in range(n):
            values.append((values[-1] - 1.0 / math.factorial(k)) / z)
        return values

    monkeypatch.setattr(module, "phis", naive)
    assert worst_error(IRREGULAR[:3], 1e-4) > 1e-5


def test_the_comparison_refuses_missing_factorials(monkeypatch):
    """phi_3 in place of 2 phi_3 is the known slip of third-order multistep coefficients."""
    monkeypatch.setattr(module, "_FACTORIAL", [1.0] * 21)
    assert worst_error(IRREGULAR[:3], -0.5) > 1e-2


def test_published_closed_forms():
    zeta, r, r1 = -0.7, 1.3, 0.8
    _, p1, p2, p3 = phis(3, zeta)
    two = [p1 + p2 / r, -p2 / r]
    three = [
        p1 + p2 * (1 / r + 1 / (r + r1)) + 2 * p3 / (r * (r + r1)),
        -p2 * (r + r1) / (r * r1) - 2 * p3 / (r * r1),
        p2 * r / (r1 * (r + r1)) + 2 * p3 / (r1 * (r + r1)),
    ]
    corrector = [(r * p2 + 2 * p3) / (1 + r), p1 + p2 * (1 - r) / r - 2 * p3 / r, (2 * p3 - p2) / (r * (1 + r))]
    assert exponential_weights([0.0, -r], zeta) == pytest.approx(two, rel=1e-14)
    assert exponential_weights([0.0, -r, -r - r1], zeta) == pytest.approx(three, rel=1e-14)
    assert exponential_weights([1.0, 0.0, -r], zeta) == pytest.approx(corrector, rel=1e-14)


def test_a_permutation_of_the_nodes_permutes_the_weights():
    forward = exponential_weights(IRREGULAR, -0.4)
    assert exponential_weights(IRREGULAR[::-1], -0.4)[::-1] == pytest.approx(forward, rel=1e-14)


distinct = st.lists(st.integers(-40, 10), min_size=1, max_size=6, unique=True)


@given(distinct, st.floats(-5, 5), st.integers(0, 5))
def test_interpolation_weights_are_exact_below_the_number_of_nodes(integers, point, power):
    nodes = [i / 10 for i in integers]
    values = interpolation_weights(nodes, [point], [1.0])
    interpolated = sum(v * node**power for v, node in zip(values, nodes, strict=True))
    scale = sum(abs(v * node**power) for v, node in zip(values, nodes, strict=True)) + abs(point) ** power
    if power < len(nodes):
        assert abs(interpolated - point**power) <= 1e-13 * scale
    elif power == len(nodes):  # and of that degree it misses by the product of the distances
        miss = math.prod(point - node for node in nodes)
        assert abs(point**power - interpolated - miss) <= 1e-12 * (scale + abs(miss))


def test_interpolation_weights_at_a_node_pick_it():
    weights = interpolation_weights(IRREGULAR, [-1.9], [3.0])
    assert weights.pop(2) == pytest.approx(3.0, rel=1e-15)
    assert weights == [0.0] * 4


def test_both_kinds_of_weights_agree():
    points, weights = gauss_legendre(20)
    zeta = -1.7
    kernel = [w * math.exp((1 - u) * zeta) for u, w in zip(points, weights, strict=True)]
    expected = exponential_weights(IRREGULAR, zeta)
    assert interpolation_weights(IRREGULAR, points, kernel) == pytest.approx(expected, rel=1e-14)
    for n in range(1, 6):
        moments = [math.fsum(w * u**k for u, w in zip(points, kernel, strict=True)) for k in range(n)]
        expected = exponential_weights(IRREGULAR[:n], zeta)
        assert moment_weights(IRREGULAR[:n], moments) == pytest.approx(expected, rel=1e-14)
    with pytest.raises(ShapeError, match="moments"):
        moment_weights(IRREGULAR, [1.0, 0.5])


@pytest.mark.parametrize(
    "nodes", [[], [0.0, -1.0, 0.0], [0.0, -0.0], [0.0, math.nan], [0.0, -math.inf], list(map(float, range(21)))]
)
def test_nodes_that_no_polynomial_goes_through_are_refused(nodes):
    with pytest.raises(OptionError, match="nodes"):
        exponential_weights(nodes, -1.0)
    with pytest.raises(OptionError, match="nodes"):
        interpolation_weights(nodes, [0.0], [1.0])


def test_points_and_weights_must_match():
    with pytest.raises(ShapeError, match="one for each point"):
        interpolation_weights([0.0, 1.0], [0.5, 0.6], [1.0])
