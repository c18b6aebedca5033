"""The command line: help, tables, JSON, exit statuses, and messages without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdekit import grids, solvers
from sdekit.bench import command
from sdekit.cli import main
from sdekit.version import __version__


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as leave:
        return 0 if leave.code is None else int(leave.code)
    return 0


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


COMMANDS = [
    (),
    ("solvers",),
    ("grids",),
    ("bench",),
    ("bench", "list"),
    ("bench", "run"),
    ("bench", "report"),
    ("bench", "compare"),
    ("bench", "export"),
    ("bench", "animate"),
    ("bench", "query"),
    ("bench", "parquet"),
    ("report",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "--help") == 0
    text = capsys.readouterr().out
    assert "Usage: sdekit" in text
    assert max(map(len, text.splitlines())) <= 80
    if words not in ((), ("bench",)):
        assert f"Example: sdekit {' '.join(words)}" in text


PREDICTS = {"dpmpp_2m": "data", "dpm_solver_2": "noise", "preconditioned_adams": "residual", "milstein": "drift"}


@pytest.mark.parametrize("columns", ["80", "160"])
def test_solvers_lists_the_registry(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run("solvers") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    for info in solvers.available():
        orders = (info.order.deterministic, info.order.weak, info.order.strong)
        shown = ["-" if v is None else f"{v:g}" for v in orders]
        assert rows[info.name][1:6] == [*shown, str(info.nfe_per_step), "yes" if info.stochastic else "no"]
        if columns == "160":
            rest = " ".join(rows[info.name][6:])
            assert PREDICTS.get(info.name, "") in rest and info.family.split()[0][:4] in rest


def test_solvers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solvers", "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    by_name = {entry["name"]: entry for entry in found}
    assert set(by_name) == {info.name for info in solvers.available()}
    for info in solvers.available():
        entry = by_name[info.name]
        assert entry["order"]["weak"] == info.order.weak
        assert entry["family"] == info.family and PREDICTS.get(info.name) in (None, entry["prediction"])
        assert entry["aliases"] == list(info.aliases)
        assert set(entry["options"]) == set(info.options)


def test_the_page_of_solvers_is_that_of_the_registry(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solvers", "--markdown") == 0
    page = capsys.readouterr().out
    assert (root / "docs" / "solvers.md").read_text() == page
    for info in solvers.available():
        assert f"| `{info.name}` |" in page and all(f"`{alias}`" in page for alias in info.aliases)


def test_grids_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grids") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in grids.available())
    assert run("grids", "--json") == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == grids.available()


def test_bench_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "list") == 0
    text = capsys.readouterr().out
    assert "orders" in text
    assert "smoke" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sdekit {__version__}\n"


MORE = ("--resume", "--on", "ring, *")


@pytest.mark.parametrize("status", [0, 1, 130])
def test_status_of_a_run_is_that_of_the_command(status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def fake(name: str, **options: Any) -> int:
        seen.update(options, name=name)
        return status

    monkeypatch.setattr(command, "run_suite", fake)
    assert run("bench", "run", "orders", "--out", str(tmp_path), "--workers", "3", "--only", "d*", *MORE) == status
    assert (seen["name"], seen["out"], seen["workers"], seen["only"]) == ("orders", tmp_path, 3, "d*")
    assert (seen["resume"], seen["on"]) == (True, "ring, *")


REFUSED = [
    (("bench", "run", "oders"), "Did you mean 'orders'"),
    (("bench", "run", "nowhere.toml"), "No such file"),
    (("bench", "run", "orders", "--only", "huen"), "'heun'"),
    (("bench", "run", "orders", "--only", "ddim", "--on", "rng, vp, uniform"), "'ring, vp, uniform'"),
    (("bench", "report", "nowhere"), "nowhere/results.json: No such file"),
    (("report", "nowhere"), "nowhere/results.json: No such file"),
    (("bench", "animate", "--target", "low_rank_gaussian"), "64 dimensions"),
    (("bench", "export", "nowhere"), "nowhere/results.json: No such file"),
    (("bench", "export", "nowhere", "--format", "latx"), "'latex'"),
    (("bench", "compare", "nowhere", "nowhere"), "nowhere/results.json: No such file"),
    (("bench", "run", "orders", "--wrkers", "2"), "--workers"),
    (("bench", "run", "orders", "--workers", "two"), "'--workers'"),
    (("bench", "run"), "suite"),
    (("solver",), "solvers"),
]


@pytest.mark.parametrize(("words", "part"), REFUSED)
def test_what_cannot_be_done_is_one_message(
    words: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert part in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("package", "module", "words", "extra"),
    [
        ("typer", "sdekit.cli.commands", ("solvers",), "sdekit[cli]"),
        ("rich", "sdekit.cli.commands", ("solvers",), "sdekit[cli]"),
        ("pydantic", "sdekit.bench.suite", ("bench", "list"), "sdekit[bench]"),
        ("plotly", "sdekit.bench.report", ("bench", "report"), "sdekit[bench]"),
        ("plotly", "sdekit.bench.report", ("bench", "run", "orders"), "sdekit[bench]"),
        ("matplotlib", "sdekit.bench.pictures", ("bench", "run", "orders"), "sdekit[bench]"),
    ],
)
def test_missing_package_says_what_to_install(
    package: str,
    module: str,
    words: tuple[str, ...],
    extra: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n == module or n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    parent, _, child = module.rpartition(".")
    monkeypatch.delattr(sys.modules[parent], child, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # importing it now raises ModuleNotFoundError
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"needs {package}, which is not installed. Type: pip install '{extra}'" in printed.err


def test_missing_module_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sdekit.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "sdekit.grids", None)
    monkeypatch.delattr("sdekit.grids")
    with pytest.raises(ImportError):
        main(["solvers"])


def test_python_dash_m_is_the_command(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sdekit", "--version"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sdekit {__version__}\n", "")
