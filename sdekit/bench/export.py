"""The results of a run for papers and pages: tables in Markdown, LaTeX and CSV, figures as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdekit.bench import parts_tables, sampled_tables, speed_tables
from sdekit.bench.escape import file_stems, markdown
from sdekit.bench.files import write_atomically
from sdekit.bench.formats import as_csv, as_latex, as_markdown, latex_document
from sdekit.bench.results import folder, read_results
from sdekit.bench.suite import Picture, Suite
from sdekit.bench.summary import summarise
from sdekit.bench.tabulated import Table, provenance, tables
from sdekit.errors import UnknownNameError, suggest

__all__ = ["FOLDER", "FORMATS", "export"]

FORMATS = ("markdown", "latex", "csv", "png", "svg")
FOLDER = "export"
"""Where files go by default, in the folder of the results."""

_FIGURES = ("png", "svg")


def export(results: Path, formats: Sequence[str] = (), out: Path | None = None) -> list[Path]:
    """Write the tables and figures of the results in a folder, and return the paths of what was written.

    The same results give the same bytes. Names in them are texts in every format, whatever they hold.

    Args:
        results: a folder that `sdekit bench run` wrote.
        formats: of `FORMATS`; all where there are none.
        out: the folder to write to, made where it is missing; by default "export" in that of the results.

    Raises:
        UnknownNameError: for a format that is none of these.
        OptionError: for a folder without results or with damaged ones, or one that cannot be written to.
    """
    chosen = tuple(dict.fromkeys(formats)) or FORMATS
    for name in chosen:
        if name not in FORMATS:
            raise UnknownNameError("--format", got=repr(name), expected=", ".join(FORMATS), fix=suggest(name, FORMATS))
    content = read_results(results)
    out = folder(results / FOLDER if out is None else out)
    texts = {name: text for form in chosen if form not in _FIGURES for name, text in _TABLES[form](content).items()}
    written = [out / name for name in texts]
    for path, text in zip(written, texts.values(), strict=True):
        write_atomically(path, text.encode())
    figures = [form for form in chosen if form in _FIGURES]
    return [*written, *(_figures(content, out, figures) if figures else ())]


def _all(content: Mapping[str, Any]) -> list[Table]:
    return [
        *tables(content),
        *parts_tables.tables(content),
        *sampled_tables.tables(content),
        *speed_tables.tables(content),
    ]


def _markdown(content: Mapping[str, Any]) -> dict[str, str]:
    parts = [as_markdown(table, provenance(content)) for table in _all(content)]
    title = f"# sdekit: {markdown(content['suite']['name'])}\n"
    return {"tables.md": "\n".join([title, *parts])}


def _latex(content: Mapping[str, Any]) -> dict[str, str]:
    """A file for each table, and a document with all of them."""
    files = {
        f"table-{stem}.tex": as_latex(table, provenance(content), f"sdekit-{stem}") for stem, table in _stems(content)
    }
    return {**files, "tables.tex": latex_document(list(files))}


def _csv(content: Mapping[str, Any]) -> dict[str, str]:
    return {f"table-{stem}.csv": as_csv(table) for stem, table in _stems(content)}


def _stems(content: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """Each table and its file's name. Two of one name, as of two ranges of one grid, are numbered."""
    found: dict[str, Table] = {}
    for table in _all(content):
        name, number = table.name, 2
        while name in found:
            name, number = f"{table.name}-{number}", number + 1
        found[name] = table
    stems = file_stems(found)
    return ((stems[name], table) for name, table in found.items())


_TABLES = {"markdown": _markdown, "latex": _latex, "csv": _csv}


def _figures(content: Mapping[str, Any], out: Path, formats: Iterable[str]) -> list[Path]:
    from sdekit.bench import pictures  # on use, as matplotlib takes its time

    results, suite = content["results"], content["suite"]
    lines = summarise(results, suite["tolerance"], suite["table_calls"])
    # Nothing else of the suite is drawn, and its other names need not be such as may be measured here and now.
    drawn = Suite.model_construct(pictures=[Picture.model_validate(section) for section in suite["pictures"]])
    return pictures.draw(results, lines, drawn, out, tuple(formats))
