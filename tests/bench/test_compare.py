"""Two runs side by side: what differs is shown, what got worse decides the status."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sdekit.bench import compare, results


def order(measured: float | None = 2.0, **more: Any) -> dict[str, Any]:
    place = {"kind": "weak", "target": "ring", "process": "vp", "grid": "karras", "half_log_snr": [-1.0, 1.5]}
    found = {"declared": 2, "measured": measured, "exact": measured is None, "interval": None, "status": "ok"}
    return {"what": "order", "solver": "[b]ddim", **place, **found, **more}


def work(error: float | None, **more: Any) -> dict[str, Any]:
    return {**order(), "what": "work", "points": [{"budget": 10, "steps": 10, "calls": 10, "error": error}], **more}


def write(folder: Path, found: list[dict[str, Any]], torch: str = "1") -> Path:
    folder.mkdir()
    about = {"torch": torch, "date": folder.name}
    results.write_results(
        folder, source="s", suite={}, results=found, lines=[], about=about, seconds=1.0, complete=True
    )
    return folder


def sampled(value: float, low: float, high: float, above: bool) -> dict[str, Any]:
    metric = {"value": value, "low": low, "high": high, "floor": 0.02, "above_floor": above}
    point = {"budget": 10, "steps": 10, "calls": 10, "metrics": {"energy": metric}}
    return {**order(), "what": "sampled", "points": [point]}


CASES = [
    (order(2.0), order(2.01), 0, ""),
    (order(2.0), order(2.03), 0, "2.00   2.03"),
    (order(2.0), order(1.9), 1, "2.00   1.90"),
    (order(2.0), order(None), 0, "2.00  exact"),
    (order(None), order(2.0), 1, "exact    2.00"),
    (order(2.0), order(status="failed"), 1, "2.00  failed"),
    (work(1e-3), work(1.005e-3), 0, ""),
    (work(1e-3), work(2e-3), 1, "1.00e-03  2.00e-03"),
    (work(2e-3), work(1e-3), 0, "2.00e-03  1.00e-03"),
    (work(1e-14), work(3e-14), 0, ""),
    (work(None), work(1e-3), 0, "-  1.00e-03"),
    (work(1e-3), work(None), 1, "1.00e-03      -"),
    (sampled(0.1, 0.08, 0.12, True), sampled(0.15, 0.13, 0.17, True), 1, "1.00e-01  1.50e-01"),
    (sampled(0.1, 0.08, 0.12, True), sampled(0.13, 0.11, 0.15, True), 0, "no more than their intervals: noise"),
    (sampled(0.01, 0.009, 0.011, False), sampled(-0.015, -0.016, -0.014, False), 0, "noise"),
]


@pytest.mark.parametrize(("old", "new", "status", "numbers"), CASES)
def test_what_got_worse_decides(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], status: int, numbers: str
) -> None:
    console = Console(width=140, file=io.StringIO())
    before, after = write(tmp_path / "a", [old]), write(tmp_path / "b", [new], "2")
    assert compare.compare_runs(before, after, console) == status
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "torch: 1 before, 2 after" in text
    assert "date" not in text
    shown = bool(numbers) and "noise" not in numbers
    assert f"{int(shown)} differ, {status} of them for the worse" in text
    assert " ".join(numbers.split()) in " ".join(text.split())
    assert ("[b]ddim" in text) == shown


def test_places_are_told_apart() -> None:
    found = [order(2.0), order(3.0, half_log_snr=[0.0, 1.0]), order(4.0, kind="deterministic"), work(0.1)]
    numbers = compare._numbers({"results": found})
    assert sorted(v for v in numbers.values() if v is not None) == [0.1, 2.0, 3.0, 4.0]


def test_what_only_one_has_is_counted_and_not_a_change() -> None:
    first = {("order", "a", "x"): 1.0, ("order", "b", "x"): 1.0}
    assert compare.changes(first, {("order", "a", "x"): 1.0, ("order", "c", "x"): 9.0}) == []


def test_the_worst_come_first() -> None:
    key = [("order", name, "x") for name in "abcd"]
    first = dict.fromkeys(key, 2.0)
    second = dict(zip(key, [1.9, 3.0, None, 1.0], strict=True))
    found = compare.changes(first, second)
    assert [c.solver for c in found] == ["c", "d", "a", "b"]
    assert math.isinf(found[0].size)
