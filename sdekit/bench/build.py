"""Objects from their names in a suite: processes, targets, problems. Each worker process makes each of them once."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from sdekit import processes, targets
from sdekit.affine import AffineSDE
from sdekit.bench.cells import Cell, Named
from sdekit.errors import SdekitError, UnknownNameError, suggest
from sdekit.registry import check_options
from sdekit.targets import GaussianMixture
from sdekit.testing import OrderProblem

__all__ = ["check", "problem", "problem_of"]

TARGETS = ("digits", "gaussian", "random_mixture", "ring")


def problem(cell: Cell) -> OrderProblem:
    """Process, target, range and starts of a cell; the target of a weak one is its Gaussian, see `problem_of`."""
    return problem_of(cell.process, cell.target, cell.kind == "weak", cell.low, cell.high, cell.samples, cell.seed)


@cache
def problem_of(
    process: Named, target: Named, gaussian: bool, low: float, high: float, samples: int, seed: int
) -> OrderProblem:
    """A problem; with `gaussian`, on the Gaussian that has the target's mean and covariance, in its principal axes.

    Affine processes and the solvers of them treat all directions alike, so that the axes may be chosen, and those in
    which the covariance is diagonal make exact moments cheap.
    """
    mixture = _mixture(target)
    if gaussian:
        variances, axes = torch.linalg.eigh(mixture.cov)
        mixture = targets.gaussian(mixture.mean.flatten() @ axes, variances.clamp(min=0.0))
    return OrderProblem(f"{target.name}, {process.name}", _process(process), mixture, low, high, samples, seed)


def check(cells: list[Cell]) -> None:
    """Make every problem once, before anything is measured: wrong names, options and ranges show here."""
    for cell in {(c.process, c.target, c.low, c.high): c for c in cells}.values():
        try:
            problem(cell)
        except SdekitError as error:
            error.add_note(f"in a section of the suite on target {cell.target.name!r}, process {cell.process.name!r}")
            raise


@cache
def _process(named: Named) -> AffineSDE:
    known = {name: getattr(processes, name) for name in processes.__all__}
    return _make("process", known, named)


@cache
def _mixture(named: Named) -> GaussianMixture:
    return _make("target", {name: getattr(targets, name) for name in TARGETS}, named)


def _make(kind: str, known: dict[str, Any], named: Named) -> Any:
    if named.make not in known:
        expected = f"the {kind} of sdekit that {named.name!r} is"
        raise UnknownNameError("make", got=repr(named.make), expected=expected, fix=suggest(named.make, known))
    maker, options = known[named.make], dict(named.options)
    check_options(named.make, maker, options)
    return maker(**options)
