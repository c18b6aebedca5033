"""dpmpp_3m_sde as diffusers releases it: sde-dpmsolver++ of order 3, whose sign leaves weak order 1."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit import EDM, VP, solvers
from sdekit.errors import OptionError
from sdekit.plan import interpret
from sdekit.testing import observed_order
from tests.solvers import papers, schedulers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, draw, nonlinear, times

RELEASED = solvers.get("dpmpp_3m_sde", as_released="diffusers")


def diffusers_3m(at: papers.Scales, lam: list[float], x: float, midpoint: bool, sign: float = -1.0) -> float:
    """sde-dpmsolver++ in the letters of diffusers, with its -0.5 in the last line of the third order, or `sign` 0.5."""
    m: list[float] = []
    for i, (lambda_s0, lambda_t) in enumerate(itertools.pairwise(lam)):
        (_, sigma_s0), (alpha_t, sigma_t) = at(lambda_s0), at(lambda_t)
        m.append(papers.data(at, lambda_s0, x))
        h, q = lambda_t - lambda_s0, math.exp(-2 * (lambda_t - lambda_s0))
        x = sigma_t / sigma_s0 * math.exp(-h) * x + alpha_t * (1 - q) * m[-1]
        if i == 1:
            d1 = (m[-1] - m[-2]) / ((lam[i] - lam[i - 1]) / h)
            x += 0.5 * alpha_t * (1 - q) * d1 if midpoint else alpha_t * ((1 - q) / (-2 * h) + 1) * d1
        elif i > 1:
            r0, r1 = (lam[i] - lam[i - 1]) / h, (lam[i - 1] - lam[i - 2]) / h
            d1_0, d1_1 = (m[-1] - m[-2]) / r0, (m[-2] - m[-3]) / r1
            d1, d2 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1), (d1_0 - d1_1) / (r0 + r1)
            x += alpha_t * ((1 - q) / (-2 * h) + 1) * d1
            x += alpha_t * ((1 - q - 2 * h) / (2 * h) ** 2 + 0.5 * sign) * d2
        x += sigma_t * math.sqrt(1 - q) * draw(i, 0)
    return x


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("second", ["half", "exact"])
def test_it_is_the_published_code(process: sdekit.AffineSDE, second: str) -> None:
    at, grid = papers.scales_of(process), times(process)
    for released, sign in (("diffusers", -1.0), (True, 1.0)):
        plan = solvers.get("dpmpp_3m_sde", as_released=released, second=second).plan(process, grid)
        got = interpret(plan, nonlinear, 2.3 * plan.start[0], draw)
        want, other = (diffusers_3m(at, LAMBDAS, 2.3 * plan.start[0], second == "half", k) for k in (sign, -sign))
        assert abs(got - want) <= 1e-12 * max(abs(want), 1.0) and abs(got - other) > 1e-3


def test_the_other_sign_costs_an_order() -> None:
    steps = (40, 80, 160, 320)
    wrong, right = (observed_order(s, "weak", steps=steps) for s in (RELEASED, "dpmpp_3m_sde"))
    assert RELEASED.declared.weak == 1 and 0.8 < wrong.value < 1.15 and right.value > 1.9, f"{wrong} {right}"


def test_the_other_sign_is_unstable_where_the_prediction_is_steep() -> None:
    """On predictions c x, alpha = 1, short steps have the roots of z^2 + c (z - 1) / 2, one below -1 for c above 1."""
    ends = {}
    for released, c, steps in itertools.product(("diffusers", False), (0.9, 1.5), (100, 200)):
        grid = EDM().time_at(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        plan = solvers.get("dpmpp_3m_sde", as_released=released).plan(EDM(), grid)
        end = interpret(plan, lambda row, x, c=c: c * x, 1.0, lambda step, stream: 0.0)
        ends[released, c, steps] = abs(end)
    for c in (0.9, 1.5):
        assert ends[False, c, 200] == pytest.approx(math.exp(2 * c - 2), rel=0.01)  # dx = (2 c - 2) x dlambda
    assert ends["diffusers", 0.9, 200] == pytest.approx(math.exp(-0.2), rel=0.02)
    assert ends["diffusers", 1.5, 200] > 1e5 * ends["diffusers", 1.5, 100]


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("solver_type, second", [("heun", "exact"), ("midpoint", "half")])
def test_it_is_the_one_in_diffusers(solver_type: str, second: str) -> None:
    scheduler = schedulers.diffusers().DPMSolverMultistepScheduler(
        solver_order=3,
        algorithm_type="sde-dpmsolver++",
        solver_type=solver_type,
        prediction_type="sample",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    run = schedulers.scheduled(scheduler)

    def gap(solver) -> float:
        noise: Any = lambda out, step, stream: out.copy_(run.noises[step])  # noqa: E731
        return float((sdekit.solve(run.model, run.x, run.times, solver, noise=noise).x - run.end).abs().max())

    released = dataclasses.replace(RELEASED, second=second)
    assert gap(released) < 1e-5 and gap(dataclasses.replace(released, as_released=True)) > 1e-3


def test_it_has_one_stochasticity() -> None:
    with pytest.raises(OptionError, match=r"as_released: got 'diffusers' with eta=0\.5; expected eta=1, .*=True"):
        solvers.get("dpmpp_3m_sde", as_released="diffusers", eta=0.5)
    for value in ("k-diffusion", 1, None, torch.tensor(True)):
        with pytest.raises(OptionError, match=r"as_released: got .*expected True, False or 'diffusers'"):
            solvers.get("dpmpp_3m_sde", as_released=value)
    assert RELEASED.plan(VP(), times(VP())).nfe == len(LAMBDAS) - 1  # one call a step
    assert RELEASED.plan(EDM(), times(EDM())) != solvers.get("dpmpp_3m_sde", as_released=True).plan(EDM(), times(EDM()))
