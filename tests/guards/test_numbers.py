"""Dtypes in and out, tolerances, and lists: what numbers a solve takes.

Without the casts of `compute_dtype` a half-precision state would accumulate its own rounding; without the last cast the
result would come back in float32.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError
from sdekit.shapes import check_dtype, check_state, compute_dtype, finite_number
from sdekit.times import check_count

# Against float64: a few roundings of the values, which are at most 3 in size, and of the model's input at each call.
BOUNDS = {torch.float16: 2e-2, torch.bfloat16: 1.5e-1, torch.float32: 2e-5}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_result_has_the_dtype_of_the_start(case, dtype):
    seen = set()

    def model(x, t):
        seen.add((x.dtype, t.dtype))
        return torch.tanh(x) * (1 + t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)))

    x, times = case.start(dtype=dtype), case.times
    if case.route == "plan" and getattr(case.solver, "adaptive", False):  # many stages magnify roundings on long steps
        times = [a + k / 2 * (b - a) for a, b in itertools.pairwise(times) for k in range(2)] + times[-1:]
    solution = case.solve(model, x, save="all", times=times)
    assert solution.x.dtype == solution.xs.dtype == dtype and solution.x.device == x.device
    assert {d for d, _ in seen} == {dtype}  # the network is called in the state's dtype
    assert {d for _, d in seen} == {compute_dtype(dtype)}  # and with a time of float32 at least
    reference = case.solve(x=x.double(), times=times)
    assert float((solution.x.double() - reference.x).abs().max()) < BOUNDS[dtype]
    assert solution.provenance["dtype"] == str(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_accumulates_in_single(dtype):
    """A thousand steps of 1e-3: in half precision alone, 1 + 1e-3 is 1 in bfloat16 and the sum stands still."""
    ode = sdekit.make_ode(lambda t, x: torch.ones_like(x))
    x = torch.ones(2, 1, dtype=dtype)
    end = sdekit.solve(ode, x, [0.0, 1.0], "euler", steps=1000).x
    assert float((end.double() - 2).abs().max()) <= 2 * torch.finfo(dtype).eps
    model = sdekit.Model(lambda x, t: torch.full_like(x, 2.0), sdekit.EDM(), "noise")  # dx/dt = 2
    end = sdekit.solve(model, x, [1.0, 0.5], "euler", steps=300).x
    assert float(end.double().abs().max()) <= 4 * torch.finfo(dtype).eps


def test_double_precision_end_to_end(case):
    """No float32 in between: the result has digits that float32 does not."""
    x = case.start()
    assert not torch.equal(case.solve(x=x).x, case.solve(x=x).x.float().double())
    nudged = case.solve(x=x * (1 + 1e-9)).x  # Langevin steps forget much of it
    assert not torch.equal(nudged, case.solve(x=x).x)
    torch.testing.assert_close(nudged, case.solve(x=x).x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_sample_has_the_dtype_asked_for(dtype):
    model = sdekit.Model(lambda x, t: torch.tanh(x), sdekit.VP())
    assert sdekit.sample(model, (2, 1), "heun", 2, seed=0, dtype=dtype).dtype == dtype
    x = torch.ones(2, 1, dtype=dtype)
    assert sdekit.sample(model, (2, 1), "heun", 2, x_start=x, t_start=0.5).dtype == dtype
    assert sdekit.VP().sample_prior((2, 1), seed=0, dtype=dtype).dtype == dtype


OTHERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128, torch.float8_e5m2),
]


def test_other_dtypes_are_refused_by_name(case):
    calls = []
    for dtype in OTHERS:
        x = torch.zeros(5, 3).to(dtype)
        with pytest.raises(InterfaceError, match=f"x: got dtype {dtype}") as caught:
            case.solve(lambda x, t: calls.append(1) or x, x)
        assert "x.to(torch.float32)" in str(caught.value) and not calls
        with pytest.raises(InterfaceError, match="dtype: got"):
            check_dtype(dtype)


def test_a_state_without_a_batch_is_refused(case):
    with pytest.raises(ShapeError, match=r"x: got shape \(\); .* x\[None\]"):
        case.solve(x=torch.tensor(1.0))
    with pytest.raises(ShapeError, match=r"mine: got shape \(\).*mine\[None\]"):
        check_state(torch.tensor(1.0), "mine")


@pytest.mark.parametrize("argument", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0, 0.0, 1e-3, -1e-3, 1.0, 2.0, math.nan, math.inf, -math.inf, "1e-3", True, 10**400])
def test_tolerances_are_refused_with_fixed_steps(argument, value):
    calls = []

    def count(t, x):
        calls.append(1)
        return x

    model = sdekit.Model(lambda x, t: count(t, x), sdekit.VP())
    for dynamics in (sdekit.make_ode(count), model):
        with pytest.raises(SdekitError) as caught:
            sdekit.solve(dynamics, torch.ones(2, 1), [0.9, 0.1], "heun", **{argument: value})
        assert str(caught.value).startswith(f"{argument}: got {repr(value)[:20]}")
        # Values that an adaptive solver could use are told what a fixed-step one goes by.
        usable = type(value) in (int, float) and 0 <= value < (1 if argument == "rtol" else 10)
        assert ("Choose the error by the grid" in str(caught.value)) == usable
    assert not calls


def test_numbers():
    for value in (1, 1.0, np.float32(1), np.float64(1), np.int64(1)):
        assert finite_number("n", value) == 1.0 and type(finite_number("n", value)) is float
    for value in (True, "1", None, 1j, [1.0], torch.tensor(1.0), np.ones(1)):
        with pytest.raises(InterfaceError, match="n: got"):
            finite_number("n", value)
    for value in (math.nan, math.inf, -math.inf, 10**400):
        with pytest.raises(OptionError, match="a finite number"):
            finite_number("n", value)
    for value in (0, -1.0):
        assert finite_number("n", value) == value
        with pytest.raises(OptionError, match="greater than 0"):
            finite_number("n", value, positive=True)


def test_counts():
    for value in (1, np.int64(1)):
        assert check_count("n", value) == 1 and type(check_count("n", value)) is int
    for value in (True, 1.0, "1", None, np.float64(1)):
        with pytest.raises(InterfaceError, match="whole number"):
            check_count("n", value)
    for value in (0, -1):
        with pytest.raises(OptionError, match="1 or more"):
            check_count("n", value)
    assert check_count("n", 0, least=0) == 0
