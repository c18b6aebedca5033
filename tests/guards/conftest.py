"""The cases that every guard is held against: each registered solver, on both routes, with one elementwise function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch

import sdekit
from sdekit.solvers.base import PlanSolver, Stepper
from tests.kinds import kind_of_plan

BATCH, SIZE, STEPS = 5, 3, 4

# Beside each registered solver with its defaults: the options under which it does something else.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ddim", {"eta": 1.0}),
    ("edm_heun", {"churn": 2.0}),
    ("exp_adams", {"order": 4, "starter": "single_step"}),
    ("exp_adams", {"order": 3, "prediction": "noise"}),
    ("heun", {"clock": "t"}),
    ("dpmpp_2m_sde", {"eta": 0.25}),
]


def smooth(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Elementwise, so that rows do not know of each other; bounded, so that nothing overflows."""
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


@dataclass(frozen=True)
class Case:
    """A solver on one route. `calls` are the calls of the function that is given to `solve` or `dynamics`."""

    label: str
    solver: Any
    route: str
    stochastic: bool

    @property
    def times(self) -> list[float]:
        """STEPS steps inside VP's domain, down for models, up for bare dynamics."""
        grid = [0.9, 0.7, 0.5, 0.3, 0.1]
        return grid if self.route == "plan" else grid[::-1]

    @cached_property
    def calls(self) -> int:
        """How many calls a solve makes."""
        if self.route == "plan":
            return self.solver.plan(sdekit.VP(), self.times, self.stochasticity).nfe
        return self.solver.calls_per_step * STEPS + self.solver.calls_at_start

    @property
    def stochasticity(self) -> float:
        return self.solver.implied_stochasticity

    def dynamics(self, function: Callable[..., Any] = smooth) -> Any:
        """Dynamics made of function(x, t, ...): a model of VP, an ODE, or an SDE with that drift."""
        if self.route == "plan":
            return sdekit.Model(function, sdekit.VP(), "data")
        if self.stochastic:
            return sdekit.make_sde(lambda t, x: function(x, t), lambda t, x: 0.3 + 0.1 * torch.sin(x))
        return sdekit.make_ode(lambda t, x: function(x, t))

    def start(self, batch: int = BATCH, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """The same numbers at every call."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, SIZE, generator=generator, dtype=torch.float64).to(dtype)

    def solve(self, function: Callable[..., Any] = smooth, x: torch.Tensor | None = None, **options: Any) -> Any:
        """The solve that tests vary."""
        start = self.start() if x is None else x
        times = options.pop("times", self.times)
        return sdekit.solve(self.dynamics(function), start, times, self.solver, **{"seed": 7, **options})


def _cases() -> list[Case]:
    """Of methods for SDEs that share their code, and of samplers of one kind, the first stands for all."""
    found, seen = [], set()
    named = [(i.name, {}) for i in sdekit.solvers.available()]
    for name, options in [*named, *VARIANTS]:
        solver = sdekit.solvers.get(name, **options)
        label = "-".join([name, *(str(v) for v in options.values())])
        if isinstance(solver, PlanSolver):
            stochastic = sdekit.solvers.info(name, **options).stochastic
            case = Case(f"{label}/plan", solver, "plan", stochastic)
            kind = kind_of_plan(solver)
            if kind not in seen:
                seen.add(kind)
                found.append(case)
        if isinstance(solver, Stepper) and not options:
            code = type(solver).step, solver.needs, solver.calculus, solver.uses_time_area
            if code in seen:
                continue
            seen.add(code)
            found.append(Case(f"{label}/step", solver, "step", solver.needs == "sde"))
    return found


CASES = _cases()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: all of them; `drawn`: those that draw noise; `quiet`: those that draw none."""
    chosen = {
        "case": CASES,
        "drawn": [c for c in CASES if c.stochastic],
        "quiet": [c for c in CASES if not c.stochastic],
    }
    for name, cases in chosen.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, ids=lambda c: c.label)
