"""A user's own code: imported where it is asked for, measured like any other, and never because a file names it."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sdekit.bench import build, cells, command, pictures, plugins, report, store
from sdekit.bench.plugins import Plugins
from sdekit.bench.suite import load
from sdekit.errors import OptionError, SdekitError, UnknownNameError
from sdekit.solvers import base

CODE = """
from __future__ import annotations
import ctypes, itertools, os, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sdekit import VP, targets
from sdekit.solvers import Order, PlanSolver
from sdekit.solvers.ddim import ddim_row

Path(__file__).with_name("imported").touch()


@dataclass(frozen=True)
class MyDDIM(PlanSolver):
    declared: ClassVar[Order] = Order(deterministic=1)
    strength: float = 1.0

    def rows(self, process, times, stochasticity):
        return [ddim_row(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(process.levels(times)))]


@dataclass(frozen=True)
class Bad(MyDDIM):
    name: ClassVar[str] = "bad"
    how: str = "segfault"

    def rows(self, process, times, stochasticity):
        if len(times) > 9:
            {"segfault": lambda: ctypes.string_at(0), "hang": lambda: time.sleep(1000)}[self.how]()
        return super().rows(process, times, stochasticity)


class Mine(VP):
    pass


def picky(dim):
    return targets.ring(components=dim)


def mine(dim: int = 2):
    return targets.ring(components=dim + 3)


NOTHING = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a user's, in a registry of its own and with nothing trusted."""
    monkeypatch.setattr(base._REGISTRY, "_items", dict(base._REGISTRY._items))
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(pictures, "draw", lambda *_: [])
    monkeypatch.setattr(report, "write_report", lambda out: out)
    path = tmp_path / "own" / "my_code.py"
    path.parent.mkdir()
    path.write_text(CODE)
    return path


def run(suite: Path, out: Path, **options: Any) -> tuple[int, list[dict[str, Any]]]:
    console = Console(width=100, quiet=True)
    status = command.run_suite(str(suite), out=out, console=console, **options)
    return status, json.loads((out / "results.json").read_text())["results"]


@pytest.mark.parametrize("by", ["file", "module"])
def test_own_solver_is_measured_as_the_others_are(
    mine: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.chdir(mine.parent)
    reference = f"{'my_code.py' if by == 'file' else 'my_code'}:MyDDIM"
    status, found = run(
        tiny, tmp_path / "out", engine="here", only="*ddim", on="*edm*", plugins=Plugins(solvers=(reference,))
    )
    assert status == 0
    orders = {r["solver"]: r["measured"] for r in found if r["what"] == "order"}
    assert orders["my_ddim"] == orders["ddim"]
    sys.modules.pop("my_code", None)


@pytest.mark.slow
def test_solver_that_crashes_or_hangs_costs_its_own_row(mine: Path, tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(
        tiny.read_text() + '[[variants]]\nsolver = "bad"\noptions = { how = "hang" }\n[[variants]]\nsolver = "ddim"\n'
    )
    asked = {"only": "*d*d*m*", "on": "mixture, edm, half_log_snr", "plugins": Plugins(solvers=(f"{mine}:Bad",))}
    asked |= {"workers": 2, "cell_seconds": 0.3}
    asked["only"] = "[bd][ad][di]*"
    status, found = run(tiny, tmp_path / "out", **asked)
    rows = {r["solver"]: r for r in found if not r["solver"].startswith("ddim(")}
    assert status == 1
    assert {name: r["status"] for name, r in rows.items()} == {
        "bad": "crash",
        "bad(hang)": "timeout",
        "ddim": "ok",
    }
    assert "my_code.py" in rows["bad"]["trace"] and "my_code.py" in rows["bad(hang)"]["trace"]
    before = (tmp_path / "out" / "cells").stat().st_mtime_ns
    status, again = run(tiny, tmp_path / "out", resume=True, **asked)
    assert (status, again) == (1, found)
    assert (tmp_path / "out" / "cells").stat().st_mtime_ns == before, "failures are finished too"
    mine.write_text(CODE.replace("if len(times) > 9", "if False"))
    for name in [name for name in sys.modules if name.startswith("sdekit_user_")]:  # as in a new process
        del sys.modules[name]
    del base._REGISTRY._items["bad"]
    status, mended = run(tiny, tmp_path / "out", retry_failed=True, **asked)
    assert status == 0
    assert {r["status"] for r in mended} == {"ok"}


def test_solver_that_never_plans_costs_its_own_row(mine: Path, tiny: Path, tmp_path: Path) -> None:
    """Nor does the process that starts the run call it: what hangs there hangs for ever."""
    mine.write_text(
        CODE
        + """
@dataclass(frozen=True)
class Dddm(MyDDIM):
    name: ClassVar[str] = "dddm"

    def rows(self, process, times, stochasticity):
        raise RuntimeError("not today")
"""
    )
    asked = {"only": "dd[id]m", "on": "mixture, edm, half_log_snr", "plugins": Plugins(solvers=(f"{mine}:Dddm",))}
    status, found = run(tiny, tmp_path / "out", engine="here", **asked)
    assert status == 1
    assert {r["solver"]: r["status"] for r in found} == {"ddim": "ok", "dddm": "failed"}
    assert "not today" in next(r for r in found if r["solver"] == "dddm")["trace"]


OWN_SECTION = """
[[work]]
target = "mixture"
process = "vp"
grid = "half_log_snr"
half_log_snr = [-1.0, 1.0]
calls = [5, 10]
samples = 2
solvers = [{ solver = "SOLVER" }]
"""


def test_own_solver_is_measured_where_a_suite_chooses_too(mine: Path, tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().partition("[[orders]]")[0] + OWN_SECTION.replace("SOLVER", "ddim"))
    status, found = run(tiny, tmp_path / "out", engine="here", plugins=Plugins(solvers=(f"{mine}:MyDDIM",)))
    assert (status, [r["solver"] for r in found]) == (0, ["ddim", "my_ddim"])
    again = json.loads((tmp_path / "out" / "results.json").read_text())["source"]
    assert shlex.split(again) == [str(tiny), "--solver", f"{mine}:MyDDIM"], "all that a command to repeat it needs"
    assert found[0]["points"][0]["error"] == found[1]["points"][0]["error"]


def test_own_solver_that_nothing_measures_is_refused(mine: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--solver: got my_ddim; expected a solver that the suite has a measurement"):
        run(Path("speed"), tmp_path / "out", engine="here", plugins=Plugins(solvers=(f"{mine}:MyDDIM",)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_know_a_solver_that_a_suite_names(mine: Path, tiny: Path, tmp_path: Path) -> None:
    """In processes of their own: here the reference is loaded, there it has to be."""
    tiny.write_text(tiny.read_text().partition("[[orders]]")[0] + OWN_SECTION.replace("SOLVER", f"{mine}:MyDDIM"))
    status, found = run(tiny, tmp_path / "out", workers=1, plugins=Plugins(trusted=(str(mine),)))
    assert (status, [(r["solver"], r["status"]) for r in found]) == (0, [("my_ddim", "ok")])


def own_suite(tiny: Path, place: Path | str) -> None:
    text = tiny.read_text().replace('edm = { make = "EDM" }', f'edm = {{ make = "{place}:Mine" }}')
    tiny.write_text(
        text.replace(
            'images = { make = "random_mixture"',
            f'mine = {{ make = "{place}:mine" }}\nimages = {{ make = "random_mixture"',
        )
    )


def test_suite_may_name_what_is_trusted(mine: Path, tiny: Path, tmp_path: Path) -> None:
    own_suite(tiny, mine)
    status, found = run(
        tiny,
        tmp_path / "out",
        engine="here",
        only="ddim",
        on="mixture, *, half_log_snr",
        plugins=Plugins(trusted=(str(mine),)),
    )
    assert status == 0
    assert found[0]["measured"] == found[1]["measured"], "it is a VP by another name"


def test_file_alone_makes_nothing_run(mine: Path, tiny: Path, tmp_path: Path) -> None:
    own_suite(tiny, mine)
    with pytest.raises(SdekitError, match="--trust") as caught:
        run(tiny, tmp_path / "out", engine="here", only="ddim")
    assert "got 2 faults" in str(caught.value)
    assert not (mine.parent / "imported").exists()


def test_nothing_of_python_itself_is_called_by_a_suite(mine: Path, tiny: Path) -> None:
    for make in ("os:system", "os.path:exists", "subprocess:run"):
        text = tiny.read_text().replace('make = "VP"', f'make = "{make}"')
        suite = tiny.with_name("hostile.toml")
        suite.write_text(text)
        with pytest.raises(SdekitError):
            cells.expand(load(str(suite)))


def test_what_is_made_must_be_a_process(mine: Path, tiny: Path) -> None:
    plugins.use(Plugins(trusted=(str(mine),)))
    tiny.write_text(tiny.read_text().replace('make = "VP"', f'make = "{mine}:mine"'))
    with pytest.raises(SdekitError, match="which gives GaussianMixture; expected a process: AffineSDE"):
        build.check(cells.expand(load(str(tiny))))


def test_what_cannot_be_made_says_why(mine: Path, tiny: Path) -> None:
    plugins.use(Plugins(trusted=(str(mine),)))
    tiny.write_text(
        tiny.read_text().replace(
            'make = "random_mixture", options = { dim = 6, components = 5, seed = 2 }', f'make = "{mine}:picky"'
        )
    )
    with pytest.raises(SdekitError, match=r"TypeError: picky\(\) missing 1 required positional argument: 'dim'"):
        build.check(cells.expand(load(str(tiny))))


REFUSED = [
    ("nowhere.py:A", "FileNotFoundError"),
    ("no_such_module.at_all:A", "ModuleNotFoundError"),
    ("{mine}:MyDDIN", "Did you mean 'MyDDIM'"),
    ("{mine}:NOTHING", "a subclass of sdekit.solvers.PlanSolver"),
    ("{mine}:Mine", "a subclass of sdekit.solvers.PlanSolver"),
    ("{broken}:A", "ZeroDivisionError"),
    ("{mine}", "MODULE:CLASS"),
]


@pytest.mark.parametrize(("reference", "words"), REFUSED)
def test_what_is_no_solver_is_refused(mine: Path, reference: str, words: str) -> None:
    broken = mine.with_name("broken.py")
    broken.write_text("1 / 0\n")
    with pytest.raises(SdekitError) as caught:
        plugins.use(Plugins(solvers=(reference.format(mine=mine, broken=broken),)))
    assert words in str(caught.value)


def test_name_that_is_taken_is_refused(mine: Path) -> None:
    mine.write_text(CODE.replace('"bad"', '"ddim"'))
    with pytest.raises(OptionError, match="free"):
        plugins.use(Plugins(solvers=(f"{mine}:Bad",)))


def test_own_code_is_part_of_what_a_result_depends_on(mine: Path, tiny: Path) -> None:
    plugins.use(Plugins(solvers=(f"{mine}:MyDDIM",)))
    cell = cells.expand(load(str(tiny)), "my_ddim")[0]
    other = cells.expand(load(str(tiny)), "ddim")[0]
    assert store.made_by(cell)["plugin"] is not None
    assert store.made_by(other)["plugin"] is None


def test_entry_points_are_loaded_when_they_are_named(
    mine: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {
        "sdekit.solvers": [metadata.EntryPoint("offered", "my_code:MyDDIM", "sdekit.solvers")],
        "sdekit.processes": [metadata.EntryPoint("mine", "my_code:Mine", "sdekit.processes")],
    }
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: points[group])
    monkeypatch.syspath_prepend(str(mine.parent))
    cells.expand(load(str(tiny)), "ddim")
    assert not (mine.parent / "imported").exists(), "nobody has named them"
    tiny.write_text(
        tiny.read_text().replace('make = "VP"', 'make = "mine"')
        + '[[variants]]\nsolver = "offered"\noptions = { strength = 2.0 }\n'
    )
    found = cells.expand(load(str(tiny)), "offered*")
    build.check(found)
    assert {c.variant.label for c in found} == {"offered", "offered(strength=2)"}
    assert (mine.parent / "imported").exists()
    sys.modules.pop("my_code", None)


def test_unknown_process_suggests_what_is_offered(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("my_process", "nowhere:A", "sdekit.processes")
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [point] if "processes" in group else [])
    tiny.write_text(tiny.read_text().replace('make = "VP"', 'make = "my_proces"'))
    with pytest.raises(UnknownNameError, match="'my_process'"):
        cells.expand(load(str(tiny)))
