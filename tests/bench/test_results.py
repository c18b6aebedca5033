"""Files: whole or not there, strict JSON, tables that a spreadsheet reads."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sdekit.bench import results
from sdekit.bench.files import sealed
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
        "half_log_snr": [-1.0, 1.5],
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
    points[0] |= {"low": 0.4, "high": 0.7}
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
        out, source="s", suite={"name": "s"}, results=found, lines=lines, about=about, seconds=1.0, complete=True
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
    assert (orders[0]["half_log_snr_start"], orders[0]["half_log_snr_end"]) == ("-1.0", "1.5")
    assert orders[0]["errors"] == "1.0 0.25 0.0625"
    errors = list(csv.DictReader(io.StringIO((tmp_path / "errors.csv").read_text())))
    assert [row["error"] for row in errors] == ["0.5", "0.1", ""]
    assert errors[0]["solver"] == "exp_adams(order=3, single_step)"
    assert (errors[0]["low"], errors[0]["high"], errors[2]["high"]) == ("0.4", "0.7", "")


@pytest.mark.parametrize("name", ["=1+1", "+1 +cmd|'x'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-1 =A1"])
def test_no_cell_of_a_table_is_a_formula(tmp_path: Path, name: str) -> None:
    low: dict[str, Any] = {"half_log_snr": [-1.0, 1.5], "errors": [-1.0, 0.25, 0.0625]}
    write(tmp_path, [order(name, grid=name, **low), work(name)])
    for file in ("orders.csv", "errors.csv"):
        for row in csv.DictReader(io.StringIO((tmp_path / file).read_bytes().decode(), newline="")):
            assert row["solver"] == f"'{name.strip()}"
            assert float(row["half_log_snr_start"]) == -1.0, "a negative number stays one"
            assert "errors" not in row or row["errors"] == "-1.0 0.25 0.0625"


def test_results_are_read_back_or_refused(tmp_path: Path) -> None:
    write(tmp_path, [order(), work()])
    path = tmp_path / results.FILE
    whole = path.read_bytes()
    assert results.read_results(tmp_path)["results"] == [order(), work()]
    cases = {
        "cut short": whole[:-9],
        "edited": whole.replace(b'"measured": 2.0', b'"measured": 2.5', 1),
        "an entry removed": whole.replace(b'"complete": true,\n', b"", 1),
        "no object": b"[]",
        "an older format": whole.replace(b"sdekit results 2", b"sdekit results 1", 1),
        "no text": b"\xff" + whole,
        "nothing": b"",
    }
    for name, content in cases.items():
        assert content != whole, name
        path.write_bytes(content)
        with pytest.raises(OptionError, match=r"results\.json"):
            results.read_results(tmp_path)
    path.unlink()
    with pytest.raises(OptionError, match="sdekit bench run"):
        results.read_results(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"results": {}}, {"suite": None}, {"results": [3]}, {"results": [{"what": "order"}]}]
)
def test_sealed_results_of_another_shape_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The seal is no secret: anyone can make one. The mutant: entries are not looked at, and a page fails on them."""
    write(tmp_path, [order()])
    content = results.read_results(tmp_path)
    (tmp_path / results.FILE).write_text(json.dumps(sealed({**content, **wrong})))
    with pytest.raises(OptionError, match="of another kind"):
        results.read_results(tmp_path)
    missing = {k: v for k, v in content.items() if k != next(iter(wrong))}
    (tmp_path / results.FILE).write_text(json.dumps(sealed(missing)))
    with pytest.raises(OptionError, match="of another kind"):
        results.read_results(tmp_path)


def test_numbers_are_told_from_times(tmp_path: Path) -> None:
    def digest(*found: dict[str, Any]) -> str:
        write(tmp_path, list(found))
        return results.read_results(tmp_path)["numbers"]

    assert digest(order(seconds=1.0)) == digest(order(seconds=2.0)) != digest(order(seconds=1.0, measured=2.01))


def test_folder_is_made_or_refused(tmp_path: Path) -> None:
    made = results.folder(tmp_path / "a" / "b")
    assert made.is_dir()
    assert not list(made.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match=r"Not a directory|File exists"):
        results.folder(tmp_path / "file")


@pytest.mark.parametrize("program", ["/somewhere/bin/sdekit", "/somewhere/site-packages/sdekit/__main__.py"])
def test_the_command_is_as_it_would_be_typed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "bench", "run", "orders", "--on", "ring, *"])
    assert results.environment(1)["command"] == "sdekit bench run orders --on 'ring, *'"
