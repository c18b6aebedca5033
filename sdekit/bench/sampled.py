"""Samples against exact samples: metrics with intervals, held against what exact samples show among themselves."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

from sdekit import metrics, solvers
from sdekit.bench import precision
from sdekit.bench.build import problem_of
from sdekit.bench.cells import Cell, Named
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver
from sdekit.testing import OrderProblem

__all__ = ["sampled"]

# Streams of draws that must have nothing in common.
_EXACT_SEED, _NOISE_SEED, _FLOOR_SEED = 1, 2, 3


def sampled(cell: Cell) -> dict[str, Any]:
    """`points`: for each number of calls what `sdekit.metrics.compare` gives, by metric; None where no step fits.

    The sampler starts from exact draws at the first time, so that all that shows is its own error.
    """
    given = _problem(cell)
    method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
    exact = given.model.sample(given.ends[1], cell.samples, cell.seed + _EXACT_SEED)
    points = []
    for budget in cell.counts or ():
        steps, calls = precision.within(method, given, cell, budget)
        point: dict[str, Any] = {"budget": budget, "steps": steps, "calls": calls, "metrics": None}
        if steps:
            end = _run(method, given, cell, steps)
            point["metrics"] = {
                name: asdict(metrics.compare(name, end, exact, _floor(name, *_key(cell))))
                for name in cell.metrics or ()
            }
        points.append(point)
    return {"declared": getattr(method.declared, cell.kind), "points": points}


def _problem(cell: Cell) -> OrderProblem:
    """On the mixture itself, for stochastic samplers too."""
    return problem_of(cell.process, cell.target, False, cell.low, cell.high, cell.samples, cell.seed)


def _run(method: Any, given: OrderProblem, cell: Cell, steps: int) -> Any:
    times, x = given.grid(cell.grid, steps), given.starts()
    if not isinstance(method, PlanSolver):
        return solve(precision.flow(method, given), x, times, method, checks="end").x
    tau = precision.stochasticity(method, cell)
    dynamics = given.process.reverse(given.model, stochasticity=tau) if tau else given.model
    return solve(dynamics, x, times, method, seed=cell.seed + _NOISE_SEED, checks="end").x


def _key(cell: Cell) -> tuple[Named, Named, float, float, int, int, int]:
    return cell.process, cell.target, cell.low, cell.high, cell.samples, cell.seed, cell.repeats or 1


@cache
def _floor(
    metric: str, process: Named, target: Named, low: float, high: float, samples: int, seed: int, repeats: int
) -> metrics.NoiseFloor:
    """Between exact samples at the last time; each worker process measures it once."""
    given = problem_of(process, target, False, low, high, samples, seed)
    draw = lambda n, seed: given.model.sample(given.ends[1], n, seed)  # noqa: E731
    return metrics.noise_floor(metric, draw, samples, repeats, seed + _FLOOR_SEED)
