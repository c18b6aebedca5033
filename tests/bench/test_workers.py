"""Whatever a task does, it comes back as an outcome, the others are done, and no process is left."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sdekit.bench import limits, workers
from sdekit.bench.limits import FAILURES, Limits
from sdekit.bench.workers import Outcome, Workers
from sdekit.errors import OptionError

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")


@pytest.fixture(autouse=True)
def _bad_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import the tasks by their name, from where this process would."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def do() -> Callable[[Any], Any]:
    """The function that does a task."""
    return importlib.import_module("bad_tasks").do


def outcomes(tasks: Sequence[Any], count: int = 2, **given: Any) -> dict[Any, Outcome]:
    """Of each task, by itself as the key."""
    pool = Workers(do(), count, Limits(**{"seconds": 20.0, **given}))
    try:
        for task in tasks:
            pool.submit(task, task)
        return dict(pool.finished())
    finally:
        pool.close()


BAD = {  # task: status, and words of the message and of the trace
    "raise": ("failed", "ValueError: not today", "in _raise"),
    "segfault": ("crash", "SIGSEGV", "Segmentation fault"),
    "abort": ("crash", "SIGABRT", "Fatal Python error: Aborted"),
    "_exit": ("crash", "exit status 3", ""),
    "_exit 0": ("crash", "exit status 0", ""),
    "sys.exit": ("failed", "SystemExit: 0", "bad_tasks.py"),
    "kill": ("oom", "SIGKILL", ""),
    "1 GB of output": ("failed", "more than 64 MB", "all work and no play"),
    "function": ("crash", "exit status 1", "pickle"),
}


@pytest.mark.parametrize("count", [1, 2])
def test_bad_tasks_hurt_nobody(count: int) -> None:
    tasks = [item for i, name in enumerate(BAD) for item in (name, i)]
    found = outcomes(tasks, count)
    assert {task: outcome.value for task, outcome in found.items() if isinstance(task, int)} == {
        i: i * i for i in range(len(BAD))
    }
    for task, (status, message, trace) in BAD.items():
        assert (found[task].status, found[task].value) == (status, None)
        assert message in found[task].message
        assert trace in found[task].trace
        assert status in FAILURES
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("task", ["loop", "sleep"])
def test_time_is_limited_and_the_trace_says_where_it_went(task: str) -> None:
    found = outcomes([task, 2], 1, seconds=0.2)
    assert (found[task].status, found[task].message) == ("timeout", "took more than 0.2 s")
    assert f"in _{task}" in found[task].trace
    assert found[2].value == 4


@on_linux
@pytest.mark.parametrize("task", ["100 GB", "100 GB tensor", "100 GB slowly"])
def test_memory_is_limited(task: str) -> None:
    found = outcomes([task, 2], 1, memory_mb=300)
    assert (found[task].status, found[2].value) == ("oom", 4)
    assert found[task].trace.startswith("Traceback")


@on_linux
def test_limit_of_memory_is_of_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lifted afterwards, and a task within it is not held up."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    assert workers.attempt(lambda n: len(bytearray(n)), 10**8, Limits(memory_mb=300)).value == 10**8
    assert workers.attempt(lambda n: len(bytearray(n)), 10**9, Limits(memory_mb=300)).status == "oom"
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_output_within_bounds_is_nobodys_business(capfd: pytest.CaptureFixture[str]) -> None:
    found = outcomes(["a little output", "no output"])
    assert [outcome.status for outcome in found.values()] == ["ok", "ok"]
    assert capfd.readouterr() == ("", "")


def test_idle_workers_end_with_the_pool() -> None:
    pool = Workers(do(), 2, Limits())
    for i in range(2):
        pool.submit(i, i)
    assert sorted(key for key, _ in pool.finished()) == [0, 1]
    pids = [worker.process.pid for worker in pool._workers]
    pool.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_running_tasks_end_with_the_pool() -> None:
    pool = Workers(do(), 2, Limits())
    for name in ("sleep", "loop", 3):
        pool.submit(name, name)
    pool.submit(1, 1)
    pool._hand_out()
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()
    assert list(pool.finished()) == []


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"seconds": 0.0}, "cell_seconds"),
        ({"seconds": float("nan")}, "cell_seconds"),
        ({"seconds": float("inf")}, "cell_seconds"),
        ({"memory_mb": 1}, "cell_memory_mb"),
    ],
)
def test_limits_that_allow_nothing_are_refused(given: dict[str, Any], argument: str) -> None:
    with pytest.raises(OptionError, match=argument):
        Limits(**given)


def test_memory_cannot_be_limited_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.sys, "platform", "darwin")
    with pytest.raises(OptionError, match="300 on darwin"):
        Limits(memory_mb=300)
