"""SQL sees every number of the results, missing ones as NULL, and nothing but the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdekit import cli
from sdekit.bench import results
from sdekit.bench.cells import expand
from sdekit.bench.query import PARQUET, finished, query, write_parquet
from sdekit.bench.store import Store
from sdekit.bench.suite import load
from sdekit.bench.summary import summarise
from sdekit.errors import OptionError

PLACE = {"kind": "deterministic", "target": "ring", "process": "vp", "grid": "karras", "half_log_snr": [-1.0, 1.5]}
FOUND: list[dict[str, Any]] = [
    {
        "what": "order",
        "solver": "a",
        "options": {"order": 3},
        **PLACE,
        "status": "ok",
        "message": "",
        "declared": 2,
        "measured": 2.5,
        "interval": [2.25, 2.75],
        "exact": False,
        "steps": [1, 2, 4],
        "calls": [2, 4, 8],
        "errors": [1.0, 0.25, 1e-300],
    },
    {
        "what": "order",
        "solver": 'it\'s "b"; drop table cells',
        "options": {},
        **PLACE,
        "status": "ok",
        "declared": 1.5,
        "measured": None,
        "interval": None,
        "exact": True,
        "steps": [1],
        "errors": [0.0],
    },
    {
        "what": "work",
        "solver": "a",
        "options": {},
        **PLACE,
        "status": "ok",
        "declared": 2,
        "points": [
            {"budget": 5, "steps": 5, "calls": 5, "error": -0.5},
            {"budget": 10, "steps": 0, "calls": 0, "error": None},
        ],
    },
    {
        "what": "work",
        "solver": "c",
        "options": {},
        **PLACE,
        "status": "crash",
        "message": "SIGSEGV",
        "trace": "x\ny",
    },
    {
        "what": "picture",
        "solver": "a",
        "options": {},
        **PLACE,
        "status": "ok",
        "blocks": [{"budget": 5, "x": [[1.0]]}],
        "exact": [[1.0]],
        "real": [[1.0]],
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results.write_results(
        tmp_path,
        source="tiny",
        suite={"name": "tiny"},
        results=FOUND,
        lines=summarise(FOUND, 0.15, []),
        about={},
        seconds=1.0,
        complete=True,
    )
    return tmp_path


def test_every_number_is_there(folder: Path) -> None:
    columns, rows = query(folder, "select solver, declared, measured, errors, exact, half_log_snr_start from cells")
    assert columns == ["solver", "declared", "measured", "errors", "exact", "half_log_snr_start"]
    assert rows[:2] == [
        ("a", 2.0, 2.5, [1.0, 0.25, 1e-300], False, -1.0),
        (FOUND[1]["solver"], 1.5, None, [0.0], True, -1.0),
    ]
    assert len(rows) == len(FOUND)
    _, points = query(folder, "select what, budget, steps, calls, error from points")
    assert points == [
        *[("order", None, n, 2 * n, e) for n, e in ((1, 1.0), (2, 0.25), (4, 1e-300))],
        ("order", None, 1, None, 0.0),
        ("work", 5, 5, 5, -0.5),
        ("work", 10, 0, 0, None),
    ]


def test_a_missing_number_is_null_and_spoils_no_average(folder: Path) -> None:
    assert query(folder, "select avg(error), count(*) from points where what = 'work'")[1] == [(-0.5, 2)]
    assert query(folder, "select message, trace from cells where status <> 'ok'")[1] == [("SIGSEGV", "x\ny")]


def test_options_can_be_looked_into(folder: Path) -> None:
    assert query(folder, "select count(*) from cells where options->>'order' = '3'")[1] == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "selct 1",
        "select nothing from cells",
        "select * from read_csv('/etc/hostname')",
        "select * from '{folder}/results.json'",
        "copy cells to '{folder}/stolen.csv'",
        "attach '{folder}/stolen.db'",
        "set enable_external_access = true",
        "install httpfs",
        "load httpfs",
    ],
)
def test_what_is_no_question_to_the_results_is_refused(folder: Path, sql: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(OptionError, match="Columns of cells are: what, solver"):
        query(folder, sql.format(folder=folder))
    assert sorted(folder.iterdir()) == before


def test_parquet_holds_the_same(folder: Path) -> None:
    import duckdb

    path = write_parquet(folder, FOUND)
    assert path == folder / PARQUET
    with duckdb.connect() as connection:
        rows = connection.execute("select solver, measured, errors from read_parquet($p)", {"p": str(path)}).fetchall()
    assert rows == query(folder, "select solver, measured, errors from cells")[1]


def test_nothing_measured_makes_empty_tables(tmp_path: Path) -> None:
    results.write_results(tmp_path, source="t", suite={}, results=[], lines=[], about={}, seconds=0.0, complete=False)
    assert query(tmp_path, "select count(*) from cells")[1] == [(0,)]
    assert write_parquet(tmp_path, []).exists()


def test_a_run_can_be_asked_before_it_is_finished(tiny: Path, tmp_path: Path) -> None:
    cell = expand(load(str(tiny)), "ddim")[0]
    store = Store(tmp_path / "run" / "cells")
    store.folder.mkdir(parents=True)
    store.put(cell, 0.15, FOUND[0])
    assert finished(tmp_path / "run") == [FOUND[0]]
    assert query(tmp_path / "run", "select measured from cells")[1] == [(2.5,)]
    with pytest.raises(OptionError, match="No such file"):
        finished(tmp_path)


def test_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", *words])
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    sql = "select solver, measured, errors from cells where what = 'order' order by 2"
    assert json.loads(run("query", str(folder), sql, "--json")) == [
        {"solver": "a", "measured": 2.5, "errors": [1.0, 0.25, 1e-300]},
        {"solver": FOUND[1]["solver"], "measured": None, "errors": [0.0]},
    ]
    table = run("query", str(folder), "select measured, status from cells where solver = 'a'").splitlines()
    assert [line.split() for line in table] == [["measured", "status"], ["2.5", "ok"], ["ok"], ["ok"]]
    assert "results.parquet" in run("parquet", str(folder))
    assert (folder / PARQUET).exists()
