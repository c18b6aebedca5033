"""Intervals hold the error of all starts as often as they say, where that is known; errors are told apart in pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import Generator

from sdekit.bench import bands

RUNS = 600


@pytest.fixture
def draws() -> Generator:
    return np.random.default_rng(5)


def over(distances: np.ndarray, sizes: np.ndarray) -> dict[str, Any]:
    """Ends at these distances from exact ones of these sizes."""
    exact = torch.zeros(len(sizes), 2, dtype=torch.float64)
    exact[:, 0] = torch.from_numpy(sizes)
    end = exact.clone()
    end[:, 1] = torch.from_numpy(distances)
    return bands.over_starts(end, exact)


def held(draws: Generator, count: int) -> float:
    """How often the interval holds the error over all starts, of squared distances and sizes that are chi squared."""
    truth, found = math.sqrt(4 / 9), 0
    for _ in range(RUNS):
        point = over(np.sqrt(draws.chisquare(4, count)), np.sqrt(draws.chisquare(9, count)))
        found += point["low"] <= truth <= point["high"]
    return found / RUNS


@pytest.mark.parametrize("count", [8, 32])
def test_intervals_hold_the_error_of_all_starts(draws: Generator, count: int) -> None:
    assert 0.92 < held(draws, count) < 0.98  # 0.95 and three and a half standard errors


def test_a_normal_quantile_would_hold_too_little(draws: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: no account of how few the starts are."""
    monkeypatch.setattr(bands, "_student", lambda count: 1.96)
    assert held(draws, 4) < 0.92


def test_the_error_is_the_root_mean_square_of_the_starts(draws: Generator) -> None:
    distances, sizes = draws.uniform(0, 1, 16), draws.uniform(1, 2, 16)
    point = over(distances, sizes)
    assert point["error"] == pytest.approx(math.hypot(*distances) / math.hypot(*sizes), rel=1e-12)
    assert math.hypot(*point["starts"]) / 4 == pytest.approx(point["error"], rel=1e-4)
    assert point["high"] / point["error"] == pytest.approx(point["error"] / point["low"])


def test_distances_and_sizes_are_paired(draws: Generator) -> None:
    """Where each distance is the same part of its size, every set of starts gives the same error."""
    sizes = draws.uniform(1, 9, 16)
    point = over(0.1 * sizes, sizes)
    assert point["low"] == pytest.approx(0.1) == point["high"]


def test_one_start_that_makes_the_error_shows() -> None:
    point = over(np.array([1.0] + [1e-6] * 31), np.ones(32))
    assert point["high"] / point["error"] == pytest.approx(math.exp(2.0395 / 2), rel=1e-3)


def test_what_has_no_interval() -> None:
    one = over(np.array([0.5]), np.array([2.0]))
    assert (one["error"], one["low"], one["high"]) == (0.25, None, None)
    assert over(np.array([1.0, math.nan]), np.ones(2)) == bands.nothing()
    assert over(np.array([1.0, math.inf]), np.ones(2)) == bands.nothing()
    exact = over(np.zeros(3), np.ones(3))
    assert (exact["error"], exact["low"], exact["high"]) == (0, 0, 0)


def test_samplers_that_are_as_good_are_rarely_told_apart(draws: Generator) -> None:
    wrong, runs = 0, 3000
    for _ in range(runs):
        shared = draws.uniform(0.5, 1.5, 32)
        a, b = (list(shared * draws.uniform(0.8, 1.2, 32)) for _ in range(2))
        wrong += bands.apart(a, b)
    assert 0.04 < wrong / runs < 0.07


def test_pairs_tell_what_intervals_do_not(draws: Generator) -> None:
    """The mutant: of unpaired errors the two are within each other's intervals."""
    a = draws.lognormal(0, 1, 32)
    b = 1.1 * a * draws.uniform(0.98, 1.02, 32)
    first, second = over(a, np.ones(32)), over(b, np.ones(32))
    assert second["low"] < first["error"] < second["error"] < first["high"]
    assert bands.apart(first["starts"], second["starts"]) and bands.apart(second["starts"], first["starts"])
    assert not bands.apart(first["starts"], draws.permutation(second["starts"]).tolist())


def test_what_cannot_be_compared_is_not_told_apart() -> None:
    assert not bands.apart([1.0], [2.0]) and not bands.apart([1.0, 1.1], [2.0, 2.1, 2.2])
    assert bands.apart([0.0, 0.0], [1.0, 1.0]) and not bands.apart([0.0, 0.0], [0.0, 0.0])
