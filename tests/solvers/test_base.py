"""The registry of solvers, tableaus, and what a solver of the user's own needs."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from dataclasses import dataclass

import pytest
import torch

import sdekit
from sdekit import VP, solvers, targets
from sdekit.errors import InterfaceError, OptionError, UnknownNameError
from sdekit.plan import DATA, commit
from sdekit.solvers import PlanSolver, Stepper, tableau
from sdekit.solvers.base import _REGISTRY
from sdekit.solvers.tableau import Tableau
from tests.option_effects import EFFECTS

NAMES = [i.name for i in solvers.available()]
PLANNED = [n for n in NAMES if isinstance(solvers.get(n), PlanSolver)]


def test_the_solvers_that_everything_starts_from_are_there() -> None:
    assert set(NAMES) >= {
        *("euler", "midpoint", "heun", "rk4", "euler_maruyama", "ddim", "ddpm", "edm_heun"),
        *("dpmpp_2m", "dpmpp_2m_sde", "exp_adams"),
    }
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_solvers_are_frozen_values(name: str) -> None:
    a, b = solvers.get(name), solvers.get(name)
    assert a == b and hash(a) == hash(b) and a is not b and copy.deepcopy(a) == a and pickle.loads(pickle.dumps(a)) == a
    assert a.label.startswith(f"{name}(") and a.reference and a.family
    for field in vars(a):
        with pytest.raises(AttributeError):
            setattr(a, field, 1)
    info = solvers.info(name)
    assert info.options == vars(a) and info.order == a.declared
    assert info.adaptive == (isinstance(a, solvers.EmbeddedRungeKutta) or name == "dpm_adaptive")
    for alias in info.aliases:
        assert type(solvers.get(alias)) is type(a)


@pytest.mark.parametrize("name", PLANNED)
def test_every_option_changes_a_plan(name: str) -> None:
    times = [0.9, 0.6, 0.4, 0.2, 0.1]
    for change, company in (effect for (solver, _), effect in EFFECTS.items() if solver == name):
        changed = solvers.get(name, **company, **change).plan(VP(), times)
        assert changed.rows != solvers.get(name, **company).plan(VP(), times).rows, change
        assert all(f"{option}={value!r}" in changed.solver for option, value in change.items())


def test_unknown_names_and_options_suggest_near_ones() -> None:
    for typo, right in (("dpmp_2m", "dpmpp_2m"), ("hein", "heun"), ("exp_adam", "exp_adams"), ("eular", "euler")):
        with pytest.raises(UnknownNameError, match=f"'{right}'"):
            solvers.get(typo)
    with pytest.raises(UnknownNameError, match=r"exp_adams\(ordr=\).*'order'"):
        solvers.get("exp_adams", ordr=3)
    with pytest.raises(UnknownNameError, match="'prediction'"):
        solvers.info("exp_adams", predictions="data")


def test_info_counts_calls_and_noise() -> None:
    assert (solvers.info("rk4").nfe_per_step, solvers.info("rk4").stochastic) == (4, False)
    assert solvers.info("dpmpp_2m_sde").stochastic and solvers.info("dpmpp_2m_sde", eta=0.0).stochastic is False
    assert solvers.info("edm_heun", churn=1.0).stochastic and not solvers.info("edm_heun").stochastic
    assert solvers.info("euler_maruyama").needs == "an affine process or any SDE"
    assert solvers.info("heun").needs == "an affine process or any ODE"
    assert solvers.info("ddim").needs == "an affine process"


def test_declared_orders_follow_the_options() -> None:
    def declared(**options) -> tuple:
        order = solvers.info("exp_adams", **options).order
        return order.deterministic, order.weak, order.strong

    assert declared() == (2, 2, 1) and declared(order=1) == (1, 1, 1) and declared(order=4) == (2, 2, 1)
    assert (
        declared(order=4, starter="single_step") == (4, None, None) and declared(order=7, starter="single_step")[0] == 5
    )
    assert declared(order=4, starter="single_step", final_order=1)[0] == 2
    assert solvers.info("ddim", eta=0.5).order.weak == 1 and solvers.info("ddim").order.deterministic == 1
    assert solvers.info("exp_adams", order=4).order.note


def test_noise_clocks_measure_the_noise_of_each_step() -> None:
    # x_t e^{tau^2 lambda} / sigma_t moves by an increment of e^{2 tau^2 lambda}: std^2 must be its length. The clock of
    # a small tau is shifted and stretched, so that it moves as lambda does.
    times = [0.9, 0.6, 0.4, 0.1]
    levels = VP().levels(times)
    for kappa in (0.001, 0.1, 0.25, 0.26, 0.5, 1.0, 2.0):
        plan = solvers.get("exp_adams").plan(VP(), times, kappa)
        unit = 2 * kappa**2 if kappa <= 0.25 else 1.0
        for row, t, c0, c1 in zip(plan.rows, levels[1:], plan.clock, plan.clock[1:], strict=False):
            std = row.base.noises[0][1]
            scale = math.exp(2 * kappa**2 * t.half_log_snr) / t.sigma**2
            assert std**2 * scale == pytest.approx(unit * (c1 - c0), rel=1e-10)
    assert solvers.get("exp_adams").plan(VP(), times).clock is None
    assert solvers.get("ddpm").plan(VP(), times).clock == solvers.get("ddim", eta=1.0).plan(VP(), times).clock
    half = solvers.get("exp_adams").plan(VP(), times, 0.5).clock
    assert solvers.get("ddim", eta=0.5).plan(VP(), times).clock == half
    assert solvers.get("euler_maruyama").plan(VP(), times, 1.0).clock == tuple(times)
    assert solvers.get("exp_adams").plan(VP(), times, lambda t: 1.0).clock is None
    assert solvers.get("ddpm").plan(VP(), [0.5, 0.0]).clock[1] == math.inf


@pytest.fixture
def mine():
    """A solver of the user's own, registered for one test."""

    @solvers.register("mine", aliases=("my_solver",))
    @dataclass(frozen=True)
    class Mine(PlanSolver):
        """x0 prediction held over a step, DDIM as a user would write it."""

        declared = solvers.Order(deterministic=1)
        factor: float = 1.0

        def rows(self, process, times, stochasticity):
            levels = process.levels(times)
            out = []
            for n, (s, t) in enumerate(itertools.pairwise(levels)):
                a = t.sigma / s.sigma
                out.append(commit(n, s, DATA, a, {0: self.factor * (t.alpha - a * s.alpha)}))
            return out

    yield Mine
    _REGISTRY._items.pop("mine")
    _REGISTRY._aliases.pop("my_solver")


def test_a_user_s_solver_is_as_good_as_ours(mine) -> None:
    model = targets.random_mixture(2, 3, seed=0).under(VP())
    x = model.sample(1.0, 4, seed=1)
    want = sdekit.solve(model, x, [1.0, 0.01], "ddim", steps=10).x
    for solver in ("mine", "my_solver", mine(), mine().plan(VP(), sdekit.grids.half_log_snr(VP(), 10, t_end=0.01))):
        times = solver.times if hasattr(solver, "times") else [1.0, 0.01]
        steps = None if hasattr(solver, "times") else 10
        torch.testing.assert_close(sdekit.solve(model, x, times, solver, steps=steps).x, want, rtol=1e-12, atol=1e-12)
    assert "mine" in [i.name for i in solvers.available()]
    with pytest.raises(UnknownNameError, match="'factor'"):
        solvers.get("mine", facto=2.0)
    with pytest.raises(OptionError, match="free"):
        solvers.register("heun")(mine)


def test_only_solvers_can_be_registered() -> None:
    for thing in (int, 3, lambda: None):
        with pytest.raises(InterfaceError, match="PlanSolver or Stepper"):
            solvers.register("other")(thing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        Stepper()  # type: ignore[abstract]
    assert "other" not in [i.name for i in solvers.available()]


def test_plans_need_an_affine_process_and_a_grid_inside_its_domain() -> None:
    with pytest.raises(InterfaceError, match="affine"):
        solvers.get("ddim").plan(lambda t: t, [1.0, 0.5])
    for times in ([1.2, 0.5], [0.5], [0.5, 0.5], [0.5, math.nan]):
        with pytest.raises(OptionError, match="times"):
            solvers.get("ddim").plan(VP(), times)


TABLEAUS = [tableau.EULER, tableau.MIDPOINT, tableau.HEUN, tableau.RALSTON, tableau.KUTTA3, tableau.RK4]


@pytest.mark.parametrize("t", TABLEAUS, ids=lambda t: t.name)
def test_tableaus_meet_the_conditions_of_their_order_and_no_more(t: Tableau) -> None:
    """The eight rooted trees up to order 4, each as its elementary weight and its density."""

    def times(f: list[float], g: list[float]) -> list[float]:
        return [p * q for p, q in zip(f, g, strict=True)]

    def inner(f: list[float]) -> list[float]:
        return [math.fsum(a * v for a, v in zip(row, f, strict=False)) for row in t.a]

    one, c = [1.0] * t.stages, list(t.c)
    trees = [
        (1, one, 1),
        (2, c, 2),
        (3, times(c, c), 3),
        (3, inner(c), 6),
        (4, times(c, times(c, c)), 4),
        (4, times(c, inner(c)), 8),
        (4, inner(times(c, c)), 12),
        (4, inner(inner(c)), 24),
    ]
    residuals = {n: [] for n in (1, 2, 3, 4)}
    for n, f, density in trees:
        residuals[n].append(abs(math.fsum(b * v for b, v in zip(t.b, f, strict=True)) - 1 / density))
    assert all(max(residuals[n]) < 1e-15 for n in range(1, t.order + 1))
    assert t.order == 4 or max(residuals[t.order + 1]) > 1e-2


def test_tableaus_check_themselves() -> None:
    for a, b, c in (
        (((), (0.5,)), (0.0, 1.1), (0.0, 0.5)),
        (((), (0.4,)), (0.0, 1.0), (0.0, 0.5)),
        (((0.0,), (0.5,)), (0.0, 1.0), (0.0, 0.5)),
        (((), (0.5,)), (1.0,), (0.0, 0.5)),
    ):
        with pytest.raises(OptionError, match="tableau mine"):
            Tableau("mine", 2, a, b, c)
