"""Tamed Euler: bounded where Euler-Maruyama leaves the numbers, and of its orders elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import NonFiniteError
from sdekit.solvers.base import Increments
from sdekit.testing.subject import Field
from tests.solvers.path_errors import strong_slope
from tests.solvers.weak_moments import PROBLEMS, local_errors

NAME = "tamed_euler_maruyama"
SOLVER = sdekit.solvers.get(NAME)
D = torch.float64


def test_one_step() -> None:
    """Transcribed for each sample, with its own norm; both directions of time."""
    sde = sdekit.make_sde(lambda t, x: -(x**3) + t, lambda t, x: 0.5 + 0.1 * x)
    x = torch.tensor([[2.0, -1.0], [0.1, 0.2], [30.0, 0.0]], dtype=D)
    w = torch.tensor([[0.3, -0.1], [0.2, 0.5], [0.0, 1.0]], dtype=D)
    for h in (0.25, -0.25):
        found = SOLVER.step(Field(sde), 1.0, 1.0 + h, x, Increments(w), None)[0]
        for i in range(3):
            f = [-(v**3) + 1.0 for v in x[i].tolist()]
            cut = 1 + abs(h) * math.hypot(*f)
            for j in range(2):
                moved = float(x[i, j]) + h * f[j] / cut + (0.5 + 0.1 * float(x[i, j])) * float(w[i, j])
                assert float(found[i, j]) == pytest.approx(moved, rel=1e-14)


def test_it_stays_where_euler_maruyama_blows_up() -> None:
    """dx = -x^5 dt + dW from wide starts: one Euler step overshoots further than it came, the next overflows."""
    sde = sdekit.make_sde(lambda t, x: -(x**5), lambda t, x: torch.ones_like(x), additive=True)
    x = torch.linspace(-8, 8, 201, dtype=D)[:, None]
    # A step moves by at most 1, so that it takes as many steps from 8 before the drift is not cut any more.
    found = sdekit.solve(sde, x, (0.0, 2.0), NAME, steps=100, seed=0)
    assert found.success and float(found.x.abs().max()) < 2.5
    with pytest.raises(NonFiniteError):
        sdekit.solve(sde, x, (0.0, 2.0), "euler_maruyama", steps=100, seed=0)


def test_moments_stay_bounded_as_steps_grow_long() -> None:
    sde = sdekit.make_sde(lambda t, x: -(x**5), lambda t, x: torch.ones_like(x), additive=True)
    x = torch.zeros(2000, 1, dtype=D)
    for steps in (4, 16, 64):
        found = sdekit.solve(sde, x, (0.0, 4.0), NAME, steps=steps, seed=1).x
        assert float(found.square().mean()) < 3.0


@pytest.mark.parametrize("steps", [(0.02, 0.01), (-0.02, -0.01)], ids=["up", "down"])
@pytest.mark.parametrize("problem", ["scalar", "2 columns", "diagonal", "additive columns"])
def test_weak_order_one(problem: str, steps: tuple[float, ...]) -> None:
    errors = np.linalg.norm(local_errors(SOLVER, PROBLEMS[problem], steps), axis=1)
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
@pytest.mark.parametrize("additive, expected", [(True, 1.0), (False, 0.5)], ids=["additive", "general"])
def test_strong_orders(additive: bool, expected: float, ends: tuple[float, float]) -> None:
    g = (lambda t, x: 0.6 + 0.3 * t + 0 * x) if additive else (lambda t, x: 0.7 + 0.6 * torch.sin(2 * x))
    sign = 1.0 if ends[1] > ends[0] else -1.0
    sde = sdekit.make_sde(lambda t, x: sign * (x - x**3), g, additive=additive)
    reference, counts = ("sra1", (8, 16, 32)) if additive else ("platen_weak2", (8, 16, 32))
    slope, errors = strong_slope(NAME, sde, ends, reference, counts)
    assert abs(slope - expected) < 0.25, errors


def test_states_of_rank_one_and_images() -> None:
    sde = sdekit.make_sde(lambda t, x: -(x**3), lambda t, x: 0.1 * torch.ones_like(x), additive=True)
    flat = torch.tensor([3.0, -2.0], dtype=D)
    alone = sdekit.solve(sde, flat, [0.0, 0.5, 1.0], NAME, seed=0).x
    column = sdekit.solve(sde, flat[:, None], [0.0, 0.5, 1.0], NAME, seed=0).x
    torch.testing.assert_close(alone, column[:, 0])
    image = torch.linspace(-2, 2, 24, dtype=D).reshape(2, 3, 2, 2)
    rows = sdekit.solve(sde, image.reshape(2, 12), [0.0, 0.5], NAME, seed=0).x
    torch.testing.assert_close(sdekit.solve(sde, image, [0.0, 0.5], NAME, seed=0).x.reshape(2, 12), rows)
