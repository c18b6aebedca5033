"""What a run leaves behind: one sealed JSON file, tables beside it, and where and how they came about."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdekit.bench import peers
from sdekit.bench.escape import csv_field, one_line
from sdekit.bench.files import digest, sealed, unsealed, write_atomically
from sdekit.bench.store import cpu_name
from sdekit.bench.summary import Line
from sdekit.errors import OptionError
from sdekit.version import __version__

__all__ = ["FILE", "FORMAT", "environment", "folder", "read_results", "write_results"]

FILE = "results.json"
FORMAT = "sdekit results 2"
_NOT_NUMBERS = ("seconds", "trace", "point_seconds", "hardware")  # differ from run to run, and between machines
_TIMED = ("value", "reached", "low", "high", "note")  # of a reading of speed: so do these, where it is not exact
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "plotly")
_SHAPE = {"suite": dict, "results": list, "environment": dict, "summary": list, "complete": bool, "source": str}
_TOLD = {"what", "solver", "status"}  # of every result


def environment(workers: int, engine: str = "local") -> dict[str, Any]:
    """Versions, machine, date and command: what a reader needs to judge and repeat the numbers."""
    return {
        "sdekit": __version__,
        "python": platform.python_version(),
        **{name: peers.installed(name) for name in _PACKAGES},
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "workers": workers,
        "engine": engine,
        "threads_per_worker": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
    }


def _command() -> str:
    """As it would be typed: `python -m sdekit` runs the file __main__.py of the package."""
    program = Path(sys.argv[0])
    return shlex.join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def folder(path: Path) -> Path:
    """The folder, made where it is missing, and tried: a run must not end with nowhere to write to.

    Raises:
        OptionError: where it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / ".sdekit-can-write", b"")
        (path / ".sdekit-can-write").unlink()
    except OSError as error:
        got = f"{path}: {error.strerror}"
        raise OptionError(
            "--out", got=got, expected="a folder that can be written to", fix="Choose another."
        ) from error
    return path


def write_results(
    out: Path,
    *,
    source: str,
    suite: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    lines: Iterable[Line],
    about: Mapping[str, Any],
    seconds: float,
    complete: bool,
    reused: int = 0,
) -> list[Path]:
    """Write results.json, which holds everything, and its numbers as orders.csv, errors.csv and, where speed was
    measured, speed.csv; returns the paths.

    Args:
        source: the suite as it was asked for: a name, or the path of a file.
        reused: how many of the results an earlier run had measured.
    """
    content = {
        "format": FORMAT,
        "numbers": digest([_numbers(result) for result in results]),
        "complete": complete,
        "source": source,
        "reused": reused,
        "environment": dict(about),
        "seconds": round(seconds, 3),
        "suite": dict(suite),
        "summary": [_plain(line) for line in lines],
    }
    files = {FILE: _json(content, results), "orders.csv": _orders(results), "errors.csv": _errors(results)}
    if any(result["what"] == "speed" for result in results):
        files["speed.csv"] = _speed(results)
    for name, body in files.items():
        write_atomically(out / name, body.encode())
    return [out / name for name in files]


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's results.json, which `write_results` wrote.

    Raises:
        OptionError: where there is none, or one that was cut short, damaged, edited, or is of another format.
    """
    path = folder / FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise OptionError(
            "results",
            got=f"{path}: {error.strerror}",
            expected="a folder that `sdekit bench run` wrote",
            fix="Run `sdekit bench run orders` first, or pass another folder.",
        ) from error
    content = unsealed(path, raw, FORMAT)
    rows = content.get("results")
    shaped = all(isinstance(content.get(key), kind) for key, kind in _SHAPE.items())
    if not shaped or not all(isinstance(row, dict) and row.keys() >= _TOLD for row in rows or ()):
        raise OptionError(
            str(path),
            got="a sealed file in which entries of results are missing, or of another kind",
            expected="the file as sdekit wrote it",
            fix="Delete it and measure again.",
        )
    return content


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result is the same in any run of the same code."""
    found = {k: v for k, v in result.items() if k not in _NOT_NUMBERS}
    if "readings" in found:
        found["readings"] = [
            {k: v for k, v in reading.items() if reading["exact"] or k not in _TIMED} for reading in found["readings"]
        ]
    return found


def _json(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Sealed and indented, but every result on one line."""
    whole = sealed({**content, "results": list(results)})
    head = json.dumps({k: v for k, v in whole.items() if k != "results"}, indent=1, allow_nan=False)
    lines = ",\n  ".join(json.dumps(result, allow_nan=False) for result in results)
    return f'{head[:-2]},\n "results": [\n  {lines}\n ]\n}}\n'


def _plain(line: Line) -> dict[str, Any]:
    return {
        "solver": line.solver,
        "kind": line.kind,
        "declared": line.declared,
        "measured": line.measured,
        "where": line.where,
        "count": line.count,
        "verdict": line.verdict,
        "errors": [{"target": t, "calls": n, "error": e} for (t, n), e in line.errors.items()],
        "failed": line.failed,
    }


_PLACE = ("solver", "kind", "target", "process", "grid")
_RANGE = ("half_log_snr_start", "half_log_snr_end")


def _place(result: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(result[key] for key in _PLACE), *result["half_log_snr"])


def _orders(results: Sequence[Mapping[str, Any]]) -> str:
    header = (*_PLACE, *_RANGE, "declared", "measured", "low", "high", "steps", "errors", "status")
    rows = []
    for r in results:
        if r["what"] == "order":
            low, high = r.get("interval") or ("", "")
            measured = "exact" if r.get("exact") else r.get("measured", "")
            lists = (" ".join(map(str, r.get(key, ()))) for key in ("steps", "errors"))
            rows.append((*_place(r), r.get("declared", ""), measured, low, high, *lists, r["status"]))
    return _csv(header, rows)


def _errors(results: Sequence[Mapping[str, Any]]) -> str:
    header = (*_PLACE, *_RANGE, "budget", "steps", "calls", "error", "low", "high")
    rows = [
        (*_place(r), p["budget"], p["steps"], p["calls"], *(p.get(key) for key in ("error", "low", "high")))
        for r in results
        if r["what"] == "work"
        for p in r.get("points", ())
    ]
    return _csv(header, rows)


def _speed(results: Sequence[Mapping[str, Any]]) -> str:
    header = ("row", "device", "dtype", "rounds")
    more = ("case", "quantity", "value", "low", "high", "unit", "sense", "goal", "reached", "exact", "note")
    rows = [
        (*(r[key] for key in header), *(reading[key] for key in more))
        for r in results
        if r["what"] == "speed"
        for reading in r["readings"]
    ]
    return _csv((*header, *more), rows)


def _cell(value: Any) -> Any:
    """What a spreadsheet would take for a formula is made plain text; numbers, negative ones too, stay as they are."""
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return line if _are_numbers(line) else csv_field(line)


def _are_numbers(text: str) -> bool:
    try:
        for part in text.split(" "):
            float(part)
    except ValueError:
        return False
    return True


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *([_cell(value) for value in row] for row in rows)])
    return buffer.getvalue()
