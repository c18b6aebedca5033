"""The same numbers on a CUDA device as on the CPU; skipped where there is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit.bench import speed
from sdekit.bench.speed import device
from sdekit.bench.speed.on_device import captured
from sdekit.errors import OptionError
from sdekit.solvers import PlanSolver

pytestmark = pytest.mark.cuda

NAMES = [i.name for i in sdekit.solvers.available() if isinstance(sdekit.solvers.get(i.name), PlanSolver)]


def _samples(name: str, device: str, dtype: torch.dtype, **options: Any) -> torch.Tensor:
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


def _solve(x: torch.Tensor, plan: sdekit.Plan) -> torch.Tensor:
    return sdekit.solve(_model(), x, plan.times, plan, checks="off").x


def _model() -> sdekit.Model:
    return sdekit.Model(lambda x, t: torch.tanh(x) * (0.5 + 0.1 * t.to(x.dtype)[:, None].cos()), sdekit.VP(), "noise")


def _plan(name: str, **options: Any) -> sdekit.Plan:
    return sdekit.solvers.get(name, **options).plan(sdekit.VP(), sdekit.grids.half_log_snr(sdekit.VP(), 12).tolist())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc", "heun", "ddim"])
def test_a_captured_solve_is_the_eager_one_to_the_bit(name: str, dtype: torch.dtype) -> None:
    first, second = torch.randn(2, 64, 8, device="cuda", dtype=dtype)
    plan = _plan(name)
    with torch.no_grad():
        replay = captured(_model(), first, plan)
        for x in (first, second, first):
            kept = x.clone()
            assert torch.equal(replay(x), _solve(x, plan))
            assert torch.equal(x, kept)


def test_a_plan_with_noise_is_not_captured() -> None:
    with pytest.raises(OptionError, match="deterministic"):
        captured(_model(), torch.zeros(2, 2, device="cuda"), _plan("dpmpp_2m_sde"))


ROWS = [(name, dtype) for name in speed.MODULES if name.startswith("device-") for dtype in speed.row(name).dtypes]


@pytest.mark.parametrize("name,dtype", ROWS)
def test_rows_of_devices_give_finite_numbers(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(device._SIZES, "cuda", (2**14, 2**20))
    monkeypatch.setattr(device, "_GRAPHS", (2**14,))
    with torch.no_grad():
        found = list(speed.row(name).measure(speed.Setting("cuda", dtype, 1)))
    assert found and all(r.value is not None and math.isfinite(r.value) for r in found)
