"""Speed of the parts of a solve that are not the network: measured ratios beside the goals.

    python -m benchmarks.speed [--rows 1 2 3 4 5 6 7 8] [--rounds 15] [--threads 1]

Process time of one process, one thread, medians of interleaved rounds: machines differ, ratios hardly do. The network
is free: it returns one tensor made before. Rows:

1   A step of dpmpp_2m, from one network call to the next, against the three in-place operations that it needs.
2   A step of a whole call of `solve` with default settings against other libraries, at shapes of latents and images.
3   Counts: operations over the whole state, blocking reads, draws, allocations.
4   Noise: an SDE step against its draw and its operations; keyed normals and Brownian paths against torch's normals
    and other libraries' paths (benchmarks/speed_brownian.py).
5   The exact score of Gaussian mixtures against its matrix products (benchmarks/speed_targets.py).
6   Adaptive solves of a mixture's flow against torchdiffeq (benchmarks/speed_adaptive.py).
7   Where adaptive solves evaluate, and their errors (the same file).
8   Stochastic Runge-Kutta steps against torchsde (benchmarks/speed_srk.py).

The networks that people run take milliseconds a call. With those, none of what is measured here is visible, save for
large states.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks import speed_adaptive, speed_brownian, speed_srk, speed_targets
from benchmarks.peers import installed, kdiffusion_sampling, missing
from benchmarks.timing import clocked, medians
from sdekit.noise import PlainNoise, StepNoise

SHAPES = [(1, 4, 64, 64), (16, 4, 64, 64), (64, 3, 32, 32), (256, 3, 32, 32)]
STEPS = 50
WARM = 5  # calls before the clock starts
PROCESS = sdekit.EDM()


class FreeNetwork:
    """Returns one tensor; notes the process time between its calls number WARM and the last."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.out = torch.randn(shape)
        self.calls, self.start, self.end = 0, 0.0, 0.0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == WARM:
            self.start = time.process_time()
        elif self.calls == STEPS:
            self.end = time.process_time()
        return self.out

    def per_step(self, run: Callable[[], object]) -> float:
        """Seconds from one call to the next, inside one solve of STEPS steps."""
        self.calls = 0
        run()
        return (self.end - self.start) / (STEPS - WARM)


def times() -> list[float]:
    """The grid of all rows: Karras et al., STEPS steps, without a last zero."""
    return sdekit.grids.get("karras")(PROCESS, STEPS).tolist()


def raw_step(shape: Sequence[int], adds: int = 2, draw: bool = False) -> Callable[[], float]:
    """Seconds per step of the bare in-place operations: one scaling, additions, and for an SDE the draw."""
    x, others = torch.randn(shape), [torch.randn(shape) for _ in range(adds)]

    def run() -> float:
        start = time.process_time()
        for _ in range(STEPS):
            if draw:
                others[-1].normal_()
            x.mul_(0.9)
            for other in others:
                x.add_(other, alpha=0.01)
        return (time.process_time() - start) / STEPS

    return run


def row_1(rounds: int) -> None:
    """One 2M step against the three operations that it needs."""
    print("\n1  One dpmpp_2m step / its three in-place operations. Goal: at most 1.3 with checks='end'.")
    print("   'bare loop': a Python loop that only makes the network's time, calls it and does the three operations.")
    print(f"{'elements':>10} {'three ops':>12} {'bare loop':>10} {'end':>7} {'full':>7}   goal")
    plan = sdekit.solvers.get("dpmpp_2m").plan(PROCESS, times())
    for shape in [(1, 4, 64, 64), (1, 4, 128, 128), (64, 3, 32, 32), (16, 4, 64, 64), (256, 3, 32, 32)]:
        x, net = torch.randn(shape), FreeNetwork(shape)
        model = sdekit.Model(net, PROCESS, "data")

        def solve(checks: str, x: Tensor = x, net: FreeNetwork = net, model: sdekit.Model = model) -> float:
            return net.per_step(lambda: sdekit.solve(model, x, plan.times, plan, checks=checks))

        found = medians(
            {
                "raw": raw_step(shape),
                "bare": bare_loop(shape),
                "end": lambda solve=solve: solve("end"),
                "full": lambda solve=solve: solve("full"),
            },
            rounds,
        )
        raw = found["raw"]
        ratios = f"{found['bare'] / raw:10.2f} {found['end'] / raw:7.2f} {found['full'] / raw:7.2f}"
        print(f"{x.numel():>10} {raw * 1e6:>9.1f} us {ratios}   {verdict(found['end'] / raw <= 1.3)}")


def bare_loop(shape: Sequence[int]) -> Callable[[], float]:
    """The least that Python can do: no checks, coefficients in a list."""
    x, old, net = torch.randn(shape), torch.randn(shape), FreeNetwork(shape)
    rows = [(t, 0.9, 0.01, 0.01) for t in times()[:-1]]

    def run() -> float:
        def loop() -> None:
            previous = old
            for t, a, b, c in rows:
                out = net(x, x.new_full((len(x),), t))
                x.mul_(a)
                x.add_(out, alpha=b)
                x.add_(previous, alpha=c)
                previous = out

        return net.per_step(loop)

    return run


def peers(shape: Sequence[int], x: Tensor) -> dict[str, Callable[[], float]]:
    """Seconds per step of a whole call of other libraries, their grids made before; those installed only."""
    fixed = torch.randn(shape)
    found: dict[str, Callable[[], float]] = {}
    sampling = kdiffusion_sampling()
    if sampling is not None:
        sigmas = torch.tensor(times())
        run = lambda: sampling.sample_dpmpp_2m(lambda x, s: fixed, x, sigmas, disable=True)  # noqa: E731
        found["k-diffusion dpmpp_2m"] = lambda: clocked(run) / STEPS
    if installed("diffusers"):
        found["diffusers dpmpp_2m"] = _diffusers(fixed, x)
    if installed("azula"):
        found |= _azula(fixed, x)
    return found


def _diffusers(fixed: Tensor, x: Tensor) -> Callable[[], float]:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(prediction_type="sample")

    def run() -> None:
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(fixed, t, state).prev_sample

    def measure() -> float:
        scheduler.set_timesteps(STEPS)
        return clocked(run) / STEPS

    return measure


def _azula(fixed: Tensor, x: Tensor) -> dict[str, Callable[[], float]]:
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VESchedule
    from azula.sample import DDIMSampler, REABSampler

    class Free(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = VESchedule(0.002, 80.0)

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
            return DiracPosterior(mean=fixed)

    ddim = DDIMSampler(Free(), steps=STEPS, silent=True)
    reab = REABSampler(Free(), order=2, steps=STEPS, silent=True)
    return {
        "azula ddim": lambda: clocked(lambda: ddim(x)) / STEPS,
        "azula reab, order 2": lambda: clocked(lambda: reab(x)) / STEPS,
    }


def row_2(rounds: int) -> None:
    """Default settings against other libraries."""
    print("\n2  Seconds per step of other libraries / ours with default settings; whole calls of 50 steps.")
    print("   'planned': with a Plan made before, as the others' grids are. 'by name': planning on every call.")
    print("   'in the loop': ours from one network call to the next. azula's ddim is held against our ddim.")
    for name in ("k-diffusion", "diffusers", "azula"):
        if not installed(name):
            print(f"   {missing(name)}")
    grid = times()
    plans = {name: sdekit.solvers.get(name).plan(PROCESS, grid) for name in ("dpmpp_2m", "ddim")}
    print(f"{'shape':<18} {'library':<22} {'us / step':>10} {'planned':>8} {'by name':>8} {'in loop':>8}   goal")
    for shape in SHAPES:
        x, net = torch.randn(shape), FreeNetwork(shape)
        model = sdekit.Model(net, PROCESS, "data")
        functions = peers(shape, x)
        for name, plan in plans.items():

            def planned(plan: Any = plan, x: Tensor = x, model: sdekit.Model = model) -> object:
                return sdekit.solve(model, x, grid, plan)

            def by_name(name: str = name, x: Tensor = x, model: sdekit.Model = model) -> object:
                return sdekit.solve(model, x, grid, name)

            functions[f"planned {name}"] = lambda run=planned: clocked(run) / STEPS
            functions[f"by name {name}"] = lambda run=by_name: clocked(run) / STEPS
            functions[f"in loop {name}"] = lambda run=planned, net=net: net.per_step(run)
        found = medians(functions, rounds)
        for library, seconds in found.items():
            if library.startswith(("planned", "by name", "in loop")):
                continue
            ours = "ddim" if library.endswith("ddim") else "dpmpp_2m"
            ratios = [seconds / found[f"{kind} {ours}"] for kind in ("planned", "by name", "in loop")]
            goal = 3 if library.startswith("k-diffusion") else 4
            shown = " ".join(f"{r:8.1f}" for r in ratios)
            reached = f"{goal}: {verdict(ratios[0] >= goal)}, by name {verdict(ratios[1] >= goal)}"
            print(f"{shape!s:<18} {library:<22} {seconds * 1e6:>10.1f} {shown}   {reached}")
        print(f"{shape!s:<18} {'sdekit dpmpp_2m':<22} {found['planned dpmpp_2m'] * 1e6:>10.1f}")


class Counts(TorchDispatchMode):
    """Counts what PyTorch is asked to do once the network has been called three times."""

    def __init__(self, net: FreeNetwork) -> None:
        super().__init__()
        self.net, self.counts = net, Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not 3 <= self.net.calls < STEPS:
            return result
        name, size = func.__name__.split(".")[0], self.net.out.numel()
        tensors = [v for v in (*args, *(kwargs or {}).values()) if isinstance(v, Tensor)]
        full = any(v.numel() >= size for v in tensors) and name not in ("new_full", "detach")
        memory = {v.untyped_storage().data_ptr() for v in tensors}
        self.counts["operations"] += full
        self.counts["reads"] += name in ("_local_scalar_dense", "equal")
        self.counts["draws"] += name in ("normal_", "randn", "randn_like", "randint", "random_")
        if isinstance(result, Tensor) and result.numel() >= size and result.untyped_storage().data_ptr() not in memory:
            self.counts["allocations"] += 1
        return result


def row_3(rounds: int) -> None:
    """Counts for each step."""
    print("\n3  Counts for each step of dpmpp_2m. Goal: at most 3 operations, no .item(), no draw, no allocation.")
    print(f"{'network predicts':<18} {'checks':<7} {'operations':>11} {'reads':>7} {'draws':>7} {'allocations':>12}")
    for prediction, checks in (("data", "end"), ("data", "full"), ("noise", "end"), ("noise", "full")):
        net = FreeNetwork((16, 4, 64, 64))
        model, x = sdekit.Model(net, PROCESS, prediction), torch.randn_like(net.out)
        with Counts(net) as counter:
            sdekit.solve(model, x, times(), "dpmpp_2m", checks=checks)
        per = {k: counter.counts[k] / (STEPS - 3) for k in ("operations", "reads", "draws", "allocations")}
        shown = f"{per['operations']:>11g} {per['reads']:>7g} {per['draws']:>7g} {per['allocations']:>12g}"
        print(f"{prediction:<18} {checks:<7} {shown}")
    print(
        "   A prediction other than the solver's own costs one operation more: its conversion is kept for later steps."
    )


def row_4(rounds: int) -> None:
    """SDE steps and noise."""
    print("\n4  One dpmpp_2m_sde step with plain noise / (normal_ + four in-place operations). Goal: at most 1.15.")
    plan = sdekit.solvers.get("dpmpp_2m_sde").plan(PROCESS, times())
    for shape in SHAPES:
        x, net = torch.randn(shape), FreeNetwork(shape)
        model = sdekit.Model(net, PROCESS, "data")

        def solve(x: Tensor = x, net: FreeNetwork = net, model: sdekit.Model = model) -> float:
            run = lambda: sdekit.solve(model, x, plan.times, plan, noise="plain", seed=0, checks="end")  # noqa: E731
            return net.per_step(run)

        found = medians({"raw": raw_step(shape, 3, draw=True), "ours": solve}, rounds)
        ratio = found["ours"] / found["raw"]
        print(f"{shape!s:<18} {found['raw'] * 1e6:>9.1f} us {ratio:>7.2f}   {verdict(ratio <= 1.15)}")
    print("\n   Keyed normals / torch's normal_. Goal: at most 15 from 1,000 elements a sample.")
    for rows, size in ((64, 1024), (16, 16384), (256, 3072), (4096, 2)):
        out = torch.zeros(rows, size)
        keyed, plain = StepNoise(0, torch.arange(rows)), PlainNoise(0)
        found = medians(
            {
                "plain": lambda out=out, plain=plain: clocked(lambda: plain.fill(out, 0), 3),
                "keyed": lambda out=out, keyed=keyed: clocked(lambda: keyed.fill(out, 0), 3),
            },
            rounds,
        )
        ratio = found["keyed"] / found["plain"]
        goal = verdict(ratio <= 15) if size >= 1000 else "no goal"
        print(f"{(rows, size)!s:<18} {found['plain'] * 1e6:>9.1f} us {ratio:>7.1f}   {goal}")
    speed_brownian.row_4(min(rounds, 3))


def row_5(rounds: int) -> None:
    """Targets: a benchmark of its own."""
    print("\n5  Gaussian-mixture scores / their matrix products.")
    arguments, sys.argv = sys.argv, [sys.argv[0], "--rounds", str(rounds), "--threads", str(torch.get_num_threads())]
    try:
        speed_targets.main()
    finally:
        sys.argv = arguments


def verdict(reached: bool) -> str:
    """In words."""
    return "reached" if reached else "MISSED"


ROWS: dict[str, Callable[[int], None]] = {"1": row_1, "2": row_2, "3": row_3, "4": row_4, "5": row_5}
ROWS |= {"6": speed_adaptive.row_6, "7": speed_adaptive.row_7, "8": speed_srk.row_8}


def main() -> None:
    """Print the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=sorted(ROWS), default=sorted(ROWS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    print(f"{datetime.date.today()}, {speed_targets.processor()}, {options.threads} thread(s), float32")
    names = ("sdekit", "torch", "k-diffusion", "diffusers", "azula")
    libraries = [f"{name} {installed(name) or 'missing'}" for name in names]
    print(f"Python {platform.python_version()}, " + ", ".join(libraries))
    for name in options.rows:
        ROWS[name](options.rounds)


if __name__ == "__main__":
    main()
