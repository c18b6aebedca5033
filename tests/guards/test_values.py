"""Solvers are values: equal, hashable, frozen, usable from anywhere at once, and the same after they travelled.

A solver that kept a cursor, a history or a buffer on itself would fail these.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading

import pytest
import torch

import sdekit
from sdekit import errors


def smooth(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


def test_frozen_equal_and_hashable(case):
    solver = case.solver
    fields = [f.name for f in dataclasses.fields(solver)]
    for name in [*fields, "cursor"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solver, name, None)
    twin = type(solver)(**{name: getattr(solver, name) for name in fields})
    assert twin == solver and hash(twin) == hash(solver) and twin.label == solver.label


def test_a_solve_leaves_the_solver_as_it_was(case):
    before = copy.deepcopy(vars(case.solver))
    case.solve()
    assert vars(case.solver) == before


def test_pickles(case):
    solver = pickle.loads(pickle.dumps(case.solver))
    assert solver == case.solver
    assert torch.equal(dataclasses.replace(case, solver=solver).solve().x, case.solve().x)
    solution = pickle.loads(pickle.dumps(case.solve()))
    assert torch.equal(solution.x, case.solve().x) and solution.provenance == case.solve().provenance


def test_plans_pickle(case):
    if case.route == "plan":
        plan = case.solver.plan(sdekit.VP(), case.times, case.stochasticity)
        for twin in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), sdekit.Plan.from_json(plan.to_json())):
            assert twin == plan
            result = sdekit.solve(case.dynamics(), case.start(), case.times, twin, seed=7)
            assert torch.equal(result.x, case.solve().x)


def test_threads_share_one_solver(case):
    """Eight threads, each with a start of its own, at once: as one after the other."""
    starts = [case.start() + i for i in range(8)]
    expected = [case.solve(x=x).x for x in starts]
    dynamics, results, barrier = case.dynamics(), [None] * 8, threading.Barrier(8)

    def work(i):
        barrier.wait()
        results[i] = sdekit.solve(dynamics, starts[i], case.times, case.solver, seed=7).x

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_a_solve_inside_the_model(case):
    """With the same solver object, at every call; the inner result enters, so that both must be right."""
    inner = case.solve().x

    def nested(x, t):
        found = case.solve().x
        return smooth(x, t) + 0 * found + (found - inner)

    assert torch.equal(case.solve(nested).x, case.solve().x)


def test_a_solve_inside_a_callback(case):
    found = []
    result = case.solve(callback=lambda info: found.append(case.solve().x))
    assert all(torch.equal(f, result.x) for f in found) and len(found) == 4


def test_processes_and_models_travel():
    for process in (sdekit.VP(), sdekit.VE(), sdekit.EDM(), sdekit.RectifiedFlow(), sdekit.Heat(2.0)):
        twin = pickle.loads(pickle.dumps(process))
        assert twin == process and repr(twin) == repr(process) and hash(twin) == hash(process)
    model = sdekit.Model(smooth, sdekit.VP(), "data").bind()
    x = torch.ones(2, 1)
    assert torch.equal(copy.deepcopy(model).data(0.5, x), model.data(0.5, x))


@pytest.mark.parametrize("kind", [c for c in vars(errors).values() if isinstance(c, type)], ids=lambda c: c.__name__)
def test_errors_travel(kind):
    """Workers send them back; an exception whose constructor takes keywords only does not pickle by itself."""
    if not issubclass(kind, errors.SdekitError):
        return
    if kind is errors.NonFiniteError:
        error = kind("model", sample=1, step=2, t=0.5, call=3)
    elif kind is errors.UnfinishedError:
        error = kind("STIFF", sample=1, t=0.5, step_size=1e-9, component=2, what="a stiff drift; use bosh3")
    elif kind is errors.OutOfDomain:
        error = kind([False, True])
    elif kind is errors.ConformanceError:
        error = kind("check", "solver", got="1", expected="2", fix="Do it.")
    else:
        error = kind("x", got="1", expected="2", fix="Do it.")
    error.partial = "reached"
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind and str(twin) == str(error) and twin.__dict__ == error.__dict__
