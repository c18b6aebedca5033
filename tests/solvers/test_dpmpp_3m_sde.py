"""What dpmpp_3m_sde is not: the third-order update of diffusers' sde-dpmsolver++, whose sign leaves weak order 1."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import sdekit
from sdekit import solvers
from sdekit.testing import observed_order
from tests.solvers import schedulers


class OtherSign(solvers.PlanSolver):
    """As released, with a term -1/2 for +1/2: each full step is off by -alpha_t times the second difference."""

    declared = solvers.Order(weak=1)
    fixed_stochasticity = 1.0

    def rows(self, process, times, stochasticity):
        lam = [level.half_log_snr for level in process.levels(times)]
        alpha = [level.alpha for level in process.levels(times)]
        rows = []
        for n, row in enumerate(solvers.get("dpmpp_3m_sde", as_released=True).rows(process, times, 1.0)):
            if n > 1:
                h, r0, r1 = (lam[n + 1 - k] - lam[n - k] for k in range(3))
                r0, r1 = r0 / h, r1 / h
                difference = [1 / r0, -1 / r0 - 1 / r1, 1 / r1]
                b = dict(row.base.outputs)
                off = {age: b[age] - alpha[n + 1] * d / (r0 + r1) for age, d in enumerate(difference)}
                row = dataclasses.replace(row, base=dataclasses.replace(row.base, outputs=tuple(off.items())))
            rows.append(row)
        return rows


def test_the_other_sign_costs_an_order() -> None:
    steps = (40, 80, 160, 320)
    wrong, right = (observed_order(s, "weak", steps=steps) for s in (OtherSign(), "dpmpp_3m_sde"))
    assert 0.8 < wrong.value < 1.15 and right.value > 1.9, f"{wrong} {right}"


@pytest.mark.filterwarnings("ignore")  # diffusers' own
def test_it_is_the_one_in_diffusers() -> None:
    scheduler = schedulers.diffusers().DPMSolverMultistepScheduler(
        solver_order=3,
        algorithm_type="sde-dpmsolver++",
        solver_type="heun",
        prediction_type="sample",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    run = schedulers.scheduled(scheduler)

    def end(solver) -> torch.Tensor:
        noise: Any = lambda out, step, stream: out.copy_(run.noises[step])  # noqa: E731
        return sdekit.solve(run.model, run.x, run.times, solver, noise=noise).x

    gaps = [float((end(s) - run.end).abs().max()) for s in (OtherSign(), solvers.get("dpmpp_3m_sde", as_released=True))]
    assert gaps[0] < 1e-5 and gaps[1] > 1e-3, gaps
