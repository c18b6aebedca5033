"""How a solve is differentiated: through its operations, with checkpoints, or by solving back.

* "direct": everything that a gradient needs is kept, for each step.
* "checkpoint": with N fixed steps only the states between about sqrt(N) parts are kept, and each part is made again
  when its gradient is asked for. A plan keeps its combinations of states, and makes each network call again. The
  gradients have the same bits as direct ones.
* "adjoint": for solvers that are reversible (`sdekit.adjoint`: exact up to rounding, in memory that does not grow with
  the steps), and for those of torchdiffeq and torchsde that have an adjoint of their own.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit import solvers
from sdekit.adjoint import integrate_again
from sdekit.errors import OptionError, SolverMismatchError, suggest
from sdekit.integrate import integrate
from sdekit.model import Model
from sdekit.monitor import Monitor
from sdekit.noise import NoiseSource, PathNoise, StepNoise
from sdekit.problem import Problem
from sdekit.solution import Run

__all__ = ["GRADIENTS", "run_steps", "with_gradients"]

GRADIENTS = ("direct", "checkpoint", "adjoint")


def with_gradients(problem: Problem, gradients: Any, noise: Any) -> Problem:
    """The problem, to be differentiated so.

    Raises:
        OptionError: for an unknown way; for one that makes steps again with noise that cannot be drawn again, or with
            adaptive steps.
        SolverMismatchError: for "adjoint" with a solver that has none, "checkpoint" with a model that cannot have it.
    """
    if not isinstance(gradients, str) or gradients not in GRADIENTS:
        expected, fix = ", ".join(map(repr, GRADIENTS)), suggest(str(gradients), GRADIENTS)
        raise OptionError("gradients", got=repr(gradients), expected=expected, fix=fix)
    if gradients == "direct":
        return problem
    _check_noise(problem, gradients, noise)
    if gradients == "adjoint":
        method: Any = problem.solver
        if "gradients" in getattr(method, "__dataclass_fields__", ()):
            return dataclasses.replace(
                problem, solver=dataclasses.replace(method, gradients="adjoint"), gradients="adjoint"
            )
        if problem.plan is not None or problem.tolerance is not None or not hasattr(method, "inverse"):
            raise _no_adjoint(problem)
    elif problem.tolerance is not None:
        raise OptionError(
            "gradients",
            got="'checkpoint' with adaptive steps",
            expected="'direct', or fixed steps",
            fix="Use torchdiffeq:dopri5 with gradients='adjoint', or fixed steps.",
        )
    elif problem.model is not None and problem.plan is not None:
        problem = dataclasses.replace(problem, model=_checkpointed(problem.model))
    return dataclasses.replace(problem, gradients=gradients)


def _no_adjoint(problem: Problem) -> SolverMismatchError:
    name = problem.plan.solver if problem.plan is not None else problem.solver.label if problem.solver else "a solver"
    own = [i.name for i in solvers.available() if hasattr(solvers.get(i.name), "inverse")]
    return SolverMismatchError(
        "gradients",
        got=f"'adjoint' with {name!r}",
        expected="a solver that can be solved back: "
        + ", ".join([*own, "torchdiffeq:rk4", "torchdiffeq:dopri5", "torchsde:reversible_heun"]),
        fix="Choose one of them, or gradients='checkpoint'.",
    )


def _check_noise(problem: Problem, gradients: str, noise: Any) -> None:
    """Steps that are made again need their noise again."""
    keyed = noise in ("step", "path") if isinstance(noise, str) else isinstance(noise, (StepNoise, PathNoise))
    if problem.stochastic and problem.plan is None and not keyed:
        raise OptionError(
            "noise",
            got=f"{noise!r} with gradients={gradients!r}",
            expected="noise that can be drawn again: 'step' or 'path'",
            fix="Use one of them, or gradients='direct'.",
        )


def _checkpointed(model: Model) -> Model:
    """The model, whose network keeps nothing for the backward pass but its inputs."""
    if type(model).network is not Model.network or type(model).predict is not Model.predict:
        raise SolverMismatchError(
            "gradients",
            got=f"'checkpoint' with {model!r}, which does not call a network by itself",
            expected="a sdekit.Model",
            fix="Use torch.utils.checkpoint inside the model.",
        )
    inner: Callable[..., Any] = model.net

    def net(x: Tensor, t: Tensor, **conditioning: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return inner(x, t, **conditioning)
        return checkpoint(inner, x, t, use_reentrant=False, **conditioning)

    clone = copy.copy(model)
    clone.net = net
    return clone


def run_steps(problem: Problem, x: Tensor, noise: NoiseSource | None, monitor: Monitor, **options: Any) -> Run:
    """The steps of a problem without a plan; options as for `integrate`."""
    method: Any = problem.solver
    arguments = (problem.dynamics, method, x, problem.times, noise, monitor)
    if problem.gradients == "adjoint" and hasattr(method, "inverse"):
        return integrate_again(*arguments, limit=problem.limit, parts=None, **options)
    if problem.gradients == "checkpoint" and torch.is_grad_enabled():
        count = len(problem.times) - 1
        length = math.isqrt(count - 1) + 1
        parts = [range(first, min(first + length, count)) for first in range(0, count, length)]
        return integrate_again(*arguments, limit=problem.limit, parts=parts, **options)
    return integrate(*arguments, limit=problem.limit, **options)
