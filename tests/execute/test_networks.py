"""Networks that do odd things with tensors: the result is right, or the solve says what is wrong."""

from __future__ import annotations

import itertools

import pytest
import torch

import sdekit
from sdekit.errors import ModelOutputError
from sdekit.execute import outputs
from sdekit.execute import run as run_module
from sdekit.math import combinations
from tests.execute.cases import TableNoise, data, interpret, network, reference, solver_plan

PROCESS = sdekit.VP()
TIMES = [0.9, 0.62, 0.41, 0.3, 0.17, 0.08]
SOLVERS = ["ddim", "heun", "rk4", "dpmpp_2m", "dpmpp_2m_sde", "edm_heun", "exp_adams"]
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def solve(net, name="dpmpp_2m", prediction="data", x=X, **options):
    plan = solver_plan(name, PROCESS, TIMES)
    return sdekit.solve(sdekit.Model(net, PROCESS, prediction), x, TIMES, plan, noise=TableNoise(), **options).x


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-12)


class Buffered:
    """Writes every output into one tensor; `hidden` from its version counter, or returned as a new view each time."""

    def __init__(self, prediction, hidden=False, views=False):
        self.net, self.hidden, self.views = network(PROCESS, prediction), hidden, views
        self.buffer = torch.zeros_like(X)

    def __call__(self, x, t):
        out = self.net(x, t)
        (self.buffer.data if self.hidden else self.buffer).copy_(out)
        return self.buffer.view(x.shape) if self.views else self.buffer


@pytest.mark.parametrize("how", [{}, {"hidden": True}, {"views": True}])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("name", SOLVERS)
def test_one_output_buffer_for_all_calls(name, prediction, how):
    want = reference(solver_plan(name, PROCESS, TIMES), X)
    assert close(solve(Buffered(prediction, **how), name, prediction), want)


def meant(name, weights, function):
    """The interpreter's answer for a network that predicts the data as function(x)."""
    plan = solver_plan(name, PROCESS, TIMES)
    noise = TableNoise()
    return interpret(plan, lambda row, x: function(x), X, lambda step, stream: noise.table(X, step, stream))


RETURNED = {
    "the input": lambda x, t: x,
    "a view of the input": lambda x, t: x.view(x.shape),
    "another view": lambda x, t: x[:1].expand(x.shape),
    "the input detached": lambda x, t: x.detach(),
}


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("what", RETURNED)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_network_may_return_its_input(name, what, gradients):
    net = RETURNED[what]
    with torch.set_grad_enabled(gradients):
        assert close(solve(net, name), meant(name, (1.0, 0.0), lambda x: net(x, None)))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_network_that_edits_its_input_is_caught(name):
    with pytest.raises(ModelOutputError, match="change in place of its input in call 0"):
        solve(lambda x, t: x.mul_(2), name)
    with torch.inference_mode(), pytest.raises(ModelOutputError, match="change in place of its input in call 0"):
        solve(lambda x, t: x.mul_(2), name, x=X.clone())


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x.detach(), lambda x: x.flatten()[2:], lambda x: x.numpy()])
@pytest.mark.parametrize("name", SOLVERS)
def test_inputs_that_a_network_keeps_stay_as_they_were(name, keep):
    net, kept, copies = network(PROCESS, "data"), [], []

    def recording(x, t):
        kept.append(keep(x))
        copies.append(torch.as_tensor(kept[-1]).clone())
        return net(x, t)

    assert close(solve(recording, name), reference(solver_plan(name, PROCESS, TIMES), X))
    assert all(torch.equal(torch.as_tensor(a), b) for a, b in zip(kept, copies, strict=True))


def test_outputs_that_a_network_keeps_stay_as_they_were():
    net, kept, copies = network(PROCESS, "data"), [], []

    def recording(x, t):
        kept.append(net(x, t))
        copies.append(kept[-1].clone())
        return kept[-1]

    for name in SOLVERS:
        solve(recording, name)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_an_output_rewritten_while_in_use_is_caught():
    net, earlier = network(PROCESS, "data"), []

    def rewriting(x, t):
        if len(earlier) == 3:
            earlier[-1].zero_()
        earlier.append(net(x, t))
        return earlier[-1]

    with pytest.raises(ModelOutputError, match="tensor returned by call 2"):
        solve(rewriting)


def test_a_network_may_differentiate_in_its_input():
    """x.requires_grad_() is left set by some networks; it must not reach the state."""

    def net(x, t):
        with torch.enable_grad():
            x.requires_grad_()
            return torch.autograd.grad((torch.log(torch.cosh(x * (0.5 + t[0]) + 0.3)) / (0.5 + t[0])).sum(), x)[0]

    want = reference(solver_plan("dpmpp_2m", PROCESS, TIMES), X)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            got = solve(net)
        assert close(got, want) and not got.requires_grad


def test_outputs_of_inference_mode():
    def net(x, t):
        with torch.inference_mode():
            return data(float(t[0]), x)

    with torch.no_grad():
        assert close(solve(net), reference(solver_plan("dpmpp_2m", PROCESS, TIMES), X))


def test_without_counts_of_memory_users_results_are_the_same(monkeypatch):
    want = solve(network(PROCESS, "data"))
    always_more = itertools.count()
    monkeypatch.setattr(run_module, "_storage_users", lambda storage: next(always_more))
    assert torch.equal(solve(network(PROCESS, "data")), want)
    test_a_network_may_return_its_input("heun", "another view", False)


MUTANTS = {
    "outputs never copied": (
        (outputs.Outputs, "_decide", lambda self, out, slot: False),
        test_one_output_buffer_for_all_calls,
        ("dpmpp_2m", "data", {"hidden": True}),
    ),
    "views of the input not noticed": (
        (run_module, "_storage_users", lambda storage: 0),
        test_inputs_that_a_network_keeps_stay_as_they_were,
        ("ddim", lambda x: x.detach()),
    ),
    "returned inputs not noticed": (
        (run_module.sys, "getrefcount", lambda x: 0),
        test_a_network_may_return_its_input,
        ("ddim", "the input", False),
    ),
    "rewritten outputs not watched": (
        (outputs.Outputs, "check", lambda self, live: None),
        test_an_output_rewritten_while_in_use_is_caught,
        (),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_told_apart(name, monkeypatch):
    (owner, attribute, mutant), test, arguments = MUTANTS[name]
    # A fused pass reads each number before it writes it, so that a point in its own sum hurts nothing.
    monkeypatch.setattr(combinations, "kernel", lambda x, calls: None)
    test(*arguments)
    monkeypatch.setattr(owner, attribute, mutant)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(*arguments)
