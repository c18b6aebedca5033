"""Two runs side by side: which orders, errors and readings of speed changed."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdekit.bench.bands import apart
from sdekit.bench.results import read_results
from sdekit.bench.summary import place

__all__ = ["Change", "changes", "compare_runs"]

ORDER_CHANGE = 0.02
ERROR_CHANGE = 0.01  # relative; below 1e-12 errors are of rounding and are not compared
SPEED_CHANGE = 1.1  # a factor, for readings whose quartiles over rounds lie apart
SPEED_UNKNOWN = 1.5  # for those without quartiles: on a busy machine a single run is off by a third
_ROUNDING = 1e-12
_SPEED = "speed: "
_MOST = 40  # rows shown


@dataclass(frozen=True)
class Change:
    """One number that differs.

    Attributes:
        what: "order", "error at N calls", or "speed: " and the quantity of a reading.
        place: kind, target, process, grid and range; of a reading its case, device and type.
        worse: whether the later one is: a lower order, a larger error, a failure in place of a number, less speed.
    """

    what: str
    solver: str
    place: str
    before: float | None
    after: float | None
    worse: bool

    @property
    def size(self) -> float:
        """How large the change is: of the order, or of the logarithm of the error; infinite for a failure."""
        if self.before is None or self.after is None:
            return math.inf
        if self.what == "order":
            return abs(self.after - self.before)
        # Some metrics of samples are negative where there is nothing to see.
        least = _ROUNDING
        return abs(math.log(max(self.after, least) / max(self.before, least)))


def compare_runs(before: Path, after: Path, console: Console) -> int:
    """Print what changed from one folder of results to another; 1 where something got worse, else 0.

    Raises:
        OptionError: for a folder without results, or with damaged ones.
    """
    old, new = read_results(before), read_results(after)
    first, second = _numbers(old), _numbers(new)
    noise, jitter = _within_noise(old, new), _within_rounds(old, new)
    found = [
        change
        for change in changes(first, second, _rising(old))
        if (change.what, change.solver, change.place) not in noise | jitter
    ]
    _print_surroundings(old["environment"], new["environment"], console)
    shared = len(first.keys() & second.keys())
    console.print(
        f"{shared} numbers are in both; {len(first) - shared} only in the first, {len(second) - shared} only in the "
        f"second. {len(found)} differ, {sum(c.worse for c in found)} of them for the worse.",
        highlight=False,
    )
    if noise:
        console.print(
            f"{len(noise)} metrics of samples and errors of paths differ by no more than their intervals: noise.",
            highlight=False,
        )
    if jitter:
        console.print(f"{len(jitter)} readings of speed differ by no more than their rounds: noise.", highlight=False)
    if found:
        console.print(_table(found))
    if len(found) > _MOST:
        console.print(f"{len(found) - _MOST} smaller changes are not shown.")
    return int(any(change.worse for change in found))


def changes(
    first: Mapping[tuple[str, ...], float | None],
    second: Mapping[tuple[str, ...], float | None],
    rising: Container[tuple[str, ...]] = (),
) -> list[Change]:
    """What differs in the numbers that both have: the worse first, and of these the largest.

    Args:
        rising: readings of speed that should be large.
    """
    found = []
    for key, old in first.items():
        if key in second and _differ(key[0], old, second[key]):
            new = second[key]
            larger = key[0] == "order" or key in rising
            worse = new is None or (old is not None and (new < old if larger else new > old))
            found.append(Change(key[0], key[1], key[2], old, new, worse))
    return sorted(found, key=lambda c: (not c.worse, -c.size))


def _differ(what: str, old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    if math.isinf(old) or math.isinf(new):
        return old != new
    if what == "order":
        return abs(new - old) > ORDER_CHANGE
    return max(old, new) > _ROUNDING and abs(new - old) > ERROR_CHANGE * abs(old)


def _numbers(content: Mapping[str, Any]) -> dict[tuple[str, ...], float | None]:
    """Every number by what, solver and place; None where it failed, an infinite order where the solver is exact."""
    found = {(what, r["solver"], _place(r)): value for r in content["results"] for what, value in _of(r)}
    return found | {key: reading["value"] for key, reading in _readings(content).items()}


def _of(result: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    failed = result["status"] != "ok"
    if result["what"] == "order":
        yield "order", None if failed else math.inf if result["exact"] else result["measured"]
    elif result["what"] == "work" and not failed:
        for point in result["points"]:
            at = f"{point['budget']} calls" if point["budget"] else f"tolerance {point['tolerance']:g}"
            yield f"error at {at}", point["error"]
    elif result["what"] == "sampled" and not failed:
        for what, metric in _metrics(result):
            yield what, metric["value"]
    elif result["what"] == "speed" and result["status"] != "skipped":
        yield f"{_SPEED}measured", None if failed else 1.0


def _metrics(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for point in result["points"]:
        for name, metric in (point["metrics"] or {}).items():
            yield f"{name} at {point['budget']} calls", metric


def _within_noise(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """What was drawn, and differs by no more than draws do.

    Metrics of samples whose intervals overlap, or that are under the noise floor in both runs. Errors of paths that
    these do not tell apart, path by path: the same ones in both runs, or others of the same law.
    """
    first, second = _measured(old), _measured(new)
    return {
        key
        for key in first.keys() & second.keys()
        if _value(first[key]) != _value(second[key]) and _alike(first[key], second[key])
    }


def _value(found: Mapping[str, Any]) -> float:
    return found["value"] if "value" in found else found["error"]


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if "starts" in a:
        return not apart(a["starts"], b["starts"])
    return (a["low"] <= b["high"] and b["low"] <= a["high"]) or not (a["above_floor"] or b["above_floor"])


def _measured(content: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    found = {}
    for r in content["results"]:
        drawn = _metrics(r) if r["what"] == "sampled" and r["status"] == "ok" else _path_errors(r)
        found |= {(what, r["solver"], _place(r)): value for what, value in drawn}
    return found


def _path_errors(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if (result["what"], result["kind"], result["status"]) == ("work", "strong", "ok"):
        for point in result["points"]:
            if point.get("starts"):
                yield f"error at {point['budget']} calls", point


def _readings(content: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """Those of speed that have a value, under the same keys as other numbers."""
    return {
        (f"{_SPEED}{reading['quantity']}", r["solver"], f"{reading['case']}; {r['device']}, {r['dtype']}"): reading
        for r in content["results"]
        if r["what"] == "speed"
        for reading in r["readings"]
        if reading["value"] is not None
    }


def _rising(content: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {key for key, reading in _readings(content).items() if reading["sense"] == "at least"}


def _within_rounds(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Readings of speed that differ as much as from one round to the next; counts and errors never do."""
    first, second = _readings(old), _readings(new)
    return {
        key
        for key in first.keys() & second.keys()
        if not first[key]["exact"]
        and _differ(key[0], first[key]["value"], second[key]["value"])
        and _as_fast(first[key], second[key])
    }


def _as_fast(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    known = a["low"] is not None and b["low"] is not None
    factor = math.exp(abs(math.log(max(b["value"], _ROUNDING) / max(a["value"], _ROUNDING))))
    if known and a["low"] <= b["high"] and b["low"] <= a["high"]:
        return True
    return factor <= (SPEED_CHANGE if known else SPEED_UNKNOWN)


def _place(result: Mapping[str, Any]) -> str:
    if result["what"] == "speed":
        return place(result)
    low, high = result["half_log_snr"]
    names = ", ".join(result[key] for key in ("target", "process", "grid"))
    return f"{result['kind']}: {names}, {low:g} to {high:g}"


def _print_surroundings(old: Mapping[str, Any], new: Mapping[str, Any], console: Console) -> None:
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key) and key not in ("date", "command", "workers"):
            console.print(Text(f"{key}: {old.get(key)} before, {new.get(key)} after", style="dim"))


def _table(found: list[Change]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("what", "solver", "where"):
        table.add_column(name, overflow="fold")
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in found[:_MOST]:
        style = "red" if change.worse else ""
        numbers = (_shown(change.what, change.before), _shown(change.what, change.after))
        table.add_row(change.what, Text(change.solver), Text(change.place), *numbers, style=style)
    return table


def _shown(what: str, value: float | None) -> str:
    if value is None:
        return "failed" if what in ("order", f"{_SPEED}measured") else "-"
    if what.startswith(_SPEED):
        return f"{value:.3g}"
    return ("exact" if math.isinf(value) else f"{value:.2f}") if what == "order" else f"{value:.2e}"
