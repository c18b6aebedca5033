"""Platen's weak scheme, DRI1 and RI5: order conditions, local errors without Monte Carlo, and what would spoil them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import OptionError
from sdekit.solvers import weak
from sdekit.solvers.base import Increments
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.subject import Field
from tests.solvers.weak_moments import PROBLEMS, PolynomialSDE, local_errors, step_means, variables

NAMES = ("platen_weak2", "dri1", "ri5")
UP, DOWN = (0.02, 0.01), (-0.02, -0.01)


def order(name: str, problem: str, steps: tuple[float, ...] = UP, **options: Any) -> float:
    """The weak order that the local errors in all phis together show: one less than their slope."""
    errors = np.linalg.norm(local_errors(sdekit.solvers.get(name), PROBLEMS[problem], steps, **options), axis=1)
    return math.log(errors[0] / errors[1]) / math.log(steps[0] / steps[1]) - 1


@pytest.mark.parametrize("steps", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", NAMES)
def test_weak_order_two(name: str, problem: str, steps: tuple[float, ...]) -> None:
    """Both directions of time; the moments up to degree 4 of one step, exact to rounding."""
    assert 1.85 <= order(name, problem, steps) <= 2.3


@pytest.mark.parametrize("problem", ["scalar", "2 columns", "diagonal", "additive columns"])
def test_the_measure_shows_order_one(problem: str) -> None:
    for steps in (UP, DOWN):
        assert 0.8 <= order("euler_maruyama", problem, steps) <= 1.3


def test_series_of_the_exact_mean_is_that_of_a_known_law() -> None:
    """dx = a x dt + s x dW: E x^n = x^n exp((n a + n (n - 1) s^2 / 2) h), downwards with -a."""
    _, x = variables(1)
    problem = PolynomialSDE([0.4 * x], [[0.3 * x]], [0.7])
    for down, a in ((False, 0.4), (True, -0.4)):
        for n in (1, 2, 3):
            found = problem.series(x**n, 4, down)
            rate = n * a + n * (n - 1) * 0.09 / 2
            for k, coefficient in enumerate(found):
                assert coefficient == pytest.approx(0.7**n * rate**k / math.factorial(k), rel=1e-13)


class _DriftAtTheStart(Field):
    """Each drift at the time of the first: the textbook's autonomous scheme, taken literally."""

    def drift(self, t: float, x: Tensor) -> Tensor:
        return super().drift(PROBLEMS["scalar"].time, x)


class _DiffusionAtTheStart(Field):
    def diffusion(self, t: float, x: Tensor) -> Tensor:
        return super().diffusion(PROBLEMS["scalar"].time, x)


class _SignedTime(Field):
    """Solved downwards as if upwards: what happens where h is taken for |h| in the drift."""

    def drift(self, t: float, x: Tensor) -> Tensor:
        return -super().drift(t, x)


@pytest.mark.parametrize("mutant, steps", [(_DriftAtTheStart, UP), (_DiffusionAtTheStart, UP), (_SignedTime, DOWN)])
@pytest.mark.parametrize("name", NAMES)
def test_wrong_times_are_seen(name: str, mutant: Any, steps: tuple[float, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.solvers.weak_moments.Field", mutant)
    assert order(name, "scalar", steps) < 1.4


def _no_area(self: Any, k: int, length: float) -> Tensor:
    return self.w[:, k : k + 1] * self.without(k) / 2


def _too_wide(self: Any, k: int, length: float) -> Tensor:
    return right(self, k, 1.5 * length)


def _symmetric(self: Any, k: int, length: float) -> Tensor:
    s = self._signs * (length * self._signs[:, k : k + 1])
    others = torch.cat([s[:, :k], torch.zeros_like(s[:, :1]), s[:, k + 1 :]], 1)
    return (self.w[:, k : k + 1] * self.without(k) + others) / 2


right = weak._Columns.integrals


@pytest.mark.parametrize("mutant", [_no_area, _too_wide, _symmetric], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_stand_ins_for_the_area_are_seen(name: str, mutant: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(weak._Columns, "integrals", mutant)
    assert order(name, "2 columns") < 1.4


@pytest.mark.parametrize("name", NAMES)
def test_one_sign_for_each_pair_with_k_is_enough_for_two_motions_only(name: str, monkeypatch: Any) -> None:
    """V_kl = -h s_k for k < l, as StochasticDiffEq.jl draws them: V_12 = V_13, and the order falls with three."""

    def shared(self: Any, k: int, length: float) -> Tensor:
        s = self._signs
        row = torch.cat([s[:, :k], 0 * s[:, :1], -s[:, k : k + 1].expand_as(s[:, k + 1 :])], 1)
        return (self.w[:, k : k + 1] * self.without(k) + length * row) / 2

    monkeypatch.setattr(weak._Columns, "integrals", shared)
    assert order(name, "2 columns") > 1.85
    assert order(name, "3 columns") < 1.6


@pytest.mark.parametrize("problem", ["scalar", "3 columns"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_ito_correction_is_seen(name: str, problem: str, monkeypatch: Any) -> None:
    def raw(self: Any, w: Tensor, length: float) -> Any:
        return self.tableau.outer, w * w * (self.tableau.slope / (2 * math.sqrt(length)))

    monkeypatch.setattr(weak._WeakTwo, "_weights", raw)
    assert order(name, problem) < 0.5  # it converges to the Stratonovich solution


def arrays(t: weak.WeakTableau) -> dict[str, np.ndarray]:
    """A tableau with the names of the papers: symmetric rows written out, B1 and B2 as matrices."""
    n = len(t.alpha)
    a0, b0, a1, b1, b2 = (np.zeros((3, 3)) for _ in range(5))
    for i, row in enumerate(t.a):
        a0[i, : len(row)] = row
    b0[:n, 0] = t.kick
    a1[1:, 0] = t.lag
    b1[1:, 0] = t.spread, -t.spread
    assert t.mix is not None
    b2[1] = t.mix[0], t.mix[1], t.mix[1]
    b2[2] = -b2[1]
    return {
        "alpha": np.array(t.alpha),
        **dict(zip(("A0", "B0", "A1", "B1", "B2"), (a0, b0, a1, b1, b2), strict=True)),
        "beta1": np.array([t.outer[0], t.outer[1], t.outer[1]]),
        "beta2": np.array([0.0, t.slope, -t.slope]),
        "beta3": t.curve * np.array([-2.0, 1.0, 1.0]),
        "beta4": np.array([0.0, t.turn, -t.turn]),
    }


def residuals(t: weak.WeakTableau) -> list[float]:
    """The conditions of weak order 2 of class RI with A2 = 0 and c = A e (Debrabant and Roessler, 2009)."""
    v, e = arrays(t), np.ones(3)
    alpha, a0, b0, a1, b1, b2 = (v[k] for k in ("alpha", "A0", "B0", "A1", "B1", "B2"))
    p, q, r, s = (v[f"beta{i}"] for i in (1, 2, 3, 4))
    one = p @ e
    halves = [alpha @ (a0 @ e), alpha @ (b0 @ e) ** 2, one * (alpha @ (b0 @ e)), one * (p @ (a1 @ e))]
    halves += [one * (p @ (b1 @ e) ** 2), one * (r @ (b2 @ e) ** 2)]
    ones = [alpha @ e, one**2, q @ (b1 @ e), s @ (b2 @ e)]
    be, ce = b1 @ e, b2 @ e
    zeros = [s @ e, r @ e, q @ e, p @ be, r @ ce, s @ ce**2, p @ b1 @ be, r @ b2 @ be, r @ b2 @ b1 @ be]
    zeros += [p @ a1 @ b0 @ e, alpha @ b0 @ be, q @ a1 @ e, p @ ((a1 @ e) * be), q @ a1 @ b0 @ e]
    zeros += [q @ a1 @ (b0 @ e) ** 2, p @ b1 @ a1 @ e, r @ b2 @ a1 @ e, q @ be**2, s @ b2 @ be, q @ b1 @ be]
    zeros += [p @ be**3, r @ ce**3, p @ b1 @ be**2, r @ b2 @ be**2, s @ ce**4, s @ (b2 @ be) ** 2]
    zeros += [s @ (ce * (b2 @ be)), alpha @ ((b0 @ e) * (b0 @ be)), p @ ((a1 @ b0 @ e) * be), p @ a1 @ b0 @ be]
    zeros += [s @ ((b2 @ a1 @ e) * ce), p @ b1 @ a1 @ b0 @ e, r @ b2 @ a1 @ b0 @ e, p @ (be * (b1 @ be))]
    zeros += [r @ (ce * (b2 @ be)), p @ b1 @ b1 @ be, s @ (ce * (b2 @ be**2)), s @ (ce * (b2 @ b1 @ be))]
    return [float(v) for v in [*(v - 0.5 for v in halves), *(v - 1 for v in ones), *zeros]]


TABLEAUS = [weak._DRI1, weak._RI5]


@pytest.mark.parametrize("tableau", TABLEAUS, ids=lambda t: t.name)
def test_tableaus_meet_all_conditions_of_weak_order_two(tableau: weak.WeakTableau) -> None:
    found = residuals(tableau)
    assert len(found) == 48 and max(map(abs, found)) < 1e-14


@pytest.mark.parametrize("tableau", TABLEAUS, ids=lambda t: t.name)
def test_drift_weights_are_of_order_three(tableau: weak.WeakTableau) -> None:
    v = arrays(tableau)
    c = v["A0"].sum(1)
    assert v["alpha"] @ c**2 == pytest.approx(1 / 3, abs=1e-15)
    assert v["alpha"] @ v["A0"] @ c == pytest.approx(1 / 6, abs=1e-15)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": (0.2, 0.6, 0.2)},
        {"kick": (0.0, 0.5, 0.5)},
        {"lag": 0.7},
        {"spread": 0.8},
        {"outer": (0.2, 0.4)},
        {"slope": 0.5},
        {"mix": (0.5, 0.1)},
        {"curve": 0.3},
        {"turn": 0.4},
        {"turn": math.nan},
    ],
    ids=str,
)
def test_tableaus_check_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="weak order 2"):
        dataclasses.replace(weak._DRI1, **change)


@pytest.mark.parametrize("name", NAMES)
def test_diagonal_noise_is_that_of_its_columns(name: str) -> None:
    """All coordinates at once give what columns one by one do, up to rounding."""
    solver, diagonal = sdekit.solvers.get(name), PROBLEMS["diagonal"].sde
    columns = sdekit.make_sde(diagonal.drift, lambda t, x: torch.diag_embed(diagonal.diffusion(t, x)), "general")
    generator = torch.Generator().manual_seed(0)
    x, w, area = (torch.randn(7, 2, dtype=torch.float64, generator=generator) for _ in range(3))
    found = [solver.step(Field(s), 0.5, 0.4, x, Increments(0.3 * w, area), None)[0] for s in (diagonal, columns)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-13, atol=1e-13)


def _counted(sde: sdekit.SDE) -> tuple[sdekit.SDE, list[int]]:
    calls = [0]

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return sde.diffusion(t, x)

    return sdekit.make_sde(sde.drift, diffusion, sde.noise_type, additive=sde.additive), calls


@pytest.mark.parametrize(
    "problem, expected", [("diagonal", 3), ("additive number", 2), ("1 columns", 3), ("2 columns", 9), ("number", 9)]
)
@pytest.mark.parametrize("name", NAMES)
def test_diffusions_a_step(name: str, problem: str, expected: int) -> None:
    """The cost that the docstrings name: what diagonal noise takes does not depend on the number of coordinates."""
    sde, calls = _counted(PROBLEMS[problem].sde)
    x = torch.ones(3, 2, dtype=torch.float64)
    area = torch.ones(3, 1 if problem == "1 columns" else 2, dtype=torch.float64)
    sdekit.solvers.get(name).step(Field(sde), 0.1, 0.2, x, Increments(0.1 * area, area), None)
    assert calls[0] == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_number_of_x_in_many_coordinates_is_refused(name: str) -> None:
    size = weak.MOST_COLUMNS + 1
    x = torch.ones(2, size, dtype=torch.float64)
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x.mean(1, keepdim=True), "scalar")
    with pytest.raises(OptionError, match=r"257 coordinates.*at most 256"):
        sdekit.solve(sde, x, [0.0, 0.1], name, seed=0)
    fine = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x, "diagonal")
    assert sdekit.solve(fine, x, [0.0, 0.1], name, seed=0).success


@pytest.mark.parametrize("name", NAMES)
def test_images_and_gradients(name: str) -> None:
    """States of any rank; gradients with respect to a parameter of g are those of finite differences."""

    def end(size: Tensor, kind: str) -> Tensor:
        x = torch.linspace(0.2, 1, 12, dtype=torch.float64).reshape(2, 2, 3)
        g = {
            "general": lambda t, x: size * torch.stack([x, x.flip(1), 1 + 0 * x], -1),
            "scalar": lambda t, x: size * x.mean((1, 2), keepdim=True),
        }[kind]
        return sdekit.solve(sdekit.make_sde(lambda t, x: -x, g, kind), x, [0.0, 0.2, 0.4], name, seed=1).x.sum()  # type: ignore[arg-type]

    for kind in ("general", "scalar"):
        size = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(end(size, kind), size)
        near = [end(torch.tensor(0.3 + d, dtype=torch.float64), kind) for d in (-1e-6, 1e-6)]
        assert float(slope) == pytest.approx(float(near[1] - near[0]) / 2e-6, rel=1e-6)


def test_ri5_moves_along_its_noise() -> None:
    """Published, it moves against it: the same law, another path."""
    sde = sdekit.make_sde(lambda t, x: 0 * x, lambda t, x: torch.ones_like(x), additive=False)
    w = torch.tensor([[0.3]], dtype=torch.float64)
    new = sdekit.solvers.get("ri5").step(Field(sde), 0.0, 0.1, torch.zeros_like(w), Increments(w, w), None)[0]
    assert float(new) == pytest.approx(0.3, abs=1e-15)


def test_quadrature_is_exact_to_rounding() -> None:
    """More nodes change nothing that the orders are read from."""
    for name in NAMES:
        few, many = (step_means(sdekit.solvers.get(name), PROBLEMS["2 columns"], 0.02, nodes=n) for n in (6, 10))
        assert few == pytest.approx(many, rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["", ", down"], ids=["up", "down"])
@pytest.mark.parametrize("name", NAMES)
def test_strong_order_one_where_columns_commute(name: str, direction: str) -> None:
    """On one path; the registry's conformance test measures every class."""
    found = sdekit.testing.observed_order(name, "strong", sde_problems()["commutative" + direction])
    assert found.reaches(tolerance=0.15) and found.value <= 1.25, str(found)
