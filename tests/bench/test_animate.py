"""Animations show what was computed: the sampler's states, the exact flow or draws, and regions of the right mass."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit import grids, solvers, targets
from sdekit.bench import animate as module
from sdekit.bench.animate import animate, motion
from sdekit.errors import OptionError, SdekitError, ShapeError, UnknownNameError
from sdekit.processes import EDM, VP
from sdekit.sample import sample
from sdekit.solvers import PlanSolver


def test_left_is_the_sampler_and_right_the_exact_flow() -> None:
    moved = motion("ring", "edm", "dpmpp_2m", 12, particles=8, seed=3)
    model = targets.ring().under(EDM())
    start = model.sample(80.0, 8, 3)
    assert moved.times == tuple(grids.karras(EDM(), 12).tolist())
    assert moved.calls == tuple(range(13))
    assert not moved.stochastic
    assert torch.equal(moved.found[0], start)
    assert torch.equal(moved.exact[0], start)
    end = sample(model, (8, 2), "dpmpp_2m", grid=moved.times, x_start=start, t_start=80.0)
    torch.testing.assert_close(moved.found[-1], end, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved.exact[9], model.flow(start, 80.0, moved.times[9]), rtol=0, atol=1e-6)
    assert float((moved.found[-1] - moved.exact[-1]).norm()) > 0.01


def test_stochastic_samplers_are_shown_beside_exact_draws() -> None:
    moved = motion("heavy_clusters", "VP", "ddpm", 10, particles=2000)
    model = targets.heavy_clusters().under(VP())
    assert moved.stochastic
    for i in (0, 5, 10):
        t = moved.times[i]
        alpha, sigma = float(VP().alpha(t)), float(VP().sigma(t))
        drawn, cov = moved.exact[i] - alpha * model.target.mean, alpha**2 * model.target.cov + sigma**2 * torch.eye(2)
        error = 4 * math.sqrt(2 / 2000) * float(cov.norm())
        assert float((drawn.mT @ drawn / 2000 - cov).norm()) < error
    again = motion("heavy_clusters", "vp", "ddpm", 10, particles=2000, seed=1)
    assert not torch.equal(again.found[-1], moved.found[-1])


@pytest.mark.parametrize(("solver", "calls"), [("dpmpp_2m", 7), ("heun", 7), ("edm_heun", 8), ("restart", 60)])
def test_as_many_steps_as_the_calls_allow(solver: str, calls: int) -> None:
    moved = motion("ring", "edm", solver, calls, particles=2)
    method = solvers.get(solver)
    assert isinstance(method, PlanSolver)
    steps = len(moved.times) - 1
    assert moved.calls[-1] == method.plan(EDM(), grids.karras(EDM(), steps)).nfe <= calls
    assert method.plan(EDM(), grids.karras(EDM(), steps + 1)).nfe > calls
    assert list(moved.calls) == sorted(moved.calls)


def test_long_ones_are_thinned_out() -> None:
    whole, moved = (motion("ring", "edm", "ddim", n, particles=1) for n in (60, 90))
    assert len(whole.times) == len(moved.times) == 61
    assert whole.calls == tuple(range(61))
    assert (moved.calls[0], moved.calls[-1]) == (0, 90)
    assert moved.times[-1] == 0.002


@pytest.mark.parametrize("t", [40.0, 1.0, 0.1])
def test_shaded_regions_hold_their_mass(t: float) -> None:
    assert worst_mass(t) < 0.03


def worst_mass(t: float) -> float:
    """The largest difference between a region's mass and the part of 4000 draws in it."""
    model = targets.GaussianMixture([0.7, 0.3], [[-1.0, 2.0], [3.0, 2.5]], [0.5, 0.2]).under(EDM())
    view = module._view(model.target)
    places, mass = view.mass(model, t)
    u = view.shown(model, t, model.sample(t, 4000, 1))
    i, j = (np.abs(places[:, None] - u[:, k]).argmin(0) for k in (0, 1))
    inside = (np.abs(u) < view.half).all(1)
    found = [float((inside & (mass[j, i] <= m)).mean()) for m in module._MASS]
    return max(abs(a - b) for a, b in zip(found, module._MASS, strict=True))


def test_shades_of_exchanged_axes_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: x and y of the shades exchanged."""
    right = module._View.mass
    monkeypatch.setattr(module._View, "mass", lambda *a: (right(*a)[0], right(*a)[1].T))
    assert worst_mass(0.1) > 0.3


def test_every_time_fits_the_same_square() -> None:
    model = targets.spiral().under(EDM())
    view = module._view(model.target)
    for t in (80.0, 3.0, 0.002):
        u = view.shown(model, t, model.sample(t, 4000, 0))
        assert np.abs(u.mean(0)).max() < 0.15
        assert u.var(0).sum() / 2 == pytest.approx(view.variance, rel=0.1)
        assert (np.abs(u) < view.half).all(1).mean() > 0.98


def read(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Its frames, (height, width, 3), and for how many milliseconds each is shown."""
    with Image.open(path) as picture:
        frames, shown = [], []
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("RGB"), dtype=int))
            shown.append(picture.info["duration"])
    return frames, shown


def test_same_arguments_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 1)
    monkeypatch.setattr(module, "_DPI", (50,))
    first, again, other = (
        animate(calls=1, particles=40, out=tmp_path / name / "flow.gif", seed=seed).read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["flow.gif"]


def test_frames_are_pictures_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 3)
    path = animate("checkerboard", "rectified_flow", "euler_ancestral", 4, tmp_path / "flow.gif", particles=50)
    frames, shown = read(path)
    assert len(frames) == 5
    assert shown == [160, 160, 160, 160, 490]
    assert {frame.shape for frame in frames} == {(475, 800, 3)}
    for a, b in itertools.pairwise(frames):
        assert (np.abs(a - b).max(-1) > 60).mean() > 0.005
    particle = np.array([int(module._PARTICLE[k : k + 2], 16) for k in (1, 3, 5)])
    for frame in frames:
        for half in (frame[:, :400], frame[:, 400:]):
            drawn = (np.abs(half - particle).max(-1) < 40).sum()
            assert 200 < drawn < 5000


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"target": "rnig"}, UnknownNameError, "'ring'"),
        ({"target": "low_rank_gaussian"}, ShapeError, "64 dimensions"),
        ({"target": "gaussian"}, OptionError, "needs mean, cov"),
        ({"process": "edn"}, UnknownNameError, "'edm'"),
        ({"process": "discrete_vp"}, OptionError, "needs betas"),
        ({"solver": "dpmp_2m"}, UnknownNameError, "'dpmpp_2m'"),
        ({"solver": "milstein"}, OptionError, "a sampler of models"),
        ({"solver": "heun", "calls": 1}, OptionError, "at least 2, those of one step"),
        ({"calls": 0}, OptionError, "from 1 to 1000"),
        ({"particles": 0}, OptionError, "from 1 to 5000"),
        ({"particles": True}, OptionError, "from 1 to 5000"),
        ({"grid": "karas"}, UnknownNameError, "'karras'"),
        ({"out": Path("flow.png")}, OptionError, r"ends in \.gif"),
    ],
)
def test_what_cannot_be_animated_is_said(
    given: dict[str, Any], kind: type[SdekitError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "solve", lambda *a, **k: pytest.fail("a model was called"))
    with pytest.raises(kind, match=words):
        animate(**given)
    assert os.listdir(tmp_path) == []


def test_where_it_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_gif", lambda *_: b"GIF")
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="a file that can be written"):
        animate(calls=1, particles=1, out=tmp_path / "file" / "flow.gif")


def test_large_ones_are_drawn_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def fake(moved: Any, heading: str, solver: str, dpi: int) -> bytes:
        sizes.append(dpi)
        return b"x" * (dpi * 25_000)

    monkeypatch.setattr(module, "_gif", fake)
    assert animate(calls=1, particles=1, out=tmp_path / "flow.gif").stat().st_size == 2_000_000
    assert sizes == [100, 80]
    monkeypatch.setattr(module, "_LARGEST", 1_000_000)
    with pytest.raises(OptionError, match="a file of 1500000 bytes"):
        animate(calls=1, particles=1, out=tmp_path / "other.gif")
    assert not (tmp_path / "other.gif").exists()
