"""Samplers that ComfyUI alone has, transcribed from their formulas; lcm; what their names stand for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import sdekit
from sdekit import EDM, VP, RectifiedFlow, solvers, targets
from sdekit.errors import SolverMismatchError
from sdekit.math.phi import phis
from sdekit.plan import interpret
from tests.solvers.test_fast import nonlinear

SIGMAS = [9.0, 4.0, 2.5, 1.1, 0.4, 0.1, 0.0]
LAMBDAS = [-2.2, -1.4, -0.9, -0.1, 0.9, 2.3]
PROCESSES = [VP(), EDM(), RectifiedFlow()]


def data(x: float, sigma: float) -> float:
    """`nonlinear` on EDM."""
    return 0.1 / (0.1 + sigma**2) * x + sigma**2 / (0.1 + sigma**2) * math.tanh(x / (0.1 + sigma**2))


def noise(step: int, stream: int = 0) -> float:
    return math.sin(1.0 + step + 10 * stream)


def res_multistep(x: float, eta: float, s_noise: float) -> float:
    """`res_multistep` of ComfyUI at 02159d8, on numbers."""
    down_before = data_before = None
    for i, (s, t) in enumerate(itertools.pairwise(SIGMAS)):
        d = data(x, s)
        up = min(t, eta * math.sqrt(t**2 * (s**2 - t**2) / s**2))
        down = math.sqrt(t**2 - up**2)
        if down == 0 or down_before is None:
            x = x + (x - d) / s * (down - s)
        else:
            h = math.log(s / down)
            c2 = (math.log(1 / SIGMAS[i - 1]) - math.log(1 / down_before)) / h
            _, phi1, phi2 = phis(2, -h)
            x = math.exp(-h) * x + h * ((phi1 - phi2 / c2) * d + phi2 / c2 * data_before)
        if t > 0:
            x = x + noise(i) * s_noise * up
        down_before, data_before = down, d
    return x


@pytest.mark.parametrize("eta, s_noise", [(1.0, 1.0), (0.6, 0.9), (0.0, 1.0)])
def test_res_multistep_ancestral_is_comfyuis(eta: float, s_noise: float) -> None:
    plan = solvers.get("res_multistep_ancestral", eta=eta, s_noise=s_noise).plan(EDM(), SIGMAS)
    for x in (-3.0, 11.0):
        assert interpret(plan, nonlinear, x, noise) == pytest.approx(res_multistep(x, eta, s_noise), abs=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_with_all_noise_it_is_dpmpp_2m_sde_with_exact_weights(process) -> None:
    times = [float(process.time_at(v)) for v in LAMBDAS]
    plans = [solvers.get(name).plan(process, times, 1.0) for name in ("res_multistep_ancestral", "dpmpp_2m_sde_heun")]
    for x in (-1.3, 0.4):
        a, b = (interpret(plan, nonlinear, x, noise) for plan in plans)
        assert a == pytest.approx(b, abs=1e-13)
    assert plans[0].clock is not None and plans[0].clock == plans[1].clock
    flow = solvers.get("res_multistep_ancestral", eta=0.0).plan(process, times)
    assert interpret(flow, nonlinear, 0.4) == pytest.approx(
        interpret(solvers.get("res_multistep").plan(process, times), nonlinear, 0.4), abs=1e-13
    )


def exp_heun_sde(x: float, eta: float) -> float:
    """`sample_seeds_2` of ComfyUI with r = 1 and "phi_2", on numbers: its eta is the square of the stochasticity."""
    for i, (s, t) in enumerate(itertools.pairwise(SIGMAS)):
        d = data(x, s)
        if t == 0:
            return d
        h = math.log(s / t)
        whole = h * (eta + 1)
        scale = t / s * math.exp(-h * eta)
        kick = t * math.sqrt(-math.expm1(-2 * h * eta)) * noise(i)
        end = scale * x - math.expm1(-whole) * d + kick
        b2 = (math.expm1(-whole) + whole) / -whole
        x = scale * x - ((math.expm1(-whole) - b2) * d + b2 * data(end, t)) + kick
    return x


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_exp_heun_2_x0_sde_is_comfyuis(eta: float) -> None:
    plan = solvers.get("exp_heun_2_x0_sde").plan(EDM(), SIGMAS, math.sqrt(eta))
    assert plan.nfe == 11 and all(stream == 0 for _, stream in plan.noises())
    assert interpret(plan, nonlinear, 11.0, noise) == pytest.approx(exp_heun_sde(11.0, eta), abs=1e-12)
    other = solvers.get("seeds_2").plan(EDM(), SIGMAS, math.sqrt(eta))
    assert interpret(other, nonlinear, 11.0, noise) != pytest.approx(exp_heun_sde(11.0, eta), abs=1e-3)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_lcm_renoises_the_prediction(process) -> None:
    times = [float(process.time_at(v)) for v in LAMBDAS]
    x = 0.7
    plan = solvers.get("lcm").plan(process, [*times, 0.0] if process.domain[0] == 0 else times)
    want = x
    for i, (s, t) in enumerate(itertools.pairwise(plan.times)):
        a, b = process.levels([s, t])
        y = want / a.alpha
        want = b.alpha * data(y, a.rho) + (b.sigma * noise(i) if b.sigma else 0.0)
    assert interpret(plan, nonlinear, x, noise) == pytest.approx(want, abs=1e-12)
    # Data at one point: the law at the end is exact, from any start.
    end = process.levels([times[-1]])[0]
    point = solvers.get("lcm").plan(process, times).gaussian_moments(0.3, 0.0, start_mean=5.0, start_cov=2.0)
    assert float(point.mean) == pytest.approx(end.alpha * 0.3, abs=1e-14)
    assert float(point.cov) == pytest.approx(end.sigma**2, rel=1e-13)


def test_lcm_has_no_order() -> None:
    """With the mean of one Gaussian as prediction more and more steps tend to another variance than the data's."""
    process, c = EDM(), 0.3
    found = []
    for n in (100, 1000, 4000):
        grid = np.geomspace(20.0, 1.0, n + 1).tolist()
        found.append(float(solvers.get("lcm").plan(process, grid).gaussian_moments(0.0, c).cov))
    # v = k^2 v + sigma^2 with k = c / (c + sigma^2), at sigma = 1.
    s = c + 1.0
    limit = s / (2 - 1.0 / s)
    errors = [abs(v - limit) for v in found]
    assert errors[-1] < 2e-3 * limit and errors[-1] < errors[0] / 20 and abs(limit / s - 1) > 0.15
    order = solvers.info("lcm").order
    assert (order.deterministic, order.weak, order.strong) == (None, None, None) and order.note.startswith("none")
    with pytest.raises(SolverMismatchError, match="decreasing"):
        solvers.get("lcm").plan(process, [1.0, 2.0])


def test_the_places_in_lambda_would_leave_order_one() -> None:
    """The mutant: the older prediction where it was made, not where the flow's step would have led from."""

    def slope(shift: bool) -> float:
        errors = []
        for n in (40, 80):
            times = np.geomspace(5.0, 0.2, n + 1).tolist()
            plan = solvers.get("res_multistep_ancestral").plan(EDM(), times)
            if shift:
                plan = stretched(plan)
            v = float(plan.gaussian_moments(0.0, 0.3).cov)
            errors.append(abs(v - (0.3 + 0.2**2)))
        return math.log2(errors[0] / errors[1])

    assert slope(False) == pytest.approx(2, abs=0.1) and slope(True) < 1.4


def stretched(plan):
    """The plan with the slope of the line through both predictions twice as steep, as with half the distance."""
    rows = []
    for row in plan.rows:
        terms = dict(row.base.outputs)
        if 1 in terms:
            terms = {0: terms[0] - terms[1], 1: 2 * terms[1]}
        rows.append(replace(row, base=replace(row.base, outputs=tuple(terms.items()))))
    return replace(plan, rows=tuple(rows))


def test_uni_pc_has_comfyuis_order_and_variant() -> None:
    assert solvers.get("uni_pc") == solvers.get("unipc", order=3, variant="bh1")
    assert solvers.get("uni_pc_bh2") == solvers.get("unipc", order=3, variant="bh2")
    assert solvers.get("uni_pc", order=2).order == 2  # type: ignore[attr-defined]


RELEASED = [i.name for i in solvers.available() if "as_released" in i.options]


@pytest.mark.parametrize("name", RELEASED)
def test_as_released_changes_a_plan_beside_the_options_that_it_needs(name: str) -> None:
    solver = solvers.get(name)
    times, tau = [0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1], solver.implied_stochasticity
    rows = {
        flag: solvers.get(name, as_released=flag, **solver.released_with).plan(VP(), times, tau).rows
        for flag in (False, True)
    }
    assert rows[True] != rows[False]
    alone = solvers.get(name, as_released=True).plan(VP(), times, tau).rows
    assert (alone == solver.plan(VP(), times, tau).rows) == bool(solver.released_with)  # type: ignore[attr-defined]


def test_a_consistency_model_needs_one_call() -> None:
    """The flow's end itself as the prediction: one step from noise is a sample."""
    process, target = EDM(), targets.gaussian([0.5], 0.3)
    model = sdekit.Model(lambda x, t: 0.5 + (0.3 / (0.3 + t.reshape(-1, 1) ** 2)).sqrt() * (x - 0.5), process, "data")
    x = sdekit.sample(model, (20_000, 1), "lcm", grid=[80.0, 0.0], seed=0)
    assert float(x.mean()) == pytest.approx(float(target.mean), abs=0.02)
    assert float(x.var()) == pytest.approx(0.3, rel=0.05)
