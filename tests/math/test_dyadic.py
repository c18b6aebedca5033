"""The tree of a path: the weights of its nodes give the exact law of B and its integrals, in floating point.

B and its iterated integrals at x are the integrals of (x - u)^k / k! against white noise, so their covariances are
integrals of polynomials. Weights that are wrong in one sign or by one part in a hundred are the mutants.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdekit.math import dyadic, wavelets
from sdekit.math.dyadic import LARGEST, LEVELS, branch, cells, chain, in_one_leaf, locate, node

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
PLACES = [0.1, 0.25, 0.3, 0.5, 0.75, 0.75 + 1e-5, 0.9, 2.0**-19, 2.0**-21, 1 - 2.0**-22]
CLOSE = [0.5 + k / 2**LEVELS for k in (0, 0.3, 1.3, 2.6, 3, 4.5)]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def covariance(x: float, y: float, count: int) -> np.ndarray:
    """Of (B, I, J) at x with those at y."""
    end = min(x, y)
    u = end * (NODES + 1) / 2
    powers = [[np.maximum(v - u, 0) ** k / math.factorial(k) for k in range(count)] for v in (x, y)]
    return np.array([[(end / 2 * WEIGHTS * p * q).sum() for q in powers[1]] for p in powers[0]])


def error(places: list[float], count: int) -> float:
    """The largest difference of a covariance that the weights give from the exact one, in a unit octave."""
    points = []
    for x in places:
        nodes, weights = branch(tensor(1 + x), torch.zeros(1, dtype=torch.int64), count)
        points.append((x, dict(zip(nodes[0].tolist(), weights[0].numpy(), strict=True))))
    worst = 0.0
    for (x, first), (y, second) in itertools.combinations_with_replacement(points, 2):
        found = sum((first[k].T @ second[k] for k in first if k in second), np.zeros((count, count)))
        worst = max(worst, float(np.abs(found - covariance(x, y, count)).max()))
    return worst


@pytest.mark.parametrize("count", [2, 3])
@given(places=st.lists(st.integers(1, 10**9 - 1), min_size=2, max_size=4))
def test_weights_give_the_exact_law(count, places):
    exact = [p / 10**9 for p in places]
    if len({math.floor(x * 2**LEVELS) for x in exact}) == len(exact):
        assert error(exact, count) < 1e-14


@pytest.mark.parametrize("count", [2, 3])
def test_weights_give_the_exact_law_at_chosen_places(count):
    assert error(PLACES, count) < 1e-14
    assert error(CLOSE, count) < 1e-14


def scaled(name: str, factor: Any) -> Any:
    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(wavelets, name)
        monkeypatch.setattr(dyadic, name, lambda x, count: right(x, count) * torch.tensor(factor(count)))

    return mutate


MUTANTS = {
    "a bridge that forgets its last area": scaled("halving", lambda n: [[1.0]] * (n - 1) + [[0.0]]),
    "the sign of an integral": scaled("halving", lambda n: [[1.0] * (n - 1) + [-1.0]] * n),
    "splits too wide": scaled("splitting", lambda n: [[1.01]]),
    "an octave too wide": scaled("legendre", lambda n: [[1.01]]),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_exact_law_rejects_wrong_weights(mutant, count, monkeypatch):
    MUTANTS[mutant](monkeypatch)
    assert max(error(PLACES, count), 2.0**LEVELS * error(CLOSE, count)) > 1e-4


def exact(x: Fraction, y: Fraction, k: int, n: int) -> Fraction:
    """Covariance of the integrals k at x and n at y."""
    total = Fraction(0)
    for a, b in itertools.product(range(k + 1), range(n + 1)):
        c = math.comb(k, a) * x ** (k - a) * (-1) ** a * math.comb(n, b) * y ** (n - b) * (-1) ** b
        total += c * min(x, y) ** (a + b + 1) / (a + b + 1)
    return total / (math.factorial(k) * math.factorial(n))


@pytest.mark.parametrize("p", [1e-9, 1e-3, 0.4999, 0.5, 0.7, 1 - 1e-3, 1 - 1e-6])
@pytest.mark.parametrize("count", [2, 3])
def test_splits_near_the_ends_are_exact_relative_to_their_size(count, p):
    """Of what is free given the whole near 1, B has the size (1 - p)^(1/2) and the next integral is 1 - p smaller."""
    weights, one = wavelets.splitting(tensor(p), count)[0].numpy(), Fraction(1)
    pairs = ((Fraction(p), Fraction(p)), (Fraction(p), one), (one, one))
    left = reduced(*([[exact(x, y, k, n) for n in range(count)] for k in range(count)] for x, y in pairs))
    scale = np.sqrt(np.outer(np.diag(left), np.diag(left)))
    assert float((np.abs(weights.T @ weights - left) / scale).max()) < 1e-14 / (1 - p) ** (count - 1)


def reduced(own: Any, cross: Any, whole: Any) -> np.ndarray:
    """own - cross whole^-1 cross^T, by elimination in rationals."""
    n = len(own)
    rows = [list(whole[i]) + [cross[k][i] for k in range(n)] for i in range(n)]
    for i in range(n):
        pivot = rows[i][i]
        rows[i] = [v / pivot for v in rows[i]]
        for j in range(n):
            if j != i:
                rows[j] = [v - rows[j][i] * w for v, w in zip(rows[j], rows[i], strict=True)]
    return np.array(
        [[float(own[k][m] - sum(cross[k][i] * rows[i][n + m] for i in range(n))) for m in range(n)] for k in range(n)]
    )


@pytest.mark.parametrize("count", [2, 3])
def test_a_chain_of_cells_has_the_law_of_its_length(count):
    first, last = torch.tensor([225, 226, 230]), torch.tensor([233, 233, 231])
    nodes, weights = chain(first, last, torch.zeros(3, dtype=torch.int64), 8, count)
    start = cells(torch.device("cpu")).start
    for row in range(3):
        w = weights[row].numpy()
        h = float(start[last[row]] - start[first[row]])
        units = np.array([h ** (k + 0.5) for k in range(count)])
        found = np.einsum("nzk,nzl->kl", w, w) / np.outer(units, units)
        np.testing.assert_allclose(found, covariance(1, 1, count), atol=1e-14)
        used = int(last[row] - first[row])
        assert nodes[row, :used].tolist() == [c << (LEVELS + 1) for c in range(int(first[row]), int(last[row]))]
        assert not w[used:].any()


def test_nodes_have_numbers_of_their_own():
    """Below 2^30 - 2^26, so that streams 252 to 255 of the generator stay free."""
    last = int(locate(tensor(math.nextafter(LARGEST, 0)))[0])
    chosen = [
        (c, s, h) for c in (0, 1, 127, 300, last) for s in (0, 1) for h in (0, 1, 2, 2**LEVELS, 2 ** (LEVELS + 1) - 1)
    ]
    numbers = [int(node(torch.tensor(c), torch.tensor(s), h)) for c, s, h in chosen]
    assert len(set(numbers)) == len(chosen) and max(numbers) < 2**30 - 2**26


@pytest.mark.parametrize(
    "time", [0.0, 5e-324, 2.0**-224, 0.1, 0.5, 0.75, 1.0, math.pi, 1e9, math.nextafter(LARGEST, 0)]
)
def test_places_in_cells_are_exact(time):
    table = cells(torch.device("cpu"))
    cell, place = (v[0] for v in locate(tensor(time)))
    assert 0 <= place < 1 and float(table.start[cell] + place * table.width[cell]) == time
    assert cell == 0 or table.start[cell] == table.start[cell - 1] + table.width[cell - 1]


def test_what_a_leaf_is():
    width = 2.0**-LEVELS / 2
    a, b = (
        tensor(0.5, 0.5 + width / 4, 0.5 + width / 4, 0.25),
        tensor(0.5 + width / 2, 0.5 + width / 2, 0.5 + width, 0.5),
    )
    assert in_one_leaf(a, b).tolist() == [False, True, False, False]
