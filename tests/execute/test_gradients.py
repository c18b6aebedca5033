"""Gradients through solves on the tensor route."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.execute import registers
from sdekit.execute import run as run_module
from sdekit.plan import Combination, Row
from tests.execute.cases import TableNoise, made_plan, solver_plan
from tests.kinds import plan_kinds

PROCESS = sdekit.VP()
TIMES = [0.9, 0.6, 0.35, 0.15]
X = torch.randn(2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def solve(x, weight, plan, prediction="noise"):
    """A network that saves its input for the backward pass, so that an input changed later would be noticed."""
    net = lambda x, t: torch.tanh(x * weight + 0.3) * x + t[0] * weight  # noqa: E731
    return sdekit.solve(sdekit.Model(net, PROCESS, prediction), x, plan.times, plan, noise=TableNoise()).x


@pytest.mark.parametrize("prediction", ["data", "noise", "v"])
@pytest.mark.parametrize("name", plan_kinds())
def test_in_the_start_and_in_parameters(name, prediction):
    plan = solver_plan(name, PROCESS, TIMES)
    weight = torch.tensor([0.7, -0.4], dtype=torch.float64)
    run = lambda x, w: solve(x, w, plan, prediction)  # noqa: E731
    for start, parameter in ((True, False), (False, True), (True, True)):
        assert torch.autograd.gradcheck(
            run, (X.clone().requires_grad_(start), weight.clone().requires_grad_(parameter)), fast_mode=True
        )
    assert not run(X, weight).requires_grad


def test_kick_and_churn():
    plan = sdekit.solvers.get("edm_heun", churn=2.0).plan(PROCESS, TIMES)
    weight = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: solve(x, w, plan), (X.clone().requires_grad_(), weight))


def unused_at_first():
    """The first output enters only later: in between the base moves, by itself, though the graph has saved it."""
    s, t = PROCESS.levels(TIMES[:2])
    rows = [
        Row(s.t, s.alpha, s.sigma, (1.0, 0.0), Combination(0.8), None, 0),
        Row(t.t, t.alpha, t.sigma, (1.0, 0.0), Combination(0.9, ((0, 0.2), (1, 0.3))), None, 1),
    ]
    return made_plan(PROCESS, TIMES[:3], rows)


def parameter_gradient_of_a_late_use():
    plan = unused_at_first()
    weight = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    return torch.autograd.gradcheck(lambda w: solve(X, w, plan, "data"), (weight,))


def test_a_state_saved_by_the_graph_is_not_changed(monkeypatch):
    assert parameter_gradient_of_a_late_use()
    # The mutant looks at the terms of each sum alone, and not at who holds the input: it writes over what the first
    # call saved.
    monkeypatch.setattr(run_module.sys, "getrefcount", lambda x: 0)
    monkeypatch.setattr(run_module, "_storage_users", lambda storage: 0)
    monkeypatch.setattr(
        run_module._Machine,
        "_sums",
        lambda self, sums: [
            self.registers.__setitem__(c.into, c.out_of_place(self.registers))
            if any(self.registers[a].requires_grad for _, a in c.terms)
            else registers.Sum.in_place(c, self.registers)
            for c in sums
        ],
    )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        parameter_gradient_of_a_late_use()


def test_second_derivatives():
    plan = solver_plan("dpmpp_2m", PROCESS, TIMES)
    weight = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: solve(x, w, plan), (X.clone().requires_grad_(), weight))
