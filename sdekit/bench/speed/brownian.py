"""Brownian paths: the cost of an increment as a multiple of torch's `normal_`, beside other libraries' paths.

A walk asks for the increments over consecutive steps of a path made for it, as a solver does; 'any' asks for 20
intervals with random ends. W alone unless it says "with H"; of sdekit both are of one path. What the others do:

torchsde         BrownianInterval, which draws what is new from torch's generator, given what was drawn before: its path
                 depends on the order of queries. With H where it says so.
torchsde, tree   BrownianInterval with halfway_tree=True, of one path whatever is asked, to a tolerance; W alone.
k-diffusion      BrownianTreeNoiseSampler, a torchsde tree for each sample; W alone, in float32.
"""

from __future__ import annotations

import importlib
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdekit.bench.peers.kdiffusion import sampling
from sdekit.bench.speed.others import installed, missing
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of
from sdekit.brownian import BrownianPath
from sdekit.math.philox import NATIVE
from sdekit.noise import PathNoise

__all__ = ["ROWS"]

SHAPES = ((16, 4096), (1024, 64))
STEPS = (20, 50, 200)
ROUNDS = 3  # at most, for the trees' sake
TREE_STEPS = 50  # on longer walks trees are left out: they take their time
TOLERANCE = 2.0**-19  # of the trees, what sdekit's path resolves
START, END = 0.01, 0.97
TREES = ("torchsde, tree", "k-diffusion")
Pairs = list[tuple[float, float]]


def _walk(steps: int) -> Pairs:
    """Consecutive steps from START to END."""
    times = torch.linspace(START, END, steps + 1, dtype=torch.float64).tolist()
    return list(itertools.pairwise(times))


def _anywhere(count: int = 20) -> Pairs:
    """Intervals with random ends."""
    draw = random.Random(0)
    ends = [sorted(draw.uniform(START, END) for _ in (0, 1)) for _ in range(count)]
    return [(low, high) for low, high in ends]


def _paths(out: Tensor) -> dict[str, Callable[[Pairs], object]]:
    """Functions that make a path and ask for all increments, by name."""
    found: dict[str, Callable[[Pairs], object]] = {
        "sdekit": lambda pairs: _sdekit(out, pairs, 1),
        "sdekit, with H": lambda pairs: _sdekit(out, pairs, 2),
    }
    if installed("torchsde"):
        found["torchsde"] = lambda pairs: _torchsde(out, pairs)
        found["torchsde, with H"] = lambda pairs: _torchsde(out, pairs, levy_area_approximation="space-time")
        found["torchsde, tree"] = lambda pairs: _torchsde(out, pairs, halfway_tree=True, tol=TOLERANCE)
    released = sampling()
    if released is not None and out.dtype == torch.float32 and len(out) <= 64:
        found["k-diffusion"] = lambda pairs: _kdiffusion(released, out, pairs)
    return found


def _sdekit(out: Tensor, pairs: Pairs, count: int) -> None:
    ids = torch.arange(len(out))
    if all(a[1] == b[0] for a, b in itertools.pairwise(pairs)):
        noise = PathNoise(0, ids, [pairs[0][0], *(t for _, t in pairs)], streams=count)
        for step in range(len(pairs)):
            for stream in range(count):
                noise.fill(out, step, stream)
    else:
        path = BrownianPath(0, ids, out.shape[1])
        for s, t in pairs:
            for z in path.normals(s, t, count):
                out.copy_(z)


def _torchsde(out: Tensor, pairs: Pairs, **options: Any) -> None:
    make = importlib.import_module("torchsde").BrownianInterval
    path = make(START, END, size=tuple(out.shape), dtype=out.dtype, entropy=0, **options)
    for s, t in pairs:
        path(s, t)


def _kdiffusion(released: Any, out: Tensor, pairs: Pairs) -> None:
    noise = released.BrownianTreeNoiseSampler(out, START, END, seed=list(range(len(out))))
    for s, t in pairs:
        noise(torch.tensor(s), torch.tensor(t))


def _timed(out: Tensor, pairs: Pairs, rounds: int) -> dict[str, list[float]]:
    """Process seconds for a query of each, and of `normal_`, round by round."""
    functions: dict[str, Callable[[], object]] = {"normal_": lambda: [out.normal_() for _ in pairs]}
    trees = len(pairs) <= TREE_STEPS
    functions |= {name: (lambda run=run: run(pairs)) for name, run in _paths(out).items() if trees or name not in TREES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchsde, about intervals shorter than its tolerance
        return rounds_of({name: (lambda run=run: clocked(run) / len(pairs)) for name, run in functions.items()}, rounds)


def _measure(setting: Setting) -> Iterator[Reading]:
    yield from missing("torchsde", "k-diffusion")
    note = "" if NATIVE.get(2**22) is not None else f"without kernels in C: {NATIVE.reason}"
    for shape in SHAPES:
        out = torch.zeros(shape, dtype=getattr(torch, setting.dtype))
        for kind, pairs in [*((f"a walk of {n}", _walk(n)) for n in STEPS), ("any", _anywhere())]:
            case = f"{shape[0]} x {shape[1]}, {kind}"
            yield from _readings(case, _timed(out, pairs, min(setting.rounds, ROUNDS)), note)


def _readings(case: str, found: dict[str, list[float]], note: str) -> Iterator[Reading]:
    """Multiples of `normal_`. The goal: the lowest of all libraries that give one path whatever is asked."""
    yield of_rounds(case, "normal_", [1e6 * seconds for seconds in found["normal_"]], "us")
    for name, seconds in found.items():
        if name != "normal_":
            said = note if name.startswith("sdekit") else ""
            yield of_rounds(case, f"{name} / normal_", ratios(seconds, found["normal_"]), note=said)
    for name in TREES:
        if name in found:
            lead = ratios(found[name], found["sdekit"])
            yield of_rounds(case, f"{name} / sdekit", lead, goal=1.0, sense="at least")


ROWS = (
    Row(
        "brownian",
        "Increments of Brownian paths / torch's normal_",
        "Of a path that is the same whatever is asked, an increment should cost less than any other library's. "
        "A walk asks for consecutive steps, as a solver does; 'any' for 20 intervals with random ends. torchsde's "
        "interval without a tree gives another path for other queries. sdekit's normals are float64 at any dtype, and "
        "both W and H are of one path; k-diffusion's sampler is a tree of torchsde's for each sample, in float32. At "
        "most three rounds are taken.",
        _measure,
        devices=("cpu",),
        dtypes=("float64", "float32"),
    ),
)
