"""Noise floors are those of exact samples, intervals cover, and nothing is concluded below a floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import metrics, targets
from sdekit.errors import InterfaceError, OptionError, UnknownNameError
from sdekit.metrics import Measured, NoiseFloor


def draws(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_a_floor_is_that_of_independent_pairs():
    asked: list[tuple[int, int]] = []

    def sampler(n: int, seed: int) -> Tensor:
        asked.append((n, seed))
        return draws(n, 1, seed % 2**63)

    floor = metrics.noise_floor("energy", sampler, 50, 20, seed=3)
    assert [n for n, _ in asked] == [50] * 40
    assert len({seed for _, seed in asked}) == 40
    expected = sorted(
        metrics.energy_distance(sampler(50, a), sampler(50, b))
        for (_, a), (_, b) in zip(asked[:40:2], asked[1:40:2], strict=True)
    )
    assert floor.values == tuple(expected)
    assert floor.mean == pytest.approx(np.mean(expected))
    assert metrics.noise_floor("energy", sampler, 50, 20, seed=3) == floor
    assert metrics.noise_floor("energy", sampler, 50, 20, seed=4) != floor


def test_the_level_is_a_bound_of_one_more_draw():
    floor = NoiseFloor("energy", 10, tuple(float(i) for i in range(1, 40)))
    assert floor.level(0.95) == 38.0  # rank 38 of 40
    assert floor.level(0.5) == 20.0
    assert NoiseFloor("energy", 10, (1.0, 2.0)).level(0.95) == 2.0


@pytest.mark.parametrize("dim", [2, 16])
def test_floors_are_of_the_size_known(dim: int):
    """Sliced W2: some 3 to 5 / sqrt(n) for standard deviations of 1.6. Energy: mean 0, scatter 1 to 4 / n."""
    n, target = 1000, targets.gaussian(torch.zeros(dim), 1.6**2)
    sliced = metrics.noise_floor("sliced_w2", target, n, 4, projections=32)
    assert 2.5 < sliced.mean * math.sqrt(n) < 5.5
    energy = metrics.noise_floor("energy", target, n // 4, 20)
    scatter = float(np.std(energy.values))
    assert 1 < scatter * n / 4 < 5
    assert abs(energy.mean) < scatter


def test_text_never_concludes_below_the_floor():
    below = Measured("energy", 100, 1e-3, -1e-3, 3e-3, 0.95, 2e-3, False)
    above = Measured("energy", 100, 5e-3, 3e-3, 7e-3, 0.95, 2e-3, True)
    unknown = Measured("energy", 100, 5e-3, 3e-3, 7e-3)
    assert "not told apart" in str(below)
    assert "above" not in str(below)
    assert "above what exact samples show" in str(above)
    assert "nothing follows" in str(unknown)


def test_compare_tells_a_shift_from_none():
    target = targets.ring()
    floor = metrics.noise_floor("energy", target, 200)
    exact = target.sample(200, seed=10_001)
    same = metrics.compare("energy", target.sample(200, seed=10_002), exact, floor)
    other = metrics.compare("energy", target.sample(200, seed=10_003) + 1.0, exact, floor)
    assert (same.above_floor, other.above_floor) == (False, True)
    assert same.low < 0 < same.high
    assert 0 < other.low < other.value < other.high
    assert other.value == metrics.energy_distance(target.sample(200, seed=10_003) + 1.0, exact)
    assert metrics.compare("energy", exact + 1, exact).above_floor is None


def test_a_metric_of_ones_own():
    def largest(x: Tensor, y: Tensor) -> float:
        return float((x.amax() - y.amax()).abs())

    floor = metrics.noise_floor(largest, targets.ring(), 50, 10)
    found = metrics.compare(largest, torch.zeros(50, 2), torch.ones(50, 2), floor)
    assert (found.metric, found.value, found.low, found.high) == ("largest", 1.0, 1.0, 1.0)


def test_what_is_refused():
    x = draws(20, 2, 0)
    floor = metrics.noise_floor("energy", targets.ring(), 20, 3)
    with pytest.raises(UnknownNameError, match="energy"):
        metrics.compare("enrgy", x, x)
    with pytest.raises(OptionError, match="n = 20"):
        metrics.compare("energy", x[:10], x, floor)
    with pytest.raises(OptionError, match="mmd2"):
        metrics.compare("mmd2", x, x, floor)
    with pytest.raises(OptionError, match="between 0 and 1"):
        metrics.compare("energy", x, x, floor, confidence=95)
    with pytest.raises(InterfaceError, match="target"):
        metrics.noise_floor("energy", 3, 20)
    with pytest.raises(OptionError):
        metrics.noise_floor("energy", targets.ring(), 20, 0)


def mean_distance(shift: float, variance: float) -> float:
    """E|Z| for Z of N(shift, variance)."""
    std = math.sqrt(variance)
    density = math.exp(-(shift**2) / (2 * variance))
    return std * math.sqrt(2 / math.pi) * density + shift * math.erf(shift / (std * math.sqrt(2)))


def mean_kernel(shift: float, variance: float) -> float:
    """E exp(-Z^2 / 2) for Z of N(shift, variance)."""
    return math.exp(-(shift**2) / (2 * (1 + variance))) / math.sqrt(1 + variance)


SHIFT = 0.6
KNOWN = {
    "energy": (2 * mean_distance(SHIFT, 2) - 2 * mean_distance(0, 2), {}),
    "mmd2": (2 * mean_kernel(0, 2) - 2 * mean_kernel(SHIFT, 2), {"bandwidths": 1.0}),
    "sliced_w2": (SHIFT, {}),
    "exact_w2": (SHIFT, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("metric", sorted(KNOWN))
def test_intervals_cover(metric: str):
    """95 % intervals of N(0, 1) against N(0.6, 1) hold the known distance in 95 % of runs; half as wide ones do not."""
    if metric == "exact_w2":
        pytest.importorskip("ot")
    truth, options = KNOWN[metric]
    n, runs = (150, 200) if metric == "exact_w2" else (200, 300)
    floor = metrics.noise_floor(metric, lambda n, seed: draws(n, 1, seed), n, 20, **options)
    found = [
        metrics.compare(metric, draws(n, 1, 2 * i, SHIFT), draws(n, 1, 2 * i + 1), floor, **options)
        for i in range(runs)
    ]
    hits = sum(f.low <= truth <= f.high for f in found) / runs
    assert 0.9 < hits < 0.99
    narrow = sum(f.value - 0.5 * (f.value - f.low) <= truth <= f.value + 0.5 * (f.high - f.value) for f in found) / runs
    assert narrow < 0.85


@pytest.mark.slow
def test_one_of_twenty_exact_samples_is_above_the_floor():
    n, runs = 100, 300
    floor = metrics.noise_floor("energy", lambda n, seed: draws(n, 2, seed), n, 199)
    found = [metrics.compare("energy", draws(n, 2, 2 * i), draws(n, 2, 2 * i + 1), floor) for i in range(runs)]
    assert 0.02 < sum(bool(f.above_floor) for f in found) / runs < 0.1
