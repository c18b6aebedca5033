"""The protocol against the published recursions of eigenvalues, written out here."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdekit import targets
from sdekit.errors import OptionError, SdekitError, ShapeError
from sdekit.metrics import gaussian_protocol
from sdekit.metrics.protocol import SCHEMES

SPECTRUM = np.array([1e-3, 0.1, 1.0, 30.0])
MINIMUM, MAXIMUM = 0.05, 10.0


def beta(t):
    return MINIMUM + t * (MAXIMUM - MINIMUM)


def total(t):
    return MINIMUM * t + (MAXIMUM - MINIMUM) * t**2 / 2


def marginal(t):
    return math.exp(-2 * total(t)) * SPECTRUM + 1 - math.exp(-2 * total(t))


def published(scheme: str, points: int, eps: float, start: str) -> float:
    """The recursions of their section 4 and appendix, for the eigenvalues of the output's covariance."""
    times = [1 - (1 - eps) * k / (points - 1) for k in range(points)]
    h = times[0] - times[1]
    value = marginal(1.0) if start == "marginal" else np.ones_like(SPECTRUM)
    for s, t in itertools.pairwise(times):

        def rate(u):
            return beta(u) * (1 - 1 / marginal(u))

        if scheme == "EM":
            value = (1 + h * beta(s) * (1 - 2 / marginal(s))) ** 2 * value + 2 * h * beta(s)
        elif scheme == "EI":
            gap = total(s) - total(t)
            value = (1 + (math.exp(gap) - 1) * (1 - 2 / marginal(s))) ** 2 * value + math.exp(2 * gap) - 1
        elif scheme == "DDPM":
            b = 2 * h * beta(s)
            value = (1 - b / marginal(s)) ** 2 / (1 - b) * value + b
        elif scheme == "Euler":
            value = (1 + h * rate(s)) ** 2 * value
        elif scheme == "Heun":
            value = (1 + 0.5 * h * (rate(s) + rate(t) * (1 + h * rate(s)))) ** 2 * value
        else:
            c1 = rate(s)
            c2 = rate(0.5 * (s + t)) * (1 + 0.5 * h * c1)
            c3 = rate(0.5 * (s + t)) * (1 + 0.5 * h * c2)
            c4 = rate(t) * (1 + h * c3)
            value = (1 + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)) ** 2 * value
    return math.sqrt(((np.sqrt(value) - np.sqrt(SPECTRUM)) ** 2).sum())


@pytest.fixture(scope="module")
def released():
    return gaussian_protocol(spectrum=SPECTRUM, calls=(52, 100), as_released=True)


def test_as_released_is_as_published(released):
    seen = 0
    for row in released:
        if row.scheme == "exact" or row.w2 is None:
            continue
        points = row.column // 4 if row.scheme == "RK4" else row.column
        assert row.steps == points - 1
        expected = published(row.scheme, points, row.truncation, row.start)
        assert row.w2 == pytest.approx(expected, rel=1e-9), row
        seen += 1
    assert seen == 2 * 2 * (4 * 4 + 2 * 3)


def test_what_the_exact_dynamics_leave(released):
    exact = {(r.dynamics, r.truncation, r.start): r.w2 for r in released if r.scheme == "exact"}
    assert len(exact) == 16
    for eps in (0.0, 1e-5, 1e-3, 1e-2):
        truncation = math.sqrt(((np.sqrt(marginal(eps)) - np.sqrt(SPECTRUM)) ** 2).sum())
        last = marginal(eps)
        for dynamics in ("SDE", "ODE"):
            assert exact[dynamics, eps, "marginal"] == pytest.approx(truncation, rel=1e-9, abs=1e-14)
        ode = last / marginal(1.0)
        expected = math.sqrt(((np.sqrt(ode) - np.sqrt(SPECTRUM)) ** 2).sum())
        assert exact["ODE", eps, "standard"] == pytest.approx(expected, rel=1e-9)
        decay = math.exp(-2 * (total(1.0) - total(eps)))
        sde = last + decay * last**2 / marginal(1.0) * (1 / marginal(1.0) - 1)
        expected = math.sqrt(((np.sqrt(sde) - np.sqrt(SPECTRUM)) ** 2).sum())
        assert exact["SDE", eps, "standard"] == pytest.approx(expected, rel=1e-8)
    assert exact["SDE", 0.0, "standard"] < 0.1 * exact["ODE", 0.0, "standard"]


def test_ours_counts_calls():
    rows = gaussian_protocol(spectrum=SPECTRUM, calls=(52,))
    made = {row.scheme: (row.steps, row.calls) for row in rows if row.w2 is not None}
    assert made == {
        "exact": (0, 0),
        **dict.fromkeys(("EM", "EI", "DDPM", "Euler"), (52, 52)),
        "Heun": (26, 52),
        "RK4": (13, 52),
    }
    assert [r.scheme for r in rows if r.scheme != "exact"][:: 4 * 2] == list(SCHEMES)
    for row in rows:
        if row.scheme in ("Heun", "RK4"):
            assert (row.w2 is None) == (row.truncation == 0)
            assert bool(row.note) == (row.w2 is None)
    for row in (r for r in rows if r.scheme in ("EM", "EI", "Euler", "Heun") and r.w2 is not None):
        assert row.w2 == pytest.approx(published(row.scheme, row.steps + 1, row.truncation, row.start), rel=1e-9)


def test_ddpm_has_the_exact_beta():
    """(x + beta score) / sqrt(1 - beta) + sqrt(beta) z with 1 - beta the exact ratio of alpha^2."""
    (row,) = [
        row
        for row in gaussian_protocol(spectrum=SPECTRUM, calls=(60,), truncations=(1e-3,))
        if (row.scheme, row.start) == ("DDPM", "standard")
    ]
    times, value = np.linspace(1, 1e-3, 61), np.ones_like(SPECTRUM)
    for s, t in itertools.pairwise(times):
        b = -math.expm1(-2 * (total(s) - total(t)))
        value = (1 - b / marginal(s)) ** 2 / (1 - b) * value + b
    assert row.w2 == pytest.approx(math.sqrt(((np.sqrt(value) - np.sqrt(SPECTRUM)) ** 2).sum()), rel=1e-9)
    assert row.w2 != pytest.approx(published("DDPM", 61, 1e-3, "standard"), rel=0.05)


def test_too_few_steps_for_the_released_chain():
    rows = gaussian_protocol(spectrum=SPECTRUM, calls=(16,), truncations=(1e-3,), as_released=True)
    assert [(r.w2, "beta >= 1" in r.note) for r in rows if r.scheme == "DDPM"] == [(None, True)] * 2


def test_data_by_default_and_by_path(tmp_path: Path):
    pytest.importorskip("sklearn")
    rows = gaussian_protocol(calls=(20,), truncations=(1e-3,))
    spectrum = torch.linalg.eigvalsh(targets.digits(std=0.0).cov).clamp(min=0)
    assert rows == gaussian_protocol(spectrum=spectrum, calls=(20,), truncations=(1e-3,))
    data = np.random.default_rng(0).normal(size=(40, 2, 3))
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "b.npz", images=data, labels=np.ones((2, 2)))
    by_path = gaussian_protocol(tmp_path / "a.npy", calls=(20,), truncations=(1e-3,))
    assert by_path == gaussian_protocol(tmp_path / "b.npz", key="images", calls=(20,), truncations=(1e-3,))
    cov = np.cov(data.reshape(40, 6).T, bias=True)
    by_hand = gaussian_protocol(spectrum=np.linalg.eigvalsh(cov), calls=(20,), truncations=(1e-3,))
    assert [r.w2 for r in by_path] == pytest.approx([r.w2 for r in by_hand], rel=1e-9)


def test_what_is_refused(tmp_path: Path):
    for options in (
        {"calls": (4,)},
        {"calls": (0,)},
        {"truncations": (1.0,)},
        {"truncations": (-1e-3,)},
        {"spectrum": [-1.0]},
        {"data": torch.ones(3, 2)},
    ):
        with pytest.raises(OptionError):
            gaussian_protocol(**{"spectrum": SPECTRUM, **options})
    with pytest.raises(ShapeError):
        gaussian_protocol(spectrum=np.eye(2))
    with pytest.raises(SdekitError, match="no such file"):
        gaussian_protocol(tmp_path / "missing.npy")
