"""Errors in parts, and the Gaussian protocol: `sdekit.metrics` on the cells of a suite."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from sdekit import metrics, solvers
from sdekit.bench import precision
from sdekit.bench.build import mixture_of, problem
from sdekit.bench.cells import Cell

__all__ = ["parts", "protocol"]


def parts(cell: Cell) -> dict[str, Any]:
    """`points`: for each number of calls what `sdekit.metrics.decompose` gives; None where no step fits."""
    given = problem(cell)
    method = solvers.get(cell.variant.solver, **dict(cell.variant.options))
    points = []
    for budget in cell.counts or ():
        steps, calls = precision.within(method, given, cell, budget)
        point: dict[str, Any] = {"budget": budget, "steps": steps, "calls": calls, "parts": None}
        if steps:
            found = metrics.decompose(
                given.target,
                given.process,
                method,
                given.grid(cell.grid, steps),
                stochasticity=precision.stochasticity(method, cell) if cell.kind == "weak" else 0.0,
                finish=cell.finish or "state",
                samples=cell.samples,
                seed=cell.seed,
            )
            point["parts"] = asdict(found)
        points.append(point)
    return {"declared": getattr(method.declared, cell.kind), "points": points}


def protocol(cell: Cell) -> dict[str, Any]:
    """`rows`: those of `sdekit.metrics.gaussian_protocol` for this number of calls and the target's covariance."""
    spectrum = torch.linalg.eigvalsh(mixture_of(cell.target).cov).clamp(min=0.0)
    rows = metrics.gaussian_protocol(spectrum=spectrum, calls=cell.counts or (), truncations=cell.truncations or ())
    return {"declared": None, "rows": [asdict(row) for row in rows]}
