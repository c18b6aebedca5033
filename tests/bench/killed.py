"""Runs of cheap measurements that are killed and resumed; run by tests/bench/test_kills.py, in a process of its own.

Runs and their workers are forked from it, as importing torch for each would take longer than all that it measures.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from sdekit.bench import job, runner, store, workers
from sdekit.bench.cells import Cell, Named, Variant
from sdekit.bench.engines import Choice
from sdekit.bench.store import Store

WORKERS = 2


def cells(count: int) -> list[Cell]:
    """Measurements that differ in their seed alone."""
    place = Variant("ddim", (), "ddim"), Named("vp", "VP", ()), Named("ring", "ring", ())
    return [Cell("order", "deterministic", *place, "uniform", -1.0, 1.0, None, 1, seed) for seed in range(count)]


def run(folder: Path, count: int, eager: bool) -> None:
    """What `sdekit bench run --resume` does, with a measurement that takes some milliseconds.

    Args:
        eager: the mutant: keep nothing until all is measured.
    """
    log = os.open(folder.parent / "begun", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def measure(cell: Cell, tolerance: float) -> dict[str, Any]:
        os.write(log, b"%d\n" % cell.seed)
        time.sleep(0.004)
        return {"status": "ok", "seed": cell.seed, "body": str(cell.seed) * 2000}

    workers.multiprocessing = _Forking()  # type: ignore[assignment]
    job.measure = measure
    kept, all_cells = Store(folder), cells(count)
    kept.prepare()
    found = kept.survey(all_cells, 0.15).found
    missing = [cell for i, cell in enumerate(all_cells) if i not in found]
    done = []
    for i, result in runner.run(missing, 0.15, Choice("local", 2), None if eager else kept):
        done.append((missing[i], result))
    if eager:
        for cell, result in done:
            kept.put(cell, 0.15, result)


class _Forking:
    """The module multiprocessing, but for the way to start processes."""

    parent_process = staticmethod(multiprocessing.parent_process)

    def get_context(self, method: str) -> Any:
        context = multiprocessing.get_context("fork")
        context.set_forkserver_preload = lambda names: None  # type: ignore[method-assign]
        return context


def forked(folder: Path, count: int, eager: bool) -> int:
    """A run in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    try:
        run(folder, count, eager)
        os._exit(0)
    except BaseException:  # noqa: BLE001  (a fork must not go on with what its parent was to do)
        traceback.print_exc()
        os._exit(1)


def exit_code(pid: int, seconds: float, log: Path | None = None) -> int | None:
    """That of a process, or None where it has not ended by then; the time counts from when the log grows, if given."""
    size = log.stat().st_size if log and log.exists() else 0
    deadline = None if log else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is None and log and log.exists() and log.stat().st_size > size:
            deadline = time.monotonic() + seconds
        if deadline is not None and time.monotonic() > deadline:
            return None
        time.sleep(0.001)


def main(top: Path, most: int, how: int, count: int, eager: bool) -> dict[str, Any]:
    """Kill runs at random moments, then let one end; what is there afterwards.

    Returns:
        kills; lost, how many files of results were gone after one; again, how many measurements were begun beyond the
        one time that each must be; found, how many results are there and as they should be; damaged.
    """
    store._surroundings()  # once; whoever edits the library meanwhile changes nothing
    (folder := top / "cells").mkdir(parents=True)
    moments, seen, lost, kills = random.Random(0), set(), 0, 0
    while True:
        pid = forked(folder, count, eager)
        # Every other one while it starts, the rest while it measures.
        if kills >= most:
            code = exit_code(pid, 100.0)
        elif kills % 2:
            code = exit_code(pid, moments.uniform(0.0, 0.1))
        else:
            window = (0.1, 0.3) if eager else (0.0, 0.04)
            code = exit_code(pid, moments.uniform(*window), top / "begun")
        if code is None:
            os.kill(pid, how)
            code = exit_code(pid, 100.0)
        if code == 0:
            break
        if code != -how:
            sys.exit(f"a run ended with {code}")
        kills += 1
        there = {path.name for path in folder.glob("[0-9a-f]*.json")}
        lost, seen = lost + len(seen - there), seen | there
    survey = Store(folder).survey(cells(count), 0.15)
    found = sum(result["body"] == str(i) * 2000 for i, result in survey.found.items())
    begun = len((top / "begun").read_text().split())
    return {"kills": kills, "lost": lost, "again": begun - count, "found": found, "damaged": survey.damaged}


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    most, how, count, eager = map(int, numbers)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.write(json.dumps(main(Path(where), most, how, count, bool(eager))))
