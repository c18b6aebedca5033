"""Readings of speed as tables of the report, each with its goal in words."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdekit.bench.readings import goal, of_speed, shown, told, verdict, where

__all__ = ["link", "section"]

_ABOUT = (
    "<p>Ratios are taken within one process, one row at a time, by the process's clock on one thread, as medians of "
    "interleaved rounds; they carry over between machines, and times do not. Of counts and errors every run gives the "
    "same. A goal that is missed says so.</p>"
)
_CLASSES = ("", ' class="number"', ' class="number roomy"', "", "")


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
    """A case heads its readings in a line of its own, so that a phone has room for the numbers."""
    heads = ("Quantity", "Value", "Quartiles", "Goal", "")
    head = "".join(f'<th scope="col"{_CLASSES[i]}>{text}</th>' for i, text in enumerate(heads))
    groups = itertools.groupby(readings, key=lambda reading: reading["case"])
    body = "".join(
        f'<tbody><tr><th scope="rowgroup" colspan="{len(heads)}">{_text(case)}</th></tr>'
        f"{''.join(map(_line, group))}</tbody>"
        for case, group in groups
    )
    return f'<div class="scroll"><table class="readings"><thead><tr>{head}</tr></thead>{body}</table></div>'


def _line(reading: Mapping[str, Any]) -> str:
    note = f' <span class="dim">{_text(reading["note"])}</span>' if reading["note"] else ""
    word = verdict(reading)
    cells = (
        f"{_text(reading['quantity'])}{note}",
        *(_text(text) for text in (shown(reading), _quartiles(reading), goal(reading))),
        '<strong class="bad">MISSED</strong>' if word == "MISSED" else word,  # a word, not a colour alone
    )
    return f"<tr>{''.join(f'<td{_CLASSES[i]}>{cell}</td>' for i, cell in enumerate(cells))}</tr>"


def _quartiles(reading: Mapping[str, Any]) -> str:
    if reading["low"] is None or reading["value"] is None:
        return ""
    return f"{reading['low']:.3g} to {reading['high']:.3g}"


def _text(value: str) -> str:
    return html.escape(value)
