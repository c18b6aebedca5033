"""Results to verdicts: for each solver and kind the least order measured, where, and the errors at some calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABOVE", "Line", "failures", "summarise"]

ABOVE = 0.35
"""Measured so much above the declared order: the declaration may be too modest, or the problem too easy."""


@dataclass
class Line:
    """One solver in one kind of measurement.

    Attributes:
        declared: its order, or None.
        measured: the least over processes, targets and grids; None where nothing was measured or all is exact.
        where: process, target and grid of that least one.
        count: how many orders were measured.
        errors: by (target, number of calls).
        failed: where measurements came to nothing, by their message.
    """

    solver: str
    kind: str
    declared: float | None = None
    measured: float | None = None
    where: str = ""
    count: int = 0
    errors: dict[tuple[str, int], float | None] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    tolerance: float = 0.15

    @property
    def short(self) -> bool:
        """Whether the measured order falls short of the declared one."""
        return (
            self.measured is not None and self.declared is not None and self.measured < self.declared - self.tolerance
        )

    @property
    def verdict(self) -> str:
        """ "holds", "above", "SHORT", "FAILED", or "" where no order was measured."""
        if self.failed:
            return "FAILED"
        if self.short:
            return "SHORT"
        if not self.count:
            return ""
        above = self.measured is None or (self.declared is not None and self.measured > self.declared + ABOVE)
        return "above" if above else "holds"


def summarise(results: Iterable[dict[str, Any]], tolerance: float, calls: Sequence[int]) -> list[Line]:
    """Lines in order of kind, declared order and name."""
    lines: dict[tuple[str, str], Line] = {}
    for result in results:
        if result["what"] == "picture" and result["status"] == "ok":
            continue
        key = (result["solver"], result["kind"])
        line = lines.setdefault(key, Line(*key, tolerance=tolerance))
        if result["status"] != "ok":
            line.failed.setdefault(result["message"], []).append(place(result))
            continue
        line.declared = result["declared"]
        if result["what"] == "order":
            _add_order(line, result)
        else:
            line.errors |= {
                (result["target"], p["budget"]): p["error"] for p in result["points"] if p["budget"] in calls
            }
    return sorted(lines.values(), key=lambda v: (v.kind, v.declared or 0, v.solver))


def place(result: dict[str, Any]) -> str:
    """Where a result was measured."""
    return f"{result['target']}, {result['process']}, {result['grid']}"


def failures(lines: Iterable[Line]) -> list[Line]:
    """The lines for which a run must not count as passed."""
    return [line for line in lines if line.short or line.failed]


def _add_order(line: Line, result: dict[str, Any]) -> None:
    line.count += 1
    measured = result["measured"]
    if measured is not None and (line.measured is None or measured < line.measured):
        line.measured, line.where = measured, place(result)
