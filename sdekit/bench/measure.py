"""What is done for one cell. Results are plain data, and depend on the cell alone."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import torch

from sdekit import solvers
from sdekit.bench import parts, peers, precision, sampled
from sdekit.bench.build import problem, problem_of
from sdekit.bench.cells import Cell, is_peer
from sdekit.bench.limits import failure
from sdekit.bench.speed import measured as speed
from sdekit.errors import MissingPackageError, OptionError
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver, Solver
from sdekit.testing import ObservedOrder, observed_order

__all__ = ["described", "measure"]

_REFINEMENTS = 3
_COARSER = (2, 4)
_NOISE_SEED = 2
_KINDS = {
    "work": precision.measured,
    "parts": parts.parts,
    "protocol": parts.protocol,
    "sampled": sampled.sampled,
    "speed": speed.measured,
}


def measure(cell: Cell, tolerance: float) -> dict[str, Any]:
    """The result of a cell: what it was, `seconds`, `status` "ok", and the numbers; or what `limits.failure` tells."""
    start = time.perf_counter()
    result = described(cell)
    try:
        with torch.no_grad():
            if cell.what in _KINDS:
                result |= _KINDS[cell.what](cell)
            else:
                method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
                result |= _order(cell, method, tolerance) if cell.what == "order" else _samples(cell, method)
    except MissingPackageError as error:
        result |= {"status": "skipped", "message": str(error)}
    except Exception as error:  # noqa: BLE001  (one bad solver must not end the suite: its cell says what happened)
        result |= failure(error)
    result["seconds"] = time.perf_counter() - start
    return result


def described(cell: Cell) -> dict[str, Any]:
    """What a cell is, as its result begins."""
    return {
        "what": cell.what,
        "solver": cell.label,
        "name": cell.variant.solver,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in cell.variant.options},
        "family": _family(cell.variant.solver),
        "kind": cell.kind,
        "process": cell.process.name,
        "target": cell.target.name,
        "grid": cell.grid,
        "half_log_snr": [cell.low, cell.high],
        "status": "ok",
        "message": "",
        **({} if cell.timed is None else speed.described(cell.timed)),
    }


def _family(solver: str) -> str:
    if not solver:
        return ""
    return (peers.get if is_peer(solver) else solvers.get)(solver).family


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


def _samples(cell: Cell, method: Solver) -> dict[str, Any]:
    """The same starts solved with each number of calls, (samples, d) each, beside where the exact flow ends."""
    # Pictures show the mixture itself, for stochastic solvers too.
    given = problem_of(cell.process, cell.target, False, cell.low, cell.high, cell.samples, cell.seed)
    exact, blocks = given.exact(), []
    for budget in cell.counts or ():
        steps, calls = precision.within(method, given, cell, budget)
        if steps == 0:
            blocks.append({"budget": budget, "calls": 0, "error": None, "x": None})
            continue
        times, x = given.grid(cell.grid, steps), given.starts()
        dynamics = given.model if isinstance(method, PlanSolver) else precision.flow(method, given)
        end = solve(dynamics, x, times, method, seed=_NOISE_SEED, checks="end").x
        error = float((end - exact).norm() / exact.norm()) if cell.kind == "deterministic" else None
        blocks.append({"budget": budget, "calls": calls, "error": error, "x": end.flatten(1).tolist()})
    real = given.target.means
    chosen = torch.linspace(0, len(real) - 1, cell.samples * (len(blocks) + 1)).round().long()
    return {"blocks": blocks, "exact": exact.flatten(1).tolist(), "real": real[chosen].flatten(1).tolist()}
