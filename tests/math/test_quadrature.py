"""Gauss rules: correctly rounded, exact up to degree 2n - 1 and no further."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from sdekit.errors import OptionError
from sdekit.math.quadrature import MAX_POINTS, gauss_hermite, gauss_legendre


def integral(rule, degree: int) -> Fraction:
    """The rule's value for u^degree, without rounding."""
    return sum(Fraction(w) * Fraction(x) ** degree for x, w in zip(*rule, strict=True))


def double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_legendre_is_exact_to_degree_2n_minus_1(n):
    rule = gauss_legendre(n)
    for degree in range(2 * n):
        assert abs(integral(rule, degree) * (degree + 1) - 1) < Fraction(1, 10**15)
    # beyond it, the error is that of the rule: n!^4 / ((2n + 1) (2n)!^2), the square norm of the monic polynomial
    gap = Fraction(math.factorial(n) ** 4, (2 * n + 1) * math.factorial(2 * n) ** 2)
    assert abs(Fraction(1, 2 * n + 1) - integral(rule, 2 * n) - gap) < Fraction(1, 10**16)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_hermite_is_exact_to_degree_2n_minus_1(n):
    rule = gauss_hermite(n)
    for degree in range(2 * n):
        moment = double_factorial(degree - 1) if degree % 2 == 0 else 0
        scale = double_factorial(max(degree - 1, 1)) if degree % 2 == 0 else 1
        assert abs(integral(rule, degree) - moment) <= Fraction(2 * degree + 2, 10**15) * scale
    # E He_n(Z)^2 = n!, which the rule takes for 0
    assert abs(double_factorial(2 * n - 1) - integral(rule, 2 * n) - math.factorial(n)) < Fraction(
        (4 * n + 2) * double_factorial(2 * n - 1), 10**15
    )


@pytest.mark.parametrize("n", [1, 2, 5, 16, 33])
def test_values_are_the_nearest_doubles(n):
    with mpmath.workdps(60):
        for x, w in zip(*gauss_legendre(n), strict=True):
            root = mpmath.findroot(lambda y: mpmath.legendre(n, 2 * y - 1), mpmath.mpf(x), solver="secant")
            rest = 1 - (2 * root - 1) ** 2
            slope = n * mpmath.legendre(n - 1, 2 * root - 1) / rest  # P_n' at a root of P_n
            assert float(root) == x
            assert float(1 / (rest * slope**2)) == w


@pytest.mark.parametrize("n", [1, 2, 5, 16, 33])
def test_numpy_agrees(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    np.testing.assert_allclose(gauss_legendre(n)[0], (1 + nodes) / 2, atol=2e-15)
    np.testing.assert_allclose(gauss_legendre(n)[1], weights / 2, atol=2e-15)
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    np.testing.assert_allclose(gauss_hermite(n)[0], nodes, atol=5e-14)
    np.testing.assert_allclose(gauss_hermite(n)[1], weights / weights.sum(), atol=2e-15)


@pytest.mark.parametrize("rule", [gauss_legendre, gauss_hermite])
def test_shape_of_a_rule(rule):
    for n in (1, 2, 9, 64):
        nodes, weights = rule(n)
        assert len(nodes) == len(weights) == n
        assert list(nodes) == sorted(nodes)
        assert min(weights) > 0
        assert weights == weights[::-1]
    assert all(-a == b for a, b in zip(gauss_hermite(9)[0], gauss_hermite(9)[0][::-1], strict=True))
    assert rule(9) is rule(9)


@pytest.mark.parametrize("rule", [gauss_legendre, gauss_hermite])
@pytest.mark.parametrize("n", [0, -1, MAX_POINTS + 1])
def test_the_number_of_points_is_checked(rule, n):
    with pytest.raises(OptionError, match="points"):
        rule(n)
