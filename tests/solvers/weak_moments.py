"""The weak order of one step, without Monte Carlo.

A step from a fixed x is a function of a few normals, so that E phi(x1) is an integral that a product of Gauss-Hermite
rules gives to rounding; of H the methods here use signs only, which a rule of two nodes takes exactly. Against it
stands the exact expectation by its series, E phi(x(t + h)) = sum_k h^k / k! (L^k phi)(t, x), with the generator

    L phi = d_t phi + f . grad phi + 1/2 sum_k g_k^T (Hessian of phi) g_k.

Where f, g and phi are polynomials of t and x, so are all L^k phi: they are found exactly. A scheme whose steps differ
by O(h^(q+1)) for every phi is of weak order q (Milstein's theorem on weak order).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sdekit
from sdekit.solvers.base import Increments
from sdekit.testing.subject import Field

__all__ = ["PROBLEMS", "Poly", "PolynomialSDE", "local_errors", "local_orders", "step_means", "variables"]


class Poly:
    """A polynomial of (t, x_1, ..., x_d), size of them: a coefficient for each tuple of exponents."""

    def __init__(self, size: int, terms: dict[tuple[int, ...], float]) -> None:
        self.size, self.terms = size, {k: v for k, v in terms.items() if v}

    def __add__(self, other: Poly | float) -> Poly:
        other = self._like(other)
        return Poly(
            self.size, {k: self.terms.get(k, 0.0) + other.terms.get(k, 0.0) for k in {*self.terms, *other.terms}}
        )

    def __mul__(self, other: Poly | float) -> Poly:
        total: dict[tuple[int, ...], float] = {}
        for (k, v), (m, w) in itertools.product(self.terms.items(), self._like(other).terms.items()):
            key = tuple(a + b for a, b in zip(k, m, strict=True))
            total[key] = total.get(key, 0.0) + v * w
        return Poly(self.size, total)

    __radd__, __rmul__ = __add__, __mul__

    def __pow__(self, n: int) -> Poly:
        return self._like(1.0) if n == 0 else self * self ** (n - 1)

    def derivative(self, i: int) -> Poly:
        return Poly(self.size, {(*k[:i], k[i] - 1, *k[i + 1 :]): v * k[i] for k, v in self.terms.items() if k[i]})

    def __call__(self, t: float | Tensor, x: Tensor) -> Tensor:
        """(B,) at a time and states (B, d)."""
        time, total = float(t), torch.zeros(len(x), dtype=x.dtype)
        for k, v in self.terms.items():
            term = torch.full_like(total, v * time ** k[0])
            for i, n in enumerate(k[1:]):
                term = term * x[:, i] ** n if n else term
            total = total + term
        return total

    def _like(self, other: Poly | float) -> Poly:
        return other if isinstance(other, Poly) else Poly(self.size, {(0,) * self.size: other})


def variables(d: int) -> list[Poly]:
    """t, x_1, ..., x_d."""
    return [Poly(d + 1, {tuple(int(i == j) for j in range(d + 1)): 1.0}) for i in range(d + 1)]


@dataclass
class PolynomialSDE:
    """An SDE with polynomials f_i and columns g_k = (g_k1, ..., g_kd), presented to solvers as its noise type says.

    Args:
        columns: for "diagonal" noise column k has an entry in place k only; for "scalar" noise they are g e_1, ...,
            g e_d with one polynomial g.
    """

    drift: list[Poly]
    columns: list[list[Poly | None]]
    start: list[float]
    noise_type: str = "general"
    additive: bool = False
    time: float = 0.3
    sde: sdekit.SDE = field(init=False)
    known: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sde = sdekit.make_sde(self._drift, self._diffusion, self.noise_type, additive=self.additive)  # type: ignore[arg-type]

    @property
    def x(self) -> Tensor:
        return torch.tensor(self.start, dtype=torch.float64)

    def _drift(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([f(t, x) for f in self.drift], -1)

    def _diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        zero = torch.zeros(len(x), dtype=x.dtype)
        rows = [torch.stack([zero if p is None else p(t, x) for p in g], -1) for g in self.columns]
        if self.noise_type == "general":
            return torch.stack(rows, -1)
        return sum(rows[1:], rows[0]) if self.noise_type == "diagonal" else rows[0][:, :1]

    def generator(self, phi: Poly, down: bool) -> Poly:
        """L phi; downwards in time the drift and d_t change their signs."""
        d, sign = len(self.drift), -1.0 if down else 1.0
        total = sign * phi.derivative(0)
        for i in range(d):
            first = phi.derivative(i + 1)
            total = total + sign * self.drift[i] * first
            for g, j in itertools.product(self.columns, range(d)):
                left, right = g[i], g[j]
                if left is not None and right is not None:
                    total = total + 0.5 * left * right * first.derivative(j + 1)
        return total

    def series(self, phi: Poly, terms: int, down: bool) -> list[float]:
        """(L^k phi)(t, x) / k! for k = 0, ..., terms."""
        key = repr((phi.terms, terms, down))
        if key not in self.known:
            self.known[key] = self._series(phi, terms, down)
        return self.known[key]

    def _series(self, phi: Poly, terms: int, down: bool) -> list[float]:
        found = []
        for k in range(terms + 1):
            found.append(float(phi(self.time, self.x[None])) / math.factorial(k))
            phi = self.generator(phi, down)
        return found

    @property
    def phis(self) -> list[Poly]:
        """Monomials up to degree 4 in all directions."""
        x = variables(len(self.drift))[1:]
        total = sum(x[1:], x[0])
        return [x[0], x[-1], x[0] * x[0], x[0] * x[-1], x[-1] * x[-1] * x[0], (x[0] + -0.5 * x[-1]) ** 3, total**4]


def rule(dimensions: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes (N, dimensions) and weights (N,) of a product rule for independent standard normals."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    grid = np.array(list(itertools.product(points, repeat=dimensions))).reshape(-1, dimensions)
    mass = np.array([math.prod(v) for v in itertools.product(weights, repeat=dimensions)])
    return torch.from_numpy(grid), torch.from_numpy(mass)


def step_means(solver: Any, problem: PolynomialSDE, h: float, nodes: int = 6) -> list[float]:
    """E phi after one step of signed length h, for each of the problem's phis."""
    w, mass = rule(len(problem.columns), nodes)
    root, area = math.sqrt(abs(h)), None
    if solver.uses_area:
        signs, even = rule(len(problem.columns), 2)
        mass = (mass[:, None] * even).reshape(-1)
        area = signs.repeat(len(w), 1) * (root / math.sqrt(12))
        w = w.repeat_interleave(len(signs), 0)
    x, t = problem.x.expand(len(w), -1), problem.time
    new = solver.step(Field(problem.sde), t, t + h, x, Increments(w * root, area), None)[0]
    return [float(phi(t, new) @ mass) for phi in problem.phis]


def local_errors(solver: Any, problem: PolynomialSDE, steps: Sequence[float], terms: int = 4) -> np.ndarray:
    """|E phi(x1) - E phi(x(t + h))| for each signed h and phi; the series is cut after h^terms."""
    series = [problem.series(phi, terms, steps[0] < 0) for phi in problem.phis]
    found = []
    for h in steps:
        exact = [math.fsum(c * abs(h) ** k for k, c in enumerate(row)) for row in series]
        found.append([abs(a - b) for a, b in zip(step_means(solver, problem, h), exact, strict=True)])
    return np.array(found)


def local_orders(errors: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """Slopes of the last two errors of each phi."""
    return np.log(errors[-2] / errors[-1]) / math.log(steps[-2] / steps[-1])


def _problems() -> dict[str, PolynomialSDE]:
    t, x = variables(1)
    found = {"scalar": PolynomialSDE([x + -0.6 * x**2 + 0.8 * t * x], [[0.5 + 0.4 * x**2 + 0.5 * t * x]], [0.7])}
    found["one motion, as diagonal"] = PolynomialSDE(found["scalar"].drift, found["scalar"].columns, [0.7], "diagonal")
    t, x, y = variables(2)
    drift = [y + -0.5 * x * y + 0.7 * t * x, 0.4 * x**2 + -0.3 * y + 0.5 * t * t]
    g = [0.5 + 0.3 * y**2, 0.3 * x + 0.4 * t], [0.4 * x + 0.3 * y, 0.6 + 0.2 * x * y], [0.3 * x * y, 0.5 + -0.4 * t * y]
    start = [0.7, -0.4]
    for m in (1, 2, 3):
        found[f"{m} columns"] = PolynomialSDE(drift, [list(k) for k in g[:m]], start)
    first, second = 0.5 + 0.4 * x**2 + 0.5 * t * x, 0.7 + -0.3 * y + 0.6 * t
    found["diagonal"] = PolynomialSDE(drift, [[first, None], [None, second]], start, "diagonal")
    number = 0.5 + 0.4 * x * y + 0.3 * t
    found["number"] = PolynomialSDE(drift, [[number, None], [None, number]], start, "scalar")
    of_time = 0.5 + t + -0.8 * t**2
    found["additive number"] = PolynomialSDE(drift, [[of_time, None], [None, of_time]], start, "scalar", True)
    found["additive columns"] = PolynomialSDE(
        drift, [[of_time, 0.3 * t], [0.5 * t * t, 0.4 + 0.0 * t], [of_time, of_time]], start, "general", True
    )
    return found


PROBLEMS = _problems()
"""Nonlinear and non-autonomous, one of each structure."""
