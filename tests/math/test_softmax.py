"""The fused softmax against PyTorch's, and that a wrong build of it is refused."""

from __future__ import annotations

import math

import pytest
import torch

from sdekit.math import softmax
from sdekit.math.softmax import Logits, fused_softmax
from tests.math.test_native import check_refused, compiled

LEAST = -472.0


@pytest.fixture(autouse=True)
def _as_on_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_THREADS", torch.get_num_threads())


def case(rows: int, components: int, scale: float = 30.0) -> tuple[torch.Tensor, Logits, Logits]:
    generator = torch.Generator().manual_seed(rows + components)
    draw = {"dtype": torch.float64, "generator": generator}
    z, (bias, a, b) = scale * torch.randn(rows, components, **draw), torch.randn(3, components, **draw)
    return z, Logits(bias, 0.7), Logits(bias, a, b, torch.rand(rows, **draw))


def expected(z: torch.Tensor, logits: Logits) -> torch.Tensor:
    rest = 0.0 if logits.norms is None else logits.squares * logits.norms[:, None]
    return torch.softmax(logits.bias + logits.scale * z + rest, 1).clamp_min(math.exp(LEAST))


@compiled
@pytest.mark.parametrize("components", [1, 2, 7, 15, 16, 17, 31, 33, 64, 100])
@pytest.mark.parametrize("rows", [1, 15, 16, 33])
def test_both_layouts_give_the_softmax(rows, components):
    z, *forms = case(rows, components)
    for logits in forms:
        first = z.clone()
        assert fused_softmax(first, logits, LEAST, 1)
        wide = torch.full((components, rows + 5), math.nan, dtype=torch.float64)  # what lies beside stays as it is
        second = wide[:, :rows].copy_(z.mT)
        assert fused_softmax(second, logits, LEAST, 0)
        for found in (first, second.mT):
            assert torch.allclose(found, expected(z, logits), rtol=1e-12, atol=1e-190)
            assert torch.allclose(found.sum(1), torch.ones(rows, dtype=torch.float64), rtol=1e-14, atol=0)
        assert wide[:, rows:].isnan().all()


@compiled
def test_exponentials_are_right_to_rounding_over_their_whole_range():
    z = torch.linspace(LEAST, 0, 4001, dtype=torch.float64)[:, None].repeat(1, 2)
    z[:, 1] = 0.0
    found = z.clone()
    assert fused_softmax(found, Logits(torch.zeros(2, dtype=torch.float64), 1.0), LEAST, 1)
    # e^v / (e^v + 1)
    exact = torch.exp(z[:, 0] - torch.log1p(torch.exp(z[:, 0])))
    assert ((found[:, 0] - exact) / exact).abs().max() < 6e-14  # the exponent itself is rounded to 472 eps / 2
    assert found[1:, 0].min() >= math.exp(LEAST) * (1 - 1e-13)


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_spoils_its_row_alone(value):
    z, logits, _ = case(20, 37)
    z[3, 36] = value
    for axis in (0, 1):
        found = z.clone() if axis else z.mT.contiguous()
        assert fused_softmax(found, logits, LEAST, axis)
        spoilt = (found if axis else found.mT).isnan().any(1)
        assert spoilt.nonzero().ravel().tolist() == [3]


def test_where_there_is_no_kernel_nothing_is_touched(monkeypatch):
    z, logits, _ = case(4, 40)
    single = z.float()
    assert not fused_softmax(single, Logits(logits.bias.float(), 0.7), LEAST, 1) and torch.equal(single, z.float())
    monkeypatch.setattr(softmax.NATIVE, "get", lambda numbers: None)
    kept = z.clone()
    assert not fused_softmax(kept, logits, LEAST, 1) and torch.equal(kept, z)


@compiled
@pytest.mark.slow
def test_a_wrong_build_is_refused(tmp_path, monkeypatch):
    mutants = {"1.0 / 5040": "1.0 / 5041", "larger(least, z[k + i] - most)": "larger(z[k + i] - most, least)"}
    check_refused(softmax._right, "softmax.c", mutants, tmp_path, monkeypatch)
