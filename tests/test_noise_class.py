"""Which noise classes an SDE has, and that solvers refuse those on which they have no order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import sdekit
from sdekit.errors import SolverMismatchError
from sdekit.noise_class import NOISE_CLASSES, noise_classes
from sdekit.solvers import NoiseOrder, Order, Stepper, StepResult

ONE, THREE = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)


def sde(noise_type: str, **options):
    additive = options.get("additive")
    g = lambda t, x: _g(noise_type, torch.ones_like(x) if additive else x)  # noqa: E731
    return sdekit.make_sde(lambda t, x: -x, g, noise_type, **options)  # type: ignore[arg-type]


def _g(noise_type, x):
    if noise_type == "general":
        return x.unsqueeze(-1).expand(*x.shape, 2)
    return x if noise_type == "diagonal" else x.sum(tuple(range(1, x.ndim)), keepdim=True)


@pytest.mark.parametrize(
    "noise_type, options, x, columns, expected",
    [
        ("diagonal", {}, THREE, None, ("diagonal", "commutative", "general")),
        ("diagonal", {}, ONE, None, ("scalar", "diagonal", "commutative", "general")),
        ("diagonal", {"additive": True}, THREE, None, ("additive", "diagonal", "commutative", "general")),
        ("scalar", {}, THREE, None, ("general",)),
        ("scalar", {"commutative": True}, THREE, None, ("commutative", "general")),
        ("scalar", {}, ONE, None, ("scalar", "diagonal", "commutative", "general")),
        ("general", {}, THREE, 2, ("general",)),
        ("general", {}, THREE, 1, ("scalar", "commutative", "general")),
        ("general", {"commutative": True}, THREE, 2, ("commutative", "general")),
        ("general", {"additive": True}, THREE, 2, ("additive", "commutative", "general")),
    ],
)
def test_classes(noise_type, options, x, columns, expected):
    found = noise_classes(sde(noise_type, **options), x, columns)
    assert found == expected and set(found) <= set(NOISE_CLASSES)


@dataclass(frozen=True)
class Commuting(Stepper):
    """For noise whose columns commute."""

    declared: ClassVar[Order] = Order(noise={"commutative": NoiseOrder(1, 1)})

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(x + (t1 - t0) * dynamics.drift(t0, x) + dynamics.diffuse(t0, x, increments.W))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "case, taken",
    [
        (("general", {}), False),
        (("general", {"commutative": True}), True),
        (("general", {"additive": True}), True),
        (("scalar", {}), False),
        (("diagonal", {}), True),
    ],
)
def test_a_solver_takes_the_classes_that_it_declares(case, taken):
    noise_type, options = case
    dynamics, x = sde(noise_type, **options), 0.1 + THREE
    if taken:
        assert sdekit.solve(dynamics, x, [0.0, 1.0], Commuting(), steps=2, seed=0).success
        return
    with pytest.raises(SolverMismatchError, match=r"general noise.*euler_maruyama.*commutative = True"):
        sdekit.solve(dynamics, x, [0.0, 1.0], Commuting(), steps=2, seed=0)


def test_one_column_is_scalar_noise():
    column = sdekit.make_sde(lambda t, x: -x, lambda t, x: x.unsqueeze(-1), "general")
    assert sdekit.solve(column, 0.1 + THREE, [0.0, 1.0], Commuting(), steps=2, seed=0).success


def test_orders_by_class():
    order = Order(noise={"additive": NoiseOrder(1.5, 2), "commutative": NoiseOrder(1, 1)})
    assert order.on(("additive", "general")) == (1.5, 2) and order.on(("diagonal", "commutative")) == (1, 1)
    assert order.on(("general",)) is None
    assert hash(order) == hash(Order())  # equal orders must agree, others may
