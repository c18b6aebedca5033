"""Metrics of samples against loops over pairs, closed forms and other solvers of transport."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import metrics
from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError
from sdekit.metrics import pairs, samples, transport


def draws(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def loops(x: Tensor, y: Tensor, kernel) -> float:
    """2 A - B - C, pair by pair."""
    n, m = len(x), len(y)
    a = sum(kernel(float((p - q).norm())) for p in x for q in y) / (n * m)
    b = sum(kernel(float((x[i] - x[j]).norm())) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    c = sum(kernel(float((y[i] - y[j]).norm())) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return 2 * a - b - c


def test_energy_distance_is_its_formula():
    x, y = draws(7, 3, 0), draws(11, 3, 1, 0.5)
    assert metrics.energy_distance(x, y) == pytest.approx(loops(x, y, lambda r: r), rel=1e-12)
    assert metrics.energy_distance(x.reshape(7, 1, 3), y.reshape(11, 1, 3)) == metrics.energy_distance(x, y)


def test_mmd_is_its_formula():
    x, y = draws(7, 3, 0), draws(11, 3, 1, 0.5)
    wide = -loops(x, y, lambda r: math.exp(-r * r / 8))
    narrow = -loops(x, y, lambda r: math.exp(-r * r / 0.5))
    assert metrics.mmd2(x, y, 2.0) == pytest.approx(wide, rel=1e-12)
    assert metrics.mmd2(x, y, [2.0, 0.5]) == pytest.approx(0.5 * (wide + narrow), rel=1e-12)
    everything = torch.cat([x, y])
    median = float(torch.pdist(everything).median())
    assert metrics.median_distance(x, y) == pytest.approx(median, rel=1e-15)
    assert metrics.mmd2(x, y) == metrics.mmd2(x, y, median)


@pytest.mark.parametrize(
    "estimate", [pairs.energy_estimate, lambda x, y: pairs.mmd2_estimate(x, y, 1.0)], ids=["energy", "mmd2"]
)
def test_the_jackknife_leaves_out_one_point_at_a_time(estimate):
    x, y = draws(6, 2, 0), draws(9, 2, 1, 0.5)
    without_x = np.array([estimate(torch.cat([x[:i], x[i + 1 :]]), y).value for i in range(6)])
    without_y = np.array([estimate(x, torch.cat([y[:i], y[i + 1 :]])).value for i in range(9)])
    variance = sum((len(v) - 1) ** 2 / len(v) * v.var(ddof=1) for v in (without_x, without_y))
    assert estimate(x, y).error == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_unbiased_ones_are_zero_on_average_for_one_law():
    """The mutant is the V-statistic, which counts each point's distance to itself and is never negative."""
    values = [metrics.energy_distance(draws(20, 2, 2 * i), draws(20, 2, 2 * i + 1)) for i in range(200)]
    error = np.std(values) / math.sqrt(200)
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0
    v_statistics = [v + 2 * 1.77 / 20 for v in values]  # E|X - X'| = sqrt(pi)
    assert abs(np.mean(v_statistics)) > 4 * error


def test_small_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch):
    x, y = draws(40, 3, 0), draws(33, 3, 1, 0.5)
    whole = [pairs.energy_estimate(x, y), pairs.mmd2_estimate(x, y), transport.sliced_w2_estimate(x, y)]
    monkeypatch.setattr(samples, "ELEMENTS", 64)
    parts = [pairs.energy_estimate(x, y), pairs.mmd2_estimate(x, y), transport.sliced_w2_estimate(x, y)]
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_sliced_w2_in_one_dimension_is_exact():
    x, y = draws(50, 1, 0), draws(50, 1, 1, 0.5)
    expected = math.sqrt(float((x.sort(0).values - y.sort(0).values).square().mean()))
    assert metrics.sliced_w2(x, y) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("sizes", [(6, 9), (7, 5), (12, 12)])
def test_sliced_w2_of_samples_of_different_sizes(sizes: tuple[int, int]):
    """Each point repeated so often that both samples are of one size."""
    n, m = sizes
    x, y = draws(n, 1, 0), draws(m, 1, 1, 0.5)
    expected = metrics.sliced_w2(x.repeat(m, 1), y.repeat(n, 1))
    assert metrics.sliced_w2(x, y) == pytest.approx(expected, rel=1e-13)


def test_sliced_w2_of_a_shift():
    """The mean of (shift . direction)^2 is |shift|^2 / d."""
    x = draws(64, 5, 0)
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0, 0.0])
    assert metrics.sliced_w2(x, x + shift, projections=20_000) == pytest.approx(5 / math.sqrt(5), rel=0.02)
    assert metrics.sliced_w2(x, x + shift, seed=1) != metrics.sliced_w2(x, x + shift, seed=2)
    assert metrics.sliced_w2(x, x) == 0.0


def test_potentials_are_optimal():
    """Dual values: means of both potentials add up to the squared distance, up to the constant removed from each."""
    x, y = draws(30, 1, 0), draws(30, 1, 1, 0.4)
    _, phi, psi = transport._on_lines(x.mT, y.mT)
    cost = (x - y.mT) ** 2
    slack = cost - phi[:, None] - psi[None]  # >= a constant, and equal to it on the optimal pairs, for dual potentials
    matched = slack[x[:, 0].argsort(), y[:, 0].argsort()]
    assert float(matched.max() - slack.min()) < 0.15
    assert float(slack.max() - slack.min()) > 3


def test_exact_w2_is_the_best_assignment():
    pytest.importorskip("ot")
    from scipy.optimize import linear_sum_assignment

    x, y = draws(40, 3, 0), draws(40, 3, 1, 0.5)
    cost = (x[:, None] - y[None]).square().sum(-1).numpy()
    expected = math.sqrt(cost[linear_sum_assignment(cost)].mean())
    assert metrics.exact_w2(x, y) == pytest.approx(expected, rel=1e-12)
    x, y = draws(40, 1, 0), draws(30, 1, 1, 0.5)
    assert metrics.exact_w2(x, y) == pytest.approx(metrics.sliced_w2(x, y), rel=1e-12)


def test_exact_w2_refuses_what_it_would_be_biased_on(monkeypatch: pytest.MonkeyPatch):
    for x in (draws(10, 5, 0), draws(2049, 1, 0)):
        with pytest.raises(OptionError, match="anyway=True"):
            metrics.exact_w2(x, x)
    pytest.importorskip("ot")
    assert metrics.exact_w2(draws(10, 5, 0), draws(10, 5, 0), anyway=True) == 0.0
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(SdekitError, match=r"pip install 'sdekit\[bench\]'"):
        metrics.exact_w2(draws(10, 2, 0), draws(10, 2, 1))


def test_a_metric_is_computed_in_float64():
    x, y = draws(30, 2, 0).float(), draws(30, 2, 1).float()
    for metric in (metrics.energy_distance, metrics.sliced_w2, metrics.mmd2):
        assert metric(x, y) == metric(x.double(), y.double())


@pytest.mark.parametrize("metric", [metrics.energy_distance, metrics.mmd2, metrics.sliced_w2, metrics.exact_w2])
def test_what_is_refused(metric):
    x = draws(10, 2, 0)
    with pytest.raises(ShapeError):
        metric(x, draws(10, 3, 0))
    with pytest.raises(OptionError, match="at least"):
        metric(x[:1], x)
    with pytest.raises(OptionError, match="NaN"):
        metric(x, torch.full_like(x, math.nan))
    with pytest.raises(InterfaceError):
        metric(x.numpy(), x)
    with pytest.raises(InterfaceError, match="meta"):
        metric(x, x.to("meta"))


def test_bandwidths_are_checked():
    x = draws(10, 2, 0)
    for bandwidths in (0.0, -1.0, math.nan, []):
        with pytest.raises(OptionError):
            metrics.mmd2(x, x, bandwidths)
    with pytest.raises(OptionError, match="median"):
        metrics.mmd2(torch.zeros(5, 2), torch.zeros(5, 2))
