"""Grids are those of the released diffusers and k-diffusion, where these are installed."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import peers
from sdekit import EDM, DiscreteVP, RectifiedFlow, grids

F64 = torch.float64
STEPS = (4, 9, 30)


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def sampling():
    module = peers.kdiffusion_sampling()
    if module is None:
        pytest.skip("k-diffusion is not installed; make bench-speed installs it")
    return module


@pytest.fixture(scope="module")
def stable_diffusion(diffusers):
    """The betas of Stable Diffusion, as a process and as what its scheduler is made with."""
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DiscreteVP(diffusers.DDPMScheduler(**config).betas), config


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "grid, flag",
    [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas"), ("beta_sigma", "use_beta_sigmas")],
)
def test_diffusers_sigmas(diffusers, stable_diffusion, steps: int, grid: str, flag: str) -> None:
    process, config = stable_diffusion
    scheduler = diffusers.EulerDiscreteScheduler(**config, **{flag: True})
    scheduler.set_timesteps(steps)
    got = grids.to_sigmas(process, grids.get(grid)(process, steps, append_zero=True))
    torch.testing.assert_close(got, scheduler.sigmas.double(), rtol=2e-5, atol=0)
    # The mutant: no other of the three is that close.
    other = grids.get("karras" if grid != "karras" else "beta_sigma")(process, steps, append_zero=True)
    assert not torch.allclose(grids.to_sigmas(process, other), scheduler.sigmas.double(), rtol=1e-2)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("grid, spacing", [("uniform", "linspace"), ("trailing", "trailing"), ("leading", "leading")])
def test_diffusers_timesteps(diffusers, stable_diffusion, steps: int, grid: str, spacing: str) -> None:
    process, config = stable_diffusion
    scheduler = diffusers.EulerDiscreteScheduler(**config, timestep_spacing=spacing, steps_offset=1)
    scheduler.set_timesteps(steps)
    times = grids.get(grid)(process, steps, append_zero=True)
    torch.testing.assert_close(grids.to_timesteps(process, times)[:-1], scheduler.timesteps.double(), rtol=1e-6, atol=0)
    # Between training times it interpolates sigma, not log alpha.
    sigmas = grids.to_sigmas(process, times)
    tolerance = 2e-5 if grid != "uniform" else 2e-3
    torch.testing.assert_close(sigmas, scheduler.sigmas.double(), rtol=tolerance, atol=0)
    assert grids.from_timesteps(process, scheduler.timesteps).tolist() == pytest.approx(times[:-1].tolist(), rel=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", STEPS)
def test_diffusers_flow_sigmas(diffusers, steps: int, shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    flow, end = RectifiedFlow(), float(scheduler.sigmas[-2])
    times = grids.flow_shift(flow, steps, shift=shift, t_end=end, append_zero=True)
    torch.testing.assert_close(times, scheduler.sigmas.double(), rtol=1e-6, atol=0)
    # Its timesteps are 1000 t.
    got = grids.to_timesteps(flow, times[:-1])
    torch.testing.assert_close(got, scheduler.timesteps.double(), rtol=1e-6, atol=0)
    if shift != 1:
        assert not torch.allclose(grids.uniform(flow, steps, t_end=end, append_zero=True), times, rtol=1e-2)


@pytest.mark.parametrize(
    "model, name", [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL"), ("svd", "StableDiffusionVideo")]
)
def test_diffusers_tables(diffusers, model: str, name: str) -> None:
    from diffusers.schedulers import AysSchedules

    got = grids.align_your_steps(EDM(), 10, model=model)
    want = torch.tensor(AysSchedules[f"{name}Sigmas"], dtype=F64)  # ends with a zero instead of the least sigma
    torch.testing.assert_close(got[:-1], want[:-1], rtol=1e-13, atol=0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "grid, name, options",
    [
        ("karras", "karras", {}),
        ("karras", "karras", {"rho": 4.0}),
        ("exponential", "exponential", {}),
        ("polyexponential", "polyexponential", {"rho": 1.7}),
    ],
)
def test_kdiffusion_sigmas(sampling, steps: int, grid: str, name: str, options: dict) -> None:
    want = getattr(sampling, f"get_sigmas_{name}")(steps, 0.03, 15.0, **options).double()
    got = grids.get(grid)(EDM(), steps, t_start=15.0, t_end=0.03, append_zero=True, **options)
    torch.testing.assert_close(got, want, rtol=5e-6, atol=0)
    torch.testing.assert_close(grids.from_sigmas(EDM(), want), want, rtol=1e-14, atol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_kdiffusion_vp(sampling, steps: int) -> None:
    want = sampling.get_sigmas_vp(steps).double()
    ends = {"t_start": math.sqrt(math.expm1(10.05)), "t_end": math.sqrt(math.expm1(1e-4 + 19.9e-6 / 2))}
    got = grids.vp(EDM(), steps, append_zero=True, **ends)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=0)  # 1 - exp in float32, at a sigma of 0.01
    torch.testing.assert_close(got[:-2], want[:-2], rtol=2e-5, atol=0)
