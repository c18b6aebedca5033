"""Suites are checked before anything runs, and what is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdekit import solvers
from sdekit.bench import build, cells, precision
from sdekit.bench.suite import Suite, available, load
from sdekit.errors import OptionError, SdekitError, UnknownNameError


def test_shipped_suites_are_sound() -> None:
    assert "orders" in available()
    for name in available():
        suite = load(name)
        assert suite.name == name
        assert cells.expand(suite)


def test_orders_covers_what_it_promises() -> None:
    suite = load("orders")
    found = [c for c in cells.expand(suite) if c.what == "order"]
    for info in filter(lambda i: cells.runs_models(i.name), solvers.available()):
        for kind in ("deterministic", "weak"):
            if getattr(info.order, kind) is not None:
                mine = [c for c in found if c.variant.label == info.name and c.kind == kind]
                assert {c.grid for c in mine} == {"uniform", "half_log_snr", "karras", "random"}
                assert len({c.process.make for c in mine}) == 6
                assert len({c.target.make for c in mine}) == 3
    assert any(b.make == "digits" for b in suite.targets.values())
    assert {10, 20, 50} <= set(suite.table_calls)
    assert [set(p.calls) for p in suite.pictures] == [{5, 10, 20, 50}]


def test_what_a_solver_declares_it_can_plan() -> None:
    """A declared weak order is one of the reverse SDE: with a starter for the flow only, none may be declared."""
    for cell in cells.expand(load("orders"), "*"):
        if cell.what == "order" and cell.grid == "uniform":
            method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
            given = build.problem(cell)
            precision._calls(method, given, cell, 8)


TYPOS = [
    ("table_calls =", "table_cals =", "table_cals", "'table_calls'"),
    ('processes = ["edm", "vp"]', 'proceses = ["edm", "vp"]', "orders.0.proceses", "'processes'"),
    ("calls = [5, 10, 20, 40]", "cals = [5]\ncalls = [5]", "work.0.cals", "'calls'"),
    ('{ solver = "rk4" }', '{ sover = "rk4" }', "pictures.0.solvers.1.sover", "'solver'"),
    ('{ make = "VP" }', '{ mak = "VP" }', "processes.vp.mak", "'make'"),
    ("options = { clock", "option = { clock", "variants.0.option", "'options'"),
]


@pytest.mark.parametrize(("old", "new", "place", "near"), TYPOS)
def test_typo_in_an_entry_is_named(tiny: Path, old: str, new: str, place: str, near: str) -> None:
    assert old in tiny.read_text()
    tiny.write_text(tiny.read_text().replace(old, new, 1))
    with pytest.raises(OptionError) as caught:
        load(str(tiny))
    assert place in str(caught.value)
    assert near in str(caught.value)


BAD_VALUES = [
    ("half_log_snr = [-1.5, 1.5]", "half_log_snr = [1.5, -1.5]", "low < high"),
    ("half_log_snr = [-1.5, 1.5]", "half_log_snr = [-inf, 1.5]", "finite"),
    ("samples = 4\nsteps", "samples = 0\nsteps", "orders.0.samples"),
    ("steps = [10, 20, 40]", "steps = [10, 0, 40]", "orders.0.steps.1"),
    ('name = "tiny"', 'name = "../tiny"', "pattern"),
    ('name = "tiny"', "", "name: got nothing"),
    ('mixture = { make = "random', '"=SUM(A1)" = { make = "random', "pattern"),
    ("table_calls = [10, 20]", "table_calls = [10, 20", "TOML"),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD_VALUES)
def test_bad_value_is_refused(tiny: Path, old: str, new: str, words: str) -> None:
    assert old in tiny.read_text()
    tiny.write_text(tiny.read_text().replace(old, new, 1))
    with pytest.raises(OptionError) as caught:
        load(str(tiny))
    assert words in str(caught.value)


UNKNOWN = [
    ('solver = "euler"', 'solver = "eulr"', "'euler'"),
    ('{ clock = "t" }', '{ clok = "t" }', "'clock'"),
    ('{ clock = "t" }', '{ clock = "rh" }', "'rho'"),
    ('processes = ["edm", "vp"]', 'processes = ["edn"]', "'edm'"),
    ('grids = ["half_log_snr"]', 'grids = ["half_log_snt"]', "'half_log_snr'"),
    ('grid = "karras"', 'grid = "karas"', "'karras'"),
    ('target = "mixture"', 'target = "mixtur"', "'mixture'"),
    ('{ make = "VP" }', '{ make = "VPP" }', "'VP'"),
    ('{ make = "VP" }', '{ make = "VP", options = { beta_mn = 1.0 } }', "'beta_min'"),
    ("components = 3", "component = 3", "'components'"),
    ("half_log_snr = [-1.5, 1.5]", "half_log_snr = [-9.0, 1.5]", "VP"),
]


@pytest.mark.parametrize(("old", "new", "near"), UNKNOWN)
def test_unknown_name_is_refused_before_the_run(tiny: Path, old: str, new: str, near: str) -> None:
    assert old in tiny.read_text()
    tiny.write_text(tiny.read_text().replace(old, new, 1))
    with pytest.raises(SdekitError) as caught:
        build.check(cells.expand(load(str(tiny))))
    assert near in str(caught.value)


FORM = [  # faults of form, and what they say
    ('grid = "karras"\nhalf_log_snr = [-3.0, 2.0]', 'gird = "karras"\nhalf_log_snr = [-3.0, 2.0]', "work.0.gird"),
    ("half_log_snr = [-1.5, 1.5]", "half_log_snr = [1.5, -1.5]", "orders.0.half_log_snr: the range: got [1.5, -1.5]"),
    ('{ clock = "t" }', "{ clock = [1] }", "variants.0.options.clock: got [1]; expected text, a number, true or false"),
    ('{ solver = "rk4" }', '{ sover = "rk4" }', "pictures.0.solvers.1.sover"),
    ("table_calls = [10, 20]", 'table_calls = ["ten", 20]', "table_calls.0: got 'ten'"),
    ('name = "tiny"', "", "name: got nothing; expected this entry. Add it."),
]
NAMES = [  # unknown names
    ('edm = { make = "EDM" }', 'edm = { make = "EDN" }', "processes.edm.make: process: got 'EDN'"),
    ('{ make = "VP" }', '{ make = "VP", options = { beta_mn = 1.0, beta_mx = 2.0 } }', "'beta_min'"),
    ('{ make = "VP" }', '{ make = "VP", options = { beta_mn = 1.0, beta_mx = 2.0 } }', "'beta_max'"),
    ("components = 5", "component = 5", "'components'"),
    ('{ solver = "ddim" }', '{ solver = "dim" }', "pictures.0.solvers.0: solver: got 'dim'"),
    ('{ solver = "ddpm" }', '{ solver = "ddpm", options = { varance = 1, x = 2 } }', "'variance'"),
    ('{ solver = "ddpm" }', '{ solver = "ddpm", options = { varance = 1, x = 2 } }', "ddpm(x=)"),
    ('target = "mixture"\nprocesses', 'target = "mixtur"\nprocesses', "orders.0.target: got 'mixtur'"),
    ('process = "edm"\ngrid = "karras"', 'process = "dem"\ngrid = "karras"', "pictures.0.process: got 'dem'"),
]


def _changed(path: Path, changes: list[tuple[str, str, str]]) -> None:
    text = path.read_text()
    for old, new, _ in changes:
        if not new or new not in text:
            assert old in text
            head, _, tail = text.rpartition(old)
            text = head + new + tail
    path.write_text(text)


def test_range_that_falls_is_told_beside_other_faults_of_its_section(tiny: Path) -> None:
    head, _, tail = tiny.read_text().rpartition("half_log_snr = [-3.0, 3.0]")
    tiny.write_text(head + "half_log_snr = [3.0, -3.0]\nsampels = 3" + tail)
    with pytest.raises(SdekitError) as caught:
        load(str(tiny))
    assert "got 2 faults" in str(caught.value)
    assert "pictures.0.half_log_snr: the range: got [3.0, -3.0]; expected low < high" in str(caught.value)


@pytest.mark.parametrize("faults", [FORM, NAMES, FORM + NAMES], ids=["form", "names", "both"])
def test_all_faults_are_told_at_once(tiny: Path, faults: list[tuple[str, str, str]]) -> None:
    _changed(tiny, faults)
    with pytest.raises(SdekitError) as caught:
        cells.expand(load(str(tiny)))
    text = str(caught.value)
    assert not [words for *_, words in faults if words not in text]
    assert len(text.splitlines()) == 1 + len(faults), "no fault twice, and none that another explains"
    assert f"got {len(faults)} faults" in text


def test_entry_with_a_fault_is_not_called_unknown(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace('{ make = "VP" }', '{ mak = "VP" }').replace("[targets]", "[target]"))
    with pytest.raises(SdekitError) as caught:
        load(str(tiny))
    assert "got 2 faults" in str(caught.value)
    assert "'targets'" in str(caught.value)


def test_all_ranges_that_a_process_refuses_are_told(tiny: Path) -> None:
    text = tiny.read_text().replace("half_log_snr = [-1.5, 1.5]", "half_log_snr = [-9.0, 1.5]")
    text = text.replace('target = "images"\nprocess = "edm"', 'target = "images"\nprocess = "vp"')
    tiny.write_text(text.replace("[-3.0, 3.0]", "[-9.5, 3.0]"))
    with pytest.raises(SdekitError) as caught:
        build.check(cells.expand(load(str(tiny))))
    assert "target 'mixture', process 'vp'" in str(caught.value)
    assert "target 'images', process 'vp'" in str(caught.value)


def test_unknown_suite_and_missing_file() -> None:
    with pytest.raises(UnknownNameError, match="'orders'"):
        load("oders")
    with pytest.raises(OptionError, match="No such file"):
        load("nowhere.toml")


def test_only_keeps_what_matches(tiny: Path) -> None:
    suite: Suite = load(str(tiny))
    assert {c.variant.label for c in cells.expand(suite, "euler*")} == {
        "euler",
        "euler(t)",
        "euler_ancestral",
        "euler_maruyama",
    }
    assert {c.variant.label for c in cells.expand(suite, "euler(t)")} == {"euler(t)"}
    assert any(c.what == "picture" for c in cells.expand(suite, "ddim"))
    with pytest.raises(UnknownNameError, match="'heun'"):
        cells.expand(suite, "huen")


def test_labels_tell_variants_apart() -> None:
    labels = [c.variant.label for c in cells.expand(load("orders"))]
    variants = {c.variant for c in cells.expand(load("orders"))}
    assert len(set(labels)) == len(variants)
    assert cells.label_of("exp_adams", (("order", 3), ("starter", "single_step"))) == "exp_adams(order=3, single_step)"
