"""Worker processes that anything may happen to: what is done in one of them cannot hurt the others, nor this one.

A task that raises, hangs, crashes, calls `os._exit`, takes all memory or prints without end comes back as an `Outcome`
that says so, with what was printed last. The process that did it is replaced by a fresh one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

import torch
from tqdm import tqdm

from sdekit.bench.limits import Limits, failure, limited_memory

__all__ = ["Outcome", "Workers", "attempt"]

_STARTING = 600.0  # seconds that a process may take to import what it needs
_GRACE = 1.0  # seconds between a worker's own report that time is up and its end
_MOST_OUTPUT = 64 * 2**20
_TAIL = 8000  # bytes of what was printed that are kept


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        value: what the function returned; None where it did not.
        status: "ok", or one of `FAILURES`.
        message, trace: what went wrong, in a line and at length.
        seconds: how long it took.
    """

    value: Any = None
    status: str = "ok"
    message: str = ""
    trace: str = ""
    seconds: float = 0.0


@dataclass
class _Worker:
    process: Any
    tasks: Connection
    output: Connection
    begun: float
    deadline: float
    key: Any = None
    busy: bool = False
    listening: bool = True  # until it closes what it prints to
    printed: int = 0
    tail: bytearray = field(default_factory=bytearray)


class Workers:
    """A function applied to tasks by processes of their own, one task each at a time.

    Args:
        function: of a module, as processes find it by its name.
        count: how many processes; each is started with the first task that it gets.
        limits: for each task.
    """

    def __init__(self, function: Callable[[Any], Any], count: int, limits: Limits) -> None:
        self._function, self._count, self._limits = function, count, limits
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._workers: list[_Worker] = []
        # A server that has imported torch once forks workers off in milliseconds. It has no threads; this process may
        # have some, in any state, and is never forked itself. Elsewhere than on Linux each worker starts afresh.
        self._context: Any = multiprocessing.get_context("forkserver" if sys.platform.startswith("linux") else "spawn")
        if sys.platform.startswith("linux"):
            self._context.set_forkserver_preload([__name__, function.__module__])

    def submit(self, key: Any, task: Any) -> None:
        """Have a task done; its outcome comes out of `finished`, under this key."""
        self._waiting.append((key, task))

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Keys and outcomes, in the order in which tasks end, until all that were submitted have."""
        while self._waiting or any(worker.busy for worker in self._workers):
            self._hand_out()
            yield from self._collect()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _release(worker)
        self._workers.clear()
        self._waiting.clear()

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers if not worker.busy]
        while self._waiting and (idle or len(self._workers) < self._count):
            worker = idle.pop() if idle else self._start()
            worker.key, task = self._waiting.popleft()
            worker.busy, worker.printed = True, 0
            worker.tail.clear()
            worker.begun = time.monotonic()
            worker.deadline = worker.begun + _STARTING
            with contextlib.suppress(OSError):  # it died while idle: its end is noticed as that of any other
                worker.tasks.send(task)

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        output, printing = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve, args=(self._function, there, printing, self._limits), daemon=False
        )
        process.start()
        there.close()
        printing.close()
        os.set_blocking(output.fileno(), False)
        now = time.monotonic()
        worker = _Worker(process, here, output, begun=now, deadline=now + _STARTING)
        self._workers.append(worker)
        return worker

    def _collect(self) -> Iterator[tuple[Any, Outcome]]:
        """Wait until something happens, and give out what has ended by it."""
        busy = [worker for worker in self._workers if worker.busy]
        left = min(worker.deadline for worker in busy) - time.monotonic()
        handles = [handle for w in busy for handle in (w.tasks, w.process.sentinel)]
        handles += [w.output for w in busy if w.listening]
        ready = set(connection.wait(handles, timeout=max(left, 0.0)))
        for worker in busy:
            outcome = self._state_of(worker, ready)
            if outcome is not None:
                worker.busy = False
                if outcome.status != "ok":
                    self._replace(worker)
                yield worker.key, replace(outcome, seconds=time.monotonic() - worker.begun)

    def _state_of(self, worker: _Worker, ready: set[Any]) -> Outcome | None:
        """The outcome of a worker's task, or None while there is none."""
        if worker.output in ready:
            _read_output(worker)
        if worker.tasks in ready:
            outcome = self._received(worker)
            if outcome is not None:
                return outcome
        elif worker.process.sentinel in ready:
            return _died(worker)
        if worker.printed > _MOST_OUTPUT:
            message = f"printed more than {_MOST_OUTPUT // 2**20} MB"
            return Outcome(status="failed", message=message, trace=_ended(worker))
        if time.monotonic() > worker.deadline:
            message = f"took more than {self._limits.seconds:g} s"
            return Outcome(status="timeout", message=message, trace=_ended(worker))
        return None

    def _received(self, worker: _Worker) -> Outcome | None:
        try:
            message = worker.tasks.recv()
        except (EOFError, OSError):
            return _died(worker)
        if message is None:  # it has begun
            worker.begun = time.monotonic()
            worker.deadline = worker.begun + self._limits.seconds + _GRACE
            return None
        return message

    def _replace(self, worker: _Worker) -> None:
        worker.process.kill()
        _release(worker)
        self._workers.remove(worker)


def attempt(function: Callable[[Any], Any], task: Any, limits: Limits) -> Outcome:
    """Apply a function within a limit of memory; whatever it raises becomes an outcome."""
    try:
        with limited_memory(limits):
            return Outcome(function(task))
    except BaseException as error:  # noqa: BLE001  (SystemExit too: nothing that a task does may end the run)
        return Outcome(**failure(error))


def _serve(function: Callable[[Any], Any], tasks: Connection, printing: Connection, limits: Limits) -> None:
    """What a worker process does: tasks, one after the other, until it is ended."""
    # Ctrl-C reaches every process of a terminal; the one that was started by hand ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (1, 2):
        os.dup2(printing.fileno(), descriptor)
    printing.close()
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="replace", closefd=False)
    faulthandler.enable(sys.stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Its own lock is a semaphore of the system's, which nothing removes where a process is killed.
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)  # sums are then taken in one order, whatever the machine and the number of workers
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        tasks.send(None)
        faulthandler.dump_traceback_later(limits.seconds, file=sys.stderr)
        outcome = attempt(function, task, limits)
        faulthandler.cancel_dump_traceback_later()
        tasks.send(outcome)


def _end_with_parent() -> None:
    """A worker whose run was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _read_output(worker: _Worker) -> None:
    """Take what a worker has printed, so that it never waits for room, and keep the end of it."""
    with contextlib.suppress(BlockingIOError):
        while worker.printed <= _MOST_OUTPUT:
            block = os.read(worker.output.fileno(), 2**16)
            if not block:
                worker.listening = False
                return
            worker.printed += len(block)
            worker.tail += block
            del worker.tail[:-_TAIL]


def _ended(worker: _Worker) -> str:
    """End a worker; what it had printed."""
    worker.process.kill()
    worker.process.join()
    _read_output(worker)
    return worker.tail.decode(errors="replace")


def _died(worker: _Worker) -> Outcome:
    """What is known of a worker that ended without a result."""
    worker.process.join()
    _read_output(worker)
    code, trace = worker.process.exitcode or 0, worker.tail.decode(errors="replace")
    if code >= 0:
        return Outcome(status="crash", message=f"its process ended with exit status {code}", trace=trace)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL" or "bad_alloc" in trace:
        message = f"its process was ended by {name}, as happens when memory runs out"
        return Outcome(status="oom", message=message, trace=trace)
    return Outcome(status="crash", message=f"its process was ended by {name}", trace=trace)


def _release(worker: _Worker) -> None:
    worker.process.join()
    worker.tasks.close()
    worker.output.close()
    worker.process.close()
