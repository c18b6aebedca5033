"""Embedded pairs: order conditions over rooted trees, SciPy's numbers, and what a pair refuses."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate

import sdekit
from sdekit.errors import OptionError
from sdekit.solvers import Pair, embedded

PAIRS = {
    "bosh3": (embedded.BOGACKI_SHAMPINE, 2),
    "rk45": (embedded.DORMAND_PRINCE, 4),
    "rk45, Shampine's weights": (embedded.DORMAND_PRINCE_SHAMPINE, 4),
    "tsit5": (embedded.TSITOURAS, 4),
    "dop853": (embedded.DOP853_PAIR, 5),
}
COUNTS = [1, 1, 2, 4, 9, 20, 48, 115]  # rooted trees with 1 to 8 vertices


@functools.cache
def trees(size: int) -> list[tuple]:
    """Rooted trees: a tree is the sorted tuple of the trees that hang on its root."""
    if size == 1:
        return [()]
    found = set()
    for parts in partitions(size - 1):
        for children in itertools.product(*(trees(n) for n in parts)):
            found.add(tuple(sorted(children)))
    return sorted(found)


def partitions(n: int, largest: int | None = None):
    if n == 0:
        yield ()
    for first in range(min(n, largest or n), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def size(tree: tuple) -> int:
    return 1 + sum(map(size, tree))


def density(tree: tuple) -> int:
    return size(tree) * math.prod(map(density, tree))


def stages(tree: tuple, a: np.ndarray) -> np.ndarray:
    """The elementary weight of each stage, before b."""
    result = np.ones(len(a))
    for child in tree:
        result = result * (a @ stages(child, a))
    return result


def residuals(pair: Pair, weights: np.ndarray, order: int) -> dict[int, float]:
    """By order, the largest |sum b_i phi_i(tree) - 1 / gamma(tree)|."""
    n = len(weights)
    a = np.zeros((n, n))
    for i, row in enumerate([*pair.tableau.a, pair.tableau.b][:n]):
        a[i, : len(row)] = row
    return {
        q: max(abs(float(weights @ stages(t, a)) - float(Fraction(1, density(t)))) for t in trees(q))
        for q in range(1, order + 1)
    }


def with_end(pair: Pair) -> np.ndarray:
    b = np.array(pair.tableau.b)
    return np.append(b, 0.0) if pair.first_same_as_last else b


def test_trees_are_all_there():
    assert [len(trees(n)) for n in range(1, 9)] == COUNTS


@pytest.mark.parametrize("name", PAIRS)
def test_the_method_has_its_order(name: str):
    pair, _ = PAIRS[name]
    found = residuals(pair, with_end(pair), pair.tableau.order + (pair.tableau.order < 8))
    assert all(r < 2e-14 for q, r in found.items() if q <= pair.tableau.order), found
    assert pair.tableau.order == 8 or found[pair.tableau.order + 1] > 1e-6


@pytest.mark.parametrize("name", PAIRS)
def test_the_embedded_method_has_its_order(name: str):
    """b - e; for dop853, whose E5 is a difference of orders 8 and 5."""
    pair, order = PAIRS[name]
    found = residuals(pair, with_end(pair) - np.array(pair.weights[0]), order + 1)
    assert all(r < 2e-13 for q, r in found.items() if q <= order), found
    assert found[order + 1] > 1e-6


def test_the_second_estimate_of_dop853_is_of_order_three():
    pair = embedded.DOP853_PAIR
    found = residuals(pair, with_end(pair) - np.array(pair.weights[1]), 4)
    assert all(found[q] < 1e-13 for q in (1, 2, 3)) and found[4] > 1e-6


@pytest.mark.parametrize("weight", range(7))
def test_a_changed_weight_shows(weight: int):
    """The mutant: one weight of the estimate off in its third digit, another put right so that the sum stays zero."""
    pair, order = PAIRS["rk45"]
    row = np.array(pair.weights[0])
    row[weight] += 1e-3
    row[(weight + 1) % 7] -= 1e-3
    assert max(residuals(pair, with_end(pair) - row, order).values()) > 1e-5


@pytest.mark.parametrize(
    ("name", "theirs"), [("bosh3", integrate.RK23), ("rk45", integrate.RK45), ("dop853", integrate.DOP853)]
)
def test_numbers_are_those_of_scipy(name: str, theirs: type):
    pair = PAIRS[name][0]
    s = pair.tableau.stages
    a = np.array([[*row, *[0.0] * (s - len(row))] for row in pair.tableau.a])
    used = min(s, theirs.A.shape[1])
    assert np.abs(a[:, :used] - theirs.A[:s, :used]).max() < 1e-15
    assert np.abs(np.array(pair.tableau.b) - theirs.B[:s]).max() < 1e-15
    if name == "dop853":
        assert np.array_equal(pair.weights, [theirs.E5[:s], theirs.E3[:s]])
    else:
        assert np.abs(np.abs(pair.weights[0]) - np.abs(theirs.E)).max() < 1e-15


def test_error_weights_are_named():
    own, other = (sdekit.solvers.get("rk45", error_weights=w).pair for w in ("dormand_prince", "shampine"))
    assert own.tableau == other.tableau and own.weights != other.weights
    assert own.weights[0][0] == pytest.approx(35 / 384 - 5179 / 57600)
    assert other.weights[0][0] == pytest.approx(35 / 384 - 1951 / 21600)
    with pytest.raises(OptionError, match="shampine"):
        sdekit.solvers.get("rk45", error_weights="shampin")


def test_a_pair_checks_itself():
    pair = embedded.BOGACKI_SHAMPINE
    with pytest.raises(OptionError, match="sums of zero"):
        dataclasses.replace(pair, weights=((0.1, 0.0, 0.0, 0.0),))
    with pytest.raises(OptionError, match="3 or 4 weights"):
        dataclasses.replace(pair, weights=((0.1, -0.1),))
    outside = dataclasses.replace(pair.tableau, a=((), (1.5,), (0.0, 0.75)), c=(0.0, 1.5, 0.75))
    with pytest.raises(OptionError, match="past the end"):
        dataclasses.replace(pair, tableau=outside)
