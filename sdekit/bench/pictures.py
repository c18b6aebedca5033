"""The pictures of a run: work-precision for each target, the orders of all solvers, samples beside exact ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style

from sdekit.bench import samples, work
from sdekit.bench.files import write_atomically
from sdekit.bench.suite import Suite
from sdekit.bench.summary import Line

__all__ = ["draw"]

_DPI = 130


def draw(results: Sequence[dict[str, Any]], lines: Sequence[Line], suite: Suite, out: Path) -> list[Path]:
    """Write the pictures that the results allow as PNG files, and return their paths."""
    # The settings of the user's own matplotlib must not change what a suite draws, nor the other way round.
    with matplotlib.rc_context(), matplotlib.style.context("default"):
        figures = {}
        for target in dict.fromkeys(r["target"] for r in results if r["what"] == "work"):
            figures[f"work-{target}"] = work.figure([r for r in results if r["target"] == target], target)
        if any(r["what"] == "order" for r in results):
            figures["orders"] = work.orders_figure(results, lines)
        for section in suite.pictures:
            rows = [r for r in results if r["what"] == "picture" and r["target"] == section.target]
            if any(r["status"] == "ok" for r in rows):
                figures[f"samples-{section.target}"] = samples.figure([r for r in rows if r["status"] == "ok"], section)
        return [_write(figure, out / f"{name}.png") for name, figure in figures.items() if figure is not None]


def _write(figure: Any, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    write_atomically(path, buffer.getvalue())
    return path
