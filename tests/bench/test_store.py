"""Finished measurements: used again only where they are what would be measured, and named where they are damaged."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdekit.bench import files, store
from sdekit.bench.cells import Cell, Named, Timed, Variant, expand
from sdekit.bench.store import Store
from sdekit.bench.suite import load
from sdekit.errors import OptionError

RESULT = {"status": "ok", "errors": [0.1, 1e-300], "message": "", "seconds": 1.5}


@pytest.fixture
def cell(tiny: Path) -> Cell:
    return expand(load(str(tiny)), "ddim")[0]


@pytest.fixture
def kept(tmp_path: Path, cell: Cell) -> Store:
    """A store with one finished measurement."""
    found = Store(tmp_path / "cells")
    found.prepare()
    found.put(cell, 0.15, RESULT)
    return found


def test_what_is_put_is_found(kept: Store, cell: Cell) -> None:
    other = replace(cell, seed=1)
    survey = kept.survey([other, cell], 0.15)
    assert survey.found == {1: RESULT}
    assert (survey.new, survey.other, survey.failed, survey.damaged) == (1, 0, 0, [])
    assert kept.survey([cell], 0.2).new == 1


def test_every_field_of_a_cell_is_in_its_name(kept: Store, cell: Cell) -> None:
    """Whatever is changed, another file is meant."""
    others: dict[str, Any] = {
        "what": "work",
        "kind": "weak",
        "variant": replace(cell.variant, options=(("eta", 0.5),)),
        "process": replace(cell.process, options=(("beta_min", 0.2),)),
        "target": replace(cell.target, make="ring"),
        "grid": "karras",
        "low": -1.0,
        "high": 1.0,
        "counts": (1, 2),
        "samples": 5,
        "seed": 1,
        "stochasticity": 0.5,
        "tolerances": (1e-3,),
        "truncations": (0.1,),
        "finish": "denoised",
        "metrics": ("energy",),
        "repeats": 7,
        "timed": Timed("step", "cpu", "float32", 15),
    }
    assert set(others) == set(vars(cell))
    names = {kept.path(replace(cell, **{key: value}), 0.15) for key, value in others.items()}
    assert len(names | {kept.path(cell, 0.15)}) == len(others) + 1


@pytest.mark.parametrize("status", ["failed", "timeout", "oom", "crash"])
def test_failures_are_measured_again_where_that_is_asked_for(kept: Store, cell: Cell, status: str) -> None:
    failed = {**RESULT, "status": status}
    kept.put(cell, 0.15, failed)
    survey = kept.survey([cell], 0.15)
    assert (survey.found, survey.failed) == ({0: failed}, 1)
    survey = kept.survey([cell], 0.15, retry_failed=True)
    assert (survey.found, survey.failed) == ({}, 1)


def test_what_was_left_out_is_new(kept: Store, cell: Cell) -> None:
    kept.put(cell, 0.15, {**RESULT, "status": "skipped"})
    survey = kept.survey([cell], 0.15)
    assert (survey.found, survey.new, survey.failed) == ({}, 1, 0)


def test_maker_of_a_result_is_kept_with_it(kept: Store, cell: Cell) -> None:
    """What a cluster's node measured is that node's, and is not taken for this machine's."""
    kept.put(cell, 0.15, RESULT, {**store.made_by(cell), "cpu": "another"})
    survey = kept.survey([cell], 0.15)
    assert (survey.found, survey.other) == ({}, 1)


def forge(kept: Store, cell: Cell, changes: dict[str, Any]) -> None:
    """The file with other contents, sealed as if they were right."""
    path = kept.path(cell, 0.15)
    content = json.loads(path.read_bytes())
    del content[files.SEAL]
    files.write_atomically(path, store._text({**content, **changes}))


@pytest.mark.parametrize(
    "key", ["code", "python", "torch", "numpy", "scipy", "scikit-learn", "machine", "cpu", "plugin"]
)
def test_other_code_versions_and_machines_are_not_mixed(kept: Store, cell: Cell, key: str) -> None:
    assert key in store.made_by(cell)
    forge(kept, cell, {"made_by": {**store.made_by(cell), key: "other"}})
    survey = kept.survey([cell], 0.15)
    assert (survey.found, survey.other) == ({}, 1)


def test_file_of_other_contents_is_damaged_whatever_its_seal(kept: Store, cell: Cell) -> None:
    path = kept.path(cell, 0.15)
    for changes in ({"tolerance": 0.2}, {"cell": {}}, {"result": []}, {"result": {}}, {"more": 1}, {"format": "other"}):
        kept.put(cell, 0.15, RESULT)
        forge(kept, cell, changes)
        survey = kept.survey([cell], 0.15)
        assert survey.found == {}
        assert path.name in survey.damaged[0]


def test_file_under_another_name_is_damaged(kept: Store, cell: Cell) -> None:
    other = replace(cell, seed=1)
    os.replace(kept.path(cell, 0.15), kept.path(other, 0.15))
    survey = kept.survey([other, cell], 0.15)
    assert (survey.found, survey.new) == ({}, 1)
    assert "another measurement" in survey.damaged[0]


def test_every_damaged_byte_is_seen_and_the_file_named(kept: Store, cell: Cell) -> None:
    path = kept.path(cell, 0.15)
    whole = path.read_bytes()
    for i in range(len(whole)):
        raw = bytearray(whole)
        raw[i] ^= 1 << i % 8
        path.write_bytes(raw)
        survey = kept.survey([cell], 0.15)
        assert survey.found == {}
        assert path.name in survey.damaged[0]
    kept.put(cell, 0.15, RESULT)
    assert kept.survey([cell], 0.15).found == {0: RESULT}


def test_damage_is_seen_by_the_seal(kept: Store, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: a seal of nothing. An edited number is used."""
    monkeypatch.setattr(files, "digest", lambda _: "0" * 64)
    kept.put(cell, 0.15, RESULT)
    path = kept.path(cell, 0.15)
    path.write_bytes(path.read_bytes().replace(b"0.1,", b"0.2,"))
    assert kept.survey([cell], 0.15).found[0]["errors"][0] == 0.2


def test_links_are_not_followed(kept: Store, cell: Cell, tmp_path: Path) -> None:
    path = kept.path(cell, 0.15)
    os.replace(path, tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    survey = kept.survey([cell], 0.15)
    assert survey.found == {}
    assert path.name in survey.damaged[0]


def test_disk_that_is_full_is_one_clear_error(kept: Store, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OptionError, match=r"No space left on device.*--resume"):
        kept.put(replace(cell, seed=1), 0.15, RESULT)
    assert list(kept.folder.iterdir()) == [kept.path(cell, 0.15)]
    assert kept.survey([cell], 0.15).found == {0: RESULT}


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("")
    with pytest.raises(OptionError, match="--out"):
        Store(tmp_path / "cells").prepare()


def test_code_means_all_files_that_can_change_a_number(tmp_path: Path) -> None:
    for name in ("solve.py", "solvers/ddim.py", "bench/measure.py", "bench/report.py", "cli/commands.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    before = store._code(tmp_path)
    for name, matters in (("bench/report.py", False), ("cli/commands.py", False), ("bench/measure.py", True)):
        (tmp_path / name).write_text("x = 2\n")
        assert (store._code(tmp_path) != before) == matters
        before = store._code(tmp_path)
    os.replace(tmp_path / "solve.py", tmp_path / "solves.py")
    assert store._code(tmp_path) != before


def test_solver_from_elsewhere_is_part_of_the_code(tiny: Path, planted: None) -> None:
    ours, theirs = (store.made_by(expand(load(str(tiny)), name)[0])["plugin"] for name in ("ddim", "boastful"))
    assert ours is None
    assert len(theirs) == 64


def test_data_are_part_of_what_a_number_is_of(cell: Cell, tmp_path: Path) -> None:
    """For our solvers, another library's and the protocol, which has none: the file's contents, not its path."""
    path = tmp_path / "points.npy"
    target = Named("own", "empirical", (("data", str(path)), ("std", 0.1)))
    cells = [replace(cell, target=target)]
    cells += [replace(cells[0], variant=Variant(name, (), name)) for name in ("k-diffusion:heun", "")]

    def plugins_with(fill: float) -> list[Any]:
        np.save(path, np.full((4, 2), fill))
        return [store.made_by(each)["plugin"] for each in cells]

    first, other, again = (plugins_with(fill) for fill in (0.0, 1.0, 0.0))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_version_of_another_package_is_part_of_the_code(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = replace(cell, variant=Variant("torchdiffeq:dopri5", (), "torchdiffeq:dopri5"))
    now = store.made_by(foreign)["plugin"]
    monkeypatch.setattr(store.peers, "installed", lambda package: f"{package} 99")
    assert now != store.made_by(foreign)["plugin"]


def test_files_may_be_read_by_others(kept: Store, cell: Cell) -> None:
    umask = os.umask(0o022)
    try:
        kept.put(cell, 0.15, RESULT)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(kept.path(cell, 0.15).stat().st_mode) == 0o644
