"""dpm_adaptive: its pairs, k-diffusion's sampler, errors against the tolerance, and how it fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdekit
from benchmarks import peers
from sdekit.errors import NonFiniteError, OptionError, SolverMismatchError, UnfinishedError
from sdekit.plan import interpret
from sdekit.solvers.dpm_adaptive import DPM_12, DPM_23, ExponentialPair
from tests.solvers.test_fast import tensors
from tests.solvers.test_properties import nonlinear

F64 = torch.float64
RING = sdekit.targets.ring()
PAIRS = {2: DPM_12, 3: DPM_23}
PROCESSES = {
    "vp": (sdekit.VP(), 1.0, 1e-3),
    "edm": (sdekit.EDM(), 80.0, 0.002),
    "rectified_flow": (sdekit.RectifiedFlow(), 0.998, 0.002),
}


def both(pair: ExponentialPair, s: float, h: float, x: float) -> tuple[float, float]:
    """The state after one step of EDM from lambda = s by the weights for steps, and the estimate of its error."""
    states, estimates = pair.varying(np.array([h]))
    slopes: list[float] = []
    point, lam = x, s
    for weights, c in zip([None, *states], (*pair.tableau.c, 1.0), strict=True):
        if weights is not None:
            point = x + h * sum(float(w) * k for w, k in zip(weights[:, 0], slopes, strict=False))
        if len(slopes) < pair.tableau.stages:
            lam = s + c * h
            rho = math.exp(-lam)
            slopes.append(nonlinear_data(point, rho) - point)  # -rho noise
    return point, h * sum(float(w) * k for w, k in zip(estimates[0][:, 0], slopes, strict=True))


def nonlinear_data(x: float, sigma: float) -> float:
    return float(tensors(torch.tensor([[x]], dtype=F64), torch.tensor([sigma], dtype=F64)))


@pytest.mark.parametrize("h", [1.3, 0.2, -0.4])
@pytest.mark.parametrize("order", [2, 3])
def test_the_pairs_are_the_solvers_of_the_paper(order: int, h: float) -> None:
    """The new state is DPM-Solver-2's or 3's, and the estimate its difference to the solver of the order below."""
    s, x = -0.7, 1.9
    times = [math.exp(-s), math.exp(-s - h)]
    high = sdekit.solvers.get("dpm_solver_2") if order == 2 else sdekit.solvers.get("dpm_solver_3")
    low = sdekit.solvers.get("ddim") if order == 2 else sdekit.solvers.get("dpm_solver_2", r1=1 / 3)
    want, lower = (interpret(v.plan(sdekit.EDM(), times, 0.0), nonlinear, x) for v in (high, low))
    state, error = both(PAIRS[order], s, h, x)
    assert state == pytest.approx(want, abs=1e-13) and error == pytest.approx(want - lower, abs=1e-13)
    assert abs(want - lower) > 1e-5

    # The mutant: the weights of the noise prediction, without the change to slopes of x / alpha.
    class Undecayed(ExponentialPair):
        def varying(self, h):
            states, estimates = super().varying(h)
            decays = np.exp((1.0 - np.array(self.tableau.c)) * h)[:, None]
            return [w * decays[: len(w)] for w in states], estimates * decays

    mutant = Undecayed(PAIRS[order].tableau, PAIRS[order].low, order)
    assert both(mutant, s, h, x)[1] != pytest.approx(want - lower, abs=1e-6)


@pytest.mark.parametrize("order", [2, 3])
def test_the_estimate_falls_with_its_power(order: int) -> None:
    errors = [abs(both(PAIRS[order], 0.1, h, 1.9)[1]) for h in (0.02, 0.01)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def released(order: int, x: float, start: float, end: float) -> tuple[float, int, int]:
    """k-diffusion's control of steps around our pairs: x at the end, accepted and rejected steps."""
    s, h, previous, accepted, rejected = start, 0.05, x, 0, 0
    while s < end - 1e-5:
        t = min(end, s + h)
        state, error = both(PAIRS[order], s, t - s, x)
        low = state - error
        factor = (abs(error) / max(0.0078, 0.05 * max(abs(low), abs(previous))) + 1e-8) ** (-1 / order)
        factor = 1 + math.atan(factor - 1)
        if factor >= 0.81:
            x, s, previous, accepted = state, t, low, accepted + 1
        else:
            rejected += 1
        h *= factor
    return x, accepted, rejected


@pytest.mark.parametrize("order", [2, 3])
def test_with_k_diffusions_control_it_is_k_diffusions(order: int) -> None:
    """Of one sample and one number: its norm is over the batch. What differs is the control, and it alone."""
    sampling = peers.kdiffusion_sampling()
    if sampling is None:
        pytest.skip(peers.missing("k-diffusion"))
    for x in (95.0, -3.0):
        torch.set_default_dtype(F64)
        try:
            want, info = sampling.sample_dpm_adaptive(
                tensors, torch.tensor([[x]]), 0.02, 80.0, disable=True, order=order, return_info=True
            )
        finally:
            torch.set_default_dtype(torch.float32)
        got, accepted, rejected = released(order, x, -math.log(80.0), -math.log(0.02))
        # Its tolerances are float32 numbers, unless the default dtype is another.
        assert (accepted, rejected) == (info["n_accept"], info["n_reject"])
        assert got == pytest.approx(float(want), rel=1e-9)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", PROCESSES)
def test_errors_follow_the_tolerance(name: str, order: int) -> None:
    """The median over samples is at most five tolerances, and falls; calls grow as tol^(-1/order)."""
    process, start, end = PROCESSES[name]
    model, x = RING.under(process), process.sample_prior((8, 2), seed=1, dtype=F64)
    truth, solver = model.flow(x, start, end), sdekit.solvers.get("dpm_adaptive", order=order)
    errors, calls = [], []
    for tol in (1e-2, 1e-3, 1e-4) if order == 2 else (1e-2, 1e-4, 1e-5):
        s = sdekit.solve(model, x, (start, end), solver, rtol=tol)
        errors.append(float((s.x - truth).abs().amax(1).median()) / tol)
        calls.append(float(s.nfe.double().mean()))
        assert s.success and len(set(s.nfe.tolist())) > 1  # steps of each sample's own
    assert max(errors) < 5 and min(errors) > 0.05
    slope = math.log10(calls[-1] / calls[-2])
    assert slope == pytest.approx(1 / order, rel=0.25)
    back = sdekit.solve(model, s.x, (end, start), solver, rtol=1e-3)
    assert float((back.x - x).abs().amax(1).median()) < 2e-2 * max(1.0, process.prior[1])


def test_loose_tolerances_are_kept_too() -> None:
    """k-diffusion's defaults. With the published control samples end at other components."""
    process, end = sdekit.EDM(), 0.02
    model = RING.under(process)
    x = 80.0 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    truth = model.flow(x, 80.0, end)

    def error(controller: str) -> float:
        solver = sdekit.solvers.get("dpm_adaptive", controller=controller)
        s = sdekit.solve(model, x, (80.0, end), solver, rtol=0.05, atol=0.0078)
        return float((s.x - truth).square().mean().sqrt())

    assert error("pi") < 0.05 < 0.3 < error("i")


def test_times_between_are_landed_on() -> None:
    process = sdekit.VP()
    model, x = RING.under(process), process.sample_prior((5, 2), seed=1, dtype=F64)
    s = sdekit.solve(model, x, (1.0, 0.6, 0.01), "dpm_adaptive", rtol=1e-4, save=[0.6, 0.2])
    for t, state in zip(s.t.tolist(), s.xs, strict=True):
        assert float((state - model.flow(x, 1.0, t)).abs().amax(1).median()) < 2e-3
    assert s.t.tolist() == [0.6, 0.2]
    kept = sdekit.solve(model, x, (1.0, 0.01), sdekit.solvers.get("dpm_adaptive", compact=False), rtol=1e-4)
    freed = sdekit.solve(model, x, (1.0, 0.01), "dpm_adaptive", rtol=1e-4)
    assert torch.allclose(kept.x, freed.x, rtol=0, atol=1e-12) and torch.equal(kept.steps, freed.steps)


def test_gradients_pass_through() -> None:
    process = sdekit.VP()
    model = sdekit.targets.gaussian([0.5], 0.3).under(process)
    x = torch.tensor([[0.7]], dtype=F64, requires_grad=True)
    sdekit.solve(model, x, (0.9, 0.05), "dpm_adaptive", rtol=1e-6).x.backward()
    with torch.no_grad():
        exact = (model.flow(x + 1.0, 0.9, 0.05) - model.flow(x, 0.9, 0.05)).item()  # the flow is affine
    assert x.grad is not None and x.grad.item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("solver", ["dpm_adaptive", "rk45"])
def test_failures_have_names(solver: str) -> None:
    process = sdekit.VP()
    x = process.sample_prior((3, 2), seed=0, dtype=F64)
    model = RING.under(process)
    with pytest.raises(UnfinishedError) as caught:
        sdekit.solve(model, x, (1.0, 0.1), solver, rtol=1e-5, max_nfe=30)
    assert caught.value.cause == "MAX_NFE" and 0.1 < caught.value.t < 1.0
    holes = sdekit.Model(lambda x, t: torch.where(x > 0.5, torch.nan, x), process, "noise")
    with pytest.raises(NonFiniteError):
        sdekit.solve(holes, x, (1.0, 0.1), solver, rtol=1e-3)
    masked = sdekit.solve(holes, x, (1.0, 0.1), solver, rtol=1e-3, on_failure="mask")
    assert masked.x.isnan().any(1).tolist() == (masked.status > 0).tolist() and not masked.success


def test_what_has_no_finite_lambda_or_no_process_is_refused_before_the_first_call() -> None:
    calls = []
    model = sdekit.Model(lambda x, t: calls.append(1) or x, sdekit.RectifiedFlow(), "velocity")
    x = torch.zeros(2, 3)
    for times in ((1.0, 0.1), (0.9, 0.0)):
        with pytest.raises(OptionError, match=r"infinite at t.*Move that time inside, or use .*rk45.*theta"):
            sdekit.solve(model, x, times, "dpm_adaptive", rtol=1e-2)
    ode = sdekit.make_ode(lambda t, x: calls.append(1) or -x)
    with pytest.raises(SolverMismatchError, match="needs an affine process"):
        sdekit.solve(ode, x, (0.0, 1.0), "dpm_adaptive", rtol=1e-2)
    reverse = sdekit.VP().reverse(RING.under(sdekit.VP()), 1.0)
    with pytest.raises(SolverMismatchError, match="stochasticity"):
        sdekit.solve(reverse, x[:, :2], (0.9, 0.1), "dpm_adaptive", rtol=1e-2)
    for options in ({"order": 1}, {"order": True}, {"first_step": 0.0}, {"controller": "pod"}):
        with pytest.raises(OptionError):
            sdekit.solvers.get("dpm_adaptive", **options)
    with pytest.raises(OptionError, match="one for each stage"):
        replace(DPM_23, low=DPM_12.low)
    assert not calls
