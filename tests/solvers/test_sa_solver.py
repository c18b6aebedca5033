"""SA-Solver is the paper's, to rounding, and diffusers' where that is installed; some of its laws are exact."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit import EDM, VP, solvers
from sdekit.errors import OptionError
from sdekit.plan import interpret
from tests.solvers import papers, schedulers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, draw, nonlinear, times

PLACES, WEIGHTS = (v.tolist() for v in np.polynomial.legendre.leggauss(30))


def falling(t: float) -> float:
    return 0.3 + t / (1 + t)


def weights(nodes: list[float], ls: float, lt: float, kappa: float, pp: bool) -> list[float]:
    """The paper's b_j without alpha_t or sigma_t: Lagrange polynomials under Gauss's rule."""
    out = []
    for j, lj in enumerate(nodes):
        total = 0.0
        for u, w in zip(PLACES, WEIGHTS, strict=True):
            lam = ls + 0.5 * (u + 1) * (lt - ls)
            basis = math.prod((lam - li) / (lj - li) for i, li in enumerate(nodes) if i != j)
            # In sigma_t e^{-k lambda_t} e^{(1 + k) lambda} and alpha_t e^{-lambda}, relative to alpha_t and sigma_t.
            weight = math.exp((1 + kappa**2) * (lam - lt)) if pp else math.exp(lt - lam)
            total += 0.5 * (lt - ls) * w * (1 + kappa**2) * weight * basis
        out.append(total)
    return out


def sa_solver(
    at: papers.Scales,
    lam: list[float],
    x: float,
    p: int,
    q: int,
    pp: bool,
    mode: str,
    kappa: float,
    fresh: bool = False,
) -> float:
    """Algorithm 1, with the corrector's state formed anew. `fresh` is a mistake: other noise in the corrector."""
    predict = papers.data if pp else papers.noise
    history: list[tuple[float, float]] = []
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        if i == 0 or mode == "pece" or not q:
            history.insert(0, (ls, predict(at, ls, x)))
        (a_s, s_s), (a_t, s_t), h = at(ls), at(lt), lt - ls
        if pp:
            scale, amount = s_t / s_s * math.exp(-(kappa**2) * h), a_t
            std = s_t * math.sqrt(1 - math.exp(-2 * kappa**2 * h))
        else:
            scale, amount, std = a_t / a_s, -s_t, kappa * s_t * math.sqrt(math.exp(2 * h) - 1)

        def state(
            nodes: list[tuple[float, float]],
            z: float,
            step: tuple[float, float] = (ls, lt),
            ends: tuple[float, ...] = (scale * x, amount, std),
        ) -> float:
            b = weights([n for n, _ in nodes], *step, kappa, pp)
            return ends[0] + ends[1] * sum(w * e for w, (_, e) in zip(b, nodes, strict=True)) + ends[2] * z

        z = draw(i, 0)
        predicted = state(history[:p], z)
        if not q or (mode == "pec" and i == len(lam) - 2):
            x = predicted
            continue
        new = (lt, predict(at, lt, predicted))
        x = state([new, *history[: q - 1]], draw(i, 1) if fresh else z)
        if mode == "pec":
            history.insert(0, new)
    return x


def ours(process, kappa, **options) -> float:
    plan = solvers.get("sa_solver", **options).plan(process, times(process), kappa)
    return interpret(plan, nonlinear, 2.3 * plan.start[0], draw)


@pytest.mark.parametrize("mode", ["pec", "pece"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("p, q", [(1, 0), (1, 1), (1, 2), (2, 2), (2, 4), (3, 3), (3, 4), (4, 1), (4, 5)])
def test_every_order_is_the_papers(p: int, q: int, prediction: str, mode: str) -> None:
    for process, kappa in ((VP(), 0.0), (VP(), 1.0), (EDM(), 0.6)):
        got = ours(process, kappa, predictor_order=p, corrector_order=q, prediction=prediction, mode=mode)
        args = (papers.scales_of(process), LAMBDAS, 2.3 * float(process.alpha(times(process)[0])))
        want = sa_solver(*args, p, q, prediction == "data", mode, kappa)
        assert abs(got - want) <= 1e-12 * max(abs(want), 1.0)
        if kappa and q:
            wrong = sa_solver(*args, p, q, prediction == "data", mode, kappa, fresh=True)
            assert abs(got - wrong) > 1e-2


def test_a_constant_function_is_the_number() -> None:
    process = VP()
    for prediction in ("data", "noise"):
        got = ours(process, lambda t: 0.7, prediction=prediction)
        assert got == pytest.approx(ours(process, 0.7, prediction=prediction), rel=1e-12)


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_without_noise_it_is_unipc_and_without_a_corrector_exp_adams(prediction: str) -> None:
    for process, order in itertools.product(PROCESSES[:2], (1, 2, 3, 4)):
        for mode in ("pec", "pece"):
            plan = solvers.get("unipc", order=order, variant="exact", corrector=mode, prediction=prediction).plan(
                process, times(process)
            )
            want = interpret(plan, nonlinear, 2.3 * plan.start[0])
            options = {"predictor_order": order, "corrector_order": order + 1, "mode": mode}
            assert ours(process, 0.0, prediction=prediction, **options) == pytest.approx(want, rel=1e-12)
        for kappa in (0.0, 1.0, falling):
            plan = solvers.get("exp_adams", order=order, prediction=prediction).plan(process, times(process), kappa)
            want = interpret(plan, nonlinear, 2.3 * plan.start[0], draw)
            got = ours(process, kappa, predictor_order=order, corrector_order=0, prediction=prediction)
            assert got == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("mode", ["pec", "pece"])
def test_laws_that_are_exact(mode: str) -> None:
    """Data that is a point, for any stochasticity; the mean of any Gaussian for stochasticity 1."""
    for process, n in itertools.product(PROCESSES[::2], (1, 6)):
        grid = times(process, LAMBDAS[: n + 1])
        for kappa in (0.5, 1.0, 2.0, falling):
            plan = solvers.get("sa_solver", mode=mode).plan(process, grid, kappa)
            law = plan.gaussian_moments(1.7, 0.0)
            assert float(law.mean) == pytest.approx(plan.end[0] * 1.7, rel=1e-13)
            assert float(law.cov) == pytest.approx(plan.end[1] ** 2, rel=1e-13)
        plan, c, m, x = solvers.get("sa_solver", mode=mode).plan(process, grid, 1.0), 0.3, 0.7, 1.9
        (a, s), (b, t) = plan.start, plan.end
        slope = (b * a * c + a / b * t**2) / (a**2 * c + s**2)
        law = plan.gaussian_moments(m, c, start_mean=x, start_cov=0.0)
        assert float(law.mean) == pytest.approx(b * m + slope * (x - a * m), rel=1e-12)


def test_the_last_prediction_corrects_the_step_before_a_singular_end() -> None:
    grid = [0.9, 0.5, 0.2, 0.0]
    for prediction in ("data", "noise"):
        plan = solvers.get("sa_solver", prediction=prediction).plan(VP(), grid, 0.0)
        short = solvers.get("sa_solver", prediction=prediction, corrector_order=0).plan(VP(), grid, 0.0)
        assert plan.nfe == 3 and (plan.rows[-1].base != short.rows[-1].base) == (prediction == "noise")
        assert solvers.get("sa_solver", mode="pece", prediction=prediction).plan(VP(), grid, 0.0).nfe == 5


DIFFUSERS = [(1, 1, "data"), (2, 2, "data"), (3, 3, "data"), (3, 4, "data"), (2, 3, "noise"), (3, 3, "noise")]


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("kappa", [0.0, 0.6])
@pytest.mark.parametrize("p, q, prediction", DIFFUSERS)
def test_steps_are_those_of_diffusers(p: int, q: int, prediction: str, kappa: float) -> None:
    scheduler = schedulers.diffusers().SASolverScheduler(
        predictor_order=p,
        corrector_order=q,
        algorithm_type=f"{prediction}_prediction",
        prediction_type="sample",
        lower_order_final=False,
        tau_func=lambda t: torch.tensor(kappa, dtype=torch.float64),
    )
    run = schedulers.scheduled(scheduler)

    def end(second: str) -> torch.Tensor:
        options = {"predictor_order": p, "corrector_order": q, "prediction": prediction, "second": second}
        noise: Any = "step" if kappa == 0 else lambda out, step, stream: out.copy_(run.noises[step])
        reverse = run.process.reverse(run.model, kappa)
        return sdekit.solve(reverse, run.x, run.times, solvers.get("sa_solver", **options), noise=noise).x

    few = "few_steps" if prediction == "data" else "exact"
    assert float((end(few) - run.end).abs().max()) < 1e-5
    if few == "few_steps" and p > 1:
        assert float((end("exact") - run.end).abs().max()) > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"predictor_order": 0},
        {"corrector_order": -1},
        {"corrector_order": 9},
        {"mode": "pc"},
        {"second": "few_steps", "prediction": "noise"},
    ],
)
def test_options_are_checked(options) -> None:
    with pytest.raises(OptionError):
        solvers.get("sa_solver", **options)
