"""The same numbers on a CUDA device as on the CPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.solvers import PlanSolver

pytestmark = pytest.mark.cuda

NAMES = [i.name for i in sdekit.solvers.available() if isinstance(sdekit.solvers.get(i.name), PlanSolver)]


def _samples(name: str, device: str, dtype: torch.dtype, **options: object) -> torch.Tensor:
    model = sdekit.targets.ring().to(device=device).under(sdekit.VP())
    return sdekit.sample(model, (256, 2), name, 20, seed=0, device=device, dtype=dtype, **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_solver_agrees_with_the_cpu(name: str) -> None:
    there = _samples(name, "cuda", torch.float64)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), _samples(name, "cpu", torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("checks", ["full", "end", "off"])
def test_checks_do_not_change_the_result(checks: str) -> None:
    reference = _samples("dpmpp_2m_sde", "cuda", torch.float32)
    assert torch.equal(_samples("dpmpp_2m_sde", "cuda", torch.float32, checks=checks), reference)


def test_the_fixed_step_loop_never_waits_for_the_device() -> None:
    model = sdekit.targets.ring().to(device="cuda", dtype=torch.float32).under(sdekit.VP())
    x = torch.randn(64, 2, device="cuda")
    times = sdekit.grids.half_log_snr(model.process, 10)
    sdekit.solve(model, x, times, "dpmpp_2m", checks="off")  # tables and kernels are made on first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        sdekit.solve(model, x, times, "dpmpp_2m", checks="off")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_keyed_noise_is_the_same_on_both_devices() -> None:
    from sdekit.math.philox import normals

    ids = torch.arange(100)
    here = normals(3, ids, 5, 33, dtype=torch.float64)
    there = normals(3, ids.cuda(), 5, 33, dtype=torch.float64, device="cuda")
    assert torch.equal(here, there.cpu())
