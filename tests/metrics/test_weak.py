"""Weak errors by coupled paths, against exact moments and whole laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sdekit import VP, grids, solvers, targets
from sdekit.errors import OptionError, ShapeError, SolverMismatchError
from sdekit.metrics import output_law, weak_error

ONE = targets.gaussian([0.7], 0.25)
TWO = targets.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [0.09, 0.25])
TIMES = [0.9, 0.7, 0.5, 0.35, 0.2]


def square(x: Tensor) -> Tensor:
    return x[:, 0].square()


@pytest.mark.parametrize(("name", "tau"), [("euler_maruyama", 1.0), ("ddpm", 1.0), ("exp_adams", 0.5)])
def test_the_interval_holds_the_exact_error(name: str, tau: float):
    plan = solvers.get(name).plan(VP(), TIMES, tau)
    law = plan.gaussian_moments([0.7], 0.25)
    alpha, sigma = plan.end
    exact = float(law.mean**2 + law.cov) - (alpha * 0.7) ** 2 - alpha**2 * 0.25 - sigma**2
    found = weak_error(name, ONE, VP(), TIMES, square, stochasticity=tau, levels=4)
    assert found.low <= exact <= found.high
    assert found.control == "fine grid"
    assert found.reduction > 2
    assert found.high - found.low < 3 * abs(exact)


def test_deterministic_samplers_have_the_flow_as_control():
    law = output_law(solvers.get("ddim").plan(VP(), TIMES), TWO)
    points = law.exact
    exact = float((points.masses * (points.centres**2 + points.stds**2)).sum())
    expected = law.expectation(torch.square) - exact
    found = weak_error("ddim", TWO, VP(), TIMES, square, paths=48)
    assert (found.control, found.paths, found.nfe) == ("flow", 48, 4)
    assert found.low <= expected <= found.high
    assert found.reduction > 10
    assert "by the flow" in str(found)


def test_finer_grids_have_smaller_errors():
    coarse, fine = (
        weak_error("euler_maruyama", ONE, VP(), grids.half_log_snr(VP(), n, t_end=0.2), square, levels=2, paths=256)
        for n in (8, 32)
    )
    assert abs(fine.value) < 0.5 * abs(coarse.value)


def test_what_is_refused():
    with pytest.raises(ShapeError, match="one number for each"):
        weak_error("ddim", ONE, VP(), TIMES, lambda x: x, paths=8)
    with pytest.raises(SolverMismatchError, match="no Brownian path"):
        weak_error(solvers.get("dpmpp_sde", eta=0.5), ONE, VP(), TIMES, square, paths=8)
    with pytest.raises(SolverMismatchError, match="no plan"):
        weak_error("tamed_euler_maruyama", ONE, VP(), TIMES, square)
    wrong: list[dict[str, Any]] = [{"paths": 1}, {"confidence": 2.0}]
    for options in wrong:
        with pytest.raises(OptionError):
            weak_error("ddim", ONE, VP(), TIMES, square, **options)
    with pytest.raises(OptionError, match="functional"):
        weak_error("ddim", ONE, VP(), TIMES, lambda x: x[:, 0] / 0, paths=8)
