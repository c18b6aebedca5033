"""Tables in Markdown, LaTeX and CSV. The same table gives the same text, whatever its names hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from sdekit.bench.escape import csv_field, latex, latex_code, markdown, markdown_code
from sdekit.bench.tabulated import Cell, Column, Table

__all__ = ["as_csv", "as_latex", "as_markdown", "latex_document"]

_PAGE = 40  # rows of a LaTeX table that fit on a page; with more it is one that goes on over pages
_NAMES = r"p{0.3\linewidth}"  # names of merged rows need lines

Source = Sequence[tuple[str, str]]


def as_markdown(table: Table, source: Source) -> str:
    """A heading, a paragraph for its caption and a table of GitHub's Markdown, its columns aligned in the text too.

    Args:
        source: where the numbers come from, see `tabulated.provenance`.
    """
    rows = [
        [markdown(c.heading) for c in table.columns],
        *([_markdown_cell(cell) for cell in row] for row in table.rows),
    ]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(table.columns))]
    rule = ["-" * (w - 1) + (":" if c.number else "-") for c, w in zip(table.columns, widths, strict=True)]
    lines = [_aligned(row, widths, table.columns) for row in (rows[0], rule, *rows[1:])]
    origin = "".join(f"{words}{markdown_code(text)}" for words, text in source)
    notes = "".join(f"\n\n{markdown(note)}" for note in table.notes)
    title = f"## {markdown(table.heading)}\n\n{markdown(table.title)}"
    return f"{title}\nMeasured with {origin}.{notes}\n\n" + "".join(f"{line}\n" for line in lines)


def _aligned(row: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    cells = (text.rjust(w) if c.number else text.ljust(w) for text, w, c in zip(row, widths, columns, strict=True))
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    if cell.code:
        return _joined((markdown_code(name), markdown(remark)) for name, remark in cell.code)
    return f"**{markdown(cell.text)}**" if cell.bold else markdown(cell.text)


def _joined(names: Iterable[tuple[str, str]]) -> str:
    return " = ".join(" ".join(filter(None, pair)) for pair in names)


def as_latex(table: Table, source: Source, label: str) -> str:
    """A table with caption and label, for documents that load the packages booktabs and longtable.

    Args:
        label: letters, digits, dots and hyphens.
    """
    origin = "".join(f"{words}{latex(text)}" for words, text in source)
    notes = "".join(f" {latex(note)}" for note in table.notes)
    caption = rf"\caption{{{latex(table.title)} Measured with {origin}.{notes}}}\label{{tab:{label}}}"
    layout = "".join("r" if c.number else "l" for c in table.columns[1:])
    head = _latex_row([latex(c.heading) for c in table.columns])
    body = [_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows]
    if len(body) <= _PAGE:
        lines = [
            *(r"\begin{table}", r"\centering", caption, r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"),
            *(rf"\begin{{tabular}}{{{_NAMES}{layout}}}", r"\toprule", head, r"\midrule"),
            *(*body, r"\bottomrule", r"\end{tabular}", r"\end{table}"),
        ]
    else:
        lines = [
            *(r"\begingroup", r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"),
            *(rf"\begin{{longtable}}{{{_NAMES}{layout}}}", rf"{caption}\\", r"\toprule", head, r"\midrule"),
            *(r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"),
            *(*body, r"\end{longtable}", r"\endgroup"),
        ]
    return "".join(f"{line}\n" for line in ("% Needs the packages booktabs and longtable.", *lines))


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell) -> str:
    if cell.code:
        return r"\raggedright " + _joined((latex_code(name), latex(remark)) for name, remark in cell.code)
    return rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text)


def latex_document(files: Sequence[str]) -> str:
    """A whole document that shows the tables in these files, to look at them or to copy its first lines."""
    packages = "".join(rf"\usepackage{{{name}}}" + "\n" for name in ("booktabs", "longtable"))
    inputs = "".join(rf"\input{{{name}}}" + "\n\\clearpage\n" for name in files)
    head = "\\documentclass{article}\n\\usepackage[margin=2cm]{geometry}\n"
    return f"{head}{packages}\\begin{{document}}\n{inputs}\\end{{document}}\n"


def as_csv(table: Table) -> str:
    """All digits of its numbers, nothing where there is none, and no texts that a spreadsheet would calculate."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_field(name) for column in table.columns for name in column.fields])
    for row in table.rows:
        values = (value for cell in row for value in cell.values)
        writer.writerow(["" if v is None else csv_field(v) if isinstance(v, str) else repr(v) for v in values])
    return buffer.getvalue()
