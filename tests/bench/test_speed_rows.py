"""What the readings of rows of speed say about things that are known: bytes, errors by dtype, where is evaluated."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sdekit
from sdekit.bench.speed import Reading, Setting, adaptive, brownian, device, device_error, on_device, paths, row, srk
from sdekit.bench.speed.others import missing
from sdekit.errors import OptionError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def measured(name: str, **setting: Any) -> dict[tuple[str, str], Reading]:
    """The readings of a row by case and quantity."""
    with torch.no_grad():
        found = list(row(name).measure(Setting(**{"rounds": 1, **setting})))
    named = {(r.case, r.quantity): r for r in found}
    assert len(named) == len(found) > 0
    assert all(r.note if r.value is None else r.value == r.value for r in found)
    return named


def moved(run: Any) -> int:
    """What operations read and write, counted as they happen."""

    class Bytes(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            tensors = [v for v in (*args, result) if isinstance(v, torch.Tensor)]
            self.total += sum(v.numel() * v.element_size() for v in tensors)
            return result

    with torch.no_grad(), Bytes() as mode:
        run()
    return mode.total


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_the_floor_is_what_three_operations_and_the_casts_move(dtype: torch.dtype) -> None:
    wide = torch.float32 if dtype is torch.bfloat16 else dtype
    x, old, out = torch.ones(1000, dtype=wide), torch.ones(1000, dtype=wide), torch.ones(1000, dtype=dtype)

    def step() -> None:
        if dtype is not wide:
            x.to(dtype)
        new = out if dtype is wide else out.to(wide)
        x.mul_(0.9)
        x.add_(new, alpha=0.1)
        x.add_(old, alpha=0.1)

    assert on_device.floor_bytes(1000, dtype) == moved(step)
    assert on_device.copy_bytes(out) == moved(lambda: out.clone())


def test_a_floor_of_other_operations_is_told_apart() -> None:
    """Mutants: two operations, or a copy that is only read."""
    x = torch.ones(1000)
    assert on_device.floor_bytes(1000, x.dtype) != moved(lambda: x.mul_(0.9).add_(x, alpha=0.1))
    assert on_device.copy_bytes(x) != x.numel() * x.element_size()


def test_a_step_is_no_more_than_its_floor_says() -> None:
    """The operations that a solve really makes from the fifth call on are those of the floor."""
    plan = device._plan()
    x = torch.randn(4, 16, 16)
    net = on_device.SteadyNetwork(x, device.STEPS)
    totals = []
    for steps in (10, 30):
        times = plan.times[: steps + 1]
        part = sdekit.solvers.get("dpmpp_2m").plan(device.PROCESS, times)
        model = sdekit.Model(net, device.PROCESS, "data")
        sdekit.solve(model, x, times, part, checks="off")
        totals.append(
            moved(lambda model=model, times=times, part=part: sdekit.solve(model, x, times, part, checks="off"))
        )
    extra = (totals[1] - totals[0]) / 20 - on_device.floor_bytes(x.numel(), x.dtype)
    assert 0 <= extra < 400  # of times and other small tensors


def test_seconds_are_of_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(on_device.time, "process_time", lambda: next(clock))
    calls = []
    assert on_device.seconds_on("cpu", lambda: calls.append(1), 3) == 2.0 and len(calls) == 3


def test_a_graph_is_of_a_deterministic_plan_on_a_gpu() -> None:
    x = torch.zeros(2, 2)
    model = sdekit.Model(lambda x, t: 0.5 * x, device.PROCESS, "data")
    with pytest.raises(OptionError, match="a state on cpu"):
        on_device.captured(model, x, device._plan())


def test_graphs_are_not_measured_on_a_processor() -> None:
    (reading,) = measured("device-graph").values()
    assert reading.value is None and reading.note == "CUDA only"


def small_errors(monkeypatch: pytest.MonkeyPatch, dtype: str) -> dict[str, dict[str, float]]:
    """Errors on the ring in 10 and 50 calls, by quantity."""
    monkeypatch.setattr(device_error, "cases", lambda: {"ring": sdekit.targets.ring()})
    monkeypatch.setattr(device_error, "_BUDGETS", (10, 50))
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (case, quantity), reading in measured("device-error", dtype=dtype).items():
        assert reading.exact and reading.value is not None
        found[quantity][case] = reading.value
    return found


BOUNDS = {"float64": (0.0, 1e-12), "float32": (1e-8, 3e-6), "bfloat16": (1e-3, 3e-2)}


def check_errors(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    found, (low, high) = small_errors(monkeypatch, dtype), BOUNDS[dtype]
    differences = found["difference to float64"]
    assert len(differences) == 10 and all(low <= value <= high for value in differences.values())
    # Methods of order 2 and 3 in five times as many calls: the error falls until the dtype holds it up.
    for name in ("dpmpp_2m", "unipc, order 3", "heun"):
        coarse, fine = (found["error"][f"ring: {name}, {calls} calls"] for calls in (10, 50))
        assert 1e-2 < coarse < 1 and fine < coarse / 8
        assert (fine > 1e-3) == (dtype == "bfloat16" or name != "unipc, order 3")


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_are_as_large_as_the_dtype_makes_them(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    check_errors(monkeypatch, dtype)


@pytest.mark.parametrize("dtype,actual", [("float64", torch.float32), ("float32", torch.bfloat16)])
def test_another_dtype_than_is_said_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, dtype: str, actual: torch.dtype
) -> None:
    """The mutant: what comes out has fewer bits than its dtype."""
    original = device_error.relative
    monkeypatch.setattr(device_error, "relative", lambda x, truth: original(x.to(actual), truth))
    with pytest.raises(AssertionError):
        check_errors(monkeypatch, dtype)


def ours(found: dict[tuple[str, str], Reading]) -> list[Reading]:
    return [reading for (case, _), reading in found.items() if case.startswith("sdekit") and reading.goal is not None]


def test_sdekit_stays_inside_the_ends_and_keeps_the_tolerance() -> None:
    found = measured("evaluations", dtype="float64")
    goals = ours(found)
    assert len(goals) == 12 and all(reading.reached and reading.exact for reading in goals)
    for name in ("bosh3", "rk45", "tsit5", "dop853"):
        assert found[f"sdekit {name}", "least sigma / 0.002"].value == 1.0
        assert found[f"sdekit {name}", "largest sigma / 80"].value == 1.0
    # What others do shows: torchdiffeq steps past the end.
    least = found["torchdiffeq dopri5", "least sigma / 0.002"]
    assert least.goal is None and least.value is not None and least.value < 0


def past_the_end(dynamics: Any, x: torch.Tensor, times: list[float], *args: Any, **options: Any) -> Any:
    dynamics.drift(torch.tensor(0.9 * times[-1], dtype=x.dtype), x)
    return sdekit.solve(dynamics, x, times, *args, **options)


def before_the_start(dynamics: Any, x: torch.Tensor, times: list[float], *args: Any, **options: Any) -> Any:
    dynamics.drift(torch.tensor(1.1 * times[0], dtype=x.dtype), x)
    return sdekit.solve(dynamics, x, times, *args, **options)


def too_coarse(*args: Any, **options: Any) -> Any:
    return sdekit.solve(*args, **{**options, "rtol": 1e-3, "atol": 1e-3})


@pytest.mark.parametrize(
    "mutant,missed",
    [
        (past_the_end, {"least sigma / 0.002"}),
        (before_the_start, {"largest sigma / 80"}),
        (too_coarse, {"median error / tolerance"}),
    ],
)
def test_solvers_that_step_outside_or_err_miss_the_goal(
    monkeypatch: pytest.MonkeyPatch, mutant: Any, missed: set[str]
) -> None:
    class Other:
        solve, make_ode = staticmethod(mutant), staticmethod(sdekit.make_ode)

    monkeypatch.setattr(adaptive, "sdekit", Other)
    assert {r.quantity for r in ours(measured("evaluations", dtype="float64")) if not r.reached} == missed


@pytest.mark.slow
def test_calls_of_stochastic_steps_are_counted_and_errors_are_those_of_the_paths() -> None:
    x = 0.3 * torch.randn(paths.BATCH, paths.SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        named = {
            (r.case, r.quantity): r.value
            for r in srk._compared("diagonal", paths.Sinh(), {"sriw2": 64, "sriw1": 64}, x, 1, "sriw2")
        }
    calls = "calls of drift and diffusion"
    assert named["diagonal: sriw2, drawn, 64 steps", calls] == 7 * 64
    assert named["diagonal: sriw1, drawn, 64 steps", calls] == 6 * 64
    theirs = named["diagonal: torchsde srk, drawn, 64 steps", "root mean square error"]
    same = named["diagonal: sriw2, drawn, 64 steps", "root mean square error"]
    assert theirs is not None and same is not None
    # One tableau on one path. Another path, the mutant, is wrong by its own size.
    assert abs(same - theirs) < 1e-3 * theirs < 1e-5
    with torch.no_grad():
        end = srk._solvers(paths.Sinh(), {"sriw2": 64}, x, None)["sriw2, drawn"]()
    exact = torch.asinh(x) + 1 + paths.Drawn(torch.randn(64, 2, paths.BATCH, paths.SIZE)).end
    assert srk._rms(torch.asinh(end) - exact) > 0.5


@pytest.mark.slow
def test_equal_error_takes_the_fewest_steps_that_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srk, "FINE", 512)
    monkeypatch.setattr(srk, "EQUAL", (8, 32, 64))
    with torch.no_grad():
        named = {(r.case, r.quantity): r for r in srk._equal_error((64, 1), 1)}
    assert named["at equal error, 64 x 1: sriw2 (Ito)", "steps"].value == 64
    assert named["at equal error, 64 x 1: the quickest", "torchsde / sdekit"].goal == 8
    monkeypatch.setattr(srk, "EQUAL", (8, 64))
    monkeypatch.setattr(srk, "RIVALS", (("euler_maruyama", "Ito"),))
    with torch.no_grad():
        (_, none) = srk._equal_error((64, 1), 1)
    assert none.value is None and "its error stays above" in none.note


def test_paths_on_any_steps_are_one_path() -> None:
    coarse, fine = (paths.Drawn.walked(steps, (3, 2)) for steps in (4, 16))
    torch.testing.assert_close(coarse.end, fine.end, rtol=0, atol=1e-12)
    w, u = coarse(0.25, 0.5, return_U=True)
    assert torch.equal(w, coarse.normals[1, 0] / 2)
    # U, the time integral of W over the step, from the finer path: trapezia and their own U.
    parts = [fine(i / 16, (i + 1) / 16, return_U=True) for i in range(4, 8)]
    total, before = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    for dw, du in parts:
        total, before = total + du + before / 16, before + dw
    torch.testing.assert_close(u, total, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_brownian_paths_are_told_as_multiples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brownian, "SHAPES", ((4, 64),))
    monkeypatch.setattr(brownian, "STEPS", (5, 60))
    found = measured("brownian", dtype="float32")
    cases = {case for case, _ in found if "4 x 64" in case}
    assert len(cases) == 3
    for case in cases:
        goals = {quantity for (c, quantity), r in found.items() if c == case and r.goal is not None}
        assert ("torchsde, tree / sdekit" in goals) == ("60" not in case)


def test_what_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("torchsde") == []
    monkeypatch.setattr("sdekit.bench.speed.others.installed", lambda name: None)
    (reading,) = missing("torchode")
    assert reading.value is None and "pip install torchode" in reading.note


TIMED = [(name, dtype) for name in ("device-step", "device-score") for dtype in row(name).dtypes]


@pytest.mark.slow
@pytest.mark.parametrize("name,dtype", TIMED)
def test_rows_of_devices_give_times_on_a_processor(name: str, dtype: str) -> None:
    found = measured(name, dtype=dtype)
    assert all(r.value is not None and r.value > 0 and r.goal is None for r in found.values())


def test_goals_on_a_gpu_are_those_that_were_set() -> None:
    assert (device._GOAL_AT, device._GOAL) == (64 * 2**20, 1.15)
    assert device._GOAL_AT in device._SIZES["cuda"] and max(device._SIZES["cuda"]) == device._GOAL_AT
    assert (device._WIDE, device._WIDE_GOAL) == (256, 1.2)
    assert [d for _, _, d in device._SCORES["cuda"] if d >= 256] == [256, 1000, 3072]
