"""A suite small enough for tests, and solvers planted in the registry."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from sdekit.affine import AffineSDE
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers import Order, PlanSolver, base
from sdekit.solvers.ddim import ddim_row
from tests.small_states import one_thread

__all__ = ["one_thread"]  # of all tests here

TINY = """
name = "tiny"
description = "Small enough for tests"
table_calls = [10, 20]

[processes]
edm = { make = "EDM" }
vp = { make = "VP" }

[targets]
mixture = { make = "random_mixture", options = { dim = 2, components = 3, seed = 1, std = [0.3, 0.6] } }
images = { make = "random_mixture", options = { dim = 6, components = 5, seed = 2 } }

[[variants]]
solver = "euler"
options = { clock = "t" }

[[orders]]
target = "mixture"
processes = ["edm", "vp"]
grids = ["half_log_snr"]
half_log_snr = [-1.5, 1.5]
declared = [1, 6]
samples = 4
steps = [10, 20, 40]

[[work]]
target = "mixture"
process = "edm"
grid = "karras"
half_log_snr = [-3.0, 2.0]
calls = [5, 10, 20, 40]
samples = 4

[[pictures]]
target = "images"
process = "edm"
grid = "karras"
half_log_snr = [-3.0, 3.0]
calls = [5, 10]
samples = 3
size = [2, 3]
values = [-2.0, 2.0]
solvers = [{ solver = "ddim" }, { solver = "rk4" }, { solver = "ddpm" }]
"""


STRONG = """
name = "mine"
description = "Paths"
table_calls = [8, 32]

[processes]
vp = { make = "VP" }
edm = { make = "EDM" }

[targets]
plane = { make = "random_mixture", options = { dim = 2, components = 4, seed = 3, std = [0.3, 0.6] } }

[[orders]]
target = "plane"
kinds = ["strong"]
processes = ["vp"]
grids = ["half_log_snr"]
half_log_snr = [0.0, 1.0]
steps = [16, 32, 64]

[[work]]
target = "plane"
kinds = ["strong"]
process = "vp"
grid = "half_log_snr"
half_log_snr = [-2.0, 2.0]
calls = [1, 8, 16, 32, 64]
samples = 64
solvers = [{ solver = "euler_maruyama" }, { solver = "sra1" }, { solver = "ddpm" }, { solver = "sra3" }]

[[work]]
target = "plane"
kinds = ["strong"]
process = "edm"
grid = "karras"
half_log_snr = [-2.0, 2.0]
calls = [8]
samples = 64
solvers = [{ solver = "dpmpp_2m" }, { solver = "ddpm" }]
stochasticity = [0.5, 1.0]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of a small suite."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads references that an earlier run left; within a run they may be shared."""
    monkeypatch.setenv("SDEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "references"))


@dataclass(frozen=True)
class Boastful(PlanSolver):
    """DDIM, which is of order 1, declared as of order 2."""

    name: ClassVar[str] = "boastful"
    declared: ClassVar[Order] = Order(deterministic=2)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return [ddim_row(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(process.levels(times)))]


@dataclass(frozen=True)
class Broken(Boastful):
    """A solver that cannot plan, except for the few steps from which the registry reads its calls."""

    name: ClassVar[str] = "broken"

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        if len(times) > 9:
            raise RuntimeError("no rows today")
        return super().rows(process, times, stochasticity)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of them in the registry, for one test."""
    for cls in (Boastful, Broken):
        monkeypatch.setitem(base._REGISTRY._items, cls.name, cls)
