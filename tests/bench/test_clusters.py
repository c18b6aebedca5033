"""Ray and Dask for real, on clusters of this machine: the same numbers, one bad cell harms no other, none is left."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdekit.bench import engines, runner
from sdekit.bench.cells import expand
from sdekit.bench.engines import Choice
from sdekit.bench.files import digest
from sdekit.bench.limits import Limits
from sdekit.bench.results import _NOT_NUMBERS
from sdekit.bench.suite import load
from sdekit.errors import OptionError, UnknownNameError

CLUSTERS = [pytest.param("ray", marks=pytest.mark.slow), pytest.param("dask", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _bad_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes find the tasks where this process does."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cluster's name; afterwards none of its processes may be left."""
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[request.param])
    before = children()
    yield request.param
    deadline = time.monotonic() + 30
    while (left := children().keys() - before.keys()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not {pid: line for pid, line in children().items() if pid in left}


def children() -> dict[int, str]:
    """The processes below this one, but for those that Python keeps for the next ones, with their command lines."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return {pid: line for pid, line in found.items() if not re.search("resource_tracker|forkserver", line)}


def do() -> Callable[[Any], Any]:
    return importlib.import_module("bad_tasks").do


@pytest.mark.parametrize("name", CLUSTERS, indirect=True)
def test_bad_tasks_hurt_nobody(name: str) -> None:
    statuses = {"segfault": "crash", "_exit": "crash", "sys.exit": "failed", "loop": "timeout", "raise": "failed"}
    engine: Any = engines.start(Choice(name, 1, Limits(seconds=1.0)), do(), 1)
    try:
        for task in [*statuses, 1, 2, 3]:
            engine.submit(task, task)
        found = dict(engine.finished())
        assert {task: found[task].status for task in statuses} == statuses
        assert [found[n].value for n in (1, 2, 3)] == [1, 4, 9]
        assert "not today" in found["raise"].message and "in _raise" in found["raise"].trace
        # Another engine on the same cluster, which it leaves as it is.
        address = None if name == "ray" else engine._cluster.scheduler_address
        with pytest.raises(OptionError, match=r"64 for each measurement, of 0 that the \w+ cluster has"):
            engines.start(Choice(name, 1, cluster=address, gpus=64.0), do(), 1)
        engine.submit("loop", "loop")
    finally:
        start = time.monotonic()
        engine.close()
    assert time.monotonic() - start < 60, "what still runs is given up"


@pytest.mark.parametrize("name", CLUSTERS, indirect=True)
def test_numbers_are_those_of_the_local_engine(name: str, tiny: Path) -> None:
    tiny.write_text(tiny.read_text() + '[[speed]]\nrows = ["counts"]\nrounds = 1\n')
    suite = load(str(tiny))
    cells = expand(suite, "ddim") + expand(suite, "counts")  # a row of speed too

    def numbers(engine: str) -> str:
        found = dict(runner.run(cells, 0.15, Choice(engine, 2)))
        return digest([{k: v for k, v in found[i].items() if k not in _NOT_NUMBERS} for i in range(len(cells))])

    assert numbers(name) == numbers("here")


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_missing_package_names_its_extra(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda n: None if n == package else real(n))
    with pytest.raises(OptionError, match=rf"pip install 'sdekit\[{name}\]'"):
        Choice(name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "rai"}, "'ray'"),
        ({"workers": 0}, "workers"),
        ({"cluster": "127.0.0.1:1"}, "--cluster"),
        ({"gpus": 1.0}, "--gpus"),
    ],
)
def test_choice_that_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises((OptionError, UnknownNameError), match=words):
        Choice(**given)


def test_numbers_of_other_code_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a cluster may have another version; another processor is no harm."""
    cells = expand(load(str(tiny)), "ddim")[:1]
    real = runner.made_by
    monkeypatch.setattr(runner, "made_by", lambda cell: {**real(cell), "cpu": "another"})
    assert len(list(runner.run(cells, 0.15, Choice("here")))) == 1
    monkeypatch.setattr(runner, "made_by", lambda cell: {**real(cell), "torch": "1.0"})
    with pytest.raises(OptionError, match="another sdekit or environment, in torch"):
        list(runner.run(cells, 0.15, Choice("here")))
