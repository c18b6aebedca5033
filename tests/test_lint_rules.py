"""Rules on the library's source that ruff has no name for: which errors are raised, and what is never called."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdekit import errors

ERRORS = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.SdekitError)}
# What Python's own protocols ask for, and nothing else.
PROTOCOL = {"NotImplementedError", "AttributeError", "StopIteration"}
# How a command ends, allowed where commands live.
EXITS = {"SystemExit", "typer.Exit", "typer.BadParameter"}
COMMANDS = ("sdekit.cli", "sdekit.bench", "sdekit.__main__")

RUNS_DATA = {
    *("eval", "exec", "compile", "__import__", "torch.load", "joblib.load", "yaml.load"),
    *(f"{module}.{name}" for module in ("pickle", "dill", "cloudpickle", "marshal") for name in ("load", "loads")),
    *("pickle.Unpickler", "shelve.open"),
}
UNINITIALISED_CALLS = {"torch.Tensor", "torch.FloatTensor", "torch.DoubleTensor"}
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_"}
ARRAYS = {"torch", "np", "numpy"}  # `.empty` of anything else is another word: queue.empty()
ALLOCATOR = "sdekit.shapes"

Finding = tuple[int, str]


def _matches(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def error_makers(tree: ast.AST) -> set[str]:
    """Functions whose return annotation is an error of sdekit: `raise made_by_this()` is as good as the class."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns is not None)
    return {f.name for f in functions if ast.unparse(f.returns).strip("'\"").rpartition(".")[2] in ERRORS}  # type: ignore[arg-type]


def asserts(tree: ast.AST, _module: str) -> Iterator[Finding]:
    """Asserts vanish under -O and say nothing to a user."""
    yield from ((node.lineno, "assert") for node in ast.walk(tree) if isinstance(node, ast.Assert))


def raises(tree: ast.AST, module: str, makers: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Every raise is of an SdekitError, a caught exception going on, or what a protocol of Python asks for."""
    allowed = ERRORS | PROTOCOL | (EXITS if _matches(module, COMMANDS) else set())
    made = makers | error_makers(tree)
    caught = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        name = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        last = name.rpartition(".")[2]
        is_maker = isinstance(node.exc, ast.Call) and last in made
        if not (name in allowed or last in ERRORS or name in caught or is_maker):
            yield node.lineno, f"raise {name}"


def runs_data(tree: ast.AST, _module: str) -> Iterator[Finding]:
    """Nothing turns data into code: no eval, exec or pickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in RUNS_DATA:
                yield node.lineno, ast.unparse(node.func)
            if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
                yield node.lineno, "allow_pickle"
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name) for name in names if name in RUNS_DATA)


def star_imports(tree: ast.AST, _module: str) -> Iterator[Finding]:
    """A reader must see where each name comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield node.lineno, "import *"


def uninitialised(tree: ast.AST, module: str) -> Iterator[Finding]:
    """Uninitialised memory is made in one place, so that it cannot leave the library unnoticed."""
    if module == ALLOCATOR:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in UNINITIALISED:
            base = ast.unparse(node.value)
            if base in ARRAYS or node.attr.startswith(("new_", "resize_")):
                yield node.lineno, f"{base}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in ARRAYS:
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names if a.name in UNINITIALISED)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in UNINITIALISED_CALLS:
            yield node.lineno, ast.unparse(node.func)


RULES: list[Callable[[ast.AST, str], Iterator[Finding]]] = [
    asserts,
    raises,
    runs_data,
    star_imports,
    uninitialised,
]


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_library_keeps_the_rule(rule: Callable[..., Iterator[Finding]], library: dict[str, Path]) -> None:
    trees = {module: _parsed(path) for module, path in library.items()}
    options = {}
    if rule is raises:  # a module may raise what a function of another module makes
        options["makers"] = frozenset(name for tree in trees.values() for name in error_makers(tree))
    found = [
        f"{module}:{line} {what}" for module, tree in trees.items() for line, what in rule(tree, module, **options)
    ]
    assert trees
    assert not found, "\n".join(["", *found])


MUTANTS = [
    (asserts, "sdekit.grids", "def f(n):\n    assert n > 0, 'n must be positive'"),
    (raises, "sdekit.grids", "raise ValueError('no')"),
    (raises, "sdekit.grids", "raise Exception"),
    (raises, "sdekit.grids", "raise TypeError('no') from None"),
    (raises, "sdekit.grids", "def f(error):\n    raise error"),
    (raises, "sdekit.grids", "def make() -> ValueError: ...\nraise make()"),
    (raises, "sdekit.grids", "raise SystemExit(1)"),
    (raises, "sdekit.testing", "raise AssertionError('no')"),
    (runs_data, "sdekit.grids", "eval('1')"),
    (runs_data, "sdekit.grids", "exec('x = 1')"),
    (runs_data, "sdekit.grids", "import pickle\npickle.load(f)"),
    (runs_data, "sdekit.grids", "from pickle import loads"),
    (runs_data, "sdekit.grids", "import torch\ntorch.load('model.pt')"),
    (runs_data, "sdekit.grids", "np.load('a.npy', allow_pickle=True)"),
    (star_imports, "sdekit.grids", "from math import *"),
    (uninitialised, "sdekit.grids", "torch.empty(3)"),
    (uninitialised, "sdekit.grids", "torch.empty_like(x)"),
    (uninitialised, "sdekit.grids", "make = x.new_empty"),
    (uninitialised, "sdekit.grids", "np.empty(3)"),
    (uninitialised, "sdekit.grids", "from torch import empty_like"),
    (uninitialised, "sdekit.grids", "torch.Tensor(3)"),
    (uninitialised, "sdekit.grids", "x.resize_(9)"),
]

HARMLESS = [
    (raises, "sdekit.grids", "raise OptionError('n', got=0, expected='1', fix='Pass 1.')"),
    (raises, "sdekit.grids", "raise errors.OptionError('n', got=0, expected='1', fix='Pass 1.') from None"),
    (raises, "sdekit.grids", "try:\n    f()\nexcept OSError as error:\n    error.add_note('step 3')\n    raise"),
    (raises, "sdekit.grids", "try:\n    f()\nexcept OSError as error:\n    raise error"),
    (raises, "sdekit.grids", "def mismatch() -> errors.OptionError: ...\nraise mismatch()"),
    (raises, "sdekit", "def __getattr__(name):\n    raise AttributeError(name)"),
    (raises, "sdekit.cli", "raise SystemExit(1)"),
    (raises, "sdekit.bench.commands", "raise typer.Exit(1)"),
    (runs_data, "sdekit.grids", "model.eval()\njson.load(f)\nnp.load('a.npy', allow_pickle=False)"),
    (star_imports, "sdekit.grids", "from math import pi"),
    (uninitialised, "sdekit.grids", "queue.empty()\ntorch.zeros(3)"),
    (uninitialised, "sdekit.shapes", "torch.empty_like(x)"),
]


@pytest.mark.parametrize(("rule", "module", "source"), MUTANTS)
def test_mutant_is_found(rule: Callable[[ast.AST, str], Iterator[Finding]], module: str, source: str) -> None:
    assert len(list(rule(ast.parse(source), module))) == 1


@pytest.mark.parametrize(("rule", "module", "source"), HARMLESS)
def test_harmless_code_passes(rule: Callable[[ast.AST, str], Iterator[Finding]], module: str, source: str) -> None:
    assert list(rule(ast.parse(source), module)) == []


def test_every_rule_has_a_mutant() -> None:
    assert {rule for rule, _, _ in MUTANTS} == set(RULES)
