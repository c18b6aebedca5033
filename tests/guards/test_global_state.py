"""A solve leaves the process as it found it, and draws from the global generator exactly what it says.

A solver that called torch.randn, np.random or set_num_threads would fail here; so would a `resolve_seed` that draws for
deterministic solvers.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import warnings

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import SdekitError


@pytest.fixture(scope="module", autouse=True)
def _torch_has_imported_all_of_its_own():
    """What torch imports for its first derivative by torch.func sets a warning filter and a variable: once a process,
    and not by what is called here."""
    importlib.import_module("torch._dynamo")


def state():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - the global generator is what must not move
        "numpy errors": np.geterr(),
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "recursion": sys.getrecursionlimit(),
        "print": torch._tensor_str.PRINT_OPTS.__dict__.copy(),
    }


@pytest.mark.parametrize("save", ["final", "all"])
@pytest.mark.parametrize("grad", [True, False])
def test_nothing_is_changed(case, save, grad):
    x = case.start()
    with torch.set_grad_enabled(grad):
        before = state()
        case.solve(x=x, save=save, callback=lambda info: None)
        assert state() == before


def test_nothing_is_changed_by_failures(case):
    before = state()
    for function in (lambda x, t: x * torch.nan, lambda x, t: None):
        with pytest.raises(SdekitError):
            case.solve(function)
    with pytest.raises(SdekitError):
        case.solve(seed="0")
    assert state() == before


def test_a_model_that_changes_the_grad_mode_is_not_overruled(case):
    """The solver sets no mode of its own inside a solve: what the model sees is what the caller set."""
    seen = set()
    with torch.no_grad():
        case.solve(lambda x, t: seen.add(torch.is_grad_enabled()) or torch.tanh(x))
    case.solve(lambda x, t: seen.add(torch.is_grad_enabled()) or torch.tanh(x))
    assert seen == {True, False}


def drawn_integers(run):
    """How many integers `run` took from torch's generator, of the kind that `resolve_seed` draws."""
    torch.manual_seed(5)
    run()
    after = torch.get_rng_state()
    torch.manual_seed(5)
    for count in range(4):
        if torch.equal(torch.get_rng_state(), after):
            return count
        torch.randint(0, 2**63 - 1, (1,), dtype=torch.int64)
    return None


def test_seed_none_draws_one_integer_or_none(case):
    assert drawn_integers(lambda: case.solve(seed=None)) == int(case.stochastic)
    assert drawn_integers(lambda: case.solve(seed=3)) == 0
    assert drawn_integers(lambda: case.solve(seed=torch.Generator().manual_seed(1))) == 0


def test_a_generator_gives_one_integer(case):
    generator, twin = (torch.Generator().manual_seed(2) for _ in range(2))
    case.solve(seed=generator)
    if case.stochastic:
        torch.randint(0, 2**63 - 1, (1,), generator=twin, dtype=torch.int64)
    assert torch.equal(generator.get_state(), twin.get_state())


def test_noise_of_ones_own_draws_none(drawn):
    assert drawn_integers(lambda: drawn.solve(seed=None, noise=lambda out, *_: out.fill_(0.5))) == 0
    assert drawn_integers(lambda: drawn.solve(seed=None, noise="plain")) == 1


def test_checks_at_the_end_draw_no_second_integer(drawn):
    def failing():
        with pytest.raises(SdekitError):
            drawn.solve(lambda x, t: x * torch.nan, seed=None, checks="end")

    assert drawn_integers(failing) == 1


def test_sample(case):
    if case.route == "step":
        return
    model = case.dynamics()
    before = state()
    sdekit.sample(model, (4, 3), case.solver, 3, seed=0, batch_size=3)
    assert state() == before
    assert drawn_integers(lambda: sdekit.sample(model, (4, 3), case.solver, 3)) == 1  # for the prior at least
    given = {"x_start": case.start(), "t_start": 0.5}
    assert drawn_integers(lambda: sdekit.sample(model, (5, 3), case.solver, 3, **given)) == int(case.stochastic)


def test_other_entry_points_draw_one_or_none():
    vp, x = sdekit.VP(), torch.ones(2, 2)
    assert drawn_integers(lambda: vp.sample_prior((2, 2))) == 1
    assert drawn_integers(lambda: vp.simulate(x, [0.1, 0.5])) == 1
    assert drawn_integers(lambda: vp.sample_prior((2, 2), seed=0)) == 0
    assert drawn_integers(lambda: sdekit.solvers.available()) == 0
    assert drawn_integers(lambda: sdekit.targets.GaussianMixture([1.0], [[0.0]], 1.0).sample(4)) == 0
