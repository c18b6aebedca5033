"""The orders of one step without Monte Carlo: expectations over W, H, K and other normals by Gauss-Hermite quadrature.

A step of length h from a fixed state is a smooth function of a few normals times sqrt(h), so that a product of rules of
n nodes gives its expectations to O(h^n); functions of the signs of H, K or other normals are exact, as their rules have
no node at 0. Against it stands what the SDE itself does, in one of two ways:

    an `SDEProblem` with a closed form whose noise commutes: its solution over one step is a function of W, H and K to
        O(h^{7/2}), far beyond any stepper. From the same quadrature: the mean error O(h^{p1}), the root mean square
        error O(h^{p2}), and the largest error O(h^{q + 1}) of the expectations of monomials.
    a `PolynomialProblem`, of any noise: the expectations of monomials by a series that is exact to O(h^6).

By the theorem of Milstein and Tretyakov (Stochastic Numerics for Mathematical Physics, section 1.1) the strong order is
p2 - 1/2 where p1 >= p2 + 1/2, else p1 - 1 bounds it; the weak order is q (ibid., section 2.2).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import OptionError, SolverMismatchError
from sdekit.math.quadrature import gauss_hermite
from sdekit.noise import NoiseSource
from sdekit.sde import SDE
from sdekit.solve import solve
from sdekit.solvers.base import Stepper
from sdekit.testing.estimate import Estimate, estimate
from sdekit.testing.polynomial import PolynomialProblem
from sdekit.testing.sde_path import SampledPath
from sdekit.testing.sde_problems import SDEProblem

__all__ = ["LOCAL_STEPS", "LocalOrders", "local_orders"]

LOCAL_STEPS = (32, 64, 128, 256)

_NODES = (6, 4, 2)  # for each component of W, H and K
_OTHER = 2  # for each of the extra normals
_MOST = 200_000  # nodes in all
_STARTS = 3
_DEGREE = 5  # of monomials: the higher ones follow up to weak order 2
_FLOOR = 1e-16


@dataclass(frozen=True)
class LocalOrders:
    """What one step shows of a stepper's orders.

    Attributes:
        mean: p1, of the error's mean.
        rms: p2, of the error's root mean square; nan where the problem has no closed form.
        weak: q + 1, of the errors of expectations.
        solver, problem: what was measured, as text.
        steps: the lengths of the steps are 1 over these.
        errors: by "mean", "rms" and "weak", for each length.
        estimates: the orders with their intervals, by the same names.
    """

    mean: float
    rms: float
    weak: float
    solver: str
    problem: str
    steps: tuple[int, ...]
    errors: dict[str, tuple[float, ...]]
    estimates: dict[str, Estimate]

    @property
    def strong_order(self) -> float:
        """Of paths at a fixed time: the smaller of p2 - 1/2 and p1 - 1."""
        return min(self.rms - 0.5, self.mean - 1)

    @property
    def weak_order(self) -> float:
        """Of expectations at a fixed time: q."""
        return self.weak - 1

    def __str__(self) -> str:
        rows = [
            f"{name} {found.value:.2f} ({', '.join(f'{e:.1e}' for e in self.errors[name])})"
            for name, found in self.estimates.items()
        ]
        lengths = ", ".join(f"1/{n}" for n in self.steps)
        return f"{self.solver}, one step on {self.problem}, of lengths {lengths}: " + "; ".join(rows)


def local_orders(
    solver: Stepper, problem: SDEProblem | PolynomialProblem, steps: tuple[int, ...] = LOCAL_STEPS
) -> LocalOrders:
    """The exponents p1, p2 and q + 1 of one step of a stepper, in a second or less.

    Args:
        problem: an `SDEProblem` with a closed form and commutative noise, or one of `polynomial_problems()`, where
            `rms` is not known.
        steps: three or more rising numbers, one over the lengths of the steps tried.

    Raises:
        SolverMismatchError: for a solver that has no steps, or does not take the noise.
        OptionError: for a problem of neither kind, or a step of more random numbers than a quadrature can hold.
    """
    if not isinstance(solver, Stepper) or solver.needs == "ode":
        raise SolverMismatchError(
            "solver", got=repr(solver), expected="a stepper of SDEs", fix="Derive from sdekit.solvers.Stepper."
        )
    if isinstance(problem, PolynomialProblem):
        rows = [_against_series(solver, problem, 1 / n) for n in steps]
    elif problem.exact is not None and problem.noise != "general":
        rows = [_against_paths(solver, problem, 1 / n) for n in steps]
    else:
        raise OptionError(
            "problem",
            got=f"{problem.name!r}, with {problem.noise} noise",
            expected="a closed form and commutative noise, or polynomials",
            fix="Use observed_order for paths, polynomial_problems() for expectations.",
        )
    errors = {name: tuple(row[name] for row in rows) for name in rows[0]}
    found = {name: estimate(steps, [list(values)], _FLOOR) for name, values in errors.items()}
    values = {name: e.value for name, e in found.items()}
    return LocalOrders(
        values["mean"], values.get("rms", math.nan), values["weak"], solver.label, problem.name, steps, errors, found
    )


@dataclass(frozen=True)
class _Rule:
    """Nodes (count, size) of W, H, K and the extra normals, each of variance 1, and their weights (count,)."""

    blocks: list[Tensor]
    weights: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of values (starts, count, ...) for each start."""
        return torch.einsum("n,sn...->s...", self.weights, values)


def _rule(solver: Stepper, motions: int, shape: tuple[int, ...], areas: tuple[bool, bool]) -> _Rule:
    """The product rule for what a step draws; areas tells whether H and K vary, or are left at 0."""
    extra = [math.prod(asked[1:]) for asked in solver.extra_shapes((1, *shape))]
    sizes = [motions] * 3 + extra
    counts = [_NODES[0], _NODES[1] if areas[0] else 1, _NODES[2] if areas[1] else 1] + [_OTHER] * len(extra)
    total = math.prod(n**size for n, size in zip(counts, sizes, strict=True))
    if total > _MOST:
        raise OptionError(
            "solver",
            got=f"a step of {sum(sizes)} normals, {total} nodes",
            expected=f"at most {_MOST} nodes",
            fix="Measure it on fewer Brownian motions, or by observed_order.",
        )
    axes = [gauss_hermite(n) for n, size in zip(counts, sizes, strict=True) for _ in range(size)]
    nodes = torch.tensor(list(itertools.product(*(a[0] for a in axes))), dtype=torch.float64)
    weights = torch.tensor(list(itertools.product(*(a[1] for a in axes))), dtype=torch.float64).prod(1)
    return _Rule(list(nodes.split(sizes, 1)), weights)


class _Nodes(NoiseSource):
    """The nodes of a rule as the normals of the only step, once for each start."""

    def __init__(self, rule: _Rule, starts: int) -> None:
        self.blocks = [block.repeat(starts, 1) for block in rule.blocks]

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        return out.copy_(self.blocks[stream].reshape(out.shape))


def _stepped(solver: Stepper, sde: SDE, x: Tensor, ends: tuple[float, float], rule: _Rule) -> Tensor:
    """One step from each start x (starts, d) on each node: (starts, count, d)."""
    start = x.repeat_interleave(len(rule.weights), 0)
    out = solve(sde, start, list(ends), solver, noise=_Nodes(rule, len(x)), checks="end").x
    return out.reshape(len(x), len(rule.weights), -1)


def _powers(d: int) -> list[tuple[int, ...]]:
    return [n for n in itertools.product(range(_DEGREE + 1), repeat=d) if 1 <= sum(n) <= _DEGREE]


def _monomials(moved: Tensor) -> Tensor:
    """All monomials up to the degree of the last axis: (..., number)."""
    return torch.stack([torch.prod(moved ** moved.new_tensor(n), -1) for n in _powers(moved.shape[-1])], -1)


def _against_series(solver: Stepper, problem: PolynomialProblem, h: float) -> dict[str, float]:
    d = len(problem.x0)
    shape = (d,) if problem.noise_type == "diagonal" else (problem.motions,)
    rule = _rule(solver, problem.motions, shape, (solver.uses_area, solver.uses_time_area))
    x = torch.tensor([problem.x0], dtype=torch.float64)
    ends = problem.t0, problem.t0 - h if problem.down else problem.t0 + h
    moved = _stepped(solver, problem.form(solver.calculus), x, ends, rule) - x
    off = rule.mean(_monomials(moved))[0].numpy() - problem.expectation(h, _powers(d))
    first = [sum(n) == 1 for n in _powers(d)]
    return {"mean": float(np.linalg.norm(off[first])), "weak": float(np.linalg.norm(off))}


def _against_paths(solver: Stepper, problem: SDEProblem, h: float) -> dict[str, float]:
    x = problem.start(_STARTS).flatten(1)
    shape = tuple(x.shape[1:]) if problem.sde.noise_type != "general" else (problem.motions,)
    rule = _rule(solver, problem.motions, shape, (True, True))
    t0 = problem.times[0]
    ends = t0, t0 - h if problem.down else t0 + h
    normals = torch.stack([block.repeat(len(x), 1) for block in rule.blocks[:3]])[:, None]
    path = SampledPath(ends, normals.shape[2], problem.motions, normals=normals)
    exact = problem.solution(x.repeat_interleave(len(rule.weights), 0), path).reshape(len(x), len(rule.weights), -1)
    got = _stepped(solver, problem.form(solver.calculus), x, ends, rule)
    error, here = got - exact, x[:, None]
    off = rule.mean(_monomials(got - here) - _monomials(exact - here))
    return {
        "mean": float(rule.mean(error).norm()),
        "rms": float(rule.mean(error.square().sum(-1)).sum().sqrt()),
        "weak": float(off.norm()),
    }
