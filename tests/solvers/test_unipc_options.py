"""UniPC's last step and its corrector of varying coefficients, as released and as they should be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sdekit import EDM, VP, RectifiedFlow, solvers
from sdekit.errors import OptionError
from sdekit.plan import interpret
from tests.solvers import papers
from tests.solvers.test_exponential_runge_kutta import ours, planned
from tests.solvers.test_properties import LAMBDAS, PROCESSES, nonlinear, times


def vary_coeff(at: papers.Scales, lam: list[float], x: float, order: int, pp: bool, lower_order_final: bool) -> float:
    """`sample` and `multistep_uni_pc_vary_update` of uni_pc.py as released, whatever they do."""
    predict, sign = (papers.data, -1.0) if pp else (papers.noise, 1.0)
    steps = len(lam) - 1
    history = [(lam[0], predict(at, lam[0], x))]
    for step in range(1, steps + 1):
        p = min(step, order, steps + 1 - step if lower_order_final else order)
        (l0, m0), lt = history[-1], lam[step]
        h = lt - l0
        hh = sign * h
        (own_s, _), (own_t, other_t) = (at(v)[::-1] if pp else at(v) for v in (l0, lt))
        rks = [(history[-i - 1][0] - l0) / h for i in range(1, p)]
        D1s = np.array([(history[-i - 1][1] - m0) / r for i, r in enumerate(rks, 1)])
        rks.append(1.0)
        K = len(rks)
        col, columns = np.ones(K), []
        for k in range(1, K + 1):
            columns.append(col)
            col = col * np.array(rks) / (k + 1)
        C = np.stack(columns, 1)
        A_p, A_c = np.linalg.inv(C[:-1, :-1]), np.linalg.inv(C)
        h_phi_k, factorial, h_phi_ks = math.expm1(hh), 1, []
        for k in range(1, K + 2):
            h_phi_ks.append(h_phi_k)
            h_phi_k = h_phi_k / hh - 1 / factorial
            factorial *= k + 1
        base = own_t / own_s * x - other_t * h_phi_ks[0] * m0
        x = base
        for k in range(K - 1):
            x -= other_t * h_phi_ks[k + 1] * float(D1s @ A_p[k])
        if step < steps:
            new, x, k = predict(at, lt, x), base, 0
            for k in range(K - 1):
                x -= other_t * h_phi_ks[k + 1] * float(D1s @ A_c[k][:-1])
            x -= other_t * h_phi_ks[K] * (new - m0) * float(A_c[k][-1])
            history.append((lt, new))
    return x


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_varying_coefficients_are_as_released(order: int, prediction: str) -> None:
    for process, lower in itertools.product(PROCESSES[:3], (False, True)):
        options = {"order": order, "prediction": prediction, "variant": "exact", "lower_order_final": lower}
        plan = planned(process, "unipc", **options, as_released=True)
        want = vary_coeff(papers.scales_of(process), LAMBDAS, 2.3 * plan.start[0], order, prediction == "data", lower)
        assert abs(ours(plan) - want) <= 1e-12 * max(abs(want), 1)
        right = ours(planned(process, "unipc", **options))
        assert (abs(right - want) <= 1e-12 * max(abs(want), 1)) == (order == 1)


def slope(steps: int = 40, low: float = -1.0, **options) -> float:
    def ends(solver, n: int) -> np.ndarray:
        plan = solver.plan(VP(), times(VP(), np.linspace(low, low + 2.5, n + 1)), 0.0)
        return np.array([interpret(plan, nonlinear, y * plan.start[0]) for y in (-2.1, -0.4, 0.7, 1.3, 2.9)])

    want, solver = ends(solvers.get("etdrk4"), 150), solvers.get("unipc", **options)
    return math.log2(np.linalg.norm(ends(solver, steps) - want) / np.linalg.norm(ends(solver, 2 * steps) - want))


@pytest.mark.parametrize("order", [2, 3])
def test_the_released_corrector_is_of_order_one(order: int) -> None:
    options = {"order": order, "variant": "exact", "starter": "single_step"}
    released = solvers.get("unipc", **options, as_released=True)
    assert released.declared.deterministic == 1 and slope(**options, as_released=True) == pytest.approx(1, abs=0.15)
    assert slope(low=-0.5, **options) > order + 0.5
    # Without old predictions it is right.
    assert solvers.get("unipc", order=1, variant="exact", as_released=True).declared.deterministic == 2


def test_correcting_the_last_step_is_the_papers_corrector_there() -> None:
    """A step of order 1 at the end, corrected, is of order 2; so the whole is of order 3 again."""
    for final, correct, order in ((1, False, 2), (1, True, 3), (None, True, 3)):
        options = {"final_order": final, "correct_last": correct}
        assert solvers.get("unipc", **options).declared.deterministic == order
    low = planned(VP(), "unipc", final_order=1)
    for process in PROCESSES[:3]:
        for prediction in ("data", "noise"):
            lam = LAMBDAS[:2]  # of one step "pece" is "pec" with its last step corrected
            got = planned(process, "unipc", lam, prediction=prediction, correct_last=True)
            want = papers.unipc(
                papers.scales_of(process), lam, 2.3 * got.start[0], 2, "bh2", prediction == "data", "pece"
            )
            assert ours(got) == pytest.approx(want, rel=1e-12)
    more = planned(VP(), "unipc", correct_last=True)
    assert more.nfe == len(LAMBDAS) == low.nfe + 1 and [r.step for r in more.rows] == [*range(len(LAMBDAS) - 1), 5]
    # The corrected step is the one that a further step would have corrected.
    longer = planned(VP(), "unipc", [*LAMBDAS, 2.5])
    assert longer.rows[len(LAMBDAS) - 1].base == more.rows[-1].base


def test_lower_order_final_ends_with_lower_orders() -> None:
    plan = planned(VP(), "unipc", order=3, corrector="none", lower_order_final=True)
    assert [len(r.base.outputs) for r in plan.rows if r.base is not None] == [1, 2, 3, 3, 2, 1]
    for options, order in (({"order": 3}, 2), ({"order": 3, "correct_last": True}, 3), ({"order": 1}, 2)):
        assert solvers.get("unipc", **options, lower_order_final=True).declared.deterministic == order
    steep = {"order": 3, "starter": "single_step", "low": -0.5}
    assert slope(160, lower_order_final=True, **steep) < 2.6 < 3.5 < slope(40, **steep)


@pytest.mark.parametrize("options", [{"correct_last": True}, {"variant": "exact", "as_released": True}])
def test_a_point_mass_is_exact_and_all_processes_give_one_sampler(options) -> None:
    for prediction in ("data", "noise"):
        ends = []
        for process in PROCESSES:
            plan = planned(process, "unipc", order=3, prediction=prediction, **options)
            (a, s), (b, t) = plan.start, plan.end
            got = interpret(plan, lambda row, x: 1.7, a * 1.7 + s * 0.9)
            assert got == pytest.approx(b * 1.7 + t * 0.9, rel=1e-12, abs=1e-12 * (b + t))
            ends.append(ours(plan) / plan.end[0])
        assert ends == pytest.approx([ends[0]] * len(ends), rel=1e-12)


def test_a_last_step_to_sigma_zero_is_not_corrected() -> None:
    grid = [1.0, 0.7, 0.4, 0.0]
    for process in (RectifiedFlow(), EDM()):
        plans = [solvers.get("unipc", correct_last=k).plan(process, grid) for k in (False, True)]
        assert plans[0].rows == plans[1].rows


def test_options_are_checked() -> None:
    for options in (
        {"correct_last": True, "corrector": "pece"},
        {"correct_last": 1},
        {"lower_order_final": True, "final_order": 1},
        {"as_released": "yes"},
    ):
        with pytest.raises(OptionError):
            solvers.get("unipc", **options)


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        *(("unipc", {"corrector": corrector}, 19) for corrector in ("pec", "pece")),
        ("unipc", {"variant": "exact", "prediction": "noise"}, 19),
        ("unipc", {"corrector": "none"}, 20),
        *(("exp_adams", {"clock": clock, "prediction": p}, 20) for clock in ("lambda", "t") for p in ("data", "noise")),
    ],
)
def test_the_highest_order_can_be_planned_and_the_next_is_refused_at_once(name: str, options, most: int) -> None:
    grid = np.linspace(0.9, 0.05, most + 4)
    assert solvers.get(name, order=most, **options).plan(VP(), grid).steps == most + 3
    with pytest.raises(OptionError, match=rf"^order: got {most + 1}; expected 1 to {most}"):
        solvers.get(name, order=most + 1, **options)
