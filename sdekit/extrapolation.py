"""Expectations without the leading terms of the step's error: Talay and Tubaro's extrapolation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, OptionError, ShapeError, SolverMismatchError
from sdekit.model import Model
from sdekit.noise import NoiseSource
from sdekit.noise_class import noise_classes
from sdekit.plan import Plan
from sdekit.problem import Problem, prepare
from sdekit.sde import SDE
from sdekit.seeds import resolve_seed
from sdekit.shapes import check_state
from sdekit.solve import solve
from sdekit.solvers.base import Solver
from sdekit.times import check_count

__all__ = ["MeanEstimate", "extrapolate_mean", "extrapolation_weights"]

_MOST_LEVELS = 6  # beyond, the weights' sizes cost more than they gain


@dataclass(frozen=True)
class MeanEstimate:
    """An expectation estimated on several grids, each with half the steps of the next.

    Attributes:
        value: the extrapolated mean, float64, of the shape that the function gives for one sample.
        error: its standard error over the samples, of the same shape. What is left of the error of the steps is not in
            it.
        means: (levels, ...) the plain means, coarsest grid first.
        errors: (levels, ...) their standard errors.
        weights: of the means in the value.
        steps: of each level.
        nfe: model calls for one sample, all levels together.
    """

    value: Tensor
    error: Tensor
    means: Tensor
    errors: Tensor
    weights: tuple[float, ...]
    steps: tuple[int, ...]
    nfe: int


def extrapolate_mean(
    function: Callable[[Tensor], Tensor],
    dynamics: SDE | Model,
    x: Tensor,
    times: Sequence[float] | Tensor,
    solver: str | Solver,
    *,
    steps: int | None = None,
    levels: int = 2,
    order: int | None = None,
    seed: int | torch.Generator | None = None,
    noise: str | NoiseSource | Callable[..., Any] = "path",
    **options: Any,
) -> MeanEstimate:
    """E function(x at the last time), with the leading terms of the error of the steps cancelled.

    For a method of weak order p the error of an expectation is c_p h^p + c_(p+1) h^(p+1) + ... with constants that do
    not depend on h (Talay and Tubaro, Stoch. Anal. Appl. 8, 1990). Means on grids with h, h/2, h/4, ... are combined so
    that the first levels - 1 of these terms vanish: for p = 1 and two levels, 2 E[h/2] - E[h].

    Args:
        function: of states (B, *shape), one value or tensor for each: (B, ...).
        dynamics, x, times, solver, steps: as for `solve`; x holds one start for each sample, B of them, and the grid is
            the coarsest one, whose steps are halved for each further level.
        levels: how many grids, 2 to 6.
        order: the weak order p; default the one that the solver declares for this noise.
        seed: as for `solve`.
        noise: "path" drives all levels with one Brownian path for each sample, so that their differences have little
            variance; "step" and "plain" give them independent noise, for solvers whose noise is not that of a path.
            With levels of independent noise, and two of them at p = 1, the variance is some five times as large.
            Others as for `solve`.
        **options: passed to `solve`.

    Returns:
        A `MeanEstimate`.

    Raises:
        OptionError: for levels, steps or an order out of range.
        SolverMismatchError: for dynamics without noise, a solver that declares no weak order for it, or one without a
            path where noise="path".
        ShapeError: for fewer than two samples.
        ModelOutputError: where the function does not give a finite floating value for each sample.
        SdekitError: as `solve`.
    """
    check_state(x)
    if len(x) < 2:
        raise ShapeError("x", got=f"{len(x)} samples", expected="2 or more", fix="Repeat the start: x.expand(1000, 3).")
    problem = prepare(dynamics, times, solver, steps=steps)
    power = _weak_order(problem, x, order)
    weights = extrapolation_weights(power, levels)
    key = resolve_seed(seed) if isinstance(noise, str) else None
    values, counts, nfe = [], [], 0
    grid = list(problem.times)
    for level in range(levels):
        # A path is one for all grids; other noise would be related by its keys in ways that nobody has in mind.
        own = key if key is None or noise == "path" else (key + level) % 2**64
        found = solve(dynamics, x, grid, solver, seed=own, noise=noise, **options)  # type: ignore[arg-type]
        values.append(_values(function, found.x))
        counts.append(len(grid) - 1)
        nfe += int(found.nfe.max())
        grid = _halved(grid)
    stacked = torch.stack(values)
    combined = torch.einsum("l,l...->...", stacked.new_tensor(weights), stacked)
    root = len(x) ** 0.5
    return MeanEstimate(
        value=combined.mean(0),
        error=combined.std(0) / root,
        means=stacked.mean(1),
        errors=stacked.std(1) / root,
        weights=weights,
        steps=tuple(counts),
        nfe=nfe,
    )


def extrapolation_weights(order: int, levels: int) -> tuple[float, ...]:
    """w_l, l = 0, ..., levels - 1: sum w_l = 1 and sum w_l 2^(-l q) = 0 for q = order, ..., order + levels - 2.

    Raises:
        OptionError: for an order below 1, or levels outside 2 to 6.
    """
    for name, value, low, high in (("order", order, 1, 10), ("levels", levels, 2, _MOST_LEVELS)):
        check_count(name, value)
        if not low <= value <= high:
            raise OptionError(name, got=repr(value), expected=f"{low} to {high}", fix="Choose a number between them.")
    powers = [0, *range(order, order + levels - 1)]
    matrix = np.array([[2.0 ** (-level * q) for level in range(levels)] for q in powers])
    return tuple(np.linalg.solve(matrix, np.eye(levels)[0]).tolist())


def _weak_order(problem: Problem, x: Tensor, asked: int | None) -> int:
    method, sde = problem.solver, problem.dynamics
    if not problem.stochastic or isinstance(method, Plan):
        raise SolverMismatchError(
            "dynamics",
            got=f"{type(sde).__name__}, solved without noise",
            expected="an SDE, or a Model with a solver that draws noise",
            fix="One deterministic solve gives the mean: use sdekit.solve.",
        )
    if asked is not None:
        return asked
    declared = None
    if method is not None and problem.plan is not None:
        declared = method.declared.weak
    elif method is not None:
        orders = method.declared.on(noise_classes(sde, x, 2))
        declared = method.declared.weak if orders is None else orders.weak
    if declared is None or declared != int(declared):
        raise SolverMismatchError(
            "solver",
            got=f"{method.label if method is not None else solve.__name__} of weak order {declared}",
            expected="a declared weak order that is a whole number",
            fix="Pass order=, if you know it.",
        )
    return int(declared)


def _values(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What the function gives, in float64."""
    out = function(x)
    fits = isinstance(out, Tensor) and out.is_floating_point() and out.ndim >= 1 and len(out) == len(x)
    if not fits or not bool(torch.isfinite(out).all()):
        got = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ModelOutputError(
            "function",
            got=got if not fits else "NaN or infinity",
            expected=f"finite floating values of shape ({len(x)}, ...)",
            fix="Return one value for each sample, such as x.square().sum(1).",
        )
    return out.to(torch.float64)


def _halved(grid: list[float]) -> list[float]:
    """The grid with the middle of each step."""
    inner = [(a + b) / 2 for a, b in itertools.pairwise(grid)]
    return [t for pair in zip(grid, inner, strict=False) for t in pair] + [grid[-1]]
