"""Where a sampler's error comes from: the wrong start, the steps, and stopping before the data; each alone, and all.

With P the sampler, Phi the exact dynamics from the first to the last time, F what is done with the last state, p_T and
p_eps the exact laws there, p_0 the data and pi the start that is used,

    prior           F Phi pi   against   F p_eps
    discretization  F P p_T    against   F p_eps
    truncation      F p_eps    against   p_0
    carried         F P pi     against   F P p_T        the wrong start again, as this sampler carries it
    total           F P pi     against   p_0

so that total <= carried + discretization + truncation, by the triangle inequality; `prior` depends on no sampler. For a
Gaussian target all are Wasserstein-2 distances of exact laws, for the flow and any stochasticity. For a mixture and a
deterministic sampler they are root mean square distances of paths from common draws (x_0, eps), with the reference flow
for Phi: upper bounds of the distances of laws, for which the inequality holds too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.metrics.exact import reversed_law
from sdekit.metrics.law import FINISHES, carried, principal_axes, started
from sdekit.metrics.stratified import stratified_sample
from sdekit.plan import Plan
from sdekit.sde import Stochasticity, make_ode
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver
from sdekit.solvers.options import check_choice
from sdekit.targets import GaussianMixture
from sdekit.targets.components import Scales
from sdekit.targets.flow import flow
from sdekit.testing.orders import as_solver
from sdekit.times import check_times

__all__ = ["Decomposition", "decompose"]


@dataclass(frozen=True)
class Decomposition:
    """The parts of an error, see the module.

    Attributes:
        measure: "W2" for exact laws, "rms" for paths.
        prior, discretization, truncation, carried, total: distances.
        prior_kl: KL(p_T || pi) in nats; None for mixtures.
        nfe: model calls.
    """

    measure: str
    prior: float
    discretization: float
    truncation: float
    carried: float
    total: float
    prior_kl: float | None
    nfe: int

    @property
    def bound(self) -> float:
        """carried + discretization + truncation, which the total does not exceed."""
        return self.carried + self.discretization + self.truncation

    def __str__(self) -> str:
        parts = ("prior", "discretization", "truncation", "total")
        return f"{self.measure}, {self.nfe} calls: " + ", ".join(f"{p} {getattr(self, p):.3g}" for p in parts)


def decompose(
    target: GaussianMixture,
    process: AffineSDE,
    solver: Any,
    times: Sequence[float] | Tensor,
    *,
    stochasticity: Stochasticity | None = None,
    start: Any = "prior",
    finish: str = "state",
    samples: int = 256,
    seed: int = 0,
) -> Decomposition:
    """The error of a sampler in parts: prior mismatch, discretization, truncation.

    Args:
        target: one Gaussian, or a mixture for a deterministic sampler.
        process: an affine process.
        solver: a name or a solver; a plan solver for a Gaussian.
        times: the grid, decreasing.
        stochasticity: None takes the solver's own.
        start: pi: "prior", N(0, sigma^2 I) of the first time, or (mean, std). "marginal" leaves no mismatch.
        finish: F: "state", nothing; "rescaled", division by alpha; "denoised", the data prediction.
        samples, seed: of the paths for a mixture, from stratified draws.

    Raises:
        SolverMismatchError: for a mixture with a stochastic sampler, or a Gaussian without a plan solver.
        InterfaceError, OptionError: for arguments that do not fit.
    """
    check_choice("finish", finish, FINISHES)
    for argument, value, kind in (("target", target, GaussianMixture), ("process", process, AffineSDE)):
        if not isinstance(value, kind):
            raise InterfaceError(argument, got=type(value).__name__, expected=kind.__name__, fix="Pass one.")
    method, grid = as_solver(solver), check_times(times, domain=process.domain, direction="down")
    if target.components.count > 1:
        return _of_paths(target, process, method, grid, stochasticity, start, finish, samples, seed)
    if not isinstance(method, PlanSolver):
        raise SolverMismatchError(
            "solver",
            got=f"{method.label}, which has no plan",
            expected="a plan solver: its law is known exactly",
            fix="See sdekit.solvers.available() for those that need an affine process.",
        )
    tau = method.resolve_stochasticity(stochasticity if stochasticity is not None else method.implied_stochasticity)
    return _of_laws(target, process, method.plan(process, grid, tau), tau, start, finish)


def _of_laws(
    target: GaussianMixture, process: AffineSDE, plan: Plan, tau: Stochasticity, start: Any, finish: str
) -> Decomposition:
    axes = principal_axes(target)
    pi, first, last = started(axes, plan.start, start), axes.marginal(plan.start), axes.marginal(plan.end)
    exact = reversed_law(process, axes, plan.times[0], plan.times[-1], tau, pi)
    laws = (last, exact, carried(plan, axes, first), carried(plan, axes, pi))
    end, ideal, from_first, from_pi = (axes.finished(law, plan.end, finish) for law in laws)
    return Decomposition(
        measure="W2",
        prior=ideal.w2(end),
        discretization=from_first.w2(end),
        truncation=end.w2(axes.data),
        carried=from_pi.w2(from_first),
        total=from_pi.w2(axes.data),
        prior_kl=first.kl(pi),
        nfe=plan.nfe,
    )


def _of_paths(
    target: GaussianMixture,
    process: AffineSDE,
    method: Any,
    grid: list[float],
    stochasticity: Stochasticity | None,
    start: Any,
    finish: str,
    samples: int,
    seed: int,
) -> Decomposition:
    model = target.under(process)
    dynamics = process.probability_flow(model)
    if isinstance(method, PlanSolver):
        stochastic = method.plan(process, grid, method.resolve_stochasticity(stochasticity)).stochastic
    else:
        dynamics, stochastic = make_ode(dynamics.drift), method.needs != "ode"
    if stochastic:
        raise SolverMismatchError(
            "solver",
            got=f"{method.label}, which adds noise, on a mixture",
            expected="a deterministic sampler, whose paths are compared with those of the flow",
            fix="Use stochasticity 0, one Gaussian, or output_law in one dimension.",
        )
    first, last = (Scales(*model.scales(t, target.means)) for t in (grid[0], grid[-1]))
    x0 = stratified_sample(target, samples, seed)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x0)
    x = first.alpha * x0 + first.sigma * noise
    y = _other_start(x, noise, first, start)

    def finished(state: Tensor) -> Tensor:
        if finish == "rescaled":
            return state / last.alpha
        return model.data(grid[-1], state) if finish == "denoised" else state

    def run(state: Tensor) -> tuple[Tensor, int]:
        found = solve(dynamics, state, grid, method, checks="end")
        return finished(found.x), int(found.nfe.max())

    with torch.no_grad():
        (from_x, nfe), (from_y, _) = run(x), run(y)
        middle, other = flow(target, first, last, x), flow(target, first, last, y)
        end, ideal, data = finished(middle), finished(other), flow(target, last, Scales(1.0, 0.0), middle)
    return Decomposition(
        measure="rms",
        prior=_rms(ideal - end),
        discretization=_rms(from_x - end),
        truncation=_rms(end - data),
        carried=_rms(from_y - from_x),
        total=_rms(from_y - data),
        prior_kl=None,
        nfe=nfe,
    )


def _other_start(x: Tensor, noise: Tensor, first: Scales, start: Any) -> Tensor:
    """A draw of pi made of the same normals as x."""
    if isinstance(start, str):
        check_choice("start", start, ("marginal", "prior"))
        return x if start == "marginal" else first.sigma * noise
    if not (isinstance(start, Sequence) and len(start) == 2 and all(isinstance(v, (int, float)) for v in start)):
        raise OptionError(
            "start", got=repr(start), expected="'prior', 'marginal' or (mean, std)", fix="Pass (0.0, 1.0)."
        )
    return start[0] + start[1] * noise


def _rms(difference: Tensor) -> float:
    return float(difference.flatten(1).square().sum(1).mean().sqrt())
