"""Errors in parts, and the Gaussian protocol, as tables of the report."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["links", "sections"]

_PARTS = ("prior", "discretization", "truncation", "carried", "total")
_ABOUT_PARTS = (
    "<p>The start from the prior in place of the exact law, the steps, and stopping before the data, each alone; "
    "<em>carried</em> is the first as this sampler carries it. The total is at most carried + discretization + "
    "truncation. Stochastic: exact Wasserstein-2 distances on the Gaussian of the target's mean and covariance. "
    "Deterministic: root mean square distances of paths on the target itself.</p>"
)
_ABOUT_PROTOCOL = (
    "<p>Exact Wasserstein-2 distances from Gaussian data of the target's covariance, under VP on equal steps in t "
    "from 1 to eps: Pierret and Galerne, ICML 2025. p_1 starts from the exact law, N(0, I) from the prior; "
    "<em>exact</em> are the dynamics themselves, without steps.</p>"
)


def links(results: Sequence[Mapping[str, Any]]) -> str:
    """Of the page's navigation."""
    found = [("parts", "Errors in parts")] * _has(results, "parts")
    found += [("protocol", "Gaussian protocol")] * _has(results, "protocol")
    return "".join(f'<a href="#{name}">{title}</a>\n' for name, title in found)


def sections(results: Sequence[Mapping[str, Any]]) -> str:
    """Both sections, or as many of them as were measured."""
    parts = _parts_section(_ok(results, "parts")) if _has(results, "parts") else ""
    return parts + (_protocol_section(_ok(results, "protocol")) if _has(results, "protocol") else "")


def _ok(results: Sequence[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    return [r for r in results if r["what"] == what and r["status"] == "ok"]


def _has(results: Sequence[Mapping[str, Any]], what: str) -> bool:
    return bool(_ok(results, what))


def _parts_section(results: Sequence[Mapping[str, Any]]) -> str:
    found = [
        '<section id="parts" aria-labelledby="parts-title">',
        '<h2 id="parts-title">Errors in parts</h2>',
        _ABOUT_PARTS,
    ]
    places: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for r in results:
        places.setdefault((r["target"], r["process"], r["grid"], r["kind"]), []).append(r)
    for (target, process, grid, kind), group in places.items():
        found.append(f"<h3>{_text(target)}, process {_text(process)}, grid {_text(grid)}; {_text(kind)}</h3>")
        rows = [
            [r["solver"], str(p["calls"]), *(_number(p["parts"][key]) for key in _PARTS)]
            for r in group
            for p in r["points"]
            if p["parts"] is not None
        ]
        found.append(_table(["Solver", "Calls", *_PARTS], rows))
    return "\n".join([*found, "</section>\n"])


def _protocol_section(results: Sequence[Mapping[str, Any]]) -> str:
    found = [
        '<section id="protocol" aria-labelledby="protocol-title">',
        '<h2 id="protocol-title">The Gaussian protocol</h2>',
        _ABOUT_PROTOCOL,
    ]
    for target in dict.fromkeys(r["target"] for r in results):
        of_target = [row for r in results if r["target"] == target for row in r["rows"]]
        columns = list(dict.fromkeys((row["truncation"], row["start"]) for row in of_target))
        lines = list(dict.fromkeys((row["dynamics"], row["scheme"], row["column"]) for row in of_target))
        lines.sort(key=lambda line: (line[0], line[1] != "exact"))
        values = {
            (row["dynamics"], row["scheme"], row["column"], row["truncation"], row["start"]): row["w2"]
            for row in of_target
        }
        starts = {"marginal": "p_1", "standard": "N(0, I)"}
        heads = ["Scheme", "Calls", *(f"eps {eps:g}, {starts[start]}" for eps, start in columns)]
        rows = [
            [f"{dynamics} {scheme}", str(n) if n else "–", *(_number(values.get((*line, *c))) for c in columns)]
            for line in lines
            for dynamics, scheme, n in [line]
        ]
        found += [f"<h3>{_text(target)}</h3>", _table(heads, rows)]
    return "\n".join([*found, "</section>\n"])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column a row's name: empty where it is that of the row above."""
    head = "".join(f'<th scope="col"{_right(i)}>{_text(text)}</th>' for i, text in enumerate(heads))
    body, before = [], None
    for name, *cells in rows:
        shown = _text(name) if name != before else ""
        before = name
        body.append(
            f'<tr><th scope="row">{shown}</th>'
            + "".join(f'<td class="number">{_text(c)}</td>' for c in cells)
            + "</tr>"
        )
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        "</table></div>"
    )


def _right(column: int) -> str:
    return ' class="number"' if column else ""


def _number(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}"


def _text(value: str) -> str:
    return html.escape(value)
