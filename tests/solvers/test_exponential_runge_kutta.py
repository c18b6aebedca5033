"""Exponential Runge-Kutta methods are the papers', to rounding, and meet their order conditions."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sdekit import EDM, VP, RectifiedFlow, solvers
from sdekit.errors import OptionError
from sdekit.math.phi import phis
from sdekit.plan import Plan, interpret
from sdekit.solvers.exponential_tableau import (
    COX_MATTHEWS,
    HOCHBRUCK_OSTERMANN,
    KROGSTAD,
    ExponentialTableau,
    Weight,
    three_stages,
    two_stages,
)
from tests.solvers import papers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, nonlinear, times

BOUND = 1e-12
CASES = [
    ("res_2s", {}),
    ("res_2s", {"c2": 0.7}),
    ("exp_heun_2_x0", {}),
    ("exp_heun_2_x0", {"second": "half"}),
    ("etdrk3", {}),
    ("etdrk3", {"c2": 0.3, "c3": 0.9}),
    ("res_3s", {}),
    ("res_3s", {"c3": 0.75, "as_released": True}),
    ("etdrk4", {}),
    ("etdrk4", {"form": "cox_matthews"}),
    ("hochbruck_ostermann", {}),
]
BOTH = [(n, {**o, "prediction": p}) for n, o in CASES for p in ("data", "noise")]


def ours(plan: Plan) -> float:
    return interpret(plan, nonlinear, 2.3 * plan.start[0])


def planned(process, name: str, lambdas=LAMBDAS, **options) -> Plan:
    return solvers.get(name, **options).plan(process, times(process, lambdas), 0.0)


# The formulas as published, for u' = c u + N(t, u): one step of length h. f is N, E and the like are as there.


def phi(k: int, z: float) -> float:
    """By the definition, from far away, or by the series."""
    if abs(z) > 0.5:
        value = math.exp(z)
        for j in range(k):
            value = (value - 1 / math.factorial(j)) / z
        return value
    return math.fsum(z**n / math.factorial(n + k) for n in range(25))


def cox_matthews(c: float, h: float, u: float, N: Callable) -> float:
    """Cox and Matthews 2002, ETD4RK: the inner stages as exponentials, the last step by phi functions."""
    half = math.exp(c * h / 2)
    a = u * half + (half - 1) * N(0, u) / c
    b = u * half + (half - 1) * N(0.5, a) / c
    d = a * half + (half - 1) * (2 * N(0.5, b) - N(0, u)) / c
    z = c * h
    f1 = phi(1, z) - 3 * phi(2, z) + 4 * phi(3, z)
    f2, f3 = phi(2, z) - 2 * phi(3, z), -phi(2, z) + 4 * phi(3, z)
    return u * math.exp(z) + h * (f1 * N(0, u) + 2 * f2 * (N(0.5, a) + N(0.5, b)) + f3 * N(1, d))


def table(c: float, h: float, u: float, N: Callable, nodes: list[float], a: list[list[float]], b: list[float]) -> float:
    """The step of a table whose first column is what the row sums leave."""
    z, slopes = c * h, [N(0, u)]
    for node, row in zip(nodes, a, strict=True):
        first = node * phi(1, node * z) - sum(row)
        total = sum(w * k for w, k in zip((first, *row), slopes, strict=True))
        slopes.append(N(node, math.exp(node * z) * u + h * total))
    first = phi(1, z) - sum(b)
    return math.exp(z) * u + h * sum(w * k for w, k in zip((first, *b), slopes, strict=True))


def krogstad(c: float, h: float, u: float, N: Callable) -> float:
    z = c * h
    a = [[], [phi(2, z / 2)], [0.0, 2 * phi(2, z)]]
    middle = 2 * phi(2, z) - 4 * phi(3, z)
    return table(c, h, u, N, [0.5, 0.5, 1.0], a, [middle, middle, 4 * phi(3, z) - phi(2, z)])


def hochbruck_ostermann(c: float, h: float, u: float, N: Callable) -> float:
    z = c * h
    a52 = phi(2, z / 2) / 2 - phi(3, z) + phi(2, z) / 4 - phi(3, z / 2) / 2
    a = [[], [phi(2, z / 2)], [phi(2, z), phi(2, z)], [a52, a52, phi(2, z / 2) / 4 - a52]]
    b = [0.0, 0.0, -phi(2, z) + 4 * phi(3, z), 4 * phi(2, z) - 8 * phi(3, z)]
    return table(c, h, u, N, [0.5, 0.5, 1.0, 0.5], a, b)


def etdrk2(c2: float, half: bool = False) -> Callable:
    def step(c: float, h: float, u: float, N: Callable) -> float:
        z = c * h
        return table(c, h, u, N, [c2], [[]], [phi(1, z) / (2 * c2) if half else phi(2, z) / c2])

    return step


def etdrk3(c2: float, c3: float, released: bool = False) -> Callable:
    gamma = (3 * c3 ** (3 if released else 2) - 2 * c3) / (c2 * (2 - 3 * c2))

    def step(c: float, h: float, u: float, N: Callable) -> float:
        z = c * h
        a32 = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
        b3 = phi(2, z) / (gamma * c2 + c3)
        return table(c, h, u, N, [c2, c3], [[], [a32]], [gamma * b3, b3])

    return step


PUBLISHED = [
    etdrk2(0.5),
    etdrk2(0.7),
    etdrk2(1.0),
    etdrk2(1.0, half=True),
    etdrk3(1 / 3, 2 / 3),
    etdrk3(0.3, 0.9),
    etdrk3(0.5, 1.0),
    etdrk3(0.5, 0.75, released=True),
    krogstad,
    cox_matthews,
    hochbruck_ostermann,
]


def published(process, step: Callable, prediction: str, x: float) -> float:
    """Over LAMBDAS, in y = x / alpha with y' = -y + data or y = x / sigma with y' = y - noise."""
    at = papers.scales_of(process)
    data = prediction == "data"
    own = 0 if data else 1
    y = x / at(LAMBDAS[0])[own]
    for ls, lt in itertools.pairwise(LAMBDAS):

        def N(c: float, y: float, ls: float = ls, lt: float = lt) -> float:
            lam = ls + c * (lt - ls)
            point = y * at(lam)[own]
            return papers.data(at, lam, point) if data else -papers.noise(at, lam, point)

        y = step(-1.0 if data else 1.0, lt - ls, y, N)
    return y * at(LAMBDAS[-1])[own]


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{i}")
def test_methods_are_the_papers(i: int, prediction: str) -> None:
    name, options = CASES[i]
    for process in PROCESSES[:4]:
        plan = planned(process, name, **options, prediction=prediction)
        want = published(process, PUBLISHED[i], prediction, 2.3 * plan.start[0])
        assert abs(ours(plan) - want) <= BOUND * max(abs(want), 1.0), process
        other = published(process, PUBLISHED[i - 1], prediction, 2.3 * plan.start[0])
        assert abs(ours(plan) - other) > 1e6 * BOUND  # the mutant: any other method of the list


# Order conditions.


def at(weight: Weight, z: float) -> float:
    return sum(w * phis(3, c * z)[k] for w, k, c in weight)


def residuals(tableau: ExponentialTableau, z: float) -> tuple[float, ...]:
    """Of conditions of stiff order (Hochbruck and Ostermann 2005), with psi_i = c_i^2 phi_2(c_i z) - sum_j a_ij c_j.

    Order 2: sum b c = phi_2. Order 3: sum b c^2 / 2 = phi_3 and sum b psi = 0. Order 4: sum_i b_i sum_j a_ij psi_j = 0.
    """
    b, c = [at(w, z) for w in tableau.b], tableau.c
    a = [[at(w, z) for w in row] for row in tableau.a]
    psi = [v**2 * phis(2, v * z)[2] - sum(map(operator.mul, row, c)) for v, row in zip(c, a, strict=True)]
    inner = [sum(map(operator.mul, row, psi)) for row in a]
    p = phis(3, z)
    moments = [sum(w * v**k for w, v in zip(b, c, strict=True)) for k in (1, 2)]
    sums = [sum(map(operator.mul, b, values)) for values in (psi, inner)]
    return moments[0] - p[2], moments[1] / 2 - p[3], *sums


@pytest.mark.parametrize("z", [-8.0, -1.0, -0.1, 0.4, 3.0])
def test_conditions_of_stiff_order(z: float) -> None:
    """For every z Hochbruck and Ostermann's method has all four, Krogstad's three and Cox and Matthews's two; all four
    are there at z = 0, which is what the order on a flow in lambda takes."""
    for tableau, count in ((HOCHBRUCK_OSTERMANN, 4), (KROGSTAD, 3), (COX_MATTHEWS, 2)):
        found = residuals(tableau, z)
        assert max(map(abs, found[:count])) < 1e-14 * math.exp(max(z, 0)), tableau.name
        assert not found[count:] or abs(found[count]) > 1e-5, tableau.name
        assert max(map(abs, residuals(tableau, 0.0))) < 1e-16, tableau.name


def slope(solver, steps: int = 40) -> float:
    """log2 of what twice the steps do to the error, from several starts, against many steps of order 4."""

    def ends(solver, n: int) -> np.ndarray:
        plan = solver.plan(VP(), times(VP(), np.linspace(-1.0, 1.5, n + 1)), 0.0)
        return np.array([interpret(plan, nonlinear, y * plan.start[0]) for y in (-2.1, -0.4, 0.7, 1.3, 2.9)])

    want = ends(solvers.get("etdrk4"), 200)
    coarse, fine = (np.linalg.norm(ends(solver, n) - want) for n in (steps, 2 * steps))
    return math.log2(coarse / fine)


def test_order_three_needs_its_gamma() -> None:
    assert three_stages(0.5, 1.0, 4.0).order == 3
    assert three_stages(0.5, 0.75, 0.75).order == 3
    assert three_stages(0.5, 0.75, -0.9375).order == 2  # with c3^3 for c3^2
    right, wrong = (solvers.get("res_3s", c3=0.75, as_released=k) for k in (False, True))
    assert right.declared.deterministic == 3 and slope(right) == pytest.approx(3, abs=0.15)
    assert wrong.declared.deterministic == 2 and slope(wrong) == pytest.approx(2, abs=0.15)
    # Where it is released, at c3 = 1, nothing is wrong.
    released = planned(VP(), "res_3s", as_released=True)
    assert released.rows == planned(VP(), "res_3s").rows


def test_tables_check_themselves() -> None:
    good = two_stages(0.5)
    with pytest.raises(OptionError, match="phi_1"):
        ExponentialTableau("bad", 2, good.a, (good.b[0], ((2.0, 2, 0.5),)), good.c)
    with pytest.raises(OptionError, match="phi_1"):
        ExponentialTableau("bad", 2, ((), (((0.5, 1, 1.0),),)), good.b, good.c)
    with pytest.raises(OptionError, match="entries"):
        ExponentialTableau("bad", 2, (good.a[1], ()), good.b, good.c)


# Equal names.


def test_names_for_one_thing() -> None:
    for process in (VP(), EDM(), RectifiedFlow()):
        for p in ("data", "noise"):
            pairs = [
                (("etdrk3", {}), ("dpm_solver_3", {})),
                (("etdrk3", {"c2": 0.5, "c3": 1.0}), ("res_3s", {})),
                (("res_2s", {}), ("dpmpp_2s", {"second": "exact"})),
                (("exp_heun_2_x0", {"second": "half"}), ("dpmpp_2s", {"r1": 1.0})),
                (("exp_heun_2_x0", {}), ("res_2s", {"c2": 1.0})),
            ]
            for (a, options), (b, others) in pairs:
                want = ours(planned(process, b, **others, prediction=p))
                assert ours(planned(process, a, **options, prediction=p)) == pytest.approx(want, rel=1e-13), (a, b)
    # One that is not: phi_1 / 2 for phi_2.
    assert abs(ours(planned(VP(), "res_2s")) - ours(planned(VP(), "dpmpp_2s"))) > 1e-4
    starter = solvers.get("exp_adams", order=3, starter="single_step").plan(VP(), times(VP()), 0.0).rows[:4]
    assert list(starter) == list(planned(VP(), "etdrk4").rows[:4])


# What any exponential method must do.


@pytest.mark.parametrize("name, options", BOTH)
def test_a_point_mass_is_carried_exactly_on_every_process(name: str, options) -> None:
    for process in PROCESSES:
        for n in (1, 2, 6):
            plan = planned(process, name, LAMBDAS[: n + 1], **options)
            (a, s), (b, t) = plan.start, plan.end
            got = interpret(plan, lambda row, x: 1.7, a * 1.7 + s * 0.9)
            assert got == pytest.approx(b * 1.7 + t * 0.9, rel=1e-13, abs=1e-13 * (b + t))


@pytest.mark.parametrize("name, options", BOTH)
def test_all_processes_give_one_sampler_in_x_over_alpha(name: str, options) -> None:
    plans = [planned(p, name, **options) for p in PROCESSES]
    ends = [ours(p) / p.end[0] for p in plans]
    assert ends == pytest.approx([ends[0]] * len(ends), rel=1e-13)


@pytest.mark.parametrize("name, options", CASES)
def test_calls_and_limits_at_the_ends(name: str, options) -> None:
    solver = solvers.get(name, **options)
    stages = solver.tableau.stages
    grid = torch.linspace(1.0, 0.0, 5, dtype=torch.float64).tolist()
    plan = solver.plan(RectifiedFlow(), grid)  # alpha = 0 at 1, sigma = 0 at 0
    assert [sum(r.step == n for r in plan.rows) for n in range(4)] == [1, stages, stages, 1]
    assert interpret(plan, lambda row, x: 1.7, 0.4) == pytest.approx(1.7, rel=1e-13)
    law = solver.plan(RectifiedFlow(), grid[::-1]).gaussian_moments(1.7, 0.3)  # upwards, to noise
    assert float(law.mean) == pytest.approx(0, abs=1e-12) and float(law.cov) == pytest.approx(1, abs=0.3)


ROUND_TRIPS = {
    "res_2s": 3,
    "exp_heun_2_x0": 3,
    "dpmpp_2s": 3,
    "etdrk3": 3,
    "etdrk4": 5,
    "hochbruck_ostermann": 5,
    "ddim": 1,
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_up_and_down_again_is_of_order_p_rounded_up_to_odd(name: str) -> None:
    """The leading error of a step of even order changes sign with h: up and down cancel it. Of odd order not."""

    def gap(n: int) -> float:
        grid = times(VP(), np.linspace(-1.0, 1.5, n + 1))
        down, up = (solvers.get(name).plan(VP(), g, 0.0) for g in (grid, grid[::-1]))
        starts = [y * up.start[0] for y in (-2.1, -0.4, 0.7, 1.3, 2.9)]
        return math.dist([interpret(down, nonlinear, interpret(up, nonlinear, x)) for x in starts], starts)

    assert math.log2(gap(20) / gap(40)) == pytest.approx(ROUND_TRIPS[name], abs=0.15)


def test_options_are_checked() -> None:
    wrong = [
        ("etdrk4", {"form": "kutta"}),
        ("etdrk4", {"prediction": "score"}),
        ("res_2s", {"c2": 0.0}),
        ("etdrk3", {"c2": 2 / 3, "c3": 1.0}),
        ("etdrk3", {"c2": 0.5, "c3": 0.5}),
        ("res_3s", {"c3": 1.2}),
        ("res_3s", {"c2": 0.25, "c3": 0.5, "as_released": True}),
        ("res_3s", {"as_released": 1}),
        ("exp_heun_2_x0", {"second": "phi_2"}),
    ]
    for name, options in wrong:
        with pytest.raises(OptionError):
            solvers.get(name, **options)
    assert solvers.get("etdrk3", c2=2 / 3, c3=2 / 3).declared.deterministic == 3
