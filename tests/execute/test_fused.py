"""Passes that are fused: every solver's bits are those of PyTorch's operations, and what cannot be fused is not."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import sdekit
from sdekit.errors import ModelOutputError
from sdekit.execute import run as run_module
from sdekit.math import combinations
from sdekit.math.native import ENOUGH
from tests.execute.cases import PREDICTIONS, model, network
from tests.kinds import plan_solvers
from tests.math.test_native import compiled

PROCESS = sdekit.VP()
TIMES = [0.9, 0.7, 0.5, 0.3, 0.2, 0.1]
X = torch.randn(3, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MODES = {
    "no gradients": torch.no_grad,
    "gradients allowed": torch.enable_grad,
    "inference": torch.inference_mode,
}


@pytest.fixture
def fused(monkeypatch):
    """How many combinations were fused; the kernel is there."""
    assert combinations.NATIVE.get(ENOUGH) is not None, combinations.NATIVE.reason
    counts, fuse = [], run_module._Machine._fuse

    def counted(self, into, some):
        counts.append(len(some))
        fuse(self, into, some)

    monkeypatch.setattr(run_module._Machine, "_fuse", counted)
    return counts


def without(monkeypatch, run):
    """A result by PyTorch's operations."""
    with monkeypatch.context() as patch:
        patch.setattr(combinations, "kernel", lambda x, calls: None)
        return run()


@compiled
@pytest.mark.parametrize("name", plan_solvers())
def test_every_solver_has_the_bits_of_torch(name, fused, monkeypatch):
    for prediction, dtype in (("data", torch.float64), ("noise", torch.float32), ("v", torch.bfloat16)):
        solver = sdekit.solvers.get(name)
        plan = solver.plan(PROCESS, TIMES, solver.implied_stochasticity)

        def run(plan=plan, prediction=prediction, dtype=dtype):
            return sdekit.solve(model(PROCESS, prediction), X.to(dtype), plan.times, plan, seed=3).x

        before = len(fused)
        assert torch.equal(run(), without(monkeypatch, run)) and len(fused) > before


@compiled
@pytest.mark.parametrize("mode", MODES)
def test_in_every_mode(mode, fused, monkeypatch):
    def run():
        with MODES[mode]():
            return sdekit.solve(model(PROCESS, "data"), X.clone(), TIMES, "dpmpp_2m").x

    assert torch.equal(run(), without(monkeypatch, run)) and fused


@compiled
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_pass_for_each_committed_row(prediction, fused):
    for name, options in (("exp_adams", {"order": 5}), ("unipc", {"order": 3}), ("dpmpp_2m_sde", {}), ("heun", {})):
        solver = sdekit.solvers.get(name, **options)
        plan = solver.plan(PROCESS, TIMES, solver.implied_stochasticity)
        fused.clear()
        sdekit.solve(model(PROCESS, prediction), X, plan.times, plan, seed=0)
        assert fused == [1] * sum((row.base is not None) + (row.point is not None) for row in plan.rows)


@compiled
@pytest.mark.parametrize("differentiates", [False, True])
def test_a_graph_that_the_network_keeps_stays_right(differentiates, fused):
    """No version counter tells of a fused pass: what is still in use must not be written to at all."""
    scale, kept = torch.ones(37, dtype=torch.float64, requires_grad=True), []

    def net(x, t):
        with torch.enable_grad():
            if differentiates:
                x.requires_grad_()
            kept.append(((x * scale).sum(), x.detach().clone()))
        return torch.tanh(x.detach())

    with torch.no_grad():
        sdekit.solve(sdekit.Model(net, PROCESS, "data"), X, TIMES, "dpmpp_2m")
    assert fused
    for total, x in kept:
        assert torch.equal(torch.autograd.grad(total, scale)[0], x.sum(0))


OUTPUTS = {
    "transposed": lambda y: y.mT.contiguous().mT,
    "expanded": lambda y: y[:1].expand(y.shape),
    "another dtype at the second call": lambda y: y.double(),
    "a parameter": lambda y: torch.nn.Parameter(y, requires_grad=False),
    "negated": lambda y: torch._neg_view(-y),
    "no numbers": lambda y: torch._efficientzerotensor(y.shape, dtype=y.dtype),
}


@compiled
@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_that_memory_does_not_show(what, fused, monkeypatch):
    """From the first of them on every combination is PyTorch's."""
    compute = network(PROCESS, "data")

    def run():
        calls = []

        def net(x, t):
            calls.append(t)
            return OUTPUTS[what](compute(x, t)) if len(calls) == 3 else compute(x, t)

        with torch.no_grad():
            return sdekit.solve(sdekit.Model(net, PROCESS, "data"), X, TIMES, "dpmpp_2m").x

    assert torch.equal(run(), without(monkeypatch, run))
    assert len(fused) == (5 if "dtype" in what else 2)


@compiled
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_whoever_watches_operations_sees_them(fused):
    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen += func.__name__.split(".")[0] in ("mul_", "add_", "mul", "add")
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch() as watch:
        sdekit.solve(model(PROCESS, "data"), X, TIMES, "dpmpp_2m")
    assert not fused and watch.seen >= 5

    def end(x):
        return sdekit.solve(model(PROCESS, "data"), x, TIMES, "dpmpp_2m", checks="off").x

    with torch.no_grad(), forward_ad.dual_level():
        end(forward_ad.make_dual(X, torch.ones_like(X)))
    assert not fused


def test_mutants_are_told_apart(fused, monkeypatch):
    monkeypatch.setattr(combinations, "plain", lambda x: True)
    with pytest.raises((AssertionError, ModelOutputError)):
        test_outputs_that_memory_does_not_show("expanded", fused, monkeypatch)
