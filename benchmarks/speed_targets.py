"""How close the exact model of a Gaussian mixture comes to the matrix products that it cannot do without.

    python -m benchmarks.speed_targets [--rounds 15] [--threads 1]

Each row times, in interleaved rounds of one process, the bare products of the same shapes and dtype and
`model.network(t, x)` without gradients, by the processor time of this process, and prints the ratio of the medians.
Isotropic components need two products, (B, d) x (d, K) and (B, K) x (K, d); diagonal ones two of each; those of rank 8
beside the former two products with all columns, (B, d) x (d, 8 K) and back; full ones 2 K products (B, d) x (d, d),
into each eigenbasis and back. Times differ between machines, ratios hardly do.

Beside the products every entry of (B, K) passes through a softmax, which at d = 2 costs more than they do: 'with exp'
is the ratio of the products and one bare exponential of each entry, the least that a softmax can be.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

from sdekit import targets
from sdekit.processes import EDM, VP

RANK = 8

# Batch, components, dimension.
SHAPES = {
    "common": [(4096, 8, 2), (4096, 64, 64), (1024, 1000, 64), (256, 100, 1000), (256, 1000, 1000), (512, 1000, 3072)],
    "isotropic": [(4096, 64, 64), (256, 1000, 1000)],
    "diagonal": [(4096, 64, 64), (1024, 1000, 64), (256, 1000, 1000)],
    "low rank": [(1024, 16, 64), (256, 100, 3072)],
    "full": [(4096, 8, 2), (1024, 16, 64), (1024, 8, 512)],
}


def products(kind: str, B: int, K: int, d: int) -> tuple[Callable[[], object], str]:
    """The bare products of one kind, and what they are called."""
    generator = torch.Generator().manual_seed(0)
    x, r, m = (torch.randn(n, dtype=torch.float64, generator=generator) for n in ((B, d), (B, K), (K, d)))
    if kind == "full":
        bases = torch.randn(K, d, d, dtype=torch.float64, generator=generator)
        return lambda: [(x @ u, x @ u.mT) for u in bases], f"{2 * K} products of d x d"
    if kind == "low rank":
        u, c = (torch.randn(n, dtype=torch.float64, generator=generator) for n in ((K * RANK, d), (B, K * RANK)))
        return lambda: (x @ m.mT, x @ u.mT, r @ m, c @ u), "four products"
    if kind == "diagonal":
        return lambda: (x @ m.mT, x @ m.mT, r @ m, r @ m), "four products"
    return lambda: (x @ m.mT, r @ m), "two products"


def mixture(kind: str, K: int, d: int) -> targets.GaussianMixture:
    """A random mixture of one kind."""
    if kind != "low rank":
        return targets.random_mixture(d, K, 0, covariance=kind)
    g = targets.random_mixture(d, K, 0)
    factors = torch.randn(K, d, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / math.sqrt(d)
    return targets.GaussianMixture(g.weights, g.means, targets.LowRank(factors, g.components.variances[:, 0]))


def goal(kind: str, d: int) -> str:
    """What PyTorch users should expect at most; full covariances and those of low rank have none."""
    if kind in ("full", "low rank"):
        return "-"
    return "1.05" if d >= 1000 else "1.7"


def medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median processor seconds of each, in interleaved rounds; short functions are repeated to fill a millisecond."""
    repeats = []
    for f in functions:
        f()
        start = time.process_time()
        f()
        repeats.append(max(1, int(2e-3 / max(1e-6, time.process_time() - start))))
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for f, n, record in zip(functions, repeats, times, strict=True):
            start = time.process_time()
            for _ in range(n):
                f()
            record.append((time.process_time() - start) / n)
    return [statistics.median(record) for record in times]


def row(label: str, model: targets.ExactModel, t: float, kind: str, shape: tuple[int, int, int], rounds: int) -> None:
    """Measure and print one line."""
    B, K, d = shape
    x = model.sample(t, B, seed=1)
    bare, name = products(kind, B, K, d)
    logits = torch.linspace(-9, 0, B * K, dtype=torch.float64).reshape(B, K)
    powers = torch.empty_like(logits)
    functions = [bare, lambda: model.network(t, x), lambda: (bare(), torch.exp(logits, out=powers))]
    base, ours, least = medians(functions, rounds)
    where = f"{label:<26} {B:>5} {K:>5} {d:>5}"
    print(
        f"{where}   {name:<22} {base * 1e3:9.3f} {ours * 1e3:9.3f}   {ours / base:6.2f}   {least / base:8.2f}"
        f"   {goal(kind, d):>5}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    print(f"{datetime.date.today()}, {processor()}, {options.threads} thread(s), torch {torch.__version__}, float64")
    print(
        f"{'target':<26} {'B':>5} {'K':>5} {'d':>5}   {'floor':<22} "
        f"{'floor ms':>9} {'sdekit ms':>9}   {'ratio':>6}   {'with exp':>8}   {'goal':>5}"
    )
    for kind, shapes in SHAPES.items():
        for B, K, d in shapes:
            row(kind, mixture(kind, K, d).under(VP()), 0.4, kind, (B, K, d), options.rounds)
    digits = targets.digits()
    for B in (64, 1024):
        row("digits, std 0.1", digits.under(VP()), 0.4, "common", (B, *digits.means.shape), options.rounds)
    # Where x is close to one of many points, plainly expanded squares lose digits and three more products keep them.
    points = targets.digits(std=0.0)
    row("digits, std 0, sigma .002", points.under(EDM()), 0.002, "common", (1024, *points.means.shape), options.rounds)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
