"""What a step costs, in counts: operations over the whole state, reads of the device, draws, allocations, memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sdekit
from sdekit.execute import outputs, registers
from tests.execute.cases import network, solver_plan

PROCESS = sdekit.VP()
SHAPE = (8, 64)
FULL = 8 * 64


def is_full(value):
    return isinstance(value, torch.Tensor) and value.numel() >= FULL


class Counter(TorchDispatchMode):
    """Counts operations that touch a tensor of the state's size, by the number of network calls made before them."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.inside = False
        self.full, self.new, self.reads, self.random = [], [], [], []
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self.inside:
            return result
        name = func.__name__.split(".")[0]
        given = [v for v in (*args, *(kwargs or {}).values()) if isinstance(v, torch.Tensor)]
        results = [
            r for r in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(r, torch.Tensor)
        ]
        memory = {v.untyped_storage().data_ptr() for v in given}
        fresh = [r for r in results if is_full(r) and r.untyped_storage().data_ptr() not in memory]
        if name == "new_full":  # times, which only take their dtype and device from the state
            given = []
        # Views and buffers alone do no work.
        if name not in ("view", "_unsafe_view", "detach", "alias", "reshape", "empty_like", "empty", "t") and any(
            is_full(v) for v in (*given, *results)
        ):
            self.full.append((self.calls, name))
        self.new += [(self.calls, name) for _ in fresh]
        for r in fresh:
            self.alive[id(r)] = weakref.ref(r)
        self.alive = {k: v for k, v in self.alive.items() if v() is not None}
        self.peak = max(self.peak, len(self.alive))
        if name in ("_local_scalar_dense", "equal", "is_nonzero"):
            self.reads.append((self.calls, name))
        if name in ("normal_", "randn", "rand", "random_", "randint", "normal"):
            self.random.append((self.calls, name))
        return result


def count(plan, prediction="data", fixed=False, **options):
    """A solve with a network whose own work is not counted."""
    counter = Counter()
    constant = torch.ones(SHAPE)
    compute = network(PROCESS, prediction)

    def net(x, t):
        counter.inside = True
        out = constant if fixed else compute(x, t)
        counter.inside = False
        counter.calls += 1
        return out

    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), counter:
        sdekit.solve(sdekit.Model(net, PROCESS, prediction), x, plan.times, plan, **options)
    return counter


def times(steps):
    return torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64).tolist()


def inner(entries, steps):
    """What happens after the network's third call and before its last, by call."""
    return [[name for call, name in entries if call == k] for k in range(3, steps)]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_2m_step_is_three_passes_and_nothing_else(fixed):
    counter = count(solver_plan("dpmpp_2m", PROCESS, times(12)), fixed=fixed, checks="end")
    assert counter.calls == 12
    assert all(sorted(names) == ["add_", "add_", "mul_"] for names in inner(counter.full, 12))
    assert not [e for e in counter.new if 2 <= e[0] < 12]
    # One comparison at the second call, of a network that returns one tensor twice: was it rewritten in between?
    assert [e for e in counter.reads if 1 <= e[0] < 12] == ([(2, "equal")] if fixed else [])
    assert not counter.random


def test_full_checks_add_one_sum_and_one_read():
    counter = count(solver_plan("dpmpp_2m", PROCESS, times(12)), checks="full")
    assert all(sorted(names) == ["add_", "add_", "mul_", "sum"] for names in inner(counter.full, 12))
    assert all(names == ["_local_scalar_dense"] for names in inner(counter.reads, 12))


@pytest.mark.parametrize("prediction", ["noise", "v", "velocity", "score"])
def test_a_conversion_costs_one_pass(prediction):
    counter = count(solver_plan("dpmpp_2m", PROCESS, times(12)), prediction, checks="end")
    assert all(sorted(names) == ["add", "add_", "add_", "mul_"] for names in inner(counter.full, 12))
    # Two outputs are kept at a time, so the second step makes the last buffer.
    assert not [e for e in counter.new if 3 <= e[0] < 12]


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_a_conversion_used_at_once_costs_no_pass(prediction):
    counter = count(solver_plan("ddim", PROCESS, times(12)), prediction, checks="end")
    assert all(sorted(names) == ["add_", "mul_"] for names in inner(counter.full, 12))


def test_one_draw_for_each_step_of_an_sde():
    counter = count(solver_plan("dpmpp_2m_sde", PROCESS, times(12)), noise="plain", seed=0, checks="end")
    assert all(names == ["normal_"] for names in inner(counter.random, 12))
    assert all(sorted(names) == ["add_", "add_", "add_", "mul_", "normal_"] for names in inner(counter.full, 12))
    assert not [e for e in counter.new if 2 <= e[0] < 12]


@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "dpmpp_2m", "dpmpp_2m_sde", "edm_heun", "exp_adams", "ddim"])
def test_memory_does_not_grow_with_the_steps(name):
    plans = [solver_plan(name, PROCESS, times(steps)) for steps in (6, 24)]
    peaks = [count(plan, "noise", noise="plain", seed=0).peak for plan in plans]
    # The network's output is its own; base, stage, snapshot and noise are the rest.
    assert peaks[0] == peaks[1] <= plans[0].memory + 4


def _allocating(self, registers_):
    registers_[self.into] = self.out_of_place(registers_)


def _growing(self, dead):
    self.left = [*getattr(self, "left", []), *(self.registers[slot].clone() for slot in dead)]


MUTANTS = {
    "out of place": (
        (registers.Sum, "in_place", _allocating),
        test_a_2m_step_is_three_passes_and_nothing_else,
        (True,),
    ),
    "always copied": (
        (outputs.Outputs, "_decide", lambda self, out, slot: True),
        test_a_2m_step_is_three_passes_and_nothing_else,
        (True,),
    ),
    "never released": ((outputs.Outputs, "release", _growing), test_memory_does_not_grow_with_the_steps, ("dpmpp_2m",)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_told_apart(name, monkeypatch):
    (owner, attribute, mutant), test, arguments = MUTANTS[name]
    test(*arguments)
    monkeypatch.setattr(owner, attribute, mutant)
    with pytest.raises(AssertionError):
        test(*arguments)
