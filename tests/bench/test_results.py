"""Files: whole or not there, strict JSON, tables that a spreadsheet reads."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sdekit.bench import results
from sdekit.bench.summary import failures, summarise
from sdekit.errors import OptionError


def order(solver: str = "a", measured: float | None = 2.0, **more: Any) -> dict[str, Any]:
    return {
        "what": "order",
        "solver": solver,
        "kind": "deterministic",
        "target": "ring",
        "process": "vp",
        "grid": "karras",
        "status": "ok",
        "message": "",
        "declared": 2,
        "measured": measured,
        "interval": None if measured is None else [measured, measured],
        "exact": measured is None,
        "steps": [1, 2, 4],
        "errors": [1.0, 0.25, 0.0625],
        **more,
    }


def work(solver: str = "a", **more: Any) -> dict[str, Any]:
    points = [{"budget": n, "steps": n, "calls": n, "error": e} for n, e in ((5, 0.5), (10, 0.1), (20, None))]
    return {**order(solver), "what": "work", "points": points, **more}


def test_least_order_and_its_place_are_reported() -> None:
    [line] = summarise([order(), order(measured=1.9, process="edm"), order(measured=2.3), work()], 0.15, [10, 20])
    assert (line.measured, line.where, line.count, line.verdict) == (1.9, "ring, edm, karras", 3, "holds")
    assert line.errors == {("ring", 10): 0.1, ("ring", 20): None}


@pytest.mark.parametrize(
    ("measured", "verdict"), [(1.851, "holds"), (1.849, "SHORT"), (2.34, "holds"), (2.36, "above"), (None, "above")]
)
def test_verdict_has_its_limits_where_promised(measured: float | None, verdict: str) -> None:
    [line] = lines = summarise([order(measured=measured)], 0.15, [])
    assert line.verdict == verdict
    assert failures(lines) == ([line] if verdict == "SHORT" else [])


def test_failed_measurement_is_a_failure_whatever_else_holds() -> None:
    failed = {**order(), "status": "failed", "message": "out of luck"}
    [line] = lines = summarise([order(), failed], 0.15, [])
    assert line.verdict == "FAILED"
    assert failures(lines) == [line]
    assert line.failed == {"out of luck": ["ring, vp, karras"]}


def write(out: Path, found: list[dict[str, Any]]) -> list[Path]:
    lines = summarise(found, 0.15, [10])
    about = results.environment(2)
    return results.write_results(
        out, suite={"name": "s"}, results=found, lines=lines, about=about, seconds=1.0, complete=True
    )


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    found = [order(), order(measured=None), work()]
    write(tmp_path, found)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert content["format"] == results.FORMAT
    assert content["results"] == found
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path, [order(measured=float("nan"))])


def test_csv_holds_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path, [order(), order(measured=None), work("exp_adams(order=3, single_step)")])
    orders = list(csv.DictReader(io.StringIO((tmp_path / "orders.csv").read_text())))
    assert [row["measured"] for row in orders] == ["2.0", "exact"]
    assert orders[0]["errors"] == "1.0 0.25 0.0625"
    errors = list(csv.DictReader(io.StringIO((tmp_path / "errors.csv").read_text())))
    assert [row["error"] for row in errors] == ["0.5", "0.1", ""]
    assert errors[0]["solver"] == "exp_adams(order=3, single_step)"


def test_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    results.write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="No space"):
                results.write_atomically(path, b"new, but longer")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
    results.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~results._umask()


def test_folder_is_made_or_refused(tmp_path: Path) -> None:
    made = results.folder(tmp_path / "a" / "b")
    assert made.is_dir()
    assert not list(made.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match=r"Not a directory|File exists"):
        results.folder(tmp_path / "file")
