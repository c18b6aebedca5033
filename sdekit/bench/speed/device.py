"""Speed on a device: a step against the memory's bandwidth, a score against its products, and solves as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from sdekit import solvers
from sdekit.bench.speed.free import PROCESS, STEPS, drawn, times
from sdekit.bench.speed.on_device import SteadyNetwork, captured, copy_bytes, floor_bytes, seconds_on
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.scores import Shape, bare_products, mixture
from sdekit.bench.speed.timing import ratios, rounds_of
from sdekit.model import Model
from sdekit.plan import Plan
from sdekit.processes import VP
from sdekit.shapes import compute_dtype
from sdekit.solve import solve

__all__ = ["ROWS"]

_K, _M = 1024, 1024**2
_SIZES = {"cpu": (16 * _K, 128 * _K, _M, 4 * _M), "cuda": (16 * _K, 128 * _K, _M, 8 * _M, 64 * _M)}
_GRAPHS = (16 * _K, 128 * _K, _M)
_GOAL_AT, _GOAL = 64 * _M, 1.15  # elements, and the most that a step may take of its floor
_WIDE, _WIDE_GOAL = 256, 1.2  # dimensions, and the most that a score may take of its products
_ROW = 16 * _K  # elements of a sample
_SCORES = {
    "cpu": ((1024, 64, 64), (256, 1000, 256), (256, 1000, 1000)),
    "cuda": ((4096, 64, 64), (4096, 1000, 256), (4096, 1000, 1000), (4096, 1000, 3072)),
}
_T = 0.4
_FILL = 5e-3  # seconds of one timing: shorter functions are repeated


def _plan() -> Plan:
    return solvers.get("dpmpp_2m").plan(PROCESS, times())


def _filled(device: str, run: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one run, which is repeated to fill _FILL."""
    seconds_on(device, run)
    repeats = max(1, int(_FILL / max(1e-6, seconds_on(device, run))))
    return lambda: seconds_on(device, run, repeats)


def _floor(setting: Setting, size: int) -> tuple[Callable[[], float], float]:
    """Seconds of the largest copy, which tells the bandwidth, and what part of them is the floor of such a step."""
    source = torch.zeros(
        max(_SIZES[setting.device]), dtype=compute_dtype(getattr(torch, setting.dtype)), device=setting.device
    )
    target = torch.zeros_like(source)
    part = floor_bytes(size, getattr(torch, setting.dtype)) / copy_bytes(source)
    return _filled(setting.device, lambda: target.copy_(source)), part


def _us(seconds: list[float]) -> list[float]:
    return [1e6 * s for s in seconds]


def _steps(setting: Setting) -> Iterator[Reading]:
    plan = _plan()
    for size in _SIZES[setting.device]:
        copy, part = _floor(setting, size)
        x = drawn((size // _ROW, _ROW), setting)
        net = SteadyNetwork(x, STEPS)
        model = Model(net, PROCESS, "data")

        def step(x=x, net=net, model=model) -> float:  # noqa: ANN001
            return net.per_step(lambda: solve(model, x, plan.times, plan, checks="end"))

        found = rounds_of({"copy": copy, "step": step}, setting.rounds)
        floor = [part * seconds for seconds in found["copy"]]
        case, goal = f"{size:,} elements", _GOAL if setting.device == "cuda" and size == _GOAL_AT else None
        yield of_rounds(case, "floor", _us(floor), "us")
        yield of_rounds(case, "step", _us(found["step"]), "us")
        yield of_rounds(case, "step / floor", ratios(found["step"], floor), goal=goal)


def _scores(setting: Setting) -> Iterator[Reading]:
    dtype = getattr(torch, setting.dtype)
    for B, K, d in _SCORES[setting.device]:
        model = mixture("isotropic", K, d).to(dtype=dtype, device=setting.device).under(VP())
        x = model.sample(_T, B, seed=1)
        bare, name = bare_products("isotropic", Shape(B, K, d), dtype, setting.device)
        functions = {"products": bare, "score": lambda model=model, x=x: model.network(_T, x)}
        timed = {key: _filled(setting.device, run) for key, run in functions.items()}
        found = rounds_of(timed, setting.rounds)
        case, goal = f"{B} x {d}, {K} components", _WIDE_GOAL if setting.device == "cuda" and d >= _WIDE else None
        yield of_rounds(case, "matrix products", _us(found["products"]), "us", note=name)
        yield of_rounds(case, "score", _us(found["score"]), "us")
        yield of_rounds(case, "score / products", ratios(found["score"], found["products"]), goal=goal)


def _graphs(setting: Setting) -> Iterator[Reading]:
    if setting.device != "cuda":
        yield Reading("solves as graphs", "eager / graph", None, note="CUDA only")
        return
    plan = _plan()
    for size in _GRAPHS:
        copy, part = _floor(setting, size)
        x = drawn((size // _ROW, _ROW), setting)
        net = SteadyNetwork(x, STEPS)
        net.timed = False
        model = Model(net, PROCESS, "data")
        replay = captured(model, x, plan)
        functions = {
            "eager": lambda model=model, x=x: solve(model, x, plan.times, plan, checks="off"),
            "graph": lambda replay=replay, x=x: replay(x),
        }
        timed = {key: (lambda run=run: seconds_on("cuda", run) / STEPS) for key, run in functions.items()}
        found = rounds_of(timed | {"copy": copy}, setting.rounds)
        floor = [part * seconds for seconds in found["copy"]]
        case = f"{size:,} elements"
        for key in functions:
            yield of_rounds(case, f"step, {key}", _us(found[key]), "us")
            yield of_rounds(case, f"step, {key} / floor", ratios(found[key], floor))
        yield of_rounds(case, "eager / graph", ratios(found["eager"], found["graph"]))


ROWS = (
    Row(
        "device-step",
        "A step of dpmpp_2m / what its three operations must move",
        "From one call of a free network to the next. The floor: eight passes over the state in the dtype in which it "
        "is accumulated, at the bandwidth of the largest copy here, taken between the steps; for bfloat16 with the "
        "casts for the network and back. States that stay in a cache can be below it, and on a processor, where an "
        "operation in place is cheaper than a copy, large ones; small ones wait for Python.",
        _steps,
    ),
    Row(
        "device-score",
        "Scores of isotropic mixtures / their two matrix products",
        "Both in the dtype of the state, without gradients. Below 256 dimensions the softmax costs more than the "
        "products do. Targets compute in these two dtypes only.",
        _scores,
        dtypes=("float64", "float32"),
    ),
    Row(
        "device-graph",
        "Solves by dpmpp_2m as CUDA graphs",
        "Whole solves of 50 steps with a free network, per step: operation by operation, and captured as one graph and "
        "replayed. Beside them the floor of 'device-step'.",
        _graphs,
    ),
)
