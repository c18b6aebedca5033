"""Stochastic Runge-Kutta steppers: against the formulas written out, torchsde, and Taylor's scheme of strong order 3/2.

Local errors are taken over all (W, H) of a step by Gauss-Hermite quadrature, without sampling. By the theorem of
Milstein (Theor. Prob. Appl. 32, 1988), a one-step error of order 2 in mean square and at least 5/2 in the mean gives
strong order 3/2; one in the mean of any smooth function of order q + 1 gives weak order q.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad

import sdekit
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.solvers import Increments, stochastic_tableau
from sdekit.solvers.srk import StochasticRungeKutta
from tests.solvers.test_stochastic_tableaus import CALLS, square

F64 = torch.float64
SRA, SRI = ("sra2", "sra3", "sosra", "sosra2"), ("sriw1", "sriw2", "sosri", "sosri2")
Function = Callable[[Any, Any], Any]


class Field:
    """Drift and diffusion as a stepper sees them, with counted calls."""

    def __init__(self, drift: Function, diffusion: Function, noise_type: str = "diagonal") -> None:
        self.functions, self.noise_type = (drift, diffusion), noise_type
        self.calls = [0, 0]

    def drift(self, t: float, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return self.functions[0](torch.full_like(x, t), x)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return self.functions[1](torch.full_like(x, t), x)

    def diffuse(self, t: float, x: Tensor, w: Tensor) -> Tensor:
        return self.product(self.diffusion(t, x), w)

    def product(self, g: Tensor, w: Tensor) -> Tensor:
        return g * w


def bent(t: Tensor, x: Tensor) -> Tensor:
    return torch.sin(2 * x + t) + 0.3 * x * torch.cos(3 * t) - 0.2


def noisy(t: Tensor, x: Tensor) -> Tensor:
    return 0.6 + 0.5 * torch.sin(x + 2 * t)


def additive(t: Tensor, x: Tensor) -> Tensor:
    return 0.8 + 0.5 * torch.sin(2 * t) + 0 * x


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def written_out(
    tableau: Any, drift: Function, diffusion: Function, t0: float, t1: float, x: Tensor, w: Tensor, area: Tensor
) -> tuple[Any, Any, Any]:
    """x_1, E_D and E_N of Roessler's formulas, nothing left out; diagonal noise, or one motion for all coordinates."""
    h, length, n = t1 - t0, abs(t1 - t0), len(tableau.alpha)
    sri = isinstance(tableau, stochastic_tableau.SRITableau)
    a0, b0 = square(tableau.a0), square(tableau.b0)
    a1, b1 = (square(tableau.a1), square(tableau.b1)) if sri else (np.zeros((n, n)),) * 2
    zero = (0.0,) * n
    betas = (
        (tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4)
        if sri
        else (tableau.beta1, zero, tableau.beta2, zero)
    )
    i10, i11, i111 = length * (w / 2 + area), (w**2 - length) / 2, (w**3 - 3 * length * w) / 6
    variables = (w, i11 / length**0.5, i10 / length, i111 / length)
    f: list[Tensor] = []
    g: list[Tensor] = []
    for i in range(n):
        u = x + sum(h * a0[i, j] * f[j] + i10 / length * b0[i, j] * g[j] for j in range(i))
        v = x + sum(h * a1[i, j] * f[j] + length**0.5 * b1[i, j] * g[j] for j in range(i))
        f.append(drift(torch.full_like(x, t0 + tableau.c0[i] * h), u))
        g.append(diffusion(torch.full_like(x, t0 + tableau.c1[i] * h), v))
    mean = sum(h * tableau.alpha[i] * f[i] for i in range(n))
    parts = [sum(betas[k][i] * variables[k] * g[i] for i in range(n)) for k in range(4)]
    return x + mean + sum(parts), mean - h * f[0], parts[2] + parts[3]


@pytest.mark.parametrize("t0, t1", [(0.3, 0.39), (0.5, 0.38)])
@pytest.mark.parametrize("name", [*SRA, *SRI])
def test_a_step_is_the_formula(name: str, t0: float, t1: float) -> None:
    """For diagonal noise, upwards and downwards in time: the new state, the estimate, and the calls."""
    solver, g = sdekit.solvers.get(name), additive if name in SRA else noisy
    x, w, area, field = draws(50, 3), 0.3 * draws(50, 3, seed=1), 0.1 * draws(50, 3, seed=2), Field(bent, g)
    result = solver.step(field, t0, t1, x, Increments(w, area), None)
    expected, drift_part, noise_part = written_out(solver.tableau, bent, g, t0, t1, x, w, area)
    torch.testing.assert_close(result.x, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.error, drift_part.abs() + noise_part.abs(), rtol=0, atol=1e-14)
    assert tuple(field.calls) == CALLS[name]


@pytest.mark.parametrize("name", SRI)
def test_one_motion_for_all_coordinates(name: str) -> None:
    """General noise of one column, on states of any rank."""
    solver = sdekit.solvers.get(name)
    for shape in ((5,), (5, 2), (5, 2, 3)):
        x, w, area = draws(*shape), 0.3 * draws(5, 1, seed=1), 0.1 * draws(5, 1, seed=2)
        field = Field(bent, lambda t, x: noisy(t, x)[..., None], "general")
        found = solver.step(field, 0.3, 0.4, x, Increments(w, area), None).x
        wide, broad = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (w, area))
        expected, _, _ = written_out(solver.tableau, bent, noisy, 0.3, 0.4, x, wide, broad)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [*SRA, *SRI])
def test_additive_noise_of_several_columns(name: str) -> None:
    """A diagonal matrix gives what diagonal noise does; in rotated motions, the same for rotated increments."""
    solver, x, w, area = sdekit.solvers.get(name), draws(5, 3), 0.3 * draws(5, 3, seed=1), 0.1 * draws(5, 3, seed=2)
    turn = torch.linalg.qr(draws(3, 3, seed=3))[0]
    plain = solver.step(Field(bent, additive), 0.5, 0.38, x, Increments(w, area), None)
    matrix = Field(bent, lambda t, x: torch.diag_embed(additive(t, x)) @ turn, "general")
    turned = solver.step(matrix, 0.5, 0.38, x, Increments(w @ turn, area @ turn), None)
    assert solver.needs == "additive" or "commutative" not in solver.declared.noise
    if name in SRA:
        torch.testing.assert_close(turned.x, plain.x, rtol=0, atol=1e-14)
        torch.testing.assert_close(turned.error, plain.error, rtol=0, atol=1e-14)
    else:  # powers of W do not turn with it; their weights are those of derivatives of g in time, of order h^2
        assert float((turned.x - plain.x).abs().max()) < 0.12**1.5
    assert tuple(matrix.calls) == CALLS[name]


def test_a_number_as_diffusion() -> None:
    """Scalar noise () stands for the same in each coordinate."""
    x, w, area = draws(5, 3), 0.3 * draws(5, 3, seed=1), 0.1 * draws(5, 3, seed=2)
    for name in (*SRA, *SRI):
        solver = sdekit.solvers.get(name)
        number = Field(bent, lambda t, x: additive(t, x)[0, 0], "scalar")
        results = [solver.step(f, 0.3, 0.4, x, Increments(w, area), None).x for f in (number, Field(bent, additive))]
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-15)


def test_sra1_has_the_numbers_of_its_tableau() -> None:
    class FromTableau(StochasticRungeKutta):
        tableau: ClassVar[Any] = stochastic_tableau.SRA1

    x, w, area = draws(5, 3), 0.3 * draws(5, 3, seed=1), 0.1 * draws(5, 3, seed=2)
    for t0, t1 in ((0.3, 0.4), (0.5, 0.38)):
        own, other = (
            solver.step(Field(bent, additive), t0, t1, x, Increments(w, area), None).x
            for solver in (sdekit.solvers.get("sra1"), FromTableau())
        )
        torch.testing.assert_close(own, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name, method", [("sriw2", "diagonal_or_scalar_step"), ("sra1", "additive_step")])
def test_torchsde_takes_the_same_step(name: str, method: str) -> None:
    """Its srk, which calls drift and diffusion ten times each where ours calls them three and four times."""
    srk: Any = importlib.import_module("torchsde._core.methods.srk").SRK
    x, w, area = draws(5, 3), 0.3 * draws(5, 3, seed=1), 0.1 * draws(5, 3, seed=2)
    t0, t1 = torch.tensor(0.3, dtype=F64), torch.tensor(0.4, dtype=F64)
    g = noisy if name == "sriw2" else additive
    field = Field(bent, g)
    theirs = SimpleNamespace(
        f=lambda t, x: field.drift(float(t), x),
        g=lambda t, x: field.diffusion(float(t), x),
        g_prod=lambda t, x, v: field.diffusion(float(t), x) * v,
    )
    path = lambda t0, t1, return_U: (w, (t1 - t0) * (w / 2 + area))  # noqa: E731
    expected = getattr(srk, method)(SimpleNamespace(sde=theirs, bm=path), t0, t1, x, ())[0]
    found = sdekit.solvers.get(name).step(Field(bent, g), 0.3, 0.4, x, Increments(w, area), None).x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    if name == "sriw2":
        assert field.calls == [10, 10] and CALLS[name] == (3, 4)


# Local errors.


def generator(u: Function, a: Function, b: Function) -> Function:
    """L u = u_t + a u_x + b^2 u_xx / 2."""
    ut, ux = grad(u, 0), grad(u, 1)
    uxx = grad(ux, 1)
    return lambda t, x: ut(t, x) + a(t, x) * ux(t, x) + 0.5 * b(t, x) ** 2 * uxx(t, x)


def along(u: Function, b: Function) -> Function:
    """b u_x."""
    ux = grad(u, 1)
    return lambda t, x: b(t, x) * ux(t, x)


TESTED: tuple[Function, ...] = (
    lambda t, x: x,
    lambda t, x: x * x,
    lambda t, x: x**3,
    lambda t, x: torch.sin(1.3 * x),
    lambda t, x: torch.cos(x),
)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Drift and diffusion at a point, their derivatives along the solution, and those of means of TESTED in time."""

    x: float
    taylor: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]

    def path(self, h: float, w: Tensor, area: Tensor) -> Tensor:
        """The Ito-Taylor scheme of strong order 3/2 (Kloeden and Platen, section 10.4)."""
        i10 = h * (w / 2 + area)
        terms = (h, w, (w**2 - h) / 2, i10, h * w - i10, h**2 / 2, (w**3 - 3 * h * w) / 6)
        return self.x + torch.stack([v * term + 0 * w for v, term in zip(self.taylor, terms, strict=True)]).sum(0)

    def law(self, h: float) -> list[float]:
        """The means of TESTED after h, to order 3."""
        return [sum(v * h**k / math.factorial(k) for k, v in enumerate(row)) for row in self.means]


@functools.cache
def exact(g: Function, down: bool, t: float, x: float) -> Exact:
    """Downwards in time, in r = -t."""
    a, b = (lambda r, x: -bent(-r, x), lambda r, x: g(-r, x)) if down else (bent, g)
    point = torch.tensor(-t if down else t, dtype=F64), torch.tensor(x, dtype=F64)
    bb = along(b, b)
    terms = (a, b, bb, along(a, b), generator(b, a, b), generator(a, a, b), along(bb, b))
    means = []
    for u in TESTED:
        row = [u]
        for _ in range(3):
            row.append(generator(row[-1], a, b))
        means.append(tuple(float(v(*point)) for v in row))
    return Exact(x, tuple(float(v(*point)) for v in terms), tuple(means))


STARTS = ((0.3, 0.4), (0.7, -0.5), (1.1, 1.3), (1.5, 2.2))  # an error at one of them alone may cross zero


def errors(solver: StochasticRungeKutta, g: Function, down: bool, t: float, x: float, h: float) -> list[Any]:
    """Of one step: the mean error, its mean square, the errors of the means of TESTED, the mean squared estimate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    z = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2), dtype=F64)
    p = torch.tensor(np.outer(weights, weights).ravel() / weights.sum() ** 2, dtype=F64)
    w, area, truth = z[:, 0] * h**0.5, z[:, 1] * (h / 12) ** 0.5, exact(g, down, t, x)
    start, increments = torch.full((len(z), 1), x, dtype=F64), Increments(w[:, None], area[:, None])
    step = solver.step(Field(bent, g), t, t - h if down else t + h, start, increments, None)
    end, off, error = step.x[:, 0], step.x[:, 0] - truth.path(h, w, area), step.error
    assert error is not None
    law = [float((p * u(0, end)).sum()) - v for u, v in zip(TESTED, truth.law(h), strict=True)]
    return [float((p * off).sum()), float((p * off**2).sum()), law, float((p * error[:, 0] ** 2).sum())]


def slopes(solver: StochasticRungeKutta, g: Function, down: bool) -> dict[str, float]:
    """Orders in h of one-step errors, between h = 1/160 and 1/320: in the mean, in mean square, in law, estimated."""
    found = []
    for h in (1 / 160, 1 / 320):
        means, squares, laws, estimates = zip(*(errors(solver, g, down, t, x, h) for t, x in STARTS), strict=True)
        found.append(
            (math.hypot(*means), sum(squares) ** 0.5, math.hypot(*itertools.chain(*laws)), sum(estimates) ** 0.5)
        )
    return {name: math.log2(a / b) for name, a, b in zip(("mean", "rms", "law", "estimate"), *found, strict=True)}


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("noise", ["additive", "diagonal"])
@pytest.mark.parametrize("name", [*SRA, *SRI])
def test_local_errors_are_those_of_the_declared_orders(name: str, noise: str, down: bool) -> None:
    if name in SRA and noise == "diagonal":
        assert "diagonal" not in sdekit.solvers.get(name).declared.noise
        return
    solver = sdekit.solvers.get(name)
    declared = solver.declared.noise[noise]
    found = slopes(solver, additive if noise == "additive" else noisy, down)
    assert (declared.strong, declared.weak) == (1.5, 2 if noise == "additive" else 1.5)
    assert found["rms"] == pytest.approx(declared.strong + 0.5, abs=0.12), found
    assert found["mean"] > declared.strong + 1 - 0.1, found
    assert found["law"] > declared.weak + 1 - 0.15, found
    assert found["estimate"] == pytest.approx(1.5, abs=0.1), found


def test_weak_order_three_halves_is_the_limit_for_diagonal_noise() -> None:
    """sqrt|h| places the stages, so that the law has errors of odd order in it, unlike for additive noise."""
    found = [slopes(sdekit.solvers.get(name), noisy, False)["law"] for name in SRI]
    assert min(found) < 2.75, found


def unchecked(tableau: Any, **changes: Any) -> Any:
    """A tableau that violates its conditions."""
    wrong = object.__new__(type(tableau))
    for field in dataclasses.fields(tableau):
        object.__setattr__(wrong, field.name, changes.get(field.name, getattr(tableau, field.name)))
    return wrong


T = stochastic_tableau
MUTANTS = {
    "sra2 as in torchsde": (unchecked(T.SRA2, beta2=(-3 / 2, 3 / 2)), additive),
    "sra3 as in torchsde": (unchecked(T.SRA3, beta2=(1.0, -1.0, 0.0)), additive),
    "drift stage without noise": (unchecked(T.SRA2, b0=((), (0.0,))), additive),
    "drift at the start of the step": (unchecked(T.SRIW1, c0=(0.0, 0.0, 0.0, 0.0)), noisy),
    "diffusion at the start of the step": (unchecked(T.SRIW1, c1=(0.0, 0.0, 0.0, 0.0)), noisy),
    "no triple integral": (unchecked(T.SRIW2, beta4=(0.0, 0.0, 0.0, 0.0)), noisy),
    "wrong sign of beta2": (unchecked(T.SRIW1, beta2=(1.0, -4 / 3, 1 / 3, 0.0)), noisy),
    "square of the kick": (unchecked(T.SRIW2, b0=((), (3.0,), (0.75, 0.0), (0.0, 0.0, 0.0))), noisy),
}


@pytest.mark.parametrize("label", MUTANTS)
def test_local_errors_tell_planted_mistakes(label: str) -> None:
    wrong, g = MUTANTS[label]

    class Wrong(StochasticRungeKutta):
        tableau: ClassVar[Any] = wrong

    found = slopes(Wrong(), g, False)
    assert found["rms"] < 1.85 or found["mean"] < 2.3, found


class SignedLength(StochasticRungeKutta):
    """The mutant that takes h for |h| in a step downwards: W^2 + |h| for W^2 - |h|."""

    tableau: ClassVar[Any] = T.SRIW1

    def step(self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Any, state: Any) -> Any:
        result = super().step(dynamics, t0, t1, x, increments, state)
        correction = min(t1 - t0, 0.0) * noisy(torch.tensor(t0), x) * 0.5 * torch.cos(x + 2 * t0)
        return result._replace(x=result.x - correction)


def test_local_errors_see_the_direction_of_time() -> None:
    assert slopes(SignedLength(), noisy, False)["rms"] > 1.9
    assert slopes(SignedLength(), noisy, True)["rms"] < 1.2


# The estimate.


@pytest.mark.parametrize("name", [*SRA, *SRI])
def test_the_estimate_without_noise(name: str) -> None:
    """It is the distance to Euler's step, of order 2; zero where neither drift nor noise change."""
    solver, x = sdekit.solvers.get(name), draws(5, 3)
    errors = []
    for h in (0.02, 0.01):
        result = solver.step(Field(bent, noisy), 0.3, 0.3 + h, x, None, None)
        euler = x + h * bent(torch.full_like(x, 0.3), x)
        torch.testing.assert_close(result.error, (result.x - euler).abs(), rtol=0, atol=1e-15)
        errors.append(float(result.error.norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    flat = Field(lambda t, x: torch.ones_like(x), lambda t, x: torch.full_like(x, 0.7))
    w, area = draws(5, 3, seed=1), draws(5, 3, seed=2)
    result = solver.step(flat, 0.3, 0.4, x, Increments(w, area), None)
    torch.testing.assert_close(result.x, x + 0.1 + 0.7 * w, rtol=0, atol=1e-13)
    assert result.error is not None and float(result.error.abs().max()) < 1e-13


# Along whole paths.


def path_errors(sde: Any, name: str, other: str, ends: list[float], counts: tuple[int, ...]) -> list[float]:
    """Root mean square distances from a finer solution by another method along the same 256 paths."""
    x = 0.4 + 0.3 * draws(256, 2, seed=5)

    def end(solver: str, steps: int) -> Tensor:
        return sdekit.solve(sde, x, ends, solver, steps=steps, seed=3, noise="path").x

    fine = end(other, 8 * counts[-1])
    return [float((end(name, n) - fine).square().mean().sqrt()) for n in counts]


@pytest.mark.slow
@pytest.mark.parametrize("ends", [[0.3, 1.2], [1.2, 0.3]], ids=["up", "down"])
@pytest.mark.parametrize("name", [*SRA, *SRI])
def test_order_three_halves_along_paths(name: str, ends: list[float]) -> None:
    """Not 2: with a nonlinear drift, and for the diagonal methods with nonlinear, non-autonomous noise."""
    drift = lambda t, x: -torch.sin(3 * x) + torch.cos(t)  # noqa: E731
    g = (lambda t, x: 0.8 + 0.4 * torch.sin(3 * t)) if name in SRA else (lambda t, x: 0.5 + 0.3 * torch.sin(2 * x + t))
    sde = sdekit.make_sde(drift, g, "scalar" if name in SRA else "diagonal", additive=name in SRA)
    other = "shark" if name in SRA else "sriw2" if name == "sriw1" else "sriw1"
    errors = path_errors(sde, name, other, ends, (32, 64, 128))
    slope = math.log2(errors[0] / errors[-1]) / 2
    assert 1.35 < slope < 1.8, errors


# Refusals.


def test_what_they_do_not_take() -> None:
    mixing = sdekit.make_sde(lambda t, x: -x, lambda t, x: x[..., None] * torch.ones(2, dtype=F64), "general")
    for name in (*SRA, *SRI):
        with pytest.raises(SolverMismatchError, match=rf"{name}.*expected one of: .*euler_maruyama"):
            sdekit.solve(mixing, draws(3, 2), [0.0, 1.0], name, steps=3, seed=0)
    diagonal = sdekit.make_sde(lambda t, x: -x, lambda t, x: x)
    for name in SRA:
        with pytest.raises(SolverMismatchError, match=rf"{name}.*diagonal noise.*sriw1"):
            sdekit.solve(diagonal, draws(3, 2), [0.0, 1.0], name, steps=3, seed=0)
    with pytest.raises(InterfaceError, match="space-time Levy area H"):
        sdekit.solvers.get("sriw1").step(Field(bent, noisy), 0.0, 0.1, draws(3, 2), Increments(draws(3, 2)), None)


def test_calls_outside_the_domain_are_refused_before_the_first() -> None:
    """SOSRI evaluates beyond its steps; and no stepper of SDEs starts where the diffusion is infinite."""
    calls: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return x

    model = sdekit.Model(net, sdekit.VP())
    for times in ([1.0, 0.9, 0.5], [0.9, 0.3, 0.2]):
        with pytest.raises(OptionError, match=r"times: .*'sosri' calls the drift at t = (1\.004|-1\.35).*sriw1"):
            sdekit.solve(model, draws(3, 2), times, "sosri", seed=0)
    flow = sdekit.Model(net, sdekit.RectifiedFlow(), "velocity")
    for name in ("sriw1", "sosra"):
        with pytest.raises(OptionError, match=r"times: .*alpha = 0 and the diffusion is infinite.*exp_sra"):
            sdekit.solve(flow, draws(3, 2), [1.0, 0.5, 0.1], name, seed=0)
    assert not calls
    assert sdekit.solve(model, draws(3, 2), [0.9, 0.8, 0.7, 0.65], "sosri", seed=0).success
    assert len(calls) == 12 and min(calls) > 0.4
    assert sdekit.solve(flow, draws(3, 2), [0.99, 0.5, 0.1], "sriw1", seed=0).success
