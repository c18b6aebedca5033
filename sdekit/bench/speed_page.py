"""Readings of speed as tables of the report, each with its goal in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdekit.bench.readings import goal, of_speed, shown, told, verdict, where

__all__ = ["link", "section"]

_ABOUT = (
    "<p>Ratios are taken within one process, one row at a time, by the process's clock on one thread, as medians of "
    "interleaved rounds; they carry over between machines, and times do not. Of counts and errors every run gives the "
    "same. A goal that is missed says so.</p>"
)


def link(results: Sequence[Mapping[str, Any]]) -> str:
    """Of the page's navigation."""
    return '<a href="#speed">Speed</a>\n' if of_speed(results) else ""


def section(results: Sequence[Mapping[str, Any]]) -> str:
    """Every row of speed with its readings, or why there are none; nothing where there was no such row."""
    found = of_speed(results)
    if not found:
        return ""
    parts = [
        '<section id="speed" aria-labelledby="speed-title">',
        '<h2 id="speed-title">Speed</h2>',
        _ABOUT,
        f"<p><strong>{_text(told(found))}</strong></p>",
        *(_row(result) for result in found),
    ]
    return "\n".join([*parts, "</section>\n"])


def _row(result: Mapping[str, Any]) -> str:
    parts = [
        f"<h3>{_text(result['title'])}: <code>{_text(result['row'])}</code></h3>",
        f"<p>{_text(result['about'])}</p>",
    ]
    hardware = result.get("hardware") or {}
    more = [f"{key} {hardware[key]}" for key in ("driver", "capability", "cuda") if hardware.get(key)]
    parts.append(f'<p class="status">{_text(", ".join([where(result), *more]))}</p>')
    if result["status"] == "skipped":
        parts.append(f"<p><strong>{_text(result['message'])}</strong></p>")
    elif result["status"] != "ok":
        parts.append(f'<p><strong class="bad">FAILED</strong>: {_text(result["message"])}</p>')
    if result["readings"]:
        parts.append(_table(result["readings"]))
    return "\n".join(parts)


def _table(readings: Iterable[Mapping[str, Any]]) -> str:
    heads = ("Case", "Quantity", "Value", "Quartiles", "Goal", "")
    head = "".join(f'<th scope="col"{_right(i)}>{text}</th>' for i, text in enumerate(heads))
    body, before = [], None
    for reading in readings:
        case = "" if reading["case"] == before else reading["case"]
        before = reading["case"]
        cells = (reading["quantity"], shown(reading), _quartiles(reading), goal(reading), _verdict(reading))
        row = "".join(f"<td{_right(i)}>{_text(text)}</td>" for i, text in enumerate(cells[:4], 1))
        body.append(f'<tr><th scope="row">{_text(case)}</th>{row}<td>{cells[4]}</td></tr>')
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        "</table></div>"
    )


def _quartiles(reading: Mapping[str, Any]) -> str:
    if reading["low"] is None or reading["value"] is None:
        return ""
    return f"{reading['low']:.3g} to {reading['high']:.3g}"


def _verdict(reading: Mapping[str, Any]) -> str:
    """In words: colour alone would not do. What a note says stands beside it."""
    word = verdict(reading)
    parts = ['<strong class="bad">MISSED</strong>' if word == "MISSED" else word, _text(reading["note"])]
    return " ".join(filter(None, parts))


def _right(column: int) -> str:
    return ' class="number"' if column in (2, 3) else ""


def _text(value: str) -> str:
    return html.escape(value)
