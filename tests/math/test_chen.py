"""Levy areas: Chen's relation, sums over steps against double sums, and the variance that is left."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit.brownian import BrownianPath
from sdekit.math.chen import joined, levy_area


@lru_cache
def steps(n: int, batch: int = 1000, m: int = 3) -> tuple[Tensor, Tensor]:
    """W and H of n equal steps of a path over [0.2, 1.2]: (n, batch, m) each."""
    path = BrownianPath(5, torch.arange(batch), m)
    times = [0.2 + k / n for k in range(n + 1)]
    path.evaluate(times)
    found = [path.increment(s, t) for s, t in itertools.pairwise(times)]
    return torch.stack([w for w, _ in found]), torch.stack([h for _, h in found])


def by_hand(w: Tensor) -> Tensor:
    """Of a polygon, by its double sum."""
    area = torch.zeros(*w.shape[1:], w.shape[-1], dtype=w.dtype)
    for i, k in itertools.combinations(range(len(w)), 2):
        area += 0.5 * (w[i][..., :, None] * w[k][..., None, :] - w[k][..., :, None] * w[i][..., None, :])
    return area


def test_steps_join_by_chens_relation():
    w, h = steps(12, batch=20)
    torch.testing.assert_close(levy_area(w), by_hand(w), rtol=0, atol=1e-14)
    for cut in (1, 5, 11):
        parts = [(v[:cut], v[cut:]) for v in (w, h)]
        first, second = (levy_area(parts[0][i], parts[1][i]) for i in (0, 1))
        total, area = joined(w[:cut].sum(0), first, w[cut:].sum(0), second)
        torch.testing.assert_close(total, w.sum(0), rtol=0, atol=1e-13)
        torch.testing.assert_close(area, levy_area(w, h), rtol=0, atol=1e-13)


def test_a_plane_loop_encloses_its_area():
    """Around the unit square, against the clock and with it."""
    square: Any = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    assert levy_area(square).tolist() == [[0, 1], [-1, 0]]
    assert levy_area(-square.flip(0)).tolist() == [[0, -1], [1, 0]]


def error(n: int, fine: Tensor, sign: float, rows: tuple[Tensor, Tensor]) -> float:
    """Mean square of what the means given n steps miss, over that of a whole area with its variance 1/4."""
    w, h = rows
    return float((levy_area(w, None if sign == 0 else sign * h) - fine)[..., 0, 1].square().mean())


@pytest.mark.parametrize("sign, expected", [(0.0, 1 / 4), (1.0, 1 / 12)])
def test_the_variance_left_is_that_of_the_steps(sign, expected):
    fine = levy_area(*steps(128))
    for n in (1, 4, 16):
        found = error(n, fine, sign, steps(n))
        left = expected / n - 1 / 12 / 128
        assert abs(found / left - 1) < 0.2, n


def test_the_variance_sees_the_wrong_sign_of_h():
    assert error(4, levy_area(*steps(128)), -1.0, steps(4)) > 2 / 4 / 4
