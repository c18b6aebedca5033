"""Functions whose bits do not depend on the batch: against 15 digits and more, at both ends, and in parts."""

from __future__ import annotations

import math

import mpmath
import torch

from sdekit.math.elementwise import powers, sigmoid, softplus, total

X = torch.linspace(-5, 5, 203, dtype=torch.float64)


def parts_agree(function, x):
    return all(torch.equal(torch.cat([function(v.clone()) for v in x.split(n)]), function(x)) for n in (1, 7, 64))


def test_sigmoid_and_softplus():
    for function, exact in (
        (sigmoid, lambda v: 1 / (1 + mpmath.exp(-v))),
        (softplus, lambda v: mpmath.log1p(mpmath.exp(v))),
    ):
        want = torch.tensor([float(exact(mpmath.mpf(v))) for v in X.tolist()], dtype=torch.float64)
        assert ((function(X) - want) / want).abs().max() < 4e-16
        assert parts_agree(function, X)
    assert sigmoid(torch.tensor([-math.inf, math.inf])).tolist() == [0, 1]
    assert softplus(torch.tensor([-math.inf, 800.0])).tolist() == [0, 800]


def test_powers_and_totals():
    for count in (1, 2, 3, 17):
        table = powers(X / 5, count)
        assert table.shape == (203, count)
        assert torch.allclose(table, (X / 5)[:, None] ** torch.arange(float(count)), rtol=2e-15, atol=0)
        exact = torch.tensor([math.fsum(row) for row in table.tolist()], dtype=torch.float64)
        assert (total(table) - exact).abs().max() < 4e-16 * count
    assert parts_agree(lambda v: total(powers(v / 5, 17)), X)


def test_functions_that_know_of_the_others_are_seen():
    """Torch's own, which give the last numbers of a tensor other bits."""
    assert not parts_agree(torch.sigmoid, X)
    assert not parts_agree(lambda v: torch.logaddexp(torch.zeros_like(v), v), X)
