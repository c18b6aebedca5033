"""Strong orders: planted mistakes are seen, what has no path is refused, and steppers are measured like plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from sdekit.errors import OptionError, SolverMismatchError
from sdekit.noise import PathNoise, StepNoise
from sdekit.plan import Combination, Row
from sdekit.solvers import get
from sdekit.solvers.base import Order, PlanSolver, Stepper, StepResult
from sdekit.testing import observed_order, order_problems
from sdekit.testing.strong import StrongRun, strong_estimate

STEPS = (16, 32, 64)


@dataclass(frozen=True)
class Rewritten(PlanSolver):
    """A registered solver whose rows a function changes; its clock is kept."""

    base: Any
    change: Callable[[Row, list], Row]

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.base.declared

    @property
    def fixed_stochasticity(self) -> float | None:  # type: ignore[override]
        return self.base.fixed_stochasticity

    def rows(self, process, times, stochasticity):
        levels = process.levels(times)
        return [self.change(row, levels) for row in self.base.rows(process, times, stochasticity)]

    def noise_clock(self, process, times, stochasticity):
        return self.base.noise_clock(process, times, stochasticity)


def scaled(part: str, factors: dict[int, float]) -> Callable[[Row, list], Row]:
    """Noises of base or point times a factor by stream."""

    def change(row: Row, _: list) -> Row:
        c = getattr(row, part)
        if c is None:
            return row
        noises = tuple((k, v * factors.get(k, 1.0)) for k, v in c.noises)
        return replace(row, **{part: Combination(c.base, c.outputs, noises)})

    return change


def stage_at_the_end(row: Row, levels: list) -> Row:
    """The second call at the step's end, with the drift's weights as they were."""
    if row.base is None:
        return row
    at = levels[row.step + 1]
    return replace(row, t=at.t, alpha=at.alpha, sigma=at.sigma)


# What is wrong, the mutant, and the order that it is left with.
MUTANTS = [
    ("sign of H in the stage", Rewritten(get("sra1"), scaled("point", {1: -1.0})), 1),
    ("the stage's factor 3/2 left out", Rewritten(get("sra1"), scaled("point", {0: 2 / 3, 1: 2 / 3})), 1),
    ("no area in the stage", Rewritten(get("exp_sra"), scaled("point", {1: 0.0})), 1),
    ("stage at another time", Rewritten(get("sra1"), stage_at_the_end), 1),
    ("noise twenty per cent too large", Rewritten(get("ddpm"), scaled("base", {0: 1.2})), 0),
    ("noise of the other sign", Rewritten(get("dpmpp_2m_sde"), scaled("base", {0: -1.0})), 0),
]


LESS = [("sign of H in the stage, exponential", Rewritten(get("exp_sra"), scaled("point", {1: -1.0})), 1)]
PLANTED = [*(pytest.param(*m, id=m[0]) for m in MUTANTS)]
PLANTED += [pytest.param(*m, id=m[0], marks=pytest.mark.slow) for m in LESS]


@pytest.mark.parametrize("mistake, mutant, order", PLANTED)
def test_mistakes_are_seen(mistake, mutant, order):
    found = observed_order(mutant, "strong", steps=STEPS)
    assert found.declared is not None and found.value < found.declared - 0.15, str(found)
    assert found.high < found.declared + 0.1 and abs(found.value - order) < 0.35, str(found)


@pytest.mark.parametrize("name", ["exp_sra", "ddpm"])
def test_without_the_mistake_the_order_is_reached(name):
    found = observed_order(Rewritten(get(name), lambda row, _: row), "strong", steps=STEPS)
    assert found.reaches() and found.errors == observed_order(name, "strong", steps=STEPS).errors, str(found)


def test_noise_drawn_anew_for_each_grid_is_seen(monkeypatch):
    expected = observed_order("ddpm", "strong", steps=STEPS)

    def fresh(self: PathNoise, out, step: int, stream: int = 0):
        return StepNoise(self.seed + len(self.clock), self.sample_ids).fill(out, step, stream)

    monkeypatch.setattr(PathNoise, "fill", fresh)
    found = observed_order("ddpm", "strong", steps=STEPS)
    assert abs(found.value) < 0.3 and min(found.errors) > 5 * max(expected.errors[1:]), str(found)


@dataclass(frozen=True)
class StepOnly(Stepper):
    """The stepper of a registered solver, without its plans; `factor` of H."""

    base: Any
    factor: float = 1.0

    needs = "additive"
    uses_area = True
    calls_per_step = 2

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self.base.declared

    def step(self, dynamics: Any, t0: float, t1: float, x: Any, increments: Any, state: Any) -> StepResult:
        scaled = increments._replace(H=self.factor * increments.H)
        return self.base.step(dynamics, t0, t1, x, scaled, state)


@pytest.mark.slow
def test_steppers_are_measured_like_plans():
    plan, step = (observed_order(s, "strong", steps=STEPS) for s in (get("shark"), StepOnly(get("shark"))))
    assert step.reaches() and step.errors == pytest.approx(plan.errors, rel=1e-6)
    wrong = observed_order(StepOnly(get("shark"), -1.0), "strong", steps=STEPS)
    assert not wrong.reaches(), str(wrong)


@dataclass(frozen=True)
class OtherClock(Rewritten):
    def noise_clock(self, process, times, stochasticity):
        return tuple(float(v) for v in process.half_log_snr(torch.tensor(times)))


@pytest.mark.parametrize(
    "solver, stochasticity, match",
    [
        ("edm_heun", None, "above 0"),
        ("heun", None, "above 0"),
        ("dpmpp_2m", 0.0, "above 0"),
        ("dpmpp_2m", lambda t: 1 + t, "without a clock"),
        (OtherClock(get("ddpm"), lambda row, _: row), None, "clock of its own"),
    ],
)
def test_what_has_no_path_is_refused(solver, stochasticity, match):
    with pytest.raises(SolverMismatchError, match=match):
        observed_order(solver, "strong", steps=STEPS, stochasticity=stochasticity)


# --- the interval ---


def run_of(orders, scatter, seed=0, counts=(20, 40, 80)):
    """Errors h^order times a lognormal factor for each path, the same for all grids but for `scatter`."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(256, generator=generator, dtype=torch.float64)
    rows = []
    for n in counts:
        other = torch.randn(256, generator=generator, dtype=torch.float64)
        rows.append((n**-orders * (own + scatter * other).exp()) ** 2)
    return StrongRun(torch.stack(rows), [0] * len(counts))


def test_the_interval_covers_the_order_about_as_often_as_it_says():
    hits = 0
    for seed in range(40):
        found = strong_estimate((20, 40, 80), [run_of(1.5, 0.1, seed)])
        hits += found.low <= 1.5 <= found.high
    assert hits >= 36


def test_the_interval_shrinks_with_the_scatter():
    wide, narrow = (strong_estimate((20, 40, 80), [run_of(1.5, s)]) for s in (0.2, 0.01))
    assert narrow.high - narrow.low < 0.1 * (wide.high - wide.low) and narrow.value == pytest.approx(1.5, abs=0.01)


def test_exact_runs_and_too_few_points():
    counts = (20, 40, 80)
    assert strong_estimate(counts, [StrongRun(torch.zeros(3, 256).double(), [0] * 3)]).value == float("inf")
    with pytest.raises(OptionError, match="steps"):
        strong_estimate(counts, [run_of(8.0, 0.1)])


@pytest.mark.slow
def test_the_default_problem_and_the_seeded_grids():
    found = observed_order("ddpm", "strong", order_problems()["vp"], "random", (16, 32, 64))
    assert found.kind == "strong" and found.stochasticity == 1.0 and found.nfe == (16, 32, 64)
    assert found.reaches(), str(found)
