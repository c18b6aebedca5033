"""Imports go one way: every import statement of the library is read and held against the table of layers."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# A module, or a package with all that is in it, and its layer. A module missing here fails the test: place it.
PLACES = {
    0: (
        "sdekit.math",
        "sdekit.shapes",
        "sdekit.times",
        "sdekit.registry",
        "sdekit.errors",
        "sdekit.seeds",
        "sdekit.version",
    ),
    1: (
        *("sdekit.sde", "sdekit.schedules", "sdekit.affine", "sdekit.reverse", "sdekit.processes"),
        *("sdekit.calculus", "sdekit.geometric", "sdekit.noise_class", "sdekit.increments"),
        *("sdekit.model", "sdekit.parameterisation", "sdekit.guidance"),
    ),
    2: ("sdekit.grids", "sdekit.brownian", "sdekit.noise", "sdekit.targets"),
    3: ("sdekit.plan",),
    4: ("sdekit.solvers",),
    5: (
        "sdekit.execute",
        "sdekit.integrate",
        "sdekit.adjoint",
        "sdekit.leaves",
        "sdekit.control",
        "sdekit.monitor",
        "sdekit.solution",
    ),
    6: (
        *(
            "sdekit.problem",
            "sdekit.tolerances",
            "sdekit.progress",
            "sdekit.solve",
            "sdekit.sample",
            "sdekit.distributed",
            "sdekit.extrapolation",
        ),
        *("sdekit.gradients", "sdekit.observed", "sdekit.likelihood", "sdekit.training", "sdekit.stochasticity"),
    ),
    7: ("sdekit.testing", "sdekit.metrics", "sdekit.bench", "sdekit.cli", "sdekit.__main__"),
}
TOP = 7  # also the layer of the package sdekit itself, which holds the public names
EDGES = ("sdekit.interop", "sdekit.kernels")  # optional, imported only inside functions
EDGE = 8
SEES = {
    0: {0},
    1: {0, 1},
    2: {0, 1, 2},
    3: {0, 1, 3},
    4: {0, 1, 3, 4},
    5: {0, 1, 2, 3, 5},
    6: {0, 1, 2, 3, 4, 5, 6},
    7: {0, 1, 2, 3, 4, 5, 6, 7},
    EDGE: {0, 1, 2, 3, 4, 5, 6},
}
# Inside layer 1: sde -> affine -> processes.
RANKS = {"sdekit.sde": 0, "sdekit.schedules": 0, "sdekit.affine": 1, "sdekit.processes": 2}

AT_IMPORT = {"torch", "numpy"}
FREE = (
    "sdekit.bench",
    "sdekit.cli",
)  # may import what they like at the top: they are only run, never imported by others
IMPORT_NAMES = {"pot": "ot", "scikit-learn": "sklearn"}  # distributions that are not imported under their own name


@dataclass(frozen=True)
class Import:
    """One imported name. `lazy`: inside a function. `typing_only`: under `if TYPE_CHECKING`."""

    target: str
    line: int
    lazy: bool
    typing_only: bool


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> int | None:
    """The layer of a module, or None where the table does not place it."""
    if module == "sdekit":
        return TOP
    if any(_inside(module, edge) for edge in EDGES):
        return EDGE
    return next((layer for layer, places in PLACES.items() if any(_inside(module, p) for p in places)), None)


def _targets(node: ast.Import | ast.ImportFrom, package: str, known: set[str]) -> list[str]:
    """Dotted names that a statement imports: `from a import b` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, base] if base else parents)
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]


def read_imports(module: str, source: str, known: set[str], *, is_package: bool = False) -> list[Import]:
    """All imports of a module, wherever they stand."""
    package = module if is_package else module.rpartition(".")[0]

    def walk(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in _targets(node, package, known):
                yield Import(target, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                yield from walk(child, lazy, True)
            for child in node.orelse:
                yield from walk(child, lazy, typing_only)
        else:
            lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, lazy, typing_only)

    return list(walk(ast.parse(source), False, False))


def _own(module: str, found: Import) -> str | None:
    """What is wrong with an import of sdekit's own, or None."""
    here, there = layer_of(module), layer_of(found.target)
    if here is None or there is None:
        return None if here is None else f"imports {found.target}, which has no layer"
    if there == EDGE and here != EDGE:
        return None if found.lazy or found.typing_only else f"imports {found.target} outside a function"
    if there not in SEES[here] | ({EDGE} if here == EDGE else set()):
        return f"(layer {here}) imports {found.target} (layer {there})"
    ranks = [rank for name in (module, found.target) for place, rank in RANKS.items() if _inside(name, place)]
    if len(ranks) == 2 and ranks[1] > ranks[0]:
        return f"imports {found.target}, which builds on it"
    return None


def _foreign(module: str, found: Import, declared: set[str]) -> str | None:
    """What is wrong with an import from another distribution, or None."""
    name = found.target.partition(".")[0]
    if name in sys.stdlib_module_names or name in AT_IMPORT or found.typing_only:
        return None
    if name not in declared:
        return f"imports {name}, which pyproject.toml does not declare"
    if layer_of(module) == 0 and name != "scipy":
        return f"(layer 0) imports {name}"
    if not found.lazy and not any(_inside(module, free) for free in FREE):
        return f"imports {name} outside a function"
    return None


def violations(module: str, source: str, known: set[str], declared: set[str], *, is_package: bool = False) -> list[str]:
    """Every import of `module` that the table forbids, in words."""
    problems = [] if layer_of(module) is not None else [f"{module} has no layer: place it in PLACES"]
    for found in read_imports(module, source, known, is_package=is_package):
        own = _inside(found.target, "sdekit")
        problem = _own(module, found) if own else _foreign(module, found, declared)
        if problem:
            problems.append(f"{module}:{found.line} {problem}")
    return problems


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of module-level imports as a path that ends where it began, or [] if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for successor in sorted(graph.get(node, ())):
                if found := visit(successor, [*path, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def declared_packages(pyproject: Path) -> set[str]:
    """Import names of all that pyproject.toml depends on, extras included. Triton comes with torch."""
    project = tomllib.loads(pyproject.read_text())["project"]
    lines = [line for group in project["optional-dependencies"].values() for line in group]
    names = [re.split(r"[\[<>=! ]", line)[0].lower() for line in [*project["dependencies"], *lines]]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names} | {"triton"}


def test_imports_respect_the_layers(library: dict[str, Path], root: Path) -> None:
    declared, known = declared_packages(root / "pyproject.toml"), set(library)
    assert {"sdekit.errors", "sdekit.registry"} <= known
    problems = [
        problem
        for module, path in library.items()
        for problem in violations(module, path.read_text(), known, declared, is_package=path.name == "__init__.py")
    ]
    assert not problems, "\n".join(["", *problems])


def test_module_level_imports_have_no_cycle(library: dict[str, Path]) -> None:
    graph = {}
    for module, path in library.items():
        found = read_imports(module, path.read_text(), set(library), is_package=path.name == "__init__.py")
        graph[module] = {f.target for f in found if not (f.lazy or f.typing_only)} & set(library)
    assert cycle(graph) == []


def test_cycle_is_found() -> None:
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


KNOWN = {
    "sdekit",
    "sdekit.math.phi",
    "sdekit.sde",
    "sdekit.affine",
    "sdekit.plan",
    "sdekit.solvers",
    "sdekit.solvers.ddim",
}
DECLARED = {"torch", "numpy", "scipy", "tqdm", "typer", "sklearn"}

FORBIDDEN = [
    ("sdekit.plan", "from sdekit.solvers.ddim import DDIM", "(layer 3) imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.plan", "from sdekit import solvers", "imports sdekit.solvers (layer 4)"),
    ("sdekit.plan", "from .solvers import ddim", "imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.plan.rows", "from ..solvers.ddim import DDIM", "imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.plan", "def f():\n    import sdekit.solvers.ddim", "imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.plan", "if TYPE_CHECKING:\n    from sdekit.solvers import ddim", "imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.plan", "import sdekit", "imports sdekit (layer 7)"),
    ("sdekit.plan", "from sdekit.grids import karras", "imports sdekit.grids (layer 2)"),
    ("sdekit.solvers.ddim", "from sdekit.noise import Plain", "imports sdekit.noise (layer 2)"),
    ("sdekit.execute", "from sdekit.solvers import ddim", "imports sdekit.solvers.ddim (layer 4)"),
    ("sdekit.math.phi", "from sdekit.sde import SDE", "imports sdekit.sde (layer 1)"),
    ("sdekit.sde", "from sdekit.affine import AffineSDE", "imports sdekit.affine, which builds on it"),
    ("sdekit.affine", "from sdekit.processes import VP", "imports sdekit.processes, which builds on it"),
    ("sdekit.sample", "from sdekit.bench import run", "imports sdekit.bench (layer 7)"),
    ("sdekit.solve", "from sdekit.interop.scipy import solve_ivp", "imports sdekit.interop.scipy outside a function"),
    ("sdekit.elsewhere", "import math", "sdekit.elsewhere has no layer"),
    ("sdekit.solve", "from sdekit.elsewhere import f", "imports sdekit.elsewhere, which has no layer"),
    ("sdekit.sample", "from tqdm import tqdm", "imports tqdm outside a function"),
    ("sdekit.sample", "try:\n    import tqdm\nexcept ImportError:\n    tqdm = None", "imports tqdm outside a function"),
    ("sdekit.sample", "class A:\n    import tqdm", "imports tqdm outside a function"),
    ("sdekit", "import scipy.linalg", "imports scipy outside a function"),
    ("sdekit.testing", "import scipy.linalg", "imports scipy outside a function"),
    ("sdekit.math.phi", "def f():\n    import tqdm", "(layer 0) imports tqdm"),
    ("sdekit.bench.runner", "import undeclared", "imports undeclared, which pyproject.toml does not declare"),
]

ALLOWED = [
    ("sdekit.math.phi", "import math\nimport torch\nimport numpy as np\nfrom sdekit.errors import OptionError"),
    ("sdekit.math.phi", "def f():\n    from scipy import special"),
    ("sdekit.affine", "from sdekit.sde import SDE"),
    ("sdekit.solvers.ddim", "from sdekit.plan import Row\nfrom sdekit.solvers.base import Solver"),
    ("sdekit.execute", "from sdekit.plan import Plan\nfrom sdekit.noise import Plain"),
    ("sdekit.solve", "from sdekit import solvers\ndef f():\n    from sdekit.interop.scipy import solve_ivp"),
    ("sdekit.sample", "def f():\n    from tqdm import tqdm"),
    ("sdekit.sample", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tqdm import tqdm"),
    ("sdekit.targets.digits", "def f():\n    from sklearn.datasets import load_digits"),
    ("sdekit.interop.scipy", "from sdekit.sde import SDE\nfrom sdekit.interop.base import Adapter"),
    ("sdekit.cli", "import typer\nfrom sdekit.bench import run"),
    ("sdekit", "from sdekit.solve import solve"),
]


@pytest.mark.parametrize(("module", "source", "expected"), FORBIDDEN)
def test_forbidden_import_is_found(module: str, source: str, expected: str) -> None:
    found = violations(module, source, KNOWN, DECLARED)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_allowed_import_passes(module: str, source: str) -> None:
    assert violations(module, source, KNOWN, DECLARED) == []


def test_relative_import_inside_a_package_is_resolved() -> None:
    assert violations("sdekit.plan", "from .solvers import ddim", KNOWN, DECLARED, is_package=True) == []
    [found] = read_imports("sdekit.solvers", "from . import ddim", KNOWN, is_package=True)
    assert found.target == "sdekit.solvers.ddim"
