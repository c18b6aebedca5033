"""Error against work: how far the end is from the exact one, at given numbers of model calls or at given tolerances.

Strong errors are of paths, see `sdekit.testing.strong`: the ends of a fine solution on the same Brownian path stand for
the exact ones. How far off these are themselves is measured too, and makes the intervals wider.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from sdekit import solvers
from sdekit.bench import bands, peers
from sdekit.bench.build import problem
from sdekit.bench.cells import Cell, is_peer
from sdekit.errors import UnfinishedError
from sdekit.processes import EDM
from sdekit.sde import make_ode
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver, Solver
from sdekit.testing import OrderProblem
from sdekit.testing.strong import strong_doubt, strong_run

__all__ = ["flow", "measured", "stochasticity", "within"]

_MOST_CALLS = 100_000


def measured(cell: Cell) -> dict[str, Any]:
    """Relative errors: `points`, and what each cost in `point_seconds` of the processor.

    At numbers of calls, at the most steps that stay within each; `error` is None where no step does, and where the end
    is not finite. At tolerances, with as many calls as the mean sample takes. Errors over starts have an interval, see
    `bands.over_starts`; those of laws are exact, and have none.

    Raises:
        MissingPackageError: where another library is not installed.
    """
    given = problem(cell)
    if is_peer(cell.variant.solver):
        peer = peers.get(cell.variant.solver)
        return {"package": f"{peer.package} {peer.require()}", "declared": None} | _sweep(peer, given, cell)
    method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
    measure = _by_tolerance if cell.tolerances else _on_paths if cell.kind == "strong" else _sweep
    found = measure(method, given, cell)
    return _package(method) | {"declared": getattr(method.declared, cell.kind)} | found


def _package(method: Solver) -> dict[str, str]:
    """Of a solver of another package, which one."""
    from sdekit.interop.backend import Backend

    return {"package": f"{method.package} {peers.installed(method.package)}"} if isinstance(method, Backend) else {}


def _sweep(method: Solver | peers.Peer, given: OrderProblem, cell: Cell) -> dict[str, Any]:
    points, seconds = [], []
    for budget in cell.counts or ():
        steps, calls = within(method, given, cell, budget)
        start = time.process_time()
        error = bands.nothing() if steps == 0 else _error(method, given, cell, steps)
        seconds.append(time.process_time() - start)
        points.append({"budget": budget, "steps": steps, "calls": calls, **error})
    return {"points": points, "point_seconds": seconds}


def _on_paths(method: Solver, given: OrderProblem, cell: Cell) -> dict[str, Any]:
    """Errors of paths, with `reference`: the relative error of the ends that stand for exact ones."""
    budgets, points, seconds = cell.counts or (), [], []
    chosen = [within(method, given, cell, budget) for budget in budgets]
    grids = [given.grid(cell.grid, steps) for steps, _ in chosen if steps]
    if not grids:
        nothing = [{"budget": n, "steps": 0, "calls": 0, **bands.nothing()} for n in budgets]
        return {"points": nothing, "point_seconds": [0.0] * len(nothing), "reference": None}
    # All solvers of a place are held against a reference of the same steps, which they share.
    asked = method, given, grids, stochasticity(method, cell), not isinstance(method, PlanSolver)
    run = strong_run(*asked, cell.samples, max(budgets))
    doubt = strong_doubt(*asked, cell.samples, max(budgets)) / math.sqrt(float(run.sizes.mean()))
    measured = zip(run.squares, run.seconds, strict=True)
    for budget, (steps, calls) in zip(budgets, chosen, strict=True):
        squares, cost = next(measured) if steps else (None, 0.0)
        error = bands.nothing() if squares is None else _doubted(bands.of_squares(squares, run.sizes), doubt)
        points.append({"budget": budget, "steps": steps, "calls": calls, **error})
        seconds.append(cost)
    return {"points": points, "point_seconds": seconds, "reference": doubt}


def _doubted(point: dict[str, Any], doubt: float) -> dict[str, Any]:
    """With an interval that holds the error against exact ends: by the triangle inequality it is `doubt` away."""
    if point["low"] is None:
        return point
    return {**point, "low": max(point["low"] - doubt, 0.0), "high": point["high"] + doubt}


def _by_tolerance(method: Solver, given: OrderProblem, cell: Cell) -> dict[str, Any]:
    """With steps of the solver's own, at rtol = atol."""
    points, seconds = [], []
    dynamics = _exact_flow(given) if getattr(method, "own_steps", False) else given.model
    exact = given.exact()
    for tolerance in cell.tolerances or ():
        start = time.process_time()
        point: dict[str, Any] = {"budget": None, "tolerance": tolerance, "steps": 0, "calls": 0}
        point |= bands.nothing()
        try:
            end = solve(
                dynamics, given.starts(), list(given.ends), method, rtol=tolerance, atol=tolerance, max_nfe=_MOST_CALLS
            )
        except UnfinishedError:  # at this tolerance it needs more calls than anyone would give it
            pass
        else:
            calls, steps = (round(float(v.double().mean())) for v in (end.nfe, end.steps))
            point |= {"steps": steps, "calls": calls, **bands.over_starts(end.x, exact)}
        seconds.append(time.process_time() - start)
        points.append(point)
    return {"points": points, "point_seconds": seconds}


def within(method: Solver | peers.Peer, given: OrderProblem, cell: Cell, budget: int) -> tuple[int, int]:
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


def _calls(method: Solver | peers.Peer, given: OrderProblem, cell: Cell, steps: int) -> int:
    if isinstance(method, peers.Peer):
        return method.calls(steps)
    if isinstance(method, PlanSolver):
        return method.plan(given.process, given.grid(cell.grid, steps), stochasticity(method, cell)).nfe
    return steps * getattr(method, "calls_per_step", 1) + getattr(method, "calls_at_start", 0)


def stochasticity(method: Solver, cell: Cell) -> Any:
    """The problem's: 0 for the flow, 1 for the reverse SDE, and what its name implies for a solver with a fixed one."""
    if cell.stochasticity is not None:
        return cell.stochasticity
    fixed = method.fixed_stochasticity
    return fixed if fixed is not None else 0.0 if cell.kind == "deterministic" else 1.0


def _error(method: Solver | peers.Peer, given: OrderProblem, cell: Cell, steps: int) -> dict[str, Any]:
    """As `bands.over_starts`: the distance from where the exact flow carries the same starts; or that of a law."""
    times = given.grid(cell.grid, steps)
    if cell.kind == "weak":
        error = _law_error(method, given, times, cell)
        return bands.nothing() | {"error": error if math.isfinite(error) else None}
    if isinstance(method, peers.Peer):
        return bands.over_starts(_by_peer(method, given, times), given.exact())
    return bands.over_starts(solve(flow(method, given), given.starts(), times, method, checks="end").x, given.exact())


def flow(method: Solver, given: OrderProblem) -> Any:
    """The probability flow as the method takes it."""
    exact = given.process.probability_flow(given.model)
    return exact if isinstance(method, PlanSolver) else make_ode(exact.drift)


def _exact_flow(given: OrderProblem) -> Any:
    return make_ode(given.process.probability_flow(given.model).drift)


def _by_peer(peer: peers.Peer, given: OrderProblem, times: Tensor) -> Tensor:
    """Where a peer carries the problem's starts, in the problem's variable."""
    exact = given.target.under(EDM())
    alphas = given.process.alpha(times[[0, -1]])
    trial = peers.Trial(exact.data, _levels(given, times), given.starts() / alphas[0])
    return peer.run(trial) * alphas[1]


def _levels(given: OrderProblem, times: Tensor) -> Tensor:
    """rho = sigma / alpha at the times."""
    return torch.exp(-given.process.half_log_snr(times))


def _law_error(method: Any, given: OrderProblem, times: Tensor, cell: Cell) -> float:
    """Wasserstein-2 distance of the output's law from the exact one, relative to the root mean square of the latter.

    Both are Gaussian with the same axes: W2^2 = sum (m - m')^2 + (std - std')^2.
    """
    mean, variances = given.target.mean, given.target.components.variances[0].expand(given.target.size)
    alpha, sigma = float(given.process.alpha(times[-1])), float(given.process.sigma(times[-1]))
    if isinstance(method, peers.Peer):
        law = peers.law_of(method, mean, variances, _levels(given, times))
        found_mean, found_variance = alpha * law.mean, alpha**2 * law.variance
    else:
        moments = method.plan(given.process, times, stochasticity(method, cell)).gaussian_moments(mean, variances)
        found_mean, found_variance = moments.mean, moments.cov
    exact_mean, exact_variance = alpha * mean, alpha**2 * variances + sigma**2
    squared = ((found_mean - exact_mean) ** 2 + (found_variance.sqrt() - exact_variance.sqrt()) ** 2).sum()
    return float((squared / (exact_mean**2 + exact_variance).sum()).sqrt())
