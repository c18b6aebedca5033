"""Networks whose every prediction is known, and plans that no solver makes, for the tests of the tensor route."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch
from torch import Tensor

import sdekit
from sdekit.plan import Combination, Plan, Row, interpret
from sdekit.plan.coefficients import Block, Direction

PREDICTIONS = ("data", "noise", "score", "velocity", "v")
SIGMA_DATA = 0.5


def data(t: float, x: Tensor) -> Tensor:
    """The data prediction that all networks below stand for: elementwise, smooth, of no process in particular."""
    return torch.tanh(x * (0.5 + t) + 0.3)


def network(process, prediction):
    """net(x, t) that predicts what is asked, transcribed from x = alpha data + sigma noise."""

    def net(x, t):
        at = process.levels([float(t[0]) if len(t) else 0.5])[0]
        d = data(at.t, x)
        noise = (x - at.alpha * d) / at.sigma
        return {
            "data": d,
            "noise": noise,
            "score": -noise / at.sigma,
            "velocity": at.alpha_rate * d + at.sigma_rate * noise,
            "v": at.alpha * noise - at.sigma * d,
        }[prediction]

    return net


def raw_network(scaled, c):
    """The raw F of EDM's wrapper, for the process EDM: scaled = c_in x, c = ln(sigma) / 4."""
    sigma = float(torch.exp(4 * c[0]))
    total = (sigma**2 + SIGMA_DATA**2) ** 0.5
    x = scaled * total
    return (data(sigma, x) - SIGMA_DATA**2 / total**2 * x) / (sigma * SIGMA_DATA / total)


def model(process, prediction):
    if prediction == "edm":
        return sdekit.Model(raw_network, process, precondition="edm")
    return sdekit.Model(network(process, prediction), process, prediction)


class TableNoise:
    """The same numbers for a solve and for the reference, whatever the order of the calls."""

    def table(self, like: Tensor, step: int, stream: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * step + stream)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    def fill(self, out: Tensor, step: int, stream: int) -> Tensor:
        return out.copy_(self.table(out, step, stream))


def reference(plan: Plan, x: Tensor) -> Tensor:
    """What the plan means, by the slow interpreter."""
    noise = TableNoise()
    return interpret(plan, lambda row, point: data(row.t, point), x, lambda step, stream: noise.table(x, step, stream))


def solved(plan: Plan, process, prediction: str, x: Tensor, **options) -> Tensor:
    options.setdefault("noise", TableNoise())
    return sdekit.solve(model(process, prediction), x, plan.times, plan, **options).x


def assert_equal(plan: Plan, process, prediction: str, x: Tensor, bound: float = 1e-13, **options) -> None:
    """The tensor route and the reference agree, relative to the size of the result."""
    want, got = reference(plan, x).detach(), solved(plan, process, prediction, x, **options).detach()
    assert float((got - want).abs().max()) <= bound * max(1.0, float(want.abs().max()))


def solver_plan(name: str, process, times) -> Plan:
    solver = sdekit.solvers.get(name)
    return solver.plan(process, times, solver.implied_stochasticity)


def fitting(name: str, times: list[float]) -> list[float]:
    """The times, or 4 times as many for what magnifies roundings on long steps: methods with an error estimate, of 6 to
    12 stages, and dpm_fast, whose steps are three of the grid's."""
    if not sdekit.solvers.info(name).adaptive and name != "dpm_fast":
        return times
    return [a + k / 4 * (b - a) for a, b in itertools.pairwise(times) for k in range(4)] + times[-1:]


def made_plan(process, times, rows) -> Plan:
    ends = process.levels([times[0], times[-1]])
    start, end = ((v.alpha, v.sigma) for v in ends)
    return Plan("by hand", tuple(times), tuple(rows), start, end, repr(process))


def random_plan(process, times, seed: int, coefficient=None) -> Plan:
    """Rows with everything that a plan may hold: kicks, stages, base and point at once, old outputs, several noises."""
    rng = random.Random(seed)

    def number():
        return rng.choice([0.0, 1.0, -1.0, rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)])

    make = coefficient or number

    def combination(age_limit: int, outputs: bool = True) -> Combination:
        ages = sorted(a for a in range(min(age_limit, 3) + 1) if rng.random() < 0.6) if outputs else []
        streams = [s for s in (0, 1) if rng.random() < 0.3]
        return Combination(make(), tuple((a, make()) for a in ages), tuple((s, make()) for s in streams))

    rows: list[Row] = []
    for step in range(len(times) - 1):
        for _ in range(rng.choice([1, 1, 2, 3])):
            t = rng.choice([times[step], times[step + 1], 0.5 * (times[step] + times[step + 1])])
            at = process.levels([t])[0]
            weights = rng.choice([(1.0, 0.0), (0.0, 1.0), (at.alpha_rate, at.sigma_rate), (0.0, 0.0)])
            base = combination(len(rows)) if rng.random() < 0.7 else None
            point = combination(len(rows)) if rng.random() < 0.6 else None
            kick = combination(0, outputs=False) if rng.random() < 0.25 else None
            rows.append(Row(at.t, at.alpha, at.sigma, weights, base, point, step, kick))
    return made_plan(process, times, rows)


def direction_or_block(rng: random.Random, shape: tuple[int, ...]):
    """A coefficient of any of the three kinds for samples of this shape."""
    kind = rng.choice(["number", "direction", "block"])
    values = np.random.default_rng(rng.randrange(10**6))
    if kind == "number":
        return rng.uniform(-0.8, 0.8)
    if kind == "direction":
        return Direction(
            values.uniform(-0.8, 0.8, rng.choice([shape, shape[-1:], (shape[0],) + (1,) * (len(shape) - 1)]))
        )
    return Block(values.uniform(-0.6, 0.6, (shape[0], shape[0])))
