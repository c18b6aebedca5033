"""Benchmarks under an audit hook: reading results runs no code of theirs, whatever is in the files; measuring and
drawing ask for nothing of the network and write where they are told."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdekit
from sdekit.bench import results
from sdekit.bench.files import sealed

pytestmark = pytest.mark.slow

# Runs commands twice: on honest results, for all that is imported on use, and then, watched, on hostile ones.
WATCH = """
import ast, collections, dataclasses, inspect, json, os, socket, sys, typing
honest, hostile, root, mutant = json.loads(sys.argv[1])
found, seen, watching, workers = [], [], False, False
places = {os.path.dirname(os.__file__), sys.prefix, sys.base_prefix, root}
installed = tuple(os.path.realpath(path) + os.sep for path in places)
# They make code of annotations and of fields of classes; ast makes a tree of a text, which numpy reads its headers by.
makers = {sys.modules[name].__file__ for name in ("typing", "inspect", "dataclasses", "collections", "ast")}
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
    elif event.startswith("socket."):
        # Worker processes are spoken to through sockets that are files.
        of_files = getattr(args[0], "family", None) == socket.AF_UNIX or args[1:2] == (socket.AF_UNIX,)
        if not (workers and of_files):
            found.append([event, repr(args)[:200]])
    elif event in forbidden and not (workers and event == "pickle.find_class"):
        found.append([event, repr(args)[:200]])

sys.addaudithook(audit)
from sdekit.cli import main

def run(words):
    global workers
    workers = "--workers" in words
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


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder with a short name: workers meet at a socket below it, whose path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="sdekit-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def watched_readers(top: Path, mutant: str = "") -> tuple[dict[str, Any], int]:
    marker, scratch = top / "marker", top / "scratch"
    (scratch / "runs").mkdir(parents=True)
    good = folder(scratch / "good", as_file(content()))
    others = hostile(scratch / "runs", marker)
    honest = [w for w in commands(good, good) if w[1] != "query"] + [["bench", "query", str(good), "select 1"]]
    seen = watched(top, honest, [w for path in others for w in commands(path, good)], mutant)
    assert mutant or not marker.exists()
    return seen, len(others)


def watched(top: Path, honest: list[list[str]], hostile: list[list[str]], mutant: str = "") -> dict[str, Any]:
    """Run commands in a process of their own, which may write below top/scratch; what the second list did."""
    given = json.dumps([honest, hostile, str(Path(sdekit.__file__).parents[1]), mutant])
    scratch, home = top / "scratch", top / "home"
    home.mkdir()
    about = {**os.environ, "TMPDIR": str(scratch), "NO_COLOR": "1", "MPLCONFIGDIR": str(top / "matplotlib")}
    about |= {"HOME": str(home), "XDG_CACHE_HOME": str(top / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", WATCH, given], capture_output=True, text=True, env=about, cwd=scratch, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Traceback" not in run.stderr
    assert not list(home.iterdir())
    return json.loads(run.stdout.splitlines()[-1])


def test_reading_hostile_results_runs_and_asks_for_nothing(top: Path) -> None:
    seen, count = watched_readers(top)
    assert seen["found"][:3] == []
    assert set(seen["codes"]) <= {0, 1, 2} and seen["opened"] > count
    # What is well formed is shown, as the texts that it is; all the rest is refused.
    each = len(seen["codes"]) // count
    by_folder = [seen["codes"][i * each : (i + 1) * each] for i in range(count)]
    assert by_folder[2][0] == by_folder[2][3] == by_folder[2][5] == 0
    assert all(set(codes) == {2} for codes in (by_folder[i] for i in (0, 1, 3, 5, 6)))


def test_readers_less_careful_are_caught(top: Path) -> None:
    """The mutants: by pickle, by eval, with the help of another program, and one that writes elsewhere."""
    seen, _ = watched_readers(top, CARELESS)
    assert {found[0] for found in seen["found"]} >= {"pickle.find_class", "compile", "subprocess.Popen", "written"}
    assert (top / "marker").exists()  # without care the files do what they say


SMALL = """
name = "small"
description = "One of everything that is measured"

[processes]
edm = { make = "EDM" }

[targets]
ring = { make = "ring" }
points = { make = "empirical", options = { data = "points.npy", std = 0.1 } }
"""
PLACE = """
target = "points"
process = "edm"
grid = "karras"
half_log_snr = [-3.0, 2.0]
calls = [5, 10]
samples = 16
solvers = [{ solver = "ddim" }, { solver = "ddpm" }]
"""
SECTIONS = ["[[work]]" + PLACE, "[[parts]]" + PLACE]
SECTIONS += ["[[sampled]]" + PLACE + 'metrics = ["energy", "sliced_w2"]\nrepeats = 3\n']
SECTIONS += ["[[pictures]]" + PLACE + "size = [1, 2]\nvalues = [-1.0, 1.0]\n"]
SECTIONS += ['[[protocol]]\ntarget = "points"\ncalls = [10]\ntruncations = [0.0]\n']
SECTIONS += ['[[speed]]\nrows = ["counts"]\nrounds = 1\n']

# In each kind of command, a line that asks the network and one that writes elsewhere.
LEAKING = """
import contextlib, socket
from pathlib import Path
from sdekit.bench import animate, command, report

def leaking(real):
    def leaks(*arguments):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
        Path(os.environ["TMPDIR"], "..", "elsewhere").write_text("x")
        return real(*arguments)
    return leaks

TARGET
"""


def makers(scratch: Path, out: str, marker: Path) -> tuple[list[list[str]], list[int]]:
    """Commands that measure and draw, with their exit statuses: honest ones, then ones that ask for something else."""
    code = CODE.format(marker=marker)
    bomb = scratch / out / "cells" / ("0" * 32 + ".json")
    bomb.parent.mkdir(parents=True)
    bomb.write_bytes(pickle.dumps(Bomb(marker)))
    hostile = scratch / "hostile.toml"
    names = {"ring": "os:system", "vp": "subprocess:Popen", "text": code}
    builds = "".join(f"{name} = {{ make = {json.dumps(make)} }}\n" for name, make in names.items())
    hostile.write_text(SMALL.replace("[targets]", builds + "[targets]") + SECTIONS[0].replace('"ddim"', '"os:system"'))
    run = ["bench", "run", "small.toml", "--out", out]
    animate = ["bench", "animate", "--calls", "2", "--particles", "5", "--out"]
    wanted = {
        (*run, "--engine", "here"): 0,
        (*run, "--engine", "here", "--resume"): 0,
        (*run, "--workers", "1", "--only", "counts"): 0,
        ("bench", "run", "hostile.toml", "--out", out, "--engine", "here"): 2,
        (*animate, f"{out}/flow.gif"): 0,
        (*animate, f"{out}/x.gif", "--target", "os:system"): 2,
        (*animate, f"{out}/x.gif", "--solver", code): 2,
    }
    return [list(words) for words in wanted], list(wanted.values())


def work_place(top: Path, sections: str) -> Path:
    scratch = top / "scratch"
    scratch.mkdir()
    np.save(scratch / "points.npy", np.arange(12.0).reshape(6, 2))
    (scratch / "small.toml").write_text(SMALL + sections)
    return scratch


def test_measuring_and_drawing_ask_for_nothing_and_write_where_they_are_told(top: Path) -> None:
    scratch, marker = work_place(top, "".join(SECTIONS)), top / "marker"
    first, statuses = makers(scratch, "first", marker)
    again, _ = makers(scratch, "again", marker)
    seen = watched(top, [first[0], first[4]], again)
    assert not seen["found"], "\n".join(map(str, seen["found"][:5]))
    assert seen["codes"] == statuses
    assert not marker.exists()
    # PyTorch makes a folder of its own among the temporary ones.
    expected = {"first", "again", "points.npy", "small.toml", "hostile.toml"}
    assert {path.name for path in scratch.iterdir() if "inductor" not in path.name} == expected
    assert (scratch / "again" / "report.html").stat().st_size > 1_000_000
    assert (scratch / "again" / "flow.gif").read_bytes().startswith(b"GIF")
    assert not (scratch / "again" / "x.gif").exists()


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ("animate.write_as_asked", ["animate", "--calls", "1", "--particles", "2"]),
        ("report.write_report", ["run", "small.toml", "--engine", "here", "--out", "out"]),
    ],
)
def test_makers_that_leak_are_caught(top: Path, leak: str, words: list[str]) -> None:
    """The mutants: one that draws and one that measures, with a connection and with a file elsewhere."""
    work_place(top, SECTIONS[-1])
    seen = watched(top, [], [["bench", *words]], LEAKING.replace("TARGET", f"{leak} = leaking({leak})"))
    assert {"socket.__new__"} <= {found[0] for found in seen["found"]}
    assert ["written", str(top / "elsewhere")] in seen["found"]
