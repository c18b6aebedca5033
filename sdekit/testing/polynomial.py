"""SDEs with polynomial coefficients, whose expectations over a short time are known as a series.

With the generator L = d_t + f . grad + 1/2 sum_k g_k . Hessian . g_k, E phi(x(t0 + h)) = sum_k h^k / k! (L^k phi)(t0,
x0) to any order in h, and L maps polynomials to polynomials: on the monomials in t - t0 and x - x0 it is a matrix, of
which one row is needed. Where time runs downwards L has the sign of d_t and f changed, and h is the length of the step.
Only the derivatives at (t0, x0) enter, so that it does not matter that a polynomial grows far away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sdekit.noise_class import noise_classes
from sdekit.sde import SDE

__all__ = ["Polynomial", "PolynomialProblem", "polynomial_problems"]

Exponents = tuple[int, ...]
_TERMS = 5  # of the series: what follows is of order h^6


@dataclass(frozen=True)
class Polynomial:
    """sum c s^a u_1^b u_2^e over its terms {(a, b, e): c}, with s = t - t0 and u = x - x0."""

    terms: Mapping[Exponents, float]

    def __call__(self, s: Tensor, u: Tensor) -> Tensor:
        """(B,) for s a number or (B, 1), u (B, d)."""
        total = torch.zeros_like(u[:, 0])
        for powers, c in self.terms.items():
            term = c * s.reshape(-1) ** powers[0]
            for i, n in enumerate(powers[1:]):
                term = term * u[:, i] ** n if n else term
            total = total + term
        return total

    def __mul__(self, other: Polynomial) -> Polynomial:
        found: dict[Exponents, float] = {}
        for (k, v), (m, w) in itertools.product(self.terms.items(), other.terms.items()):
            key = tuple(a + b for a, b in zip(k, m, strict=True))
            found[key] = found.get(key, 0.0) + v * w
        return Polynomial(found)

    def plus(self, other: Polynomial, factor: float = 1.0) -> Polynomial:
        """This plus a multiple of another."""
        found = dict(self.terms)
        for k, v in other.terms.items():
            found[k] = found.get(k, 0.0) + factor * v
        return Polynomial(found)

    def derivative(self, axis: int) -> Polynomial:
        """With respect to s for axis 0, to u_axis for others."""
        lower = {k: tuple(n - (i == axis) for i, n in enumerate(k)) for k in self.terms}
        return Polynomial({lower[k]: v * k[axis] for k, v in self.terms.items() if k[axis]})


Columns = tuple[tuple[Polynomial, ...], ...]


class _PolynomialSDE(SDE):
    def __init__(self, problem: PolynomialProblem, drift: tuple[Polynomial, ...], calculus: str) -> None:
        self.problem, self._drift = problem, drift
        self.noise_type, self.sde_type = problem.noise_type, calculus  # type: ignore[assignment]
        self.additive, self.commutative = problem.additive, problem.commutative

    def __repr__(self) -> str:
        return f"PolynomialSDE({self.problem.name}, {self.sde_type})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        s, u = t - self.problem.t0, x - x.new_tensor(self.problem.x0)
        return torch.stack([f(s, u) for f in self._drift], 1)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        s, u = t - self.problem.t0, x - x.new_tensor(self.problem.x0)
        columns = self.problem.columns
        if self.noise_type == "diagonal":
            return torch.stack([columns[i][i](s, u) for i in range(len(columns))], 1)
        return torch.stack([torch.stack([g(s, u) for g in column], 1) for column in columns], -1)


@dataclass(frozen=True, eq=False)
class PolynomialProblem:
    """dx = f dt + sum_k g_k dW_k (Ito) at one time and state.

    Args:
        name: for tables.
        t0, x0: where a step starts.
        f: the Ito drift for this direction of time, a polynomial for each coordinate.
        columns: g_k, a polynomial for each coordinate.
        down: whether time runs downwards.
        noise_type, additive, commutative: what is declared of the noise.
    """

    name: str
    t0: float
    x0: tuple[float, ...]
    f: tuple[Polynomial, ...]
    columns: Columns
    down: bool = False
    noise_type: Literal["diagonal", "general"] = "general"
    additive: bool = False
    commutative: bool = False

    @property
    def motions(self) -> int:
        """How many Brownian motions there are."""
        return len(self.columns)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The noise classes, the most special first."""
        x = torch.tensor([self.x0], dtype=torch.float64)
        return noise_classes(self.form("ito"), x, self.motions)

    def form(self, calculus: str) -> SDE:
        """The SDE in a calculus, "ito" or "stratonovich"."""
        return _PolynomialSDE(self, self.f if calculus == "ito" else self._stratonovich, calculus)

    @cached_property
    def _stratonovich(self) -> tuple[Polynomial, ...]:
        half = 0.5 if self.down else -0.5
        drift = list(self.f)
        for column, (i, _) in itertools.product(self.columns, enumerate(self.f)):
            for j, g in enumerate(column):
                drift[i] = drift[i].plus(g * column[i].derivative(j + 1), half)
        return tuple(drift)

    def expectation(self, h: float, powers: list[Exponents]) -> np.ndarray:
        """E prod_i (x_i(t0 +- h) - x0_i)^n_i for each tuple of powers n, up to an error of order h^6."""
        index, rows = self._series
        places = [index[(0, *n)] for n in powers]
        return sum(h**k / math.factorial(k) * row[places] for k, row in enumerate(rows))  # type: ignore[return-value]

    @cached_property
    def _series(self) -> tuple[dict[Exponents, int], list[np.ndarray]]:
        """The values at s = u = 0 of L^k applied to each monomial; those of degree above 2 k are 0."""
        size = len(self.f) + 1
        degrees = itertools.product(range(2 * _TERMS + 1), repeat=size)
        index = {k: n for n, k in enumerate(k for k in degrees if sum(k) <= 2 * _TERMS)}
        matrix = np.zeros((len(index), len(index)))
        for powers, place in index.items():
            for k, v in self._generator(Polynomial({powers: 1.0})).terms.items():
                if k in index:
                    matrix[index[k], place] += v
        rows = [np.eye(len(index))[index[(0,) * size]]]
        for _ in range(_TERMS):
            rows.append(rows[-1] @ matrix)
        return index, rows

    def _generator(self, phi: Polynomial) -> Polynomial:
        sign = -1.0 if self.down else 1.0
        total = Polynomial({}).plus(phi.derivative(0), sign)
        slopes = [phi.derivative(i + 1) for i in range(len(self.f))]
        for f, slope in zip(self.f, slopes, strict=True):
            total = total.plus(f * slope, sign)
        for column, (i, slope) in itertools.product(self.columns, enumerate(slopes)):
            for j, g in enumerate(column):
                total = total.plus(column[i] * g * slope.derivative(j + 1), 0.5)
        return total


def _p(**terms: float) -> Polynomial:
    """_p(one=2.0, s=1.0, u=3.0, uv=4.0) is 2 + s + 3 u_1 + 4 u_1 u_2: each letter is a factor."""
    names = {name: "" if name == "one" else name for name in terms}
    return Polynomial({tuple(names[n].count(c) for c in "suv"): v for n, v in terms.items()})


_DRIFT = (
    _p(one=0.3, s=0.8, u=-0.7, v=0.9, uu=0.5, uv=-0.4, su=0.6),
    _p(one=-0.5, s=-0.4, u=0.6, v=-0.3, vv=0.4, uuv=0.3, ss=0.5),
)
_ZERO = _p()


def _commuting() -> Columns:
    """The image of dy = (1 + s / 2) (A_1 y dW_1 + A_2 y dW_2), with A_1 A_2 = A_2 A_1, under u = y + (0, y_1^2 / 2).

    y is counted from y0 = (0.8, 0.5), u from its image, and J A y with J = (1, 0; y_1, 1) is written in u.
    """
    grow = _p(one=1.0, s=0.5)
    y1 = _p(one=0.8, u=1.0)
    # u_2 = y_2 + y_1^2 / 2 less its value at y0.
    y2 = _p(one=0.5 + 0.8**2 / 2, v=1.0).plus(y1 * y1, -0.5)
    found = []
    for a, b in ((0.5, 0.3), (0.2, -0.6)):
        first = Polynomial({}).plus(y1, a).plus(y2, b)
        second = Polynomial({}).plus(y1, b).plus(y2, a)
        found.append((grow * first, grow * second.plus(y1 * first)))
    return tuple(found)


def _noises() -> dict[str, tuple[Columns, dict[str, object]]]:
    free = (
        (_p(one=0.6, s=0.5, u=0.4, v=-0.3, uv=0.3), _p(one=0.2, u=0.5, v=0.2, vv=0.3)),
        (_p(one=-0.3, v=0.5, uu=0.2, sv=0.4), _p(one=0.7, s=-0.4, u=-0.3, v=0.4, uu=0.2)),
    )
    additive = ((_p(one=0.6, s=0.8), _p(one=0.2, ss=0.6)), (_p(one=-0.3, s=0.5), _p(one=0.7, s=-0.6)))
    apart = (
        (_p(one=0.6, s=0.5, u=0.5, uu=0.3, su=-0.4), _ZERO),
        (_ZERO, _p(one=0.5, s=-0.4, v=-0.6, vv=0.4, vvv=0.3)),
    )
    return {
        "additive": (additive, {"additive": True}),
        "scalar": (free[:1], {}),
        "diagonal": (apart, {"noise_type": "diagonal"}),
        "commutative": (_commuting(), {"commutative": True}),
        "general": (free, {}),
    }


@cache
def _problems() -> dict[str, PolynomialProblem]:
    found = {}
    for name, (columns, declared) in _noises().items():
        for way in (name, f"{name}, down"):
            down = way != name
            found[way] = PolynomialProblem(way, 0.7, (0.4, -0.3), _DRIFT, columns, down, **declared)  # type: ignore[arg-type]
    return found


def polynomial_problems() -> dict[str, PolynomialProblem]:
    """A problem of each noise class in two dimensions, upwards under its name and downwards under "..., down"."""
    return dict(_problems())
