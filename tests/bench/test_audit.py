"""Reading results runs no code of theirs: every command that reads them, under an audit hook, on hostile files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sdekit
from sdekit.bench import results
from sdekit.bench.files import sealed

pytestmark = pytest.mark.slow

# Runs commands twice: on honest results, for all that is imported on use, and then, watched, on hostile ones.
WATCH = """
import collections, dataclasses, inspect, json, os, sys, typing
honest, hostile, root, mutant = json.loads(sys.argv[1])
found, seen, watching = [], [], False
places = {os.path.dirname(os.__file__), sys.prefix, sys.base_prefix, root}
installed = tuple(os.path.realpath(path) + os.sep for path in places)
# They make code of annotations and of fields of classes.
makers = {sys.modules[name].__file__ for name in ("typing", "inspect", "dataclasses", "collections")}
forbidden = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "subprocess.Popen")

def of_a_package(path):
    return os.path.realpath(str(path)).startswith(installed) and os.path.isfile(str(path))

def audit(event, args):
    if not watching:
        return
    if event in ("exec", "compile"):
        maker = sys._getframe(1).f_code.co_filename
        if not of_a_package(args[0].co_filename if event == "exec" else args[1]) and maker not in makers:
            found.append([event, str(args[0])[:200], maker])
    elif event == "open":
        seen.append(str(args[0]))
        if isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = os.path.realpath(str(args[0]))
            if not path.startswith((os.path.realpath(os.environ["TMPDIR"]) + os.sep, os.devnull)):
                found.append(["written", path])
    elif event in forbidden or event.startswith("socket."):
        found.append([event, repr(args)[:200]])

sys.addaudithook(audit)
from sdekit.cli import main

def run(words):
    try:
        main(words)
    except SystemExit as leave:
        return leave.code or 0
    return 0

for words in honest:
    assert run(words) == 0, words
exec(mutant)
watching = True
codes = [run(words) for words in hostile]
watching = False
print("\\n" + json.dumps({"found": found, "codes": codes, "opened": len(seen)}))
"""

CARELESS = """
import contextlib, pickle, subprocess
from pathlib import Path
from sdekit.bench import report
readers = (
    lambda path: pickle.loads(path.read_bytes()),
    lambda path: eval(path.read_text(errors="replace").replace(chr(0), "")),
    lambda path: subprocess.run(["true"]),
    lambda path: Path(os.environ["TMPDIR"], "..", "elsewhere").write_text("x"),
)

def careless(folder):
    for read in readers:
        with contextlib.suppress(Exception):
            read(folder / "results.json")
    raise SystemExit(2)

report.read_results = careless
"""

CODE = "__import__('os').system('touch {marker}')"


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def work(name: str = "ddim", **more: Any) -> dict[str, Any]:
    points = [{"budget": n, "steps": n, "calls": n, "error": 1 / n, "low": 0.9 / n, "high": 1.2 / n} for n in (5, 10)]
    place = {"target": "ring", "process": "edm", "grid": "karras", "half_log_snr": [-4.0, 3.0]}
    about = {"name": "ddim", "options": {}, "family": "DDIM", "declared": 1, "status": "ok", "message": ""}
    return {"what": "work", "solver": name, "kind": "deterministic", **place, **about, "points": points, **more}


def content(name: str = "ddim", **more: Any) -> dict[str, Any]:
    suite = {"name": "small", "description": "x", "tolerance": 0.15, "table_calls": [10], "pictures": []}
    about = {"sdekit": "0.1.0", "cpu": "x", "cores": 2, "date": "2026-01-02", "command": "x"}
    return {
        "format": results.FORMAT,
        "numbers": "x",
        "complete": True,
        "source": "x",
        "reused": 0,
        "environment": about,
        "seconds": 1.0,
        "suite": suite,
        "summary": [],
        "results": [work(name), work("heun")],
        **more,
    }


def folder(path: Path, raw: bytes) -> Path:
    path.mkdir()
    (path / results.FILE).write_bytes(raw)
    return path


def as_file(given: dict[str, Any]) -> bytes:
    return json.dumps(sealed(given)).encode()


def hostile(top: Path, marker: Path) -> list[Path]:
    """Folders of results, each of which would do something in a reader less careful."""
    code, bomb = CODE.format(marker=marker), pickle.dumps(Bomb(marker))
    poisoned = content(code)
    names = {"target": "../../../up", "process": f"$(touch {marker})", "grid": f"`touch {marker}`"}
    poisoned["results"] += [work(code, **names), work("{0.__class__.__init__.__globals__}", package=code)]
    poisoned["results"] += [work("os:system", what="sampled", points=[], options={"_target_": "os.system", "x": code})]
    poisoned["suite"] |= {
        "name": "/etc/../../x",
        "targets": {"x": {"make": "subprocess:Popen", "options": {"args": code}}},
    }
    poisoned["environment"] |= {"command": code, "cpu": "!!python/object/apply:os.system ['x']"}
    found = [
        folder(top / "pickle", bomb),
        folder(top / "code", code.encode()),
        folder(top / "names", as_file(poisoned)),
        folder(top / "nested", b"[" * 200_000),
        folder(top / "own-keys", as_file({**content(), "__reduce__": [code], "py/object": "os.system"})),
    ]
    kept = top / "cells-of-pickles"
    (kept / "cells").mkdir(parents=True)
    for name in ("0" * 32, "abc"):
        (kept / "cells" / f"{name}.json").write_bytes(bomb)
    linked = top / "linked"
    linked.mkdir()
    (linked / results.FILE).symlink_to(top / "pickle" / results.FILE)
    (linked / "results.parquet").write_bytes(bomb)
    # Written in its place, not through it.
    (found[2] / "report.html").symlink_to(marker)
    (found[2] / "results.parquet").symlink_to(marker)
    return [*found, kept, linked]


def commands(path: Path, good: Path) -> list[list[str]]:
    read = ["select * from cells", "select * from read_text('/etc/passwd')", "install httpfs", "copy cells to 'x.csv'"]
    words = [
        ["report", str(path)],
        ["compare", str(path), str(good)],
        ["compare", str(good), str(path)],
        ["export", str(path)],
        ["advise", str(path), "--calls", "10"],
        *(["query", str(path), sql] for sql in read),
        ["parquet", str(path)],
    ]
    return [["bench", *of_one] for of_one in words]


def watched(top: Path, mutant: str = "") -> tuple[dict[str, Any], int]:
    marker, scratch = top / "marker", top / "scratch"
    (scratch / "runs").mkdir(parents=True)
    good = folder(scratch / "good", as_file(content()))
    others = hostile(scratch / "runs", marker)
    honest = [w for w in commands(good, good) if w[1] != "query"] + [["bench", "query", str(good), "select 1"]]
    given = json.dumps(
        [honest, [w for path in others for w in commands(path, good)], str(Path(sdekit.__file__).parents[1]), mutant]
    )
    about = {**os.environ, "TMPDIR": str(scratch), "NO_COLOR": "1", "MPLCONFIGDIR": str(top / "matplotlib")}
    run = subprocess.run(
        [sys.executable, "-c", WATCH, given], capture_output=True, text=True, env=about, cwd=scratch, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Traceback" not in run.stderr
    assert mutant or not marker.exists()
    return json.loads(run.stdout.splitlines()[-1]), len(others)


def test_reading_hostile_results_runs_and_asks_for_nothing(tmp_path: Path) -> None:
    seen, count = watched(tmp_path)
    assert seen["found"][:3] == []
    assert set(seen["codes"]) <= {0, 1, 2} and seen["opened"] > count
    # What is well formed is shown, as the texts that it is; all the rest is refused.
    each = len(seen["codes"]) // count
    by_folder = [seen["codes"][i * each : (i + 1) * each] for i in range(count)]
    assert by_folder[2][0] == by_folder[2][3] == by_folder[2][5] == 0
    assert all(set(codes) == {2} for codes in (by_folder[i] for i in (0, 1, 3, 5, 6)))


def test_readers_less_careful_are_caught(tmp_path: Path) -> None:
    """The mutants: by pickle, by eval, with the help of another program, and one that writes elsewhere."""
    seen, _ = watched(tmp_path, CARELESS)
    assert {found[0] for found in seen["found"]} >= {"pickle.find_class", "compile", "subprocess.Popen", "written"}
    assert (tmp_path / "marker").exists()  # without care the files do what they say
