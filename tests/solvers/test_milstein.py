"""Milstein's methods: orders on every class of noise that they take, closed forms, calls, and what would spoil them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.solvers import NoiseOrder, Order, StepResult
from sdekit.solvers.base import Increments
from sdekit.solvers.milstein import Milstein, StratonovichMilstein
from sdekit.testing import observed_order
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.sde_path import SampledPath
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.subject import Field

F64 = torch.float64
SDES, POLYNOMIALS = sde_problems(), polynomial_problems()
NAMES = ("milstein", "milstein_stratonovich")


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def one_step(solver: Any, sde: Any, x: torch.Tensor, w: torch.Tensor, t0: float = 0.3, t1: float = 0.4) -> torch.Tensor:
    return solver.step(Field(sde), t0, t1, x, Increments(w), None)[0]


CASES = [
    ("milstein", "", "diagonal", "automatic"),
    ("milstein", ", down", "diagonal", "free"),
    ("milstein", "", "commutative", "free"),
    ("milstein_stratonovich", ", down", "diagonal", "free"),
    ("milstein_stratonovich", "", "commutative", "automatic"),
]
FEW = (8, 16, 32)


@pytest.mark.parametrize("name, way, noise, derivative", CASES)
def test_strong_order_one(name: str, way: str, noise: str, derivative: str):
    solver = sdekit.solvers.get(name, derivative=derivative)
    found = observed_order(solver, "strong", SDES[noise + way], steps=FEW)
    assert found.declared == 1 and 0.85 <= found.value <= 1.25, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("derivative", ["automatic", "free"])
@pytest.mark.parametrize("way", ["", ", down"])
@pytest.mark.parametrize("noise", ["additive", "scalar", "diagonal", "commutative", "geometric"])
@pytest.mark.parametrize("name", NAMES)
def test_strong_order_one_everywhere(name: str, noise: str, way: str, derivative: str):
    solver = sdekit.solvers.get(name, derivative=derivative)
    found = observed_order(solver, "strong", SDES[noise + way], steps=(16, 32, 64, 128))
    assert found.declared == 1 and 0.85 <= found.value <= 1.2, str(found)


@pytest.mark.parametrize("problem", ["scalar", "diagonal, down", "commutative", "additive, down"])
@pytest.mark.parametrize("name", NAMES)
def test_weak_order_one(name: str, problem: str):
    """The moments of one step, without sampling."""
    found = observed_order(name, "weak", POLYNOMIALS[problem])
    assert found.declared == 1 and abs(found.value - 1) <= 0.3, str(found)


def test_by_hand():
    """dx = mu x dt + s x dW in either calculus, and each way to the derivative."""
    mu, s, h = 0.3, 0.5, 0.1
    x, w = 1 + normals(5, 3), math.sqrt(h) * normals(5, 3, seed=1)
    ito = sdekit.GeometricBrownianMotion(mu, s)
    plain = sdekit.make_sde(lambda t, x: mu * x, lambda t, x: s * x, sde_type="stratonovich")
    for t1 in (0.4, 0.2):
        step = t1 - 0.3
        for how in ("automatic", "given", "free"):  # the quotient is exact where g is linear
            found = one_step(Milstein(how), ito, x, w, t1=t1)
            torch.testing.assert_close(found, x * (1 + mu * step + s * w + s * s / 2 * (w * w - h)))
        for how in ("automatic", "free"):
            found = one_step(StratonovichMilstein(how), plain, x, w, t1=t1)
            torch.testing.assert_close(found, x * (1 + mu * step + s * w + s * s / 2 * w * w))


@pytest.mark.parametrize("name", NAMES)
def test_diagonal_noise_is_general_noise_with_a_diagonal_matrix(name: str):
    def g(t, x):
        return 0.5 + 0.3 * torch.sin(x + t)

    x, w = normals(4, 3), 0.2 * normals(4, 3, seed=1)
    calculus: Any = sdekit.solvers.get(name).calculus
    diagonal = sdekit.make_sde(lambda t, x: -x, g, sde_type=calculus)
    general = sdekit.make_sde(
        lambda t, x: -x, lambda t, x: torch.diag_embed(g(t, x)), "general", calculus, commutative=True
    )
    for how in ("automatic", "free"):
        solver = sdekit.solvers.get(name, derivative=how)
        torch.testing.assert_close(one_step(solver, general, x, w), one_step(solver, diagonal, x, w))


def test_both_calculi_have_one_limit():
    """An Ito SDE by Milstein's method, and by a Stratonovich method after conversion, on one path."""
    problem, gaps = SDES["diagonal, down"], []
    x = problem.start(200)
    for steps in (8, 32):
        times = problem.grid("uniform", steps)
        path = SampledPath(problem.grid("uniform", 32), 200, 2)
        ends = [
            sdekit.solve(problem.sde, x, times, n, noise=path.noise(times)).x
            for n in ("milstein", "milstein_stratonovich", "stochastic_heun")
        ]
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)  # the same step, written in two ways
        gaps.append(float((ends[0] - ends[2]).square().mean().sqrt()))
    assert gaps[0] / gaps[1] > 3, gaps


def test_ode_and_additive_noise_leave_euler():
    ode = sdekit.make_ode(lambda t, x: torch.sin(x) * t)
    x = normals(4, 2)
    for name in NAMES:
        found = sdekit.solve(ode, x, [0.0, 1.0], name, steps=7).x
        assert torch.equal(found, sdekit.solve(ode, x, [0.0, 1.0], "euler", steps=7).x)
        sde = SDES["additive"].sde
        found = sdekit.solve(sde, x, [0.3, 1.2], name, steps=7, seed=3).x
        assert torch.equal(found, sdekit.solve(sde, x, [0.3, 1.2], "euler_maruyama", steps=7, seed=3).x)


class Counting(sdekit.SDE):
    """Counts its calls; g is made by NumPy, which torch cannot differentiate."""

    def __init__(self) -> None:
        self.calls = {"drift": 0, "diffusion": 0, "derivative": 0}

    def drift(self, t, x):
        self.calls["drift"] += 1
        return -x

    def diffusion(self, t, x):
        self.calls["diffusion"] += 1
        return torch.from_numpy(np.sin(x.numpy()))

    def diffusion_derivative(self, t, x):
        self.calls["derivative"] += 1
        return torch.from_numpy(np.cos(x.numpy()))


def test_given_derivatives_need_no_automatic_ones():
    sde, x = Counting(), normals(4, 2)
    found = sdekit.solve(sde, x, [0.0, 1.0], Milstein("given"), steps=5, seed=0).x
    assert sde.calls == {"drift": 5, "diffusion": 5, "derivative": 5}
    torched = sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.sin(x))
    torch.testing.assert_close(found, sdekit.solve(torched, x, [0.0, 1.0], "milstein", steps=5, seed=0).x)
    with pytest.raises(InterfaceError, match="cannot be differentiated"):
        sdekit.solve(sde, x, [0.0, 1.0], "milstein", steps=5, seed=0)


def test_a_given_derivative_survives_conversion():
    class Given(sdekit.SDE):
        sde_type = "stratonovich"

        def drift(self, t, x):
            return -x

        def diffusion(self, t, x):
            return torch.sin(x)

        def diffusion_derivative(self, t, x):
            return torch.cos(x)

    x = normals(4, 2)
    ends = [sdekit.solve(Given(), x, [0.0, 1.0], Milstein(how), steps=5, seed=0).x for how in ("given", "automatic")]
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("derivative, first, later", [("automatic", 4, 1), ("free", 2, 2)])
def test_diffusions_a_step(derivative: str, first: int, later: int):
    """The first step looks at g three times more, for what automatic differentiation would miss."""
    calls = [0]

    def g(t, x):
        calls[0] += 1
        return torch.sin(x)

    sde = sdekit.make_sde(lambda t, x: -x, g)
    sdekit.solve(sde, normals(4, 2), [0.0, 1.0], Milstein(derivative), steps=6, seed=0)
    assert calls[0] <= first + 5 * later + 1, calls


def test_what_is_refused():
    x = normals(4, 2)

    def run(diffusion, solver, **options):
        sde = sdekit.make_sde(lambda t, x: -x, diffusion, **options)
        return sdekit.solve(sde, x, [0.0, 1.0], solver, steps=3, seed=0)

    with pytest.raises(OptionError, match="'automatic' or 'given' or 'free'"):
        Milstein("numerical")
    with pytest.raises(InterfaceError, match=r"no method diffusion_derivative.*automatic"):
        run(lambda t, x: x, Milstein("given"))
    column = {"noise_type": "general", "commutative": True}
    with pytest.raises(InterfaceError, match="'given' for general noise"):
        run(lambda t, x: x[..., None], Milstein("given"), **column)
    with pytest.raises(InterfaceError, match="derivative is zero throughout"):
        run(lambda t, x: x.detach(), "milstein")
    with pytest.raises(InterfaceError, match="several coordinates"):
        run(lambda t, x: x.flip(1), "milstein")
    with pytest.raises(SolverMismatchError, match=r"general noise.*euler_heun"):
        run(lambda t, x: torch.ones(4, 2, 2, dtype=F64), "milstein", noise_type="general")


def test_gradients_pass_through_a_step():
    w = 0.2 * normals(3, 2, seed=1)

    def end(x, a, how):
        sde = sdekit.make_sde(lambda t, x: -a * x, lambda t, x: torch.sin(a * x) + 1)
        return one_step(Milstein(how), sde, x, w)

    x, a = normals(3, 2).requires_grad_(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    for how in ("automatic", "free"):
        assert torch.autograd.gradcheck(lambda x, a, how=how: end(x, a, how), (x, a))


# Planted mistakes. Each is one that the tests above must tell from the method.


class NoCorrection(Milstein):
    """An Ito SDE stepped as if it were a Stratonovich one."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        return StratonovichMilstein("free").step(dynamics, t0, t1, x, increments, state)


class SignedLength(Milstein):
    """W^2 - h with the sign of h."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        new, error, state = super().step(dynamics, t0, t1, x, increments, state)
        noise = dynamics.local_noise(t0, x)
        return StepResult(new + 0.5 * (abs(t1 - t0) - (t1 - t0)) * noise.correction(), error, state)


class ByRoot(StratonovichMilstein):
    """The quotient of Ito's form with W^2 in place of W^2 - |h|: its remainder does not average out."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        h, w, root = t1 - t0, increments.W, math.sqrt(abs(t1 - t0))
        f, g = dynamics.drift(t0, x), dynamics.diffusion(t0, x)
        moved = dynamics.diffusion(t0, x + h * f + root * g)
        return StepResult(x + h * f + g * w + (moved - g) * w * w / (2 * root))


class Transposed(StratonovichMilstein):
    """Each column along itself only."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        h, w = t1 - t0, increments.W
        noise = dynamics.local_noise(t0, x)
        own = [noise.along(noise.g[..., k])[..., k] * w[:, k : k + 1] ** 2 for k in range(w.shape[1])]
        return StepResult(x + h * dynamics.drift(t0, x) + dynamics.product(noise.g, w) + 0.5 * sum(own))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mutant, problem, most",
    [
        (NoCorrection(), "diagonal", 0.3),
        (NoCorrection(), "commutative", 0.3),
        (SignedLength(), "diagonal, down", 0.3),
        (ByRoot(), "diagonal", 0.8),
        (Transposed(), "commutative", 0.8),
    ],
)
def test_mistakes_are_seen(mutant: Any, problem: str, most: float):
    found = observed_order(mutant, "strong", SDES[problem], steps=None if most > 0.5 else FEW)
    assert found.value < most, str(found)


def test_declared():
    for name in NAMES:
        order = sdekit.solvers.info(name).order
        assert isinstance(order, Order) and order.on(("diagonal", "commutative", "general")) == NoiseOrder(1, 1)
        assert order.on(("general",)) is None
        assert sdekit.solvers.info(name).needs.startswith("any SDE with additive or scalar or diagonal or commutative")
