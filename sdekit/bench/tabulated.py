"""The tables that a paper or a page shows of a run, as plain rows; `sdekit.bench.formats` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdekit.bench.bands import apart
from sdekit.bench.curves import TITLES, merged
from sdekit.bench.summary import OWN_STEPS, Line, place, summarise, work_spots

__all__ = ["Cell", "Column", "Table", "not_measured", "provenance", "short", "solver_cell", "tables"]

_ROUNDING = 1e-12  # errors below it are of rounding, and none of them is better than another
_LONGEST = 160  # characters of a message

Group = tuple[str, str, str, tuple[float, float], str]


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: as readers see it.
        values: for machines: one for each of the column's fields.
        code: in place of a text the names that it holds, each with a remark to stand behind it, or an empty one.
        bold: whether it is the best of its column.
    """

    text: str = ""
    values: tuple[str | float | None, ...] = ()
    code: tuple[tuple[str, str], ...] = ()
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """Attributes: heading; fields, the names of its values for machines; number, whether it is set to the right."""

    heading: str
    fields: tuple[str, ...]
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Attributes: name, of which labels and files are made; heading; title and notes, in sentences; columns; rows."""

    name: str
    heading: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def tables(content: Mapping[str, Any]) -> list[Table]:
    """The orders, then the errors at each place and of each kind, of the results that `read_results` gives."""
    results = content["results"]
    groups: dict[Group, list[Any]] = {}
    for r in results:
        if r["what"] == "work":
            groups.setdefault(_group(r), []).append(r)
    spots = work_spots(results)
    found = [_orders(content), *(_errors(spots[g[:3]], g, rs) for g, rs in groups.items())]
    return [table for table in found if table.rows or table.notes]


def provenance(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What every caption says of where the numbers come from: words of ours, each before a text of the run's."""
    about = content["environment"]
    machine = about.get("cpu") or about.get("machine")
    found = [
        ("sdekit ", f"{about['sdekit']}"),
        ("; machine: ", f"{machine}, {about.get('cores')} cores"),
        ("; date: ", f"{about['date']}"),
        ("; command: ", f"{about['command']}"),
    ]
    return found if content["complete"] else [*found, ("; the run was interrupted: ", "some measurements are missing")]


def _group(result: Mapping[str, Any]) -> Group:
    low, high = result["half_log_snr"]
    return result["target"], result["process"], result["grid"], (low, high), result["kind"]


def _orders(content: Mapping[str, Any]) -> Table:
    orders = [r for r in content["results"] if r["what"] == "order"]
    tolerance = content["suite"]["tolerance"]
    intervals = {(r["solver"], r["kind"], place(r)): r.get("interval") for r in orders if r["status"] == "ok"}
    rows = []
    for line in summarise(orders, tolerance, ()):
        low, high = intervals.get((line.solver, line.kind, line.where)) or (None, None)
        cells = (
            solver_cell(line.solver),
            Cell(line.kind, (line.kind,)),
            Cell("-" if line.declared is None else f"{line.declared:g}", (line.declared,)),
            _measured(line),
            Cell("-" if low is None or high is None else f"{low:.2f} to {high:.2f}", (low, high)),
            Cell(line.verdict, (line.verdict,)),
        )
        rows.append(cells)
    columns = (
        Column("solver", ("solver",), number=False),
        Column("kind", ("kind",), number=False),
        Column("declared", ("declared",)),
        Column("measured", ("measured",)),
        Column("interval", ("interval_low", "interval_high")),
        Column("verdict", ("verdict",), number=False),
    )
    title = (
        "Orders of convergence: the declared one, the least measured over targets, processes and grids, and its "
        f"interval. The verdict is SHORT where that is more than {tolerance:g} below the declared one."
    )
    return Table("orders", "Orders", title, columns, tuple(rows))


def _measured(line: Line) -> Cell:
    if line.measured is not None:
        return Cell(f"{line.measured:.2f}", (line.measured,))
    text = "exact" if line.count and not line.failed else "-"
    return Cell(text, (text if text == "exact" else None,))


def _errors(spot: str, group: Group, results: Sequence[Any]) -> Table:
    target, process, grid, (low, high), kind = group
    measured = [r for r in results if r["status"] == "ok"]
    by_name = {r["solver"]: r for r in measured}
    own = grid == OWN_STEPS
    keys = _keys(measured, "tolerance" if own else "budget")
    banded = any(p.get("low") is not None for r in measured for p in r["points"])
    heads, found = [], []
    for names, declared, _ in merged(measured):
        points = {p["tolerance" if own else "budget"]: p for p in by_name[names[0]]["points"]}
        heads.append((_names(names, by_name), Cell("-" if declared is None else f"{declared:g}", (declared,))))
        found.append([points.get(key) for key in keys])
    best = [_best(column) for column in zip(*found, strict=True)]
    rows = [
        (
            *head,
            *(_error(p, own, banded, bold=not own and _as_good(p, b)) for p, b in zip(points, best, strict=True)),
            *([_factors(points)] if banded else []),
        )
        for head, points in zip(heads, found, strict=True)
    ]
    columns = (
        Column("solver", ("solver",), number=False),
        Column("order", ("declared",)),
        *(Column(_heading(key, own), _fields(key, own, banded)) for key in keys),
        *([Column("interval", ("interval_factor_least", "interval_factor_most"))] if banded else []),
    )
    counted = (
        "at tolerances rtol = atol, with the mean number of model calls in brackets"
        if own
        else "at no more than so many model calls"
    )
    title = (
        f"Relative errors {counted}; {TITLES[kind]}. Target {target}, "
        f"process {process}, grid {grid}, half-log-SNR from {low:g} to {high:g}."
    )
    over = "paths" if kind == "strong" else "starts"
    if banded:
        title += (
            " Interval: the factors, least and largest, by which errors are divided and multiplied for the ends of "
            f"their 95 % intervals over {over}."
        )
    if not own:
        also = f" and those that the same {over} do not tell from it at 95 % are" if banded else " is"
        title += f" The best of each column{also} bold."
    name, heading = f"errors-{spot.replace(', ', '-')}-{kind}", f"Errors: {spot}, {kind}"
    return Table(name, heading, title, columns, tuple(rows), not_measured(results))


def _keys(results: Sequence[Any], name: str) -> list[Any]:
    found = {p[name] for r in results for p in r["points"] if p.get(name) is not None}
    return sorted(found, reverse=name == "tolerance")


def _heading(key: float, own: bool) -> str:
    return short(key) if own else f"{key}"


def _fields(key: float, own: bool, banded: bool) -> tuple[str, ...]:
    at = f"at_tolerance_{key:g}" if own else f"at_{key}_calls"
    return tuple(f"{name}_{at}" for name in ("error", *(["calls"] * own), *(["low", "high"] * banded)))


def solver_cell(solver: str) -> Cell:
    """A solver's name, alone."""
    return Cell(values=(solver,), code=((solver, ""),))


def _names(names: Sequence[str], by_name: Mapping[str, Any]) -> Cell:
    """Methods that are the same in one cell; those of other libraries with package and version."""
    code = tuple((name, f"({by_name[name]['package']})" if "package" in by_name[name] else "") for name in names)
    return Cell(values=(" = ".join(" ".join(filter(None, pair)) for pair in code),), code=code)


def _error(point: Mapping[str, Any] | None, own: bool, banded: bool, bold: bool) -> Cell:
    error = None if point is None else point["error"]
    kept = ("error", *(["calls"] * own), *(["low", "high"] * banded))
    if point is None or error is None:
        return Cell("-", (None,) * len(kept))
    text = f"{short(error)} ({point['calls']})" if own else short(error)
    return Cell(text, tuple(point.get(key) for key in kept), bold=bold)


def _factors(points: Sequence[Mapping[str, Any] | None]) -> Cell:
    """Of a whole row: a column of its own for each of its errors would not fit on a page."""
    found = [p["high"] / p["error"] for p in points if p is not None and p["error"] and p.get("high") is not None]
    if not found:
        return Cell("-", (None, None))
    least, most = min(found), max(found)
    return Cell(f"{least:.2g} to {most:.2g}", (least, most))


def short(value: float) -> str:
    """Two digits: 1.2e-3."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _best(points: Iterable[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """Of the least error in a column."""
    known = [p for p in points if p is not None and p["error"] is not None]
    return min(known, key=lambda p: p["error"], default=None)


def _as_good(point: Mapping[str, Any] | None, best: Mapping[str, Any] | None) -> bool:
    """Whether an error looks like the best one, is of rounding, or is not told from it by the same starts."""
    if point is None or best is None or point["error"] is None:
        return False
    if short(point["error"]) == short(best["error"]) or point["error"] <= _ROUNDING:
        return True
    return point.get("starts") is not None and not apart(point["starts"], best["starts"])


def not_measured(results: Sequence[Any]) -> tuple[str, ...]:
    """One sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for r in results:
        if r["status"] != "ok":
            said = "Not measured" if r["status"] == "skipped" else "Failed"
            reasons.setdefault(f"{said} ({_clipped(r['message'])})", []).append(r["solver"])
    return tuple(f"{reason}: {', '.join(names)}." for reason, names in reasons.items())


def _clipped(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."
