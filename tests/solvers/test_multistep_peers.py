"""ipndm, pndm and plms take the steps of diffusers' IPNDMScheduler and PNDMScheduler, where that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit import VP, RectifiedFlow, solvers, targets
from tests.solvers import schedulers

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own
BOUND = 1e-5
TARGET = targets.random_mixture(3, 4, 0)


@pytest.fixture
def diffusers() -> Any:
    return schedulers.diffusers()


def start() -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_ipndm(diffusers) -> None:
    """Its variable is alpha x_0 + sigma eps with alpha and sigma the cosine and sine of an angle, and what it combines
    sigma x + alpha v, which is the noise prediction for the v below."""
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(12)
    angles = torch.linspace(1.4, 0.1, 13, dtype=torch.float64)
    scheduler.betas, scheduler.alphas = torch.sin(angles), torch.cos(angles)
    model, x = TARGET.under(sdekit.EDM()), start()
    y = x
    for i, t in enumerate(scheduler.timesteps):
        alpha, sigma = scheduler.alphas[i], scheduler.betas[i]
        noise = model.noise(float(sigma / alpha), y / alpha)
        v = (noise - sigma * y) / alpha
        y = scheduler.step(v, t, y).prev_sample
    process = RectifiedFlow()
    times = process.time_at(-torch.log(torch.tan(angles)))
    into = process.alpha(times) / torch.cos(angles)
    ours = sdekit.solve(TARGET.under(process), into[0] * x, times, "ipndm").x / into[-1]
    assert float((ours - y).abs().max()) < BOUND


@pytest.mark.parametrize("name, skip", [("pndm", False), ("plms", True)])
def test_pndm(diffusers, name: str, skip: bool) -> None:
    """On ten steps of 100 of its 1000 times, which are placed at t = (i + 150) / 1200 of VP."""
    process = VP()

    def time(i: Any) -> Any:
        return (np.asarray(i) + 150.0) / 1200.0

    scheduler = diffusers.PNDMScheduler(skip_prk_steps=skip)
    scheduler.alphas_cumprod = process.alpha(torch.from_numpy(time(np.arange(1000)))) ** 2
    scheduler.final_alpha_cumprod = process.alpha(float(time(-100))) ** 2
    scheduler.set_timesteps(10)
    model, x = TARGET.under(process), start()
    y, calls = x, 0
    for t in scheduler.timesteps:
        y, calls = scheduler.step(model.noise(float(time(int(t))), y), int(t), y).prev_sample, calls + 1
    found = sdekit.solve(model, x, time(np.arange(900, -101, -100)), name)
    assert float((found.x - y).abs().max()) < BOUND and calls == int(found.nfe[0])
    other = sdekit.solve(model, x, time(np.arange(900, -101, -100)), solvers.get("pndm" if skip else "plms")).x
    assert float((other - y).abs().max()) > 100 * BOUND
