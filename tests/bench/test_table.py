"""The printed table holds the numbers, at the width of any terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sdekit.bench import table
from sdekit.bench.summary import Line

LINES = [
    Line("ddim", "deterministic", 1, 0.98, "digits, edm, random", 9, {("ring", 10): 0.5, ("digits", 10): 0.25}),
    Line("exp_adams(order=5, single_step)", "deterministic", 5, 4.5, "ring, vp, uniform", 9, {("digits", 10): 1e-4}),
    Line("exp_adams(order=3)", "deterministic", 2, 2.7, "ring, vp, uniform", 9),
    Line("[red]ddpm[/]", "weak", 1, None, "", 9, {("digits", 10): None}),
    Line(
        "broken",
        "weak",
        1,
        None,
        "",
        0,
        {},
        {"[bold]no rows": ["ring, vp, karras", "ring, vp, uniform", "ring, edm, karras"]},
    ),
]


def printed(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table.render(LINES, ["ring", "digits"], [10, 20], width))
    table.print_lines(console, LINES)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_numbers_and_verdicts_are_there(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["ddim"].split()[1:4] == ["1", "0.98", "holds"]
    assert "2.5e-01" in rows["ddim"]
    assert "above" in rows["exp_adams(order=3)"]
    assert rows["[red]ddpm[/]"].split()[1:4] == ["1", "exact", "above"]
    assert "SHORT" in text
    assert "FAILED" in text
    assert "order 5, but 4.50 is measured on ring, vp, uniform" in " ".join(text.split())
    assert "broken (weak) failed on ring, vp, karras and 2 more: [bold]no rows" in " ".join(text.split())


def test_wide_terminals_see_more() -> None:
    narrow, wide = printed(80), printed(160)
    assert "digits, edm, random" not in narrow
    assert "digits, edm, random" in wide
    assert "5.0e-01" in wide
