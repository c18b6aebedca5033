"""Distances of Gaussian laws against 60 digits, near and far, regular and singular."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.metrics import gaussian_kl, gaussian_w2
from sdekit.metrics.gaussian import excess

TOLERANCE = 1e-12


def root(matrix):
    values, vectors = mpmath.eigsy(matrix)
    return vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T


def bures(a: np.ndarray, b: np.ndarray):
    """tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 in 60 digits."""
    with mpmath.workdps(60):
        first, second = mpmath.matrix(a.tolist()), mpmath.matrix(b.tolist())
        half = root(first)
        product = half * second * half
        values, _ = mpmath.eigsy((product + product.T) / 2)
        trace = sum(first[i, i] + second[i, i] for i in range(len(a)))
        return trace - 2 * sum(mpmath.sqrt(max(v, 0)) for v in values)


def divergence(shift: np.ndarray, a: np.ndarray, b: np.ndarray):
    """The textbook form of KL in 60 digits."""
    with mpmath.workdps(60):
        first, second, d = (mpmath.matrix(v.tolist()) for v in (a, b, shift))
        inverse = mpmath.inverse(second)
        trace = sum((inverse * first)[i, i] for i in range(len(a)))
        log_det = mpmath.log(mpmath.det(first) / mpmath.det(second))
        return (trace - len(a) - log_det + (d.T * inverse * d)[0]) / 2


def covariance(size: int, condition: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
    matrix = (basis * condition ** -np.linspace(0, 1, size)) @ basis.T
    return 0.5 * (matrix + matrix.T)


def changed(a: np.ndarray, size: float, seed: int) -> np.ndarray:
    """A neighbour of a matrix, or another one for size 0."""
    if size == 0:
        return covariance(len(a), float(np.linalg.cond(a)), seed)
    half, noise = np.linalg.cholesky(a), np.random.default_rng(seed).normal(size=a.shape)
    matrix = a + 0.2 * size * half @ (noise + noise.T) @ half.T
    return 0.5 * (matrix + matrix.T)


CASES = [(n, c, s) for n in (2, 5) for c in (1.0, 1e3, 1e6) for s in (0.0, 1e-1, 1e-4, 1e-8, 1e-11)]


@pytest.mark.parametrize(("size", "condition", "change"), CASES)
def test_matrices_have_their_digits_however_near(size: int, condition: float, change: float):
    a = covariance(size, condition, 1)
    b = changed(a, change, 2)
    zero = np.zeros(size)
    expected = math.sqrt(float(bures(a, b)))
    assert gaussian_w2(zero, a, zero, b) == pytest.approx(expected, rel=TOLERANCE, abs=1e-15)
    assert gaussian_w2(zero, b, zero, a) == pytest.approx(expected, rel=TOLERANCE, abs=1e-15)
    shift = change * np.linspace(1, 2, size)
    assert gaussian_kl(shift, a, zero, b) == pytest.approx(
        float(divergence(shift, a, b)), rel=1e-15 * condition + 1e-12, abs=0
    )


def test_the_textbook_form_has_lost_them():
    """The mutant: traces and their difference."""
    a = covariance(5, 1e3, 1)
    b = changed(a, 1e-8, 2)
    half = np.linalg.cholesky(a)
    values = np.sqrt(np.linalg.eigvalsh(half.T @ b @ half))
    naive = math.sqrt(max(np.trace(a) + np.trace(b) - 2 * values.sum(), 0.0))
    exact = math.sqrt(float(bures(a, b)))
    assert abs(naive - exact) > 0.5 * exact


@pytest.mark.parametrize("change", [0.5, 1e-6, 1e-12])
def test_numbers_and_variances(change: float):
    variances = np.array([[0.04, 1.0, 3.0]]).repeat(2, 0)
    others = variances * (1 + change * np.arange(6).reshape(2, 3))
    means = np.zeros((2, 3)), change * np.ones((2, 3))
    with mpmath.workdps(60):
        parts = [(mpmath.sqrt(p) - mpmath.sqrt(c)) ** 2 for p, c in zip(variances.ravel(), others.ravel(), strict=True)]
        expected = mpmath.sqrt(sum(parts) + 6 * mpmath.mpf(change) ** 2)
    assert gaussian_w2(means[0], variances, means[1], others) == pytest.approx(float(expected), rel=1e-14)
    wide = [np.diag(v.ravel()) for v in (variances, others)]
    assert gaussian_w2(means[0], wide[0], means[1], others) == pytest.approx(float(expected), rel=TOLERANCE)
    shift = means[0].ravel() - means[1].ravel()
    exact = float(divergence(shift, wide[0], wide[1]))
    assert gaussian_kl(means[0], variances, means[1], others) == pytest.approx(exact, rel=1e-11)
    assert gaussian_kl(means[0], wide[0], means[1], wide[1]) == pytest.approx(exact, rel=1e-11)


def test_a_number_beside_a_matrix():
    a = covariance(4, 1e3, 3)
    near = 0.5 * np.eye(4) + 1e-9 * a
    for matrix in (a, near):
        expected = math.sqrt(float(bures(matrix, 0.5 * np.eye(4))))
        assert gaussian_w2(np.zeros(4), matrix, 0.0, 0.5) == pytest.approx(expected, rel=TOLERANCE)
        assert gaussian_w2(np.zeros(4), 0.5, np.zeros(4), torch.from_numpy(matrix)) == pytest.approx(
            expected, rel=TOLERANCE
        )
    assert gaussian_w2(1.0, 4.0, 3.0, 1.0) == math.sqrt(5.0)


def test_kl_of_one_number_is_the_formula():
    expected = 0.5 * (0.25 / 2.0 - 1 - math.log(0.25 / 2.0) + 0.49 / 2.0)
    assert gaussian_kl(0.7, 0.25, 0.0, 2.0) == pytest.approx(expected, rel=1e-14)
    assert gaussian_kl(0.0, 2.0, 0.7, 0.25) != pytest.approx(expected, rel=0.1)  # it is no distance


def test_singular_laws():
    line, other = np.outer([3.0, 4.0], [3.0, 4.0]), np.outer([4.0, -3.0], [4.0, -3.0])
    zero = np.zeros(2)
    assert gaussian_w2(zero, line, zero, 4 * line) == pytest.approx(5.0, rel=1e-12)
    assert gaussian_w2(zero, line, zero, other) == pytest.approx(math.sqrt(50), rel=1e-12)
    assert gaussian_w2(zero, np.zeros((2, 2)), zero, line) == pytest.approx(5.0, rel=1e-12)
    assert gaussian_w2(zero, line, zero, np.eye(2)) == pytest.approx(math.sqrt(25 + 2 - 10), rel=1e-12)
    assert gaussian_w2(zero, np.array([1.0, 0.0]), zero, np.array([4.0, 0.0])) == 1.0
    assert gaussian_kl(zero, line, zero, 4 * line) == pytest.approx(0.5 * (0.25 - 1 + math.log(4)), rel=1e-12)
    for first, second in ((line, other), (line, np.eye(2)), (np.eye(2), line)):
        assert gaussian_kl(zero, first, zero, second) == math.inf
    assert gaussian_kl(zero, [1.0, 0.0], zero, [2.0, 0.0]) == pytest.approx(0.5 * (0.5 - 1 + math.log(2)))
    assert gaussian_kl([0.0, 1.0], [1.0, 0.0], zero, [2.0, 0.0]) == math.inf
    assert gaussian_kl(zero, [1.0, 0.0], zero, [2.0, 1.0]) == math.inf


def test_one_law():
    a = covariance(4, 1e4, 5)
    assert gaussian_w2(np.ones(4), a, np.ones(4), a) == 0.0
    assert gaussian_kl(np.ones(4), a, np.ones(4), a) == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("r", [-0.999, -0.41, -0.39, -1e-3, -1e-9, 0.0, 1e-12, 0.39, 0.41, 7.0])
def test_excess(r: float):
    with mpmath.workdps(60):
        expected = mpmath.mpf(r) - mpmath.log1p(mpmath.mpf(r))
    assert float(excess(r)) == pytest.approx(float(expected), rel=3e-15, abs=0)
    assert excess(-1.0) == math.inf


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([0.0, 1.0], 1.0, [0.0], 1.0), ShapeError),
        (([0.0, 1.0], np.eye(3), [0.0, 1.0], 1.0), ShapeError),
        (([0.0, 1.0], [1.0, -1.0], [0.0, 1.0], 1.0), OptionError),
        (([0.0, 1.0], [[1.0, 0.5], [0.0, 1.0]], [0.0, 1.0], 1.0), OptionError),
        (([0.0, 1.0], [[1.0, 2.0], [2.0, 1.0]], [0.0, 1.0], 1.0), OptionError),
        (([0.0, math.nan], 1.0, [0.0, 1.0], 1.0), OptionError),
        ((["a"], 1.0, [0.0], 1.0), InterfaceError),
    ],
)
def test_what_is_refused(arguments: tuple, error: type[Exception]):
    for distance in (gaussian_w2, gaussian_kl):
        with pytest.raises(error):
            distance(*arguments)
