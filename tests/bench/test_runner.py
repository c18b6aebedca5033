"""Runs: results do not depend on the workers, an interrupt keeps what is finished, a failure spoils nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sdekit import solvers
from sdekit.bench import command, job, runner
from sdekit.bench.cells import expand, runs_models
from sdekit.bench.engines import Choice
from sdekit.bench.peers import base
from sdekit.bench.suite import load
from sdekit.errors import OptionError


def run(suite: Path, out: Path, **options: Any) -> tuple[int, str, dict[str, Any]]:
    if options.get("workers") == 1:  # where tests can plant solvers, and count what is measured
        options.setdefault("engine", "here")
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        status = command.run_suite(str(suite), out=out, console=console, **options)
    return status, console.export_text(), json.loads((out / "results.json").read_text())


def timeless(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "point_seconds")} for r in results]


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    one = run(tiny, tmp_path / "one", workers=1, only="dd*")
    two = run(tiny, tmp_path / "two", workers=2, only="dd*")
    assert one[0] == two[0] == 0
    assert timeless(one[2]["results"]) == timeless(two[2]["results"])
    assert one[2]["numbers"] == two[2]["numbers"]
    assert one[2]["summary"] == two[2]["summary"]
    assert two[2]["environment"]["workers"] == 2
    for name in ("orders.csv", "errors.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_everything_is_written_and_named(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    status, text, found = run(tiny, out, workers=1, only="ddim")
    assert status == 0
    names = {p.name for p in out.iterdir()}
    assert names - {"cells"} == {
        *("results.json", "results.parquet", "orders.csv", "errors.csv", "report.html"),
        *("work-mixture.png", "orders.png", "samples-images.png"),
    }
    assert all(name in text for name in names - {"cells"})
    assert len(list((out / "cells").iterdir())) == len(found["results"]) == 4
    assert str(out) in text.replace("\n", "")
    assert found["complete"] is True
    assert {"torch", "python", "cpu", "date", "command", "threads_per_worker"} <= set(found["environment"])
    assert found["suite"]["name"] == "tiny"


def test_wrong_declaration_fails_the_run_and_is_named(tiny: Path, tmp_path: Path, planted: None) -> None:
    status, text, found = run(tiny, tmp_path / "out", workers=1, only="boastful")
    assert status == 1
    assert "SHORT" in text
    assert "boastful (deterministic) declares order 2, but 1.0" in text.replace("\n", " ")
    assert [line["verdict"] for line in found["summary"]] == ["SHORT"]


def test_failure_fails_the_run_and_leaves_the_rest(tiny: Path, tmp_path: Path, planted: None) -> None:
    status, text, found = run(tiny, tmp_path / "out", workers=1, only="[bd][rd]*[nm]")
    assert status == 1
    assert {line["solver"]: line["verdict"] for line in found["summary"] if line["kind"] == "deterministic"} == {
        "broken": "FAILED",
        "ddim": "holds",
    }
    assert "no rows today" in text


@pytest.mark.parametrize("finished", [0, 3])
def test_interrupt_keeps_what_is_finished(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    calls = []

    def interrupted(*arguments: Any) -> dict[str, Any]:
        if len(calls) == finished:
            raise KeyboardInterrupt
        calls.append(real(*arguments))
        return calls[-1]

    real = job.measure
    monkeypatch.setattr(job, "measure", interrupted)
    status, text, found = run(tiny, tmp_path / "out", workers=1, only="ddim")
    assert status == 130
    assert f"Interrupted after {finished} of" in text
    assert found["complete"] is False
    assert len(found["results"]) == finished
    assert not list((tmp_path / "out").glob("*.png"))


def test_threads_are_left_as_found(tiny: Path) -> None:
    torch.set_num_threads(2)
    try:
        cells = expand(load(str(tiny)), "ddim")[:2]
        assert [torch.get_num_threads() for _ in runner.run(cells, 0.15, Choice("here"))] == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_folder_that_cannot_be_written_is_refused_before_the_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="--out"):
        run(tiny, tmp_path / "file" / "out", workers=1)
    with pytest.raises(OptionError, match="workers"):
        run(tiny, tmp_path / "out", workers=0)


def test_resumed_run_measures_what_is_missing_and_gives_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, whole = run(tiny, tmp_path / "whole", workers=1, only="ddim")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        _stop_after(2, patch)
        run(tiny, out, workers=1, only="ddim")
    measured = _count_measurements(monkeypatch)
    status, text, found = run(tiny, out, workers=1, only="ddim", resume=True)
    assert (status, len(measured), found["reused"]) == (0, 2, 2)
    assert "Resumed: 2 measurements re-used, 2 to be measured (2 new)." in text
    assert "2 measurements in" in text and "2 re-used" in text
    assert found["numbers"] == whole["numbers"]
    measured.clear()
    run(tiny, out, workers=1, only="ddim", resume=True)
    assert not measured
    run(tiny, out, workers=1, only="ddim")
    assert len(measured) == 4, "without --resume everything is measured"


def test_damaged_measurement_is_named_and_measured_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _, _, whole = run(tiny, out, workers=1, only="ddim")
    broken = sorted((out / "cells").iterdir())[1]
    raw = bytearray(broken.read_bytes())
    raw[len(raw) // 2] ^= 1
    broken.write_bytes(raw)
    measured = _count_measurements(monkeypatch)
    _, text, found = run(tiny, out, workers=1, only="ddim", resume=True)
    assert len(measured) == 1
    assert "1 to be measured (1 damaged)" in text
    assert broken.name in text
    assert found["numbers"] == whole["numbers"]


def _stop_after(count: int, patch: pytest.MonkeyPatch) -> None:
    left = iter(range(count))
    real = job.measure

    def measure(*arguments: Any) -> dict[str, Any]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    patch.setattr(job, "measure", measure)


def _count_measurements(patch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    real = job.measure
    patch.setattr(job, "measure", lambda *a: calls.append(a[0]) or real(*a))
    return calls


def test_what_a_missing_package_leaves_out_is_told_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_text(tiny.read_text().replace("calls = [5, 10, 20, 40]", 'calls = [5, 10]\npeers = ["azula:*"]'))
    monkeypatch.setattr(base, "installed", lambda package: None)
    status, text, _ = run(tiny, tmp_path / "out", engine="here", only="azula:D*")
    said = " ".join(text.split())
    assert status == 0
    assert "Skipped: azula:DDIM, azula:DDPM: expected azula, installed. pip install azula." in said


def test_only_the_places_asked_for_are_measured(tiny: Path, tmp_path: Path) -> None:
    _, _, found = run(tiny, tmp_path / "out", workers=1, only="ddim", on="mixture, vp, half_log_snr")
    assert [(r["target"], r["process"], r["grid"]) for r in found["results"]] == [("mixture", "vp", "half_log_snr")]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_killed_run_is_resumed_without_loss(tiny: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Only the first process is killed: its workers must end by themselves, and what was finished is there."""
    tiny.write_text(tiny.read_text().replace("steps = [10, 20, 40]", "steps = [100, 200, 400]"))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "sdekit", "bench", "run", str(tiny), "--workers", "2", "--only", "dpmpp_2*"]
    with subprocess.Popen(
        [*words, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 200
        while len(list((out / "cells").glob("[0-9a-f]*.json"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(how)
    assert process.returncode == -how
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(process.pid)
    finished = len(list((out / "cells").glob("[0-9a-f]*.json")))
    _, text, found = run(tiny, out, workers=1, only="dpmpp_2*", resume=True)
    assert found["reused"] == finished >= 2
    assert "damaged" not in text
    assert not list((out / "cells").glob(".*"))
    _, _, whole = run(tiny, tmp_path / "whole", workers=1, only="dpmpp_2*")
    assert found["numbers"] == whole["numbers"]


@pytest.mark.slow
def test_smoke_passes_and_leaves_out_no_solver(tmp_path: Path) -> None:
    status, text, found = run(Path("smoke"), tmp_path / "out", workers=2)
    assert status == 0, text
    assert {r["name"] for r in found["results"]} == {
        info.name
        for info in solvers.available()
        if runs_models(info.name) and (info.order.deterministic or info.order.weak)
    }


@pytest.mark.slow
def test_control_c_in_a_terminal_ends_the_workers_too(tiny: Path, tmp_path: Path) -> None:
    """The signal goes to the whole group, as a terminal sends it, after the first results have come."""
    tiny.write_text(tiny.read_text().replace("steps = [10, 20, 40]", "steps = [200, 400, 800]"))
    words = [
        sys.executable,
        "-m",
        "sdekit",
        "bench",
        "run",
        str(tiny),
        "--workers",
        "2",
        "--only",
        "dpm*",
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert "measurements" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Interrupted after" in out
    assert "Traceback" not in err
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["complete"] is False
    assert found["results"]
    # The tracker that Python keeps beside worker processes leaves a moment after them.
    deadline = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
