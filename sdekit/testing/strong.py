"""The error of single paths: a solver against a finer solution of another family, both on one Brownian path.

The reference is SRA1 (ShARK for SRA1 itself) on the step route, in the solver's clock c. There are two:

    c = t            the reverse SDE as it stands,
    c = e^{k lambda} or (e^{k lambda} - 1) / k, k = 2 tau^2, see `sdekit.solvers.ddim.snr_clock`: for
                     y = e^{tau^2 lambda} x / sigma and v = e^{k lambda} it is
                     dy = (1 + tau^2) / (2 tau^2) e^{(1 - tau^2) lambda} data dv + dB_v.

So the second checks that a plan's noise is what its clock says, by an equation that no plan uses.

Paths are taken in parts of so many that memory does not grow with their number, but for one number of each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sdekit import solvers
from sdekit.errors import SdekitError, SolverMismatchError
from sdekit.sde import SDE, Stochasticity, make_sde
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver
from sdekit.solvers.ddim import snr_clock
from sdekit.testing.estimate import Estimate, estimate

if TYPE_CHECKING:
    from sdekit.testing.problems import OrderProblem

__all__ = ["PATHS", "StrongRun", "run_on_paths", "strong_doubt", "strong_estimate", "strong_run"]

PATHS = 256
_FINER = 4  # times as many steps as the finest grid measured: of order 3/2 that leaves an eighth of its error
_SEED = 1
_RESAMPLES = 400
_FLOOR = 1e-13
_NUMBERS = 2**18  # of a part of the paths

_Part = tuple[int, int, int]  # its index, its first path and how many they are


@dataclass(frozen=True, eq=False)
class StrongRun:
    """What one solver does on the same paths on several grids.

    Attributes:
        squares: (grids, paths), squared errors.
        nfe: model calls on each grid.
        sizes: (paths,), squares of the exact ends.
        seconds: of the processor, on each grid.
    """

    squares: Tensor
    nfe: Sequence[int]
    sizes: Tensor = field(default_factory=lambda: torch.zeros(0))
    seconds: Sequence[float] = ()

    @property
    def errors(self) -> list[float]:
        """Root mean squares over the paths."""
        return self.squares.mean(1).sqrt().tolist()


def strong_run(
    method: Any,
    problem: OrderProblem,
    grids: Sequence[Tensor],
    tau: Stochasticity,
    bare: bool,
    paths: int = PATHS,
    finest: int | None = None,
) -> StrongRun:
    """Run a solver on each grid with one path for all, and compare with the reference; `bare` for the step route.

    Args:
        paths: how many.
        finest: steps that the reference is fine against; by default those of the finest grid.

    Raises:
        SolverMismatchError: for a solver whose noise is not that of a path in one of the two clocks.
    """
    against = _against(method, problem, grids, tau, bare, finest)
    dynamics = _reverse(problem, tau)
    dynamics = _bare(dynamics) if bare else dynamics
    runs = []
    for part in _parts(problem, paths):
        start, exact, ids = _starts(problem, part), _reference(problem, tau, *against, part), _ids(part)
        noises = ["path"] * len(grids)
        runs.append(run_on_paths(dynamics, start, exact, grids, method, noises, _SEED + problem.seed, ids))
    return StrongRun(
        torch.cat([run.squares for run in runs], 1),
        runs[0].nfe,
        torch.cat([run.sizes for run in runs]),
        [math.fsum(of_grid) for of_grid in zip(*(run.seconds for run in runs), strict=True)],
    )


def strong_doubt(
    method: Any,
    problem: OrderProblem,
    grids: Sequence[Tensor],
    tau: Stochasticity,
    bare: bool,
    paths: int = PATHS,
    finest: int | None = None,
) -> float:
    """How far off the reference of `strong_run` is itself: a root mean square over its first part of the paths.

    From what half as many steps change: of order 3/2, 2^{3/2} - 1 times the error that is left.
    """
    name, fine, slow = _against(method, problem, grids, tau, bare, finest)
    part = next(_parts(problem, paths))
    exact, coarse = (_reference(problem, tau, name, n, slow, part) for n in (fine, fine // 2))
    return float((exact - coarse).flatten(1).square().sum(1).mean().sqrt()) / (2**1.5 - 1)


def run_on_paths(
    dynamics: Any,
    start: Tensor,
    exact: Tensor,
    grids: Sequence[Any],
    method: Any,
    noises: Sequence[Any],
    seed: int = _SEED,
    ids: Tensor | None = None,
) -> StrongRun:
    """Run a solver from the same starts on each grid with its noise, and compare with the ends of the exact paths."""
    squares, calls, seconds = [], [], []
    for times, noise in zip(grids, noises, strict=True):
        began = time.process_time()
        found = solve(dynamics, start, times, method, seed=seed, noise=noise, sample_ids=ids, checks="end")
        seconds.append(time.process_time() - began)
        squares.append((found.x - exact).flatten(1).square().sum(1))
        calls.append(int(found.nfe[0]))
    return StrongRun(torch.stack(squares), calls, exact.flatten(1).square().sum(1), seconds)


def strong_estimate(
    counts: Sequence[int], runs: Sequence[StrongRun], fit: Callable[..., Estimate] = estimate
) -> Estimate:
    """The order, with an interval that covers what the fit does not settle and 95 % of resampled sets of paths.

    Args:
        counts: step counts, rising.
        runs: one for each seed of the grids.
        fit: `estimate` or `least_squares`.

    Raises:
        OptionError: for fewer than three step counts with errors above rounding.
    """
    rows = [run.errors for run in runs]
    try:
        found = fit(counts, rows, _FLOOR)
    except SdekitError as error:
        error.add_note(f"errors by steps {dict(zip(counts, rows[0], strict=True))}")
        raise
    if found.used < 3:
        return found
    generator, paths = np.random.default_rng(0), runs[0].squares.shape[1]
    values = []
    for _ in range(_RESAMPLES):
        chosen = torch.from_numpy(generator.integers(0, paths, paths))
        rows = [run.squares[:, chosen].mean(1).sqrt().tolist()[: found.used] for run in runs]
        values.append(fit(counts[: found.used], rows, _FLOOR).value)
    low, high = (float(v) for v in np.quantile(values, (0.025, 0.975)))
    return Estimate(found.value, min(found.low, low), max(found.high, high), found.slopes, found.used)


def _finer(tau: Stochasticity) -> int:
    """Where noise is weak, errors of order 2 lead: those of the reference in its clock are then three times those."""
    return _FINER if callable(tau) or tau >= 0.5 else 2 * _FINER


def _parts(problem: OrderProblem, paths: int) -> Iterator[_Part]:
    """The paths in parts of about as many numbers each."""
    most = max(1, _NUMBERS // problem.target.size)
    yield from ((i, first, min(most, paths - first)) for i, first in enumerate(range(0, paths, most)))


def _starts(problem: OrderProblem, part: _Part) -> Tensor:
    """Each part from a seed of its own: draws are keyed by their place in a call."""
    return problem.model.sample(problem.ends[0], part[2], seed=problem.seed + part[0])


def _ids(part: _Part) -> Tensor:
    return torch.arange(part[1], part[1] + part[2])


def _against(
    method: Any, problem: OrderProblem, grids: Sequence[Tensor], tau: Stochasticity, bare: bool, finest: int | None
) -> tuple[str, int, bool]:
    """The reference: its solver, its steps, and whether it is in the clock of the signal-to-noise ratio."""
    slow = not bare and not _in_time(method, problem, grids[0], tau)
    finest = max(len(g) - 1 for g in grids) if finest is None else finest
    return "shark" if method.name == "sra1" else "sra1", _finer(tau) * finest, slow


def _reverse(problem: OrderProblem, tau: Stochasticity) -> Any:
    return problem.process.reverse(problem.model, tau)


def _bare(sde: SDE) -> SDE:
    return make_sde(sde.drift, sde.diffusion, "scalar", additive=True)


def _in_time(method: PlanSolver, problem: OrderProblem, times: Tensor, tau: Stochasticity) -> bool:
    """Whether the plan's clock is t; False where it is that of the signal-to-noise ratio."""
    grid = times.tolist()
    clock = method.plan(problem.process, grid, tau).clock
    for expected, answer in ((tuple(grid), True), (snr_clock(problem.process, grid, tau), False)):
        if clock is not None and expected is not None and np.allclose(clock, expected, rtol=1e-12, atol=0):
            return answer
    raise SolverMismatchError(
        "kind",
        got=f"'strong' for {method.label}, " + ("without a clock" if clock is None else "in a clock of its own"),
        expected="a plan whose noise is that of a Brownian path in t, or in the clock of the signal-to-noise ratio",
        fix="Return tuple(times) or snr_clock(process, times, stochasticity) from noise_clock, a constant one.",
    )


@lru_cache(maxsize=32)
def _reference(problem: OrderProblem, tau: Any, name: str, steps: int, slow: bool, part: _Part) -> Tensor:
    times = problem.grid("half_log_snr", steps)
    solver, start = solvers.get(name), _starts(problem, part)
    path: dict[str, Any] = {
        "seed": _SEED + problem.seed,
        "sample_ids": _ids(part),
        "noise": "path",
        "checks": "end",
    }
    if not slow:
        return solve(_bare(_reverse(problem, tau)), start, times, solver, **path).x
    process, model, k = problem.process, problem.model, 2 * tau**2
    grid = times.tolist()
    clock = snr_clock(process, grid, tau)
    levels = process.levels([grid[0], grid[-1]])
    first, last = (v.sigma * math.exp(-(tau**2) * v.half_log_snr) for v in levels)
    plain = math.exp(k * levels[0].half_log_snr)
    rate = 1.0 if math.isclose(clock[0], plain, rel_tol=1e-9) else k  # type: ignore[index]  # dv / dc

    def drift(c: Tensor, y: Tensor) -> Tensor:
        v = float(c) if rate == 1.0 else 1 + k * float(c)
        lam = math.log(v) / k
        (level,) = process.levels_at([lam])
        x = y * (level.sigma * math.exp(-(tau**2) * lam))
        return model.data(level.t, x) * (rate * (1 + tau**2) / k * math.exp((1 - tau**2) * lam))

    def diffusion(c: Tensor, y: Tensor) -> Tensor:
        return torch.full((), math.sqrt(rate), dtype=y.dtype)

    sde = make_sde(drift, diffusion, "scalar", additive=True)
    return solve(sde, start / first, clock, solver, **path).x * last  # type: ignore[arg-type]
