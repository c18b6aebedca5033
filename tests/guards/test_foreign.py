"""Exceptions of user code go through as they are, with a note of where; those of sdekit bring what was reached.

Without `add_note` the notes are missing; without the copy of the state before a step that overwrites it, `partial` is
not a prefix of the full run.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sdekit.errors import InterfaceError, ModelOutputError, NonFiniteError, OptionError, SdekitError
from sdekit.solution import Partial


class MineError(Exception):
    pass


def smooth(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


def failing(at, error):
    calls = itertools.count()

    def model(x, t):
        if next(calls) == at:
            raise error
        return smooth(x, t)

    return model


def test_foreign_exceptions_pass_through(case):
    """Every kind at the first call, one after the other at the others."""
    kinds = [MineError, KeyboardInterrupt, StopIteration, RuntimeError, SystemExit, MemoryError]
    places = [(0, kind) for kind in kinds] + [(at, kinds[at % len(kinds)]) for at in range(1, case.calls)]
    for at, kind in places:
        error = kind("mine")
        model = failing(at, error)
        with pytest.raises(kind) as caught:
            case.solve(model)
        assert caught.value is error and error.args == ("mine",) and error.__cause__ is None
        assert [f.name for f in caught.traceback][-1] == "model"
        (note,) = error.__notes__
        assert "step" in note and "t = " in note and "sdekit solve" in note
        assert f"model call {at}," in note or case.route == "step"


@pytest.mark.parametrize("where", ["callback", "progress"])
def test_so_do_those_of_callbacks(case, where):
    error = MineError()

    def fail(*_):
        raise error

    bar = type("Bar", (), {"update": fail})()
    with pytest.raises(MineError) as caught:
        case.solve(**{where: fail if where == "callback" else bar})
    assert caught.value is error and "step 0" in error.__notes__[0]


def test_so_do_those_of_noise(drawn):
    error = MineError()

    def fail(out, step, stream):
        if step == 2:
            raise error
        out.fill_(0.1)

    with pytest.raises(MineError) as caught:
        drawn.solve(noise=fail, seed=None)
    assert caught.value is error and "step 2" in error.__notes__[0]


def test_a_nested_solve_tells_both_places(case):
    with pytest.raises(NonFiniteError) as caught:
        case.solve(lambda x, t: case.solve(lambda x, t: x * math.nan, x).x)
    assert len(caught.value.__notes__) == 2
    assert caught.value.partial.nfe == 0


def test_partial_is_a_prefix(case):
    """Whatever call fails, the state handed out is the full run's at that grid time, and the call count is right."""
    full = case.solve(save="all")
    nfe = []
    case.solve(callback=lambda info: nfe.append(info.nfe))
    for at in range(case.calls):
        calls = itertools.count()

        def model(x, t, at=at, calls=calls):
            return smooth(x, t) * (math.nan if next(calls) == at else 1.0)

        with pytest.raises(NonFiniteError) as caught:
            case.solve(model)
        partial = caught.value.partial
        assert isinstance(partial, Partial)
        steps = sum(n <= at for n in nfe)
        assert partial.t == case.times[steps] and partial.nfe == at
        assert torch.equal(partial.x, full.xs[steps])


def test_partial_has_the_dtype_of_the_start(case):
    x = case.start(dtype=torch.bfloat16)
    with pytest.raises(NonFiniteError) as caught:
        case.solve(lambda x, t: x * math.nan, x)
    assert caught.value.partial.x.dtype == torch.bfloat16 and torch.equal(caught.value.partial.x, x)


@pytest.mark.parametrize("kind", [MineError, KeyboardInterrupt, NonFiniteError])
def test_abort_and_run_again(case, kind):
    expected = case.solve().x
    x = case.start()
    for at in range(0, case.calls, max(1, case.calls // 4)):
        with pytest.raises(kind):
            case.solve(lambda x, t: x * math.nan) if kind is NonFiniteError else case.solve(failing(at, kind()), x)
        assert torch.equal(case.solve(x=x).x, expected)


def test_errors_before_the_first_call_have_no_partial(case):
    for options in ({"max_nfe": 1}, {"save": [9.0]}, {"seed": -1}):
        with pytest.raises(SdekitError) as caught:
            case.solve(**options)
        assert caught.value.partial is None


def test_errors_of_every_kind_bring_it(case):
    for output, kind in ((None, ModelOutputError), (torch.nan, NonFiniteError)):
        with pytest.raises(kind) as caught:
            case.solve(lambda x, t, output=output: output if output is None else x * output)
        assert torch.equal(caught.value.partial.x, case.start())


def test_errors_of_custom_noise_bring_it(drawn):
    for noise, kind in ((lambda out, *_: 5, InterfaceError), (lambda out, *_: out.double().half(), InterfaceError)):
        with pytest.raises(kind) as caught:
            drawn.solve(noise=noise, seed=None)
        assert torch.equal(caught.value.partial.x, drawn.start())


def test_python_cannot_confuse_option_errors_with_others():
    assert issubclass(OptionError, ValueError) and issubclass(ModelOutputError, TypeError)
    assert issubclass(NonFiniteError, ArithmeticError)
