"""What a solver of plans promises, one check each. A check returns a line for the report or raises ConformanceError."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from sdekit.noise import CustomNoise
from sdekit.plan import Plan, interpret
from sdekit.sde import ODE, SDE
from sdekit.solution import Solution
from sdekit.solve import solve
from sdekit.testing.subject import Case, ElementwiseModel, Trial, sample_state

__all__ = ["PLAN_CHECKS"]


def well_formed(trial: Trial) -> str:
    """Rows call the model inside the domain, at the alpha and sigma of their time, and end where the grid does."""
    cases = trial.cases()
    for case in cases:
        p, plan = case.process, case.plan
        low, high = p.domain
        for i, row in enumerate(plan.rows):
            if not low <= row.t <= high:
                raise trial.broken(f"row {i} at t = {row.t!r} on {case}", f"t in [{low}, {high}]", "Stay inside.")
            alpha, sigma = float(p.alpha(row.t)), float(p.sigma(row.t))
            if not (math.isclose(alpha, row.alpha, rel_tol=1e-9) and math.isclose(sigma, row.sigma, rel_tol=1e-9)):
                raise trial.broken(
                    f"row {i} at t = {row.t!r} with alpha = {row.alpha!r}, sigma = {row.sigma!r} on {case}",
                    f"alpha = {alpha!r}, sigma = {sigma!r}",
                    "Take t, alpha and sigma of a row from one Level.",
                )
        if plan.clock is not None and not _monotone(plan.clock, len(case.times)):
            raise trial.broken(
                f"clock {plan.clock} on {case}",
                "a monotone value per grid time",
                "Correct noise_clock, or return None.",
            )
    return f"{len(cases)} plans of 1 to 7 steps"


def _monotone(clock: tuple[float, ...], count: int) -> bool:
    pairs = list(itertools.pairwise(clock))
    return len(clock) == count and (all(a < b for a, b in pairs) or all(a > b for a, b in pairs))


def repeatable(trial: Trial) -> str:
    """The same plan each time, from the same list of times, which is not changed."""
    cases = trial.cases()
    for case in cases:
        given = list(case.times)
        again = trial.solver.plan(case.process, given, case.tau)
        if given != case.times:
            raise trial.broken(f"changed times on {case}", "the caller's list as it was", "Work on a copy.")
        rows = list(case.times)
        trial.solver.rows(case.process, rows, case.tau)
        if rows != case.times:
            raise trial.broken(f"times changed by rows() on {case}", "the list as it was", "Work on a copy.")
        if again != case.plan:
            raise trial.broken(
                f"two different plans on {case}", "equal plans", "Let rows() depend on its arguments only."
            )
    return f"{len(cases)} plans made twice"


def stochasticity(trial: Trial) -> str:
    """Without a stochasticity of its own, a solver draws no noise at 0 and noise above 0, or refuses."""
    if trial.solver.fixed_stochasticity is not None:
        return f"fixed at {trial.solver.fixed_stochasticity:g}"
    for case in trial.cases():
        if case.plan.stochastic != (case.tau > 0):
            raise trial.broken(
                f"{'noise' if case.plan.stochastic else 'no noise'} on {case}",
                "noise just where the stochasticity is above 0, or a SolverMismatchError",
                "Use the stochasticity that rows() is given, or set fixed_stochasticity.",
            )
    return "noise at 1, none at 0"


def json_round_trip(trial: Trial) -> str:
    """A plan survives being written and read."""
    for case in trial.cases():
        if Plan.from_json(case.plan.to_json()) != case.plan:
            raise trial.broken(
                f"another plan after a round trip through JSON on {case}",
                "an equal plan",
                "Make coefficients Python floats, Direction or Block.",
            )
    return "exact"


def model_calls(trial: Trial) -> str:
    """The model is called once for each row, at its time, and the solution says so."""
    for case in trial.cases():
        model = ElementwiseModel(case.process)
        result = _solve(trial, case, sample_state(), model)
        if model.times != [row.t for row in case.plan.rows] or set(result.nfe.tolist()) != {case.plan.nfe}:
            raise trial.broken(
                f"{len(model.times)} calls, nfe {int(result.nfe[0])}, on {case}",
                f"{case.plan.nfe}, one for each row",
                "Do not override plan().",
            )
    return "as planned"


def interpreter(trial: Trial) -> str:
    """What runs on tensors is what the plan means, to rounding.

    That is 1e-13; more where one or two steps of many stages span the whole range, see `_allowed`.
    """
    worst = 0.0
    for case in trial.cases():
        model, x = ElementwiseModel(case.process), sample_state()
        fast = solve(_dynamics(case, model), x, case.times, case.plan, seed=3, noise=CustomNoise(_noise))
        slow = _meaning(case)
        found = float((fast.x - slow).abs().max() / slow.abs().max())
        worst, allowed = max(worst, found), _allowed(case, 1e-13, _NARROWER)
        if not found <= allowed:
            raise trial.broken(
                f"a relative difference of {found:.1e} on {case}",
                f"at most {allowed:.1e}",
                "Use smaller coefficients: they cancel.",
            )
    return f"within {worst:.0e}"


_NARROWER = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


def _meaning(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    """What the plan makes of the sample state, computed in this dtype."""
    model = ElementwiseModel(case.process)
    noise = lambda step, stream: _noise(sample_state(), step, stream).to(dtype)  # noqa: E731
    return interpret(case.plan, lambda row, point: model.network(row.t, point), sample_state().to(dtype), noise)


def _allowed(case: Case, least: float, unit: float = 1.0) -> float:
    """The difference to allow: the least, or on grids of one or two steps ten times what roundings amount to.

    Such steps are far outside the range in which a method of many stages is stable, and magnify roundings. On the other
    grids nothing but coefficients that cancel does, which are not to be excused by what they do.
    """
    if len(case.times) > 3:
        return least
    exact = _meaning(case)
    rounding = float((_meaning(case, torch.float32) - exact).abs().max() / exact.abs().max())
    return max(least, 10 * rounding * unit)


def _noise(out: Tensor, step: int, stream: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + stream)
    return out.normal_(generator=generator)


def untouched(trial: Trial) -> str:
    """The start is not changed, and the result is memory of its own."""
    for case in trial.cases():
        x = sample_state()
        result = _solve(trial, case, x)
        if not torch.equal(x, sample_state()):
            raise trial.broken(f"a changed start on {case}", "the start as it was", "Do not write to x.")
        if result.x.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            raise trial.broken(f"a result in the start's memory on {case}", "memory of its own", "Return a copy.")
    return "start unchanged, result its own"


def batch_split(trial: Trial) -> str:
    """A batch in parts gives the same bits: noise belongs to the sample."""
    for case in trial.cases():
        x, ids = sample_state(), torch.arange(6)
        whole = _solve(trial, case, x).x
        parts = [
            _solve(trial, case, x[part], sample_ids=ids[part]).x for part in (slice(0, 1), slice(1, 4), slice(4, 6))
        ]
        if not torch.equal(whole, torch.cat(parts)):
            raise trial.broken(f"other samples when the batch is split, on {case}", "equal bits", "Treat rows alike.")
    return "6 = 1 + 3 + 2, equal bits"


def seeded(trial: Trial) -> str:
    """Seeds decide: one seed one result, another seed another one; a deterministic plan ignores them."""
    for case in trial.cases():
        runs = [_solve(trial, case, sample_state(), seed=s).x for s in (1, 1, 2)]
        if not torch.equal(runs[0], runs[1]):
            raise trial.broken(f"two results for one seed on {case}", "equal bits", "Draw noise through the plan only.")
        if torch.equal(runs[0], runs[2]) == case.plan.stochastic:
            raise trial.broken(
                f"{'the same' if case.plan.stochastic else 'another'} result for another seed on {case}",
                "another one just where the plan is stochastic",
                "Give the noise a coefficient that counts.",
            )
    return "results follow the seed"


def masked_rows(trial: Trial) -> str:
    """NaN in one row is reported there and leaves every other row as it is."""
    for case in trial.cases():
        x = sample_state()
        good = _solve(trial, case, x).x
        x[2, 5] = math.nan
        result = _solve(trial, case, x, on_failure="mask")
        others = [0, 1, 3, 4, 5]
        if not torch.equal(result.x[others], good[others]) or result.status.tolist() != [0, 0, 1, 0, 0, 0]:
            raise trial.broken(
                f"status {result.status.tolist()} on {case}",
                "row 2 failed, and all others equal to a run without NaN",
                "Treat each row by itself.",
            )
    return "one bad row of six stays alone"


def dtypes(trial: Trial) -> str:
    """float32 in, float32 out, near the float64 result."""
    worst = 0.0
    for case in trial.cases():
        x = sample_state()
        wide = _solve(trial, case, x, noise=CustomNoise(_coarse)).x
        narrow = _solve(trial, case, x.float(), noise=CustomNoise(_coarse)).x
        if narrow.dtype != torch.float32:
            raise trial.broken(f"{narrow.dtype} from float32 on {case}", "float32", "Keep the dtype of x.")
        found = float((narrow - wide).abs().max() / wide.abs().max())
        worst, allowed = max(worst, found), _allowed(case, 1e-4)
        if not found <= allowed:
            raise trial.broken(
                f"a float32 result off by {found:.1e} on {case}",
                f"at most {allowed:.1e}",
                "Its coefficients cancel: rewrite them.",
            )
    return f"float32 within {worst:.0e}"


def _coarse(out: Tensor, step: int, stream: int) -> Tensor:
    """The same numbers whatever the dtype of `out`."""
    return out.copy_(_noise(torch.zeros(out.shape, dtype=torch.float64), step, stream))


def _dynamics(case: Case, model: ElementwiseModel) -> SDE | ODE:
    return case.process.reverse(model, case.tau)


def _solve(
    trial: Trial, case: Case, x: Tensor, model: ElementwiseModel | None = None, *, seed: int = 3, **options: Any
) -> Solution:
    model = ElementwiseModel(case.process) if model is None else model
    return solve(_dynamics(case, model), x, case.times, trial.solver, seed=seed, **options)


PLAN_CHECKS = {
    "plan": well_formed,
    "repeatable plan": repeatable,
    "stochasticity": stochasticity,
    "JSON": json_round_trip,
    "model calls": model_calls,
    "interpreter": interpreter,
    "start untouched": untouched,
    "batch split": batch_split,
    "seeds": seeded,
    "masked rows": masked_rows,
    "dtype": dtypes,
}
