"""The printed table: what each solver declares, what was measured, and its errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdekit.bench.summary import ABOVE, Line

__all__ = ["print_lines", "render"]

_STYLES = {"holds": "green", "above": "cyan", "SHORT": "bold red", "FAILED": "bold red", "skipped": "dim", "": "dim"}
_TITLES = {
    "deterministic": "Deterministic, against the exact probability flow",
    "weak": "Stochastic, exact laws on the Gaussian of the target's mean and covariance",
    "strong": "Stochastic, each path against a fine solution on the same Brownian path",
}
_WIDE = 120  # columns from which on there is room for where the least order was measured
_FIXED, _PLACE, _EACH = 58, 44, 8  # roughly: solver and orders; where; one error


def render(lines: Iterable[Line], targets: Sequence[str], calls: Sequence[int], width: int) -> RenderableType:
    """A table for each kind, with the errors on as many of the targets as `width` has room for, the last ones first."""
    kinds = {kind: [line for line in lines if line.kind == kind] for kind in _TITLES}
    shown = _targets_that_fit(targets, calls, width)
    parts: list[RenderableType] = []
    for kind, chosen in kinds.items():
        if chosen:
            parts += [Text(_TITLES[kind], style="bold"), _table(chosen, shown, calls, width), Text("")]
    return Group(*parts, _legend(calls)) if parts else Group()


def _targets_that_fit(targets: Sequence[str], calls: Sequence[int], width: int) -> list[str]:
    room = width - _FIXED - (_PLACE if width >= _WIDE else 0)
    fitting = max(room // (_EACH * max(len(calls), 1)), 1)
    return list(targets)[-fitting:]


def _table(lines: Sequence[Line], targets: Sequence[str], calls: Sequence[int], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("solver", overflow="fold", min_width=14)
    table.add_column("decl.", justify="right", no_wrap=True)
    table.add_column("meas.", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if width >= _WIDE:
        table.add_column("least on", overflow="fold", style="dim")
    for target in targets:
        for i, n in enumerate(calls):
            # The target's name heads its first column; rich has no cells that span several.
            table.add_column(f"{target if i == 0 else ''}\n{n} calls", justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line, targets, calls, width))
    return table


def _cells(line: Line, targets: Sequence[str], calls: Sequence[int], width: int) -> list[RenderableType]:
    exact = bool(line.count) and line.measured is None
    measured = "exact" if exact else "" if line.measured is None else f"{line.measured:.2f}"
    cells: list[RenderableType] = [
        Text(line.solver),
        "" if line.declared is None else f"{line.declared:g}",
        Text(measured, style=_STYLES[line.verdict]),
        Text(line.verdict, style=_STYLES[line.verdict]),
    ]
    if width >= _WIDE:
        cells.append(Text(line.where))
    return [*cells, *(_number(line.errors.get((target, n))) for target in targets for n in calls)]


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


def _legend(calls: Sequence[int]) -> Text:
    words = (
        "decl., meas.: the order declared, and the least one measured over processes, targets and grids. "
        f"above: measured more than {ABOVE:g} above. "
        "Errors are relative (root mean squares), "
        f"at no more than {', '.join(map(str, calls))} model calls."
    )
    return Text(words, style="dim")


def print_lines(console: Console, lines: Sequence[Line]) -> None:
    """Why a run did not pass: one paragraph for each solver that fell short or failed."""
    for line in lines:
        if line.short:
            least = f"{line.measured:.2f} is measured on {line.where}"
            console.print(
                Text(f"{line.solver} ({line.kind}) declares order {line.declared:g}, but {least}.", style="red")
            )
        for message, places in line.failed.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            console.print(Text(f"{line.solver} ({line.kind}) failed on {places[0]}{more}: {message}", style="red"))
