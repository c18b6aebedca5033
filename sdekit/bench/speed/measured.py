"""The readings of a row as plain data, and what they were measured on."""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from sdekit.bench.cells import Cell, Timed
from sdekit.bench.speed import Reading, Setting, row
from sdekit.errors import OptionError

__all__ = ["described", "hardware", "measured"]

_SEED = 0
_ASKING = 30.0  # seconds that the driver may take to tell its version


def described(timed: Timed) -> dict[str, Any]:
    """What a row is, and where and how it is timed, as its result begins."""
    found = row(timed.row)
    about = {"row": timed.row, "title": found.title, "about": found.about}
    return {**about, "device": timed.device, "dtype": timed.dtype, "rounds": timed.rounds, "readings": []}


def measured(cell: Cell) -> dict[str, Any]:
    """`readings`, each with whether its goal is reached; `hardware` of a GPU. Without one, a GPU's row is skipped.

    Raises:
        OptionError: for a row that gives no number, or one that is not finite.
    """
    timed = cell.timed
    if timed is None:
        raise OptionError("cell", got=cell.what, expected="a row of speed", fix="Give the cell one.")
    if timed.device == "cuda" and not torch.cuda.is_available():
        return {"status": "skipped", "message": "No CUDA device is here: not measured."}
    with _seeded(timed.device):
        found = [_plain(r, timed.row) for r in row(timed.row).measure(Setting(timed.device, timed.dtype, timed.rounds))]
    if not found:
        raise OptionError("readings", got=f"none of {timed.row!r}", expected="one or more", fix="Correct the row.")
    return {"readings": found} | ({"hardware": hardware()} if timed.device == "cuda" else {})


def _plain(reading: Reading, name: str) -> dict[str, Any]:
    for value in (reading.value, reading.low, reading.high):
        if value is not None and not math.isfinite(value):
            raise OptionError(
                f"{name}: {reading.case}, {reading.quantity}", got=value, expected="a finite number", fix="Correct it."
            )
    return {**asdict(reading), "reached": reading.reached}


@contextlib.contextmanager
def _seeded(device: str) -> Iterator[None]:
    """PyTorch's own generators at one seed, so that errors are the same in any process, and afterwards as they were."""
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(_SEED)
        yield


def hardware() -> dict[str, str | None]:
    """Of the CUDA device that is used: name, driver, compute capability, and the CUDA that torch was built with."""
    major, minor = torch.cuda.get_device_capability()
    return {
        "name": torch.cuda.get_device_name(),
        "driver": _driver(),
        "capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
    }


def _driver() -> str | None:
    """The driver's version, which no library tells; None where its own program is not there or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_ASKING, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
