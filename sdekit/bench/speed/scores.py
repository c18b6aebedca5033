"""How close the exact model of a Gaussian mixture comes to the matrix products that it cannot do without.

Isotropic components need two products, (B, d) x (d, K) and (B, K) x (K, d); diagonal ones two of each; those of rank 8
beside the former two products with all columns, (B, d) x (d, 8 K) and back; full ones 2 K products (B, d) x (d, d),
into each eigenbasis and back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from sdekit import targets
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of
from sdekit.processes import EDM, VP

__all__ = ["ROWS", "SHAPES", "Shape", "bare_products", "mixture"]

RANK = 8
FILL = 2e-3  # seconds of one timing: shorter functions are repeated


class Shape(NamedTuple):
    """Batch, components, dimension."""

    B: int
    K: int
    d: int


SHAPES = {
    "common": [(4096, 8, 2), (4096, 64, 64), (1024, 1000, 64), (256, 100, 1000), (256, 1000, 1000), (512, 1000, 3072)],
    "isotropic": [(4096, 64, 64), (256, 1000, 1000)],
    "diagonal": [(4096, 64, 64), (1024, 1000, 64), (256, 1000, 1000)],
    "low rank": [(1024, 16, 64), (256, 100, 3072)],
    "full": [(4096, 8, 2), (1024, 16, 64), (1024, 8, 512)],
}


def bare_products(
    kind: str, shape: Shape, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Callable[[], object], str]:
    """The products that components of one kind need, on random numbers, and what they are called."""
    B, K, d = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, dtype=torch.float64, generator=generator).to(device, dtype)

    x, r, m = draw(B, d), draw(B, K), draw(K, d)
    if kind == "full":
        bases = draw(K, d, d)
        return lambda: [(x @ u, x @ u.mT) for u in bases], f"{2 * K} products of d x d"
    if kind == "low rank":
        u, c = draw(K * RANK, d), draw(B, K * RANK)
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


def _goal(kind: str, d: int) -> float | None:
    """What PyTorch users should expect at most; full covariances and those of low rank have none."""
    if kind in ("full", "low rank"):
        return None
    return 1.05 if d >= 1000 else 1.7


def _filled(run: Callable[[], object]) -> Callable[[], float]:
    """Process seconds of one run, which is repeated to fill FILL."""
    run()
    start = time.process_time()
    run()
    repeats = max(1, int(FILL / max(1e-6, time.process_time() - start)))
    return lambda: clocked(run, repeats)


def _readings(
    label: str, model: targets.ExactModel, t: float, kind: str, shape: Shape, rounds: int
) -> Iterator[Reading]:
    """The score of one mixture against its products, and against these and one bare exponential for each entry."""
    x = model.sample(t, shape.B, seed=1)
    bare, name = bare_products(kind, shape)
    logits = torch.linspace(-9, 0, shape.B * shape.K, dtype=torch.float64).reshape(shape.B, shape.K)
    powers = torch.zeros_like(logits)
    functions = {
        "products": bare,
        "score": lambda: model.network(t, x),
        "least": lambda: (bare(), torch.exp(logits, out=powers)),
    }
    found = rounds_of({name: _filled(run) for name, run in functions.items()}, rounds)
    case = f"{label}, {shape.B} x {shape.d}, {shape.K} components"
    base = found["products"]
    yield of_rounds(case, "matrix products", [1e3 * seconds for seconds in base], "ms", note=name)
    yield of_rounds(case, "score", [1e3 * seconds for seconds in found["score"]], "ms")
    yield of_rounds(case, "score / products", ratios(found["score"], base), goal=_goal(kind, shape.d))
    yield of_rounds(case, "products and exponentials / products", ratios(found["least"], base))


def _measure(setting: Setting) -> Iterator[Reading]:
    for kind, shapes in SHAPES.items():
        for B, K, d in shapes:
            model = mixture(kind, K, d).under(VP())
            yield from _readings(kind, model, 0.4, kind, Shape(B, K, d), setting.rounds)
    digits = targets.digits()
    for B in (64, 1024):
        shape = Shape(B, *digits.means.shape)
        yield from _readings("digits, std 0.1", digits.under(VP()), 0.4, "common", shape, setting.rounds)
    points = targets.digits(std=0.0)
    shape = Shape(1024, *points.means.shape)
    yield from _readings("digits, std 0, sigma 0.002", points.under(EDM()), 0.002, "common", shape, setting.rounds)


ROWS = (
    Row(
        "scores",
        "Scores of Gaussian mixtures / their matrix products",
        "The exact model in float64, without gradients, against the bare products of its shapes. Beside these every of "
        "B x K entries passes through a softmax, which in two dimensions costs more than they do; 'products and "
        "exponentials' is the least that a softmax can be. Where x is close to one of many points (digits, std 0), "
        "plainly expanded squares lose digits, and three more products keep them. Full covariances and those of low "
        "rank have no goal.",
        _measure,
        devices=("cpu",),
        dtypes=("float64",),
    ),
)
