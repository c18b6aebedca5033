"""Methods for Stratonovich SDEs: orders by class of noise, the underlying methods, exact inverses, planted mistakes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import OptionError
from sdekit.solvers import StepResult
from sdekit.solvers.base import Increments
from sdekit.solvers.path_runge_kutta import PathRungeKutta, PathTableau
from sdekit.solvers.stratonovich import (
    EulerHeun,
    ReversibleHeun,
    StochasticHeun,
    StochasticMidpoint,
)
from sdekit.testing import observed_order
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.subject import Field

F64 = torch.float64
SDES, POLYNOMIALS = sde_problems(), polynomial_problems()
NAMES = ("euler_heun", "stochastic_heun", "stochastic_midpoint", "reversible_heun")


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


CASES = [
    (name, noise + way)
    for name, way in zip(NAMES, ("", ", down") * 2, strict=True)
    for noise in ("diagonal", "additive")
]
CASES += [("reversible_heun", "commutative")]


@pytest.mark.parametrize("name, problem", CASES)
def test_strong_order(name: str, problem: str):
    found = observed_order(name, "strong", SDES[problem], steps=(8, 16, 32) if "comm" in problem else None)
    assert found.declared == 1 and abs(found.value - 1) <= 0.3, str(found)


EVERYWHERE = ["additive", "scalar", "diagonal", "commutative", "general", "geometric"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", ", down"])
# The reversible method is unstable where noise grows with the state: it overflows at few steps.
@pytest.mark.parametrize(
    "name, noise", [(n, p) for n in NAMES for p in EVERYWHERE if (n, p) != ("reversible_heun", "geometric")]
)
def test_strong_order_everywhere(name: str, noise: str, way: str):
    found = observed_order(name, "strong", SDES[noise + way], steps=(16, 32, 64, 128, 256))
    order = 0.5 if noise == "general" else 1
    assert found.declared == order and found.value >= order - 0.15, str(found)
    # A few wild paths can carry the error of the unstable reversible_heun: then the interval says so.
    assert found.value <= order + 0.15 or found.low <= order, str(found)


@pytest.mark.parametrize("problem", ["scalar", "diagonal, down", "general", "general, down", "additive"])
@pytest.mark.parametrize("name", NAMES)
def test_weak_order(name: str, problem: str):
    """The moments of one step, without sampling; of general noise too."""
    found = observed_order(name, "weak", POLYNOMIALS[problem])
    wanted = 2 if (name, problem) == ("stochastic_heun", "additive") else 1
    assert found.declared == wanted, str(found)
    assert -0.15 <= found.value - wanted <= (1.2 if (name, problem) == ("reversible_heun", "additive") else 0.3), str(
        found
    )


def linear(t: Any, x: Any) -> Any:
    return (0.5 + 0.3 * math.sin(float(t))) * x


LINEAR = sdekit.make_sde(lambda t, x: -linear(t, x) + 0.2, lambda t, x: linear(t, x) + 0.4 * t, sde_type="stratonovich")


def second_moments(steps: int, down: bool) -> torch.Tensor:
    """E x and E x^2 at the end of `reversible_heun` on a linear SDE: a step is an affine map of (x, z)."""
    times = np.linspace(1.2, 0.3, steps + 1) if down else np.linspace(0.3, 1.2, steps + 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    corners, field = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64), Field(LINEAR)
    moments = torch.tensor([1.0, 0.7, 0.7], dtype=F64)
    moments = torch.outer(moments, moments)  # of (1, x, z)
    for t0, t1 in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        total = torch.zeros(3, 3, dtype=F64)
        for node, weight in zip(nodes, weights, strict=True):
            x, z = corners[:, :1], corners[:, 1:]
            start = type(ReversibleHeun().step(field, t0, t1, x, None, None).state)(
                z, field.drift(t0, z), field.diffusion(t0, z)
            )
            w = torch.full_like(x, node * math.sqrt(abs(t1 - t0)))
            new, _, state = ReversibleHeun().step(field, t0, t1, x, Increments(w), start)
            ends = torch.cat([new, state.z], 1)
            matrix = torch.zeros(3, 3, dtype=F64)
            matrix[0, 0] = 1
            matrix[1:, 0] = ends[0]
            matrix[1:, 1:] = (ends[1:] - ends[0]).T
            total = total + weight * matrix @ moments @ matrix.T
        moments = total
    return moments[0, 1], moments[1, 1]  # type: ignore[return-value]


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_reversible_heun_is_of_weak_order_one(down: bool):
    """By exact moments of many steps: one step does not show what becomes of x - z."""
    ends = [torch.stack(list(second_moments(n, down))) for n in (16, 32, 64, 128)]
    gaps = [float((a - b).norm()) for a, b in itertools.pairwise(ends)]
    assert all(0.8 <= math.log2(a / b) <= 1.25 for a, b in itertools.pairwise(gaps)), gaps


@pytest.mark.parametrize(
    "name, plain", [("stochastic_heun", "heun"), ("stochastic_midpoint", "midpoint"), ("euler_heun", "euler")]
)
def test_underlying_methods(name: str, plain: str):
    ode = sdekit.make_ode(lambda t, x: torch.sin(x + t))
    x = normals(4, 2)
    for times in ([0.0, 1.0], [1.0, 0.0]):
        found, wanted = (sdekit.solve(ode, x, times, n, steps=6) for n in (name, plain))
        torch.testing.assert_close(found.x, wanted.x, rtol=1e-14, atol=1e-14)
        assert torch.equal(found.nfe, wanted.nfe)


def test_by_hand():
    """dx = a x dt + s x dW in one step: polynomials of a h and s W."""
    a, s, h = 0.3, 0.5, 0.1
    x, w = 1 + normals(5, 1), 0.3 * normals(5, 1, seed=1)
    sde = Field(sdekit.make_sde(lambda t, x: a * x, lambda t, x: s * x, sde_type="stratonovich"))
    for t1 in (0.5 + h, 0.5 - h):
        u, v = a * (t1 - 0.5), s * w
        wanted = {
            EulerHeun(): 1 + u + v + v * v / 2,
            StochasticHeun(): 1 + u + v + (u + v) ** 2 / 2,
            StochasticMidpoint(): 1 + u + v + (u + v) ** 2 / 2,
            ReversibleHeun(): 1 + u + v + (u + v) ** 2 / 2,
        }
        for solver, factor in wanted.items():
            torch.testing.assert_close(solver.step(sde, 0.5, t1, x, Increments(w), None)[0], x * factor)


@pytest.mark.parametrize("problem", ["general", "commutative, down", "diagonal", "additive, down"])
def test_reversible_heun_can_be_undone(problem: str):
    """Back along 200 steps to where it started, from the last x and z alone."""
    found, solver = SDES[problem], ReversibleHeun()
    field, times = Field(found.form("stratonovich")), found.grid("random", 200)
    x = start = found.start(8)
    shape = (8, found.motions) if found.sde.noise_type == "general" else x.shape
    noises = [
        Increments(normals(*shape, seed=i) * math.sqrt(abs(b - a)))
        for i, (a, b) in enumerate(itertools.pairwise(times))
    ]
    state: Any = None
    kept: list[Any] = []
    for t0, t1, noise in zip(times, times[1:], noises, strict=False):
        kept.append((x, state))
        x, _, state = solver.step(field, t0, t1, x, noise, state)
    for i in reversed(range(200)):
        x, state = solver.inverse(field, times[i], times[i + 1], x, noises[i], state)
        if kept[i][1] is not None:
            torch.testing.assert_close(x, kept[i][0], rtol=1e-10, atol=1e-10)
            for a, b in zip(state, kept[i][1], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(x, start, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.z, start, rtol=1e-12, atol=1e-12)
    ode = Field(sdekit.make_ode(lambda t, x: torch.sin(x + t)))
    there = solver.step(ode, 0.0, 0.3, start, None, None)
    back, _ = solver.inverse(ode, 0.0, 0.3, there.x, None, there.state)
    torch.testing.assert_close(back, start, rtol=1e-14, atol=1e-14)


def test_reversible_heun_calls_once_a_step():
    calls = [0, 0]

    def drift(t, x):
        calls[0] += 1
        return -x

    def diffusion(t, x):
        calls[1] += 1
        return torch.sin(x)

    sde = sdekit.make_sde(drift, diffusion, sde_type="stratonovich")
    out = sdekit.solve(sde, normals(4, 2), [0.0, 1.0], "reversible_heun", steps=7, seed=0, max_nfe=8)
    assert calls == [8, 8] and out.nfe.tolist() == [8] * 4
    with pytest.raises(OptionError, match="8 model calls"):
        sdekit.solve(sde, normals(4, 2), [0.0, 1.0], "reversible_heun", steps=7, seed=0, max_nfe=7)
    assert calls == [8, 8]


@pytest.mark.parametrize("dynamics", ["general", "commutative, down"])
def test_gradients_by_solving_back(dynamics: str):
    """Those of the adjoint are those that autograd has of the steps."""
    problem, found = SDES[dynamics], []
    sde = problem.form("stratonovich")
    for gradients in ("direct", "adjoint"):
        x = problem.start(4).requires_grad_()
        out = sdekit.solve(sde, x, problem.times, "reversible_heun", steps=12, seed=0, gradients=gradients)
        found.append(torch.autograd.grad(out.x.square().sum(), x)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_through_steps(name: str):
    w = [0.2 * normals(2, 3, seed=i) for i in range(3)]

    def end(x, a):
        sde = Field(sdekit.make_sde(lambda t, x: -a * x, lambda t, x: torch.sin(a * x) + t, sde_type="stratonovich"))
        state = None
        for i in range(3):
            x, _, state = sdekit.solvers.get(name).step(sde, i / 10, (i + 1) / 10, x, Increments(w[i]), state)
        return x

    x, a = normals(2, 3).requires_grad_(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (x, a))


def test_tableaus_check_themselves():
    table = StochasticHeun.tableau
    for change in ({"b": (0.5, 0.4)}, {"bw": (1.0, 0.5)}, {"bh": (0.0, 0.1)}, {"a": ((), ())}, {"c": (0.0,)}):
        with pytest.raises(OptionError, match="tableau"):
            dataclasses.replace(table, **change)
    assert [s.drift for s in table.recipe.stages] == [True, True]
    assert [s.drift for s in EulerHeun.tableau.recipe.stages] == [True, False]
    assert [s.kick for s in StochasticMidpoint.tableau.recipe.stages] == [True, True]
    assert not any(s.area for s in table.recipe.stages)


# Planted mistakes.


class ItoAsItStands(StochasticHeun):
    """Steps an Ito SDE without the correction."""

    calculus: ClassVar[str] = "ito"


class EulerInNoise(PathRungeKutta):
    """The trapezoidal rule in the drift alone."""

    declared = StochasticHeun.declared
    tableau: ClassVar[PathTableau] = dataclasses.replace(StochasticHeun.tableau, bw=(1.0, 0.0))


class MidpointAtTheEnd(StochasticMidpoint):
    """The inner stage at t instead of the middle: the weak order of the noise's time, and order 2 of the drift."""

    tableau: ClassVar[PathTableau] = dataclasses.replace(StochasticMidpoint.tableau, c=(0.0, 1.0))


class Forgetful(ReversibleHeun):
    """Keeps z, but not the sign that its gap to x must take."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        new, _, there = super().step(dynamics, t0, t1, x, increments, state)
        return StepResult(new, None, there._replace(z=2 * new - there.z))


@pytest.mark.parametrize(
    "mutant, problem, most",
    [
        (ItoAsItStands(), "diagonal", 0.3),
        (EulerInNoise(), "diagonal", 0.3),
        (Forgetful(), "commutative", 0.8),
    ],
)
def test_mistakes_are_seen(mutant: Any, problem: str, most: float):
    found = observed_order(mutant, "strong", SDES[problem], steps=(8, 16, 32))
    assert found.value < most, str(found)


def test_a_wrong_stage_time_is_seen():
    """In the order of the underlying method, and in weak order 2."""
    assert observed_order(MidpointAtTheEnd(), steps=(20, 40, 80)).value < 1.3
    late = dataclasses.replace(StochasticHeun.tableau, c=(0.0, 0.5))
    wrong = type("Wrong", (StochasticHeun,), {"tableau": late})()
    assert observed_order(wrong, "weak", POLYNOMIALS["additive"]).value < 1.3
