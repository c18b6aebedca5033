"""What the `sdekit` command can do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdekit import grids as all_grids
from sdekit import solvers as all_solvers
from sdekit.solvers import SolverInfo
from sdekit.solvers.prediction import prediction_of
from sdekit.version import __version__

__all__ = ["app"]

app = typer.Typer(
    help="Stochastic differential equations for diffusion models: solvers whose every declared order is measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
bench = typer.Typer(help="Measure solvers against exact answers.", no_args_is_help=True)
app.add_typer(bench, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(epilog="Example: `sdekit solvers --json`")
def solvers(
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/solvers.md.")] = False,
) -> None:
    """List the solvers: orders of convergence, model calls a step, what they need, where they come from."""
    if markdown:
        from sdekit.cli.solver_page import solver_page

        typer.echo(solver_page(), nl=False)
        return
    found = all_solvers.available()
    if as_json:
        typer.echo(json.dumps([_plain(info) for info in found], indent=1, allow_nan=False, ensure_ascii=False))
        return
    console = Console()
    console.print(_solver_table(found, wide=console.width >= 120))


@app.command(epilog="Example: `sdekit grids`")
def grids(as_json: AsJson = False) -> None:
    """List the time grids, and what they are."""
    found = {name: _summary(all_grids.get(name)) for name in all_grids.available()}
    if as_json:
        typer.echo(json.dumps([{"name": k, "summary": v} for k, v in found.items()], indent=1, ensure_ascii=False))
        return
    _print_pairs("grid", found)


@bench.command("list", epilog="Example: `sdekit bench list`")
def list_suites() -> None:
    """List the suites that come with sdekit."""
    from sdekit.bench import suite

    _print_pairs("suite", {name: suite.load(name).description for name in suite.available()})


@bench.command("run", epilog="Example: `sdekit bench run orders --only 'dpmpp*' --workers 2 --out results/mine`")
def run(
    suite: Annotated[str, typer.Argument(help="A name that `sdekit bench list` shows, or the path of a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder for results and pictures.", show_default="results/SUITE")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Measurements made at a time, of one thread each.", show_default="one for each core"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="What makes them: local (processes), ray, dask, or here (this one, for debuggers).")
    ] = "local",
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of a running cluster, for ray and dask.", show_default="one of this machine"
        ),
    ] = None,
    gpus: Annotated[float, typer.Option(help="What each measurement needs of them on a cluster.")] = 0.0,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only solvers, or rows of speed, whose name matches.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only where this matches: 'TARGET, PROCESS, GRID', or 'DEVICE, DTYPE'."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Use what an earlier run of the same code has finished.")
    ] = False,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:CLASS", help="Measure a solver of yours too; or path/to/file.py:CLASS. Repeatable."
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="A module, or file, whose code the suite may name. Repeatable."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Resume, and measure again what failed.")
    ] = False,
    cell_seconds: Annotated[
        float | None, typer.Option(help="What one measurement may take.", show_default="as the suite says")
    ] = None,
    cell_memory_mb: Annotated[
        int | None, typer.Option(help="The same of memory, on Linux.", show_default="as the suite says")
    ] = None,
) -> None:
    """Run a suite: print its table, write its results, pictures and report.

    Every measurement is kept as soon as it is finished, under cells/ in the folder. With --resume those made by the
    same code and versions on the same machine are used again, failures too; what is missing or damaged is measured.
    A measurement that raises, hangs or crashes is one that failed, with its trace, and not the end of the run. Rows of
    speed are measured one at a time; a goal that one misses is told, and is no failure.

    Exit status: 0 where every measured order reaches the declared one, 1 where one falls short or a measurement fails,
    2 where the suite cannot be run as asked, 130 after Ctrl-C, which keeps what is finished.
    """
    from sdekit.bench.command import run_suite
    from sdekit.bench.plugins import Plugins

    status = run_suite(
        suite,
        out=out,
        workers=workers,
        only=only,
        on=on,
        resume=resume,
        retry_failed=retry_failed,
        engine=engine,
        cluster=cluster,
        gpus=gpus,
        cell_seconds=cell_seconds,
        cell_memory_mb=cell_memory_mb,
        plugins=Plugins(tuple(solver or ()), tuple(trust or ())),
        console=Console(),
    )
    if status:
        raise typer.Exit(status)


@bench.command("report", epilog="Example: `sdekit bench report results/orders`")
@app.command("report", epilog="Example: `sdekit report results/orders`")
def report(
    folder: Annotated[Path, typer.Argument(help="What `sdekit bench run` wrote.")] = Path("results/orders"),
    out: Annotated[Path | None, typer.Option(help="The page.", show_default="FOLDER/report.html")] = None,
) -> None:
    """Write the report of a run: one HTML page with tables, charts and samples, which needs no network.

    Exit status: 0, or 2 where the results are missing or damaged or the page cannot be written.
    """
    from sdekit.bench.report import write_report

    path = write_report(folder, out)
    Console().print(Text(f"Written to {path}"), soft_wrap=True)


@bench.command(
    "compare", epilog="Example: `sdekit bench compare benchmarks/results/cpu-xeon-2-cores/orders results/orders`"
)
def compare(
    before: Annotated[Path, typer.Argument(help="A folder that `sdekit bench run` wrote.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Show which orders, errors and readings of speed differ between two runs, beyond what is noise.

    Exit status: 0 where none got worse, 1 where some did, 2 where results are missing or damaged.
    """
    from sdekit.bench.compare import compare_runs

    status = compare_runs(before, after, Console())
    if status:
        raise typer.Exit(status)


@bench.command(
    "export", epilog="Example: `sdekit bench export results/orders --format markdown --format latex --out paper`"
)
def export(
    folder: Annotated[Path, typer.Argument(help="What `sdekit bench run` wrote.")] = Path("results/orders"),
    form: Annotated[
        list[str] | None,
        typer.Option("--format", help="markdown, latex, csv, png or svg. Repeatable.", show_default="all of them"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder for tables and figures.", show_default="FOLDER/export")
    ] = None,
) -> None:
    """Write the tables and figures of a run for papers and pages: orders, and errors at numbers of model calls.

    The same results give the same bytes. Exit status: 0, or 2 where the results are missing or damaged or the files
    cannot be written.
    """
    from sdekit.bench.export import export as write

    for path in write(folder, form or (), out):
        Console().print(Text(f"Written to {path}"), soft_wrap=True)


@bench.command(
    "animate",
    epilog="Example: `sdekit bench animate --target ring --process edm --solver dpmpp_2m --calls 20 --out flow.gif`",
)
def animate(
    target: Annotated[str, typer.Option(help="One in the plane: ring, spiral, checkerboard, lattice, ...")] = "ring",
    process: Annotated[str, typer.Option(help="edm, vp, ve, rectified_flow, ...")] = "edm",
    solver: Annotated[str, typer.Option(help="A sampler that `sdekit solvers` shows.")] = "dpmpp_2m",
    calls: Annotated[int, typer.Option(help="The most model calls.")] = 20,
    out: Annotated[Path, typer.Option(help="The file.")] = Path("flow.gif"),
    grid: Annotated[
        str | None, typer.Option(help="One that `sdekit grids` shows.", show_default="the process's own")
    ] = None,
    particles: Annotated[int, typer.Option(help="How many.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the starts, and of the sampler's noise.")] = 0,
) -> None:
    """Draw particles on their way from noise to data: a GIF of a sampler beside the exact flow, at most 2 MB.

    Beside a sampler that draws noise of its own are exact draws of the same marginals.
    """
    from sdekit.bench.animate import animate as draw

    path = draw(target, process, solver, calls, out, grid=grid, particles=particles, seed=seed)
    Console().print(Text(f"Written to {path}"), soft_wrap=True)


@bench.command("advise", epilog="Example: `sdekit bench advise results/work-precision`")
def advise(
    folder: Annotated[Path, typer.Argument(help="What `sdekit bench run` wrote.")] = Path("results/work-precision"),
    calls: Annotated[
        list[int] | None,
        typer.Option(help="A number of calls. Repeatable.", show_default="5, 10, 20, 50, 100, 500"),
    ] = None,
) -> None:
    """Say which sampler has the least error at each number of calls, and how sure that is: Markdown.

    Exit status: 0, or 2 where results are missing or damaged.
    """
    from sdekit.bench.advice import page
    from sdekit.bench.results import read_results

    numbers = calls or [5, 10, 20, 50, 100, 500]
    asked = "".join(f" --calls {n}" for n in calls or ())
    typer.echo(page(read_results(folder), numbers, f"sdekit bench advise {folder}{asked}"), nl=False)


@bench.command(
    "query",
    epilog='Example: `sdekit bench query results/orders "select solver, min(measured) from cells group by 1"`',
)
def query(
    folder: Annotated[Path, typer.Argument(help="What `sdekit bench run` wrote, or is writing.")],
    sql: Annotated[str, typer.Argument(help="SQL over the views cells and points, as duckdb understands it.")],
    as_json: AsJson = False,
) -> None:
    """Select from results: `cells` has a row for each measurement, `points` one for each error in it.

    The statement sees these two and nothing else: no files, no network.
    """
    from sdekit.bench.query import query as select

    columns, rows = select(folder, sql)
    if as_json:
        found = [dict(zip(columns, map(_json_value, row), strict=True)) for row in rows]
        typer.echo(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    Console().print(table)


@bench.command("parquet", epilog="Example: `sdekit bench parquet results/orders`")
def parquet(folder: Annotated[Path, typer.Argument(help="What `sdekit bench run` wrote, or is writing.")]) -> None:
    """Write what is finished as results.parquet in that folder, a row for each measurement."""
    from sdekit.bench.query import finished, write_parquet

    Console().print(Text(f"Written to {write_parquet(folder, finished(folder))}"), soft_wrap=True)


def _solver_table(found: list[SolverInfo], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("flow", justify="right", no_wrap=True)
    table.add_column("weak", justify="right", no_wrap=True)
    table.add_column("strong", justify="right", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("noise", no_wrap=True)
    table.add_column("needs", overflow="fold")
    if wide:
        table.add_column("predicts", no_wrap=True)
        table.add_column("family", overflow="fold")
        table.add_column("aliases", overflow="fold")
        table.add_column("reference", overflow="fold", style="dim")
    for info in found:
        orders = (_order(v) for v in (info.order.deterministic, info.order.weak, info.order.strong))
        more = ()
        if wide:
            more = (_prediction(info), info.family, Text(", ".join(info.aliases)), Text(info.reference))
        noise = "yes" if info.stochastic else "no"
        table.add_row(info.name, *orders, str(info.nfe_per_step), noise, info.needs, *more)
    table.caption = (
        "flow, weak, strong: orders of convergence with default options; calls: model calls a step; "
        "noise: whether it draws some by default."
        + (
            " predicts: what of the model's output it extrapolates."
            if wide
            else " Predictions, families, aliases and references: a wider terminal, or --json."
        )
    )
    table.caption_justify = "left"
    return table


def _order(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _prediction(info: SolverInfo) -> str:
    return prediction_of(all_solvers.get(info.name))


def _plain(info: SolverInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "aliases": list(info.aliases),
        "family": info.family,
        "prediction": _prediction(info),
        "order": vars(info.order),
        "nfe_per_step": info.nfe_per_step,
        "stochastic": info.stochastic,
        "adaptive": info.adaptive,
        "needs": info.needs,
        "reference": info.reference,
        "options": {k: _json_value(v) for k, v in info.options.items()},
        "names_with_options": {
            name: {k: _json_value(v) for k, v in options.items()} for name, options in info.names_with_options.items()
        },
    }


def _json_value(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_json_value(v) for v in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _summary(function: Any) -> str:
    """The first sentence of its docstring."""
    line = (function.__doc__ or "").strip().partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")


def _print_pairs(heading: str, pairs: dict[str, str]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(heading, no_wrap=True)
    table.add_column("")
    for name, text in pairs.items():
        table.add_row(Text(name), Text(text))
    Console().print(table)
