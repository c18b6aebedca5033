"""The strategies make what they say, and check_solver's subjects survive them."""

from __future__ import annotations

import builtins

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdekit
from sdekit.errors import SdekitError
from sdekit.plan import interpret
from sdekit.solvers import get
from sdekit.testing import strategies
from sdekit.times import check_times


@given(strategies.affine_processes(), st.data())
@settings(max_examples=60)
def test_grids_fit_their_process(process, data):
    times = data.draw(strategies.grids(process))
    check_times(times, domain=process.domain, direction="down")
    assert times.dtype == torch.float64 and 2 <= len(times) <= 13
    assert bool((process.sigma(times) > 0).all()) and bool((process.alpha(times) > 0).all())
    length = float(process.half_log_snr(times[-1]) - process.half_log_snr(times[0]))
    assert 0.99 < length < 6.01  # VE with the closest bounds spans log 50


@given(strategies.mixtures(dims=(2, 3), components=(1, 4), std=(0.2, 0.5)))
@settings(max_examples=30)
def test_mixtures_stay_in_their_ranges(target):
    assert target.size in (2, 3) and 1 <= target.components.count <= 4
    std = target.components.variances.sqrt()
    assert float(std.min()) >= 0.2 - 1e-9 and float(std.max()) <= 0.5 + 1e-9


@given(strategies.states((3, 2), batch=(2, 4), scale=10.0))
@settings(max_examples=20)
def test_states(x):
    assert x.shape[0] in (2, 3, 4) and x.shape[1:] == (3, 2) and x.dtype == torch.float64


@given(strategies.affine_processes(), strategies.mixtures(dims=(2, 2)), strategies.states((2,)), st.data())
@settings(max_examples=25)
def test_together_they_drive_a_solver(process, target, x, data):
    """The tensor route and the plan's meaning, over everything that the strategies make."""
    times = data.draw(strategies.grids(process))
    name = data.draw(st.sampled_from(["ddim", "dpmpp_2m", "heun", "edm_heun"]))
    model = target.under(process)
    fast = sdekit.solve(model, x, times, name).x
    slow = interpret(get(name).plan(process, times), lambda row, point: model.data(row.t, point), x)
    scale = float(process.sigma(times[0])) + float(slow.abs().max()) + 1
    assert float((fast - slow).abs().max()) <= 1e-11 * scale


def test_both_kinds_of_grid_are_drawn():
    seen = set()

    @given(strategies.grids(sdekit.VP(), steps=(3, 3)))
    @settings(max_examples=60)
    def look(times):
        steps = sdekit.VP().half_log_snr(times).diff()
        seen.add(bool(torch.allclose(steps, steps[:1].expand(3), rtol=1e-6)))

    look()
    assert seen == {True, False}


def test_without_hypothesis_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SdekitError, match=r"sdekit\[test\]"):
        strategies.affine_processes()
