"""Exports hold the numbers of the results, read back by other readers, and every name as the text that it is."""

from __future__ import annotations

import copy
import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from markdown_it.token import Token
from matplotlib import image

from sdekit.bench import bands, escape, export, formats, parts_tables, pictures, results, tabulated
from sdekit.errors import OptionError, UnknownNameError

CALLS = [5, 10, 20, 40]
PLACE = {"target": "ring", "process": "edm", "grid": "karras", "half_log_snr": [-4.0, 3.0], "status": "ok"}


def work(solver: str, order: float, kind: str = "deterministic", scale: float = 1.0, **more: Any) -> dict[str, Any]:
    points = [{"budget": n, "steps": n, "calls": n, "error": scale * n**-order} for n in CALLS]
    head = {"what": "work", "solver": solver, "kind": kind, "declared": round(order), "message": "", **PLACE}
    return {**head, "points": points, **more}


def order(solver: str, measured: float, **more: Any) -> dict[str, Any]:
    numbers = {"measured": measured, "interval": [measured - 0.05, measured + 0.25], "exact": False}
    return {**work(solver, 1), "what": "order", **numbers, **more}


def adaptive(solver: str) -> dict[str, Any]:
    points = [{"budget": None, "tolerance": 10.0**-k, "steps": k, "calls": 6 * k, "error": 10.0**-k} for k in (2, 3)]
    return work(solver, 5, grid="own steps", points=points)


def peer(name: str, order: float, **more: Any) -> dict[str, Any]:
    return work(name, order, package="k-diffusion 0.1.1", **more) | {"declared": None}


def failed(solver: str, what: str) -> dict[str, Any]:
    found = work(solver, 1, what=what, status="failed", message="RuntimeError: no rows today")
    return {k: v for k, v in found.items() if k not in ("points", "declared")}


def picture() -> dict[str, Any]:
    blocks = [{"budget": 5, "calls": 5, "error": 0.5, "x": [[-1.0, 0.0, 1.0, 2.0, 0.5, 0.0]] * 3}]
    shown = {"blocks": blocks, "exact": [[0.0] * 6] * 3, "real": [[1.0] * 6] * 6}
    return {**work("ddim", 1), "what": "picture", **shown}


def parts(solver: str) -> dict[str, Any]:
    values = {
        "prior": 1e-3,
        "discretization": 0.25,
        "truncation": 0.0,
        "carried": 2e-3,
        "total": 0.26,
        "measure": "rms",
    }
    points = [{"budget": n, "steps": n // 2, "calls": n, "parts": values if n > 5 else None} for n in (5, 10)]
    return {**work(solver, 2), "what": "parts", "points": points}


def protocol() -> dict[str, Any]:
    one = {"solver": "", "steps": 0, "calls": 0, "note": ""}
    rows = [
        {**one, "dynamics": d, "scheme": s, "column": n, "truncation": eps, "start": "marginal", "w2": w2}
        for d, s, n, w2 in (("SDE", "EM", 50, 4.5), ("SDE", "exact", 0, 0.0), ("ODE", "Euler", 50, None))
        for eps in (0.0, 1e-3)
    ]
    return {**work("Gaussian protocol", 1, "weak"), "what": "protocol", "rows": rows}


def every(given: dict[str, Any]) -> list[tabulated.Table]:
    return [*tabulated.tables(given), *parts_tables.tables(given)]


def content() -> dict[str, Any]:
    section = {
        **{key: PLACE[key] for key in ("target", "process", "grid", "half_log_snr")},
        "calls": [5],
        "solvers": [{"solver": "ddim"}],
        "size": [2, 3],
        "values": [-2.0, 2.0],
    }
    found = [
        order("ddim", 0.97),
        order("ddim", 0.93, grid="uniform"),
        order("rk4", 0.4),
        order("exact_one", 0.0) | {"measured": None, "interval": None, "exact": True},
        failed("broken", "order"),
        work("ddim", 1),
        work("euler", 1),
        work("rk4", 4, scale=500.0),
        peer("k-diffusion:sample_euler", 1),
        peer("k-diffusion:sample_heun", 2),
        failed("broken", "work"),
        work("far", 1, points=[{"budget": n, "steps": 0, "calls": 0, "error": None} for n in CALLS]),
        work("further", 1, points=[{"budget": n, "steps": 0, "calls": 0, "error": None} for n in CALLS]),
        work("ddpm", 1, "weak"),
        adaptive("rk45, adaptive"),
        picture(),
        parts("heun"),
        protocol(),
    ]
    about = {"sdekit": "0.1.0", "cpu": "Fast(R) 3", "cores": 2, "date": "2026-01-02", "command": "sdekit bench run x"}
    suite = {"name": "small", "description": "For tests", "tolerance": 0.15, "table_calls": [10], "pictures": [section]}
    return {"complete": True, "environment": about, "suite": suite, "results": found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(content(), tmp_path / "run")


def written(given: dict[str, Any], path: Path) -> Path:
    path.mkdir()
    about, suite = given["environment"], given["suite"]
    results.write_results(
        path, source="x", suite=suite, results=given["results"], lines=[], about=about, seconds=1.0, complete=True
    )
    return path


def named(given: dict[str, Any], name: str) -> tabulated.Table:
    return next(table for table in every(given) if table.name == name)


def texts(table: tabulated.Table) -> dict[str, list[str]]:
    """The rows by what their first cells say."""
    return {str(row[0].values[0]): [cell.text for cell in row[1:]] for row in table.rows}


# What the tables hold


def test_orders_are_the_least_ones_with_their_own_intervals() -> None:
    found = texts(named(content(), "orders"))
    assert found == {
        "ddim": ["deterministic", "1", "0.93", "0.88 to 1.18", "holds"],
        "rk4": ["deterministic", "1", "0.40", "0.35 to 0.65", "SHORT"],
        "exact_one": ["deterministic", "1", "exact", "-", "above"],
        "broken": ["deterministic", "-", "-", "-", "FAILED"],
    }


def test_errors_are_those_of_the_results() -> None:
    table = named(content(), "errors-ring-deterministic")
    assert [c.heading for c in table.columns] == ["solver", "order", "5", "10", "20", "40"]
    found = texts(table)
    euler = "ddim = euler = k-diffusion:sample_euler (k-diffusion 0.1.1)"
    assert found[euler] == ["1", "2.0e-1", "1.0e-1", "5.0e-2", "2.5e-2"]
    assert found["k-diffusion:sample_heun (k-diffusion 0.1.1)"] == ["-", "4.0e-2", "1.0e-2", "2.5e-3", "6.3e-4"]
    assert found["rk4"] == ["4", "8.0e-1", "5.0e-2", "3.1e-3", "2.0e-4"]
    assert texts(named(content(), "errors-ring-weak")) == {"ddpm": ["1", "2.0e-1", "1.0e-1", "5.0e-2", "2.5e-2"]}


def test_the_best_of_each_column_is_bold() -> None:
    table = named(content(), "errors-ring-deterministic")
    bold = {str(row[0].values[0]): [cell.bold for cell in row[2:]] for row in table.rows}
    assert bold["rk4"] == [False, False, False, True]
    assert bold["k-diffusion:sample_heun (k-diffusion 0.1.1)"] == [True, True, True, False]
    assert sum(map(sum, bold.values())) == len(CALLS)


def test_errors_that_look_the_same_or_are_of_rounding_are_equally_good() -> None:
    found = content()
    found["results"] = [work("a", 2), work("b", 2, scale=1.01), work("c", 2, scale=1.3)]
    bold = [row[2].bold for row in named(found, "errors-ring-deterministic").rows]
    assert bold == [True, True, False]
    found["results"] = [work("a", 2, scale=1e-14), work("b", 2, scale=2e-11), work("c", 2, scale=1.0)]
    bold = [row[2].bold for row in named(found, "errors-ring-deterministic").rows]
    assert bold == [True, True, False]


def banded(solver: str, starts: list[float], **more: Any) -> dict[str, Any]:
    """A solver whose errors at each number of calls are of these starts, divided by it."""
    exact, points = torch.ones(len(starts), 1), []
    for n in CALLS:
        end = exact + torch.tensor(starts)[:, None] / n
        points.append({"budget": n, "steps": n, "calls": n, **bands.over_starts(end.double(), exact.double())})
    return work(solver, 1, points=points, **more)


def test_best_are_those_that_the_same_starts_do_not_tell_apart() -> None:
    """Intervals of all three overlap; the mutant that compares these would mark the second too."""
    starts = [0.1, 0.2, 0.4, 0.8, 0.05, 0.3]
    worse, mixed = [1.2 * v for v in starts], [1.15 * v for v in reversed(starts)]
    found = content()
    found["results"] = [banded("best", starts), banded("always worse", worse), banded("as often better", mixed)]
    table = named(found, "errors-ring-deterministic")
    assert [[cell.bold for cell in row[2:-1]] for row in table.rows] == [[False] * 4, [True] * 4, [True] * 4]
    points = {r["solver"]: r["points"][0] for r in found["results"]}
    assert points["always worse"]["low"] < points["best"]["error"] < points["best"]["high"]


def test_intervals_are_in_the_tables() -> None:
    found = content()
    found["results"] = [banded("a", [0.1, 0.2, 0.4]), banded("b", [0.3, 0.3, 0.3])]
    found["results"].append(adaptive("rk45, adaptive"))
    table = named(found, "errors-ring-deterministic")
    rows = list(csv.DictReader(formats.as_csv(table).splitlines()))
    point = found["results"][0]["points"][1]
    assert [rows[0][f"{key}_at_10_calls"] for key in ("error", "low", "high")] == [
        repr(point[key]) for key in ("error", "low", "high")
    ]
    factors = [p["high"] / p["error"] for p in found["results"][0]["points"]]
    assert table.columns[-1].heading == "interval" and "95 %" in table.title
    assert table.rows[0][-1].text == f"{min(factors):.2g} to {max(factors):.2g}"
    # Of results without intervals, of an older version or of laws, nothing is said about them.
    assert named(found, "errors-ring-edm-own steps-deterministic").columns[-1].heading == "1.0e-3"


def test_solvers_without_errors_are_not_the_same_method() -> None:
    """The mutant: two curves without points are equal."""
    found = texts(named(content(), "errors-ring-deterministic"))
    assert found["far"] == found["further"] == ["1", "-", "-", "-", "-"]
    empty = [r for r in content()["results"] if r["solver"] in ("far", "further")]
    assert [names for names, _, _ in tabulated.merged(empty)] == [["far"], ["further"]]


def test_solvers_with_steps_of_their_own_are_shown_by_tolerance() -> None:
    table = named(content(), "errors-ring-edm-own steps-deterministic")
    assert [c.heading for c in table.columns] == ["solver", "order", "1.0e-2", "1.0e-3"]
    assert texts(table) == {"rk45, adaptive": ["5", "1.0e-2 (12)", "1.0e-3 (18)"]}
    assert not any(cell.bold for row in table.rows for cell in row)


def test_places_and_ranges_have_tables_of_their_own() -> None:
    found = content()
    found["results"] = [work("a", 1), work("a", 2, grid="uniform"), work("a", 3, half_log_snr=[-1.0, 1.0])]
    shown = [[row[2].text for row in table.rows] for table in tabulated.tables(found)]
    assert shown == [["2.0e-1"], ["4.0e-2"], ["8.0e-3"]]
    # Those of two ranges have one name, and a file each.
    for form in ("csv", "latex"):
        files = export._TABLES[form](found)
        assert sum("8.0e-3" in text or "0.008" in text for text in files.values()) == 1
        assert len([name for name in files if name.startswith("table-")]) == 3


def test_errors_in_parts_are_those_of_the_results() -> None:
    table = named(content(), "parts-ring-edm-karras-deterministic")
    assert texts(table) == {"heun": ["10", "1.0e-3", "2.5e-1", "0", "2.0e-3", "2.6e-1"]}
    assert "paths on the target itself" in table.title and "-4 to 3" in table.title
    rows = list(csv.DictReader(formats.as_csv(table).splitlines()))
    assert (rows[0]["calls"], rows[0]["discretization"]) == ("10", "0.25")
    found = content()
    found["results"].append({**parts("ddim"), "status": "failed", "message": "no luck"})
    assert named(found, "parts-ring-edm-karras-deterministic").notes == ("Failed (no luck): ddim.",)


def test_the_protocol_is_that_of_the_results() -> None:
    table = named(content(), "protocol-ring")
    assert [c.heading for c in table.columns] == ["scheme", "calls", "0, p_1", "0.001, p_1"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["ODE Euler", "50", "-", "-"],
        ["SDE exact", "-", "0", "0"],
        ["SDE EM", "50", "4.5e0", "4.5e0"],
    ]
    rows = list(csv.DictReader(formats.as_csv(table).splitlines()))
    assert [row["w2_at_0.001_from_marginal"] for row in rows] == ["", "0.0", "4.5"]


def test_what_is_missing_is_said() -> None:
    table = named(content(), "errors-ring-deterministic")
    assert table.notes == ("Failed (RuntimeError: no rows today): broken.",)
    assert "interrupted" not in formats.as_markdown(table, tabulated.provenance(content()))
    cut = {**content(), "complete": False}
    assert "interrupted" in formats.as_markdown(table, tabulated.provenance(cut))


def test_captions_say_where_the_numbers_come_from() -> None:
    table, source = named(content(), "orders"), tabulated.provenance(content())
    for text in (formats.as_markdown(table, source), formats.as_latex(table, source, "x")):
        for part in ("0.1.0", "Fast(R) 3, 2 cores", "2026-01-02", "sdekit bench run x"):
            assert part in text


# Names that mean something elsewhere

PAYLOADS = [
    "a|b",
    r"a\|b\\",
    "AT&T 100% #1 $x_{2}$ ~^",
    "$x_{$",
    "{unbalanced",
    "}]*[!](x)",
    "<script>alert(1)</script>",
    "-->",
    "_a_ **b** `c` ``",
    "two\nlines\r\n\n# head",
    "=cmd|' /C calc'!A0",
    "+1-1",
    "@SUM(1)",
    "\tx",
    r"\input{/etc/passwd}",
    r"\end{tabular}",
    "% not a comment",
    "[1] -- --- <<>> \"q\" 'r' ?`",
    "www.example.org https://example.org a@example.org",
    "null \x00 half \ud800 turned \u202e line \u2028",
    "naïve été λ→∞",
    "../../up",
    "",
]


def poisoned(payload: str) -> dict[str, Any]:
    """The results with the payload as every name, a number behind it where names must differ."""
    found, names = copy.deepcopy(content()), {}
    for i, r in enumerate(found["results"]):
        r["solver"] = names.setdefault(r["solver"], f"{payload}{i}")
        r |= {"target": payload, "process": payload, "grid": r["grid"] if r["grid"] == "own steps" else payload}
        r["message"] = payload
        if "package" in r:
            r["package"] = payload
    found["suite"] |= {"name": payload, "description": payload}
    found["suite"]["pictures"][0] |= {"target": payload, "process": payload, "grid": payload}
    found["environment"] |= {"cpu": payload, "command": payload}
    return found


def shown(cell: tabulated.Cell) -> str:
    """What a reader of any format must see."""
    text = " = ".join(f"{name} {remark}" for name, remark in cell.code) if cell.code else cell.text
    return escape.one_line(text)


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_markdown_gives_back_every_text(payload: str) -> None:
    check_markdown(poisoned(payload))


def check_markdown(given: dict[str, Any]) -> None:
    for table in every(given):
        text = formats.as_markdown(table, tabulated.provenance(given))
        lines = text.split("\n\n")[-1].splitlines()
        assert {len(line) for line in lines} == {len(lines[0])}  # aligned
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        kinds = {t.type for token in tokens for t in [token, *(token.children or [])]}
        assert not kinds & {
            "html_block",
            "html_inline",
            "link_open",
            "image",
            "em_open",
            "fence",
            "hr",
            "list_item_open",
        }
        assert [t.type for t in tokens].count("heading_open") == 1
        cells = [plain(t) for t in tokens if t.type == "inline"][-(len(table.rows) + 1) * len(table.columns) :]
        wanted = [shown(cell) for row in table.rows for cell in row]
        assert [" ".join(c.split()) for c in cells[len(table.columns) :]] == [" ".join(w.split()) for w in wanted]


def plain(token: Token) -> str:
    return "".join(" " if t.type == "softbreak" else t.content for t in token.children or [])


def unescaped(text: str) -> str:
    """LaTeX of ours as it is set, by the rules of LaTeX."""
    text = re.sub(r"\\(textbf|texttt|caption)(?=\{)|\\(raggedright )|\\allowbreak\{\}", "", text)
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    words |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    text = re.sub(r"\\(text[a-z]+)\{\}", lambda found: f"\0{ord(words[found[1]])}\1", text)
    text = re.sub(r"\\symbol\{(\d+)\}", "\0\\1\1", text)
    text = re.sub(r"\\([&%$#_{}])", lambda found: f"\0{ord(found[1])}\1", text)
    assert "\\" not in text and not re.search(r"[&%$#_~^<>|\"'`]|--", text), text
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    return re.sub("\0(\\d+)\1", lambda found: chr(int(found[1])), re.sub(r"[{}]", "", text))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_latex_gives_back_every_text(payload: str) -> None:
    check_latex(poisoned(payload))


def check_latex(given: dict[str, Any]) -> None:
    for table in every(given):
        text = formats.as_latex(table, tabulated.provenance(given), "tab")
        caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
        unescaped(re.sub(r"\\label\{[^}]*\}(\\\\)?$", "", caption))
        body = text.split("\\midrule\n")[-1].split("\\bottomrule\n")[0].split("\\end{")[0]
        rows = [line for line in body.splitlines() if line not in (r"\endhead", r"\endfoot")]
        assert len(rows) == len(table.rows)
        for row, cells in zip(rows, table.rows, strict=True):
            assert row.endswith(r" \\")
            parts = re.split(r"(?<!\\) & ", row.removesuffix(r" \\"))
            for part, cell in zip(parts, cells, strict=True):
                wanted = "".join(c if c.isascii() or c in "ïé" else f"U+{ord(c):04X}" for c in shown(cell))
                assert unescaped(part).split() == wanted.split()


@pytest.mark.parametrize("count", [3, 60])
def test_latex_environments_are_balanced(count: int) -> None:
    found = content()
    found["results"] = [work(f"solver_{i}", 1, scale=1.0 + i) for i in range(count)]
    (table,) = tabulated.tables(found)
    text = formats.as_latex(table, tabulated.provenance(found), "errors")
    document = formats.latex_document(["a.tex"])
    stack = []
    for begins, group, name in re.findall(r"\\(begin|end)(?:(group)|\{(\w+)\})", document + text):
        if begins == "begin":
            stack.append(group or name)
        else:
            assert stack.pop() == (group or name)
    assert not stack
    assert (r"\begin{longtable}" in text) == (count > 40)
    assert text.count(r"\caption{") == text.count(r"\label{tab:errors}") == text.count(r"\bottomrule") == 1
    for rule, times in ((r"\toprule", 1), (r"\midrule", 1)):
        assert text.count(rule) == times * (2 if count > 40 else 1)
    width = len(re.search(r"\\linewidth\}([lr]+)\}", text)[1]) + 1  # type: ignore[index]
    assert {line.count(" & ") + 1 for line in text.splitlines() if line.endswith(r" \\")} == {width}


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_csv_gives_back_every_value(payload: str) -> None:
    check_csv(poisoned(payload))


def check_csv(given: dict[str, Any]) -> None:
    for table in every(given):
        rows = list(csv.reader(formats.as_csv(table).splitlines()))
        assert rows[0] == [name for column in table.columns for name in column.fields]
        for row, cells in zip(rows[1:], table.rows, strict=True):
            wanted = [value for cell in cells for value in cell.values]
            for text, value in zip(row, wanted, strict=True):
                if isinstance(value, str):
                    assert text.removeprefix("'") == escape.one_line(value).removeprefix("'")
                    assert not text.startswith(("=", "+", "-", "@", "\t", "\r"))
                else:
                    assert text == ("" if value is None else repr(value))


@pytest.mark.parametrize("payload", [PAYLOADS[3], PAYLOADS[6]])
def test_figures_are_drawn_with_every_name(payload: str, tmp_path: Path) -> None:
    given = poisoned(payload)
    given["results"] = [r for r in given["results"] if r["what"] != "order"][:3] + given["results"][-1:]
    paths = export.export(written(given, tmp_path / "run"), ["svg"], tmp_path / "out")
    assert paths
    assert all(path.parent == tmp_path / "out" for path in paths)
    for path in paths:
        assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("function", "check", "payload"),
    [
        ("markdown", check_markdown, "a|b"),
        ("markdown_code", check_markdown, "a|b"),
        ("latex", check_latex, "100%"),
        ("latex_code", check_latex, "a_b"),
        ("csv_field", check_csv, "=cmd"),
    ],
)
def test_escaping_is_what_keeps_texts_apart(
    function: str, check: Any, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutants: one of the functions escapes nothing."""
    monkeypatch.setattr(formats, function, escape.one_line)
    with pytest.raises((AssertionError, ValueError)):
        check(poisoned(payload))


def test_dollars_are_what_figures_would_stumble_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: names go to matplotlib as they are."""
    monkeypatch.setattr(pictures, "in_figure", escape.one_line)
    with pytest.raises(ValueError, match="Expected"):
        test_figures_are_drawn_with_every_name("$x_{$", tmp_path)


def test_names_of_files_are_plain_and_distinct() -> None:
    names = ["work-ring", "a/b", "a b", "A-B", "../../up", "...", "", "x" * 300, "é\n|", "work-ring"]
    found = escape.file_stems(names)
    assert set(found) == set(names)
    assert found["work-ring"] == "work-ring"
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,110}", stem) for stem in found.values())
    assert len({stem.lower() for stem in found.values()}) == len(found)


# The files


KINDS = (
    *("orders", "errors-ring-deterministic", "errors-ring-weak", "errors-ring-edm-own-steps-deterministic"),
    *("parts-ring-edm-karras-deterministic", "protocol-ring"),
)


def test_tables_are_written_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    paths = export.export(folder, export.FORMATS[:3])
    names = {"tables.md", "tables.tex", *(f"table-{kind}.{form}" for form in ("tex", "csv") for kind in KINDS)}
    assert {path.name for path in paths} == names
    assert all(path.parent == folder / "export" for path in paths)
    again = export.export(folder, export.FORMATS[:3], tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]
    document = (folder / "export" / "tables.tex").read_text()
    assert all(path.name in document for path in paths if path.suffix == ".tex" and path.name != "tables.tex")


@pytest.mark.slow
def test_every_format_is_written_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    paths = export.export(folder)
    figures = {f"{name}.{form}" for name in ("orders", "work-ring", "samples-ring") for form in ("png", "svg")}
    assert {path.name for path in paths if path.suffix in (".png", ".svg")} == figures
    assert len(paths) == len(figures) + 2 + 2 * len(KINDS)
    again = export.export(folder, export.FORMATS, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]
    for path in paths:
        if path.suffix == ".png":
            assert min(image.imread(path).shape[:2]) > 100


def test_only_the_formats_that_were_asked_for(folder: Path, tmp_path: Path) -> None:
    paths = export.export(folder, ["csv", "markdown", "csv"], tmp_path / "out")
    assert {path.suffix for path in paths} == {".csv", ".md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in paths}


def test_what_cannot_be_exported_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'latex'"):
        export.export(folder, ["markdown", "latx"], tmp_path / "out")
    with pytest.raises(OptionError, match=r"results\.json: No such file"):
        export.export(tmp_path, ["markdown"], tmp_path / "out")
    damaged = (folder / results.FILE).read_text().replace('"rk4"', '"rk5"', 1)
    (folder / results.FILE).write_text(damaged)
    with pytest.raises(OptionError, match="damaged or edited"):
        export.export(folder, ["markdown"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_grids_have_a_picture_each(tmp_path: Path) -> None:
    found = content()
    found["results"] = [work("a", 1), work("a", 2, grid="uniform"), adaptive("b")]
    folder = written(found, tmp_path / "run")
    paths, again = (export.export(folder, ["svg"], tmp_path / name) for name in ("out", "again"))
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert b"<dc:date>" not in paths[0].read_bytes()
    assert [path.name for path in paths] == ["work-ring-edm-karras.svg", "work-ring-edm-uniform.svg"]
