"""What an adaptive solver promises beside what its fixed steps do: errors that follow the tolerance, and landing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit.model import Model
from sdekit.processes import EDM
from sdekit.sde import ODE
from sdekit.solve import solve
from sdekit.solvers.base import Stepper
from sdekit.testing.subject import BentODE, Trial, bent, sample_state

__all__ = ["ADAPTIVE_CHECKS"]

_SLACK = 30.0  # an error of one step is held to the tolerance; those of all steps add up


class _Pull(ODE):
    """dx/dt = -t x + sin(3 t), whose solutions draw together. Keeps the times of its calls."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        self.times += t.flatten().tolist()
        return torch.sin(3 * t) - t * x


class _Drawn(Model):
    """A data prediction x / (1 + x^2) + t / 8 on EDM, for solvers that need a process. Keeps the times of its calls."""

    def __init__(self) -> None:
        super().__init__(self._net, EDM(), "data")
        self.times: list[float] = []

    def _net(self, x: Tensor, t: Tensor) -> Tensor:
        self.times += t.flatten().tolist()
        return bent(x) + t.reshape(-1, *(1,) * (x.ndim - 1)) / 8


def _problem(trial: Trial) -> Any:
    """What the solver takes: an ODE, or else the flow of a model."""
    return _Pull() if isinstance(trial.solver, Stepper) else _Drawn()


def tolerance(trial: Trial) -> str:
    """Errors stay below thirty tolerances, and fall over three decades of them; a result at 1e-11 stands for the truth.

    Between neighbouring tolerances they need not fall: a high order in a few steps is at times a thousand times as good
    as it was asked to be.
    """
    x, found, times = sample_state(2), [], [0.9, 0.1] if isinstance(_problem(trial), Model) else [0.0, 3.0]
    truth = solve(_problem(trial), x, times, "dop853", rtol=1e-11, atol=1e-11).x
    for tol in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        found.append(float((solve(_problem(trial), x, times, trial.solver, rtol=tol, atol=tol).x - truth).abs().max()))
        if not found[-1] <= _SLACK * tol:
            raise trial.broken(
                f"an error of {found[-1]:.1e} at tolerance {tol:g}",
                f"at most {_SLACK:g} tolerances",
                "Correct the weights of the error estimate.",
            )
    if not all(coarse > fine for coarse, fine in zip(found, found[3:], strict=False)):
        raise trial.broken(f"errors {found}", "errors that fall with the tolerance", "Correct the error estimate.")
    return "errors " + ", ".join(f"{e:.0e}" for e in found) + " at 1e-3 to 1e-7"


def landing(trial: Trial) -> str:
    """Nothing is evaluated outside, and the ends and times between are among the times, in both directions."""
    for times in ([0.1, 0.5, 0.9], [0.9, 0.5, 0.1]):
        problem = _problem(trial)
        solve(problem, sample_state(2), times, trial.solver, rtol=1e-5, atol=1e-5)
        called = problem.times
        if min(called) < 0.1 or max(called) > 0.9 or not {times[0], 0.5} <= set(called):
            raise trial.broken(
                f"times from {min(called)!r} to {max(called)!r}",
                "times within [0.1, 0.9], the first of them and steps that end at 0.5",
                "Keep stages inside the step: 0 <= c <= 1.",
            )
    return "inside, and exactly on the times"


def rows(trial: Trial) -> str:
    """A batch in parts gives the same bits, steps and calls."""
    x = sample_state() * torch.logspace(-3, 2, 6, dtype=torch.float64)[:, None]
    problem, times = (BentODE(), [0.0, 3.0]) if isinstance(trial.solver, Stepper) else (_Drawn(), [0.9, 0.1])
    whole = solve(problem, x, times, trial.solver, rtol=1e-6, atol=1e-9)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        alone = solve(problem, x[part], times, trial.solver, rtol=1e-6, atol=1e-9)
        if not (torch.equal(alone.x, whole.x[part]) and torch.equal(alone.nfe, whole.nfe[part])):
            raise trial.broken(
                "other samples or calls when the batch is split", "equal bits", "Decide for each row by itself."
            )
    return "6 = 1 + 3 + 2, equal bits and calls"


ADAPTIVE_CHECKS = {
    "adaptive: tolerance": tolerance,
    "adaptive: landing": landing,
    "adaptive: batch split": rows,
}
