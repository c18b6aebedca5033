"""Talay-Tubaro extrapolation: its weights, its order where expectations are exact, and its standard error."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import ModelOutputError, OptionError, ShapeError, SolverMismatchError
from sdekit.extrapolation import extrapolation_weights

MU, SIGMA = 0.7, 0.5
GBM = sdekit.make_sde(lambda t, x: MU * x, lambda t, x: SIGMA * x)
SECOND = math.exp(2 * MU + SIGMA**2)  # E x_1^2 from x_0 = 1
MOST = 12  # steps whose signs are enumerated


def signs(out: Tensor, step: int, stream: int) -> Tensor:
    """Row i has the sign of bit `step` of i: over all rows every path of signs occurs equally often."""
    bit = (torch.arange(len(out)) >> step) & 1
    return out.copy_((2 * bit - 1)[:, None].expand_as(out))


def second_moment(steps: int, solver: Any = "euler_maruyama", **options: Any) -> float:
    """The extrapolated E x^2 of the linear SDE, exact: second moments of Euler-Maruyama are those of signs."""
    x = torch.ones(2**MOST, 1, dtype=torch.float64)
    found = sdekit.extrapolate_mean(
        lambda x: x[:, 0] ** 2, GBM, x, [0.0, 1.0], solver, steps=steps, noise=signs, **options
    )
    return float(found.value)


def test_weights() -> None:
    assert extrapolation_weights(1, 2) == pytest.approx((-1, 2), abs=1e-14)
    assert extrapolation_weights(1, 3) == pytest.approx((1 / 3, -2, 8 / 3), abs=1e-14)
    assert extrapolation_weights(2, 2) == pytest.approx((-1 / 3, 4 / 3), abs=1e-14)
    for order in (1, 2, 3):
        for levels in (2, 3, 4):
            w = extrapolation_weights(order, levels)
            powers = range(order, order + levels - 1)
            assert sum(w) == pytest.approx(1, abs=1e-12)
            assert max(abs(sum(v * 2.0 ** (-i * q) for i, v in enumerate(w))) for q in powers) < 1e-12


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_value_is_that_of_the_moment_recursion(steps: int) -> None:
    def moment(n: int) -> float:
        return ((1 + MU / n) ** 2 + SIGMA**2 / n) ** n

    assert second_moment(steps) == pytest.approx(2 * moment(2 * steps) - moment(steps), rel=1e-12)


def mean_error(steps: int, solver: str = "euler_maruyama", **options: Any) -> float:
    """Of E x of a linear SDE, which noise does not move."""
    x = torch.ones(2, 1, dtype=torch.float64)
    ou = sdekit.make_sde(lambda t, x: -x * (1 + 2 * t - t * t), lambda t, x: torch.ones_like(x), additive=True)
    found = sdekit.extrapolate_mean(
        lambda x: x[:, 0], ou, x, [0.0, 1.0], solver, steps=steps, noise=lambda out, *_: out.zero_(), **options
    )
    return abs(float(found.value) - math.exp(-5 / 3))


@pytest.mark.parametrize(
    "solver, levels, expected",
    [
        *(("euler_maruyama", n, n) for n in (2, 3, 4)),
        ("platen_weak2", 2, 3),
        ("platen_weak2", 3, 4),
        ("sra1", 2, 3),
    ],
)
def test_each_level_adds_an_order(solver: str, levels: int, expected: int) -> None:
    errors = [mean_error(n, solver, levels=levels) for n in (8, 16, 32)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert abs(slopes[-1] - expected) < 0.25, slopes


def test_second_moment_is_of_order_two() -> None:
    errors = [abs(second_moment(n) - SECOND) for n in (1, 3, 6)]
    assert math.log2(errors[1] / errors[2]) > 1.6
    assert errors[2] < 0.1 * abs(((1 + MU / 6) ** 2 + SIGMA**2 / 6) ** 6 - SECOND)


def test_weights_of_another_order_leave_the_error() -> None:
    """The mutant: 4/3 and -1/3, which fit a method of order 2, do not cancel the error of order 1."""
    errors = [mean_error(n, order=2) for n in (8, 16, 32)]
    assert abs(math.log2(errors[1] / errors[2]) - 1) < 0.25


def estimate(noise: str, batch: int = 4096, **options: Any) -> sdekit.MeanEstimate:
    x = torch.ones(batch, 1, dtype=torch.float64)
    return sdekit.extrapolate_mean(
        lambda x: x[:, 0] ** 2, GBM, x, [0.0, 1.0], "euler_maruyama", steps=4, seed=5, noise=noise, **options
    )


def test_one_path_for_all_levels_keeps_the_variance_small() -> None:
    coupled, apart = estimate("path"), estimate("step")
    for found in (coupled, apart):
        assert abs(float(found.value) - SECOND) < 4 * float(found.error) + 0.02
        assert found.steps == (4, 8) and found.nfe == 12 and found.weights == pytest.approx((-1, 2))
    assert float(apart.error) > 1.5 * float(coupled.error)
    spread = math.sqrt(sum(float(w * e) ** 2 for w, e in zip(apart.weights, apart.errors, strict=True)))
    assert float(apart.error) == pytest.approx(spread, rel=0.1)  # levels of independent noise
    assert float(coupled.value) == pytest.approx(float(2 * coupled.means[1] - coupled.means[0]), rel=1e-12)


def test_standard_error_is_that_of_repetitions() -> None:
    found = [estimate("step", batch=128, sample_ids=torch.arange(128) + 128 * k) for k in range(40)]
    spread = float(torch.stack([f.value for f in found]).std())
    typical = sum(float(f.error) for f in found) / len(found)
    assert 0.7 < spread / typical < 1.4


def test_downwards_models_and_several_values() -> None:
    vp, target = sdekit.VP(), sdekit.targets.gaussian(torch.zeros(2), torch.eye(2))
    model = target.under(vp)
    x = vp.sample_prior((64, 2), seed=0, dtype=torch.float64)
    for solver in ("euler_maruyama", "ddpm"):
        found = sdekit.extrapolate_mean(lambda x: x**2, model, x, [0.99, 0.1], solver, steps=4, seed=1)
        assert found.value.shape == found.error.shape == (2,) and found.means.shape == (2, 2)
        assert bool(found.value.isfinite().all()) and found.value.dtype == torch.float64


def test_errors() -> None:
    x = torch.ones(4, 1, dtype=torch.float64)

    def ask(function: Any = lambda x: x[:, 0], dynamics: Any = GBM, x: Tensor = x, solver: str = "em", **options: Any):
        return sdekit.extrapolate_mean(function, dynamics, x, [0.0, 1.0], solver, steps=2, seed=0, **options)

    for levels in (1, 7):
        with pytest.raises(OptionError, match="levels"):
            ask(levels=levels)
    with pytest.raises(OptionError, match="order"):
        ask(order=0)
    with pytest.raises(ShapeError, match="1 samples"):
        ask(x=x[:1])
    with pytest.raises(SolverMismatchError, match="without noise"):
        ask(dynamics=sdekit.make_ode(lambda t, x: -x), solver="heun")
    for function in (lambda x: x.sum(), lambda x: 3.0, lambda x: x[:, 0] / 0, lambda x: x[:, 0] > 0):
        with pytest.raises(ModelOutputError, match="function"):
            ask(function)
