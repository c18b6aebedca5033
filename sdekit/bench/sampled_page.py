"""Samples against exact samples, as figures and a table of the report: bands, and the noise floor below them."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["link", "section"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 420, 260, 46, 30, 8, 8
_INKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")  # Okabe and Ito's
_DASHES = ("", "6 3", "2 2")
_ABOUT = (
    "<p>Metrics between a sampler's output and exact samples, from exact starts, with 95 % intervals as bands. In the "
    "grey area is noise: 95 % of pairs of exact samples stay inside it, so that nothing can be concluded there. "
    "Bold numbers lie above it.</p>"
)


def link(results: Sequence[Mapping[str, Any]]) -> str:
    """Of the page's navigation."""
    return '<a href="#sampled">Metrics of samples</a>\n' if _ok(results) else ""


def section(results: Sequence[Mapping[str, Any]]) -> str:
    """A figure for each metric and place, and the numbers; nothing where none were measured."""
    found = _ok(results)
    if not found:
        return ""
    parts = [
        '<section id="sampled" aria-labelledby="sampled-title">',
        '<h2 id="sampled-title">Metrics of samples</h2>',
        _ABOUT,
    ]
    places: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for r in found:
        places.setdefault((r["target"], r["process"], r["grid"]), []).append(r)
    for (target, process, grid), group in places.items():
        parts.append(f"<h3>{_text(target)}, process {_text(process)}, grid {_text(grid)}</h3>")
        metrics = list(dict.fromkeys(name for r in group for p in r["points"] for name in p["metrics"] or ()))
        parts.append(f'<div class="bands">{"".join(_figure(name, group) for name in metrics)}</div>')
        parts += [_legend(group), _table(group, metrics)]
    return "\n".join([*parts, "</section>\n"])


def _ok(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [r for r in results if r["what"] == "sampled" and r["status"] == "ok"]


def _points(result: Mapping[str, Any], metric: str) -> list[tuple[int, Mapping[str, Any]]]:
    return [(p["calls"], p["metrics"][metric]) for p in result["points"] if metric in (p["metrics"] or ())]


def _name(result: Mapping[str, Any]) -> str:
    return f"{result['solver']}, {result['kind']}"


class _Axes:
    """From calls and values, both logarithmic, to the figure."""

    def __init__(self, calls: Sequence[int], low: float, high: float) -> None:
        self.first, self.last = math.log(min(calls)), math.log(max(calls)) + 1e-9
        self.low, self.high = math.log10(low), math.log10(high)

    def x(self, calls: float) -> float:
        share = (math.log(calls) - self.first) / (self.last - self.first)
        return round(_LEFT + 10 + share * (_WIDTH - _LEFT - _RIGHT - 20), 2)

    def y(self, value: float) -> float:
        share = (math.log10(max(value, 10**self.low)) - self.low) / (self.high - self.low)
        return round(_HEIGHT - _BOTTOM - min(share, 1.0) * (_HEIGHT - _BOTTOM - _TOP), 2)


def _figure(metric: str, group: Sequence[Mapping[str, Any]]) -> str:
    points = [p for r in group for p in _points(r, metric)]
    floor = max(m["floor"] for _, m in points)
    # Metrics without bias, and so their floors, may come out negative: then the least positive number is the measure.
    least = floor if floor > 0 else min((v for _, m in points for v in (m["value"], m["high"]) if v > 0), default=1.0)
    highest = max(least, *(m["high"] for _, m in points))
    axes = _Axes([n for n, _ in points], least / 20, 1.2 * highest)
    drawn = [_ground(metric, axes, floor, sorted({n for n, _ in points}))]
    for i, result in enumerate(group):
        found = _points(result, metric)
        ink, dash = _INKS[i % len(_INKS)], _DASHES[i // len(_INKS) % len(_DASHES)]
        upper = [f"{axes.x(n)},{axes.y(m['high'])}" for n, m in found]
        lower = [f"{axes.x(n)},{axes.y(m['low'])}" for n, m in reversed(found)]
        line = " ".join(f"{axes.x(n)},{axes.y(m['value'])}" for n, m in found)
        drawn.append(f'<polygon points="{" ".join(upper + lower)}" fill="{ink}" fill-opacity=".12"/>')
        drawn.append(
            f'<polyline points="{line}" fill="none" stroke="{ink}" stroke-width="1.6" stroke-dasharray="{dash}">'
            f"<title>{_text(_name(result))}</title></polyline>"
        )
    label = _text(f"{metric} against model calls, with intervals and the noise floor at {floor:.2g}")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _ground(metric: str, axes: _Axes, floor: float, calls: Sequence[int]) -> str:
    """The floor, the grid and its numbers."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    y = axes.y(floor)
    parts = [f'<rect class="floor" x="{_LEFT}" y="{y}" width="{right - _LEFT}" height="{round(bottom - y, 2)}"/>']
    for power in range(math.ceil(axes.low), math.floor(axes.high) + 1):
        y = axes.y(10.0**power)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4}" text-anchor="end">1e{power}</text>')
    for n in calls:
        parts.append(f'<text x="{axes.x(n)}" y="{_HEIGHT - 12}" text-anchor="middle">{n}</text>')  # noqa: PERF401
    return "".join([*parts, f'<text x="{right}" y="{_TOP + 12}" text-anchor="end">{_text(metric)}</text>'])


def _legend(group: Sequence[Mapping[str, Any]]) -> str:
    entries = []
    for i, result in enumerate(group):
        ink, dash = _INKS[i % len(_INKS)], _DASHES[i // len(_INKS) % len(_DASHES)]
        entries.append(
            '<span class="key"><svg class="swatch" viewBox="0 0 32 16" aria-hidden="true">'
            f'<line x1="0" x2="32" y1="8" y2="8" stroke="{ink}" stroke-width="2.5" stroke-dasharray="{dash}"/></svg>'
            f"{_text(_name(result))}</span>"
        )
    return f'<p class="keys">{" ".join(entries)}</p>'


def _table(group: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    head = "".join(f'<th scope="col" class="number">{_text(name)}</th>' for name in metrics)
    body = []
    for result in group:
        for i, p in enumerate(p for p in result["points"] if p["metrics"]):
            cells = "".join(_cell(p["metrics"].get(name)) for name in metrics)
            name = _text(_name(result)) if i == 0 else ""
            body.append(f'<tr><th scope="row">{name}</th><td class="number">{p["calls"]}</td>{cells}</tr>')
    return (
        '<details><summary>The numbers</summary><div class="scroll"><table class="plain"><thead><tr>'
        f'<th scope="col">Solver</th><th scope="col" class="number">Calls</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _cell(m: Mapping[str, Any] | None) -> str:
    if m is None:
        return '<td class="number">-</td>'
    value = f"{m['value']:.3g} [{m['low']:.2g}, {m['high']:.2g}]"
    shown = f"<strong>{value}</strong>" if m["above_floor"] else f"{value}, floor {m['floor']:.2g}"
    return f'<td class="number">{shown}</td>'


def _text(value: str) -> str:
    return html.escape(value)
