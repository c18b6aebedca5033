"""Cells to results: here, or in worker processes of one thread each. The results are the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

import torch

from sdekit.bench.cells import Cell
from sdekit.bench.measure import measure
from sdekit.bench.store import Store
from sdekit.errors import SdekitError
from sdekit.times import check_count

__all__ = ["default_workers", "run"]


def default_workers() -> int:
    """As many as this process may use cores, up to 16: more would spend their time on importing torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def run(
    cells: list[Cell], tolerance: float, workers: int, store: Store | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The index and the result of every cell, in the order in which they are finished.

    Every measurement runs on one thread, so that sums are taken in one order whatever the machine and `workers`.
    Closing the iterator, or an interrupt, ends the workers; so does the end of this process, however it comes.

    Args:
        workers: 1 measures in this process; more start as many others.
        store: where every result is kept at once, by the process that measured it; None keeps nothing.

    Raises:
        SdekitError: where a worker process died, for lack of memory for example.
    """
    check_count("workers", workers)
    if workers == 1 or len(cells) < 2:
        with _one_thread():
            for i in _mixed(len(cells)):
                yield i, _measured(cells[i], tolerance, store)
        return
    yield from _run_in_pool(cells, tolerance, min(workers, len(cells)), store)


def _measured(cell: Cell, tolerance: float, store: Store | None) -> dict[str, Any]:
    result = measure(cell, tolerance)
    if store is not None:
        store.put(cell, tolerance, result)
    return result


def _run_in_pool(
    cells: list[Cell], tolerance: float, workers: int, store: Store | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    # Started afresh, not forked: a fork copies torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    futures: dict[Future[dict[str, Any]], int] = {}
    try:
        for i in _mixed(len(cells)):
            futures[pool.submit(_measured, cells[i], tolerance, store)] = i
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise SdekitError(
            "workers",
            got="a worker process that died",
            expected="workers that finish",
            fix="Memory may have run out: use fewer, --workers 1 for example, and --resume.",
        ) from error
    finally:
        running = list((pool._processes or {}).values())  # there is no public way to stop what runs
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _mixed(count: int) -> list[int]:
    """A fixed random order: with quick and slow cells mixed, the time left can be told from the time spent."""
    order = list(range(count))
    random.Random(count).shuffle(order)
    return order


def _start_worker() -> None:
    """Ctrl-C reaches every process of a terminal; the one that was started by hand ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose run was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
