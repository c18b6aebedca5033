"""The dyadic lattice of adaptive steps along paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdekit.control.lattice import FINEST, Lattice

LATTICE = Lattice([0.3, 1.7, 1.1])
ONE, TWO = np.array([1]), np.array([2])


def at(goal: int, j: int, k: int) -> float:
    return float(LATTICE.at(np.array([goal]), np.array([j]), np.array([k]))[0])


@given(st.integers(0, 30), st.integers(0, 2**30), st.integers(0, 20))
def test_a_point_has_the_same_time_at_every_level(k, j, more):
    j %= 2**k + 1
    for goal in (1, 2):
        assert at(goal, j, k) == at(goal, j << more, k + more)
    assert at(1, 2**k, k) == 1.7 and at(2, 2**k, k) == 1.1 and at(2, 0, k) == 1.7


@given(st.integers(0, 30), st.integers(0, 2**30))
def test_the_coarsest_level_is_the_least_at_which_a_point_lies(k, j):
    j %= 2**k + 1
    least = int(Lattice.coarsest(np.array([j]), np.array([k]))[0])
    assert 0 <= least <= k and j % 2 ** (k - least) == 0
    assert least == 0 or (j >> (k - least)) % 2 == 1
    moved = int(Lattice.moved(np.array([j]), np.array([k]), np.array([least]))[0])
    assert at(1, moved, least) == at(1, j, k)


@pytest.mark.parametrize(
    "h, level", [(1.4, 0), (10.0, 0), (0.7, 1), (0.69, 2), (1.4 / 1024, 10), (np.inf, 0), (0.0, FINEST + 1)]
)
def test_the_level_of_a_length(h, level):
    assert LATTICE.level(ONE, np.array([h]))[0] == level


def test_what_a_path_resolves():
    start = np.array([1.0, 1.0, 0.0, -1e-9, 1e-3])
    end = start + np.array([2.0**-19, 2.0**-20, 1e-30, 2e-9, 2.0**-29])
    assert LATTICE.resolved(start, end).tolist() == [True, False, True, True, True]
