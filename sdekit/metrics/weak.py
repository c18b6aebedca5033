"""Weak errors of any functional by coupled paths: the difference is sampled, not its two terms.

For a deterministic sampler the control is the exact flow from the same start. For a stochastic one it is the same
sampler on a grid refined 2^levels times, on the same Brownian path: the difference of both is small path by path, so
that its mean is known far better than either mean. What the fine grid still lacks is estimated from the declared weak
order p: the coarse error is the difference over 1 - 2^(-p levels), and the interval is widened by twice that on each
side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError, ShapeError, SolverMismatchError
from sdekit.metrics.stratified import stratified_marginal
from sdekit.sde import Stochasticity
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver
from sdekit.targets import GaussianMixture
from sdekit.testing.orders import as_solver
from sdekit.times import check_count, check_times

__all__ = ["WeakError", "weak_error"]


@dataclass(frozen=True)
class WeakError:
    """E f(sampler) - E f(exact), as far as these paths tell.

    Attributes:
        value, low, high: the estimate and its interval.
        reduction: the variance of two independent means over that of the coupled difference, at as many paths.
        control: "flow" or "fine grid".
        paths, nfe: how many, and model calls of the sampler on each.
        confidence: of the interval.
    """

    value: float
    low: float
    high: float
    reduction: float
    control: str
    paths: int
    nfe: int
    confidence: float

    def __str__(self) -> str:
        sign = "not told apart from 0" if self.low <= 0 <= self.high else "not 0"
        return (
            f"weak error {self.value:.3g}, {100 * self.confidence:.0f} % interval [{self.low:.3g}, {self.high:.3g}]: "
            f"{sign}; variance reduced {self.reduction:.3g} times by the {self.control}"
        )


def weak_error(
    solver: Any,
    target: GaussianMixture,
    process: AffineSDE,
    times: Sequence[float] | Tensor,
    functional: Callable[[Tensor], Tensor],
    *,
    stochasticity: Stochasticity | None = None,
    paths: int = 1024,
    levels: int = 3,
    seed: int = 0,
    confidence: float = 0.95,
) -> WeakError:
    """The error of the mean of a functional of a sampler's output, from the exact marginal at the first time.

    Args:
        solver: a plan solver, or its name; a stochastic one must follow a Brownian path (have a clock).
        target, process, times: what is sampled, with sigma > 0 at the last time for stochastic samplers.
        functional: from states (n, *shape) to (n,).
        stochasticity: None takes the solver's own.
        paths: coupled paths, from stratified starts. Intervals are those of independent ones, so on the safe side.
        levels: the fine grid of a stochastic sampler has 2^levels times as many steps.
        seed: of starts and paths.
        confidence: of the interval.

    Raises:
        SolverMismatchError: for a solver without a plan, or a stochastic one whose noise is that of no path.
        ShapeError, InterfaceError, OptionError: for arguments that do not fit.
    """
    method = as_solver(solver)
    if not isinstance(method, PlanSolver):
        raise SolverMismatchError(
            "solver", got=f"{method.label}, which has no plan", expected="a plan solver", fix="Use euler_maruyama."
        )
    if not isinstance(target, GaussianMixture):
        raise InterfaceError("target", got=type(target).__name__, expected="a GaussianMixture", fix="Pass one.")
    if not 0 < confidence < 1:
        raise OptionError("confidence", got=repr(confidence), expected="a number between 0 and 1", fix="Pass 0.95.")
    if check_count("paths", paths) < 2:
        raise OptionError("paths", got=repr(paths), expected="2 or more", fix="Take a thousand.")
    grid = check_times(times, domain=process.domain, direction="down")
    tau = method.resolve_stochasticity(method.implied_stochasticity if stochasticity is None else stochasticity)
    plan, model = method.plan(process, grid, tau), target.under(process)
    start = stratified_marginal(model, grid[0], paths, seed)
    noise: dict[str, Any] = {"seed": seed, "noise": "path"} if plan.stochastic else {}
    if plan.stochastic and plan.clock is None:
        raise SolverMismatchError(
            "solver",
            got=f"{method.label}, whose noise is that of no Brownian path",
            expected="a sampler with a clock, so that two grids can share their noise",
            fix="Use ddpm, ddim, euler_maruyama, exp_adams or exp_sra, or compare samples.",
        )
    dynamics = process.reverse(model, tau)
    with torch.no_grad():
        coarse = _values(functional, solve(dynamics, start, grid, method, checks="end", **noise).x)
        if plan.stochastic:
            fine = _refined(process, grid, 2 ** check_count("levels", levels))
            control = _values(functional, solve(dynamics, start, fine, method, checks="end", **noise).x)
        else:
            control = _values(functional, model.flow(start, grid[0], grid[-1]))
    difference = coarse - control
    value, scatter = float(difference.mean()), float(difference.std()) / math.sqrt(paths)
    half = NormalDist().inv_cdf(0.5 + 0.5 * confidence) * scatter
    rest = 0.0
    if plan.stochastic:
        rest = abs(value) / (2 ** (levels * (method.declared.weak or 1)) - 1)
    plain = (float(coarse.var()) + float(control.var())) / paths
    return WeakError(
        value=value,
        low=value - half - 2 * rest,
        high=value + half + 2 * rest,
        reduction=plain / scatter**2 if scatter > 0 else math.inf,
        control="fine grid" if plan.stochastic else "flow",
        paths=paths,
        nfe=plan.nfe,
        confidence=confidence,
    )


def _refined(process: AffineSDE, grid: list[float], parts: int) -> list[float]:
    """Each step in parts of equal length in half-log-SNR; in t where that is infinite."""
    levels = process.levels(grid)
    out = [grid[0]]
    for s, t in itertools.pairwise(levels):
        shares = [k / parts for k in range(1, parts)]
        if math.isfinite(s.half_log_snr) and math.isfinite(t.half_log_snr):
            places = [s.half_log_snr + u * (t.half_log_snr - s.half_log_snr) for u in shares]
            out += process.time_at(torch.tensor(places, dtype=torch.float64)).tolist()
        else:
            out += [s.t + u * (t.t - s.t) for u in shares]
        out.append(t.t)
    return out


def _values(functional: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = functional(x)
    if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ShapeError("functional", got=got, expected=f"({len(x)},)", fix="Return one number for each sample.")
    if not bool(torch.isfinite(found).all()):
        raise OptionError("functional", got="NaN or infinity", expected="finite values", fix="Check the functional.")
    return found.to(torch.float64)
