"""The pictures of a run: work-precision for each target, the orders of all solvers, samples beside exact ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style

from sdekit.bench import samples, work
from sdekit.bench.escape import file_stems, in_figure
from sdekit.bench.files import write_atomically
from sdekit.bench.suite import Picture, Suite
from sdekit.bench.summary import OWN_STEPS, Line

__all__ = ["draw"]

_DPI = 130
_NAMES = ("solver", "target", "process", "grid")
# Without these an SVG file holds the date, and names of its parts that are drawn anew each time.
_SETTINGS = {"svg.hashsalt": "sdekit"}
_METADATA = {"png": {}, "svg": {"Date": None}}


def draw(
    results: Sequence[dict[str, Any]],
    lines: Sequence[Line],
    suite: Suite,
    out: Path,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write the pictures that the results allow, and return their paths. The same results give the same bytes.

    Args:
        suite: its sections of pictures are what samples were drawn for.
        formats: "png" and "svg".
    """
    shown = [{**r, **{key: in_figure(r[key]) for key in _NAMES}} for r in results]
    # The settings of the user's own matplotlib must not change what a suite draws, nor the other way round.
    with matplotlib.rc_context(), matplotlib.style.context(["default", _SETTINGS]):
        figures = {
            **_of_work(shown),
            **_of_orders(shown, [replace(line, solver=in_figure(line.solver)) for line in lines]),
            **_of_samples(shown, [_readable(section) for section in suite.pictures]),
        }
        stems = file_stems(figures)
        return [
            _write(figure, out / f"{stems[name]}.{form}", form)
            for name, figure in figures.items()
            if figure is not None
            for form in formats
        ]


def _readable(section: Picture) -> Picture:
    return section.model_copy(update={key: in_figure(getattr(section, key)) for key in _NAMES[1:]})


def _of_work(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One for each target; where it is measured on several grids or processes, one for each of these."""
    places = dict.fromkeys(_places(results))
    found = {}
    for target, process, grid in places:
        alone = sum(other == target for other, *_ in places) == 1
        rows = [
            r for r in results if (r["target"], r["process"]) == (target, process) and r["grid"] in (grid, OWN_STEPS)
        ]
        name = f"work-{target}" if alone else f"work-{target}-{process}-{grid}"
        found[name] = work.figure(rows, target)
    return found


def _places(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Where errors are measured; solvers with steps of their own are shown beside those on a grid, if there are any."""
    measured = [r for r in results if r["what"] == "work"]
    with_grid = {(r["target"], r["process"]) for r in measured if r["grid"] != OWN_STEPS}
    for r in measured:
        if r["grid"] != OWN_STEPS or (r["target"], r["process"]) not in with_grid:
            yield r["target"], r["process"], r["grid"]


def _of_orders(results: Sequence[dict[str, Any]], lines: Sequence[Line]) -> dict[str, Any]:
    return {"orders": work.orders_figure(results, lines)} if any(r["what"] == "order" for r in results) else {}


def _of_samples(results: Sequence[dict[str, Any]], sections: Sequence[Picture]) -> dict[str, Any]:
    drawn = [r for r in results if r["what"] == "picture" and r["status"] == "ok"]
    rows = {section.target: [r for r in drawn if r["target"] == section.target] for section in sections}
    return {f"samples-{s.target}": samples.figure(rows[s.target], s) for s in sections if rows[s.target]}


def _write(figure: Any, path: Path, form: str) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=_DPI, metadata=_METADATA[form])
    write_atomically(path, buffer.getvalue())
    return path
