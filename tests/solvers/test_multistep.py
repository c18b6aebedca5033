"""lms, deis, ipndm, pndm, plms and their relatives are the published updates, and exact where they must be."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from sdekit import EDM, VP, Plan, RectifiedFlow, solvers
from sdekit.errors import OptionError, SdekitError
from sdekit.plan import interpret
from sdekit.solvers import clocks
from sdekit.solvers.multistep import _released_weights
from sdekit.testing import order_problems
from tests.solvers.test_properties import LAMBDAS, PROCESSES, At, nonlinear, times

BOUND = 1e-12
RHOS = [math.exp(-v) for v in LAMBDAS]
CLOCKS = {
    "lambda": lambda process, lam: lam,
    "rho": lambda process, lam: np.exp(-lam),
    "kappa": lambda process, lam: np.exp(lam),
    "t": lambda process, lam: process.time_at(torch.as_tensor(lam, dtype=torch.float64)).numpy(),
}


@pytest.fixture(params=PROCESSES, ids=lambda p: type(p).__name__)
def process(request):
    return request.param


def planned(process, name: str, lambdas=LAMBDAS, kappa: float | None = None, **options) -> Plan:
    return solvers.get(name, **options).plan(process, times(process, lambdas), kappa)


def ours(plan: Plan, y: float = 2.3) -> float:
    """x / alpha at the end, from x / alpha = y."""
    return interpret(plan, nonlinear, y * plan.start[0]) / plan.end[0]


def noise(rho: float, y: float) -> float:
    return (y - nonlinear(At(1.0, rho), y)) / rho


def lagrange_integrals(nodes: list[float], a: float, b: float) -> list[float]:
    """int_a^b l_j, as polynomials in coefficients."""
    found = []
    for j, center in enumerate(nodes):
        others = [v for i, v in enumerate(nodes) if i != j]
        q = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        q = q.integ() / math.prod(center - v for v in others)
        found.append(float(q(b) - q(a)))
    return found


# What was published, in y = x / alpha and rho.


def sample_lms(order: int, y: float = 2.3) -> float:
    """k-diffusion, with exact integrals."""
    history: list[tuple[float, float]] = []
    for a, b in itertools.pairwise(RHOS):
        history = [(a, noise(a, y)), *history[: order - 1]]
        y += sum(w * d for w, (_, d) in zip(lagrange_integrals([r for r, _ in history], a, b), history, strict=True))
    return y


def sample_ipndm(order: int, y: float = 2.3) -> float:
    table = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    history: list[float] = []
    for a, b in itertools.pairwise(RHOS):
        history = [noise(a, y), *history[: order - 1]]
        y += (b - a) * sum(w * d for w, d in zip(table[len(history)], history, strict=True))
    return y


def sample_gradient_estimation(gamma: float, y: float = 2.3) -> float:
    old = None
    for a, b in itertools.pairwise(RHOS):
        d = noise(a, y)
        y += (b - a) * (d if old is None else gamma * d + (1 - gamma) * old)
        old = d
    return y


def sample_heunpp2(y: float = 2.3) -> float:
    s_end = RHOS[-1]
    for i, (a, b) in enumerate(itertools.pairwise(RHOS)):
        d, dt = noise(a, y), b - a
        if b == s_end:
            y += d * dt
            continue
        y2 = y + d * dt
        d2 = noise(b, y2)
        if RHOS[i + 2] == s_end:
            w2 = b / (2 * RHOS[0])
            y += ((1 - w2) * d + w2 * d2) * dt
            continue
        d3 = noise(RHOS[i + 2], y2 + d2 * (RHOS[i + 2] - b))
        w2, w3 = b / (3 * RHOS[0]), RHOS[i + 2] / (3 * RHOS[0])
        y += ((1 - w2 - w3) * d + w2 * d2 + w3 * d3) * dt
    return y


def sample_res_multistep(y: float = 2.3) -> float:
    old = None
    for i, (ls, lt) in enumerate(itertools.pairwise(LAMBDAS)):
        denoised, h = nonlinear(At(1.0, math.exp(-ls)), y), lt - ls
        if old is None:
            y = math.exp(-h) * y - math.expm1(-h) * denoised
        else:
            c2 = (LAMBDAS[i - 1] - ls) / h
            phi1 = math.expm1(-h) / -h
            phi2 = (phi1 - 1) / -h
            y = math.exp(-h) * y + h * ((phi1 - phi2 / c2) * denoised + phi2 / c2 * old)
        old = denoised
    return y


PUBLISHED = {
    **{f"lms {p}": ("lms", {"order": p}, sample_lms, (p,)) for p in (1, 2, 3, 4, 5)},
    **{f"ipndm_v {p}": ("ipndm_v", {"order": p}, sample_lms, (p,)) for p in (2, 3, 4)},
    **{f"ipndm {p}": ("ipndm", {"order": p}, sample_ipndm, (p,)) for p in (1, 2, 3, 4)},
    **{f"gradient {g}": ("gradient_estimation", {"gamma": g}, sample_gradient_estimation, (g,)) for g in (2.0, 1.5)},
    "heunpp2": ("heunpp2", {}, sample_heunpp2, ()),
    "res_multistep": ("res_multistep", {}, sample_res_multistep, ()),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_updates_are_the_published_ones_on_every_process(process, case: str) -> None:
    name, options, paper, arguments = PUBLISHED[case]
    assert ours(planned(process, name, kappa=0.0, **options)) == pytest.approx(paper(*arguments), rel=BOUND)


def deis_by_quadrature_in_t(process, order: int, x: float) -> float:
    """Zhang and Chen: C_j = int (alpha_t / alpha_tau) g^2 / (2 sigma) l_j(tau) dtau."""
    grid = times(process)
    points, weights = np.polynomial.legendre.leggauss(80)
    history: list[tuple[float, float]] = []
    for s, t in itertools.pairwise(grid):
        a, sigma = float(process.alpha(s)), float(process.sigma(s))
        history = [(s, (x - a * nonlinear(At(a, sigma), x)) / sigma), *history[: order - 1]]
        tau = s + (points + 1) / 2 * (t - s)
        at = torch.tensor(tau, dtype=torch.float64)
        kernel = (process.alpha(t) / process.alpha(at) * process.diffusion_coefficient(at) ** 2).numpy()
        kernel *= weights / 2 * (t - s) / (2 * process.sigma(at).numpy())
        x *= float(process.alpha(t)) / a
        for j, (_, e) in enumerate(history):
            others = [v for i, (v, _) in enumerate(history) if i != j]
            x += e * float(kernel @ np.prod([(tau - v) / (history[j][0] - v) for v in others] or [1.0 + 0 * tau], 0))
    return x


@pytest.mark.parametrize("order", [2, 3, 4])
def test_deis_in_t_is_the_papers(process, order: int) -> None:
    plan = planned(process, "deis", order=order)
    x = 2.3 * plan.start[0]
    assert interpret(plan, nonlinear, x) == pytest.approx(deis_by_quadrature_in_t(process, order, x), rel=BOUND)


def transfer(x: float, a: float, b: float, e: float) -> float:
    """Liu et al.: the change of x, with a and b the squares of alpha before and after, on VP."""
    first = x / (math.sqrt(a) * (math.sqrt(a) + math.sqrt(b)))
    second = e / (math.sqrt(a) * (math.sqrt((1 - b) * a) + math.sqrt((1 - a) * b)))
    return x + (b - a) * (first - second)


def pndm_of_the_paper(method: str, x: float) -> float:
    """F-PNDM, S-PNDM and, as latent diffusion has it, PLMS."""
    process, ets = VP(), []

    def abar(t: float) -> float:
        return float(process.alpha(t)) ** 2

    def model(x: float, t: float) -> float:
        a = math.sqrt(abar(t))
        return (x - a * nonlinear(At(a, math.sqrt(1 - a * a)), x)) / math.sqrt(1 - a * a)

    for n, (s, t) in enumerate(itertools.pairwise(times(process))):
        mid = (s + t) / 2
        e1 = model(x, s)
        ets.append(e1)
        if method == "F" and n < 3:
            e2 = model(transfer(x, abar(s), abar(mid), e1), mid)
            e3 = model(transfer(x, abar(s), abar(mid), e2), mid)
            e4 = model(transfer(x, abar(s), abar(t), e3), t)
            e = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        elif n == 0:
            e = (e1 + model(transfer(x, abar(s), abar(t), e1), t)) / 2
        elif method == "S" or n == 1:
            e = (3 * ets[-1] - ets[-2]) / 2
        elif n == 2:
            e = (23 * ets[-1] - 16 * ets[-2] + 5 * ets[-3]) / 12
        else:
            e = (55 * ets[-1] - 59 * ets[-2] + 37 * ets[-3] - 9 * ets[-4]) / 24
        x = transfer(x, abar(s), abar(t), e)
    return x


@pytest.mark.parametrize("method, name, options", [("F", "pndm", {}), ("S", "pndm", {"order": 2}), ("P", "plms", {})])
def test_pndm_is_the_papers(method: str, name: str, options) -> None:
    plan = planned(VP(), name, **options)
    x = 2.3 * plan.start[0]
    assert interpret(plan, nonlinear, x) == pytest.approx(pndm_of_the_paper(method, x), rel=BOUND)
    assert plan.nfe == 6 + {"F": 9, "S": 1, "P": 1}[method]


# The released weights of ipndm_v.


def adams_bashforth(lengths: list[float]) -> list[float]:
    """Newest first, for the lengths of this step and those before it."""
    nodes = [-math.fsum(lengths[1 : k + 1]) for k in range(len(lengths))]
    return [w / lengths[0] for w in lagrange_integrals(nodes, 0.0, lengths[0])]


def test_released_weights_of_ipndm_v_are_not_those_of_adams_bashforth() -> None:
    """Of three outputs they are for equal steps, of four not even then; and of four they do not add up to 1."""
    equal, uneven = [1.0, 1.0, 1.0, 1.0], [0.7, 1.0, 0.8, 1.3]
    for k in (1, 2):
        assert _released_weights(uneven[:k]) == pytest.approx(adams_bashforth(uneven[:k]), rel=1e-14)
    assert _released_weights(equal[:3]) == pytest.approx(adams_bashforth(equal[:3]), rel=1e-14)
    assert max(abs(np.subtract(_released_weights(uneven[:3]), adams_bashforth(uneven[:3])))) > 0.05
    assert max(abs(np.subtract(_released_weights(equal), adams_bashforth(equal)))) > 0.05
    assert sum(_released_weights(uneven[:3])) == pytest.approx(1, rel=1e-14)
    assert abs(sum(_released_weights(uneven)) - 1) > 0.05
    # As published: the formulas of diff-sampler for steps of 1, 1 and 1.
    assert _released_weights(equal) == pytest.approx([2.375, -65 / 24, 43 / 24, -11 / 24], rel=1e-14)


def test_ipndm_v_as_released_carries_no_point_mass_on_uneven_steps() -> None:
    for released in (False, True):
        plan = planned(VP(), "ipndm_v", as_released=released)
        off = interpret(plan, lambda row, x: 1.7, 1.7 * plan.start[0] + 0.9 * plan.start[1])
        off -= 1.7 * plan.end[0] + 0.9 * plan.end[1]
        assert (abs(off) > 1e-4) == released and released == (abs(off) > 1e-12)


# Exactness and equivalence: 1, 4, 5 and 12 of the properties.

ALL = {
    **{f"{n}": (n, {}) for n in ("lms", "deis", "ipndm", "ipndm_v", "pndm", "plms", "gradient_estimation", "heunpp2")},
    **{f"deis {c}": ("deis", {"clock": c, "order": 4}) for c in ("rho", "lambda")},
    "lms started": ("lms", {"starter": "single_step"}),
    "deis started": ("deis", {"order": 5, "starter": "single_step"}),
    **{
        f"exp_adams {c} {q}": ("exp_adams", {"clock": c, "prediction": q, "order": 3})
        for c in ("rho", "kappa", "t")
        for q in ("data", "noise")
    },
}
IN_T = ("deis", "pndm", "deis started", "exp_adams t data", "exp_adams t noise")


@pytest.mark.parametrize("case", ALL)
def test_a_point_mass_is_carried_exactly(process, case: str) -> None:
    name, options = ALL[case]
    for n in (1, 2, 6):
        plan = planned(process, name, LAMBDAS[: n + 1], 0.0, **options)
        (a, s), (b, t) = plan.start, plan.end
        got = interpret(plan, lambda row, x: 1.7, a * 1.7 + s * 0.9)
        assert got == pytest.approx(b * 1.7 + t * 0.9, rel=1e-13, abs=1e-13 * (b + t))


@pytest.mark.parametrize("case", ALL)
def test_all_processes_give_one_sampler_in_x_over_alpha_unless_it_interpolates_in_t(case: str) -> None:
    name, options = ALL[case]
    ends = [ours(planned(p, name, kappa=0.0, **options)) for p in (VP(), EDM(), RectifiedFlow())]
    assert (ends == pytest.approx([ends[0]] * 3, rel=1e-13)) == (case not in IN_T)


@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=["VP", "RectifiedFlow"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_step_is_exact_for_polynomials_in_its_clock_below_its_order(process, clock: str, prediction: str, order: int):
    """The last of a plan's steps, from where the others lead."""

    def predict(lam, degree: int):
        return (CLOCKS[clock](process, np.float64(lam)) - 0.3) ** degree

    def model(row, x, degree: int):
        q = float(predict(math.log(row.alpha / row.sigma), degree))
        return q if prediction == "data" else (x - row.sigma * q) / row.alpha

    options = {"order": order, "clock": clock, "prediction": prediction}
    nodes, weights = np.polynomial.legendre.leggauss(60)
    ls, h = LAMBDAS[-2], LAMBDAS[-1] - LAMBDAS[-2]
    lam = ls + (nodes + 1) / 2 * h
    plans = [planned(process, "exp_adams", LAMBDAS[:k], 0.0, **options) for k in (-1, None)]
    (a_s, s_s), (a_t, s_t) = plans[0].end, plans[1].end
    for degree, exact in ((order - 1, True), (order, False)):
        x, got = (interpret(p, lambda row, x, d=degree: model(row, x, d), 0.37) for p in plans)
        kernel = s_t * np.exp(lam) if prediction == "data" else -a_t * np.exp(-lam)
        whole = float((weights / 2 * h * kernel) @ predict(lam, degree))
        want = (s_t / s_s if prediction == "data" else a_t / a_s) * x + whole
        assert (abs(got - want) <= 1e-11 * max(abs(want), abs(whole), 1)) == exact


def test_names_for_one_thing(process) -> None:
    def same(*many: tuple[str, dict]) -> bool:
        ends = [ours(planned(process, name, kappa=0.0, **options)) for name, options in many]
        return ends == pytest.approx([ends[0]] * len(ends), rel=1e-13)

    for p in (2, 3, 4):
        in_rho = {"clock": "rho", "prediction": "noise", "order": p}
        assert same(("lms", {"order": p}), ("deis", {"clock": "rho", "order": p}), ("exp_adams", in_rho))
        in_lambda = {"prediction": "noise", "order": p}
        assert same(("deis", {"clock": "lambda", "order": p}), ("exp_adams", in_lambda))
        in_t = {"clock": "t", "prediction": "noise", "order": p}
        assert same(("deis", {"order": p}), ("exp_adams", in_t))
        assert not same(("exp_adams", in_rho), ("exp_adams", in_lambda))
    first = [("exp_adams", {"order": 1, "clock": c, "prediction": q}) for c in CLOCKS for q in ("data", "noise")]
    assert same(("ddim", {}), ("lms", {"order": 1}), ("deis", {"order": 1}), ("ipndm", {"order": 1}), *first)
    assert same(("gradient_estimation", {"gamma": 1.5}), ("ipndm", {"order": 2}))
    assert same(("gradient_estimation", {"gamma": 1.0}), ("ddim", {}))
    assert same(("plms", {"order": 2}), ("pndm", {"order": 2}))
    assert same(("res_multistep", {}), ("exp_adams", {}), ("dpmpp_2m", {"second": "exact"}))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_in_kappa_the_data_form_is_plain_adams_bashforth_on_x_over_sigma(process, order: int) -> None:
    kappas, v, history = [math.exp(x) for x in LAMBDAS], 2.3 * math.exp(LAMBDAS[0]), []
    for a, b in itertools.pairwise(kappas):
        history = [(a, nonlinear(At(1.0, 1 / a), v / a)), *history[: order - 1]]
        v += sum(w * d for w, (_, d) in zip(lagrange_integrals([k for k, _ in history], a, b), history, strict=True))
    plan = planned(process, "exp_adams", kappa=0.0, clock="kappa", order=order)
    assert ours(plan) == pytest.approx(v / kappas[-1], rel=BOUND)


# With stochasticity.


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("clock", ["rho", "kappa", "t"])
def test_clocks_change_neither_noise_nor_total_of_the_reverse_sde(clock: str, prediction: str) -> None:
    for tau in (0.7, lambda t: 0.3 + t / (1 + t)):
        plans = [
            solvers.get("exp_adams", order=3, clock=c, prediction=prediction).plan(VP(), times(VP()), tau)
            for c in (clock, "lambda")
        ]
        for a, b in zip(*(p.rows for p in plans), strict=True):
            assert a.base.noises == b.base.noises and a.base.base == b.base.base
            totals = [math.fsum(w for _, w in r.base.outputs) for r in (a, b)]
            assert totals[0] == pytest.approx(totals[1], rel=1e-13)
        assert plans[0].rows != plans[1].rows
        # A constant function has the same weights as the number, by another quadrature.
    number, function = (
        solvers.get("exp_adams", order=3, clock=clock, prediction=prediction).plan(VP(), times(VP()), tau)
        for tau in (0.7, lambda t: 0.7)
    )
    for a, b in zip(number.rows, function.rows, strict=True):
        assert [w for _, w in a.base.outputs] == pytest.approx([w for _, w in b.base.outputs], rel=1e-12)


def test_weights_for_any_integrand_and_clock_are_those_of_the_methods() -> None:
    process = VP()
    levels = process.levels(times(process))
    s, t = levels[4:6]
    for clock in CLOCKS:
        row = planned(process, "exp_adams", kappa=0.0, order=3, clock=clock).rows[4]
        got = clocks.adams_weights(
            LAMBDAS[4],
            LAMBDAS[5],
            [LAMBDAS[k] for k in (4, 3, 2)],
            lambda lam: t.sigma * np.exp(lam),
            None if clock == "lambda" else lambda lam, clock=clock: CLOCKS[clock](process, lam),
        )
        assert row.base is not None and got == pytest.approx([w for _, w in row.base.outputs], rel=1e-12)
    assert s.half_log_snr == pytest.approx(LAMBDAS[4])


# Ends.


def test_lms_keeps_its_order_to_sigma_zero_and_the_others_end_on_the_data_prediction() -> None:
    grid = [3.0, 2.0, 1.0, 0.5, 0.0]
    y, history = 4.0, []
    for a, b in itertools.pairwise(grid):
        history = [(a, noise(a, y)), *history[:3]]
        y += sum(w * d for w, (_, d) in zip(lagrange_integrals([r for r, _ in history], a, b), history, strict=True))
    for name, options in (("lms", {}), ("deis", {"order": 4, "clock": "rho"})):
        assert interpret(solvers.get(name, **options).plan(EDM(), grid), nonlinear, 4.0) == pytest.approx(y, rel=BOUND)
    for name in ("deis", "ipndm", "ipndm_v", "pndm", "plms", "gradient_estimation", "heunpp2"):
        plan = solvers.get(name).plan(EDM(), grid)
        seen = []
        assert interpret(plan, lambda row, x, seen=seen: seen.append(x / (1 + row.sigma)) or seen[-1], 4.0) == (
            pytest.approx(seen[-1], rel=1e-13)
        )


def test_calls_of_first_and_last_steps() -> None:
    grid, zero = [3.0, 2.0, 1.0, 0.5, 0.2], [3.0, 2.0, 1.0, 0.5, 0.0]
    calls = {"pndm": (13, 13, 1), "plms": (5, 5, 1), "heunpp2": (9, 9, 3), "lms": (4, 4, 1), "ipndm": (4, 4, 1)}
    for name, (regular, to_zero, interior) in calls.items():
        solver = solvers.get(name)
        assert (solver.plan(EDM(), grid).nfe, solver.plan(EDM(), zero).nfe) == (regular, to_zero), name
        assert solvers.info(name).nfe_per_step == interior
    assert solvers.get("pndm").plan(EDM(), [2.0, 1.0, 0.5, 0.0]).nfe == 9  # no Runge-Kutta stage at sigma = 0
    assert solvers.get("lms", starter="single_step").plan(EDM(), grid).nfe == 10


def test_from_alpha_zero_the_first_step_is_of_order_one() -> None:
    """Rectified flow from t = 1, where rho is infinite: the next step begins the ramp."""
    for name in ("lms", "deis", "ipndm", "ipndm_v", "pndm", "plms", "gradient_estimation", "heunpp2"):
        whole = solvers.get(name).plan(RectifiedFlow(), [1.0, 0.9, 0.7, 0.5, 0.3])
        rest = solvers.get(name).plan(RectifiedFlow(), [0.9, 0.7, 0.5, 0.3])
        assert [r.base for r in whole.rows[1:]] == [r.base for r in rest.rows]
        assert [r.point for r in whole.rows[1:]] == [r.point for r in rest.rows]


# Orders, from the standard deviations of outputs on Gaussian data; the registry's tests measure them on mixtures.


def slope(solver, family: str, seeds: int = 1, tau: float = 0.0, steps: tuple[int, ...] = (40, 80, 160)) -> float:
    """Of the error of the standard deviation, a geometric mean over grids, least squares over numbers of steps."""
    problem, errors = order_problems()["vp"], []
    for n in steps:
        logs = []
        for seed in range(seeds):
            plan = solver.plan(VP(), problem.grid(family, n, seed), tau)
            law, (b, t) = plan.gaussian_moments([0.0] * 3, [0.05, 0.3, 2.0]), plan.end
            got = law.cov.diagonal() if law.cov.ndim == 2 else law.cov
            want = b**2 * torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64) + t**2
            logs.append(math.log(float((got.sqrt() - want.sqrt()).square().mean().sqrt())))
        errors.append(math.fsum(logs) / seeds)
    return -float(np.polyfit(np.log(steps), errors, 1)[0])


@pytest.mark.parametrize(
    "name, options, least, most",
    [
        ("lms", {"order": 3, "starter": "single_step"}, 2.8, 3.3),
        ("deis", {"order": 3, "starter": "single_step"}, 2.8, 3.3),
        ("ipndm_v", {}, 1.85, 3.5),
        ("ipndm", {}, 0.7, 1.4),
        ("plms", {}, 0.7, 1.4),
        ("ipndm_v", {"as_released": True}, -3.0, 0.3),
    ],
)
def test_orders_on_irregular_steps(name: str, options, least: float, most: float) -> None:
    """As the notes say: where the weights are those of equal steps an order is lost, or all."""
    found = slope(solvers.get(name, **options), "irregular", seeds=4)
    assert least < found < most, found


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("clock", ["rho", "kappa", "t"])
def test_clocks_keep_the_order(clock: str, prediction: str) -> None:
    options = {"clock": clock, "prediction": prediction}
    for order in (2, 3):
        solver = solvers.get("exp_adams", order=order, starter="single_step", **options)
        assert slope(solver, "random") == pytest.approx(order, abs=0.25)
    assert slope(solvers.get("exp_adams", order=2, **options), "random", tau=1.0) == pytest.approx(2, abs=0.4)


# Planted mistakes.


def test_other_times_of_the_quadrature_are_noticed(monkeypatch) -> None:
    """Places in t taken for as far along a step as those in lambda are."""
    at = times(VP())
    x = 2.3 * float(VP().alpha(at[0]))
    right = interpret(planned(VP(), "deis"), nonlinear, x)

    def mistaken(self, s, t, exact, count):
        counts, points, amounts = exact.quadrature()
        return [np.add.reduceat(amounts * points**k, np.cumsum([0, *counts[:-1]])) for k in range(count)]

    monkeypatch.setattr(clocks._Clock, "moments", mistaken)
    rows = solvers.get("deis").rows(VP(), at, 0.0)
    wrong = interpret(dataclasses.replace(planned(VP(), "deis"), rows=tuple(rows)), nonlinear, x)
    assert abs(wrong - right) > 1e6 * BOUND


def test_weights_of_equal_steps_and_another_gamma_are_noticed() -> None:
    assert abs(sample_lms(4) - sample_ipndm(4)) > 1e6 * BOUND
    assert abs(sample_gradient_estimation(2.0) - sample_gradient_estimation(2.0001)) > 1e6 * BOUND
    at = 2.3 * float(VP().alpha(times(VP())[0]))
    found = [pndm_of_the_paper(m, at) for m in "FSP"]
    assert min(abs(a - b) for a, b in itertools.combinations(found, 2)) > 1e6 * BOUND


def test_options_are_checked_when_a_solver_is_made() -> None:
    wrong = [
        *((n, {"order": v}) for n in ("lms", "deis", "ipndm", "ipndm_v") for v in (0, 1.5)),
        *((n, {"starter": "rk4"}) for n in ("lms", "deis")),
        *(("deis", {"clock": v}) for v in ("kappa", "time", 1)),
        ("exp_adams", {"clock": "sigma"}),
        *(("pndm", {"order": v}) for v in (1, 3, True)),
        *(("plms", {"order": v}) for v in (0, 1)),
        ("ipndm_v", {"order": 5}),
        ("ipndm_v", {"as_released": 1}),
        *(("gradient_estimation", {"gamma": v}) for v in (math.nan, math.inf)),
        *((n, {"final_order": 5}) for n in ("lms", "deis")),
    ]
    for name, options in wrong:
        with pytest.raises((OptionError, SdekitError)):
            solvers.get(name, **options)


@pytest.mark.parametrize("name", ["lms", "deis", "ipndm", "plms"])
def test_orders_beyond_the_weights_are_refused_when_made(name):
    grid = torch.linspace(1.0, 0.01, 31, dtype=torch.float64)
    assert solvers.get(name, order=20).plan(VP(), grid).steps == 30
    with pytest.raises(OptionError, match="order: got 21; expected 1 to 20"):
        solvers.get(name, order=21)
