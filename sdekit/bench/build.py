"""Objects from their names in a suite: processes, targets, problems. Each worker process makes each of them once."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from sdekit import targets
from sdekit.affine import AffineSDE
from sdekit.bench.cells import Cell, Named
from sdekit.bench.faults import Faults
from sdekit.bench.files import digest
from sdekit.bench.names import maker
from sdekit.errors import InterfaceError, OptionError, SdekitError
from sdekit.registry import check_options
from sdekit.targets import GaussianMixture
from sdekit.testing import OrderProblem

__all__ = ["check", "mixture_of", "problem", "problem_of"]

_SEED_DIGITS = 15  # hexadecimal ones: seeds stay far below 2^64


def problem(cell: Cell) -> OrderProblem:
    """Process, target, range and starts of a cell; the target of a weak one is its Gaussian, see `problem_of`."""
    seed = _path_seed(cell) if cell.kind == "strong" else cell.seed
    return problem_of(cell.process, cell.target, cell.kind == "weak", cell.low, cell.high, cell.samples, seed)


def _path_seed(cell: Cell) -> int:
    """Of starts and paths: from a digest of where a cell is measured, the same for all solvers there."""
    place = asdict(cell.process), asdict(cell.target), cell.low, cell.high, cell.samples, cell.seed
    return int(digest(place)[:_SEED_DIGITS], 16)


@cache
def problem_of(
    process: Named, target: Named, gaussian: bool, low: float, high: float, samples: int, seed: int
) -> OrderProblem:
    """A problem; with `gaussian`, on the Gaussian that has the target's mean and covariance, in its principal axes.

    Affine processes and the solvers of them treat all directions alike, so that the axes may be chosen, and those in
    which the covariance is diagonal make exact moments cheap.
    """
    mixture = mixture_of(target)
    if gaussian:
        variances, axes = torch.linalg.eigh(mixture.cov)
        mixture = targets.gaussian(mixture.mean.flatten() @ axes, variances.clamp(min=0.0))
    return OrderProblem(f"{target.name}, {process.name}", _process(process), mixture, low, high, samples, seed)


def check(cells: list[Cell]) -> None:
    """Make every problem once, before anything is measured: all options and ranges that do not do show here."""
    faults = Faults()
    for cell in {(c.process, c.target, c.low, c.high): c for c in cells if c.timed is None}.values():
        with faults.at(f"target {cell.target.name!r}, process {cell.process.name!r}"):
            mixture_of(cell.target) if cell.what == "protocol" else problem(cell)
    faults.raise_any("the suite")


@cache
def _process(named: Named) -> AffineSDE:
    return _make("process", named, AffineSDE)


@cache
def mixture_of(named: Named) -> GaussianMixture:
    """The target itself."""
    return _make("target", named, GaussianMixture)


def _make(kind: str, named: Named, wanted: type) -> Any:
    make, options = maker(kind, named.make), dict(named.options)
    check_options(named.make, make, options)
    try:
        made = make(**options)
    except SdekitError:
        raise
    except Exception as error:  # it may be the user's own
        raise OptionError(
            "make",
            got=f"{named.make}, which raises {type(error).__name__}: {error}",
            expected=f"options that make a {kind}",
            fix="Correct them, or the code.",
        ) from error
    if not isinstance(made, wanted):
        raise InterfaceError(
            "make",
            got=f"{named.make}, which gives {type(made).__name__}",
            expected=f"a {kind}: {wanted.__name__}",
            fix="Derive it from that class.",
        )
    return made
