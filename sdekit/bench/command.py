"""`sdekit bench run`: from a suite's name to a table, files and an exit status."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from sdekit.bench import build, readings, results, runner, speed_table, summary, table
from sdekit.bench.cells import Cell, expand
from sdekit.bench.engines import Choice, default_workers
from sdekit.bench.limits import Limits
from sdekit.bench.own import check_measured, needed, with_solvers, words
from sdekit.bench.plugins import NONE, Plugins, use
from sdekit.bench.query import write_parquet
from sdekit.bench.store import Store
from sdekit.bench.suite import Suite, load

__all__ = ["run_suite"]

PASSED, FELL_SHORT, INTERRUPTED = 0, 1, 130


@dataclass
class _Run:
    source: str  # the suite and the code that it needs, as words of a command
    suite: Suite
    cells: list[Cell]
    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    reused: int = 0
    seconds: float = 0.0
    complete: bool = False

    @property
    def ordered(self) -> list[dict[str, Any]]:
        """Results in the order of the cells, whichever finished first."""
        return [self.found[i] for i in sorted(self.found)]


def run_suite(
    name: str,
    *,
    out: Path | None = None,
    workers: int | None = None,
    only: str | None = None,
    on: str | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    engine: str = "local",
    cell_seconds: float | None = None,
    cell_memory_mb: int | None = None,
    cluster: str | None = None,
    gpus: float = 0.0,
    plugins: Plugins = NONE,
    console: Console,
) -> int:
    """Measure a suite, print its table, write its files.

    Every measurement is kept as soon as it is finished, in a file of its own under `out`/cells.

    Args:
        name: of a shipped suite, or a path that ends in .toml.
        out: the folder of results; default results/<suite>.
        workers: how many measurements are made at a time; default one for each core. Rows of speed are measured one at
            a time, with nothing beside them.
        only: a pattern of solvers, and of rows of speed.
        on: a pattern of "target, process, grid"; of rows of speed of "device, dtype".
        resume: use what is kept of the same measurements by the same code, failures too, and measure the rest.
        retry_failed: resume, and measure again what failed.
        engine: what makes the measurements, see `engines.ENGINES`.
        cell_seconds, cell_memory_mb: what one measurement may take; default what the suite says.
        cluster, gpus: for engines that are clusters, see `engines.Choice`.
        plugins: the user's own code: solvers to be measured too, and modules to which the suite may refer.
        console: where the table goes; progress goes to standard error.

    Returns:
        The exit status: 0, 1 where an order falls short or a measurement fails, 130 where interrupted. A goal of speed
        that is missed is told, and is no failure.

    Raises:
        SdekitError: for a suite, pattern or folder that cannot be used; before anything is measured.
    """
    # Here, so that a missing package shows before the measurements and not after them; on use, as it takes its time.
    from sdekit.bench import pictures, report

    own = use(plugins)
    suite = with_solvers(load(name), own)
    limits = Limits(
        suite.cell_seconds if cell_seconds is None else cell_seconds,
        suite.cell_memory_mb if cell_memory_mb is None else cell_memory_mb,
    )
    choice = Choice(engine, default_workers() if workers is None else workers, limits, cluster, gpus)
    cells = expand(suite, only, on)
    if only is None and on is None:
        check_measured(own, cells)
    build.check(cells)
    out = results.folder(Path("results") / suite.name if out is None else out)
    store = Store(out / "cells")
    store.prepare()
    run = _Run(words(name, plugins), suite, cells)
    if resume or retry_failed:
        _take_up(run, store, console, retry_failed)
    timed = sum(cell.timed is not None for cell in cells)
    if timed and workers not in (None, 1):
        console.print("Rows of speed are measured one at a time, with nothing beside them, whatever --workers says.")
    start = time.perf_counter()
    try:
        _measure(run, store, choice, needed(plugins, suite))
        run.complete = True
    except KeyboardInterrupt:
        text = f"\nInterrupted after {len(run.found)} of {len(cells)} measurements; --resume measures the rest."
        console.print(text, style="yellow")
    run.seconds = time.perf_counter() - start
    used = 1 if timed == len(cells) else choice.workers
    lines, written = _write(run, out, results.environment(used, choice.name))
    written.append(write_parquet(out, run.ordered))
    if run.complete:
        written += [*pictures.draw(run.ordered, lines, suite, out), report.write_report(out)]
    return _report(run, lines, written, console)


def _take_up(run: _Run, store: Store, console: Console, retry_failed: bool) -> None:
    """Use what an earlier run has left, and say what that is."""
    survey = store.survey(run.cells, run.suite.tolerance, retry_failed=retry_failed)
    run.found, run.reused = survey.found, len(survey.found)
    others = {
        "new": survey.new,
        "measured by other code or versions, or on another machine": survey.other,
        "failed before": survey.failed if retry_failed else 0,
        "damaged": len(survey.damaged),
    }
    why = "; ".join(f"{count} {what}" for what, count in others.items() if count)
    left = len(run.cells) - run.reused
    kept = 0 if retry_failed else survey.failed
    failed = f" ({kept} of them failed: --retry-failed measures these again)" if kept else ""
    console.print(
        f"Resumed: {run.reused} measurements re-used{failed}, {left} to be measured{f' ({why})' if why else ''}.",
        highlight=False,
        soft_wrap=True,
    )
    for line in survey.damaged:
        console.print(Text(f"Not used: {line}", style="yellow"), soft_wrap=True)


def _measure(run: _Run, store: Store, choice: Choice, plugins: Plugins) -> None:
    """What is missing: rows of speed last, and one at a time, as they would slow each other down."""
    missing = [i for i in range(len(run.cells)) if i not in run.found]
    timed = [i for i in missing if run.cells[i].timed is not None]
    others = [i for i in missing if run.cells[i].timed is None]
    with _progress(len(missing)) as advance:
        for chosen, how in ((others, choice), (timed, replace(choice, workers=1))):
            for j, result in runner.run([run.cells[i] for i in chosen], run.suite.tolerance, how, store, plugins):
                run.found[chosen[j]] = result
                advance(result)


def _write(run: _Run, out: Path, about: dict[str, Any]) -> tuple[list[summary.Line], list[Path]]:
    lines = summary.summarise(run.ordered, run.suite.tolerance, run.suite.table_calls)
    written = results.write_results(
        out,
        source=run.source,
        suite=run.suite.model_dump(mode="json"),
        results=run.ordered,
        lines=lines,
        about=about,
        seconds=run.seconds,
        complete=run.complete,
        reused=run.reused,
    )
    return lines, written


def _report(run: _Run, lines: list[summary.Line], written: list[Path], console: Console) -> int:
    targets = [spot for where, spot in summary.work_spots(run.ordered).items() if where[2] != summary.OWN_STEPS]
    console.print(table.render(lines, targets, run.suite.table_calls, console.width))
    speed_table.print_readings(console, run.ordered)
    _say_skipped(console, run.ordered)
    bad = summary.failures(lines)
    table.print_lines(console, bad)
    _say_where(console, written, run, len(bad))
    return INTERRUPTED if not run.complete else FELL_SHORT if bad else PASSED


def _say_skipped(console: Console, found: list[dict[str, Any]]) -> None:
    """What was left out and why, once for all that a package is missing for; rows of speed say it themselves."""
    left: dict[str, dict[str, None]] = {}
    for r in found:
        if r["status"] == "skipped" and r["what"] != "speed":
            left.setdefault(r["message"].partition("; ")[2] or r["message"], {})[r["solver"]] = None
    for why, names in left.items():
        console.print(Text(f"Skipped: {', '.join(names)}: {why}"))


def _say_where(console: Console, written: list[Path], run: _Run, bad: int) -> None:
    minutes, seconds = divmod(round(run.seconds), 60)
    orders = any(r["what"] == "order" for r in run.ordered)
    good = "every measured order reaches the declared one" if orders else "nothing failed"
    verdict = f"{bad} fell short or failed" if bad else good
    if run.complete:
        count = f"{len(run.found) - run.reused} measurements"
        more = f", {run.reused} re-used" if run.reused else ""
        goals = readings.told(run.ordered)
        console.print(f"{count} in {minutes} min {seconds:02d} s{more}: {verdict}.{f' {goals}' if goals else ''}")
    console.print(
        Text(f"Written to {written[0].parent}{'' if run.complete else ', without pictures'}:"), soft_wrap=True
    )
    for path in written:
        console.print(Text(f"  {path.name}"), soft_wrap=True)
    pages = [path for path in written if path.suffix == ".html"]
    if pages:
        console.print(Text(f"Read {pages[0].resolve()}"), soft_wrap=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar on standard error that names what was measured last; in a log, where nothing can be redrawn, ten lines."""
    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        done = itertools.count(1)

        def advance(result: dict[str, Any]) -> None:
            n = next(done)
            bar.update(task, advance=1, description=f"{result['solver']} on {result.get('device', result['target'])}")
            if not console.is_terminal and n * 10 // total > (n - 1) * 10 // total:
                console.print(f"{n} of {total} measurements")

        yield advance
