"""Brownian paths: the cost of an increment as a multiple of torch's `normal_`, beside other libraries' paths.

    python -m benchmarks.speed_brownian [--rounds 5] [--threads 1]

A walk asks for the increments over N consecutive steps of a path made for it, as a solver does; 'any' asks for 20
intervals with random ends. W alone unless it says "with H"; of sdekit both are of one path. What the others do:

torchsde         BrownianInterval, which draws what is new from torch's generator, given what was drawn before: its path
                 depends on the order of queries. With H where it says so.
torchsde, tree   BrownianInterval with halfway_tree=True, of one path whatever is asked, to a tolerance; W alone.
k-diffusion      BrownianTreeNoiseSampler, a torchsde tree for each sample; W alone, in float32.

Process time, one thread, medians of interleaved rounds, `normal_` of the same dtype and size for a unit. docs/noise.md
has the numbers of one machine, and what diffrax's VirtualBrownianTree takes on it.
"""

from __future__ import annotations

import importlib
import itertools
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

from benchmarks.peers import installed, kdiffusion_sampling, missing
from benchmarks.timing import run_rows, times_of
from sdekit.brownian import BrownianPath
from sdekit.math.philox import NATIVE
from sdekit.noise import PathNoise

SHAPES = ((16, 4096), (1024, 64))
STEPS = (20, 50, 200)
TOLERANCE = 2.0**-19  # of the trees, what sdekit's path resolves
START, END = 0.01, 0.97
TREES = ("torchsde, tree", "k-diffusion")
Pairs = list[tuple[float, float]]


def walk(steps: int) -> Pairs:
    """Consecutive steps from START to END."""
    times = torch.linspace(START, END, steps + 1, dtype=torch.float64).tolist()
    return list(itertools.pairwise(times))


def anywhere(count: int = 20) -> Pairs:
    """Intervals with random ends."""
    draw = random.Random(0)
    return [tuple(sorted(draw.uniform(START, END) for _ in (0, 1))) for _ in range(count)]  # type: ignore[misc]


def paths(out: Tensor) -> dict[str, Callable[[Pairs], object]]:
    """Functions that make a path and ask for all increments, by name."""
    found: dict[str, Callable[[Pairs], object]] = {
        "sdekit": lambda pairs: _sdekit(out, pairs, 1),
        "sdekit, with H": lambda pairs: _sdekit(out, pairs, 2),
    }
    if installed("torchsde"):
        found["torchsde"] = lambda pairs: _torchsde(out, pairs)
        found["torchsde, with H"] = lambda pairs: _torchsde(out, pairs, levy_area_approximation="space-time")
        found["torchsde, tree"] = lambda pairs: _torchsde(out, pairs, halfway_tree=True, tol=TOLERANCE)
    sampling = kdiffusion_sampling()
    if sampling is not None and out.dtype == torch.float32 and len(out) <= 64:
        found["k-diffusion"] = lambda pairs: _kdiffusion(sampling, out, pairs)
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


def _kdiffusion(sampling: Any, out: Tensor, pairs: Pairs) -> None:
    noise = sampling.BrownianTreeNoiseSampler(out, START, END, seed=list(range(len(out))))
    for s, t in pairs:
        noise(torch.tensor(s), torch.tensor(t))


def measure(out: Tensor, pairs: Pairs, rounds: int, trees: bool) -> dict[str, float]:
    """Process seconds for a query of each, and of `normal_`. Trees take their time."""
    functions: dict[str, Callable[[], object]] = {"normal_": lambda: [out.normal_() for _ in pairs]}
    functions |= {name: (lambda run=run: run(pairs)) for name, run in paths(out).items() if trees or name not in TREES}
    return {name: seconds / len(pairs) for name, seconds in times_of(functions, rounds).items()}


def row_4(rounds: int) -> None:
    """Paths."""
    print("\n   A query of a Brownian path / torch's normal_, dtype by dtype. Goal: the lowest of all libraries.")
    for name in ("torchsde", "k-diffusion"):
        if not installed(name):
            print(f"   {missing(name)}" if name == "k-diffusion" else f"   {name}: not installed")
    NATIVE.get(2**22)
    print(f"   kernels in C: {NATIVE.reason}")
    print(f"{'shape':<12} {'dtype':<8} {'queries':<9} {'normal_':>10}   multiples of it")
    for shape in SHAPES:
        for dtype in (torch.float64, torch.float32):
            out = torch.zeros(shape, dtype=dtype)
            for kind, pairs in [*((f"walk {n}", walk(n)) for n in STEPS), ("any", anywhere())]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = measure(out, pairs, rounds, trees=len(pairs) <= 50)
                unit = found.pop("normal_")
                shown = ", ".join(f"{name} {seconds / unit:.1f}" for name, seconds in found.items())
                print(f"{shape!s:<12} {str(dtype)[6:]:<8} {kind:<9} {unit * 1e6:>7.0f} us   {shown}", flush=True)


def main() -> None:
    """Print the table."""
    run_rows(__doc__, 3, row_4)


if __name__ == "__main__":
    main()
