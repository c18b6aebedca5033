"""Noise kicks and a flow: samplers of any weak order, made of a deterministic one.

A kick raises the noise of a state from s to a noisier level u exactly: with rho = sigma / alpha,

    x <- (alpha_u / alpha_s) x + alpha_u sqrt(rho_u^2 - rho_s^2) z.

It takes the marginal law at s to that at u for any data, and the probability flow takes it down again. A sampler made
of both is wrong by the error of the flow's solver alone, so that its weak order from the exact marginal is the order of
that solver, where methods that follow the paths of the reverse SDE stop at 2. A kick leaves the trajectory, and with it
what a multistep method remembers: the flow's solver has to be a single-step one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sdekit.affine import AffineSDE, Level
from sdekit.errors import InterfaceError, SolverMismatchError
from sdekit.math.quadrature import gauss_legendre
from sdekit.plan import Combination, Row, combine
from sdekit.plan.coefficients import scaled
from sdekit.processes import EDM
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, get, register
from sdekit.solvers.exponential import touches_end
from sdekit.solvers.options import check_choice

__all__ = ["KickedFlow", "Splitting", "flow_solver", "kick_up", "leg_rows", "refuse_upwards", "remembered"]

_QUADRATURE = 20
_PROBE = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
_FIX = "Use a single-step solver: ddim, heun, rk4, dpm_solver_2, dpm_solver_3, dpmpp_2s or etdrk4."


def flow_solver(argument: str, solver: Any) -> PlanSolver:
    """A single-step solver of the probability flow, from a name or an object.

    What it is shows in its plan: no row draws noise, reads an output of an earlier step or leaves the next step another
    point than its own state, and a step between two others is the same wherever it is in the grid.

    Raises:
        UnknownNameError: for an unknown name.
        InterfaceError: for what is not a solver of plans.
        SolverMismatchError: for a solver that fails in one of these.
    """
    found = get(solver) if isinstance(solver, str) else solver
    if not isinstance(found, PlanSolver):
        got = type(found).__name__ if not isinstance(solver, str) else f"{solver!r}, which makes no plans"
        raise InterfaceError(argument, got=got, expected="a solver of plans", fix=_FIX)
    rows = [] if found.fixed_stochasticity else list(found.rows(EDM(), list(_PROBE), 0.0))
    problem = _not_a_flow(rows) or _not_single(rows)
    if not problem:
        tail = found.rows(EDM(), list(_PROBE[1:]), 0.0)
        if _step(rows, 3) != _step(tail, 2):
            problem = "whose steps depend on their place in the grid"
    if problem:
        expected = "a deterministic single-step solver: a kick leaves the trajectory that another one remembers"
        raise SolverMismatchError(argument, got=f"{found.label}, {problem}", expected=expected, fix=_FIX)
    return found


def _not_a_flow(rows: Sequence[Row]) -> str:
    noisy = any(row.kick or any(c.noises for c in row.combinations()) for row in rows)
    return "which draws noise" if noisy or not rows else ""


def _not_single(rows: Sequence[Row]) -> str:
    first = 0
    for i, row in enumerate(rows):
        first = i if i and rows[i - 1].step != row.step else first
        if any(age > i - first for c in row.combinations() for age, _ in c.outputs):
            return "a multistep method: its rows read outputs of earlier steps"
        ends = i + 1 == len(rows) or rows[i + 1].step != row.step
        if ends and row.point is not None:
            return "whose steps hand on more than the state"
    return ""


def _step(rows: Sequence[Row], n: int) -> list[Row]:
    return [replace(row, step=0) for row in rows if row.step == n]


def remembered(*options: Any) -> bool:
    """Whether a plan follows from these options: not where one is a function or a user's solver."""
    return all(not callable(v) and (isinstance(v, str) or not _is_users(v)) for v in options)


def _is_users(value: Any) -> bool:
    return isinstance(value, PlanSolver) and not type(value).__module__.startswith(f"{__package__}.")


def leg_rows(inner: PlanSolver, process: AffineSDE, legs: Sequence[Sequence[float]]) -> list[list[Row]]:
    """The rows of a single-step solver on several grids, planned as one grid from which the jumps are taken out."""
    times: list[float] = []
    owners: list[int | None] = []
    for i, leg in enumerate(legs):
        if times and times[-1] != leg[0]:
            owners.append(None)
        if not times or times[-1] != leg[0]:
            times.append(leg[0])
        times += leg[1:]
        owners += [i] * (len(leg) - 1)
    found: list[list[Row]] = [[] for _ in legs]
    for row in inner.rows(process, times, 0.0):
        owner = owners[row.step]
        if owner is not None:
            found[owner].append(row)
    return found


def kick_up(s: Level, u: Level, stream: int, s_noise: float = 1.0) -> Combination:
    """The exact raise of the noise from s to u, rho_u > rho_s."""
    return combine(u.alpha / s.alpha, None, {stream: s_noise * _raise(s, u)})


def _raise(s: Level, u: Level) -> float:
    """alpha_u sqrt(rho_u^2 - rho_s^2)."""
    return u.sigma * math.sqrt(-math.expm1(2 * (u.half_log_snr - s.half_log_snr)))


def refuse_upwards(solver: PlanSolver, times: list[float]) -> None:
    """Raise SolverMismatchError for an increasing grid."""
    if times[1] > times[0]:
        raise SolverMismatchError(
            "times",
            got=f"increasing times with {solver.label}",
            expected="decreasing times where noise is added",
            fix="Reverse the grid, or use the solver of the flow by itself.",
        )


class KickedFlow(PlanSolver):
    """What samplers made of kicks and a solver `inner` of the flow share."""

    inner: str | PlanSolver

    @property
    def flow(self) -> PlanSolver:
        """The flow's solver itself."""
        return get(self.inner) if isinstance(self.inner, str) else self.inner

    def of_flow(self, kicked: bool) -> Order:
        """The order that the flow's solver leaves: of the flow, or with kicks of the law."""
        flow = self.flow.declared
        if not kicked:
            return Order(deterministic=flow.deterministic, note=flow.note)
        note = f"from the exact marginal; {flow.note}" if flow.note else "from the exact marginal"
        return Order(weak=flow.deterministic, note=note)


@register("splitting")
@dataclass(frozen=True)
class Splitting(KickedFlow):
    """A single-step solver of the probability flow, with an exact noise kick in each step.

    With I = int tau^2 dlambda over the step from s to t, for the stochasticity tau,

        "churn":      kick from rho_s up to rho_s e^I, then flow down to t;
        "ancestral":  flow down to rho_t e^{-I}, then kick up to t.

    Both draw as much noise as the reverse SDE of stochasticity tau. The law of the samples is of the flow solver's
    order where it starts from the exact marginal. Single paths, and the law from a fixed start, follow that SDE to
    order 1 only: it counts as a solver of the probability flow. Where the domain of the process leaves no room for a
    kick on one side of the flow it is made on the other, and cut where there is none on either. A step from alpha = 0
    or to sigma = 0 is the flow solver's own.

    `edm_heun` with churn is "churn" with `heun` and tau^2 = ln(1 + gamma) / h; `euler_ancestral` and
    `dpmpp_2s_ancestral` are "ancestral" with `ddim` and `dpmpp_2s`, and e^{-2 tau^2 h} = 1 - eta^2 (1 - e^{-2h}).

    Args:
        inner: the flow's solver, a name or an object; see `flow_solver` for which are refused.
        form: "churn" or "ancestral".
        stochasticity: tau, a number or a function of t that always returns the same for the same t.
    """

    family: ClassVar[str] = "splitting"
    reference: ClassVar[str] = (
        "churn: Karras et al., NeurIPS 2022, Algorithm 2; ancestral: k-diffusion; with any single-step solver: sdekit"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    inner: str | PlanSolver = "dpm_solver_3"
    form: str = "churn"
    stochasticity: Stochasticity = 1.0

    def __post_init__(self) -> None:
        flow_solver("inner", self.inner)
        check_choice("form", self.form, ("churn", "ancestral"))
        if not callable(self.stochasticity):
            stochasticity_at(self.stochasticity, math.nan)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.of_flow(kicked=self.stochasticity != 0)

    @property
    def plan_is_remembered(self) -> bool:  # type: ignore[override]
        return remembered(self.inner, self.stochasticity)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        inner = self.flow
        if self.stochasticity == 0:
            return inner.rows(process, times, 0.0)
        refuse_upwards(self, times)
        levels = process.levels(times)
        highs, lows = self._turns(process, levels)
        legs = leg_rows(inner, process, [(u.t, d.t) for u, d in zip(highs, lows, strict=True)])
        rows: list[Row] = []
        for n, ((s, t), u, d) in enumerate(zip(itertools.pairwise(levels), highs, lows, strict=True)):
            # `replace` takes longer than all that is planned here.
            step = [Row(r.t, r.alpha, r.sigma, r.weights, r.base, r.point, n, r.kick) for r in legs[n]]
            if u is not s:
                step[0] = replace(step[0], kick=kick_up(s, u, 0))
            if d is not t:
                step[-1] = _then_up(step[-1], d, t, 0 if u is s else 1)
            rows += step
        return rows

    def _turns(self, process: AffineSDE, levels: list[Level]) -> tuple[list[Level], list[Level]]:
        """Where each step's flow begins and ends: levels of the grid themselves where there is no kick."""
        highs, lows = levels[:-1], levels[1:]
        top, bottom = (_end(process, t) for t in reversed(process.domain))
        goals: list[tuple[list[Level], int, float]] = []
        for n, amount in self._amounts(process, levels).items():
            # In lambda: how far up and how far down there is room.
            up = highs[n].half_log_snr - (top.half_log_snr if top else -math.inf)
            down = (bottom.half_log_snr if bottom else math.inf) - lows[n].half_log_snr
            if self.form == "churn":
                raised = min(amount, up)
                lowered = min(amount - raised, down)
            else:
                lowered = min(amount, down)
                raised = min(amount - lowered, up)
            for side, by, room, end in ((highs, -raised, up, top), (lows, lowered, down, bottom)):
                if abs(by) == room and end is not None and by:
                    side[n] = end
                elif by:
                    goals.append((side, n, side[n].half_log_snr + by))
        found = process.levels_at([goal for _, _, goal in goals]) if goals else []
        for (side, n, _), level in zip(goals, found, strict=True):
            side[n] = level
        return highs, lows

    def _amounts(self, process: AffineSDE, levels: list[Level]) -> dict[int, float]:
        """int tau^2 dlambda for each step of finite length in lambda."""
        steps = {n: (s, t) for n, (s, t) in enumerate(itertools.pairwise(levels)) if not touches_end(s, t)}
        tau = self.stochasticity
        if not callable(tau):
            squared = stochasticity_at(tau, math.nan) ** 2
            return {n: squared * (t.half_log_snr - s.half_log_snr) for n, (s, t) in steps.items()}
        nodes, weights = gauss_legendre(_QUADRATURE)
        goals = [s.half_log_snr + u * (t.half_log_snr - s.half_log_snr) for s, t in steps.values() for u in nodes]
        at = iter(process.levels_at(goals) if goals else [])
        return {
            n: (t.half_log_snr - s.half_log_snr)
            * math.fsum(w * stochasticity_at(tau, next(at).t) ** 2 for w in weights)
            for n, (s, t) in steps.items()
        }


def _end(process: AffineSDE, t: float) -> Level | None:
    """The end of the domain, or None where lambda is infinite there."""
    if not math.isfinite(t):
        return None
    (level,) = process.levels([t])
    return level if math.isfinite(level.half_log_snr) else None


def _then_up(row: Row, d: Level, t: Level, stream: int) -> Row:
    """A step's last row with the kick from d to t after it."""
    c, factor = row.base or Combination(1.0), t.alpha / d.alpha
    outputs = {age: scaled(b, factor) for age, b in c.outputs}
    return replace(row, base=combine(scaled(c.base, factor), outputs, {stream: _raise(d, t)}))
