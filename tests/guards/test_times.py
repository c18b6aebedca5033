"""The contract of a time grid, wherever one is given: solve, sample, plan, simulate and the grids' own ends.

Each fault below passes unnoticed when its line in `check_times` or `times_as_floats` is deleted.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, SdekitError

INF, NAN = math.inf, math.nan

# The fault, and what the message must show: indices and values.
FAULTS = {
    "one point": ([0.5], ["1 point(s)", "two or more"]),
    "no point": ([], ["0 point(s)"]),
    "repeated": ([0.9, 0.5, 0.5, 0.1], ["0.5, 0.5 at indices 1, 2", "repeated"]),
    "repeated at the start": ([0.9, 0.9, 0.1], ["0.9, 0.9 at indices 0, 1"]),
    "turns": ([0.9, 0.5, 0.6, 0.1], ["0.5, 0.6 at indices 1, 2", "out of order", "decreasing"]),
    "turns at the end": ([0.9, 0.5, 0.1, 0.2], ["0.1, 0.2 at indices 2, 3"]),
    "unsorted": ([0.1, 0.9, 0.5], ["0.9, 0.5 at indices 1, 2", "increasing"]),
    "NaN": ([0.9, NAN, 0.1], ["nan at index 1", "finite"]),
    "NaN at the end": ([0.9, 0.5, NAN], ["nan at index 2"]),
    "infinite": ([INF, 0.5], ["inf at index 0"]),
    "minus infinite": ([0.5, -INF], ["-inf at index 1"]),
    "above the domain": ([1.5, 0.5], ["1.5 at index 0", "[0.0, 1.0]"]),
    "below the domain": ([0.5, -0.1], ["-0.1 at index 1", "[0.0, 1.0]"]),
    "one ulp": ([0.5, math.nextafter(0.5, 0)], ["0.5, 0.49999999999999994 at indices 0, 1", "8 ulp of float64"]),
    "seven ulp": ([0.5 + 7 * 2**-53, 0.5], ["at indices 0, 1", "8 ulp"]),
    "too fine inside": ([0.9, 0.5, 0.5 - 2**-53, 0.1], ["at indices 1, 2", "8 ulp"]),
    "column": (torch.tensor([[0.9], [0.1]]), ["shape (2, 1)", "1-D"]),
    "no axis": (torch.tensor(0.5), ["shape ()", "1-D"]),
    "nested": ([[0.9, 0.1]], ["[0.9, 0.1] at index 0", "numbers"]),
    "matrix": (np.ones((2, 2)), ["at index 0", "numbers"]),
    "number": (0.5, ["float", "1-D sequence"]),
    "nothing": (None, ["NoneType"]),
    "text": ("0.9, 0.1", ["'0.9, 0.1'"]),
    "texts": (["0.9", "0.1"], ["'0.9' at index 0", "numbers"]),
    "decimals": ([Decimal("0.9"), Decimal("0.1")], ["Decimal('0.9') at index 0"]),
    "complex": ([0.9 + 0j, 0.1], ["(0.9+0j) at index 0"]),
    "complex tensor": (torch.tensor([0.9 + 0j, 0.1]), ["at index 0", "numbers"]),
    "booleans": ([True, False], ["True at index 0"]),
    "boolean tensor": (torch.tensor([True, False]), ["True at index 0"]),
    "missing": ([0.9, None, 0.1], ["None at index 1"]),
    "set": ({0.9, 0.1}, ["set"]),
    "generator": ((t for t in (0.9, 0.1)), ["generator"]),
    "mapping": ({"t": 0.9}, ["dict"]),
    "huge integer": ([10**400, 0.5], ["inf at index 0"]),
    "requires grad": (torch.tensor([0.9, 0.1], requires_grad=True), ["requires grad", ".detach()"]),
    "meta": (torch.zeros(3, device="meta"), ["meta"]),
}
WITHOUT_DOMAIN = {"above the domain", "below the domain"}


def _expect(call, named):
    with pytest.raises((OptionError, InterfaceError)) as caught:
        call()
    for part in named:
        assert part in str(caught.value)
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told_with_its_place(fault):
    times, named = FAULTS[fault]
    calls = []

    def count(*_):
        calls.append(1)

    model = sdekit.Model(lambda x, t: count() or x, sdekit.VP())
    ode = sdekit.make_ode(lambda t, x: count() or x)
    x = torch.ones(2, 1)
    assert _expect(lambda: sdekit.solve(model, x, times, "heun"), named).argument == "times"
    _expect(lambda: sdekit.solve(model.process.reverse(model), x, times, "euler_maruyama"), named)
    _expect(lambda: sdekit.solvers.get("ddim").plan(model.process, times), named)
    if fault not in WITHOUT_DOMAIN:
        _expect(lambda: sdekit.solve(ode, x, times, "rk4"), named)
    if times is not None and fault != "text":  # None is the process's default, a text the name of a grid
        wanted = [n for n in named if "increasing" not in n]
        if fault == "unsorted":  # samplers go down
            wanted = ["0.1, 0.9 at indices 0, 1"]
        assert _expect(lambda: sdekit.sample(model, (2, 1), "heun", grid=times), wanted).argument == "grid"
    assert not calls


@pytest.mark.parametrize("fault", FAULTS)
def test_simulation_refuses_the_same(fault):
    times, _ = FAULTS[fault]
    with pytest.raises(SdekitError, match="times: got"):
        sdekit.VP().simulate(torch.ones(2, 1), times, seed=0)


def test_grids_functions_are_held_to_it():
    for made in ([0.9, 0.95, 0.1], [2.0, 0.1], [0.9], None, "0.9", torch.ones(2, 2)):
        model = sdekit.Model(lambda x, t: x, sdekit.VP())
        _expect(lambda model=model, made=made: sdekit.sample(model, (2, 1), grid=lambda p, n: made), ["grid: got"])


@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_is_a_grid(direction):
    values = [0.1, 0.5, 0.9] if direction == "up" else [0.9, 0.5, 0.1]
    ode = sdekit.make_ode(lambda t, x: -x)
    results = [
        sdekit.solve(ode, torch.ones(2, 1), times, "heun").x
        for times in (
            values,
            tuple(values),
            torch.tensor(values, dtype=torch.float64),
            np.array(values),
            list(np.array(values)),
            [torch.tensor(v, dtype=torch.float64) for v in values],
        )
    ]
    assert all(torch.equal(r, results[0]) for r in results)
    assert sdekit.solve(ode, torch.ones(2, 1), range(3), "heun").success
    assert sdekit.solve(ode, torch.ones(2, 1), torch.arange(3), "heun").success
    assert sdekit.solve(ode, torch.ones(2, 1), np.array(values, dtype=np.float32), "heun").success


@pytest.mark.parametrize("times", [[0.9, 0.5, 0.1], [0.9]])
def test_steps_go_with_two_ends(times):
    with pytest.raises(OptionError, match=r"steps: got|1 point"):
        sdekit.solve(sdekit.make_ode(lambda t, x: x), torch.ones(1, 1), times, "euler", steps=3)


def test_times_are_kept_in_float64():
    seen = []
    times = torch.linspace(0.9, 0.1, 5, dtype=torch.float64)
    model = sdekit.Model(lambda x, t: x, sdekit.VP())
    solution = sdekit.solve(model, torch.ones(2, 1), times, "ddim", save="all", callback=lambda i: seen.append(i.t))
    assert solution.t.dtype == torch.float64 and solution.t.tolist() == times.tolist()
    assert seen == times.tolist()[:-1] and solution.provenance["times"] == times.tolist()


def test_save_takes_times_of_the_grid(case):
    calls = []
    for save in [[0.51], 5, None, [], [NAN], ["0.5"], "finale", True, [None], torch.ones(2, 2), {0.5}, [0.5, 0.4]]:
        with pytest.raises(SdekitError, match="save: got"):
            case.solve(lambda x, t: calls.append(1) or x, save=save)
        assert not calls


def test_save_changes_what_is_kept(case):
    every = case.solve(save="all")
    assert every.xs.shape[0] == 5 and every.t.tolist() == case.times
    some = case.solve(save=[case.times[3], case.times[1]])
    assert some.t.tolist() == [case.times[1], case.times[3]]
    assert torch.equal(some.xs, every.xs[[1, 3]]) and torch.equal(some.x, every.x)
    assert case.solve().t.tolist() == case.times[-1:]
