"""Cells to results, by an engine. The results are the same whichever it is, and whatever happens to some of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from sdekit.bench import engines
from sdekit.bench.cells import Cell
from sdekit.bench.engines import Choice
from sdekit.bench.job import Job, do, row
from sdekit.bench.plugins import NONE, Plugins
from sdekit.bench.store import Store, made_by
from sdekit.errors import OptionError

__all__ = ["run"]

_OF_NODES = ("machine", "cpu", "gpu")  # these may differ; what was made on them is used again on the same only


def run(
    cells: list[Cell], tolerance: float, choice: Choice, store: Store | None = None, plugins: Plugins = NONE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The index and the result of every cell, in the order in which they are finished.

    Every measurement runs on one thread, so that sums are taken in one order whatever the machine and the engine. One
    that fails, in whatever way, has a result that says so. Closing the iterator, or an interrupt, ends all work; so
    does the end of this process, however it comes.

    Args:
        choice: of an engine, with its workers and limits.
        plugins: code of the user that cells need.
        store: where every result is kept as soon as it comes; None keeps nothing.

    Raises:
        SdekitError: for an engine that cannot be had, or a store that cannot be written to.
    """
    if not cells:
        return
    engine = engines.start(choice, do, min(choice.workers, len(cells)))
    try:
        jobs = [Job(cell, tolerance, plugins) for cell in cells]
        for i in _mixed(len(cells)):
            engine.submit(i, jobs[i])
        for i, outcome in engine.finished():
            result, made = row(jobs[i], outcome)
            _check_code(made, made_by(cells[i]))
            if store is not None:
                store.put(cells[i], tolerance, result, made)
            yield i, result
    finally:
        engine.close()


def _check_code(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Numbers of other code or other versions never come among those of this: a node of a cluster may have them."""
    differs = [key for key in here if key not in _OF_NODES and there.get(key) != here[key]]
    if differs:
        raise OptionError(
            "--engine",
            got=f"a node of another sdekit or environment, in {', '.join(differs)}",
            expected="the same code and versions everywhere",
            fix="Install the same on every node; what is finished is kept, and --resume uses it.",
        )


def _mixed(count: int) -> list[int]:
    """A fixed random order: with quick and slow cells mixed, the time left can be told from the time spent."""
    order = list(range(count))
    random.Random(count).shuffle(order)
    return order
