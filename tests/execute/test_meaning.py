"""The tensor route computes what a plan means: held against the slow interpreter and against dense matrices."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import SdekitError
from sdekit.execute import compiler, registers
from sdekit.plan import Combination, Row
from sdekit.plan.coefficients import Block, Direction
from tests.execute.cases import (
    PREDICTIONS,
    TableNoise,
    assert_equal,
    data,
    direction_or_block,
    fitting,
    made_plan,
    random_plan,
    solved,
    solver_plan,
)
from tests.kinds import plan_kinds, plan_solvers

PROCESSES = {"VP": sdekit.VP(), "EDM": sdekit.EDM(), "RectifiedFlow": sdekit.RectifiedFlow()}
TIMES = [0.9, 0.62, 0.41, 0.3, 0.17, 0.08]


def state(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    "name, prediction",
    [
        *itertools.product(plan_kinds(), [*PREDICTIONS, "edm"]),
        *zip(sorted({*plan_solvers()} - {*plan_kinds()}), itertools.cycle([*PREDICTIONS, "edm"]), strict=False),
    ],
)
def test_every_solver(name, prediction):
    """One of each kind of plan with all predictions, the others with one in turn."""
    for process in [PROCESSES["EDM"]] if prediction == "edm" else PROCESSES.values():
        assert_equal(solver_plan(name, process, fitting(name, TIMES)), process, prediction, state(4, 3))


def test_churn_and_high_orders():
    x = state(4, 3)
    for solver in (
        sdekit.solvers.get("edm_heun", churn=3.0),
        sdekit.solvers.get("exp_adams", order=4, prediction="noise"),
        sdekit.solvers.get("exp_adams", order=4, starter="single_step"),
        sdekit.solvers.get("ddim", eta=0.5),
    ):
        plan = solver.plan(PROCESSES["VP"], TIMES)
        for prediction in PREDICTIONS:
            assert_equal(plan, PROCESSES["VP"], prediction, x)


@pytest.mark.parametrize("seed", range(120))
def test_any_rows(seed):
    plan = random_plan(PROCESSES["VP"], TIMES[:4], seed)
    prediction = PREDICTIONS[seed % 5]
    assert_equal(plan, PROCESSES["VP"], prediction, state(3, 2), bound=1e-12)
    with torch.enable_grad():
        assert_equal(plan, PROCESSES["VP"], prediction, state(3, 2).requires_grad_(), bound=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_any_coefficients(seed):
    rng = random.Random(seed)
    shape = (2, 3)
    plan = random_plan(PROCESSES["VP"], TIMES[:4], seed, lambda: direction_or_block(rng, shape))
    assert_equal(plan, PROCESSES["VP"], PREDICTIONS[seed % 5], state(4, *shape), bound=1e-12)


def predictor_corrector(process, times):
    """Rows of UniPC's shape: a call corrects the base and predicts the next point from it, in one row."""
    rows = []
    for i, t in enumerate(times[:-1]):
        at = process.levels([t])[0]
        old = ((0, 0.2), (1, -0.1)) if i else ((0, 0.3),)
        rows.append(
            Row(at.t, at.alpha, at.sigma, (0.0, 1.0), Combination(0.9, old), Combination(0.8, ((0, 0.4),)), step=i)
        )
    return made_plan(process, times, rows)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_base_and_point_of_one_row(prediction):
    assert_equal(predictor_corrector(PROCESSES["VP"], TIMES), PROCESSES["VP"], prediction, state(4, 3))


def test_kick_is_seen_by_the_call():
    process = PROCESSES["VP"]
    at = process.levels([TIMES[0]])[0]
    kick = Combination(1.2, (), ((0, 0.7), (1, 0.1)))
    row = Row(at.t, at.alpha, at.sigma, (1.0, 0.0), Combination(0.5, ((0, 0.5),), ((0, 0.3),)), None, 0, kick)
    plan = made_plan(process, TIMES[:2], [row])
    x = state(4, 3)
    assert_equal(plan, process, "data", x)
    # By hand: the kick, the call at the kicked state, and one noise that serves both.
    noise = TableNoise()
    kicked = 1.2 * x + 0.7 * noise.table(x, 0, 0) + 0.1 * noise.table(x, 0, 1)
    by_hand = 0.5 * kicked + 0.5 * data(at.t, kicked) + 0.3 * noise.table(x, 0, 0)
    assert torch.allclose(solved(plan, process, "data", x), by_hand, rtol=0, atol=1e-14)


def dense(coefficient, shape):
    """The matrix by which a coefficient acts on a flattened sample."""
    d = int(np.prod(shape))
    if isinstance(coefficient, Direction):
        return np.diag(np.broadcast_to(coefficient.values, shape).reshape(d))
    if isinstance(coefficient, Block):
        return np.kron(coefficient.matrix, np.eye(d // shape[0]))
    return coefficient * np.eye(d)


@pytest.mark.parametrize("seed", range(10))
def test_blocks_and_directions_are_matrices(seed):
    """A linear network makes the whole solve one matrix, here multiplied out by hand."""
    rng, shape, slope = random.Random(seed), (2, 3), 0.4
    process = PROCESSES["VP"]
    levels = process.levels(TIMES[:3])
    make = lambda: direction_or_block(rng, shape)  # noqa: E731
    s, t = levels[:2]
    rows = [
        Row(s.t, s.alpha, s.sigma, (1.0, 0.0), None, Combination(make(), ((0, make()),)), 0),
        Row(s.t, s.alpha, s.sigma, (1.0, 0.0), Combination(make(), ((0, make()), (1, make()))), None, 0),
        Row(t.t, t.alpha, t.sigma, (1.0, 0.0), Combination(make(), ((0, make()), (1, make()))), None, 1),
    ]
    plan = made_plan(process, TIMES[:3], rows)
    m = [[dense(c, shape) for c in combination.coefficients()] for row in rows for combination in row.combinations()]
    e0 = slope * np.eye(6)
    point = m[0][0] + m[0][1] @ e0
    e1 = slope * point
    base = m[1][0] + m[1][1] @ e1 + m[1][2] @ e0
    e2 = slope * base
    whole = m[2][0] @ base + m[2][1] @ e2 + m[2][2] @ e1
    x = state(5, *shape)
    got = sdekit.solve(sdekit.Model(lambda x, t: slope * x, process, "data"), x, plan.times, plan).x
    want = torch.from_numpy(x.reshape(5, 6).numpy() @ whole.T).reshape(x.shape)
    assert torch.allclose(got, want, rtol=0, atol=1e-13)


def disagreements():
    """Which of some plans the tensor route gets wrong."""
    process = PROCESSES["VP"]
    plans = [random_plan(process, TIMES[:4], seed) for seed in range(30)] + [predictor_corrector(process, TIMES)]
    wrong = 0
    for i, plan in enumerate(plans):
        try:
            assert_equal(plan, process, PREDICTIONS[i % 5], state(3, 2), bound=1e-12)
        except (AssertionError, SdekitError):
            wrong += 1
    return wrong


def _ratio_forgotten(self, keep, recording):
    self.registers[keep.slot] = self.registers[registers.OUT].clone()


def _base_before_point(self, call):
    self._draw(call.row, call.noises)
    self._sums(call.sums[::-1])


def _noise_drawn_twice(self, row, noises):
    for stream, register in noises:
        self.registers[register] = self.noise.fill(torch.zeros_like(self.registers[0]), row.step + 1, stream)


def _merged_by_overwriting(into, terms, coefficients):
    return make_sum(into, list({a: (c, a) for c, a in terms}.values()), coefficients)


make_sum = registers.make_sum
MUTANTS = {
    "kept outputs lose the input's part": ("sdekit.execute.outputs.Outputs.store", _ratio_forgotten),
    "the base moves before the point is formed": ("sdekit.execute.run._Machine.update", _base_before_point),
    "noise of another step": ("sdekit.execute.run._Machine._draw", _noise_drawn_twice),
    "terms of one register overwrite each other": ("sdekit.execute.compiler.make_sum", _merged_by_overwriting),
    "slots are given away a row too early": (
        "sdekit.execute.compiler._Compiler._release",
        lambda self, i: [self.free.append(slot) for slot, _ in self.kept.values()] and [],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_told_apart(name, monkeypatch):
    assert disagreements() == 0
    target, mutant = MUTANTS[name]
    compiler._compile.cache_clear()
    monkeypatch.setattr(target, mutant)
    try:
        assert disagreements() > 0
    finally:
        compiler._compile.cache_clear()
