"""Results to verdicts: for each solver and kind the least order measured, where, and the errors at some calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABOVE", "OWN_STEPS", "Line", "failures", "summarise", "work_spots"]

ABOVE = 0.35
"""Measured so much above the declared order: the declaration may be too modest, or the problem too easy."""


OWN_STEPS = "own steps"
"""What stands for a grid where a solver chooses its steps."""


@dataclass
class Line:
    """One solver in one kind of measurement.

    Attributes:
        declared: its order, or None.
        measured: the least over processes, targets and grids; None where nothing was measured or all is exact.
        where: process, target and grid of that least one.
        count: how many orders were measured.
        errors: by where it is measured, see `work_spots`, and number of calls.
        failed: where measurements came to nothing, by their message.
        skipped: why it was not measured at all, a package that is not installed for example.
    """

    solver: str
    kind: str
    declared: float | None = None
    measured: float | None = None
    where: str = ""
    count: int = 0
    errors: dict[tuple[str, int], float | None] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    skipped: str = ""
    tolerance: float = 0.15

    @property
    def short(self) -> bool:
        """Whether the measured order falls short of the declared one."""
        return (
            self.measured is not None and self.declared is not None and self.measured < self.declared - self.tolerance
        )

    @property
    def verdict(self) -> str:
        """ "holds", "above", "SHORT", "FAILED", "skipped", or "" where no order was measured."""
        if self.failed:
            return "FAILED"
        if self.skipped:
            return "skipped"
        if self.short:
            return "SHORT"
        if not self.count:
            return ""
        above = self.measured is None or (self.declared is not None and self.measured > self.declared + ABOVE)
        return "above" if above else "holds"


def summarise(results: Iterable[dict[str, Any]], tolerance: float, calls: Sequence[int]) -> list[Line]:
    """Lines in order of kind, declared order and name."""
    lines: dict[tuple[str, str], Line] = {}
    results = list(results)
    spots = work_spots(results)
    for result in results:
        if result["what"] not in ("order", "work") and result["status"] == "ok":
            continue
        key = (result["solver"], result["kind"])
        line = lines.setdefault(key, Line(*key, tolerance=tolerance))
        if result["status"] == "skipped":
            line.skipped = result["message"]
            continue
        if result["status"] != "ok":
            line.failed.setdefault(result["message"], []).append(place(result))
            continue
        line.declared = result["declared"]
        if result["what"] == "order":
            _add_order(line, result)
        else:
            line.errors |= {
                (spots[_where(result)], p["budget"]): p["error"] for p in result["points"] if p["budget"] in calls
            }
    return sorted(lines.values(), key=lambda v: (v.kind, v.declared or 0, v.solver))


def work_spots(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], str]:
    """What errors stand under, by target, process and grid: the target, where it is measured in one place alone."""
    found = dict.fromkeys(_where(r) for r in results if r["what"] == "work")
    grids = [where for where in found if where[2] != OWN_STEPS]
    alone = {t for t, *_ in grids if sum(other == t for other, *_ in grids) == 1}
    return {w: w[0] if w[0] in alone and w in grids else ", ".join(w) for w in found}


def _where(result: Mapping[str, Any]) -> tuple[str, str, str]:
    return result["target"], result["process"], result["grid"]


def place(result: Mapping[str, Any]) -> str:
    """Where a result was measured."""
    if result["what"] == "speed":
        return f"{result['device']}, {result['dtype']}"
    return f"{result['target']}, {result['process']}, {result['grid']}"


def failures(lines: Iterable[Line]) -> list[Line]:
    """The lines for which a run must not count as passed."""
    return [line for line in lines if line.short or line.failed]


def _add_order(line: Line, result: dict[str, Any]) -> None:
    line.count += 1
    measured = result["measured"]
    if measured is not None and (line.measured is None or measured < line.measured):
        line.measured, line.where = measured, place(result)
