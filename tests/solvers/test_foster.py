"""SEA, SlowRK, SPaRK and the general ShARK: orders, special cases, the estimate of SPaRK, and what would spoil them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError
from sdekit.solvers.base import Increments
from sdekit.solvers.foster import SEA, GeneralShARK, SlowRK, SPaRK
from sdekit.solvers.path_runge_kutta import PathRungeKutta, PathTableau
from sdekit.testing import observed_order
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.subject import Field

F64 = torch.float64
SDES, POLYNOMIALS = sde_problems(), polynomial_problems()
NAMES = ("slowrk", "spark", "shark_general")
FEW = (8, 16, 32)


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def increments(x: torch.Tensor, h: float = 0.1) -> Any:
    w, area = normals(*x.shape, seed=1), normals(*x.shape, seed=2)
    return Increments(math.sqrt(h) * w, math.sqrt(h / 12) * area)


CASES = [
    *(("sea", "additive"), ("slowrk", "additive, down"), ("spark", "additive"), ("shark_general", "additive, down")),
    *(
        ("slowrk", "diagonal"),
        ("slowrk", "commutative, down"),
        ("spark", "diagonal, down"),
        ("shark_general", "diagonal"),
    ),
]


@pytest.mark.parametrize("name, problem", CASES)
def test_strong_order(name: str, problem: str):
    found = observed_order(name, "strong", SDES[problem], steps=FEW)
    assert found.reaches() and found.value <= found.declared + 0.4, str(found)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", ", down"])
@pytest.mark.parametrize("noise", ["additive", "scalar", "diagonal", "commutative", "general", "geometric"])
@pytest.mark.parametrize("name", NAMES)
def test_strong_order_everywhere(name: str, noise: str, way: str):
    found = observed_order(name, "strong", SDES[noise + way], steps=(32, 64, 128, 256))
    assert found.reaches() and found.value <= found.declared + 0.25, str(found)  # type: ignore[operator]


@pytest.mark.parametrize("problem", ["additive", "commutative, down"])
@pytest.mark.parametrize("name", NAMES)
def test_weak_order(name: str, problem: str):
    found = observed_order(name, "weak", POLYNOMIALS[problem])
    assert found.reaches() and found.value <= found.declared + 0.3, str(found)  # type: ignore[operator]


def test_by_hand():
    """dx = a x dt + s x dW (Stratonovich): one step is a polynomial of u = a h, v = s W and k = s H."""
    a, s = 0.3, 0.5
    x = 1 + normals(5, 1)
    noise = increments(x)
    field = Field(sdekit.make_sde(lambda t, x: a * x, lambda t, x: s * x, sde_type="stratonovich"))
    for h in (0.1, -0.1):
        u, v, k = a * h, s * noise.W, s * noise.H
        y = 1 + u / 2
        k1 = y * v
        k2 = (y + k1 / 2) * v
        k3 = (y + k2 / 2) * v
        k4 = (y + k3) * v
        inner = 1 + 0.75 * u + 0.75 * k3 + 1.5 * (y + k2 / 2) * k
        slow = (
            1 + u / 3 + 2 / 3 * u * inner + (k1 + 2 * k2 + 2 * k3 + k4) / 6 + 2 * ((y + k2 / 2) - (1 + u + k2 / 2)) * k
        )
        p, q = (3 - math.sqrt(3)) / 6, math.sqrt(3) / 3
        second = 1 + (u + v) / 2 + math.sqrt(3) * k
        third = 1 + (u + v) * second
        split = 1 + (u + v) * (p + q * second + p * third) + (1 - third) * k
        shifted = 1 + k
        last = shifted + 5 / 6 * (u + v) * shifted
        shark = 1 + (u + v) * (0.4 * shifted + 0.6 * last) + 1.2 * (shifted - last) * k
        for solver, factor in ((SlowRK(), slow), (SPaRK(), split), (GeneralShARK(), shark)):
            torch.testing.assert_close(solver.step(field, 0.5, 0.5 + h, x, noise, None)[0], x * factor)


def test_additive_noise_by_hand():
    """dx = f(t, x) dt + g(t) dW: what the methods are there."""
    x, t0, h = normals(4, 2), 0.3, 0.1
    noise = increments(x)

    def f(t, x):
        return torch.sin(x + t)

    def g(t):
        return 0.5 + t * t

    sde = sdekit.make_sde(f, lambda t, x: g(t) * torch.ones_like(x), additive=True)
    w, a = noise.W, noise.H
    for t1 in (t0 + h, t0 - h):
        step = t1 - t0
        ends = (g(t0) + g(t1)) / 2 * w + (g(t0) - g(t1)) * a  # type: ignore[operator]
        shifted = x + step * f(t0 + step / 2, x + g(t0) * (w / 2 + a)) + ends  # type: ignore[operator]
        torch.testing.assert_close(SEA().step(Field(sde), t0, t1, x, noise, None)[0], shifted)
        # With g fixed the general method is the one for additive noise.
        still = sdekit.make_sde(f, lambda t, x: 0.7 * torch.ones_like(x), additive=True)
        pair = [sdekit.solvers.get(n).step(Field(still), t0, t1, x, noise, None)[0] for n in ("shark", "shark_general")]
        torch.testing.assert_close(*pair)


def test_general_noise_is_noise_of_any_shape():
    """A diagonal matrix does what diagonal noise does."""
    x = normals(4, 3)
    noise = increments(x)

    def g(t, x):
        return 0.5 + 0.3 * torch.sin(x + t)

    diagonal = sdekit.make_sde(lambda t, x: -x, g, sde_type="stratonovich")
    general = sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.diag_embed(g(t, x)), "general", "stratonovich")
    for name in NAMES:
        ends = [sdekit.solvers.get(name).step(Field(s), 0.3, 0.4, x, noise, None)[0] for s in (diagonal, general)]
        torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    "name, drifts, diffusions", [("sea", 1, 2), ("slowrk", 2, 5), ("spark", 3, 3), ("shark_general", 2, 3)]
)
def test_calls_a_step(name: str, drifts: int, diffusions: int):
    """And two of the diffusion at the start, which try whether it ignores x."""
    calls = [0, 0]

    def drift(t, x):
        calls[0] += 1
        return -x

    def diffusion(t, x):
        calls[1] += 1
        return torch.ones_like(x)

    sde = sdekit.make_sde(drift, diffusion, additive=True)
    out = sdekit.solve(sde, normals(3, 2), [0.0, 1.0], name, steps=5, seed=0)
    assert calls == [5 * drifts, 2 + 5 * diffusions] and out.nfe.tolist() == [5 * drifts] * 3
    assert sdekit.solvers.get(name).uses_area and sdekit.solvers.info(name).nfe_per_step == drifts


def test_the_estimate_of_spark_is_a_difference_of_two_methods():
    """The trapezoidal rule on the first and last stage is the other; on an ODE the estimate is of order h^3."""
    sde = SDES["diagonal"].form("stratonovich")
    x = SDES["diagonal"].start(64)
    sizes = []
    for h in (0.1, 0.025):
        noise = increments(x, h)
        new, error, _ = SPaRK().step(Field(sde), 0.3, 0.3 + h, x, noise, None)
        f, t = Field(sde), 0.3
        y2 = x + (h * f.drift(t, x) + f.diffuse(t, x, noise.W)) / 2 + math.sqrt(3) * f.diffuse(t, x, noise.H)  # type: ignore[arg-type]
        m = t + h / 2
        y3 = x + h * f.drift(m, y2) + f.diffuse(m, y2, noise.W)
        plain = (
            x
            + (h * (f.drift(t, x) + f.drift(t + h, y3)) + f.diffuse(t, x, noise.W) + f.diffuse(t + h, y3, noise.W)) / 2
        )
        torch.testing.assert_close(error, new - plain)
        sizes.append(float(error.square().mean().sqrt()))  # type: ignore[union-attr]
    assert 2 <= math.log(sizes[0] / sizes[1], 2) / 2 * 2 <= 4, sizes  # about h, of noise, over a factor 4
    ode = Field(sdekit.make_ode(lambda t, x: torch.sin(x + t)))
    small = [float(SPaRK().step(ode, 0.3, 0.3 + h, x, None, None)[1].norm()) for h in (0.1, 0.05)]  # type: ignore[union-attr]
    assert 2.7 <= math.log2(small[0] / small[1]) <= 3.3


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_through_a_step(name: str):
    noise = increments(normals(2, 3))

    def end(x, a):
        sde = sdekit.make_sde(lambda t, x: -a * x, lambda t, x: torch.sin(a * x) + t, sde_type="stratonovich")
        return sdekit.solvers.get(name).step(Field(sde), 0.3, 0.4, x, noise, None)[0]

    x, a = normals(2, 3).requires_grad_(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (x, a))


def test_a_missing_area_is_told():
    sde = Field(SDES["additive"].sde)
    for name in ("sea", *NAMES):
        with pytest.raises(InterfaceError, match="no space-time Levy area"):
            sdekit.solvers.get(name).step(sde, 0.3, 0.4, normals(3, 2), Increments(normals(3, 2)), None)


# Planted mistakes.


def mutant(base: type[PathRungeKutta], **change: Any) -> PathRungeKutta:
    table: PathTableau = dataclasses.replace(base.tableau, **change)
    return type("Mutant", (base,), {"tableau": table})()


class Swapped(SEA):
    """H of the other sign."""

    def step(self, dynamics, t0, t1, x, increments: Any, state):
        return super().step(dynamics, t0, t1, x, increments._replace(H=-increments.H), state)


class ItoAsItStands(SlowRK):
    """Steps an Ito SDE without the correction."""

    calculus: ClassVar[str] = "ito"


def negative(rows: Any) -> Any:
    return tuple(tuple(-v for v in row) for row in rows)


@pytest.mark.parametrize(
    "solver, problem, most",
    [
        (ItoAsItStands(), "diagonal", 0.3),
        (mutant(SlowRK, bh=tuple(-v for v in SlowRK.tableau.bh), h=negative(SlowRK.tableau.h)), "diagonal", 1.4),
        (mutant(SlowRK, h=negative(SlowRK.tableau.h)), "additive", 1.4),
        (mutant(SlowRK, c=(0.0, 0.5, 0.5, 0.5, 0.5, 0.75, 0.5)), "additive", 1.4),
        (mutant(SPaRK, bh=(-1.0, 0.0, 1.0)), "additive", 1.4),
        (mutant(SPaRK, c=(0.0, 0.5, 0.5)), "additive", 1.4),
        (mutant(GeneralShARK, h=((), (-1.0,), (-1.0, 0.0))), "additive", 1.4),
        (mutant(GeneralShARK, c=(0.0, 0.0, 1.0)), "additive", 1.4),
    ],
)
def test_mistakes_are_seen(solver: Any, problem: str, most: float):
    found = observed_order(solver, "strong", SDES[problem], steps=FEW)
    assert found.value < most, str(found)


def test_a_shift_to_the_wrong_side_is_seen():
    """SEA keeps order 1, but is three times as far off."""
    right, wrong = (observed_order(s, "strong", SDES["additive"], steps=FEW).errors[-1] for s in (SEA(), Swapped()))
    assert wrong > 1.5 * right
