"""How long plans of 50 steps take, for each solver that makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sdekit import grids, solvers
from sdekit.bench.cells import label_of
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, rounds_of
from sdekit.plan import Plan
from sdekit.processes import VP
from sdekit.solvers import PlanSolver

__all__ = ["ROWS"]

_STEPS = 50
_MORE = 10  # calls besides one a step that a start may take
_GOAL = 1.0
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deis", {"clock": "rho"}),
    ("deis", {"clock": "lambda"}),
    ("exp_adams", {"order": 3}),
    ("exp_adams", {"clock": "rho"}),
    ("exp_adams", {"clock": "t"}),
    ("sa_solver", {"mode": "pece"}),
    ("splitting", {"inner": "etdrk4"}),
    ("unipc", {"order": 3}),
)
"""Besides every solver with its defaults."""


def _planning(solver: PlanSolver, times: list[float]) -> tuple[Callable[[], object], int]:
    """What makes the rows and checks them anew, and how many there are."""
    process = VP()
    tau = solver.implied_stochasticity
    plan = solver.plan(process, times, tau)
    ends = plan.start, plan.end

    def make() -> object:
        rows = tuple(solver.rows(process, times, tau))
        clock = solver.noise_clock(process, times, tau) if tau != 0 else None
        return Plan(solver.label, plan.times, rows, *ends, plan.process, clock)

    return make, plan.nfe


def _measure(setting: Setting) -> Iterator[Reading]:
    times = grids.get("karras")(VP(), _STEPS).tolist()
    defaults: list[tuple[str, dict[str, Any]]] = [(info.name, {}) for info in solvers.available()]
    methods = {label_of(n, tuple(o.items())): solvers.get(n, **o) for n, o in (*defaults, *_OPTIONS)}
    made = {label: _planning(method, times) for label, method in methods.items() if isinstance(method, PlanSolver)}
    timed = {
        (label, when): (lambda m=make, n=repeats: min(clocked(m) for _ in range(n)))
        for label, (make, _) in made.items()
        for when, repeats in (("at first", 1), ("again", 3))
    }
    found = rounds_of(timed, setting.rounds)
    for (label, when), seconds in found.items():
        calls = made[label][1]
        goal = _GOAL if calls <= _STEPS + _MORE else None
        values = [1e3 * s for s in seconds]
        yield of_rounds(f"{_STEPS} steps, {when}", label, values, "ms", goal=goal, note=f"{calls} calls")


ROWS = (
    Row(
        "planning",
        "Plans of 50 steps",
        "On VP with the grid of Karras et al., for every solver that makes plans. A plan is made once for a solver, a "
        "process and a grid, and remembered; this is what the first sample with them waits for besides the network: at "
        "first after all other solvers have planned, and again at once, the least of three. Solvers of one call a step "
        "have a goal; those of several have as many times the rows.",
        _measure,
        devices=("cpu",),
        dtypes=("float64",),
    ),
)
