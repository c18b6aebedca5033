"""What is done for one cell. Results are plain data, and depend on the cell alone."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import torch
from torch import Tensor

from sdekit import solvers
from sdekit.bench.build import problem, problem_of
from sdekit.bench.cells import Cell
from sdekit.bench.limits import failure
from sdekit.errors import OptionError
from sdekit.sde import make_ode
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver, Solver
from sdekit.testing import ObservedOrder, OrderProblem, observed_order

__all__ = ["described", "measure"]

_REFINEMENTS = 3
_COARSER = (2, 4)
_NOISE_SEED = 2


def measure(cell: Cell, tolerance: float) -> dict[str, Any]:
    """The result of a cell: what it was, `seconds`, `status` "ok", and the numbers; or what `limits.failure` tells."""
    start = time.perf_counter()
    result = described(cell)
    method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
    try:
        with torch.no_grad():
            if cell.what == "order":
                result |= _order(cell, method, tolerance)
            elif cell.what == "work":
                result |= _work(cell, method)
            else:
                result |= _samples(cell, method)
    except Exception as error:  # noqa: BLE001  (one bad solver must not end the suite: its cell says what happened)
        result |= failure(error)
    result["seconds"] = time.perf_counter() - start
    return result


def described(cell: Cell) -> dict[str, Any]:
    """What a cell is, as its result begins."""
    return {
        "what": cell.what,
        "solver": cell.variant.label,
        "name": cell.variant.solver,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in cell.variant.options},
        "family": solvers.info(cell.variant.solver).family,
        "kind": cell.kind,
        "process": cell.process.name,
        "target": cell.target.name,
        "grid": cell.grid,
        "half_log_snr": [cell.low, cell.high],
        "status": "ok",
        "message": "",
    }


def _order(cell: Cell, method: Solver, tolerance: float) -> dict[str, Any]:
    """The order, on finer grids where those of the suite are too coarse to show the declared one.

    An order is a limit: at too few steps even a right method may show less. A wrong one still does on finer grids.
    """
    found = _above_rounding(cell, method)
    for _ in range(_REFINEMENTS):
        if found.reaches(tolerance=tolerance):
            break
        steps = (*found.steps[1:], 2 * found.steps[-1])
        try:
            found = observed_order(method, cell.kind, problem(cell), cell.grid, steps)
        except OptionError:  # rounding errors show on these
            break
    return _described(found)


def _above_rounding(cell: Cell, method: Solver) -> ObservedOrder:
    """The order on the steps of the suite; where rounding errors hide it there, on half or a quarter of them."""
    given = problem(cell)
    try:
        return observed_order(method, cell.kind, given, cell.grid, cell.counts)
    except OptionError as error:
        if cell.counts is None or error.argument != "steps":
            raise
        for divisor in _COARSER:
            with contextlib.suppress(OptionError):
                return observed_order(method, cell.kind, given, cell.grid, [n // divisor for n in cell.counts])
        raise


def _described(found: ObservedOrder) -> dict[str, Any]:
    exact = math.isinf(found.value)
    return {
        "declared": found.declared,
        "measured": None if exact else found.value,
        "interval": None if exact else [found.low, found.high],
        "exact": exact,
        "steps": list(found.steps),
        "calls": list(found.nfe),
        "errors": list(found.errors),
        "slopes": list(found.slopes),
    }


def _work(cell: Cell, method: Solver) -> dict[str, Any]:
    """Relative errors at the most steps that stay within each number of calls; None where no step does."""
    given = problem(cell)
    points = []
    for budget in cell.counts or ():
        steps, calls = _within(method, given, cell, budget)
        error = None if steps == 0 else _error(method, given, cell, steps)
        points.append({"budget": budget, "steps": steps, "calls": calls, "error": error})
    return {"declared": getattr(method.declared, cell.kind), "points": points}


def _within(method: Solver, given: OrderProblem, cell: Cell, budget: int) -> tuple[int, int]:
    """The largest number of steps whose model calls stay within the budget, and these; (0, 0) if there is none."""
    steps = budget
    while steps > 0:
        calls = _calls(method, given, cell, steps)
        if calls <= budget:
            break
        steps = min(steps - 1, steps * budget // calls)
    else:
        return 0, 0
    while (more := _calls(method, given, cell, steps + 1)) <= budget:  # where the last steps make fewer
        steps, calls = steps + 1, more
    return steps, calls


def _calls(method: Solver, given: OrderProblem, cell: Cell, steps: int) -> int:
    if isinstance(method, PlanSolver):
        return method.plan(given.process, given.grid(cell.grid, steps), _stochasticity(method, cell.kind)).nfe
    return steps * getattr(method, "calls_per_step", 1) + getattr(method, "calls_at_start", 0)


def _stochasticity(method: PlanSolver, kind: str) -> Any:
    """The problem's: 0 for the flow, 1 for the reverse SDE, and what its name implies for a solver with a fixed one."""
    fixed = method.fixed_stochasticity
    return fixed if fixed is not None else 0.0 if kind == "deterministic" else 1.0


def _error(method: Solver, given: OrderProblem, cell: Cell, steps: int) -> float | None:
    times = given.grid(cell.grid, steps)
    error = _law_error(method, given, times) if cell.kind == "weak" else _flow_error(method, given, times)
    return error if math.isfinite(error) else None


def _flow_error(method: Solver, given: OrderProblem, times: Tensor) -> float:
    """Distance from where the exact flow carries the same starts, relative to the size of these ends; both rms."""
    exact = given.exact()
    end = solve(_flow(method, given), given.starts(), times, method, checks="end").x
    return float((end - exact).norm() / exact.norm())


def _flow(method: Solver, given: OrderProblem) -> Any:
    flow = given.process.probability_flow(given.model)
    return flow if isinstance(method, PlanSolver) else make_ode(flow.drift)


def _law_error(method: Any, given: OrderProblem, times: Tensor) -> float:
    """Wasserstein-2 distance of the output's law from the exact one, relative to the root mean square of the latter.

    Both are Gaussian with the same axes: W2^2 = sum (m - m')^2 + (std - std')^2.
    """
    mean, variances = given.target.mean, given.target.components.variances[0].expand(given.target.size)
    plan = method.plan(given.process, times, _stochasticity(method, "weak"))
    law = plan.gaussian_moments(mean, variances)
    alpha, sigma = plan.end
    exact_mean, exact_variance = alpha * mean, alpha**2 * variances + sigma**2
    squared = ((law.mean - exact_mean) ** 2 + (law.cov.sqrt() - exact_variance.sqrt()) ** 2).sum()
    return float((squared / (exact_mean**2 + exact_variance).sum()).sqrt())


def _samples(cell: Cell, method: Solver) -> dict[str, Any]:
    """The same starts solved with each number of calls, (samples, d) each, beside where the exact flow ends."""
    # Pictures show the mixture itself, for stochastic solvers too.
    given = problem_of(cell.process, cell.target, False, cell.low, cell.high, cell.samples, cell.seed)
    exact, blocks = given.exact(), []
    for budget in cell.counts or ():
        steps, calls = _within(method, given, cell, budget)
        if steps == 0:
            blocks.append({"budget": budget, "calls": 0, "error": None, "x": None})
            continue
        times, x = given.grid(cell.grid, steps), given.starts()
        dynamics = given.model if isinstance(method, PlanSolver) else _flow(method, given)
        end = solve(dynamics, x, times, method, seed=_NOISE_SEED, checks="end").x
        error = float((end - exact).norm() / exact.norm()) if cell.kind == "deterministic" else None
        blocks.append({"budget": budget, "calls": calls, "error": error, "x": end.flatten(1).tolist()})
    real = given.target.means
    chosen = torch.linspace(0, len(real) - 1, cell.samples * (len(blocks) + 1)).round().long()
    return {"blocks": blocks, "exact": exact.flatten(1).tolist(), "real": real[chosen].flatten(1).tolist()}
