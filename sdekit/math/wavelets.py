"""By how much independent normals move a Brownian path: integrals of Legendre polynomials and of Alpert's wavelets.

White noise on the unit interval is a sum of an orthonormal basis with independent normal coefficients z. Here the basis
begins with the first `count` Legendre polynomials, 2 or 3. Halving the interval adds `count` functions that are
polynomials of a degree below `count` on each half and orthogonal to those on the whole (Alpert, SIAM J. Math. Anal. 24,
1993); each half is halved in turn. What is integrated is

    B(u),    I(u) = int_0^u B,    J(u) = int_0^u I    (the last for count = 3),

and each function below gives the weight of every z in every one of these: (..., z, integral), float64. A wavelet adds
nothing to them at the end of its interval, so that whatever is halved keeps its B, I and J.

Only operations that IEEE 754 fixes are used, on tensors of any shape: bits depend on no batch and no device.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from sdekit.math.philox import square_root

__all__ = ["halving", "legendre", "splitting"]

_Polynomial = list[Fraction]

# (factor, coefficients) of the orthonormal polynomials on [0, 1]: z_2 has the sign of K.
_LEGENDRE = ((1.0, (1,)), (math.sqrt(3.0), (1, -2)), (math.sqrt(5.0), (1, -6, 6)))
# (factor, coefficients on the right half in its own u, sign of the mirror image that is the left half) by count.
_ALPERT = {
    2: ((math.sqrt(3.0), (-1, 2), 1), (1.0, (-2, 3), -1)),
    3: (
        (1 / 3, (1, -24, 30), -1),
        (math.sqrt(3.0) / 2, (3, -16, 15), 1),
        (math.sqrt(5.0) / 3, (4, -15, 12), -1),
    ),
}


def legendre(x: Tensor, count: int) -> Tensor:
    """For the polynomials of a unit interval, at places x in it: (*x.shape, count, count)."""
    return _evaluate(_legendre_table(count, x.device), x)


def halving(x: Tensor, count: int) -> Tensor:
    """For the wavelets that halve a unit interval, at places x in [0, 1): (*x.shape, count, count)."""
    right = x >= 0.5
    return _evaluate(_halving_table(count, x.device)[right.long()], 2 * x - right.double())


def splitting(p: Tensor, count: int) -> Tensor:
    """The same for the place p in [0, 1) where a unit interval is split, at that place; zeros for p = 0.

    Any functions will do that are orthogonal to the polynomials of the whole and polynomials on each part: these make
    the factor of Cholesky of what the coefficients of the smaller part have beyond the whole's.
    """
    inner = torch.where(p == 0, torch.full_like(p, 0.5), p)
    small = inner < 0.5
    factor = _beyond(_restriction(torch.minimum(inner, 1 - inner), count))
    moves = torch.where(small[..., None, None], factor, _opposite(inner, _mirrored(factor)))
    root = square_root(inner)
    ends = legendre(torch.ones((), dtype=torch.float64, device=p.device), count)
    # the coefficients of the left part are those of intervals of length p
    scale = torch.stack([root, root * inner, root * inner * inner][:count], -1)
    weights = sum(moves[..., i, :, None] * ends[i] for i in range(count)) * scale[..., None, :]
    return torch.where((p == 0)[..., None, None], torch.zeros_like(weights), weights)


def _evaluate(coefficients: Tensor, x: Tensor) -> Tensor:
    """Polynomials of coefficients (..., degree + 1), highest first, at x."""
    total, at = coefficients[..., 0], x[..., None, None]
    for k in range(1, coefficients.shape[-1]):
        total = total * at + coefficients[..., k]
    return total


@lru_cache
def _legendre_table(count: int, device: torch.device) -> Tensor:
    """(count, count, degree + 1)."""
    rows = [(factor, _integrals([Fraction(c) for c in p], count)) for factor, p in _LEGENDRE[:count]]
    return torch.tensor([_padded(row, factor, 2 * count) for factor, row in rows], dtype=torch.float64, device=device)


@lru_cache
def _halving_table(count: int, device: torch.device) -> Tensor:
    """(2, count, count, degree + 1): for the left and the right half, in the place in that half."""
    table: list[list[list[list[float]]]] = [[], []]
    for factor, p, sign in _ALPERT[count]:
        right = [Fraction(c) for c in p]
        left = [sign * c for c in _reflected(right)]
        before = [Fraction(0)] * count
        for half, density in enumerate((left, right)):
            row = _integrals(density, count, before, Fraction(1, 2))
            table[half].append(_padded(row, factor, 2 * count))
            before = [sum(q, Fraction(0)) for q in row]
    return torch.tensor(table, dtype=torch.float64, device=device)


def _integrals(
    density: _Polynomial, count: int, before: list[Fraction] | None = None, width: Fraction = Fraction(1)
) -> list[_Polynomial]:
    """What a density adds to B, I, J over an interval of a width, in the place in it, from what they were before."""
    rows: list[_Polynomial] = []
    for k in range(count):
        inner = rows[-1] if rows else density
        first = before[k] if before else Fraction(0)
        rows.append([first, *(width * c / (n + 1) for n, c in enumerate(inner))])
    return rows


def _reflected(p: _Polynomial) -> _Polynomial:
    """p(1 - x)."""
    return [
        sum((c * math.comb(n, k) * (-1) ** k for n, c in enumerate(p) if n >= k), Fraction(0)) for k in range(len(p))
    ]


def _padded(rows: list[_Polynomial], factor: float, length: int) -> list[list[float]]:
    return [[0.0] * (length - len(p)) + [factor * float(c) for c in reversed(p)] for p in rows]


_Matrix = list[list[Tensor]]


def _restriction(p: Tensor, count: int) -> _Matrix:
    """m[j][i]: the polynomials j of [0, 1] on [0, p], in the orthonormal polynomials i of [0, p]. Lower triangular."""
    q, root, zero = 1 - p, square_root(p), torch.zeros_like(p)
    rows = [
        [root, zero, zero],
        [math.sqrt(3.0) * q * root, p * root, zero],
        [
            math.sqrt(5.0) * q * (q - p) * root,
            math.sqrt(15.0) * p * q * root,
            p * p * root,
        ],
    ]
    return [row[:count] for row in rows[:count]]


def _mirrored(m: Tensor) -> Tensor:
    """From the beginning [0, p] of the interval to its end [1 - p, 1]."""
    sign = torch.ones_like(m[..., :1, 0]) - 2 * (torch.arange(m.shape[-1], device=m.device) % 2)
    return m * (sign[..., :, None] * sign[..., None, :])


def _beyond(m: _Matrix) -> Tensor:
    """The factor of Cholesky of 1 - m^T m: what coefficients m^T c + factor z have beyond the whole's c. (..., i, z)"""
    n = len(m)
    factor = [[torch.zeros_like(m[0][0]) for _ in range(n)] for _ in range(n)]
    for i in range(n):
        for k in range(i + 1):
            rest = torch.full_like(m[0][0], float(i == k))
            for j in range(n):
                rest = rest - m[j][i] * m[j][k]
            for r in range(k):
                rest = rest - factor[i][r] * factor[k][r]
            factor[i][k] = square_root(rest) if i == k else rest / factor[k][k]
    return torch.stack([torch.stack(row, -1) for row in factor], -2)


def _opposite(p: Tensor, factor: Tensor) -> Tensor:
    """The coefficients x on [0, p] that go with factor z beyond the whole on [p, 1]: left x + right factor z = 0."""
    n = factor.shape[-1]
    left, right = _restriction(p, n), _restriction(1 - p, n)
    found: list[Tensor] = []
    for j in range(n):
        rest = torch.zeros_like(factor[..., 0, :])
        for i in range(j + 1):
            sign = 1 if (i + j) % 2 else -1  # mirrored, and brought to the other side
            rest = rest + sign * right[j][i][..., None] * factor[..., i, :]
        for i in range(j):
            rest = rest - left[j][i][..., None] * found[i]
        found.append(rest / left[j][j][..., None])
    return torch.stack(found, -2)
