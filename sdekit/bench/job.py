"""What a worker is sent and what it sends back: a measurement with all that it needs, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdekit.bench import plugins
from sdekit.bench.cells import Cell
from sdekit.bench.measure import described, measure
from sdekit.bench.plugins import NONE, Plugins
from sdekit.bench.store import made_by
from sdekit.bench.workers import Outcome

__all__ = ["Job", "do", "row"]


@dataclass(frozen=True)
class Job:
    """One cell to be measured, wherever that is."""

    cell: Cell
    tolerance: float
    plugins: Plugins = NONE


def do(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a job, and what it was made by: on a cluster that need not be this machine."""
    plugins.use(job.plugins)
    plugins.solver_name(job.cell.variant.solver)  # which an installed package may offer
    return measure(job.cell, job.tolerance), made_by(job.cell)


def row(job: Job, outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `do` returned; or, where it did not, a result that says why."""
    if outcome.status == "ok":
        return outcome.value
    failed = {name: getattr(outcome, name) for name in ("status", "message", "trace", "seconds")}
    return described(job.cell) | failed, made_by(job.cell)
