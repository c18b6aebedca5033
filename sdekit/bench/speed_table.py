"""Readings of speed on the console: for each row a table, with its goals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdekit.bench.readings import goal, of_speed, shown, verdict, where

__all__ = ["print_readings"]

_STYLES = {"reached": "green", "MISSED": "bold red", "": ""}


def print_readings(console: Console, results: Iterable[Mapping[str, Any]]) -> None:
    """Print every row of speed: what it is, where it was measured, its readings, or why there are none."""
    for result in of_speed(results):
        console.print(Text(f"{result['title']} ({result['row']}; {where(result)})", style="bold"))
        if result["readings"]:
            console.print(_table(result["readings"]))
        elif result["status"] == "skipped":
            console.print(Text(result["message"], style="dim"))
        console.print()


def _table(readings: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("case", overflow="fold")
    table.add_column("quantity", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("", no_wrap=True)
    before = None
    for reading in readings:
        found = verdict(reading)
        quantity = Text(reading["quantity"])
        if reading["note"]:
            quantity.append(f" ({reading['note']})", style="dim")
        case = Text("" if reading["case"] == before else reading["case"])
        before = reading["case"]
        table.add_row(case, quantity, Text(shown(reading)), Text(goal(reading)), Text(found, style=_STYLES[found]))
    return table
