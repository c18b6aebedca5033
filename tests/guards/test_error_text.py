"""Every error text has its three parts, by construction and by a reading of every raise in the library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sdekit import errors
from sdekit.errors import NonFiniteError, OptionError, OutOfDomain, SdekitError, UnfinishedError

KINDS = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, SdekitError)}
PARTS = {"got", "expected", "fix"}
OWN = {  # what those take that make their parts themselves
    "NonFiniteError": {"sample", "step", "t"},
    "UnfinishedError": {"sample", "t", "step_size", "component", "what"},
    "OutOfDomain": set(),
}


def problems(source: str) -> list[str]:
    """What is wrong with the errors that a module makes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in KINDS:
            found.append(f"{node.lineno} {node.exc.id} without arguments")
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in KINDS:
            continue
        name, given = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
        wanted = OWN.get(name.rpartition(".")[2], PARTS)
        missing = wanted - set(given)
        if None not in given and missing:
            found.append(f"{node.lineno} {name} without {', '.join(sorted(missing))}")
        if not node.args or (isinstance(node.args[0], ast.Constant) and not node.args[0].value):
            found.append(f"{node.lineno} {name} without an argument's name")
        for part, value in given.items():
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                text = value.value
                if not text or (part == "fix" and (text[-1] not in ".?" or not text[0].isupper())):
                    found.append(f"{node.lineno} {part} = {text!r}")
                if part == "expected" and text.endswith("."):
                    found.append(f"{node.lineno} {part} = {text!r} ends in a full stop of its own")
    return found


def test_every_error_in_the_library(library: dict[str, Path]):
    found = {m: problems(path.read_text()) for m, path in library.items() if m != "sdekit.errors"}
    assert sum(path.read_text().count("Error(") for path in library.values()) > 100
    assert not {m: p for m, p in found.items() if p}


@pytest.mark.parametrize(
    "source",
    [
        "raise OptionError",
        "raise OptionError('steps')",
        "raise OptionError('steps', got=1, expected='2')",
        "raise OptionError('steps', got=1, fix='Do.')",
        "raise errors.OptionError('steps', expected='2', fix='Do.')",
        "raise OptionError('', got=1, expected='2', fix='Do.')",
        "raise OptionError(got=1, expected='2', fix='Do.')",
        "raise OptionError('steps', got=1, expected='2', fix='')",
        "raise OptionError('steps', got=1, expected='2', fix='Do')",
        "raise OptionError('steps', got=1, expected='2', fix='do.')",
        "raise OptionError('steps', got=1, expected='', fix='Do.')",
        "raise OptionError('steps', got=1, expected='2.', fix='Do.')",
        "raise NonFiniteError('model', step=1, t=0.5)",
        "error = ShapeError('x')",
    ],
)
def test_reading_finds_mistakes(source):
    assert len(problems(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "raise OptionError('steps', got=1, expected='2', fix='Do.')",
        "raise UnknownNameError(kind, got=repr(name), expected=f'a {kind}', fix=suggest(name, known))",
        "raise NonFiniteError(source, sample=0, step=1, t=0.5)",
        "raise error from None",
        "raise",
    ],
)
def test_reading_lets_good_ones_pass(source):
    assert problems(source) == []


@pytest.mark.parametrize("kind", sorted(KINDS - {"ConformanceError"} - set(OWN)))
def test_text(kind):
    error = getattr(errors, kind)("steps", got=-3, expected="1 or more", fix="Raise it.")
    assert str(error) == "steps: got -3; expected 1 or more. Raise it."
    assert (error.argument, error.got, error.expected, error.fix) == ("steps", "-3", "1 or more", "Raise it.")
    assert error.partial is None


def test_text_of_unfinished_solves():
    error = UnfinishedError("STIFF", sample=1, t=0.5, step_size=1e-9, component=2, what="a stiff drift; use bosh3")
    assert str(error) == (
        "solve (STIFF): got a stiff drift: sample 1 at t = 0.5, step 1e-09, worst component 2; "
        "expected steps that reach the last time. Use bosh3."
    )
    assert "samples [1]" in str(OutOfDomain([False, True]))


@pytest.mark.parametrize("source", ["x", "model", "noise", "solver"])
def test_text_of_non_finite_values(source):
    error = NonFiniteError(source, sample=1, step=2, t=0.123456789, call=3)
    assert str(error).startswith(f"{source}: got NaN or infinity at sample 1, step 2, t = 0.12345679, model call 3;")
    assert str(error).endswith(f"{error.fix}") and error.fix[-1] == "."


def test_values_are_shown_briefly():
    long = OptionError("x", got="a" * 10_000, expected="less", fix="Cut it.")
    assert len(str(long)) < 400 and "aaa ..." in str(long)
    lines = OptionError("x", got="tensor([1,\n        2])", expected="less", fix="Cut it.")
    assert "\n" not in str(lines) and "tensor([1, 2])" in str(lines)
