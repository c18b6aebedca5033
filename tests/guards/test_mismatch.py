"""A solver that does not fit the dynamics: the error names what would work, and that is tried.

Without `_solves_sde`, `resolve_stochasticity` or the check for a Stepper these solve something else, or fail inside.
"""

from __future__ import annotations

import functools
import re

import pytest
import torch

import sdekit
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.noise_class import noise_classes
from sdekit.solvers.base import PlanSolver, Stepper

X = torch.ones(3, 2, dtype=torch.float64)
# Short steps: implicit methods find no root of theirs where h df/dx passes 1.
DOWN, UP = [0.9, 0.85, 0.8], [0.3, 0.6, 0.9]
NAMES = [i.name for i in sdekit.solvers.available()]
VP = sdekit.VP()
MODEL = sdekit.Model(lambda x, t: torch.tanh(x), VP)

SDES = {
    "multiplicative": sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x),
    "additive": sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.ones_like(x), additive=True),
    "general": sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.ones(3, 2, 2, dtype=x.dtype), "general"),
    "stratonovich additive": sdekit.make_sde(
        lambda t, x: -x, lambda t, x: torch.ones_like(x), sde_type="stratonovich", additive=True
    ),
    "affine": VP,
}
ODE = sdekit.make_ode(lambda t, x: -x)


def takes(solver, sde):
    """Whether a stepper declares an order for this noise."""
    if solver.needs != "sde" or not solver.declared.noise:
        return solver.needs == "sde" or (solver.needs == "additive" and sde.additive)
    return solver.declared.on(noise_classes(sde, X, 2)) is not None


@functools.cache
def works(kind, name):
    """Whether a solver that many messages offer solves what they offer it for."""
    return sdekit.solve(ODE if kind == "ode" else SDES[kind], X, UP, name, seed=0).success


def alternatives(message):
    """Registered names that a message offers, after `expected` or in the fix."""
    return [n for n in NAMES if re.search(rf"\b{n}\b", message.split("; expected", 1)[1])]


SAMPLERS = [n for n in NAMES if not isinstance(sdekit.solvers.get(n), Stepper)]  # all refused by one line


@pytest.mark.parametrize("kind", SDES)
@pytest.mark.parametrize("name", [n for n in NAMES if n not in SAMPLERS[2:]])
def test_bare_sde(kind, name):
    sde, solver = SDES[kind], sdekit.solvers.get(name)
    if isinstance(solver, Stepper) and takes(solver, sde):
        assert sdekit.solve(sde, X, UP, name, seed=0).success
        return
    with pytest.raises(SolverMismatchError) as caught:
        sdekit.solve(sde, X, UP, name, seed=0)
    message = str(caught.value)
    assert repr(name) in message
    offered = [n for n in alternatives(message) if n != name]
    assert offered
    assert all(works(kind, other) for other in offered)
    if "probability_flow" in message:
        assert sdekit.solve(sde.probability_flow(lambda t, x: -x), X, DOWN, name).success


@pytest.mark.parametrize("name", NAMES)
def test_bare_ode(name):
    if isinstance(sdekit.solvers.get(name), Stepper):
        assert sdekit.solve(ODE, X, UP, name).success
        return
    with pytest.raises(SolverMismatchError) as caught:
        sdekit.solve(ODE, X, UP, name)
    offered = alternatives(str(caught.value))
    assert len([n for n in offered if n != name]) >= 5
    assert all(works("ode", other) for other in offered if other != name)
    assert sdekit.solve(MODEL, X, DOWN, name, seed=0).success  # the fix: pass a Model


TAUS = [0.0, 0.5, 1.0, 2.0, lambda t: 0.5 + t]
TAKERS = [n for n in NAMES if n != "sosri"]  # it leaves the domain on this grid


@pytest.mark.parametrize(
    "name, tau",
    [(n, TAUS[(i + k) % 5]) for i, n in enumerate(TAKERS) for k in (0, 2)],
    ids=lambda v: "function" if callable(v) else str(v),
)
def test_stochasticity_that_the_name_excludes(name, tau):
    solver = sdekit.solvers.get(name)
    dynamics = VP.reverse(MODEL, tau)
    fixed = solver.fixed_stochasticity
    if fixed is None or fixed == tau:
        assert sdekit.solve(dynamics, X, DOWN, name, seed=0).success
        return
    with pytest.raises(SolverMismatchError) as caught:
        sdekit.solve(dynamics, X, DOWN, name, seed=0)
    message = str(caught.value)
    assert repr(name) in message and f"{fixed:g}, which the solver implies" in message
    offered = [n for n in alternatives(message) if n != name]
    assert {"euler_maruyama", "dpmpp_2m", "exp_adams"} <= set(offered)
    for other in offered:
        assert sdekit.solve(dynamics, X, DOWN, other, seed=0).success
    # The fix's two other ways.
    assert sdekit.solve(MODEL, X, DOWN, name, seed=0).success
    assert sdekit.solve(VP.reverse(MODEL, fixed), X, DOWN, name, seed=0).success


def test_the_combinations_that_people_try():
    for dynamics, name, said in (
        (VP.reverse(MODEL, 1.0), "heun", "1.0 with solver 'heun'"),
        (VP.reverse(MODEL, 0.5), "ddpm", "0.5 with solver 'ddpm'"),
        (VP.probability_flow(MODEL), "dpmpp_2m_sde", "0.0 with solver 'dpmpp_2m_sde'"),
        (SDES["multiplicative"], "rk4", "'rk4' for _FunctionSDE (ito SDE with diagonal noise)"),
        (SDES["multiplicative"], "dpmpp_2m", "'dpmpp_2m' for _FunctionSDE"),
    ):
        with pytest.raises(SolverMismatchError, match=re.escape(said)):
            sdekit.solve(dynamics, X, DOWN, name, seed=0)


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(sdekit.solvers.get(n), Stepper)])
def test_the_other_calculus_is_converted(name):
    """An SDE given in either calculus has the same solution, by the same solver on the same noise."""
    solver = sdekit.solvers.get(name)
    ito = sdekit.make_sde(lambda t, x: -x + 0.1 * 0.1 * x / 2, lambda t, x: 0.1 * x)
    stratonovich = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0.1 * x, sde_type="stratonovich")
    if solver.needs != "sde" or (solver.declared.noise and solver.declared.on(noise_classes(ito)) is None):
        return
    written, converted = (sdekit.solve(s, X, UP, name, seed=0) for s in (ito, stratonovich))
    torch.testing.assert_close(converted.x, written.x, rtol=1e-6, atol=0)


def test_directions():
    with pytest.raises(OptionError, match="which runs forward") as caught:
        sdekit.solve(VP, X, DOWN, "euler_maruyama", seed=0)
    assert "0.9 down to 0.8" in str(caught.value)
    additive = SDES["additive"].reverse(lambda t, x: -x)
    for reverse in (VP.reverse(MODEL), additive):
        with pytest.raises(SolverMismatchError, match="decreasing times for a reverse SDE"):
            sdekit.solve(reverse, X, UP, "euler_maruyama", seed=0)
        assert sdekit.solve(reverse, X, DOWN, "euler_maruyama", seed=0).success
    for flow in (VP.probability_flow(MODEL), SDES["additive"].probability_flow(lambda t, x: -x)):
        assert sdekit.solve(flow, X, UP, "heun").success and sdekit.solve(flow, X, DOWN, "heun").success
    with pytest.raises(SolverMismatchError, match="times: got increasing times with stochasticity"):
        sdekit.solve(MODEL, X, UP, "ddpm", seed=0)


def test_plans_fit_their_grid_and_process():
    plan = sdekit.solvers.get("heun").plan(VP, DOWN)
    assert sdekit.solve(MODEL, X, DOWN, plan).success
    with pytest.raises(OptionError, match="another grid than the plan's"):
        sdekit.solve(MODEL, X, [0.9, 0.3], plan)
    with pytest.raises(OptionError, match="one process for both"):
        sdekit.solve(sdekit.Model(lambda x, t: x, sdekit.VP(0.1, 10.0)), X, DOWN, plan)
    with pytest.raises(SolverMismatchError, match="needs an affine process"):
        sdekit.solve(ODE, X, DOWN, plan)


def test_every_solver_is_one_of_the_kinds():
    assert all(issubclass(type(sdekit.solvers.get(n)), (PlanSolver, Stepper)) for n in NAMES)
