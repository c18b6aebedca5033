"""Drift-implicit Euler and the theta method: their equation, orders, stability, gradients, and when they give up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import ModelOutputError, NonFiniteError, OptionError, UnfinishedError
from sdekit.solvers import implicit
from sdekit.solvers.base import Increments
from sdekit.testing.subject import Field
from tests.solvers.path_errors import strong_slope
from tests.solvers.weak_moments import PROBLEMS, local_errors

D = torch.float64
SOLVERS = {
    "implicit": sdekit.solvers.get("implicit_euler_maruyama"),
    "trapezoid": sdekit.solvers.get("theta_maruyama"),
    "theta 0.7": sdekit.solvers.get("theta_maruyama", theta=0.7),
}


def bent(t: Tensor, x: Tensor) -> Tensor:
    """Coordinates that meet, so that the Jacobian is full."""
    return torch.sin(x).flip(1) * (1 + t) - x**3 + 0.5 * x.sum(1, keepdim=True)


@pytest.mark.parametrize("h", [0.2, -0.1])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_equation_holds(solver: Any, h: float) -> None:
    """x1 - x - h ((1 - theta) f(t0, x) + theta f(t1, x1)) - g(t0, x) W = 0, to rounding."""
    sde = sdekit.make_sde(bent, lambda t, x: 0.5 + 0.2 * x * t)
    generator = torch.Generator().manual_seed(0)
    x, w = (0.6 * torch.randn(6, 3, dtype=D, generator=generator) for _ in range(2))
    t0, t1 = torch.tensor(0.4, dtype=D), torch.tensor(0.4 + h, dtype=D)
    new = solver.step(Field(sde), 0.4, 0.4 + h, x, Increments(0.3 * w), None)[0]
    theta = solver.theta
    slope = (1 - theta) * bent(t0, x) + theta * bent(t1, new)
    torch.testing.assert_close(new, x + h * slope + (0.5 + 0.2 * x * t0) * 0.3 * w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_linear_drifts_take_one_iteration(solver: Any) -> None:
    """Against the closed form, for a stiff matrix and one iteration."""
    a = torch.tensor([[-300.0, 20.0], [5.0, -0.5]], dtype=D)
    options = {"theta": solver.theta} if solver.name == "theta_maruyama" else {}
    once = sdekit.solvers.get(solver.name, iterations=1, **options)
    sde = sdekit.make_sde(lambda t, x: x @ a.mT, lambda t, x: torch.ones_like(x), additive=True)
    x, w, h = torch.tensor([[1.0, -2.0]], dtype=D), torch.tensor([[0.3, 0.1]], dtype=D), 0.5
    eye = torch.eye(2, dtype=D)
    right = (eye + (1 - solver.theta) * h * a) @ x[0] + w[0]
    found = once.step(Field(sde), 0.0, h, x, Increments(w), None)[0]
    torch.testing.assert_close(found[0], torch.linalg.solve(eye - solver.theta * h * a, right), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("steps", [(0.02, 0.01), (-0.02, -0.01)], ids=["up", "down"])
@pytest.mark.parametrize("problem", ["scalar", "2 columns", "diagonal", "additive columns"])
@pytest.mark.parametrize("name", ["implicit", "trapezoid"])
def test_weak_order_one(name: str, problem: str, steps: tuple[float, ...]) -> None:
    errors = np.linalg.norm(local_errors(SOLVERS[name], PROBLEMS[problem], steps), axis=1)
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
@pytest.mark.parametrize("additive, expected", [(True, 1.0), (False, 0.5)], ids=["additive", "general"])
@pytest.mark.parametrize("name", ["implicit", "trapezoid"])
def test_strong_orders(name: str, additive: bool, expected: float, ends: tuple[float, float]) -> None:
    g = (lambda t, x: 0.6 + 0.3 * t + 0 * x) if additive else (lambda t, x: 0.7 + 0.6 * torch.sin(2 * x))
    sign = 1.0 if ends[1] > ends[0] else -1.0
    sde = sdekit.make_sde(lambda t, x: sign * (torch.sin(3 * x) - 2 * x), g, additive=additive)
    reference, counts = ("sra1", (8, 16, 32)) if additive else ("platen_weak2", (8, 16, 32))
    slope, errors = strong_slope(SOLVERS[name], sde, ends, reference, counts)
    assert abs(slope - expected) < 0.25, errors


def test_mean_square_stability() -> None:
    """dx = -k x dt + s x dW with k h = 50: E x1^2 = x^2 ((1 - (1 - theta) k h)^2 + s^2 h) / (1 + theta k h)^2."""
    k, s, h, x0 = 50.0, 3.0, 1.0, 2.0
    sde = sdekit.make_sde(lambda t, x: -k * x, lambda t, x: s * x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    x, w = torch.full((6, 1), x0, dtype=D), torch.from_numpy(nodes)[:, None]
    for solver in SOLVERS.values():
        new = solver.step(Field(sde), 0.0, h, x, Increments(w * math.sqrt(h)), None)[0]
        factor = float((new[:, 0] ** 2 * torch.from_numpy(weights / weights.sum())).sum()) / x0**2
        theta = solver.theta
        expected = ((1 - (1 - theta) * k * h) ** 2 + s * s * h) / (1 + theta * k * h) ** 2
        assert factor == pytest.approx(expected, rel=1e-12) and factor < 1
    start = torch.ones(500, 1, dtype=D)
    ends = {n: sdekit.solve(sde, start, (0.0, 20.0), n, steps=20, seed=0).x for n in ("implicit_euler_maruyama", "em")}
    assert float(ends["implicit_euler_maruyama"].abs().max()) < 1e-9
    assert float(ends["em"].abs().max()) > 1e9


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_gradients(solver: Any) -> None:
    """With respect to the start and to a parameter of the drift and of the noise, against finite differences."""

    def end(x: Tensor, p: Tensor) -> Tensor:
        sde = sdekit.make_sde(lambda t, x: p * torch.sin(x).flip(1) - x**3, lambda t, x: p * x)
        return sdekit.solve(sde, x, [0.0, 0.2, 0.5], solver, seed=1).x.square().sum()

    x, p = torch.linspace(-1, 1, 6, dtype=D).reshape(3, 2), torch.tensor(0.4, dtype=D)
    x.requires_grad_()
    p.requires_grad_()
    assert torch.autograd.gradcheck(end, (x, p), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_under_no_grad_and_inference_mode_the_same() -> None:
    sde = sdekit.make_sde(bent, lambda t, x: 0.1 * x)
    x = torch.linspace(-1, 1, 6, dtype=D).reshape(2, 3)

    def run() -> Tensor:
        return sdekit.solve(sde, x, [0.0, 0.2], "implicit_euler_maruyama", seed=1).x

    with torch.no_grad():
        quiet = run()
    with torch.inference_mode():
        inferred = run()
    assert torch.equal(run(), quiet) and torch.equal(quiet, inferred.clone()) and not quiet.requires_grad


def test_calls_are_counted() -> None:
    calls = [0]

    def drift(t: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return -(x**3)

    for options, expected in (({}, 9), ({"iterations": 5}, 6)):
        calls[0] = 0
        solver = sdekit.solvers.get("implicit_euler_maruyama", **options)
        found = sdekit.solve(sdekit.make_ode(drift), torch.ones(2, 1, dtype=D), [0.0, 0.1, 0.2], solver)
        assert calls[0] == int(found.nfe[0]) == 2 * expected
    assert sdekit.solvers.get("theta_maruyama").calls_per_step == 10
    assert sdekit.solvers.get("theta_maruyama", theta=1.0).calls_per_step == 9


def test_theta_one_is_implicit_euler() -> None:
    sde = sdekit.make_sde(bent, lambda t, x: 0.1 * x)
    x = torch.linspace(-1, 1, 6, dtype=D).reshape(2, 3)
    solvers = (sdekit.solvers.get("theta_maruyama", theta=1.0), "implicit_euler_maruyama")
    first, second = (sdekit.solve(sde, x, [0.0, 0.2], s, seed=1).x for s in solvers)
    assert torch.equal(first, second)


def test_a_hard_sample_is_named_and_changes_no_other() -> None:
    """x1 + h x1^3 = x from x = 1000 takes 18 iterations; enough of them solve it."""
    sde = sdekit.make_sde(lambda t, x: -(x**3), lambda t, x: 0 * x)
    x = torch.tensor([[0.5, 1.0], [1.0, 2.0], [1.0, 1000.0]], dtype=D)
    with pytest.raises(
        UnfinishedError, match=r"8 iterations.*sample 2 at t = 1\.5, step 1, worst component 1"
    ) as caught:
        sdekit.solve(sde, x, [0.5, 1.5], "implicit_euler_maruyama", seed=0)
    assert (caught.value.sample, caught.value.t, caught.value.component) == (2, 1.5, 1)
    assert any("step 0" in note for note in caught.value.__notes__)
    more = sdekit.solvers.get("implicit_euler_maruyama", iterations=25)
    whole = sdekit.solve(sde, x, [0.5, 1.5], more, seed=0).x
    torch.testing.assert_close(whole + whole**3, x, rtol=1e-12, atol=0)
    alone = sdekit.solve(sde, x[:2], [0.5, 1.5], more, seed=0).x
    assert torch.equal(alone, whole[:2])


def test_a_drift_without_derivatives_is_not_taken_for_solved() -> None:
    """Detached, it leaves the fixed-point iteration, which a stiff drift does not allow."""
    sde = sdekit.make_sde(lambda t, x: (-50 * x).detach(), lambda t, x: 0 * x)
    with pytest.raises(UnfinishedError, match="shorter steps or more iterations"):
        sdekit.solve(sde, torch.ones(2, 1, dtype=D), [0.0, 1.0], "implicit_euler_maruyama", seed=0)


@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_rounding_is_not_taken_for_a_missed_tolerance(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated stiff drift in float32: corrections stagnate far above 20 roundings, and the error is of their size."""
    c, s = math.cos(0.7), math.sin(0.7)
    turn = torch.tensor([[c, -s], [s, c]], dtype=D)
    a = turn @ torch.diag(torch.tensor([-scale, 0.9], dtype=D)) @ turn.mT
    x = 1e2 * torch.randn(40, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    ode = sdekit.make_ode(lambda t, x: x @ a.to(x.dtype).mT)
    exact = sdekit.solve(ode, x, [0.0, 1.0], "implicit_euler_maruyama").x
    low = sdekit.solve(ode, x.float(), [0.0, 1.0], "implicit_euler_maruyama").x
    assert float((low - exact).norm() / exact.norm()) < 10 * 1.2e-7 * 10 * scale  # eps times the condition
    monkeypatch.setattr(implicit, "_rounding_floor", lambda matrix, scaled, y, terms, eps: torch.zeros_like(y))
    with pytest.raises(UnfinishedError):
        sdekit.solve(ode, x.float(), [0.0, 1.0], "implicit_euler_maruyama")


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_too_few_iterations_are_told_from_rounding(iterations: int, dtype: torch.dtype) -> None:
    few = sdekit.solvers.get("implicit_euler_maruyama", iterations=iterations)
    ode = sdekit.make_ode(lambda t, x: -(x**3) - torch.sinh(x))
    x = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=dtype)
    with pytest.raises(UnfinishedError, match="sample 1"):
        sdekit.solve(ode, x, [0.0, 1.0], few)


def test_what_runs_away_is_infinite_and_masked_alone() -> None:
    """x1 = x + f(x1) without a solution: f is 1e300 from -0.5 up to 1e200 and 0 elsewhere."""
    ode = sdekit.make_ode(lambda t, x: 1e300 * ((x < 1e200) & (x > -0.5)).to(x) + 0 * x)
    x = torch.tensor([[-1.0], [1.0], [-2.0]], dtype=D)
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(ode, x, [0.0, 1.0], "implicit_euler_maruyama")
    assert (caught.value.source, caught.value.sample) == ("solver", 1)
    masked = sdekit.solve(ode, x, [0.0, 1.0], "implicit_euler_maruyama", on_failure="mask")
    assert masked.status.tolist() == [0, 1, 0] and masked.x[[0, 2]].tolist() == [[-1.0], [-2.0]]


def test_a_drift_through_numpy_is_refused() -> None:
    ode = sdekit.make_ode(lambda t, x: torch.from_numpy(-x.numpy()))
    with pytest.raises(ModelOutputError, match="drift: got a call of numpy"):
        sdekit.solve(ode, torch.ones(2, 1, dtype=D), [0.0, 1.0], "implicit_euler_maruyama")


def test_options_and_sizes_are_checked() -> None:
    for name, options in (
        ("implicit_euler_maruyama", {"iterations": 0}),
        ("implicit_euler_maruyama", {"tolerance": 0.0}),
        ("theta_maruyama", {"theta": 0.0}),
        ("theta_maruyama", {"theta": 1.5}),
    ):
        with pytest.raises(OptionError):
            sdekit.solvers.get(name, **options)
    x = torch.ones(1, implicit.MOST_IMPLICIT + 1)
    with pytest.raises(OptionError, match="257 dimensions"):
        sdekit.solve(sdekit.make_ode(lambda t, x: -x), x, [0.0, 0.1], "implicit_euler_maruyama")


def test_a_sample_without_a_root_is_masked_alone():
    ode = sdekit.make_ode(lambda t, x: torch.where(x > 5, x * x * x, -x))
    x = torch.tensor([[0.5], [50.0], [-1.0]], dtype=torch.float64)
    solver = sdekit.solvers.get("implicit_euler_maruyama")
    masked = sdekit.solve(ode, x, [0.0, 1.0], solver, steps=4, on_failure="mask")
    alone = sdekit.solve(ode, x[[0, 2]], [0.0, 1.0], solver, steps=4)
    assert masked.status.tolist() == [0, 1, 0] and torch.equal(masked.x[[0, 2]], alone.x)
