"""Targets made to be hard: their means and covariances in closed form, and what makes them hard."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sdekit import VP, targets
from sdekit.errors import InterfaceError, OptionError


def close(a, b, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def by_points(target: targets.GaussianMixture, variances: np.ndarray) -> np.ndarray:
    """Covariance of isotropic components in the plane, term by term."""
    w, m = target.weights.numpy(), target.means.numpy()
    mean = sum(w[k] * m[k] for k in range(len(w)))
    terms = [w[k] * (np.outer(m[k] - mean, m[k] - mean) + variances[k] * np.eye(2)) for k in range(len(w))]
    return np.sum(terms, 0)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8])
def test_ill_conditioned_gaussian(condition: float):
    g = targets.ill_conditioned_gaussian(5, condition)
    assert torch.equal(g.mean, torch.zeros(5).double())
    close(g.cov.diag(), [condition ** (-k / 4) for k in range(5)])
    assert torch.count_nonzero(g.cov) == 5
    turned = targets.ill_conditioned_gaussian(5, condition, rotated=True)
    close(torch.linalg.eigvalsh(turned.cov), g.cov.diag().flip(0), 1e-13)
    if condition > 1:
        assert torch.count_nonzero(turned.cov) == 25
        assert not torch.equal(turned.cov, targets.ill_conditioned_gaussian(5, condition, rotated=True, seed=1).cov)


@pytest.mark.parametrize("std", [0.0, 0.1])
def test_low_rank_gaussian(std: float):
    g = targets.low_rank_gaussian(7, 3, std)
    close(torch.linalg.eigvalsh(g.cov), [std**2] * 4 + [1.0] * 3, 1e-14)
    assert g.has_point_masses == (std == 0)
    assert torch.equal(g.mean, torch.zeros(7).double())
    assert torch.isfinite(g.under(VP()).score(0.5, g.sample(3))).all()
    close(torch.linalg.eigvalsh(targets.low_rank_gaussian(3, 3, std).cov), [1.0] * 3, 1e-14)


def test_heavy_clusters():
    g = targets.heavy_clusters(4, 1000.0, (0.1, 0.8), dim=3, radius=2.0)
    close(g.weights / g.weights[0], [1.0, 0.1, 0.01, 0.001])
    close(g.components.variances[:, 0].sqrt(), [0.1, 0.2, 0.4, 0.8])
    close(g.means.norm(dim=1), [2.0] * 4)
    close(g.mean, (g.weights[:, None] * g.means).sum(0))
    plane = targets.heavy_clusters()
    close(plane.cov, by_points(plane, plane.components.variances[:, 0].numpy()))
    assert not torch.equal(plane.means, targets.heavy_clusters(seed=1).means)
    assert targets.heavy_clusters(1).cov.shape == (2, 2)


def test_lattice():
    g = targets.lattice(5, 2.0, 0.1)
    close(g.mean, [0.0, 0.0])
    close(g.cov, (4 * (25 - 1) / 12 + 0.01) * np.eye(2))
    assert len(g.means.unique(dim=0)) == 25
    close(targets.lattice(1, 2.0, 0.1).cov, 0.01 * np.eye(2))


def test_checkerboard():
    g = targets.checkerboard(4, 4, 2.0, 0.1)
    assert g.means.shape == (8 * 16, 2)
    close(g.mean, [0.0, 0.0])
    # Sixteen places a side at distance 1/4, and as many dark cells on the diagonals as off: E xy = 1/4.
    variance = (16**2 - 1) / 12 / 16 + 0.01
    close(g.cov, [[variance, 0.25], [0.25, variance]])
    cells = torch.floor(g.means + 2).long()
    assert (cells.sum(1) % 2 == 0).all()
    assert torch.unique(cells, dim=0, return_counts=True)[1].tolist() == [16] * 8
    close(targets.checkerboard(1, 1, 2.0, 0.1).means, [[0.0, 0.0]])


def test_spiral():
    g = targets.spiral(96, 2, 1.5, 4.0, 0.08)
    distances = g.means.norm(dim=1).reshape(2, 48)
    close(distances, np.tile(4 * np.arange(1, 49) / 48, (2, 1)))
    close(g.means[:48], -g.means[48:])  # two arms face each other
    close(g.mean, [0.0, 0.0])
    close(g.cov, by_points(g, np.full(96, 0.08**2)))
    u = np.arange(1, 49) / 48
    xx = (16 * u**2 * np.cos(3 * math.pi * u) ** 2).mean() + 0.08**2
    assert float(g.cov[0, 0]) == pytest.approx(xx, rel=1e-12)
    assert float(g.cov.trace()) == pytest.approx(16 * (u**2).mean() + 2 * 0.08**2, rel=1e-12)
    assert len(targets.spiral(9, 3).means) == 9


@pytest.mark.parametrize("name", ["lattice", "checkerboard", "spiral"])
def test_separatrices_are_many(name: str):
    """At some noise the data prediction of many points changes faster than that of one Gaussian ever does."""
    target, process = getattr(targets, name)(), VP()
    model, shares = target.under(process), []
    for half_log_snr in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5):
        t = float(process.time_at(half_log_snr))
        gain = torch.linalg.matrix_norm(model.jacobian(t, model.sample(t, 200)), 2) * process.alpha(t)
        shares.append(float((gain > 1.3).double().mean()))  # below 1 for one Gaussian
    assert max(shares) > 0.1, shares


WRONG: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("ill_conditioned_gaussian", {"dim": 1}, OptionError),
    ("ill_conditioned_gaussian", {"condition": 0.5}, OptionError),
    ("low_rank_gaussian", {"dim": 3, "rank": 4}, OptionError),
    ("low_rank_gaussian", {"std": 2.0}, OptionError),
    ("low_rank_gaussian", {"rank": 0}, OptionError),
    ("heavy_clusters", {"weight_ratio": 0.1}, OptionError),
    ("heavy_clusters", {"std": (0.0, 1.0)}, OptionError),
    ("lattice", {"side": 0}, OptionError),
    ("lattice", {"std": -1.0}, OptionError),
    ("checkerboard", {"cells": 2.5}, InterfaceError),
    ("checkerboard", {"half_width": 0.0}, OptionError),
    ("spiral", {"components": 9, "arms": 2}, OptionError),
    ("spiral", {"turns": math.nan}, OptionError),
]


@pytest.mark.parametrize(("name", "options", "error"), WRONG)
def test_what_is_refused(name: str, options: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        getattr(targets, name)(**options)
