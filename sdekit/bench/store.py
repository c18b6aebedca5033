"""Finished measurements, a sealed file each: a run can be killed at any instant, and taken up again."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

import sdekit
from sdekit import solvers
from sdekit.bench import peers
from sdekit.bench.cells import Cell, is_peer
from sdekit.bench.files import canonical, digest, sealed, sweep, unsealed, write_atomically
from sdekit.bench.limits import FAILURES
from sdekit.bench.names import maker
from sdekit.bench.speed.others import INSTALL
from sdekit.errors import OptionError, SdekitError

__all__ = ["FORMAT", "Store", "Survey", "cpu_name", "made_by"]

FORMAT = "sdekit cell 1"
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")
# Of the command line and of the benchmarks, only these can change a number.
_DRAWING = ("cli", "bench")
_MEASURING = (
    "bench/bands.py",
    "bench/build.py",
    "bench/cells.py",
    "bench/measure.py",
    "bench/parts.py",
    "bench/precision.py",
    "bench/peers/",
    "bench/sampled.py",
    "bench/speed/",
)


@dataclass
class Survey:
    """What a store holds of some cells.

    Attributes:
        found: results that can be used, by the index of their cell.
        new: how many cells it does not hold.
        other: how many were made by other code, other versions or on another machine.
        failed: how many hold a failure; these are in `found` unless they are to be measured again.
        damaged: what is wrong with each file that is not as it was written.
    """

    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    new: int = 0
    other: int = 0
    failed: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Store:
    """A folder of finished measurements. Several runs, and all workers of each, may use one at the same time."""

    folder: Path

    def prepare(self) -> None:
        """Make the folder, and remove what killed processes left half-written.

        Raises:
            OptionError: where it cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            sweep(self.folder)
        except OSError as error:
            raise self._refusal(error) from error

    def path(self, cell: Cell, tolerance: float) -> Path:
        """The file of a cell: its name is a digest of what is measured."""
        return self.folder / f"{digest(_content(cell, tolerance))[:32]}.json"

    def put(self, cell: Cell, tolerance: float, result: dict[str, Any], made: dict[str, Any] | None = None) -> None:
        """Keep a result, in place of an earlier one of the same cell.

        Args:
            made: what it was made by, if not by this process, see `made_by`.

        Raises:
            OptionError: where the system refuses, for want of space for example; nothing else is lost.
        """
        content = {"format": FORMAT, **_content(cell, tolerance), "made_by": made or made_by(cell), "result": result}
        try:
            write_atomically(self.path(cell, tolerance), _text(content))
        except OSError as error:
            raise self._refusal(error) from error

    def survey(self, cells: Sequence[Cell], tolerance: float, *, retry_failed: bool = False) -> Survey:
        """Read what is there of these cells.

        Args:
            retry_failed: leave out failures, so that they are measured again.
        """
        survey, counts = Survey(), Counter()
        for i, cell in enumerate(cells):
            try:
                content = self._read(cell, tolerance)
            except OptionError as error:
                survey.damaged.append(str(error))
                continue
            state = _state(content, cell)
            counts[state] += 1
            if content is not None and (state == "found" or (state == "failed" and not retry_failed)):
                survey.found[i] = content["result"]
        survey.new, survey.other, survey.failed = counts["new"], counts["other"], counts["failed"]
        return survey

    def _read(self, cell: Cell, tolerance: float) -> dict[str, Any] | None:
        path = self.path(cell, tolerance)
        try:
            # Nothing but a file of this folder: a link could lead anywhere.
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with open(handle, "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OptionError(
                str(path), got=error.strerror, expected="a readable file", fix="Delete it and measure again."
            ) from error
        content = unsealed(path, raw, FORMAT)
        # The seal covers what the file says; this also covers how it says it, and that it has its own name.
        if _text(content) != raw or not _is_of(content, _content(cell, tolerance)):
            raise OptionError(
                str(path),
                got="another measurement, or another form, than the name stands for",
                expected="the file as sdekit wrote it",
                fix="Delete it and measure again.",
            )
        return content

    def _refusal(self, error: OSError) -> SdekitError:
        return OptionError(
            "--out",
            got=f"{self.folder}: {error.strerror}",
            expected="a folder that can be written to, with room for the results",
            fix="Make room or choose another; what is finished is kept, and --resume uses it.",
        )


def made_by(cell: Cell) -> dict[str, Any]:
    """What else a number depends on: the code, the versions and the machine."""
    if cell.timed is not None:
        beside = ", ".join(f"{name} {peers.installed(name)}" for name in INSTALL)
        gpu = torch.cuda.get_device_name() if cell.timed.device == "cuda" and torch.cuda.is_available() else None
        return {**_surroundings(), "plugin": beside, "gpu": gpu}
    makers = [maker("process", cell.process.make), maker("target", cell.target.make)]
    package = ""
    if is_peer(cell.variant.solver):
        name = peers.get(cell.variant.solver).package
        package = f"{name} {peers.installed(name)}"
    elif cell.variant.solver:
        method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
        makers.insert(0, type(method))
        package = f"{method.package} {peers.installed(method.package)}" if method.family == "backend" else ""
    own = [_source_of(made) for made in makers if made.__module__.partition(".")[0] != "sdekit"]
    own += [_data_of(value) for named in (cell.process, cell.target) for _, value in named.options]
    own = [part for part in own if part]
    return {**_surroundings(), "plugin": ", ".join(filter(None, (package, digest(own) if own else ""))) or None}


def cpu_name() -> str:
    """The processor's name; Linux tells it in a file, and elsewhere platform may know."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _is_of(content: dict[str, Any], expected: dict[str, Any]) -> bool:
    if set(content) != {"format", *expected, "made_by", "result"}:
        return False
    result = content["result"]
    return isinstance(result, dict) and "status" in result and all(content[k] == v for k, v in expected.items())


def _state(content: dict[str, Any] | None, cell: Cell) -> str:
    if content is None:
        return "new"
    if content["made_by"] != made_by(cell):
        return "other"
    status = content["result"]["status"]
    # What is neither a result nor a failure was left out, for want of a package for example: it may be there now.
    return "found" if status == "ok" else "failed" if status in FAILURES else "new"


def _content(cell: Cell, tolerance: float) -> dict[str, Any]:
    return {"cell": _plain(asdict(cell)), "tolerance": tolerance}


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _text(content: dict[str, Any]) -> bytes:
    return (canonical(sealed(content)) + "\n").encode()


@cache
def _surroundings() -> dict[str, Any]:
    return {
        "code": _code(Path(sdekit.__file__).parent),
        "python": platform.python_version(),
        **{name: peers.installed(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "cpu": cpu_name(),
    }


def _code(top: Path) -> str:
    """A digest of all of sdekit's files that can change a number."""
    parts: list[str] = []
    for path in sorted(top.rglob("*.py")):
        name = path.relative_to(top).as_posix()
        if name.partition("/")[0] not in _DRAWING or name.startswith(_MEASURING):
            parts += [name, hashlib.sha256(path.read_bytes()).hexdigest()]
    return digest(parts)


def _data_of(value: Any) -> str:
    """A digest of the file that an option names, of a target's data for example; "" where it names none."""
    try:
        about = os.stat(value) if isinstance(value, str) else None
    except (OSError, ValueError):  # it is a name of something else
        return ""
    return _digest_of(value, about.st_mtime_ns, about.st_size) if about and stat.S_ISREG(about.st_mode) else ""


@cache
def _digest_of(path: str, _changed: int, _size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _source_of(cls: Any) -> str:
    """A digest of the file in which a class or function from elsewhere is defined; its name where there is no file."""
    try:
        source = Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError):
        source = f"{cls.__module__}.{cls.__qualname__}".encode()
    return hashlib.sha256(source).hexdigest()
