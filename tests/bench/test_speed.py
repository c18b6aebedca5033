"""Rows of speed in a suite: measured alone, kept, told beside their goals, and told apart from noise."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from sdekit.bench import command, compare, engines, export, readings, results, speed, speed_page, store, summary
from sdekit.bench.cells import expand
from sdekit.bench.measure import _KINDS, measure
from sdekit.bench.speed import Reading, Row, Setting, measured, timing
from sdekit.bench.speed.reading import of_rounds
from sdekit.bench.suite import available, load
from sdekit.errors import OptionError, SdekitError

TEXT = """
name = "mine"
description = "speed"
[[speed]]
rows = ["good", "bad"]
rounds = 3
[[speed]]
rows = ["good"]
devices = ["cuda"]
"""

CLOCK = itertools.count(1)


def _good(setting: Setting) -> Iterator[Reading]:
    time = 1.0 + next(CLOCK) / 1000  # another one in each run
    yield Reading("<b>small</b>", "operations", 3.0, "count", goal=3.0, exact=True)
    yield Reading("<b>small</b>", "error", float(torch.rand(())), "", exact=True)
    yield of_rounds("large", "ours / bare", [time] * setting.rounds, goal=1.3)
    yield of_rounds("large", "theirs / ours", [time] * setting.rounds, goal=3.0, sense="at least")
    yield Reading("large", "other / ours", None, goal=3.0, sense="at least", note="other is not installed")


def _bad(_: Setting) -> Iterator[Reading]:
    yield Reading("small", "operations", 1.0)
    raise RuntimeError("no clock today")


def plant(monkeypatch: pytest.MonkeyPatch, *rows: Row) -> None:
    for row in rows:
        module: Any = ModuleType(f"sdekit.bench.speed.planted_{row.name}")
        module.ROWS = (row,)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(speed.MODULES, row.name, module.__name__.rpartition(".")[2])


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Row("good", "A <i>good</i> row", "About it", _good), Row("bad", "A bad row", "About it", _bad))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def run(suite: Path, out: Path, **options: Any) -> tuple[int, str, dict[str, Any]]:
    console = Console(width=120, record=True, file=(out.parent / "console").open("w"))
    with console.file:
        status = command.run_suite(str(suite), out=out, console=console, **{"engine": "here", **options})
    return status, console.export_text(), json.loads((out / "results.json").read_text())


def test_goals_are_told_and_failures_are_failures(mine: Path, tmp_path: Path) -> None:
    status, text, found = run(mine, tmp_path / "out")
    assert status == 1
    assert [(r["solver"], r["device"], r["status"]) for r in found["results"]] == [
        ("good", "cpu", "ok"),
        ("bad", "cpu", "failed"),
        ("good", "cuda", "ok" if torch.cuda.is_available() else "skipped"),
    ]
    assert "bad (speed) failed on cpu, float32: RuntimeError: no clock today" in text
    assert [r["reached"] for r in found["results"][0]["readings"]] == [True, None, True, False, None]
    words = " ".join(text.split())
    assert "at most 3 reached" in words and "at least 3 MISSED" in words and "not measured at least 3" in words


def test_missed_goal_is_no_failure(mine: Path, tmp_path: Path) -> None:
    status, text, _ = run(mine, tmp_path / "out", only="good", on="cpu, *")
    assert status == 0
    assert "nothing failed. Goals: 2 reached, 1 MISSED; 1 not measured here." in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device it is measured")
def test_without_a_gpu_its_part_is_not_measured_and_the_rest_is(mine: Path, tmp_path: Path) -> None:
    status, text, found = run(mine, tmp_path / "out", only="good")
    assert status == 0
    assert found["complete"] and [r["status"] for r in found["results"]] == ["ok", "skipped"]
    assert "No CUDA device is here: not measured." in text
    assert "No CUDA device is here: not measured." in (tmp_path / "out" / "report.html").read_text()


def test_page_and_tables_hold_every_reading_and_are_inert(mine: Path, tmp_path: Path) -> None:
    _, _, found = run(mine, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "at most 1.3",
        '<strong class="bad">MISSED</strong>',
        "other is not installed",
        "no clock today",
        "FAILED",
    ):
        assert words in page
    assert "&lt;b&gt;small&lt;/b&gt;" in page and "<b>small" not in page and "<i>good" not in page
    assert '<a href="#speed">Speed</a>' in page and 'id="speed"' in page
    assert speed_page.section([]) == speed_page.link([]) == ""
    export.export(tmp_path / "out", ["markdown", "latex", "csv"])
    names = {path.name for path in (tmp_path / "out" / "export").iterdir()}
    assert {"table-speed-good-cpu-float32.csv", "table-speed-bad-cpu-float32.tex"} <= names
    lines = (tmp_path / "out" / "export" / "table-speed-good-cpu-float32.csv").read_text().splitlines()
    assert lines[0] == "case,quantity,note,value,low,high,unit,sense,goal,verdict"
    assert len(lines) == len((tmp_path / "out" / "speed.csv").read_text().splitlines()) == 6
    value = found["results"][0]["readings"][2]["value"]
    assert lines[3] == f"large,ours / bare,,{value!r},{value!r},{value!r},x,at most,1.3,reached"
    text = (tmp_path / "out" / "export" / "tables.md").read_text()
    assert "**MISSED**" in text and "no clock today" in text


def test_what_is_measured_is_kept(mine: Path, tmp_path: Path) -> None:
    _, _, first = run(mine, tmp_path / "out", only="good", on="cpu, *")
    _, text, second = run(mine, tmp_path / "out", only="good", on="cpu, *", resume=True)
    assert "Resumed: 1 measurements re-used" in text
    assert second["results"] == first["results"]


def test_numbers_are_the_same_where_times_are_not(mine: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _, _, first = run(mine, tmp_path / "a", only="good")
    _, _, second = run(mine, tmp_path / "b", only="good")
    assert first["results"] != second["results"]
    assert first["numbers"] == second["numbers"]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", [{"value": 4.0}, {"goal": 5.0}, {"case": "other"}])
def test_digest_holds_what_every_run_gives(change: dict[str, Any]) -> None:
    exact = {"case": "a", "quantity": "b", "value": 3.0, "goal": 4.0, "exact": True}
    plain, other = ({"what": "speed", "readings": [r]} for r in (exact, {**exact, **change}))
    assert results._numbers(plain) != results._numbers(other)
    timed = [{"what": "speed", "readings": [{**r, "exact": False}]} for r in (exact, {**exact, **change})]
    assert (results._numbers(timed[0]) == results._numbers(timed[1])) == ("value" in change)


def test_rows_are_measured_alone(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = (
        '[processes]\nedm = { make = "EDM" }\n[targets]\nring = { make = "ring" }\n[[work]]\ntarget = "ring"\n'
        'process = "edm"\ngrid = "karras"\nhalf_log_snr = [-2.0, 2.0]\ncalls = [5]\n'
        'solvers = [{ solver = "ddim" }, { solver = "heun" }]\n'
    )
    mine.write_text(TEXT + work)
    started: list[tuple[str, int, set[str]]] = []
    real = engines.start

    def start(choice: engines.Choice, function: Any, count: int) -> Any:
        engine = real(engines.Choice("here"), function, 1)
        submit, kinds = engine.submit, set()
        started.append((choice.name, count, kinds))
        engine.submit = lambda key, job: (kinds.add(job.cell.what), submit(key, job))[1]  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(engines, "start", start)
    _, text, found = run(mine, tmp_path / "out", engine="local", workers=2)
    assert started == [("local", 2, {"work"}), ("local", 1, {"speed"})]
    assert "measured one at a time" in text
    assert found["environment"]["workers"] == 2
    started.clear()
    _, text, found = run(mine, tmp_path / "out", engine="local", workers=2, only="good")
    assert started == [("local", 1, {"speed"})]
    assert found["environment"]["workers"] == 1
    _, text, _ = run(mine, tmp_path / "out", only="good", workers=1)
    assert "one at a time" not in text


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if there were one; the program that tells of its driver."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 999.1\necho 999.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, answer in (("is_available", True), ("get_device_name", "<GPU>"), ("get_device_capability", (9, 0))):
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(measured, "_seeded", lambda _: contextlib.nullcontext())
    return program


def test_of_a_gpu_name_driver_and_capability_are_kept(mine: Path, tmp_path: Path, gpu: Path) -> None:
    mine.write_text(mine.read_text().replace("rows = ", 'devices = ["cuda"]\nrows = ', 1))
    _, text, found = run(mine, tmp_path / "out", only="good")
    told = {"name": "<GPU>", "driver": "999.1", "capability": "9.0", "cuda": torch.version.cuda}
    assert [r["hardware"] for r in found["results"]] == [told, told]
    assert "cuda, float32, 3 rounds, <GPU>" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;GPU&gt;, driver 999.1, capability 9.0" in page and "<GPU>" not in page
    assert store.made_by(expand(load(str(mine)), "good")[0])["gpu"] == "<GPU>"
    assert results._numbers(found["results"][0]) == results._numbers({**found["results"][0], "hardware": {}})


@pytest.mark.parametrize("script", ["exit 1", "echo", None])
def test_driver_that_tells_nothing_is_left_out(gpu: Path, script: str | None) -> None:
    if script is None:
        gpu.unlink()
    else:
        gpu.write_text(f"#!/bin/sh\n{script}\n")
    assert measured.hardware()["driver"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_none_is_a_failure(mine: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    plant(monkeypatch, Row("good", "", "", lambda _: iter([Reading("a", "b", value)])))
    found = measure(expand(load(str(mine)), "good", "cpu, *")[0], 0.15)
    assert found["status"] == "failed" and "a, b" in found["message"]
    plant(monkeypatch, Row("good", "", "", lambda _: iter(())))
    assert measure(expand(load(str(mine)), "good", "cpu, *")[0], 0.15)["status"] == "failed"


def test_unknown_rows_and_devices_are_told_at_once(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Row("bad", "", "", _bad, devices=("cpu",)))
    mine.write_text(TEXT + '[[speed]]\nrows = ["planning"]\n')
    with pytest.raises(OptionError, match=r"speed\.2\.rows\.0.*'float32' for 'planning'; expected float64"):
        expand(load(str(mine)))
    mine.write_text(TEXT.replace('["good", "bad"]', '["goood", "bad"]\ndevices = ["cuda"]'))
    with pytest.raises(OptionError) as caught:
        expand(load(str(mine)))
    text = str(caught.value)
    assert "2 faults" in text and "speed.0.rows.0" in text and "'good'" in text and "speed.0.rows.1" in text
    mine.write_text(TEXT.replace("rounds = 3", "rounds = 0").replace('"cuda"', '"tpu"'))
    with pytest.raises(SdekitError) as caught:
        load(str(mine))
    assert "speed.0.rounds" in str(caught.value) and "speed.1.devices.0" in str(caught.value)
    mine.write_text(TEXT + '[[pictures]]\ntarget = "ring"\n')
    with pytest.raises(OptionError, match="processes: got nothing"):
        load(str(mine))


def test_a_row_has_no_sections_of_solvers(mine: Path) -> None:
    cells = expand(load(str(mine)))
    assert [(c.what, c.label, c.place) for c in cells] == [
        ("speed", "good", "cpu, float32"),
        ("speed", "bad", "cpu, float32"),
        ("speed", "good", "cuda, float32"),
    ]
    assert len(expand(load(str(mine)), "goo*", "*, float32")) == 2
    made = store.made_by(cells[0])
    assert "torchsde" in made["plugin"] and made["gpu"] is None


@pytest.mark.parametrize("what", _KINDS)
def test_code_of_every_kind_is_part_of_a_result(what: str) -> None:
    name = _KINDS[what].__module__.removeprefix("sdekit.").replace(".", "/") + ".py"
    assert name.startswith(store._MEASURING)


def reading(value: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    one = {"case": "a", "quantity": "b", "value": value, "low": low, "high": high, "sense": "at most", "exact": False}
    return {**one, "unit": "x", "goal": None, "reached": None, "note": "", **more}


RISING = {"sense": "at least"}
CHANGES = [
    (reading(1.0, 0.9, 1.1), reading(1.3, 1.2, 1.4), 1, 0),
    (reading(1.3, 1.2, 1.4), reading(1.0, 0.9, 1.1), 0, 0),
    (reading(1.0, 0.9, 1.1), reading(1.2, 1.05, 1.4), 0, 1),
    (reading(1.0, 1.0, 1.0), reading(1.05, 1.05, 1.05), 0, 1),
    (reading(3.0, 2.9, 3.1, **RISING), reading(2.0, 1.9, 2.1, **RISING), 1, 0),
    (reading(2.0, 1.9, 2.1, **RISING), reading(3.0, 2.9, 3.1, **RISING), 0, 0),
    (reading(1.0, None, None), reading(1.4, None, None), 0, 1),
    (reading(1.0, None, None), reading(1.6, None, None), 1, 0),
    (reading(3.0, None, None, exact=True), reading(4.0, None, None, exact=True), 1, 0),
    (reading(0.0, None, None, exact=True), reading(0.0, None, None, exact=True), 0, 0),
]


def compared(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> tuple[int, str]:
    """Status and text of comparing two runs of one row, which has these entries."""
    row = {"what": "speed", "solver": "step", "kind": "speed", "target": "", "process": "", "grid": "", "status": "ok"}
    row |= {"half_log_snr": [0.0, 0.0], "row": "step", "device": "cpu", "dtype": "float32", "rounds": 3}
    for name, more in (("a", old), ("b", new)):
        (tmp_path / name).mkdir()
        given: dict[str, Any] = {"source": "s", "suite": {}, "lines": [], "about": {}, "seconds": 1.0}
        results.write_results(tmp_path / name, **given, complete=True, results=[{**row, **more}])
    console = Console(width=140, record=True, file=(tmp_path / "console").open("w"))
    with console.file:
        status = compare.compare_runs(tmp_path / "a", tmp_path / "b", console)
    return status, console.export_text()


@pytest.mark.parametrize(("old", "new", "worse", "noise"), CHANGES)
def test_changes_are_told_from_noise(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], worse: int, noise: int
) -> None:
    status, text = compared(tmp_path, {"readings": [old]}, {"readings": [new]})
    assert status == worse
    assert f"{worse} of them for the worse" in text
    assert ("1 readings of speed differ by no more than their rounds: noise." in text) == bool(noise)
    assert ("speed: b" in text) == (not noise and old != new)


def test_row_that_fails_is_for_the_worse_and_one_that_is_skipped_is_not(tmp_path: Path) -> None:
    good = {"readings": [reading(1.0, 0.9, 1.1)]}
    for status, worse in (("failed", 1), ("timeout", 1), ("skipped", 0)):
        bad = {"readings": [], "status": status}
        for name in ("before", "after"):
            (tmp_path / status / name).mkdir(parents=True)
        found, text = compared(tmp_path / status / "after", good, bad)
        assert found == worse
        assert bool(re.search(r"speed: measured +step +cpu, float32 +1 +failed", text)) == bool(worse)
        assert compared(tmp_path / status / "before", bad, good)[0] == 0


MUTANTS: dict[str, tuple[Any, str, Any, Any]] = {
    "times among the numbers": (results, "_TIMED", (), test_numbers_are_the_same_where_times_are_not),
    "no seed": (
        *(measured, "_seeded", lambda _: contextlib.nullcontext()),
        test_numbers_are_the_same_where_times_are_not,
    ),
    "others beside them": (command, "replace", lambda choice, **_: choice, test_rows_are_measured_alone),
    "names as they are": (
        speed_page,
        "_text",
        lambda value: value,
        test_page_and_tables_hold_every_reading_and_are_inert,
    ),
    "missed goals fail": (
        summary,
        "failures",
        lambda lines: [*lines, *lines],
        test_without_a_gpu_its_part_is_not_measured_and_the_rest_is,
    ),
    "never kept": (store, "_state", lambda *_: "new", test_what_is_measured_is_kept),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_told_apart(name: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, mutant, test = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, mutant)
    given = {"mine": mine, "tmp_path": tmp_path, "monkeypatch": monkeypatch}
    with pytest.raises(AssertionError):
        test(**{key: given[key] for key in inspect.signature(test).parameters})


@pytest.mark.parametrize(("answer", "row"), [(True, 0), (False, 2)])
def test_noise_and_changes_are_both_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool, row: int
) -> None:
    """Mutants that call everything noise, or nothing."""
    monkeypatch.setattr(compare, "_as_fast", lambda *_: answer)
    with pytest.raises(AssertionError):
        test_changes_are_told_from_noise(tmp_path, *CHANGES[row])


def test_rounds_are_paired_and_have_quartiles() -> None:
    found = of_rounds("a", "b", timing.ratios([2.0, 4.0, 9.0, 8.0, 5.0], [1.0, 2.0, 3.0, 2.0, 1.0]))
    assert (found.low, found.value, found.high) == (2.0, 3.0, 4.0)
    one = of_rounds("a", "b", [2.0])
    assert (one.low, one.value, one.high) == (2.0, 2.0, 2.0)
    order: list[str] = []
    functions = {name: lambda name=name: float(order.append(name) or len(order)) for name in "ab"}
    assert timing.rounds_of(functions, 2) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert order == list("ababab")


def test_goals_are_reached_at_their_bound() -> None:
    for value, reached in ((1.3, True), (1.31, False)):
        assert Reading("a", "b", value, goal=1.3).reached is reached
    for value, reached in ((3.0, True), (2.9, False)):
        assert Reading("a", "b", value, goal=3.0, sense="at least").reached is reached
    assert Reading("a", "b", None, goal=3.0).reached is None is Reading("a", "b", 1.0).reached
    assert readings.where({"device": "cpu", "dtype": "float64", "rounds": 1}) == "cpu, float64, 1 round"
    assert readings.shown({"value": 1234.5, "unit": "us"}) == "1234 us"


def test_counts_are_those_of_a_step() -> None:
    """As tests/execute/test_cost.py counts them: three passes, one more for a conversion or for full checks."""
    with torch.no_grad():
        found = list(speed.row("counts").measure(Setting(rounds=1)))
    table: dict[str, list[float | None]] = {}
    for r in found:
        table.setdefault(r.case, []).append(r.value)
    assert table == {
        "network predicts data, checks='end'": [3, 0, 0, 0],
        "network predicts data, checks='full'": [4, 1, 0, 0],
        "network predicts noise, checks='end'": [4, 0, 0, 0],
        "network predicts noise, checks='full'": [5, 1, 0, 0],
    }
    assert all(r.exact and r.reached is not False for r in found)


def test_suites_name_every_row() -> None:
    suites = [suite for suite in map(load, available()) if suite.speed]
    named = {cell.timed.row for suite in suites for cell in expand(suite) if cell.timed is not None}
    assert named == set(speed.MODULES) - {"good", "bad"}


def test_make_runs_every_suite_and_those_of_speed_last() -> None:
    text = (Path(__file__).parents[2] / "Makefile").read_text()
    [named] = re.findall(r"^SUITES := (.*)$", text, re.M)
    of_speed = [name for name in named.split() if load(name).speed]
    assert set(named.split()) == set(available()) - {"smoke"}
    assert named.split()[-len(of_speed) :] == of_speed == ["gpu", "speed"]


LONG = ("srk", "brownian", "adaptive")  # minutes, of which the first reading shows that they run


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(speed.MODULES))
def test_every_row_gives_numbers(name: str) -> None:
    row = speed.row(name)
    if "cpu" not in row.devices:
        pytest.skip("of GPUs alone")
    dtype = "float32" if "float32" in row.dtypes else row.dtypes[0]
    with torch.no_grad():
        readings = row.measure(Setting("cpu", dtype, 1))
        found = list(itertools.islice(readings, 1) if name in LONG else readings)
    keys = [(r.case, r.quantity) for r in found]
    assert found and len(keys) == len(set(keys))
    assert all(r.note if r.value is None else math.isfinite(r.value) for r in found)
