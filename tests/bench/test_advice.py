"""Advice from errors that are made up, so that what it must say is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from sdekit.bench.advice import advise, page
from sdekit.errors import OptionError

PLACES = [("a", "edm", "karras"), ("a", "vp", "uniform"), ("b", "edm", "karras"), ("c", "edm", "karras")]


def result(solver: str, place: tuple[str, str, str], error: float | None, **more: Any) -> dict[str, Any]:
    target, process, grid = place
    return {
        "what": "work",
        "solver": solver,
        "kind": "deterministic",
        "status": "ok",
        "target": target,
        "process": process,
        "grid": grid,
        "points": [{"budget": 10, "steps": 10, "calls": 10, "error": error}],
        **more,
    }


def table(**errors: Sequence[float | None]) -> list[dict[str, Any]]:
    return [result(name, p, e) for name, row in errors.items() for p, e in zip(PLACES, row, strict=True)]


def test_the_best_everywhere_is_sure():
    found = advise(table(good=[1, 2, 3, 4], bad=[2, 4, 6, 8]), "deterministic", 10)
    first, second = found.ranks
    assert (first.names, first.score, first.best, found.sure) == (("good",), 1.0, pytest.approx(1), "sure")
    assert second.score == pytest.approx(2) and second.low == pytest.approx(2) == second.high and second.best == 0


def test_what_one_target_decides_is_open():
    # "once" is far ahead on c alone, by which it also has the better mean.
    found = advise(table(often=[1, 1, 1, 30], once=[2, 2, 2, 1]), "deterministic", 10)
    assert found.ranks[0].names == ("once",)
    assert found.sure != "sure" and 0.5 < found.ranks[0].best < 0.95
    # Targets are drawn whole: c is missing from a draw of 3 with probability (2 / 3)^3, and then "often" is best.
    assert found.ranks[1].best == pytest.approx((2 / 3) ** 3, abs=0.04)
    assert found.ranks[1].worst == (pytest.approx(30), "c, edm, karras")


def over_starts(**starts: list[float]) -> list[dict[str, Any]]:
    """The same at every place, over these starts."""
    rows = []
    for name, row in starts.items():
        error = math.sqrt(math.fsum(v * v for v in row) / len(row))
        for place in PLACES:
            rows.append(result(name, place, error))
            rows[-1]["points"][0]["starts"] = row
    return rows


def test_what_one_start_decides_is_open():
    # The mean of "often" is larger by one start of 8, which is missing from a draw with probability (7 / 8)^8.
    found = advise(over_starts(often=[1.0] * 7 + [9.0], once=[2.0] * 8), "deterministic", 10)
    assert found.ranks[0].names == ("once",) and found.ranks[0].score == 1
    assert found.sure != "sure" and found.ranks[0].best < 0.9
    # The mutant: errors alone, as if the starts were all there are.
    rows = over_starts(often=[1.0] * 7 + [9.0], once=[2.0] * 8)
    for row in rows:
        del row["points"][0]["starts"]
    assert advise(rows, "deterministic", 10).sure == "sure"


def test_a_difference_at_every_start_is_sure():
    spread = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
    found = advise(over_starts(good=spread, bad=[1.05 * v for v in spread]), "deterministic", 10)
    assert found.sure == "sure" and found.ranks[1].low == pytest.approx(1.05) == found.ranks[1].high


def test_the_score_is_the_geometric_mean_of_ratios():
    found = advise(table(x=[1, 8, 1, 1], y=[2, 2, 2, 2]), "deterministic", 10)
    scores = {rank.names[0]: rank.score for rank in found.ranks}
    assert scores["x"] == pytest.approx(4 ** (1 / 4)) and scores["y"] == pytest.approx(8 ** (1 / 4))


def test_methods_that_are_the_same_share_a_place():
    found = advise(table(ddim=[1, 2, 3, 4], euler=[1, 2, 3, 4], other=[3, 3, 9, 9]), "deterministic", 10)
    assert found.ranks[0].names == ("ddim", "euler")


def test_those_without_an_error_somewhere_are_left_out_and_named():
    found = advise(table(good=[1, 1, 1, 1], fails=[0.1, 0.1, 0.1, None]), "deterministic", 10)
    assert found.left_out == ("fails",) and [r.names for r in found.ranks] == [("good",)]


def test_other_libraries_take_part_where_that_is_asked_for():
    rows = table(ours=[2, 2, 2, 2]) + [result("k:x", p, 1.0, package="k 1") for p in PLACES]
    assert [r.names for r in advise(rows, "deterministic", 10).ranks] == [("ours",)]
    assert advise(rows, "deterministic", 10, peers=True).ranks[0].names == ("k:x",)


def test_rounding_errors_are_all_the_same():
    found = advise(table(a=[1e-15] * 4, b=[1e-13] * 4), "deterministic", 10)
    assert [r.score for r in found.ranks] == [1.0] and math.isclose(found.ranks[0].best, 1)


def test_a_number_of_calls_that_was_not_measured():
    with pytest.raises(OptionError, match="calls"):
        advise(table(a=[1, 1, 1, 1]), "deterministic", 11)


def test_the_page():
    content = {
        "environment": {"sdekit": "1", "cpu": "a processor", "date": "2026-01-02T03:04:05"},
        "suite": {"name": "mine"},
        "source": "mine",
        "results": table(**{"good|x": [1, 2, 3, 4], "bad": [2, 4, 6, 8]}),
    }
    text = page(content, [10, 20], "sdekit bench advise x")
    assert "| 10 | `good\\|x` | sure | 1.00 | `bad` | 2.00 |" in text and "### 10 calls" in text
    assert "20 calls" not in text and "Stochastic" not in text and "* a, vp, uniform" in text
    assert text == page(content, [10, 20], "sdekit bench advise x")
