"""Steps of SDEs against their draws and operations, and keyed normals against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from sdekit import solvers
from sdekit.bench.speed.free import PROCESS, SHAPES, FreeNetwork, drawn, raw_step, times
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of
from sdekit.model import Model
from sdekit.noise import PlainNoise, StepNoise
from sdekit.solve import solve

__all__ = ["ROWS"]

_DRAWS = ((64, 1024), (16, 16384), (256, 3072), (4096, 2))
_LARGE = 1000  # elements of a sample, from which on keyed normals have a goal
_REPEATS = 3


def _steps(setting: Setting) -> Iterator[Reading]:
    plan = solvers.get("dpmpp_2m_sde").plan(PROCESS, times())
    for shape in SHAPES:
        x, net = drawn(shape, setting), FreeNetwork(drawn(shape, setting))
        model = Model(net, PROCESS, "data")

        def timed(x=x, net=net, model=model) -> float:  # noqa: ANN001
            return net.per_step(lambda: solve(model, x, plan.times, plan, noise="plain", seed=0, checks="end"))

        found = rounds_of({"raw": raw_step(shape, setting, 3, draw=True), "ours": timed}, setting.rounds)
        yield of_rounds(f"{shape}", "draw and four operations", [1e6 * s for s in found["raw"]], "us")
        quantity = "step of dpmpp_2m_sde, plain noise / draw and operations"
        yield of_rounds(f"{shape}", quantity, ratios(found["ours"], found["raw"]), goal=1.15)


def _draws(setting: Setting) -> Iterator[Reading]:
    for rows, size in _DRAWS:
        out = torch.zeros(rows, size, dtype=getattr(torch, setting.dtype), device=setting.device)
        keyed, plain = StepNoise(0, torch.arange(rows, device=setting.device)), PlainNoise(0)
        functions: dict[str, Callable[[], float]] = {
            "plain": lambda out=out, plain=plain: clocked(lambda: plain.fill(out, 0), _REPEATS),
            "keyed": lambda out=out, keyed=keyed: clocked(lambda: keyed.fill(out, 0), _REPEATS),
        }
        found = rounds_of(functions, setting.rounds)
        case = f"{rows} samples of {size:,}"
        goal = 15.0 if size >= _LARGE else None
        yield of_rounds(case, "normal_", [1e6 * s for s in found["plain"]], "us")
        yield of_rounds(case, "keyed normals / normal_", ratios(found["keyed"], found["plain"]), goal=goal)


def _measure(setting: Setting) -> Iterator[Reading]:
    yield from _steps(setting)
    yield from _draws(setting)


ROWS = (
    Row(
        "noise",
        "Steps with noise, and keyed normals",
        "A step of dpmpp_2m_sde from one call of the free network to the next, against a draw by normal_ and the four "
        "in-place operations that it needs. Normals keyed by seed, sample and step against normal_.",
        _measure,
        devices=("cpu",),
    ),
)
