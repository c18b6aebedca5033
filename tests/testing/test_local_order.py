"""Orders of one step by quadrature: the series is the truth, orders 1, 3/2 and 2 are told apart, mistakes are seen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.linalg
import torch

from sdekit.errors import ConformanceError, OptionError, SolverMismatchError
from sdekit.reverse import convert_to
from sdekit.solvers import get
from sdekit.solvers.base import NoiseOrder, Order, Stepper
from sdekit.testing import (
    LocalOrders,
    Polynomial,
    PolynomialProblem,
    check_solver,
    local_orders,
    observed_order,
    polynomial_problems,
    sde_problems,
)
from tests.testing.sde_mutants import Altered, Milstein

SERIES, PATHS = polynomial_problems(), sde_problems()
CLASSES = ("additive", "scalar", "diagonal", "commutative", "general")


# --- the series ---


def linear_problem(down: bool) -> tuple[PolynomialProblem, np.ndarray, list[np.ndarray]]:
    """dx = A x dt + B_1 x dW_1 + B_2 x dW_2 at x0 = (1, -0.5)."""
    x0, a = (1.0, -0.5), np.array([[-0.5, 0.8], [0.3, -1.0]])
    noises = [np.array([[0.5, 0.2], [-0.4, 0.1]]), np.array([[0.1, -0.6], [0.3, 0.4]])]

    def field(matrix: np.ndarray) -> tuple[Polynomial, ...]:
        return tuple(
            Polynomial({(0, 0, 0): float(row @ np.array(x0)), (0, 1, 0): float(row[0]), (0, 0, 1): float(row[1])})
            for row in matrix
        )

    return PolynomialProblem("linear", 0.3, x0, field(a), tuple(map(field, noises)), down), a, noises


@pytest.mark.parametrize("down", [False, True])
def test_expectations_are_those_of_a_linear_sde(down: bool):
    """Its first two moments solve linear equations."""
    problem, a, noises = linear_problem(down)
    h, sign, x0, eye = 0.01, -1.0 if down else 1.0, np.array(problem.x0), np.eye(2)
    mean = scipy.linalg.expm(sign * a * h) @ x0
    both = sign * (np.kron(a, eye) + np.kron(eye, a)) + sum(np.kron(b, b) for b in noises)
    second = (scipy.linalg.expm(both * h) @ np.kron(x0, x0)).reshape(2, 2)
    central = second - np.outer(mean, x0) - np.outer(x0, mean) + np.outer(x0, x0)
    found = problem.expectation(h, [(1, 0), (0, 1), (2, 0), (1, 1), (0, 2)])
    expected = [*(mean - x0), central[0, 0], central[0, 1], central[1, 1]]
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*SERIES])
def test_problems_are_of_their_class_and_both_calculi_are_one_sde(name: str):
    problem = SERIES[name]
    assert problem.classes[0] == name.split(",")[0] and problem.down == name.endswith("down")
    x = torch.tensor([[0.1, 0.2], [0.5, -0.6]], dtype=torch.float64)
    t = torch.tensor(0.9, dtype=torch.float64)
    derived = convert_to(problem.form("ito"), "stratonovich", problem.down)
    assert torch.allclose(derived.drift(t, x), problem.form("stratonovich").drift(t, x), atol=1e-14)


@pytest.mark.parametrize("name", ["commutative", "general"])
def test_columns_commute_where_they_should(name: str):
    columns = SERIES[name].columns

    def along(g: Any, f: Any) -> list[Polynomial]:
        rows = []
        for p in f:
            total = Polynomial({})
            for j, v in enumerate(g):
                total = total.plus(v * p.derivative(j + 1))
            rows.append(total)
        return rows

    pairs = zip(along(*columns), along(*columns[::-1]), strict=True)
    bracket = max(abs(v) for a, b in pairs for v in a.plus(b, -1.0).terms.values())
    assert (bracket < 1e-14) == (name == "commutative")


# --- orders ---


KNOWN = [
    ("euler_maruyama", "general", (2, None, 2)),
    ("euler_maruyama", "additive, down", (2, None, 2)),
    ("sra1", "additive", (3, None, 3)),
    ("sriw1", "diagonal", (3, None, 2.5)),
    ("platen_weak2", "general, down", (3, None, 3)),
    ("stochastic_heun", "general", (2, None, 2)),
    ("euler_maruyama", "diagonal", (2, 1, 2)),
    ("milstein", "commutative, down", (2, 1.5, 2)),
    ("sriw1", "scalar, down", (3, 2, 2.5)),
    ("platen_weak2", "scalar", (3, 1.5, 3)),
    ("sra1", "ornstein-uhlenbeck", (3, 2.5, 3)),
]


def matches(found: LocalOrders, expected: tuple[float | None, ...], within: float = 0.15) -> bool:
    values = (found.mean, found.rms, found.weak)
    return all(e is None or abs(v - e) < within for v, e in zip(values, expected, strict=True))


@pytest.mark.parametrize("solver, name, orders", KNOWN, ids=[f"{s}, {n}, {o[1]}" for s, n, o in KNOWN])
def test_known_orders_are_found(solver: str, name: str, orders: tuple[float | None, ...]):
    found = local_orders(get(solver), (SERIES if orders[1] is None else PATHS)[name])
    # In terms of sqrt(h) the exponent of sriw1 is approached slowly.
    assert matches(found, orders, 0.35 if orders[2] == 2.5 else 0.1), str(found)


def test_what_is_reported():
    found = local_orders(get("sriw1"), PATHS["scalar"])
    assert found.strong_order == pytest.approx(1.5, abs=0.05) and found.weak_order == found.weak - 1
    assert "rms 2.0" in str(found) and "scalar" in str(found) and found.steps == (32, 64, 128, 256)
    assert np.isnan(local_orders(get("sriw1"), SERIES["scalar"]).rms)


def area_of_the_other_sign(increments: Any) -> Any:
    return increments._replace(H=-increments.H)


def area_from_the_increment(increments: Any) -> Any:
    return increments._replace(H=increments.W / 12**0.5)


MISTAKES = [
    # What is wrong, the stepper, the problem, and the exponents it is left with.
    ("stage at the start", Altered(get("sra1"), drift_at=lambda u: 0.0), SERIES["additive"], (2, None, 2)),
    ("stage at the end", Altered(get("sriw1"), drift_at=lambda u: float(u > 0)), SERIES["diagonal"], (2, None, 2)),
    ("sign of H", Altered(get("sra1"), noise=area_of_the_other_sign), PATHS["ornstein-uhlenbeck"], (3, 1.5, None)),
    ("sign of H, diagonal", Altered(get("sriw1"), noise=area_of_the_other_sign), PATHS["diagonal"], (None, 1.5, None)),
    ("noise twice", Altered(get("sra1"), noise=area_from_the_increment), SERIES["additive"], (None, None, 2)),
    ("ends swapped", Altered(get("sra1"), diffusion_at=lambda u: 1 - u), PATHS["ornstein-uhlenbeck"], (3, 1.5, None)),
    (
        "diffusion at one time",
        Altered(get("platen_weak2"), diffusion_at=lambda u: 0.0),
        SERIES["general"],
        (3, None, 2),
    ),
    ("no Ito correction", Altered(get("euler_maruyama"), as_calculus="stratonovich"), SERIES["general"], (1, None, 1)),
    ("no -|h|", Milstein(correction=0.0), PATHS["diagonal"], (1, 1, 1)),
    ("-h for -|h|", Milstein(signed=True), PATHS["diagonal, down"], (1, 1, 1)),
    ("noise too large", Milstein(again=0.05), PATHS["diagonal"], (2, 0.5, 1)),
]


@pytest.mark.parametrize("mistake, solver, problem, left", [pytest.param(*m, id=m[0]) for m in MISTAKES])
def test_mistakes_are_seen(mistake: str, solver: Stepper, problem: Any, left: tuple[float | None, ...]):
    found = local_orders(solver, problem)
    assert matches(found, left, 0.2), str(found)


@dataclass(frozen=True)
class TooMuch(Milstein):
    """Milstein's method, said to be of weak order 2."""

    declared: ClassVar[Order] = Order(noise={"diagonal": NoiseOrder(None, 2)})


def test_check_solver_measures_declared_weak_orders():
    with pytest.raises(ConformanceError, match=r"weak order on diagonal.*measured (0\.9|1\.0).*declared 2"):
        check_solver(TooMuch(), problems=[])


def test_observed_order_takes_the_widest_class():
    found = observed_order("platen_weak2", "weak")
    assert found.problem == "general" and found.declared == 2 and found.reaches() and found.grid == "one step"
    assert found.value == local_orders(get("platen_weak2"), SERIES["general"]).weak_order
    assert observed_order("sriw1", "weak").problem == "diagonal"
    on_paths = observed_order("sra1", "weak", PATHS["ornstein-uhlenbeck"])
    assert on_paths.declared == 2 and on_paths.value > 1.9, str(on_paths)


def test_what_cannot_be_measured_is_refused():
    for problem in (PATHS["general"], PATHS["sine"]):
        with pytest.raises(OptionError, match="closed form"):
            local_orders(get("euler_maruyama"), problem)
    with pytest.raises(SolverMismatchError, match="stepper"):
        local_orders(get("ddim"), SERIES["diagonal"])
    with pytest.raises(SolverMismatchError, match="strong"):
        observed_order("euler_maruyama", "strong", SERIES["diagonal"])
    with pytest.raises(OptionError, match="nodes"):
        local_orders(Greedy(get("euler_maruyama")), SERIES["general"])


@dataclass(frozen=True)
class Greedy(Altered):
    """Asks for more normals than it uses."""

    def extra_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        return ((shape[0], 20),)


@pytest.mark.slow
@pytest.mark.parametrize("name, way", [*itertools.product(CLASSES[1:4], ("", ", down"))])
def test_both_kinds_of_problem_agree(name: str, way: str):
    """Weak orders against series and against closed forms."""
    for solver in ("euler_maruyama", "platen_weak2"):
        series, paths = (local_orders(get(solver), of[name + way]).weak for of in (SERIES, PATHS))
        assert abs(series - paths) < 0.2
