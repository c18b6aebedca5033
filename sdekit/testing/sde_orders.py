"""Strong orders of steppers on any SDE: errors at several step counts on one Brownian path, drawn once for all.

A solver is given the SDE in its own calculus, so that nothing is converted, and the increments of a `SampledPath`: W, H
and K of every step are those of the same path, and normals beside them are independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from sdekit.errors import SolverMismatchError
from sdekit.solvers.base import NoiseOrder, Stepper
from sdekit.testing.estimate import Estimate, estimate, least_squares
from sdekit.testing.polynomial import PolynomialProblem
from sdekit.testing.sde_path import SampledPath
from sdekit.testing.sde_problems import SDEProblem
from sdekit.testing.strong import StrongRun, run_on_paths, strong_estimate

__all__ = ["SDE_STEPS", "order_on", "strong_on_sde", "takes"]

SDE_STEPS = (16, 32, 64)

_PATHS = 512
_REFERENCE = 2  # cells for each step of the finest grid: the reference is far more accurate than a step
_AREAS = 16  # the same where the closed form needs the areas that W and H leave open: an error of a fifth or less


def order_on(method: Any, problem: SDEProblem | PolynomialProblem) -> NoiseOrder | None:
    """The orders that a solver declares on the noise of a problem."""
    return method.declared.on(problem.classes) if takes(method, problem) else None


def takes(method: Any, problem: SDEProblem | PolynomialProblem) -> bool:
    """Whether a solver has steps that take the noise of a problem."""
    needs = getattr(method, "needs", "ode")
    if needs != "sde":
        return needs == "additive" and "additive" in problem.classes
    return not method.declared.noise or method.declared.on(problem.classes) is not None


def strong_on_sde(
    method: Any, problem: SDEProblem, family: str, counts: Sequence[int], seeds: Sequence[int]
) -> tuple[Estimate, list[StrongRun]]:
    """The strong order on a problem, and its runs: one for each seed of the grids.

    Raises:
        SolverMismatchError: for a solver that has no steps, or of ODEs.
        OptionError: for errors at rounding for all but one or two step counts.
    """
    if not isinstance(method, Stepper) or method.needs == "ode":
        raise SolverMismatchError(
            "problem",
            got=f"{problem.name!r}, an SDE, for {method.label}",
            expected="a stepper of SDEs",
            fix="Pass an OrderProblem, or derive from Stepper.",
        )
    runs = [_run(method, problem, [problem.grid(family, n, seed) for n in counts]) for seed in seeds]
    return strong_estimate(counts, runs, least_squares if family == "irregular" else estimate), runs


def _run(method: Stepper, problem: SDEProblem, grids: list[list[float]]) -> StrongRun:
    start, path, exact = _exact(problem, tuple(map(tuple, grids)))
    noises = [path.noise(times) for times in grids]
    return run_on_paths(problem.form(method.calculus), start, exact, grids, method, noises)


@lru_cache(maxsize=24)
def _exact(problem: SDEProblem, grids: tuple[tuple[float, ...], ...]) -> tuple[Tensor, SampledPath, Tensor]:
    """Starts, a path on all points of the grids and between, and where it leads."""
    points = sorted({t for grid in grids for t in grid}, reverse=problem.down)
    cells = (_AREAS if problem.noise == "general" else _REFERENCE) * max(len(g) - 1 for g in grids)
    path = SampledPath(_divided(points, cells), _PATHS, problem.motions, seed=1)
    start = problem.start(_PATHS)
    return start, path, problem.solution(start, path)


def _divided(points: list[float], cells: int) -> list[float]:
    """Every interval in equal parts, so that there are `cells` or more."""
    parts = -(-cells // (len(points) - 1))
    inner = [[a + (b - a) * (k / parts) for k in range(parts)] for a, b in itertools.pairwise(points)]
    return [*(t for row in inner for t in row), points[-1]]
