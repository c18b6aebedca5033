"""Every solve ends: calls are counted and limited, and grids that could not move are refused.

Without the check in `prepare` the refusals make calls; without `Dynamics.limit` the endless stepper hangs; without
`calls_per_step` the multi-stage steppers exceed max_nfe.
"""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import sdekit
from sdekit.errors import NonFiniteError, OptionError, SdekitError
from sdekit.solvers.base import Stepper, StepResult


def test_calls_are_counted_and_limited(case):
    calls = []

    def model(x, t):
        calls.append(1)
        return torch.tanh(x)

    solution = case.solve(model, max_nfe=case.calls)
    assert len(calls) == case.calls and solution.nfe.tolist() == [case.calls] * 5
    calls.clear()
    with pytest.raises(OptionError, match="max_nfe") as caught:
        case.solve(model, max_nfe=case.calls - 1)
    assert not calls
    assert f"got {case.calls - 1}, with a solve of {case.calls} model calls" in str(caught.value)


class Endless(Stepper):
    """A stepper that never ends its step."""

    needs = "ode"

    def step(self, dynamics, t0, t1, x, increments, state):
        while True:
            dynamics.drift(t0, x)


class Understated(Stepper):
    """One call declared, two made."""

    needs = "ode"

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(x + (t1 - t0) / 2 * (dynamics.drift(t0, x) + dynamics.drift(t1, x)))


def test_endless_stepper_is_stopped():
    calls = []
    ode = sdekit.make_ode(lambda t, x: calls.append(1) or -x)
    with pytest.raises(OptionError, match="max_nfe") as caught:
        sdekit.solve(ode, torch.ones(2, 1), [0.0, 1.0, 2.0], Endless())
    assert len(calls) == 2000
    assert "in step 0, t = 0" in str(caught.value)
    assert caught.value.partial.nfe == 2000 and torch.equal(caught.value.partial.x, torch.ones(2, 1))


def test_limit_holds_where_a_stepper_understates_its_calls():
    calls = []
    ode = sdekit.make_ode(lambda t, x: calls.append(1) or -x)
    with pytest.raises(OptionError, match="calls_per_step") as caught:
        sdekit.solve(ode, torch.ones(2, 1), [0.0, 1.0, 2.0, 3.0], Understated(), max_nfe=4)
    assert len(calls) == 4 and caught.value.partial.t == 2.0


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", math.nan])
def test_limit_must_be_a_count(value):
    with pytest.raises(SdekitError, match="max_nfe"):
        sdekit.solve(sdekit.make_ode(lambda t, x: x), torch.ones(1, 1), [0.0, 1.0], "euler", max_nfe=value)


TIMES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1e5, 1e5 + 1e-9, 1e-300, 1.0, 1.0 + 2**-52, 1e308, -1e308]),
)


@settings(max_examples=150)
@given(TIMES, TIMES, st.integers(-1, 40), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_any_grid_ends_or_is_refused(t0, t1, steps, dtype):
    calls = []
    ode = sdekit.make_ode(lambda t, x: calls.append(1) or torch.zeros_like(x))
    x = torch.ones(2, 1, dtype=dtype)
    try:
        solution = sdekit.solve(ode, x, [t0, t1], "euler", steps=steps)
    except NonFiniteError:  # a step beyond the range of the state's dtype
        assert max(abs(t0), abs(t1)) > 1e38
        return
    except SdekitError:
        assert not calls
        return
    assert len(calls) == steps == int(solution.nfe[0]) and torch.equal(solution.x, x)
    assert solution.provenance["times"][0] == t0 and solution.provenance["times"][-1] == t1
    spacings = [abs(b - a) / math.ulp(max(abs(a), abs(b))) for a, b in itertools.pairwise(solution.provenance["times"])]
    assert min(spacings) >= 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spacing_is_judged_in_the_precision_of_the_times(dtype):
    """1e5 in float32 has an ulp of 1/128: a grid made there holds what rounding left of it."""
    eps = torch.finfo(dtype).eps
    ode = sdekit.make_ode(lambda t, x: x)
    x = torch.ones(1, 1)
    fine = torch.tensor([1.0, 1.0 + 8 * eps], dtype=dtype)
    assert sdekit.solve(ode, x, fine, "euler").success
    with pytest.raises(OptionError, match=f"8 ulp of {str(dtype).removeprefix('torch.')} apart"):
        sdekit.solve(ode, x, torch.tensor([1.0, 1.0 + 7 * eps], dtype=dtype), "euler")
    # The same numbers as a list are float64.
    narrow = torch.tensor([1.0, 1.0 + 2 * torch.finfo(torch.float32).eps], dtype=torch.float32)
    assert sdekit.solve(ode, x, narrow.tolist(), "euler").success
    with pytest.raises(OptionError, match="float32"):
        sdekit.solve(ode, x, narrow.numpy(), "euler")


def test_blow_up_is_located():
    """x' = x^2 from 1 is infinite at t = 1; with fixed steps the first value out of range is told."""
    ode = sdekit.make_ode(lambda t, x: x**2)
    with pytest.raises(SdekitError) as caught:
        sdekit.solve(ode, torch.ones(2, 1), [0.0, 4.0], "rk4", steps=400)
    assert 0.99 < caught.value.t < 1.2
    assert 0.99 < caught.value.partial.t < 1.2
