"""How long plans of 50 steps take: milliseconds for each solver that makes them, on VP with the grid of Karras et al.

    python -m benchmarks.speed_planning [--rounds 15] [--threads 1]

Process time of one process, the least over interleaved rounds. A plan is made once for a solver, a process and a grid,
and remembered; this is what the first sample with them waits for besides the network. The goal is 1 ms for multistep
methods, which are marked; those of several calls a step have as many times the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks.timing import clocked, run_rows
from sdekit.solvers import PlanSolver

STEPS = 50
GOAL = 1.0
OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
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
    process = sdekit.VP()
    tau = solver.implied_stochasticity
    plan = solver.plan(process, times, tau)
    ends = plan.start, plan.end

    def make() -> object:
        rows = tuple(solver.rows(process, times, tau))
        clock = solver.noise_clock(process, times, tau) if tau != 0 else None
        return sdekit.Plan(solver.label, plan.times, rows, *ends, plan.process, clock)

    return make, plan.nfe


def planning(rounds: int) -> None:
    """Print the table, the slowest first."""
    times = sdekit.grids.get("karras")(sdekit.VP(), STEPS).tolist()
    defaults: list[tuple[str, dict[str, Any]]] = [(info.name, {}) for info in sdekit.solvers.available()]
    solvers = [(name, options, sdekit.solvers.get(name, **options)) for name, options in (*defaults, *OPTIONS)]
    made = [(name, options, *_planning(s, times)) for name, options, s in solvers if isinstance(s, PlanSolver)]
    least = [float("inf")] * len(made)
    for _ in range(rounds):
        for i, (_, _, make, _) in enumerate(made):
            least[i] = min(least[i], 1e3 * clocked(make))
    print(f"Planning {STEPS} steps, milliseconds, the least of {rounds}; * one call a step, goal {GOAL:g} ms")
    for ms, (name, options, _, calls) in sorted(zip(least, made, strict=True), key=lambda row: -row[0]):
        label = name + "".join(f", {k}={v!r}" for k, v in options.items())
        print(f"{label:<36}{ms:7.2f} {'*' if calls <= STEPS + 10 else ' '}{calls:5} calls")


if __name__ == "__main__":
    run_rows(__doc__, 15, planning)
