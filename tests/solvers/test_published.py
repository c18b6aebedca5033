"""DPM-Solver, UniPC and the ancestral samplers are the published updates, to rounding, on every process."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from sdekit import EDM, VP, Plan, solve, solvers, targets
from sdekit.plan import interpret
from tests.solvers import papers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, draw, nonlinear, times

BOUND = 1e-12
SHORT = LAMBDAS[:4]


@pytest.fixture(params=PROCESSES, ids=lambda p: type(p).__name__)
def process(request):
    return request.param


def ours(plan: Plan) -> float:
    return interpret(plan, nonlinear, 2.3 * plan.start[0], draw)


def planned(process, name: str, lambdas=LAMBDAS, kappa: float | None = None, **options) -> Plan:
    return solvers.get(name, **options).plan(process, times(process, lambdas), kappa)


def close(got: float, want: float) -> bool:
    return abs(got - want) <= BOUND * max(abs(want), 1.0)


DPM = {
    "dpm_solver_2": ({}, papers.dpm_solver_2, {}),
    "dpm_solver_2 r1": ({"r1": 0.3}, papers.dpm_solver_2, {"r1": 0.3}),
    "dpm_solver_2 r1 = 1": ({"r1": 1.0}, papers.dpm_solver_2, {"r1": 1.0}),
    "dpm_solver_2 exact": ({"second": "exact"}, papers.dpm_solver_2, {"taylor": True}),
    "dpm_solver_2 data": ({"prediction": "data"}, papers.dpmpp_2s, {}),
    "dpmpp_2s": ({}, papers.dpmpp_2s, {}),
    "dpmpp_2s exact, r1": ({"second": "exact", "r1": 0.4}, papers.dpmpp_2s, {"r1": 0.4, "taylor": True}),
    "dpmpp_2s noise": ({"prediction": "noise"}, papers.dpm_solver_2, {}),
    "dpm_solver_3": ({}, papers.dpm_solver_3, {}),
    "dpm_solver_3 data": ({"prediction": "data"}, papers.dpm_solver_3, {"pp": True}),
    "dpm_solver_3 parabola": ({"third": "parabola"}, papers.dpm_solver_3, {"taylor": True}),
    "dpm_solver_3 r": (
        {"r1": 0.2, "r2": 0.9, "third": "parabola", "prediction": "data"},
        papers.dpm_solver_3,
        {"r1": 0.2, "r2": 0.9, "taylor": True, "pp": True},
    ),
    "dpmpp_3m": ({}, papers.dpmpp_3m, {"released": False}),
    "dpmpp_3m half": ({"second": "half"}, papers.dpmpp_3m, {"released": False, "half": True}),
    "dpmpp_3m released": ({"as_released": True}, papers.dpmpp_3m, {"released": True}),
    "dpmpp_3m released half": (
        {"as_released": True, "second": "half"},
        papers.dpmpp_3m,
        {"released": True, "half": True},
    ),
}


@pytest.mark.parametrize("case", DPM)
def test_dpm_solvers_are_the_papers(process, case: str) -> None:
    options, paper, theirs = DPM[case]
    plan = planned(process, case.split()[0], kappa=0.0, **options)
    assert close(ours(plan), paper(papers.scales_of(process), LAMBDAS, 2.3 * plan.start[0], **theirs))


@pytest.mark.parametrize("kappa", [0.5, 1.0])
@pytest.mark.parametrize("released", [False, True])
def test_dpmpp_3m_on_the_reverse_sde_is_k_diffusions(process, kappa: float, released: bool) -> None:
    plan = planned(process, "dpmpp_3m", kappa=kappa, as_released=released)
    want = papers.dpmpp_3m(papers.scales_of(process), LAMBDAS, 2.3 * plan.start[0], released, kappa2=kappa**2)
    assert close(ours(plan), want)
    named = planned(process, "dpmpp_3m_sde", eta=kappa**2, as_released=released)
    assert close(ours(named), want) and named.clock is not None


@pytest.mark.parametrize("corrector", ["pec", "pece", "none"])
@pytest.mark.parametrize("variant", ["bh1", "bh2", "exact"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_unipc_is_the_papers(order: int, prediction: str, variant: str, corrector: str) -> None:
    chosen = PROCESSES if variant == "bh2" and corrector == "pec" else PROCESSES[:2]
    for process in chosen:
        plan = planned(process, "unipc", order=order, prediction=prediction, variant=variant, corrector=corrector)
        x, pp = 2.3 * plan.start[0], prediction == "data"
        assert close(ours(plan), papers.unipc(papers.scales_of(process), LAMBDAS, x, order, variant, pp, corrector))
        steps = len(LAMBDAS) - 1
        assert plan.nfe == (2 * steps if corrector == "pece" else steps)


@pytest.mark.parametrize("s_noise", [1.0, 1.01])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ancestral_samplers_are_k_diffusions(process, eta: float, s_noise: float) -> None:
    for name in ("euler_ancestral", "dpmpp_2s_ancestral"):
        plan = planned(process, name, eta=eta, s_noise=s_noise)
        want = getattr(papers, name)(LAMBDAS, 2.3, eta, s_noise)
        assert close(ours(plan) / plan.end[0], want), name
    for r in (0.5, 0.3, 0.9):
        plan = planned(process, "dpmpp_sde", eta=eta, s_noise=s_noise, r1=r)
        assert close(ours(plan) / plan.end[0], papers.dpmpp_sde(LAMBDAS, 2.3, eta, r, s_noise)), r


def test_euler_ancestral_is_ddim_with_the_same_eta() -> None:
    for eta in (0.0, 0.4, 1.0):
        a, b = planned(VP(), "euler_ancestral", eta=eta), planned(VP(), "ddim", eta=eta)
        assert a.rows == b.rows and a.clock == b.clock


def test_dpmpp_sde_follows_the_path_of_other_solvers() -> None:
    """Its step's noise is the increment of the path on which `dpmpp_2m_sde` converges to the same end."""
    model = targets.gaussian([0.7, -0.3], 0.3).under(VP())
    x = model.sample(times(VP(), [-2.0])[0], 64, 0)
    assert planned(VP(), "dpmpp_sde").clock == planned(VP(), "ddpm").clock
    apart = []
    for n in (16, 64):
        grid = times(VP(), np.linspace(-2, 2, n + 1))
        ends = [solve(model, x, grid, k, seed=3, noise="path").x for k in ("dpmpp_sde", "dpmpp_2m_sde")]
        apart.append(float((ends[0] - ends[1]).square().mean().sqrt()))
    assert apart[1] < 0.4 * apart[0], apart


def test_names_for_one_thing() -> None:
    """unipc without its corrector is dpmpp_2m or exp_adams; dpmpp_3m is exp_adams; ancestral without noise dpmpp_2s."""
    for process in (VP(), EDM()):
        grid = times(process)
        want = solvers.get("dpmpp_2m").plan(process, grid, 0.0)
        assert ours(planned(process, "unipc", corrector="none")) == pytest.approx(ours(want), rel=1e-13)
        for p in (1, 3, 4, 5):
            for q in ("data", "noise"):
                want = solvers.get("exp_adams", order=p, prediction=q).plan(process, grid, 0.0)
                got = planned(process, "unipc", order=p, prediction=q, corrector="none", variant="exact")
                assert ours(got) == pytest.approx(ours(want), rel=1e-13)
        for starter in ("ramp", "single_step"):
            want = solvers.get("exp_adams", order=3, starter=starter).plan(process, grid, 0.0)
            assert planned(process, "dpmpp_3m", kappa=0.0, starter=starter).rows == want.rows
        want = ours(planned(process, "dpmpp_2s"))
        for name in ("dpmpp_2s_ancestral", "dpmpp_sde"):
            assert ours(planned(process, name, eta=0.0)) == pytest.approx(want, rel=1e-13)


# Planted mistakes: each of the kinds above must notice.


def broken_step(field: str):
    """`exponential_step` with sigma_t (alpha_t) for sigma_s (alpha_s) in its linear part, or a total off by 1e-6."""
    from sdekit.solvers.exponential import exponential_step

    def wrong(process, s, t, prediction, tau):
        step = exponential_step(process, s, t, prediction, tau)
        if field == "scale":
            return dataclasses.replace(step, scale=1.0)
        return dataclasses.replace(step, total=step.total * (1 + 1e-6))

    return wrong


@pytest.mark.parametrize("field", ["scale", "total"])
@pytest.mark.parametrize("case", [c for c in DPM if "3m" not in c and "exact" not in c and "parabola" not in c])
def test_a_wrong_coefficient_is_noticed_in_dpm_solvers(monkeypatch, case: str, field: str) -> None:
    monkeypatch.setattr("sdekit.solvers.dpm_solver.exponential_step", broken_step(field))
    options, paper, theirs = DPM[case]
    plan = planned(VP(), case.split()[0], **options)
    want = paper(papers.scales_of(VP()), LAMBDAS, 2.3 * plan.start[0], **theirs)
    assert abs(ours(plan) - want) > 1e3 * BOUND


def test_half_a_difference_and_a_missing_corrector_are_noticed() -> None:
    at, x = papers.scales_of(VP()), 2.3 * float(VP().alpha(times(VP())[0]))
    right, released = (papers.dpmpp_3m(at, LAMBDAS, x, k) for k in (False, True))
    assert abs(right - released) > 1e6 * BOUND
    for order in (1, 2, 3, 4, 5):
        for a, b in (("pec", "none"), ("pec", "pece"), ("none", "pece")):
            p, q = (papers.unipc(at, LAMBDAS, x, order, "bh2", True, k) for k in (a, b))
            assert abs(p - q) > 1e6 * BOUND
        bh1, bh2, full = (papers.unipc(at, LAMBDAS, x, order, k, True) for k in ("bh1", "bh2", "exact"))
        assert min(abs(bh1 - bh2), abs(bh1 - full), abs(bh2 - full)) > 1e6 * BOUND


def test_other_noises_are_noticed() -> None:
    plan = planned(VP(), "dpmpp_sde")
    other = dataclasses.replace(plan, rows=tuple(independent(plan)))
    assert abs(ours(plan) - ours(other)) > 1e6 * BOUND


def independent(plan: Plan) -> list:
    """The rows of dpmpp_sde with the stage's noise drawn anew."""
    rows = []
    for row in plan.rows:
        if row.point is not None and row.point.noises:
            std = math.sqrt(math.fsum(v**2 for _, v in row.point.noises))  # type: ignore[operator]
            row = dataclasses.replace(row, point=dataclasses.replace(row.point, noises=((1, std),)))
        rows.append(row)
    return rows


# Exactness.


@pytest.mark.parametrize("process", PROCESSES[:2], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_a_corrected_step_is_exact_for_degree_p_and_not_for_p_plus_1(process, order: int, prediction: str) -> None:
    """For a prediction that is a polynomial in lambda, whatever the state: with exact history, which it then has."""
    options = {"order": order, "prediction": prediction, "variant": "exact", "corrector": "pece", "starter": "ramp"}
    lam = [*LAMBDAS, 2.6]
    plan = planned(process, "unipc", lam, **options)
    for degree, exact in ((order, True), (order + 1, False)):

        def model(row, x, degree=degree):
            q = (math.log(row.alpha / row.sigma) - 0.3) ** degree
            return q if prediction == "data" else (x - row.sigma * q) / row.alpha

        # The last step alone: from where the plan's last step begins, which a plan one step shorter reaches.
        states = [interpret(planned(process, "unipc", lam[: k + 1], **options), model, 0.37) for k in (7, 6)]
        assert len(plan.rows) == 2 * (len(lam) - 1)
        want = polynomial_flow(process, lam[-2], lam[-1], states[1], prediction, degree)
        assert (abs(states[0] - want) <= 1e-11 * max(abs(want), 1)) == exact


def polynomial_flow(process, ls: float, lt: float, x: float, prediction: str, degree: int) -> float:
    """The exact flow for the prediction (lambda - 0.3)^degree, by quadrature."""
    at = papers.scales_of(process)
    (a_s, s_s), (a_t, s_t) = at(ls), at(lt)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total, h = 0.0, lt - ls
    for node, w in zip(nodes, weights, strict=True):
        u = (node + 1) / 2
        q = (ls + u * h - 0.3) ** degree
        total += (
            w / 2 * h * q * (a_t * math.exp(-(1 - u) * h) if prediction == "data" else -s_t * math.exp((1 - u) * h))
        )
    return (s_t / s_s if prediction == "data" else a_t / a_s) * x + total


def test_options_are_checked_when_a_solver_is_made() -> None:
    from sdekit.errors import OptionError

    wrong = [
        *(("dpm_solver_2", {"r1": v}) for v in (0.0, 1.1, math.nan)),
        *(("dpm_solver_3", v) for v in ({"r1": 0.7}, {"r2": 0.2}, {"third": "cubic"}, {"final_order": 4})),
        *(("dpmpp_2s", v) for v in ({"second": "taylor"}, {"prediction": "score"}, {"final_order": 3})),
        *(("dpmpp_3m", v) for v in ({"as_released": 1}, {"starter": "rk"}, {"second": "h"}, {"final_order": 0})),
        *(("unipc", v) for v in ({"order": 0}, {"variant": "bh3"}, {"corrector": "ec"}, {"prediction": "x"})),
        *((n, {"eta": v}) for n in ("euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde") for v in (-0.1, 1.1)),
        *((n, {"s_noise": -1.0}) for n in ("euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")),
        ("dpmpp_sde", {"r1": 0.0}),
    ]
    for name, options in wrong:
        with pytest.raises(OptionError):
            solvers.get(name, **options)
