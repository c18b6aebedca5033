"""Exponential Euler-Maruyama: exact in law on linear SDEs, of its orders elsewhere, with no bound on stiff steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.solvers import semi_linear
from sdekit.solvers.base import Increments
from sdekit.testing.subject import Field
from tests.solvers.path_errors import strong_slope
from tests.solvers.weak_moments import PROBLEMS, local_errors

NAME = "exponential_euler_maruyama"
SOLVER = sdekit.solvers.get(NAME)
D = torch.float64


def linear_sde(a: Any, g: Any, kind: Any = "diagonal") -> sdekit.SDE:
    """dx = A x dt + g dW with A in any of its three forms."""

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return x @ a.mT if isinstance(a, Tensor) and a.ndim == 2 else a * x

    sde = sdekit.make_sde(drift, lambda t, x: g.expand(len(x), *g.shape) if g.ndim else g, kind, additive=True)
    sde.linear = a
    return sde


def law(sde: sdekit.SDE, h: float, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Mean matrix and covariance of one step, read off the step's answers to unit vectors."""
    t0 = 0.4
    zero, none = torch.zeros(n, n, dtype=D), torch.zeros(n, m, dtype=D)
    mean = SOLVER.step(Field(sde), t0, t0 + h, torch.eye(n, dtype=D), Increments(none, none), None)[0]
    unit, off = torch.eye(m, dtype=D), torch.zeros(m, m, dtype=D)
    start = zero[:1].expand(m, n)
    w = SOLVER.step(Field(sde), t0, t0 + h, start, Increments(unit, off), None)[0]
    area = SOLVER.step(Field(sde), t0, t0 + h, start, Increments(off, unit), None)[0]
    return mean.T, abs(h) * (w.T @ w) + abs(h) / 12 * (area.T @ area)


def exact_law(a: Tensor, g: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """e^(A h) and int e^(A v) G G^T e^(A^T v) du over the step, by one block exponential (Van Loan)."""
    n, s = len(a), math.copysign(1.0, h)
    block = torch.cat([torch.cat([-s * a, g @ g.T], 1), torch.cat([torch.zeros(n, n, dtype=D), s * a.T], 1)])
    e = torch.linalg.matrix_exp(block * abs(h))
    return torch.linalg.matrix_exp(a * h), e[n:, n:].T @ e[:n, n:]


@pytest.mark.parametrize("h", [1e-9, 0.1, -0.1, 1.0, 3.0, -2.0])
@pytest.mark.parametrize("a", [-1.3, 0.6, 0.0])
def test_number_is_exact_in_law(a: float, h: float) -> None:
    """For any noise."""
    g = torch.tensor([[0.5, 0.2, 0.1], [-0.3, 0.4, 0.9]], dtype=D)
    mean, cov = law(linear_sde(a, g, "general"), h, 2, 3)
    variance = abs(h) if a * h == 0 else abs(math.expm1(2 * a * h) / (2 * a))
    torch.testing.assert_close(mean, math.exp(a * h) * torch.eye(2, dtype=D), rtol=1e-13, atol=0)
    torch.testing.assert_close(cov, variance * g @ g.T, rtol=1e-13, atol=1e-15 * variance)


@pytest.mark.parametrize("h", [1e-9, 0.1, -0.1, 1.0, -2.0])
def test_entries_like_a_sample_are_exact_in_law(h: float) -> None:
    a, g = torch.tensor([-1.3, 0.7, 0.0], dtype=D), torch.tensor([0.5, 1.5, 0.3], dtype=D)
    mean, cov = law(linear_sde(a, g), h, 3, 3)
    exact = exact_law(torch.diag(a), torch.diag(g), h)
    torch.testing.assert_close(mean, exact[0], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(cov, exact[1], rtol=1e-12, atol=1e-15 * abs(h))


def test_matrix_is_exact_in_mean_and_nearly_in_variance() -> None:
    """What is left falls as h^5."""
    a = torch.tensor([[-0.5, 1.2], [-0.8, -0.3]], dtype=D)
    g = torch.tensor([[0.5, 0.2, 0.1], [-0.3, 0.4, 0.9]], dtype=D)
    errors = []
    for h in (0.4, 0.2, -0.4, -0.2):
        mean, cov = law(linear_sde(a, g, "general"), h, 2, 3)
        exact = exact_law(a, g, h)
        torch.testing.assert_close(mean, exact[0], rtol=1e-13, atol=1e-15)
        errors.append(float((cov - exact[1]).norm()))
    assert math.log2(errors[0] / errors[1]) > 4.7 and math.log2(errors[2] / errors[3]) > 4.7, errors


@pytest.mark.parametrize("form", ["number", "entries", "matrix"])
def test_forms_agree(form: str) -> None:
    """One A in three forms, with a nonlinear rest: equal up to what the variance of a matrix lacks."""
    forms = {"number": -0.7, "entries": torch.full((3,), -0.7, dtype=D), "matrix": -0.7 * torch.eye(3, dtype=D)}
    sde = sdekit.make_sde(lambda t, x: -0.7 * x + torch.sin(x), lambda t, x: 0.2 + 0.1 * x)
    x = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
    found = []
    for a in (forms["number"], forms[form]):
        sde.linear = a
        found.append(sdekit.solve(sde, x, [0.0, 0.01, 0.02], NAME, seed=1).x)
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)


def test_without_a_linear_part_it_is_euler_maruyama() -> None:
    sde = sdekit.make_sde(lambda t, x: torch.sin(x), lambda t, x: 0.2 + 0.1 * x)
    x = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
    found = [sdekit.solve(sde, x, [0.0, 0.3, 0.5], n, seed=1).x for n in (NAME, "euler_maruyama")]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [(0.02, 0.01), (-0.02, -0.01)], ids=["up", "down"])
@pytest.mark.parametrize("problem", ["scalar", "2 columns", "diagonal", "additive columns"])
def test_weak_order_one(problem: str, steps: tuple[float, ...]) -> None:
    """Local errors without Monte Carlo; a wrong A h in one direction would leave errors of order h."""
    case = PROBLEMS[problem]
    try:
        case.sde.linear = -1.5
        errors = np.linalg.norm(local_errors(SOLVER, case, steps), axis=1)
    finally:
        case.sde.linear = 0.0
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
@pytest.mark.parametrize("additive, expected", [(True, 1.0), (False, 0.5)], ids=["additive", "general"])
def test_strong_orders(additive: bool, expected: float, times: tuple[float, float]) -> None:
    """Against a fine solution of another family on the same paths."""
    g = (lambda t, x: 0.6 + 0.3 * t + 0 * x) if additive else (lambda t, x: 0.7 + 0.6 * torch.sin(2 * x))
    sde = sdekit.make_sde(lambda t, x: -2 * x + torch.sin(3 * x), g, additive=additive)
    sde.linear = -2.0
    reference, counts = ("sra1", (8, 16, 32)) if additive else ("platen_weak2", (8, 16, 32))
    slope, errors = strong_slope(NAME, sde, times, reference, counts)
    assert abs(slope - expected) < 0.2, errors


def test_stiff_steps() -> None:
    """A h = -50: the spread is the stationary one, where Euler-Maruyama leaves the numbers."""
    sde = linear_sde(torch.full((2,), -500.0, dtype=D), torch.ones(2, dtype=D))
    x = torch.ones(4000, 2, dtype=D)
    found = sdekit.solve(sde, x, (0.0, 2.0), NAME, steps=20, seed=0).x
    assert float(found.var()) == pytest.approx(1 / 1000, rel=0.1)
    assert float(sdekit.solve(sde, x, (0.0, 2.0), "euler_maruyama", steps=20, seed=0).x.abs().max()) > 1e20


def test_rows_do_not_know_of_each_other() -> None:
    """With a matrix, whose product with all rows at once would depend on their number."""
    a = torch.randn(5, 5, dtype=D, generator=torch.Generator().manual_seed(1))
    sde = linear_sde(-1.0, torch.ones(5, dtype=D))
    sde.linear = a
    x = torch.randn(7, 5, dtype=D, generator=torch.Generator().manual_seed(2))
    whole = SOLVER.step(Field(sde), 0.0, 0.2, x, Increments(x, x), None)[0]
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        assert torch.equal(
            whole[part], SOLVER.step(Field(sde), 0.0, 0.2, x[part], Increments(x[part], x[part]), None)[0]
        )


def test_conversion_keeps_the_linear_part() -> None:
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x, sde_type="stratonovich")
    sde.linear = -1.0
    assert sde.to_ito().linear == -1.0


def test_gradients_and_float32() -> None:
    x = torch.ones(3, 2, dtype=torch.float32)
    rate = torch.tensor(0.5, requires_grad=True)
    sde = sdekit.make_sde(lambda t, x: -2 * x + rate * torch.sin(x), lambda t, x: 0.1 * x)
    sde.linear = -2.0
    found = sdekit.solve(sde, x, [0.0, 0.5, 1.0], NAME, seed=0).x
    assert found.dtype == torch.float32
    assert float(torch.autograd.grad(found.sum(), rate)[0]) > 0


@pytest.mark.parametrize(
    "linear, error, match",
    [
        ("fast", InterfaceError, "str"),
        (True, InterfaceError, "bool"),
        (torch.ones(2, dtype=torch.int64), InterfaceError, "int64"),
        (torch.ones(4), ShapeError, r"shape \(4,\)"),
        (torch.ones(3, 3), ShapeError, r"matrix \(2, 2\)"),
        (math.nan, OptionError, "NaN"),
    ],
    ids=str,
)
def test_unfit_linear_parts_are_refused(linear: Any, error: Any, match: str) -> None:
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x)
    sde.linear = linear
    with pytest.raises(error, match=match):
        sdekit.solve(sde, torch.ones(3, 2), [0.0, 0.1], NAME, seed=0)


def test_large_matrices_are_refused() -> None:
    n = semi_linear.MOST_DENSE + 1
    sde = linear_sde(torch.zeros(n, n), torch.ones(n))
    with pytest.raises(OptionError, match="513 coordinates"):
        sdekit.solve(sde, torch.ones(1, n), [0.0, 0.1], NAME, seed=0)
