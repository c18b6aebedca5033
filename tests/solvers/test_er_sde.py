"""ER-SDE-Solver is the paper's, to rounding; the released one is told apart, with the order that it has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from sdekit import EDM, RectifiedFlow, solvers
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.plan import interpret
from sdekit.solvers.er_sde import NOISE_SCALES
from sdekit.testing import observed_order
from tests.solvers.test_properties import LAMBDAS, PROCESSES, At, draw, nonlinear, times

PHI: dict[str, Callable[[float], float]] = {
    "ode": lambda x: x,
    "sde": lambda x: x**2,
    "sde_1": lambda x: x * (math.exp(-1 / x) + 10),
    "sde_2": lambda x: x**1.5,
    "sde_3": lambda x: x**2.5,
    "sde_4": lambda x: x**0.9 * math.log10(1 + 100 * x**1.5),
    "sde_5": lambda x: x * (math.exp(x**0.3) + 10),
}
U, W = (v.tolist() for v in np.polynomial.legendre.leggauss(60))


def integral(f: Callable[[float], float], low: float, high: float) -> float:
    """In log rho, by one Gauss rule."""
    a, b = math.log(low), math.log(high)
    nodes = [math.exp(a + 0.5 * (u + 1) * (b - a)) for u in U]
    return 0.5 * (b - a) * sum(w * r * f(r) for w, r in zip(W, nodes, strict=True))


def er_sde(rho: list[float], y: float, order: int, phi: Callable[[float], float], released: bool) -> float:
    """The updates of orders 1 to 3 in y = x / alpha, with exact integrals of 1 / phi or the released sums; for the
    third order the derivative at rho_s is that of the parabola unless as released."""
    old: list[tuple[float, float]] = []
    for i, (s, t) in enumerate(itertools.pairwise(rho)):
        old.insert(0, (s, nonlinear(At(1.0, s), y)))
        r = phi(t) / phi(s)
        new = r * y + (1 - r) * old[0][1]
        if order > 1 and i > 0:
            d1 = (old[0][1] - old[1][1]) / (s - old[1][0])
            if released:
                points = [t + k / 100 * (s - t) for k in range(100)]
                first = sum(1 / phi(p) for p in points) * (s - t) / 100
                second = sum((p - s) / phi(p) for p in points) * (s - t) / 100
            else:
                first = integral(lambda p: 1 / phi(p), t, s)
                second = integral(lambda p, s=s: (p - s) / phi(p), t, s)
            d2 = 0.0
            if order > 2 and i > 1:
                before = (old[1][1] - old[2][1]) / (old[1][0] - old[2][0])
                d2 = 2 * (d1 - before) / (s - old[2][0])
                d1 += 0.0 if released else 0.5 * d2 * (s - old[1][0])
            new += (t - s + first * phi(t)) * d1 + ((t - s) ** 2 / 2 + second * phi(t)) * d2
        variance = t**2 - s**2 * r**2
        y = new + (math.sqrt(variance) * draw(i, 0) if variance > 1e-9 * t**2 else 0.0)  # the rest is rounding
    return y


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("scale", PHI)
def test_every_noise_scale_is_the_papers(scale: str, order: int, released: bool) -> None:
    rho = [math.exp(-v) for v in LAMBDAS]
    want = er_sde(rho, 2.3, order, PHI[scale], released)
    for process in PROCESSES[:2]:
        solver = solvers.get("er_sde", order=order, noise_scale=scale, as_released=released)
        plan = solver.plan(process, times(process))
        got = interpret(plan, nonlinear, 2.3 * plan.start[0], draw) / plan.end[0]
        assert got == pytest.approx(want, rel=1e-12)
    if order > 1:
        assert abs(er_sde(rho, 2.3, order, PHI[scale], not released) - want) > 1e-5


@pytest.mark.parametrize("scale", PHI)
def test_slopes_are_those_of_the_functions(scale: str) -> None:
    for rho in (1e-3, 0.2, 1.0, 3.0, 40.0):
        step = 1e-5
        high, low = (math.log(PHI[scale](rho * math.exp(v)) / (rho * math.exp(v))) for v in (step, -step))
        phi = NOISE_SCALES[scale]
        assert phi.slope(rho) == pytest.approx((high - low) / (2 * step), abs=1e-8)
        assert phi.log_gain(rho) - phi.log_gain(1.0) == pytest.approx(
            math.log(PHI[scale](rho) / rho) - math.log(PHI[scale](1.0)), abs=1e-12
        )


def test_three_predictions_integrate_a_parabola_in_rho() -> None:
    """The released weights do not, with its sums or with exact ones."""
    grid, rho = times(EDM()), [math.exp(-v) for v in LAMBDAS]
    phi, s, t = PHI["sde_5"], rho[-2], rho[-1]
    exact = integral(lambda r: phi(t) / phi(r) * (1 + NOISE_SCALES["sde_5"].slope(r)) / r * r**2, t, s)
    found = {}
    for released in (False, True):
        row = solvers.get("er_sde", as_released=released).plan(EDM(), grid).rows[-1]
        assert row.base is not None
        found[released] = sum(float(w) * rho[-2 - age] ** 2 for age, w in row.base.outputs)  # type: ignore[arg-type]
    assert found[False] == pytest.approx(exact, rel=1e-12)
    assert abs(found[True] - exact) > 0.1 * exact


@pytest.mark.parametrize("scale", [s for s in PHI if s != "ode"])
def test_laws_that_are_exact(scale: str) -> None:
    """Data that is a point; the mean of any Gaussian where the stochasticity is 1."""
    for process, order, n in itertools.product(PROCESSES[::2], (1, 3), (1, 6)):
        plan = solvers.get("er_sde", order=order, noise_scale=scale).plan(process, times(process, LAMBDAS[: n + 1]))
        law = plan.gaussian_moments(1.7, 0.0)
        assert float(law.mean) == pytest.approx(plan.end[0] * 1.7, rel=1e-13)
        assert float(law.cov) == pytest.approx(plan.end[1] ** 2, rel=1e-13)
        if scale == "sde":
            (a, s), (b, t), c, m, x = plan.start, plan.end, 0.3, 0.7, 1.9
            slope = (b * a * c + a / b * t**2) / (a**2 * c + s**2)
            law = plan.gaussian_moments(m, c, start_mean=x, start_cov=0.0)
            assert float(law.mean) == pytest.approx(b * m + slope * (x - a * m), rel=1e-12)


def test_released_sums_leave_order_one() -> None:
    """A hundredth of it: order 2 shows at few steps, and less and less at many."""
    solver = solvers.get("er_sde", order=3, as_released=True)
    assert solver.declared.weak == 1
    found = observed_order(solver, "weak", steps=(20, 80, 320, 640))
    assert found.slopes[0] > 1.7 and found.slopes[-1] < 1.35, str(found)


def test_from_no_data_each_function_takes_its_limit() -> None:
    for scale, kept in (("sde_5", 0.0), ("sde", 0.0), ("sde_1", (math.exp(-1) + 10) / 11)):
        plan = solvers.get("er_sde", noise_scale=scale).plan(RectifiedFlow(), [1.0, 0.5, 0.2])
        law = solvers.get("er_sde", noise_scale=scale).plan(RectifiedFlow(), [1.0, 0.5]).gaussian_moments(1.7, 0.0)
        row = plan.rows[0].base
        assert row is not None and row.base == pytest.approx(0.5 * kept, abs=1e-15)
        assert float(law.cov) == pytest.approx(0.25, rel=1e-13)
    for grid, process in (([1.0, 0.5], RectifiedFlow()), ([3e3, 2e3, 1e3], EDM())):
        with pytest.raises(OptionError, match=r"noise_scale.*sde_5"):
            solvers.get("er_sde", noise_scale="sde_4").plan(process, grid)


def test_what_is_refused() -> None:
    with pytest.raises(SolverMismatchError, match="increasing"):
        solvers.get("er_sde").plan(EDM(), [0.1, 1.0])
    assert solvers.get("er_sde", noise_scale="ode").plan(EDM(), [0.1, 1.0]).nfe == 1
    for options in ({"order": 4}, {"order": 0}, {"noise_scale": "SDE"}, {"as_released": 1}):
        with pytest.raises(OptionError):
            solvers.get("er_sde", **options)
