"""The estimator on errors whose order is known."""

from __future__ import annotations

import math
import random

import pytest

from sdekit.errors import OptionError
from sdekit.testing.estimate import estimate, least_squares

STEPS = (20, 40, 80, 160)
FLOOR = 1e-12


@pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, 4])
@pytest.mark.parametrize("steps", [STEPS, (10, 15, 40, 41)])
def test_pure_power_is_read_off(p: float, steps: tuple[int, ...]):
    found = estimate(steps, [[3 * n**-p for n in steps]], 1e-18)
    assert found.value == pytest.approx(p, abs=1e-9)
    assert found.low <= p + 1e-9 and found.high >= p - 1e-9
    assert found.used == 4 and found.slopes == pytest.approx([p] * 3, abs=1e-9)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("second", [-8.0, -2.0, 2.0, 20.0])
def test_interval_covers_the_order_where_a_second_term_has_not_died_out(p: int, second: float):
    found = estimate(STEPS, [[n**-p * (1 + second / n) for n in STEPS]], 0.0)
    assert found.low <= p + 0.02 and found.high >= p - 0.02
    assert found.high > found.low


def test_points_in_the_noise_are_dropped():
    errors = [n**-4.0 for n in STEPS]
    clean = estimate(STEPS, [errors], 1e-14)
    noisy = estimate((*STEPS, 1000, 2000), [[*errors, 3e-12, 8e-13]], FLOOR)
    assert noisy.value == pytest.approx(clean.value) and noisy.used == 4
    # A later point that is above the level by chance stays out too.
    assert estimate((*STEPS, 1000, 2000), [[*errors, 3e-12, 1e-9]], FLOOR).used == 4


def test_noise_near_the_floor_widens_the_interval():
    errors = [n**-4.0 for n in STEPS]
    narrow, wide = (estimate(STEPS, [errors], floor) for floor in (1e-14, 1e-10))
    assert wide.high - wide.low > narrow.high - narrow.low + 0.05


def test_seeds_are_averaged_and_their_spread_is_in_the_interval():
    rows = [[n ** -(2 + d) for n in STEPS] for d in (-0.2, 0.0, 0.2)]
    found = estimate(STEPS, rows, 0.0)
    assert found.value == pytest.approx(2)
    assert found.high - found.low > 0.3


def test_exact_methods_have_infinite_order():
    found = estimate(STEPS, [[1e-15, 0.0, 2e-15, 1e-14]], FLOOR)
    assert math.isinf(found.value) and math.isinf(found.low) and found.used == 0


@pytest.mark.parametrize("method", [estimate, least_squares])
def test_too_few_points_above_the_floor_are_refused(method):
    with pytest.raises(OptionError, match="2 of 4 step counts with errors above rounding"):
        method(STEPS, [[1e-3, 1e-6, 1e-13, 1e-13]], FLOOR)


def test_least_squares_on_scattered_errors():
    generator = random.Random(5)
    rows = [[c * n**-3.0 * math.exp(generator.gauss(0, 0.3)) for n in STEPS] for c in (1, 5, 0.2, 30) * 5]
    found = least_squares(STEPS, rows, 0.0)
    assert found.low < 3 < found.high
    assert 0.05 < found.high - found.low < 0.5
    assert abs(found.value - 3) < 0.15


def test_least_squares_is_exact_without_scatter_and_for_exact_methods():
    found = least_squares(STEPS, [[c * n**-2.0 for n in STEPS] for c in (1, 7)], 0.0)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    assert math.isinf(least_squares(STEPS, [[0.0] * 4], FLOOR).value)
