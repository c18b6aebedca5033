"""How much work each step-size controller needs for an error, by the four embedded pairs.

    python -m benchmarks.controllers

Twelve problems, of 200 starts each: the flows of two rings of eight Gaussians under EDM, VP and the rectified flow;
Lotka and Volterra's predators, van der Pol's oscillator with 2 and 10, the pendulum, Kepler's orbits, Lorenz's system.
Each is solved with tolerances 1e-4 and 1e-7; the truth is dop853's with 1e-11. Work is the mean number of calls times
(error / error of "dopri5")^(1/order), the error a geometric mean over starts: what the calls would be at equal error.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from sdekit.solvers.controller import CONTROLLERS

ORDERS = {"bosh3": 3, "rk45": 5, "tsit5": 5, "dop853": 8}
STARTS, TOLERANCES, BASE = 200, (1e-4, 1e-7), "dopri5"


class Case(NamedTuple):
    """What is solved, from where, and when."""

    dynamics: Any
    x: Tensor
    times: tuple[float, float]


class Run(NamedTuple):
    """Of all starts: the means of calls and rejections, and the geometric mean of errors."""

    calls: float
    rejected: float
    error: float


def _kepler(t: Tensor, x: Tensor) -> Tensor:
    return torch.cat([x[:, 2:], -x[:, :2] / (x[:, :2] ** 2).sum(1, keepdim=True) ** 1.5], 1)


def _lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


def _van_der_pol(stiffness: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, x: torch.stack([x[:, 1], stiffness * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1)


def cases() -> Iterator[Case]:
    """The problems."""
    for std in (0.3, 0.05):
        ring = sdekit.targets.ring(std=std)
        for process, times in (
            (sdekit.EDM(), (80.0, 0.002)),
            (sdekit.VP(), (1.0, 1e-3)),
            (sdekit.RectifiedFlow(), (1.0, 1e-3)),
        ):
            x = process.sample_prior((STARTS, 2), seed=1, dtype=torch.float64)
            yield Case(ring.under(process), x, times)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(STARTS, 4, generator=generator, dtype=torch.float64)
    plane, e = 0.5 + 2 * uniform[:, :2], 0.7 * uniform[:, 2:3]
    perihelion = torch.cat([1 - e, 0 * e, 0 * e, ((1 + e) / (1 - e)).sqrt()], 1)
    attractor = torch.cat([8 * uniform[:, :2] - 4, 15 + 10 * uniform[:, 2:3]], 1)
    for drift, x, end in (
        (lambda t, x: torch.stack([x[:, 0] * (1.5 - x[:, 1]), x[:, 1] * (x[:, 0] - 3)], 1), plane, 10.0),
        (_van_der_pol(2.0), plane, 10.0),
        (_van_der_pol(10.0), plane, 10.0),
        (lambda t, x: torch.stack([x[:, 1], -torch.sin(x[:, 0])], 1), plane, 20.0),
        (_kepler, perihelion, 10.0),
        (_lorenz, attractor, 2.0),
    ):
        yield Case(sdekit.make_ode(drift), x, (0.0, end))


def solved(case: Case, solver: Any, tolerance: float) -> sdekit.Solution:
    """A solve of all starts."""
    return sdekit.solve(*case, solver, rtol=tolerance, atol=tolerance, max_nfe=10**6)


def run(case: Case, truth: Tensor, pair: str, controller: str, tolerance: float) -> Run:
    """What a controller takes and leaves."""
    s = solved(case, sdekit.solvers.get(pair, controller=controller), tolerance)
    assert s.rejected is not None
    error = (s.x - truth).abs().amax(1)
    return Run(float(s.nfe.double().mean()), float(s.rejected.double().mean()), float(error.log().mean().exp()))


def _geometric(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> int:
    """Print the table."""
    torch.set_grad_enabled(False)
    rows = {(pair, name): ([], [], []) for pair in ORDERS for name in CONTROLLERS}
    for case in cases():
        truth = solved(case, "dop853", 1e-11).x
        for pair, order in ORDERS.items():
            for tolerance in TOLERANCES:
                base = run(case, truth, pair, BASE, tolerance)
                for name in CONTROLLERS:
                    found = run(case, truth, pair, name, tolerance)
                    work, calls, rejected = rows[pair, name]
                    work.append(found.calls / base.calls * (found.error / base.error) ** (1 / order))
                    calls.append(found.calls / base.calls)
                    rejected.append(found.rejected)
    print(f'of "{BASE}" | work at equal error: mean | least | most | calls at equal tolerance | rejections')
    for (pair, name), (work, calls, rejected) in rows.items():
        means = f"{_geometric(work):.2f} | {min(work):.2f} | {max(work):.2f} | {_geometric(calls):.2f}"
        print(f"{pair}, {name} | {means} | {sum(rejected) / len(rejected):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
