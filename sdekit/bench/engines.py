"""Where measurements are made: in processes of this machine, in this very one, or on a cluster."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sdekit.bench.limits import Limits
from sdekit.bench.workers import Outcome, Workers
from sdekit.errors import OptionError, UnknownNameError, suggest
from sdekit.times import check_count

__all__ = ["ENGINES", "Choice", "Engine", "default_workers", "start"]

ENGINES = {
    "local": "processes of this machine, each of one thread; what happens in one hurts no other",
    "ray": "a Ray cluster: that at --cluster, or one of this machine",
    "dask": "a Dask cluster: that at --cluster, or one of this machine",
    "here": "this process: for debuggers; nothing is held to its limits, and a crash ends the run",
}
_PACKAGES = {"ray": "ray", "dask": "distributed"}


class Engine(Protocol):
    """What does tasks. Each comes back as an `Outcome`, whatever happens to it."""

    def submit(self, key: Any, task: Any) -> None:
        """Have a task done; its outcome comes out of `finished`, under this key."""
        ...

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Keys and outcomes, in the order in which tasks end, until all that were submitted have."""
        ...

    def close(self) -> None:
        """End all work, and what was started for it."""
        ...


def default_workers() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Choice:
    """An engine, and what it works with.

    Args:
        name: one of `ENGINES`.
        workers: how many measurements are made at a time.
        limits: for each of them.
        cluster: the address of a running one, for "ray" and "dask"; None starts one of this machine.
        gpus: what each measurement needs of them, there.

    Raises:
        UnknownNameError: for an engine that there is not, with near names.
        OptionError: for one whose package is not installed, and for what an engine does not take.
    """

    name: str = "local"
    workers: int = field(default_factory=default_workers)
    limits: Limits = field(default_factory=Limits)
    cluster: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UnknownNameError(
                "--engine", got=repr(self.name), expected="an engine", fix=suggest(self.name, ENGINES)
            )
        check_count("workers", self.workers)
        if self.name in _PACKAGES:
            self._check_package(_PACKAGES[self.name])
        elif self.cluster is not None or self.gpus:
            raise OptionError(
                "--cluster" if self.cluster is not None else "--gpus",
                got=self.cluster or f"{self.gpus:g}",
                expected=f"neither for the engine {self.name!r}, which is this machine and all of it",
                fix="Add --engine ray or --engine dask, or leave it out.",
            )
        if not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise OptionError("--gpus", got=self.gpus, expected="0 or more", fix="Change it.")

    def _check_package(self, package: str) -> None:
        if importlib.util.find_spec(package) is None:
            raise OptionError(
                "--engine",
                got=f"{self.name!r}, without the package {package}",
                expected="an engine that is installed",
                fix=f"Type: pip install 'sdekit[{self.name}]'.",
            )


def start(choice: Choice, function: Callable[[Any], Any], count: int) -> Engine:
    """An engine that applies a function to tasks, `count` of them at a time.

    Raises:
        OptionError: for a cluster that cannot be reached, or that has not what is asked of it.
    """
    if choice.name == "here":
        return Here(function, choice.limits)
    if choice.name == "local":
        return Workers(function, count, choice.limits)
    from sdekit.bench.clusters import DaskEngine, RayEngine

    engine = RayEngine if choice.name == "ray" else DaskEngine
    return engine(function, count, choice.limits, choice.cluster, choice.gpus)


class Here:
    """Tasks one after the other in this process, on one thread."""

    def __init__(self, function: Callable[[Any], Any], limits: Limits) -> None:
        self._function, self._limits = function, limits
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._threads = torch.get_num_threads()

    def submit(self, key: Any, task: Any) -> None:
        """Have a task done."""
        self._waiting.append((key, task))

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Keys and outcomes, in the order in which the tasks were submitted."""
        torch.set_num_threads(1)
        while self._waiting:
            key, task = self._waiting.popleft()
            start = time.perf_counter()
            yield key, Outcome(self._function(task), seconds=time.perf_counter() - start)

    def close(self) -> None:
        """Leave the process as it was found."""
        torch.set_num_threads(self._threads)
