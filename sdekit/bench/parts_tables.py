"""Errors in parts, and the Gaussian protocol, as tables for papers and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdekit.bench.tabulated import Cell, Column, Table, not_measured, short, solver_cell

__all__ = ["tables"]

_PARTS = ("prior", "discretization", "truncation", "carried", "total")
_MEASURES = {
    "deterministic": "root mean square distances of paths on the target itself",
    "weak": "exact Wasserstein-2 distances on the Gaussian of the target's mean and covariance",
}
_STARTS = {"marginal": "p_1", "standard": "N(0, I)"}

Results = Sequence[Mapping[str, Any]]


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Of the results that `read_results` gives: parts at each place and of each kind, the protocol of each target."""
    parts = _grouped(content["results"], "parts", _place)
    protocols = _grouped(content["results"], "protocol", lambda r: (r["target"],))
    found = [_parts(place, group) for place, group in parts.items()]
    return [*found, *(_protocol(target, group) for (target,), group in protocols.items())]


def _grouped(results: Results, what: str, key: Callable[[Any], tuple[Any, ...]]) -> dict[tuple[Any, ...], Results]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for r in results:
        if r["what"] == what:
            groups.setdefault(key(r), []).append(r)
    return dict(groups)


def _place(result: Mapping[str, Any]) -> tuple[Any, ...]:
    return *(result[key] for key in ("target", "process", "grid", "kind")), *result["half_log_snr"]


def _parts(place: tuple[Any, ...], results: Results) -> Table:
    target, process, grid, kind, low, high = place
    rows = [
        (solver_cell(r["solver"]), Cell(f"{p['calls']}", (p["calls"],)), *(_number(p["parts"][key]) for key in _PARTS))
        for r in results
        if r["status"] == "ok"
        for p in r["points"]
        if p["parts"] is not None
    ]
    columns = (
        Column("solver", ("solver",), number=False),
        Column("calls", ("calls",)),
        *(Column(name, (name,)) for name in _PARTS),
    )
    title = (
        "Errors in parts: the start from the prior in place of the exact law, the steps, and stopping before the data, "
        "each alone; carried is the first as the sampler carries it. The total is at most the sum of carried, "
        f"discretization and truncation. These are {_MEASURES[kind]}. Target {target}, process {process}, grid {grid}, "
        f"half-log-SNR from {low:g} to {high:g}."
    )
    where = f"{target}, {process}, {grid}"
    name, heading = f"parts-{where.replace(', ', '-')}-{kind}", f"Errors in parts: {where}, {kind}"
    return Table(name, heading, title, columns, tuple(rows), not_measured(results))


def _protocol(target: str, results: Results) -> Table:
    """A row for each scheme and number of calls, the dynamics themselves first; a column for each stop and start."""
    found = [row for r in results if r["status"] == "ok" for row in r["rows"]]
    stops = list(dict.fromkeys((row["truncation"], row["start"]) for row in found))
    lines = list(dict.fromkeys((row["dynamics"], row["scheme"], row["column"]) for row in found))
    lines.sort(key=lambda line: (line[0], line[1] != "exact"))
    values = {
        tuple(row[k] for k in ("dynamics", "scheme", "column", "truncation", "start")): row["w2"] for row in found
    }
    rows = [
        (
            Cell(f"{dynamics} {scheme}", (f"{dynamics} {scheme}",)),
            Cell(f"{calls}" if calls else "-", (calls or None,)),
            *(_number(values.get((dynamics, scheme, calls, *stop))) for stop in stops),
        )
        for dynamics, scheme, calls in lines
    ]
    columns = (
        Column("scheme", ("scheme",), number=False),
        Column("calls", ("calls",)),
        *(Column(f"{eps:g}, {_STARTS[start]}", (f"w2_at_{eps:g}_from_{start}",)) for eps, start in stops),
    )
    title = (
        "Exact Wasserstein-2 distances from Gaussian data of the target's covariance, under VP on equal steps in t "
        "from 1 to the number that heads a column: the protocol of Pierret and Galerne, ICML 2025. Behind it stands "
        "the law of the start, the exact one p_1 or the prior; exact are the dynamics themselves, without steps. "
        f"Target {target}."
    )
    name, heading = f"protocol-{target}", f"Gaussian protocol: {target}"
    return Table(name, heading, title, columns, tuple(rows), not_measured(results))


def _number(value: float | None) -> Cell:
    return Cell("-" if value is None else "0" if value == 0 else short(value), (value,))
