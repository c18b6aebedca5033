"""Splitting samplers: the order of their flow, the samplers that they contain, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError, UnknownNameError
from sdekit.plan import DATA, Plan, Row, commit, interpret
from sdekit.solvers import Order, PlanSolver
from sdekit.solvers.splitting import leg_rows
from sdekit.testing import gaussian_problem, observed_order

FLOWS = (("ddim", 1), ("dpmpp_2s", 2), ("dpm_solver_3", 3), ("etdrk4", 4))
VP, EDM, RF, VE = sdekit.VP(), sdekit.EDM(), sdekit.RectifiedFlow(), sdekit.VE(0.01, 50.0)


def split(inner: Any = "heun", **options) -> PlanSolver:
    return sdekit.solvers.get("splitting", inner=inner, **options)


def per_step(process, times, values):
    """A function of t that is constant on each step."""
    lams = [float(process.half_log_snr(t)) for t in times]
    return lambda t: values[int(np.searchsorted(lams, float(process.half_log_snr(t)))) - 1]


def bent(row: Row, x):
    return np.sin(1.3 * x + row.t) + 0.2


def run(plan: Plan, seed=0):
    rng = np.random.default_rng(seed)
    table = {key: rng.standard_normal(5) for key in sorted(plan.noises())}
    return interpret(plan, bent, rng.standard_normal(5), lambda step, stream: table[step, stream])


@pytest.mark.parametrize("inner, order, form", [*((*flow, "churn") for flow in FLOWS), ("rk4", 4, "ancestral")])
def test_the_weak_order_is_the_flows(inner, order, form):
    solver = split(inner, form=form)
    found = observed_order(solver, "weak", steps=(20, 40, 80))
    assert solver.declared.weak == found.declared == order
    assert order - 0.15 <= found.value <= order + 0.35, str(found)


@pytest.mark.parametrize("tau", [0.4, lambda t: 0.3 + t / (1 + t)], ids=["number", "function"])
def test_at_any_stochasticity(tau):
    found = observed_order(split("dpm_solver_3", stochasticity=tau), "weak", steps=(10, 20, 40))
    assert found.reaches(3), str(found)


@dataclass(frozen=True)
class LoudKick(PlanSolver):
    """A mutant: kicks 1 % too large."""

    fixed_stochasticity = 0.0
    declared = Order(weak=2)

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        def louder(row: Row) -> Row:
            if row.kick is None:
                return row
            return replace(row, kick=replace(row.kick, noises=tuple((k, 1.01 * v) for k, v in row.kick.noises)))  # type: ignore[operator]

        return [louder(row) for row in split().rows(process, times, 0.0)]


@dataclass(frozen=True)
class KickedHistory(PlanSolver):
    """A mutant: a multistep flow, whose history the kicks do not fit."""

    fixed_stochasticity = 0.0
    declared = Order(weak=2)

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        multistep = sdekit.solvers.get("exp_adams", order=2).rows(process, times, 0.0)
        kicks = [row.kick for row in split("ddim").rows(process, times, 0.0)]
        return [replace(row, kick=kick) for row, kick in zip(multistep, kicks, strict=True)]


@pytest.mark.parametrize("mutant", [LoudKick, KickedHistory])
def test_wrong_kicks_show(mutant):
    assert not observed_order(mutant(), "weak", steps=(20, 40, 80)).reaches(2)


MEANS, STDS, SHARES = np.array([-1.2, 0.8]), np.array([0.5, 0.35]), np.array([0.4, 0.6])


def posterior_mean(row: Row, x):
    """The data prediction for a mixture of two Gaussians on the line."""
    var = row.alpha**2 * STDS**2 + row.sigma**2
    gap = np.asarray(x)[..., None] - row.alpha * MEANS
    log = np.log(SHARES / np.sqrt(var)) - 0.5 * gap**2 / var
    weights = np.exp(log - log.max(-1, keepdims=True))
    means = MEANS + row.alpha * STDS**2 / var * gap
    return (weights * means).sum(-1) / weights.sum(-1)


def expectation(solver: PlanSolver, steps: int) -> float:
    """E cos(2 x) of the output from the exact marginal, by quadrature over the noise of one step after the other."""
    from scipy.interpolate import CubicSpline

    times = np.exp(np.linspace(math.log(3.0), math.log(0.3), steps + 1)).tolist()
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    x = np.linspace(-16, 16, 401)
    value = np.cos(2 * x)
    for s, t in reversed(list(itertools.pairwise(times))):
        plan = solver.plan(EDM, [s, t])
        ends = interpret(plan, posterior_mean, np.repeat(x[:, None], 24, 1), lambda step, stream: nodes)
        value = CubicSpline(x, value)(np.clip(ends, -16, 16)) @ weights / weights.sum()
    std = np.sqrt(STDS**2 + times[0] ** 2)
    density = (SHARES / std * np.exp(-0.5 * ((x[:, None] - MEANS) / std) ** 2)).sum(-1)
    return float((value * density).sum() / density.sum())


@pytest.mark.parametrize("inner, order", [("ddim", 1), ("dpmpp_2s", 2), ("dpm_solver_3", 3)])
def test_the_weak_order_on_a_mixture(inner, order):
    """Where the score is not linear."""
    var = STDS**2 + 0.3**2
    exact = float((SHARES * np.cos(2 * MEANS) * np.exp(-2 * var)).sum())
    coarse, fine = (abs(expectation(split(inner), n) - exact) for n in (8, 16))
    assert order - 0.4 <= math.log2(coarse / fine) <= order + 0.8, (coarse, fine)


@pytest.mark.parametrize("churn, steps", [(4.0, 9), (200.0, 9)])
def test_edm_heun_with_churn_is_heun_with_kicks(churn, steps):
    """tau^2 = ln(1 + gamma) / h, which differs from step to step: a function of t."""
    times = sdekit.grids.get("karras")(EDM, steps).tolist()
    gamma = min(churn / steps, math.sqrt(2) - 1)
    taus = [math.sqrt(math.log1p(gamma) / math.log(s / t)) for s, t in itertools.pairwise(times)]
    ours = split("heun", stochasticity=per_step(EDM, times, taus)).plan(EDM, times)
    theirs = sdekit.solvers.get("edm_heun", churn=churn).plan(EDM, times)
    assert [row.step for row in ours.rows] == [row.step for row in theirs.rows]
    assert np.allclose(run(ours), run(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [VP, EDM, RF], ids=["vp", "edm", "rf"])
@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("name, inner", [("euler_ancestral", "ddim"), ("dpmpp_2s_ancestral", "dpmpp_2s")])
def test_ancestral_samplers_are_flows_with_kicks(name, inner, eta, process):
    """e^{-2 tau^2 h} = 1 - eta^2 (1 - e^{-2h})."""
    times = process.time_at(torch.tensor([-2.0, -1.1, 0.2, 0.9, 2.0], dtype=torch.float64)).tolist()
    steps = [b - a for a, b in itertools.pairwise((-2.0, -1.1, 0.2, 0.9, 2.0))]
    taus = [math.sqrt(-math.log1p(eta**2 * math.expm1(-2 * h)) / (2 * h)) for h in steps]
    tau = 1.0 if eta == 1 else per_step(process, times, taus)
    ours = split(inner, form="ancestral", stochasticity=tau).plan(process, times)
    theirs = sdekit.solvers.get(name, eta=eta).plan(process, times)
    assert np.allclose(run(ours), run(theirs), rtol=0, atol=1e-12)
    assert not np.allclose(run(split(inner, stochasticity=tau).plan(process, times)), run(theirs), atol=1e-3)


def test_a_function_is_integrated_over_the_step():
    """int tau^2 dlambda for tau = a + b lambda, in the height of the kick."""
    tau = lambda t: 0.5 + 0.1 * float(VP.half_log_snr(t))  # noqa: E731
    lams = (-1.0, 0.3, 1.5)
    plan = split("ddim", stochasticity=tau).plan(VP, VP.time_at(torch.tensor(lams, dtype=torch.float64)).tolist())
    for row, (a, b) in zip(plan.rows, itertools.pairwise(lams), strict=True):
        amount = ((0.5 + 0.1 * b) ** 3 - (0.5 + 0.1 * a) ** 3) / 0.3
        assert float(VP.half_log_snr(row.t)) == pytest.approx(a - amount, abs=1e-12)


def test_without_stochasticity_it_is_the_flow_itself():
    times = sdekit.grids.get("karras")(VP, 5).tolist()
    for tau in (0.0, lambda t: 0.0):
        assert split("dpm_solver_3", stochasticity=tau).plan(VP, times).rows == (
            sdekit.solvers.get("dpm_solver_3").plan(VP, times).rows
        )
    assert split("rk4", stochasticity=0).declared.deterministic == 4
    assert len(split("rk4", stochasticity=0.0).plan(VP, times[::-1]).rows) == 20


@pytest.mark.parametrize("form", ["churn", "ancestral"])
@pytest.mark.parametrize("process", [VP, RF, VE, EDM], ids=["vp", "rf", "ve", "edm"])
def test_kicks_stay_inside_the_domain(process, form):
    """From its one end to its other: rows inside, and the law of point-mass data exact, N(alpha m, sigma^2)."""
    low, high = (v if math.isfinite(v) else 80.0 for v in process.domain)
    times = np.linspace(high, low, 7).tolist()
    for grid in (times, times[:2], [high, low]):
        plan = split("dpmpp_2s", form=form, stochasticity=0.7).plan(process, grid)
        assert all(low <= row.t <= process.domain[1] for row in plan.rows)
        law = plan.gaussian_moments(0.3, np.zeros(2))
        alpha, sigma = float(process.alpha(grid[-1])), float(process.sigma(grid[-1]))
        assert np.allclose(law.mean, alpha * 0.3, atol=1e-12) and np.allclose(law.cov, sigma**2, atol=1e-12)


def test_where_there_is_no_room_above_the_kick_comes_after():
    times = VP.time_at(torch.tensor([-3.0, -1.0, 0.0], dtype=torch.float64)).tolist()
    first, second = split("ddim").plan(VP, [1.0, *times[1:]]).rows
    assert first.t == 1.0 and first.kick is None and first.base is not None and first.base.noises
    assert second.kick is not None and second.base is not None and not second.base.noises


@pytest.mark.parametrize("form", ["churn", "ancestral"])
def test_order_from_the_end_of_the_domain(form):
    """The kick on the other side keeps the marginals too."""
    start = float(VP.half_log_snr(1.0))
    problem = gaussian_problem(VP, low=start, high=0.0)
    found = observed_order(split("dpmpp_2s", form=form), "weak", problem, steps=(20, 40, 80))
    assert found.reaches(2), str(found)


MULTISTEP = ("dpmpp_2m", "dpmpp_3m", "unipc", "exp_adams")


@pytest.mark.parametrize("name", [*MULTISTEP, "dpmpp_2m_sde", "ddpm", "euler_maruyama", "splitting", "sra1"])
def test_flows_that_a_kick_would_spoil_are_refused(name):
    if name in ("euler_maruyama", "sra1"):  # at stochasticity 0, single-step methods
        assert split(name).plan(VP, [0.9, 0.5, 0.1]).stochastic
        return
    with pytest.raises(SolverMismatchError, match=r"multistep|draws noise|more than the state"):
        split(name)


@dataclass(frozen=True)
class Lookback(PlanSolver):
    """A method of no known name that uses the last step's output."""

    weight: float = 0.1

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        levels = process.levels(times)
        rows = []
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            a = t.sigma / s.sigma
            b, w = t.alpha - a * s.alpha, self.weight if n else 0.0
            rows.append(commit(n, s, DATA, a, {0: b * (1 + w), 1: -b * w} if n else {0: b}))
        return rows


@dataclass(frozen=True)
class Alternating(PlanSolver):
    """Euler on even steps, the midpoint rule on odd ones."""

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        found: list[Row] = []
        for n, pair in enumerate(itertools.pairwise(times)):
            rows = sdekit.solvers.get("midpoint" if n % 2 == 0 else "euler").rows(process, list(pair), 0.0)
            found += [replace(row, step=n) for row in rows]
        return found


@pytest.mark.parametrize("form", ["churn", "ancestral"])
def test_with_an_exact_flow_the_law_is_exact(form):
    """At any number of steps: `preconditioned_adams` of order 1 on the Gaussian that it is made for."""
    flow = sdekit.solvers.get("preconditioned_adams", order=1, mean="zero", data_variance=0.7)
    for times in ([0.9, 0.1], [0.9, 0.6, 0.5, 0.1]):
        law = split(flow, form=form, stochasticity=0.8).plan(VP, times).gaussian_moments(0.0, 0.7)
        assert float(law.cov) == pytest.approx(float(VP.alpha(0.1)) ** 2 * 0.7 + float(VP.sigma(0.1)) ** 2, rel=1e-13)
    with pytest.raises(SolverMismatchError, match="multistep"):  # keeps the first output for the mean
        split("preconditioned_adams")


def test_it_is_the_plan_that_decides():
    with pytest.raises(SolverMismatchError, match="multistep"):
        split(Lookback())
    assert split(Lookback(weight=0.0)).plan(VP, [0.9, 0.5]).nfe == 1  # reads nothing: a single-step method after all
    with pytest.raises(SolverMismatchError, match="depend on their place"):
        split(Alternating())
    assert split(sdekit.solvers.get("exp_adams", order=1)).declared.weak == 1


def test_what_is_no_solver_is_refused():
    with pytest.raises(UnknownNameError):
        split("dpm_solver_4")
    with pytest.raises(InterfaceError, match="makes no plans"):
        split("milstein")
    with pytest.raises(InterfaceError, match="float"):
        split(2.0)
    with pytest.raises(OptionError, match="churn"):
        split(form="churned")
    with pytest.raises(OptionError, match="stochasticity"):
        split(stochasticity=-1.0)
    with pytest.raises(SolverMismatchError, match="decreasing"):
        split().plan(VP, [0.1, 0.9])


def test_plans_are_remembered_just_where_they_are_values():
    times = [0.9, 0.5, 0.1]
    assert (solver := split()).plan(VP, times) is solver.plan(VP, times)
    for solver in (split(stochasticity=lambda t: 1.0), split(Lookback(weight=0.0))):
        assert solver.plan(VP, times) is not solver.plan(VP, times)


def test_legs_of_one_plan_are_those_of_many():
    inner, legs = sdekit.solvers.get("dpm_solver_3"), [[0.9, 0.5, 0.3], [0.6, 0.3], [0.3, 0.1], [0.4, 0.05]]
    for found, leg in zip(leg_rows(inner, VP, legs), legs, strict=True):
        alone = [replace(row, step=0) for row in inner.rows(VP, leg, 0.0)]
        assert [replace(row, step=0) for row in found] == alone
