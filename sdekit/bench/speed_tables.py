"""Readings of speed as tables for papers and pages: one for each row, device and type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdekit.bench.readings import goal, of_speed, shown, verdict, where
from sdekit.bench.tabulated import Cell, Column, Table

__all__ = ["tables"]

_COLUMNS = (
    Column("case", ("case",), number=False),
    Column("quantity", ("quantity", "note"), number=False),
    Column("value", ("value", "low", "high", "unit")),
    Column("goal", ("sense", "goal"), number=False),
    Column("verdict", ("verdict",), number=False),
)


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Of the results that `read_results` gives; a row that was not measured has a note that says so, and no lines."""
    return [_table(result) for result in of_speed(content["results"])]


def _table(result: Mapping[str, Any]) -> Table:
    rows = tuple(_line(reading) for reading in result["readings"])
    name = "-".join(("speed", result["row"], result["device"], result["dtype"]))
    title = f"{result['title']}; {where(result)}. {result['about']}"
    notes = ()
    if result["status"] != "ok":
        said = "Not measured" if result["status"] == "skipped" else "Failed"
        notes = (f"{said} ({result['message']}).",)
    return Table(name, f"Speed: {result['row']}, {result['device']}, {result['dtype']}", title, _COLUMNS, rows, notes)


def _line(reading: Mapping[str, Any]) -> tuple[Cell, ...]:
    sense = None if reading["goal"] is None else reading["sense"]
    quantity = f"{reading['quantity']} ({reading['note']})" if reading["note"] else reading["quantity"]
    texts = (reading["case"], quantity, shown(reading), goal(reading), verdict(reading))
    values = (
        (reading["case"],),
        (reading["quantity"], reading["note"] or None),
        tuple(reading[key] for key in ("value", "low", "high", "unit")),
        (sense, reading["goal"]),
        (texts[-1],),
    )
    return tuple(Cell(text, value, bold=text == "MISSED") for text, value in zip(texts, values, strict=True))
