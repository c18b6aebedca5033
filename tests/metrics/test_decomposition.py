"""Errors in parts: known numbers, the triangle inequality, and parts that vanish where they must."""

from __future__ import annotations

import math

import pytest
import torch

from sdekit import EDM, VP, RectifiedFlow, grids, solvers, targets
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.metrics import decompose
from sdekit.metrics.decomposition import _of_paths

ONE = targets.gaussian([0.7], 0.25)
SEVERAL = targets.gaussian([0.3, -0.8, 0.5], [[0.3, 0.1, 0.0], [0.1, 1.0, 0.2], [0.0, 0.2, 3.0]])


def test_the_numbers_that_are_known():
    """VP with N(0.7, 0.25) from N(0, 1): 2.30e-3 by the flow, KL 1.06e-5; the SDE forgets the prior."""
    times = grids.half_log_snr(VP(), 100)
    flow = decompose(ONE, VP(), "heun", times, start=(0.0, 1.0))
    noisy = decompose(ONE, VP(), "euler_maruyama", times, start=(0.0, 1.0))
    assert flow.prior == pytest.approx(2.30e-3, rel=0.005)
    assert flow.prior_kl == pytest.approx(1.06e-5, rel=0.005)
    assert noisy.prior < flow.prior / 200
    assert (flow.measure, flow.nfe, noisy.nfe) == ("W2", 200, 100)
    for finish, size in (("state", 9.10e-5), ("rescaled", 1.0994e-4), ("denoised", 1.0992e-4)):
        found = decompose(ONE, VP(), "heun", times, finish=finish)
        assert found.truncation == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize("target", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("finish", ["state", "rescaled", "denoised"])
@pytest.mark.parametrize(
    ("solver", "tau"),
    [
        ("ddim", 0.0),
        ("dpmpp_2m", 0.0),
        ("euler_maruyama", 1.0),
        ("exp_adams", 0.5),
        ("exp_adams", lambda t: t / (1 + t)),
    ],
)
def test_the_total_is_below_the_sum(target, finish: str, solver: str, tau):
    for process, start in ((VP(), "prior"), (EDM(), (0.1, 70.0))):
        times = getattr(grids, process.default_grid)(process, 6)
        found = decompose(target, process, solver, times, stochasticity=tau, start=start, finish=finish)
        assert found.total <= found.bound * (1 + 1e-12)
        parts = (found.carried, found.discretization, found.truncation)
        assert found.total >= (2 * max(parts) - sum(parts)) * (1 - 1e-12)
        assert min(found.prior, found.discretization, found.truncation, found.carried) > 0


def test_parts_vanish_where_they_must():
    times = grids.half_log_snr(VP(), 8)
    found = decompose(SEVERAL, VP(), "ddim", times, start="marginal")
    assert found.prior < 1e-15 * math.sqrt(3)
    assert found.carried == 0
    assert found.prior_kl == 0
    exact = solvers.get("preconditioned_adams", data_variance=0.25, order=2)
    assert decompose(ONE, VP(), exact, times).discretization < 1e-12
    whole = decompose(SEVERAL, RectifiedFlow(), "ddim", grids.uniform(RectifiedFlow(), 8))
    assert whole.truncation < 1e-15
    assert whole.prior < 1e-14  # alpha = 0 at the start: the prior is the marginal
    assert whole.total == pytest.approx(whole.discretization, rel=1e-12)


def test_points_gain_by_a_last_data_prediction():
    """The error of a state is sigma for data at a point, and 0 once it is replaced by the data prediction."""
    point, times = targets.gaussian([0.7], 0.0), grids.half_log_snr(VP(), 20)
    state, denoised = (decompose(point, VP(), "ddim", times, finish=f).truncation for f in ("state", "denoised"))
    assert state == pytest.approx(float(VP().sigma(1e-3)), rel=0.01)
    assert denoised == 0


def test_mixtures_by_paths():
    target, times = targets.ring(std=0.5), grids.half_log_snr(VP(), 8)
    found = decompose(target, VP(), "dpmpp_2m", times, samples=12)
    assert found.measure == "rms"
    assert found.total <= found.bound
    assert min(found.prior, found.discretization, found.truncation) > 0
    finer = decompose(target, VP(), "dpmpp_2m", grids.half_log_snr(VP(), 32), samples=12)
    assert finer.discretization < 0.15 * found.discretization
    assert finer.prior == pytest.approx(found.prior, rel=1e-8)
    even = decompose(target, VP(), "dpmpp_2m", times, samples=12, start="marginal")
    assert (even.prior, even.carried) == (0, 0)
    whole = decompose(target, RectifiedFlow(), "ddim", grids.uniform(RectifiedFlow(), 8), samples=8, finish="denoised")
    assert whole.truncation < 1e-12


def test_paths_of_one_gaussian_agree_with_its_laws():
    """In one dimension paths of the same draws are the optimal coupling."""
    times, method = grids.half_log_snr(VP(), 10), solvers.get("ddim")
    paths = _of_paths(ONE, VP(), method, times.tolist(), None, (0.0, 1.0), "state", 20_000, 0)
    laws = decompose(ONE, VP(), "ddim", times, start=(0.0, 1.0))
    for part in ("discretization", "truncation", "total"):
        assert getattr(paths, part) == pytest.approx(getattr(laws, part), rel=0.02)
    assert laws.prior < paths.prior < 3 * laws.prior  # of these draws, x_T - y_T = alpha_T x_0 is not optimal


def test_steppers_serve_mixtures():
    found = decompose(targets.ring(std=0.5), VP(), "midpoint", torch.linspace(1, 0.1, 9), samples=8)
    assert found.nfe == 16


def test_what_is_refused():
    times = grids.half_log_snr(VP(), 4)
    with pytest.raises(SolverMismatchError, match="adds noise"):
        decompose(targets.ring(), VP(), "ddpm", times)
    with pytest.raises(SolverMismatchError, match="no plan"):
        decompose(ONE, VP(), "tamed_euler_maruyama", times)
    with pytest.raises(OptionError, match="finish"):
        decompose(ONE, VP(), "ddim", times, finish="polished")
    with pytest.raises(OptionError):
        decompose(ONE, VP(), "ddim", times.flip(0))
    for start in ("nowhere", 3.0):
        for target in (ONE, targets.ring()):
            with pytest.raises(OptionError):
                decompose(target, VP(), "ddim", times, start=start)
    with pytest.raises(InterfaceError):
        decompose(ONE, "VP", "ddim", times)  # type: ignore[arg-type]
