"""Adaptive steps on probability flows: against the exact flow, in every clock, with conditioning, and by `sample`."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.errors import OptionError

RING = sdekit.targets.ring()
PROCESSES = {"vp": sdekit.VP(), "edm": sdekit.EDM(), "rectified_flow": sdekit.RectifiedFlow(), "ve": sdekit.VE()}


@pytest.mark.parametrize("clock", ["theta", "rho", "lambda", "t"])
@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_flow_is_reached(name, clock):
    """Median error over samples at most ten tolerances, in both directions of time; clocks that are infinite say so."""
    process, tol = PROCESSES[name], 1e-6
    model, ends = RING.under(process), (process.t_max, process.t_min)
    x = process.sample_prior((16, 2), seed=1, dtype=torch.float64)
    solver = sdekit.solvers.get("rk45", adaptive_clock=clock)
    if name == "rectified_flow" and clock in ("rho", "lambda"):
        with pytest.raises(OptionError, match="theta"):
            sdekit.solve(model, x, ends, solver, rtol=tol)
        return
    s = sdekit.solve(model, x, ends, solver, rtol=tol)
    error = (s.x - model.flow(x, *ends)).abs().amax(1)
    assert float(error.median()) <= 10 * tol and s.success
    back = sdekit.solve(model, s.x, ends[::-1], solver, rtol=1e-8)
    assert float((back.x - x).abs().amax(1).median()) < 1e-2 * max(1.0, process.prior[1])


def test_the_flow_and_the_model_are_the_same_problem():
    process = sdekit.VP()
    model, x = RING.under(process), process.sample_prior((4, 2), seed=1, dtype=torch.float64)
    a = sdekit.solve(model, x, (1.0, 0.01), "rk45", rtol=1e-6)
    b = sdekit.solve(process.probability_flow(model), x, (1.0, 0.01), "rk45", rtol=1e-6)
    assert torch.equal(a.x, b.x)


@pytest.mark.parametrize("predicts", ["noise", "data", "v", "velocity", "score"])
def test_conditioning_goes_with_its_sample(predicts):
    """A network of one Gaussian whose mean is a condition: alone or in a batch, each sample gets its own."""
    process = sdekit.VP()
    sizes = []

    def net(x, t, mean):
        sizes.append((len(x), len(mean)))
        alpha, sigma = (f(t.double()).reshape(-1, 1) for f in (process.alpha, process.sigma))
        s = alpha**2 * 0.09 + sigma**2
        noise = sigma * (x - alpha * mean) / s
        data = mean + alpha * 0.09 * (x - alpha * mean) / s
        rates = (f(t.double()).reshape(-1, 1) for f in (process.alpha_rate, process.sigma_rate))
        return {
            "noise": noise,
            "data": data,
            "v": alpha * noise - sigma * data,
            "score": -noise / sigma,
            "velocity": sum(r * p for r, p in zip(rates, (data, noise), strict=True)),
        }[predicts]

    model = sdekit.Model(net, process, predicts)
    x = process.sample_prior((6, 2), seed=0, dtype=torch.float64)
    means = torch.arange(12, dtype=torch.float64).reshape(6, 2) - 5
    s = sdekit.solve(model, x, (1.0, 0.01), "rk45", rtol=1e-7, mean=means)
    assert all(a == b for a, b in sizes) and sizes[-1][0] < 6
    for i in range(6):
        exact = sdekit.targets.gaussian(means[i], 0.09).under(process).flow(x[i : i + 1], 1.0, 0.01)
        assert float((s.x[i] - exact).abs().max()) < 1e-5


def test_sample_takes_tolerances():
    model = RING.under(sdekit.EDM())
    x = sdekit.sample(model, (32, 2), "rk45", rtol=1e-6, seed=3, dtype=torch.float64)
    start = sdekit.EDM().sample_prior((32, 2), seed=3, dtype=torch.float64)
    truth = model.flow(start, 80.0, 0.002)
    assert float((x - truth).abs().amax(1).median()) < 1e-5
    chunks = sdekit.sample(model, (32, 2), "rk45", rtol=1e-6, seed=3, dtype=torch.float64, batch_size=10)
    assert torch.allclose(chunks, x, rtol=0, atol=1e-5)


def test_a_prediction_that_does_not_determine_the_end_is_refused():
    process = sdekit.RectifiedFlow()
    model = sdekit.Model(lambda x, t: x, process, "data")
    with pytest.raises(OptionError, match="does not determine"):
        sdekit.solve(model, torch.zeros(2, 3), (1.0, 0.0), "rk45", rtol=1e-4)
