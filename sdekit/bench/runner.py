"""Cells to results, by an engine. The results are the same whichever it is, and whatever happens to some of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sdekit.bench import engines
from sdekit.bench.cells import Cell
from sdekit.bench.engines import Choice
from sdekit.bench.job import Job, do, row
from sdekit.bench.plugins import NONE, Plugins
from sdekit.bench.store import Store

__all__ = ["run"]


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
            if store is not None:
                store.put(cells[i], tolerance, result, made)
            yield i, result
    finally:
        engine.close()


def _mixed(count: int) -> list[int]:
    """A fixed random order: with quick and slow cells mixed, the time left can be told from the time spent."""
    order = list(range(count))
    random.Random(count).shuffle(order)
    return order
