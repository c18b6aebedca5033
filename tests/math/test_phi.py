"""phi_k against mpmath, its limits, and what a naive evaluation would give."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import cache

import mpmath
import numpy as np
import pytest

from sdekit.errors import OptionError
from sdekit.math import phi as module
from sdekit.math.phi import MAX_PHI, phi, phi_arrays, phis

TOLERANCE = 1e-15


@cache
def exact(k: int, z: float) -> mpmath.mpf:
    """phi_k = 1F1(1; k + 1; z) / k!, in 50 digits."""
    with mpmath.workdps(50):
        return mpmath.hyp1f1(1, k + 1, mpmath.mpf(z)) / mpmath.factorial(k)


def arguments() -> list[float]:
    """Both signs of 1e-12 to 30, denser where the series hands over to the recurrence, and the handover itself."""
    sizes = [*np.geomspace(1e-12, 0.3, 25), *np.linspace(0.3, 12, 160), *np.linspace(12, 30, 20)]
    sizes += [np.nextafter(k + 1.0, side) for k in range(7) for side in (0.0, 99.0)] + [k + 1.0 for k in range(7)]
    return [float(sign * size) for size in sizes for sign in (1, -1)]


def worst_error(evaluate: Callable[[int, float], list[float]], n: int) -> float:
    """The largest relative error of phi_0 ... phi_n over the arguments."""
    worst = 0.0
    for z in arguments():
        values = evaluate(n, z)
        errors = [abs((mpmath.mpf(v) - exact(k, z)) / exact(k, z)) for k, v in enumerate(values)]
        worst = max(worst, float(max(errors)))
    return worst


@pytest.mark.parametrize("n", range(7))
def test_phis_agree_with_mpmath(n):
    assert worst_error(phis, n) < TOLERANCE


@pytest.mark.parametrize("n", range(7))
def test_arrays_of_them_agree_too(n):
    table = phi_arrays(n, np.array(arguments()))
    each = dict(zip(arguments(), table.T.tolist(), strict=True))
    assert worst_error(lambda _, z: each[z], n) < TOLERANCE
    assert phi_arrays(n, np.zeros((2, 0))).shape == (n + 1, 2, 0)


def naive(n: int, z: float) -> list[float]:
    """The recurrence upwards from e^z, as solvers are often written."""
    values = [math.exp(z)]
    for k in range(n):
        values.append((values[-1] - 1.0 / math.factorial(k)) / z)
    return values


def test_the_comparison_refuses_the_naive_recurrence():
    assert worst_error(naive, 1) > 1e-6


def test_the_comparison_refuses_a_late_handover(monkeypatch):
    # the mutant takes the series too far, with too few terms for it
    monkeypatch.setattr(module, "_SWITCH", [30.0] * len(module._SWITCH))
    assert worst_error(phis, 3) > TOLERANCE


def test_phi_is_an_entry_of_phis():
    for z in (-7.0, -0.3, 0.0, 2.5):
        assert [phi(k, z) for k in range(5)] == [phis(k, z)[k] for k in range(5)]


def test_values_at_zero():
    assert phis(6, 0.0) == [1.0 / math.factorial(k) for k in range(7)]
    assert phis(6, -0.0) == phis(6, 0.0)


def test_limits():
    assert phis(6, -math.inf) == [0.0] * 7
    assert phis(6, math.inf) == phis(6, 710.0) == [math.inf] * 7
    assert all(map(math.isnan, phis(6, math.nan)))
    assert all(map(math.isfinite, phis(6, 709.7)))
    assert phi(1, -1e6) == pytest.approx(1e-6, rel=1e-15)


def test_the_recurrence_holds_up_to_the_largest_index():
    for z in (-30.0, -9.0, -1.0, 0.4, 5.0, 25.0):
        values = phis(MAX_PHI, z)
        for k in range(MAX_PHI):
            assert values[k] == pytest.approx(z * values[k + 1] + 1.0 / math.factorial(k), rel=2e-14)


@pytest.mark.parametrize("n", [-1, MAX_PHI + 1])
def test_an_index_out_of_range_is_refused(n):
    with pytest.raises(OptionError, match="lower order") as caught:
        phis(n, 1.0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
