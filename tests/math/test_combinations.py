"""Fused combinations: the bits of PyTorch's operations at every size and place in memory; mutants are refused."""

from __future__ import annotations

from array import array

import pytest
import torch

from sdekit.math import combinations
from sdekit.math.combinations import TERMS, kernel, passes_of, plain, table
from sdekit.math.native import ENOUGH
from tests.math.test_native import check_refused, compiled

WEIGHTS = [0.3, -1.7, 1e-9, 0.11, 5.3, -0.77, 2.1, 1.0, -3e4, 0.5, 0.25, 1 / 3]


def draw(count: int, size: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Numbers that begin anywhere in memory."""
    numbers = torch.randn(count, size + 3, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    return [row[k % 3 :][:size].clone() if k % 2 else row[k % 3 :][:size] for k, row in enumerate(numbers.to(dtype))]


def combine(into: torch.Tensor, own: float | None, terms: list[torch.Tensor], weights: list[float]) -> None:
    """into <- own * into + sum of weights * terms, by the kernel."""
    run, registers, coefficients = kernel(into, ENOUGH), [into, *terms], array("d")
    assert run is not None
    ordered = [(k + 1, w) for k, w in enumerate(weights)]
    some = [(table(c, coefficients), a) for a, c in passes_of(0, ordered if own is None else [(0, own), *ordered])]
    place = coefficients.buffer_info()[0]
    for at, places in some:
        pointers = [registers[a].data_ptr() for a in places]
        run(into.data_ptr(), into.numel(), place + at, len(places), *pointers, *[None] * (TERMS - len(places)))


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", range(1, 13))
def test_bits_are_those_of_one_operation_for_each_term(count, dtype):
    for size in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 1000, 1003):
        into, *terms = draw(count + 1, size, dtype)
        weights = WEIGHTS[:count]
        kept = into.mul(0.9)
        for x, w in zip(terms, weights, strict=True):
            kept.add_(x, alpha=w)
        anew = terms[0].mul(weights[0])
        for x, w in zip(terms[1:], weights[1:], strict=True):
            anew.add_(x, alpha=w)
        combine(into, 0.9, terms, weights)
        assert torch.equal(into, kept)
        combine(into, None, terms, weights)
        assert torch.equal(into, anew)


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_coefficient_of_one_is_a_term_as_it_is(dtype):
    into, a, b = draw(3, 100, dtype)
    combine(into, None, [a, b], [1.0, 0.3])
    assert torch.equal(into, torch.add(a, b, alpha=0.3))


@compiled
def test_what_is_not_a_number_stays_so():
    into, a, b = draw(3, 40, torch.float64)
    a[3], b[5], b[6] = torch.nan, torch.inf, -torch.inf
    expected = into.mul(0.5).add_(a, alpha=2.0).add_(b, alpha=0.0)
    combine(into, 0.5, [a, b], [2.0, 0.0])
    assert torch.equal(into.isnan(), expected.isnan()) and expected.isnan().sum() == 3


@compiled
def test_a_table_keeps_later_passes_apart():
    coefficients = array("d")
    places = [table([1.0 * k] * (k + 1), coefficients) for k in range(TERMS)]
    assert places == [8 * TERMS * k for k in range(TERMS)] and len(coefficients) == TERMS**2


def test_what_has_no_kernel():
    x = torch.ones(4, 3)
    assert kernel(x.half(), ENOUGH) is None and kernel(x[:0], ENOUGH) is None and kernel(x.int(), ENOUGH) is None
    assert kernel(torch.nn.Parameter(x), ENOUGH) is None and kernel(x.mT, ENOUGH) is None
    assert not plain(torch._neg_view(x)) and not plain(torch._efficientzerotensor(3)) and not plain(x[:1].expand(4, 3))
    assert plain(x) and plain(x.view(12)) and plain(x[1:])


@compiled
def test_large_states_are_left_to_several_threads(monkeypatch):
    large = torch.ones(2**16 + 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert kernel(large, ENOUGH) is None and kernel(large[1:], ENOUGH) is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert kernel(large, ENOUGH) is not None


@compiled
@pytest.mark.slow
def test_a_wrong_build_is_refused(tmp_path, monkeypatch):
    mutants = {
        "#define T3(fma) fma(c2, x2[i], T2(fma))": "#define T3(fma) (c2 * x2[i] + T2(fma))",
        "c4 = (T)c[4]": "c4 = (T)c[3]",
        "i < size; i++) out": "i < size - 1; i++) out",
    }
    check_refused(combinations._right, "combinations.c", mutants, tmp_path, monkeypatch)
