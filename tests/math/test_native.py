"""Kernels in C: the bits of the PyTorch code, and everything that keeps them away or sends them back.

A build that contracts a * b + c is the mutant that the check of known bits must reject.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sdekit.brownian import BrownianPath
from sdekit.math import native, philox
from sdekit.math.native import ENOUGH, VARIABLE, Native

compiled = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
IDS = torch.tensor([0, 1, 5, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1])
SEED = 2**64 - 12345


@pytest.fixture(scope="module")
def built() -> Native:
    """With kernels, from the user's cache or built now."""
    found = Native(philox._right)
    assert found.get(ENOUGH) is not None, found.reason
    return found


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no environment variable."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "sdekit" / "native"


def check_refused(
    accept: Any, source: str, mutants: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds of a kernel's source with each of these texts replaced are not used."""
    text = (native._FOLDER / source).read_text()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    for right, wrong in mutants.items():
        (tmp_path / source).write_text(text.replace(right, wrong))
        found = Native(accept, source, enough=0)
        assert right in text and found.get(0) is None and found.reason == "the build gives other results"


def both(monkeypatch: pytest.MonkeyPatch, built: Native, draw: Any) -> list[Any]:
    """What a function gives by C and by PyTorch."""
    found = []
    for library in (built.get(0), None):
        monkeypatch.setattr(philox.NATIVE, "get", lambda numbers, library=library: library)
        found.append(draw())
    return found


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 511, 512, 513, 1500])
def test_normals_have_the_bits_of_torch(size, dtype, built, monkeypatch):
    a, b = both(monkeypatch, built, lambda: philox.normals(SEED, IDS, 77, size, stream=255, dtype=dtype))
    assert torch.equal(a, b)


@compiled
def test_strides_and_nodes(built, monkeypatch):
    def draw() -> tuple[torch.Tensor, ...]:
        wide, columns = torch.zeros(len(IDS), 40), torch.zeros(9, len(IDS), dtype=torch.float64)
        philox.fill_normals(wide[:, 5:36], 3, IDS, 1)
        philox.fill_normals(columns.T, 3, IDS, 1)
        nodes = torch.arange(len(IDS)) * 2**27
        return wide, columns, philox.fill_path_normals(torch.zeros(len(IDS), 33), 3, IDS, nodes)

    assert all(map(torch.equal, *both(monkeypatch, built, draw)))


@compiled
@pytest.mark.parametrize("moments", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 64, 255, 256, 257, 700])
def test_paths_have_the_bits_of_torch(size, moments, built, monkeypatch):
    def draw() -> list[torch.Tensor]:
        path = BrownianPath(SEED, IDS, size, moments)
        path.evaluate([0.3, 0.31, 0.5, 0.7, 5.0, -2.0])
        times = torch.linspace(-1.1, 1.7, len(IDS), dtype=torch.float64)
        found = [path.increment(*ends) for ends in ((0.3, 0.31), (0.7, 5.0), (5.0, -2.0), (0.0, 0.9))]
        grid = [0.1, 0.3, 0.35, 0.45, 0.6, 0.55, -0.2, -0.21]
        single = BrownianPath(SEED, IDS, size, moments).walk(grid, 1)  # W alone: of the same path
        steps = [path.normals(*ends) for ends in itertools.pairwise(grid)]
        for some, all_ in zip(single, steps, strict=True):
            assert some is None or (len(some) == 1 and torch.equal(some[0], all_[0]))
        assert sum(some is not None for some in single) == 4
        return [v for w in (*found, path.increment(times, times + 0.3), *steps) for v in w]

    assert all(map(torch.equal, *both(monkeypatch, built, draw)))


@compiled
def test_it_is_built_when_it_pays_and_kept(empty):
    first = Native(philox._right)
    assert first.get(ENOUGH - 1) is None and "fewer than" in first.reason and not list(empty.iterdir())
    assert first.get(1) is not None and len(list(empty.iterdir())) == 1
    assert Native(philox._right).get(1) is not None  # another process finds it


@compiled
def test_a_file_that_others_may_write_is_not_loaded(empty):
    Native(philox._right).get(ENOUGH)
    next(iter(empty.iterdir())).chmod(0o777)
    assert Native(philox._right).get(1) is None


@compiled
def test_a_build_with_other_bits_is_refused(empty, monkeypatch):
    source = (native._FOLDER / "kernels.c").read_text().replace("-1.2337005501361697", "-1.2337005501361699")
    (empty.parent.parent / "kernels.c").write_text(source)
    monkeypatch.setattr(native, "_FOLDER", empty.parent.parent)
    found = Native(philox._right)
    assert found.get(ENOUGH) is None and found.reason == "the build gives other results"


def test_what_keeps_it_away(empty, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    found = Native(philox._right)
    assert found.get(ENOUGH) is None and VARIABLE in found.reason
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    found = Native(philox._right)
    assert found.get(ENOUGH) is None and "compiler" in found.reason


@compiled
def test_a_compiler_that_fails_is_reported_once(empty, monkeypatch):
    monkeypatch.setattr(native, "_flags", lambda: ["--no-such-flag"])
    found = Native(philox._right)
    assert found.get(ENOUGH) is None and "failed" in found.reason
    assert not [file for file in empty.iterdir() if file.suffix == ".so"]


@compiled
def test_without_a_home_the_build_is_the_process_own(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    assert Native(philox._right).get(ENOUGH) is not None
    assert len(list(tmp_path.glob("sdekit-*/*.so"))) == 1
