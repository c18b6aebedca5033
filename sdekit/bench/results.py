"""What a run leaves behind: one JSON file, tables beside it, and where and how they came about."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sdekit.bench.summary import Line
from sdekit.errors import OptionError
from sdekit.version import __version__

__all__ = ["FORMAT", "environment", "folder", "write_atomically", "write_results"]

FORMAT = "sdekit results 1"
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")


def environment(workers: int) -> dict[str, Any]:
    """Versions, machine, date and command: what a reader needs to judge and repeat the numbers."""
    return {
        "sdekit": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "workers": workers,
        "threads_per_worker": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


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
    suite: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    lines: Iterable[Line],
    about: Mapping[str, Any],
    seconds: float,
    complete: bool,
) -> list[Path]:
    """Write results.json, which holds everything, and its numbers as orders.csv and errors.csv; returns the paths."""
    content = {
        "format": FORMAT,
        "complete": complete,
        "environment": dict(about),
        "seconds": round(seconds, 3),
        "suite": dict(suite),
        "summary": [_plain(line) for line in lines],
    }
    files = {"results.json": _json(content, results), "orders.csv": _orders(results), "errors.csv": _errors(results)}
    for name, body in files.items():
        write_atomically(out / name, body.encode())
    return [out / name for name in files]


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _json(content: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Indented, but every result on one line."""
    head = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    lines = ",\n  ".join(json.dumps(result, allow_nan=False, ensure_ascii=False) for result in results)
    return f'{head[:-2]},\n "results": [\n  {lines}\n ]\n}}\n'


def _umask() -> int:
    """It can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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


def _orders(results: Sequence[Mapping[str, Any]]) -> str:
    header = (*_PLACE, "declared", "measured", "low", "high", "steps", "errors", "status")
    rows = []
    for r in results:
        if r["what"] == "order":
            low, high = r.get("interval") or ("", "")
            measured = "exact" if r.get("exact") else r.get("measured", "")
            lists = (" ".join(map(str, r.get(key, ()))) for key in ("steps", "errors"))
            rows.append((*(r[key] for key in _PLACE), r.get("declared", ""), measured, low, high, *lists, r["status"]))
    return _csv(header, rows)


def _errors(results: Sequence[Mapping[str, Any]]) -> str:
    header = (*_PLACE, "budget", "steps", "calls", "error")
    rows = [
        (*(r[key] for key in _PLACE), p["budget"], p["steps"], p["calls"], "" if p["error"] is None else p["error"])
        for r in results
        if r["what"] == "work"
        for p in r.get("points", ())
    ]
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *rows])
    return buffer.getvalue()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """The processor's name; Linux tells it in a file, and elsewhere platform may know."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
