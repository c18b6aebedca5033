"""What the coefficients of exponential methods must satisfy exactly, on any process, grid and stochasticity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdekit import EDM, VE, VP, Heat, OrnsteinUhlenbeck, Plan, RectifiedFlow, solvers
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import DATA, NOISE, interpret
from sdekit.solvers.exponential import exponential_step, krogstad_rows

F64 = torch.float64
PROCESSES = [VP(), VE(0.02, 30.0), EDM(), RectifiedFlow(), OrnsteinUhlenbeck(0.8, 1.1), Heat(1.7)]


@st.composite
def problems(draw) -> tuple:
    """A process and a grid between lambda = -4 and 6, random and uneven."""
    process = draw(st.sampled_from(PROCESSES))
    low, high = max(-4.0, float(process.half_log_snr(min(process.domain[1], 1e4)))), 6.0
    if isinstance(process, VE):
        high = -math.log(process.schedule.sigma_min)
    n = draw(st.integers(1, 6))
    widths = np.array(draw(st.lists(st.floats(0.02, 1.0), min_size=n, max_size=n)))
    edges = np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])
    lam = torch.tensor(low + 1e-6 + (high - low - 2e-6) * edges * draw(st.floats(0.2, 1.0)), dtype=F64)
    return process, process.time_at(lam).tolist()


taus = st.one_of(st.just(0.0), st.floats(0.05, 3.0), st.sampled_from([lambda t: 0.3 + t / (1 + t), lambda t: 1.0]))
ADAMS = st.builds(
    lambda order, prediction, final: solvers.get("exp_adams", order=order, prediction=prediction, final_order=final),
    st.integers(1, 5),
    st.sampled_from(["data", "noise"]),
    st.sampled_from([None, 1]),
)


def check_rows(plan: Plan, process, exact_variance: bool) -> None:
    """The identities of one-row steps; on failure they say which."""
    levels = process.levels(list(plan.times))
    for row, s, t in zip(plan.rows, levels[:-1], levels[1:], strict=True):
        a, b = row.base.base, sum(v for _, v in row.base.outputs)
        std = sum(v for _, v in row.base.noises)
        size = abs(a) + sum(abs(v) for _, v in row.base.outputs)
        if row.weights == DATA:
            # A constant prediction x_0 with x = alpha_s x_0 lands on alpha_t x_0.
            assert abs(a * s.alpha + b - t.alpha) <= 1e-14 * max(size, 1)
            if exact_variance:
                # The noise in x shrinks and is topped up to sigma_t.
                assert abs((a * s.sigma) ** 2 + std**2 - t.sigma**2) <= 1e-14 * (t.sigma**2 + s.sigma**2)
        else:
            assert abs(a - t.alpha / s.alpha) <= 1e-15 * a
            if std == 0:
                assert abs(a * s.sigma + b - t.sigma) <= 1e-13 * max(size * s.sigma, t.sigma)


@settings(max_examples=50)
@given(problems(), taus, ADAMS)
def test_row_sums_and_variances_of_exponential_adams(problem, tau, solver) -> None:
    process, times = problem
    check_rows(solver.plan(process, times, tau), process, exact_variance=True)


@settings(max_examples=50)
@given(problems(), taus, st.sampled_from(["half", "exact"]))
def test_row_sums_and_variances_of_2m(problem, tau, second: str) -> None:
    process, times = problem
    check_rows(solvers.get("dpmpp_2m", second=second).plan(process, times, tau), process, exact_variance=True)
    kappa = tau if isinstance(tau, float) else 1.0
    check_rows(solvers.get("dpmpp_2m_sde", eta=kappa**2, second=second).plan(process, times), process, True)


@settings(max_examples=40)
@given(problems(), st.floats(0.0, 1.0))
def test_row_sums_and_variances_of_ddim_and_ddpm(problem, eta: float) -> None:
    process, times = problem
    check_rows(solvers.get("ddim", eta=eta).plan(process, times), process, exact_variance=True)
    check_rows(solvers.get("ddpm").plan(process, times), process, exact_variance=True)
    check_rows(solvers.get("ddpm", variance="beta").plan(process, times), process, exact_variance=False)


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_a_planted_mistake_breaks_the_identities(prediction: str) -> None:
    # sigma_s for sigma_t in the last coefficient; a factor 2 in the noise.
    plan = solvers.get("exp_adams", order=3, prediction=prediction).plan(
        VP(), [0.9, 0.6, 0.4, 0.2], 0.0 if prediction == "noise" else 1.0
    )
    row = plan.rows[2]
    outputs = tuple((age, 1.01 * b) if age == 0 else (age, b) for age, b in row.base.outputs)
    noises = tuple((k, math.sqrt(2) * b) for k, b in row.base.noises)
    for change in ({"outputs": outputs}, {"noises": noises}):
        if change == {"noises": ()}:
            continue
        wrong = dataclasses.replace(row, base=dataclasses.replace(row.base, **change))
        with pytest.raises(AssertionError):
            check_rows(dataclasses.replace(plan, rows=(*plan.rows[:2], wrong)), VP(), exact_variance=True)


@settings(max_examples=15)
@given(problems(), taus)
def test_weights_integrate_polynomials_exactly(problem, tau) -> None:
    """b_j against 60-point quadrature of the exact solution, for each power of the clock up to the number of nodes."""
    process, times = problem
    s, t = process.levels(times[:2])
    h = t.half_log_snr - s.half_log_snr
    x, w = gauss_legendre(32 if callable(tau) else 60)

    def kappa2(lam: float) -> float:
        return (tau(float(process.time_at(lam))) if callable(tau) else tau) ** 2

    def rest(u: float) -> float:
        return (
            (1 - u) * h * sum(wi * kappa2(s.half_log_snr + (u + (1 - u) * xi) * h) for xi, wi in zip(x, w, strict=True))
        )

    if callable(tau):
        x, w = gauss_legendre(24)
    for prediction in ("data", "noise"):
        step = exponential_step(process, s, t, prediction, tau)
        for nodes in ([0.0], [0.0, -0.7], [0.0, -0.7, -1.9]):
            b = step.weights(nodes)
            for k in range(len(nodes)):
                got = sum(bj * r**k for bj, r in zip(b, nodes, strict=True))
                want = 0.0
                for u, wi in zip(x, w, strict=True):
                    c = 1 + kappa2(s.half_log_snr + u * h)
                    if prediction == "data":
                        want += wi * h * t.alpha * c * math.exp(-(1 - u) * h - rest(u)) * u**k
                    else:
                        want -= wi * h * t.sigma * c * math.exp((1 - u) * h) * u**k
                assert got == pytest.approx(want, rel=1e-9 if callable(tau) else 1e-11, abs=1e-12)


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_a_constant_function_tau_is_the_number(prediction: str) -> None:
    times = [0.9, 0.6, 0.4, 0.2]
    for kappa in (0.0, 0.5, 1.0, 2.0):
        solver = solvers.get("exp_adams", order=3, prediction=prediction)
        a, b = (solver.plan(VP(), times, k) for k in (kappa, lambda t, k=kappa: k))
        for p, q in zip(a.rows, b.rows, strict=True):
            ours = [p.base.base, *(v for _, v in p.base.outputs), *(v for _, v in p.base.noises)]
            theirs = [q.base.base, *(v for _, v in q.base.outputs), *(v for _, v in q.base.noises)]
            assert ours == pytest.approx(theirs, rel=1e-12)


def polynomial_step(plan: Plan, process, prediction: str, q: Callable[[float], float]) -> tuple[float, float]:
    """The last step of a plan and the exact solution, for a prediction that is q(lambda), exact history given."""
    s, t = process.levels(list(plan.times))[-2:]
    lam = [process.levels([r.t])[0].half_log_snr for r in plan.rows]
    x, last = 0.37, plan.rows[-1].base
    got = last.base * x + sum(b * q(lam[-1 - age]) for age, b in last.outputs)
    nodes, w = gauss_legendre(40)
    h = t.half_log_snr - s.half_log_snr
    if prediction == "data":
        want = t.sigma / s.sigma * x + sum(
            wi * h * t.alpha * math.exp(-(1 - u) * h) * q(s.half_log_snr + u * h)
            for u, wi in zip(nodes, w, strict=True)
        )
    else:
        want = t.alpha / s.alpha * x - sum(
            wi * h * t.sigma * math.exp((1 - u) * h) * q(s.half_log_snr + u * h) for u, wi in zip(nodes, w, strict=True)
        )
    return got, want


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_one_step_is_exact_for_degree_p_minus_1_and_not_for_p(process, prediction: str, order: int) -> None:
    lam = np.array([-1.5, -1.1, -0.4, 0.0, 0.5, 1.2])
    plan = solvers.get("exp_adams", order=order, prediction=prediction).plan(
        process, process.time_at(torch.tensor(lam))
    )
    for degree in range(order):
        got, want = polynomial_step(plan, process, prediction, lambda v, d=degree: (v - 0.3) ** d)
        assert got == pytest.approx(want, rel=1e-12, abs=1e-12)
    got, want = polynomial_step(plan, process, prediction, lambda v: (v - 0.3) ** order)
    assert abs(got - want) > 1e-4


def test_half_weights_are_exact_for_constants_only() -> None:
    times = VP().time_at(torch.tensor([-1.0, -0.3, 0.4, 1.1], dtype=F64))
    half, exact = (solvers.get("dpmpp_2m", second=k).plan(VP(), times) for k in ("half", "exact"))
    for degree, plan, right in ((0, half, True), (1, half, False), (1, exact, True), (2, exact, False)):
        got, want = polynomial_step(plan, VP(), "data", lambda v, d=degree: (v - 0.3) ** d)
        assert (abs(got - want) < 1e-13) == right and (right or abs(got - want) > 1e-2)


def test_exact_second_order_is_exponential_adams() -> None:
    times = [0.9, 0.6, 0.4, 0.2, 0.05]
    for kappa in (0.0, 1.0):
        a = solvers.get("dpmpp_2m", second="exact").plan(VP(), times, kappa)
        b = solvers.get("exp_adams", order=2).plan(VP(), times, kappa)
        assert a.rows == b.rows


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_krogstad_against_the_textbook(prediction: str) -> None:
    """ETDRK4 for u' = c u + N(lambda, u) written out with phi functions by quadrature."""
    process = VP()
    s, t = process.levels(process.time_at(torch.tensor([-0.3, 0.6], dtype=F64)))
    (mid,) = process.levels_at([0.15])
    h = t.half_log_snr - s.half_log_snr
    z = -h if prediction == "data" else h
    nodes, w = gauss_legendre(40)

    def phi(k: int, v: float) -> float:
        return sum(
            wi * math.exp((1 - u) * v) * u ** (k - 1) / math.factorial(k - 1) for u, wi in zip(nodes, w, strict=True)
        )

    def N(lam: float, y: float) -> float:
        return math.sin(2 * lam + y) + 0.3 * y**2

    # In lambda, y = x / alpha obeys y' = -y + data, and y = x / sigma obeys y' = y - noise.
    sign = 1.0 if prediction == "data" else -1.0
    scale = [lv.alpha if prediction == "data" else lv.sigma for lv in (s, mid, t)]
    y, e, eh, half = 0.7, math.exp(z), math.exp(z / 2), z / 2
    lam = [s.half_log_snr, mid.half_log_snr, t.half_log_snr]
    N1 = sign * N(lam[0], y)
    y2 = eh * y + h * 0.5 * phi(1, half) * N1
    N2 = sign * N(lam[1], y2)
    y3 = eh * y + h * ((0.5 * phi(1, half) - phi(2, half)) * N1 + phi(2, half) * N2)
    N3 = sign * N(lam[1], y3)
    y4 = e * y + h * ((phi(1, z) - 2 * phi(2, z)) * N1 + 2 * phi(2, z) * N3)
    N4 = sign * N(lam[2], y4)
    b = (phi(1, z) - 3 * phi(2, z) + 4 * phi(3, z), 2 * phi(2, z) - 4 * phi(3, z), 4 * phi(3, z) - phi(2, z))
    want = e * y + h * (b[0] * N1 + b[1] * (N2 + N3) + b[2] * N4)

    rows = krogstad_rows(process, 0, s, t, prediction)
    plan = Plan("krogstad", (s.t, t.t), tuple(rows), (s.alpha, s.sigma), (t.alpha, t.sigma), "VP()")
    at = {s.t: scale[0], mid.t: scale[1], t.t: scale[2]}
    where = {s.t: lam[0], mid.t: lam[1], t.t: lam[2]}

    def data(row, x: float) -> float:
        value = N(where[row.t], x / at[row.t])
        return value if prediction == "data" else (x - row.sigma * value) / row.alpha

    assert interpret(plan, data, y * scale[0]) == pytest.approx(want * scale[2], rel=1e-13)
    assert [r.weights for r in rows] == [DATA if prediction == "data" else NOISE] * 4


def test_the_single_step_starter_takes_the_first_p_minus_2_steps() -> None:
    plan = solvers.get("exp_adams", order=4, starter="single_step").plan(VP(), np.linspace(0.9, 0.2, 7))
    assert [sum(r.step == n for r in plan.rows) for n in range(6)] == [4, 4, 1, 1, 1, 1]
    assert [len(r.base.outputs) for r in plan.rows if r.step >= 2] == [3, 4, 4, 4]
    # The history reaches over the starter's inner stages to its first ones.
    assert [age for age, _ in plan.rows[8].base.outputs] == [0, 4, 8]
