"""What a stepper promises, one check each, on an ODE, and on an SDE with additive noise unless it needs an ODE."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sdekit.sde import ODE, SDE
from sdekit.solution import Solution
from sdekit.solve import solve
from sdekit.solvers.base import Increments
from sdekit.testing.subject import BentODE, BentSDE, Field, Trial, sample_state

__all__ = ["STEPPER_CHECKS"]

_TIMES = [1.0, 0.8, 0.5, 0.45, 0.1]


def _problems(trial: Trial) -> list[SDE | ODE]:
    return [BentODE()] if trial.solver.needs == "ode" else [BentODE(), BentSDE(0.7)]


def input_untouched(trial: Trial) -> str:
    """A step changes neither its input nor its increments, and takes both directions of time."""
    for dynamics in _problems(trial):
        for t0, t1 in ((1.0, 0.8), (0.1, 0.4)):
            x, w = sample_state(), 0.1 * sample_state()
            increments = Increments(w, w / 4) if isinstance(dynamics, SDE) else None
            versions = x._version, w._version
            new = _step(trial, dynamics, t0, t1, x, increments)
            if (x._version, w._version) != versions:
                raise trial.broken(
                    "a change in place of x or W", "both as they were", "Write x = x + ..., not x += ..."
                )
            if not isinstance(new, Tensor) or new.shape != x.shape or new.dtype != x.dtype:
                got = f"{new.dtype}, shape {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
                raise trial.broken(got, f"{x.dtype}, shape {tuple(x.shape)}", "Return StepResult(x) with x's dtype.")
    return "x and W unchanged"


def repeatable(trial: Trial) -> str:
    """Runs do not see each other: alone or taken in turns with another, the same bits."""
    for dynamics in _problems(trial):
        alone = [_walk(trial, dynamics, x) for x in (sample_state(), 2 * sample_state())]
        inner: list[Tensor] = []

        def interrupt(_: Any, dynamics: SDE | ODE = dynamics, inner: list[Tensor] = inner) -> None:
            inner.append(_walk(trial, dynamics, 2 * sample_state()))

        outer = _walk(trial, dynamics, sample_state(), callback=interrupt)
        if not (torch.equal(outer, alone[0]) and all(torch.equal(x, alone[1]) for x in inner)):
            raise trial.broken(
                "another result when two runs take turns",
                "equal bits",
                "Keep what a step leaves for the next in StepResult.state, never on the solver.",
            )
    return "runs in turns, equal bits"


def drift_calls(trial: Trial) -> str:
    """Calls of the drift are counted, and are as many as calls_per_step says where the stepper has it."""
    dynamics = BentODE()
    result = _solve(trial, dynamics, sample_state())
    said = getattr(trial.solver, "calls_per_step", None)
    first = getattr(trial.solver, "calls_at_start", 0)
    expected = dynamics.calls if said is None else first + said * (len(_TIMES) - 1)
    if not int(result.nfe[0]) == dynamics.calls == expected:
        raise trial.broken(
            f"{dynamics.calls} calls, nfe {int(result.nfe[0])}, calls_per_step {said}, at the start {first} more",
            "equal counts",
            "Call dynamics.drift, and correct calls_per_step.",
        )
    return f"{dynamics.calls} in {len(_TIMES) - 1} steps"


def increments(trial: Trial) -> str:
    """Without drift, additive noise of size g moves x by g W, and noise of size 0 leaves the ODE."""
    if trial.solver.needs == "ode":
        return "takes no noise"
    x, w = sample_state(), 0.3 * sample_state().flip(0)
    both = Increments(w, 0.1 * sample_state().flip(1))
    moved = _step(trial, BentSDE(0.7, moving=False), 1.0, 0.8, x, both)
    error = float((moved - x - 0.7 * w).abs().max())
    if not error <= 1e-13:
        raise trial.broken(
            f"a step off by {error:.1e}", "x + g W where there is no drift", "Use each increment once, unscaled."
        )
    quiet = _step(trial, BentSDE(0.0), 1.0, 0.8, x, both)
    plain = _step(trial, BentODE(), 1.0, 0.8, x, None)
    error = float((quiet - plain).abs().max())
    if not error <= 1e-13:
        raise trial.broken(
            f"a step off by {error:.1e} from the ODE's", "the ODE's where g = 0", "Scale all noise by g."
        )
    return "g W, and the ODE at g = 0"


def batch_split(trial: Trial) -> str:
    """A batch in parts gives the same bits."""
    for dynamics in _problems(trial):
        x, ids = sample_state(), torch.arange(6)
        whole = _solve(trial, dynamics, x).x
        parts = (slice(0, 1), slice(1, 4), slice(4, 6))
        split = torch.cat([_solve(trial, dynamics, x[part], sample_ids=ids[part]).x for part in parts])
        if not torch.equal(whole, split):
            raise trial.broken("other samples when the batch is split", "equal bits", "Decide for each row by itself.")
    return "6 = 1 + 3 + 2, equal bits"


def masked_rows(trial: Trial) -> str:
    """NaN in one row leaves every other row as it is."""
    for dynamics in _problems(trial):
        x = sample_state()
        good = _solve(trial, dynamics, x).x
        x[2, 5] = math.nan
        result = _solve(trial, dynamics, x, on_failure="mask")
        others = [0, 1, 3, 4, 5]
        if not torch.equal(result.x[others], good[others]) or result.status.tolist() != [0, 0, 1, 0, 0, 0]:
            raise trial.broken(
                f"status {result.status.tolist()}",
                "row 2 failed, all others as without it",
                "Treat each row by itself.",
            )
    return "one bad row of six stays alone"


def _solve(trial: Trial, dynamics: SDE | ODE, x: Tensor, **options: Any) -> Solution:
    return solve(dynamics, x, _TIMES, trial.solver, seed=3, **options)


def _walk(trial: Trial, dynamics: SDE | ODE, x: Tensor, **options: Any) -> Tensor:
    return _solve(trial, dynamics, x, **options).x


def _step(trial: Trial, dynamics: SDE | ODE, t0: float, t1: float, x: Tensor, w: Increments | None) -> Tensor:
    return trial.solver.step(Field(dynamics), t0, t1, x, w, None)[0]


STEPPER_CHECKS = {
    "stepper: input": input_untouched,
    "stepper: repeatable": repeatable,
    "stepper: drift calls": drift_calls,
    "stepper: increments": increments,
    "stepper: batch split": batch_split,
    "stepper: masked rows": masked_rows,
}
