"""Metrics of samples as tables for papers and pages: each with its interval, and beside the noise floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdekit.bench.tabulated import Cell, Column, Table, not_measured, short, solver_cell

__all__ = ["tables"]

_PLACE = ("target", "process", "grid", "kind")
_FIELDS = ("value", "low", "high", "floor")

Place = tuple[str, str, str, str, float, float]


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Of the results that `read_results` gives: one at each place and of each kind."""
    groups: dict[Any, list[Any]] = {}
    for r in content["results"]:
        if r["what"] == "sampled":
            groups.setdefault((*(r[key] for key in _PLACE), *r["half_log_snr"]), []).append(r)
    return [_table(place, group) for place, group in groups.items()]


def _table(place: Place, results: Sequence[Mapping[str, Any]]) -> Table:
    target, process, grid, kind, low, high = place
    measured = [(r["solver"], p) for r in results if r["status"] == "ok" for p in r["points"] if p["metrics"]]
    metrics = list(dict.fromkeys(name for _, p in measured for name in p["metrics"]))
    rows = [
        (
            solver_cell(solver),
            Cell(f"{p['calls']}", (p["calls"],)),
            *(_cell(p["metrics"].get(name)) for name in metrics),
        )
        for solver, p in measured
    ]
    columns = (
        Column("solver", ("solver",), number=False),
        Column("calls", ("calls",)),
        *(Column(name, tuple(f"{name}_{field}" for field in _FIELDS)) for name in metrics),
    )
    title = (
        "Metrics between a sampler's output and exact samples, from exact starts, with 95 % intervals. Bold ones are "
        "above the noise floor, which 95 % of pairs of exact samples stay below; of the others nothing follows, and "
        f"the floor stands behind them. Target {target}, process {process}, grid {grid}, "
        f"half-log-SNR from {low:g} to {high:g}."
    )
    where = f"{target}, {process}, {grid}"
    name, heading = f"sampled-{where.replace(', ', '-')}-{kind}", f"Metrics of samples: {where}, {kind}"
    return Table(name, heading, title, columns, tuple(rows), not_measured(results))


def _cell(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("-", (None,) * len(_FIELDS))
    text = f"{short(found['value'])} [{short(found['low'])}, {short(found['high'])}]"
    above = bool(found["above_floor"])
    shown = text if above else f"{text}, floor {short(found['floor'])}"
    return Cell(shown, tuple(found[field] for field in _FIELDS), bold=above)
