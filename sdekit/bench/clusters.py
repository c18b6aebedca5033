"""Measurements on a cluster, by Ray or by Dask: one task of the cluster each, and in it one process that may crash."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
from collections.abc import Callable, Iterator
from typing import Any, cast

from sdekit.bench.limits import Limits
from sdekit.bench.workers import Outcome, Workers
from sdekit.errors import OptionError

__all__ = ["DaskEngine", "RayEngine", "guarded"]

_pools: dict[tuple[Callable[[Any], Any], Limits], Workers] = {}


def guarded(function: Callable[[Any], Any], task: Any, limits: Limits) -> Outcome:
    """Do a task in a process of its own of this node, as the local engine does; it stays for the next task."""
    pool = _pools.get((function, limits))
    if pool is None:
        pool = _pools[function, limits] = Workers(function, 1, limits)
        # Before Python waits for the processes that are left, which wait for tasks.
        multiprocessing.util.Finalize(None, pool.close, exitpriority=10)
    pool.submit(None, task)
    with _children_allowed():
        return next(outcome for _, outcome in pool.finished())


@contextlib.contextmanager
def _children_allowed() -> Iterator[None]:
    """Dask marks its workers as daemons, which may not start processes; ours end with them by themselves."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # there is no public way
    before = config.pop("daemon", None)
    try:
        yield
    finally:
        if before is not None:
            config["daemon"] = before


class RayEngine:
    """Tasks on a Ray cluster.

    Args:
        function: of a module that all nodes can import.
        count: how many processors a cluster of this machine gets, where no address is given.
        limits: for each task.
        address: of a running cluster, as `ray.init` takes it.
        gpus: how many of them, or what part of one, each task needs.

    Raises:
        OptionError: for a cluster that cannot be reached, or has no such GPU: a task for one would wait for ever.
    """

    def __init__(
        self, function: Callable[[Any], Any], count: int, limits: Limits, address: str | None, gpus: float
    ) -> None:
        import ray

        self._ray, self._function, self._limits = ray, function, limits
        self._owned = not ray.is_initialized()
        if self._owned:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            here: dict[str, Any] = {} if address else {"num_cpus": count, "include_dashboard": False}
            with _reached("Ray", address):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
        try:
            _check_gpus("Ray", gpus, ray.cluster_resources().get("GPU", 0))
        except BaseException:
            self._leave()
            raise
        # A task that kills its worker would kill the next one too.
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(guarded)
        self._keys: dict[Any, Any] = {}

    def submit(self, key: Any, task: Any) -> None:
        """Have a task done; its outcome comes out of `finished`, under this key."""
        self._keys[self._task.remote(self._function, task, self._limits)] = key

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Keys and outcomes, in the order in which tasks end, until all that were submitted have."""
        while self._keys:
            done, _ = self._ray.wait(list(self._keys), num_returns=1)
            for reference in done:
                yield self._keys.pop(reference), self._outcome(reference)

    def close(self) -> None:
        """Cancel what is left, and end the cluster if it was started here."""
        for reference in self._keys:
            self._ray.cancel(reference, force=True)
        self._keys.clear()
        self._leave()

    def _outcome(self, reference: Any) -> Outcome:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.OutOfMemoryError as error:
            return Outcome(status="oom", message=_line(error), trace=str(error))
        except self._ray.exceptions.RayError as error:
            return Outcome(status="crash", message=_line(error), trace=str(error))

    def _leave(self) -> None:
        if self._owned:
            self._ray.shutdown()


class DaskEngine:
    """Tasks on a Dask cluster. Arguments and errors are those of `RayEngine`, `address` is as Dask's client takes it.

    What Dask knows of GPUs is what its workers were started with: `dask worker --resources "GPU=1"`.
    """

    def __init__(
        self, function: Callable[[Any], Any], count: int, limits: Limits, address: str | None, gpus: float
    ) -> None:
        from distributed import Client, LocalCluster

        self._function, self._limits, self._gpus = function, limits, gpus
        self._cluster: Any = None
        if address is None:
            self._cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=cast("str", None))
        with _reached("Dask", address):
            self._client: Any = Client(self._cluster or address, set_as_default=False)
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            _check_gpus("Dask", gpus, max((w["resources"].get("GPU", 0) for w in workers), default=0))
        except BaseException:
            self._leave()
            raise
        self._keys: dict[Any, Any] = {}

    def submit(self, key: Any, task: Any) -> None:
        """Have a task done; its outcome comes out of `finished`, under this key."""
        resources = {"GPU": self._gpus} if self._gpus else None
        future = self._client.submit(
            guarded, self._function, task, self._limits, pure=False, retries=0, resources=resources
        )
        self._keys[future] = key

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Keys and outcomes, in the order in which tasks end, until all that were submitted have."""
        from distributed import as_completed

        for future in as_completed(list(self._keys), loop=self._client.loop):
            yield self._keys.pop(future), _dask_outcome(future)

    def close(self) -> None:
        """Cancel what is left, and end the cluster if it was started here."""
        self._client.cancel(list(self._keys), force=True)
        self._keys.clear()
        self._leave()

    def _leave(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _dask_outcome(future: Any) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(status="crash", message=_line(error), trace=str(error))


def _line(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"


@contextlib.contextmanager
def _reached(kind: str, address: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(
            "--cluster",
            got=f"{address or 'a new cluster'}: {_line(error)}",
            expected=f"a {kind} cluster that can be reached",
            fix="Check the address, and that its version is the one here.",
        ) from error


def _check_gpus(kind: str, wanted: float, there: float) -> None:
    if wanted > there:
        raise OptionError(
            "--gpus",
            got=f"{wanted:g} for each measurement, of {there:g} that the {kind} cluster has",
            expected="no more than it has: a task that needs more waits for ever",
            fix="Ask for fewer, or add a node that has them.",
        )
