"""The sums of adaptive steps: by NumPy against plain loops, in C against NumPy to the bit; a wrong build is refused."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
import torch

from sdekit.math import stages
from sdekit.math.stages import Sums, combined, kernels
from tests.math.test_native import check_refused, compiled

SHAPES = [(1,), (1, 1), (5, 1), (3, 2), (300, 2), (7, 2, 5, 3), (2, 300), (257, 3), (0, 4)]
DTYPES = [torch.float64, torch.float32]
COUNT = 13  # slopes; NumPy adds more than 8 single numbers in another order


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def filled(x: torch.Tensor, library: ctypes.CDLL | None) -> Sums:
    weights = [draw(n, seed=n).numpy() for n in range(1, COUNT + 1)]
    sums = Sums(x, weights, draw(2, COUNT, seed=99).numpy(), library)
    for i, slope in enumerate(sums.slopes):
        slope.copy_(draw(*x.shape, dtype=x.dtype, seed=200 + i))
    return sums


def results(x: torch.Tensor, library: ctypes.CDLL | None) -> list[torch.Tensor]:
    sums, y = filled(x, library), draw(*x.shape, dtype=x.dtype, seed=1)
    gains, ratios = draw(2, len(x), seed=2).unbind()
    found = [sums.stage(i, x, gains, r, 1) for i in (0, 1, COUNT - 1) for r in (None, torch.stack((gains, ratios)))]
    found += [torch.from_numpy(sums.error(i, x, y, floor)) for i in (0, 1) for floor in (None, 0.3)]
    given = torch.zeros_like(x)
    weights = torch.stack((ratios, gains, gains, ratios)).view(2, 2, -1)
    found += [combined(x, y, weights, row, library) for row in (0, 1)]
    return [*found, combined(x, y, weights, 1, library, given)]


def column(numbers: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return numbers.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_makes_the_sums_one_after_the_other(shape, dtype):
    """The mutant: one that adds in pairs gives other bits. With x of one number NumPy's own reduction does."""
    x, library = draw(*shape, dtype=dtype), None
    sums, y = filled(x, library), draw(*shape, dtype=dtype, seed=1)
    gains, ratios = draw(2, len(x), seed=2).unbind()

    def total(weights: np.ndarray) -> torch.Tensor:
        w = torch.from_numpy(weights).to(dtype)
        found = sums.slopes[0] * w[0]
        for slope, weight in zip(sums.slopes[1 : len(w)], w[1:], strict=True):
            found = found + slope * weight
        return found

    for i in (0, 1, COUNT - 1):
        expected = total(draw(i + 1, seed=i + 1).numpy()) * column(gains, x) + x
        assert torch.equal(sums.stage(i, x, gains, None, 0), expected)
        assert torch.equal(sums.stage(i, x, gains, torch.stack((gains, ratios)), 1), expected * column(ratios, x))
    e = total(draw(2, COUNT, seed=99).numpy()[1])
    assert torch.equal(torch.from_numpy(sums.error(1, x, y, None)), e)
    assert torch.equal(torch.from_numpy(sums.error(1, x, y, 0.3)), e / (torch.maximum(x.abs(), y.abs()) + 0.3))
    weights = torch.stack((ratios, gains, gains, ratios)).view(2, 2, -1)  # the second row holds
    assert torch.equal(combined(x, y, weights, 1, library), column(gains, x) * x + column(ratios, x) * y)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_give_the_bits_of_numpy(shape, dtype):
    x = draw(*shape, dtype=dtype)
    library = kernels(x)
    assert library is not None
    for found, expected in zip(results(x, library), results(x, None), strict=True):
        assert torch.equal(found, expected)


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_stays_so(value):
    x = draw(5, 2)
    for library in (kernels(x), None):
        sums, new = filled(x, library), x.clone()
        new[3, 1] = value
        assert np.isnan(sums.error(0, x, new, 0.1)[3, 1]) == math.isnan(value)
        sums.slopes[2][1, 0] = value
        spoilt = ~np.isfinite(sums.error(0, x, x, 0.1))
        assert spoilt[1, 0] and spoilt.sum() == 1
        assert (~sums.stage(3, x, draw(5), None, 0).isfinite()).nonzero().tolist() == [[1, 0]]


@pytest.mark.parametrize("native", [pytest.param(True, marks=compiled), False])
def test_fewer_samples_use_the_same_room(native):
    x = draw(6, 3)
    library = kernels(x) if native else None
    sums, fewer = filled(x, library), draw(4, 3, seed=5)
    sums.shrink(fewer)
    for i, slope in enumerate(sums.slopes):
        slope.copy_(draw(4, 3, seed=200 + i))
    assert torch.equal(sums.stage(5, fewer, draw(4), None, 0), filled(fewer, library).stage(5, fewer, draw(4), None, 0))


def test_other_dtypes_have_no_kernel():
    assert kernels(torch.zeros(3, 2, dtype=torch.bfloat16)) is None


@compiled
@pytest.mark.slow
def test_a_wrong_build_is_refused(tmp_path, monkeypatch):
    mutants = {
        "sum[r * width + c] * gain + base": "__builtin_fma(sum[r * width + c], gain, base[r * width + c]) + 0 * base",
        "|| (a) != (a)": "|| 0",
        "b[r * width + c] * q": "b[r * width + c] * p",
    }
    check_refused(stages._right, "stages.c", mutants, tmp_path, monkeypatch)
