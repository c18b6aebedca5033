"""Stratified samples have the mixture's law, and the counts that they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdekit import EDM, VP, metrics, targets
from sdekit.errors import OptionError
from sdekit.targets import GaussianMixture, LowRank


def nearest(target: GaussianMixture, x: torch.Tensor) -> list[int]:
    return torch.cdist(x, target.means).argmin(1).bincount(minlength=len(target.means)).tolist()


def test_counts_are_those_of_the_weights():
    target = GaussianMixture([1.0, 2.0, 4.0, 3.0], torch.tensor([[0.0, 0], [9, 0], [0, 9], [9, 9]]), 0.01)
    assert nearest(target, metrics.stratified_sample(target, 1000)) == [100, 200, 400, 300]
    for n in (1, 7, 33):
        counts = np.array(nearest(target, metrics.stratified_sample(target, n, seed=5)))
        assert counts.sum() == n
        assert (np.abs(counts - n * np.array([0.1, 0.2, 0.4, 0.3])) < 1).all()
    assert nearest(target, target.sample(1000)) != [100, 200, 400, 300]


@pytest.mark.parametrize("covariance", ["isotropic", "diagonal", "full", "low_rank"])
def test_the_law_is_the_mixture(covariance: str):
    target = targets.random_mixture(3, 4, 1, covariance=covariance)
    x = metrics.stratified_sample(target, 10_000)
    torch.testing.assert_close(x.mean(0), target.mean, atol=0.015, rtol=0)
    torch.testing.assert_close(x.T.cov(), target.cov, atol=0.03, rtol=0)
    assert torch.equal(x, metrics.stratified_sample(target, 10_000))
    assert not torch.equal(x, metrics.stratified_sample(target, 10_000, seed=1))


def test_every_draw_has_the_law():
    """The offset is uniform: over seeds the first of two draws is of each component as often as it should."""
    target = GaussianMixture([0.3, 0.7], [[0.0], [10.0]], 0.01)
    first = [float(metrics.stratified_sample(target, 2, seed)[0, 0]) < 5 for seed in range(400)]
    assert np.mean(first) == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 400))


def test_shapes_and_point_masses():
    target = GaussianMixture([1.0, 1.0], torch.arange(12.0).reshape(2, 2, 3), 0.0)
    x = metrics.stratified_sample(target, 4)
    assert torch.equal(x, target.means.repeat_interleave(2, 0))
    low = GaussianMixture([1.0], [[0.0, 0.0]], LowRank([[[2.0], [0.0]]], 0.0))
    x = metrics.stratified_sample(low, 5000)
    assert x[:, 1].abs().max() == 0
    assert float(x[:, 0].std()) == pytest.approx(2.0, rel=0.05)
    with pytest.raises(OptionError):
        metrics.stratified_sample(target, 0)


def test_marginals():
    target = targets.ring()
    model = target.under(VP())
    x = metrics.stratified_marginal(model, 0.3, 20_000)
    alpha, sigma = float(VP().alpha(0.3)), float(VP().sigma(0.3))
    expected = alpha**2 * target.cov + sigma**2 * torch.eye(2)
    torch.testing.assert_close(x.T.cov(), expected, atol=0.15, rtol=0)
    y = metrics.stratified_marginal(target.under(EDM()), 1e-9, 16)
    torch.testing.assert_close(y, metrics.stratified_sample(target, 16), atol=1e-7, rtol=0)


def test_stratified_samples_are_closer_to_the_law():
    """Counts drawn at random dominate the distance of samples of separate components."""
    target = targets.ring(std=0.05)
    plain = metrics.noise_floor("sliced_w2", target, 400, 9, projections=32)
    even = metrics.noise_floor(
        "sliced_w2", lambda n, s: metrics.stratified_sample(target, n, s), 400, 9, projections=32
    )
    assert even.mean < 0.25 * plain.mean
