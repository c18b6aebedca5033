"""The mixture itself: parameters, moments, samples, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sdekit import targets
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.processes import VP
from sdekit.targets import GaussianMixture

KINDS = ("common", "isotropic", "diagonal", "full", "low_rank")


@pytest.mark.parametrize("kind", KINDS)
def test_density_is_scipys(loops: Callable, kind: str) -> None:
    g = targets.random_mixture(3, 4, 1, covariance=kind)
    form = loops(g)
    x = g.sample(10, seed=2)
    densities = [multivariate_normal(m, c).pdf(x.numpy()) for m, c in zip(form.means, form.covariances, strict=True)]
    np.testing.assert_allclose(g.log_prob(x).exp().numpy(), form.weights @ np.array(densities), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_moments(loops: Callable, kind: str) -> None:
    g = targets.random_mixture(3, 4, 1, covariance=kind)
    form = loops(g)
    mean = form.weights @ form.means
    second = sum(w * (c + np.outer(m, m)) for w, m, c in zip(form.weights, form.means, form.covariances, strict=True))
    np.testing.assert_allclose(g.mean.numpy(), mean, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(g.cov.numpy(), second - np.outer(mean, mean), rtol=1e-12, atol=1e-13)


def check_samples(g: GaussianMixture, mean: torch.Tensor, cov: torch.Tensor, n: int = 20_000) -> None:
    x = g.sample(n, seed=5)
    centred = x - mean
    assert (centred.mean(0) / torch.sqrt(torch.diagonal(cov) / n)).abs().max() < 4.5
    products = centred[:, :, None] * centred[:, None, :]
    assert ((products.mean(0) - cov) / (products.std(0) / math.sqrt(n))).abs().max() < 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind: str) -> None:
    g = targets.random_mixture(3, 4, 1, covariance=kind)
    check_samples(g, g.mean, g.cov)
    with pytest.raises(AssertionError):  # standard deviations taken for variances
        check_samples(g, g.mean, g.cov + 0.1 * torch.eye(3))


def test_components_are_drawn_with_their_weights() -> None:
    g = GaussianMixture([1.0, 2.0, 7.0], [[0.0], [10.0], [20.0]], 0.01)
    x = g.sample(20_000)
    shares = torch.tensor([((x - m).abs() < 5).double().mean() for m in (0, 10, 20)])
    weights = torch.tensor([0.1, 0.2, 0.7])
    assert ((shares - weights) / torch.sqrt(weights * (1 - weights) / 20_000)).abs().max() < 4.5


def test_a_sample_depends_on_its_seed_and_index_alone() -> None:
    g = targets.random_mixture(2, 3, 0, covariance="full")
    before = torch.random.get_rng_state()
    x = g.sample(50, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(x[:7], g.sample(7, seed=3), rtol=1e-14, atol=1e-14)
    assert not torch.equal(x, g.sample(50, seed=4))
    m = g.under(VP())
    torch.testing.assert_close(m.sample(0.0, 50, seed=3), x, rtol=0, atol=1e-14)
    noise = (m.sample(1.0, 2000, seed=3) - float(VP().alpha(1.0)) * g.sample(2000, seed=3)).flatten()
    correlation = torch.corrcoef(torch.stack([noise, g.sample(2000, seed=3).flatten()]))[0, 1]
    assert correlation.abs() < 4.5 / math.sqrt(4000)


def test_shapes_of_events_are_kept() -> None:
    means = torch.arange(16.0).reshape(2, 2, 4)
    variances = 0.1 + torch.rand(2, 2, 4)
    image = GaussianMixture([1, 3], means, variances)
    flat = GaussianMixture([1, 3], means.flatten(1), variances.flatten(1))
    assert image.sample(3).shape == (3, 2, 4)
    assert image.mean.shape == (2, 4)
    assert image.cov.shape == (8, 8)
    x = image.sample(5, seed=1)
    torch.testing.assert_close(image.log_prob(x), flat.log_prob(x.flatten(1)))
    torch.testing.assert_close(image.under(VP()).score(0.3, x).flatten(1), flat.under(VP()).score(0.3, x.flatten(1)))
    full = GaussianMixture([1, 3], means, torch.diag_embed(variances.flatten(1)))
    torch.testing.assert_close(full.under(VP()).score(0.3, x), image.under(VP()).score(0.3, x), rtol=1e-10, atol=1e-10)


def test_weights_are_normalised_and_parameters_are_copies() -> None:
    means = torch.zeros(2, 3, dtype=torch.float64)
    g = GaussianMixture([1, 3], means, 1.0)
    assert g.weights.tolist() == [0.25, 0.75]
    assert g.dtype == torch.float64
    means += 1
    assert float(g.means.abs().max()) == 0


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "error", "text"),
    [
        ([1, 0], [[0.0], [1.0]], 1.0, OptionError, "weights"),
        ([1, math.nan], [[0.0], [1.0]], 1.0, OptionError, "weights"),
        ([1], [[0.0], [1.0]], 1.0, ShapeError, "weights"),
        ([1, 1], [0.0, 1.0], 1.0, ShapeError, r"\(K, 1\)"),
        ([1, 1], [[0.0], [math.inf]], 1.0, OptionError, "means"),
        ([1, 1], [[0.0], [1.0]], -1.0, OptionError, "variance"),
        ([1, 1], [[0.0], [1.0]], [1.0, -1.0], OptionError, "variance"),
        ([1, 1], [[0.0], [1.0]], [1.0, 1.0, 1.0], ShapeError, "covariances"),
        ([1], [[0.0, 1.0]], [[[1.0, 0.5], [0.2, 1.0]]], OptionError, "symmetric"),
        ([1], [[0.0, 1.0]], [[[1.0, 2.0], [2.0, 1.0]]], OptionError, "variance"),
        ([1], [["a", "b"]], 1.0, InterfaceError, "means"),
        ([1], [[0.0, 1.0]], None, InterfaceError, "covariances"),
        ([1], np.ones((1, 2)) + 1j, 1.0, InterfaceError, "means: got ndarray of dtype complex128"),
        ([1], [[1.0, 1j]], 1.0, InterfaceError, "means"),
        ([1], torch.ones(1, 2), np.eye(2)[None] + 1j, InterfaceError, "covariances"),
        (np.ones(1, np.complex64), torch.ones(1, 2), 1.0, InterfaceError, "weights"),
        ([1], torch.ones(1, 2, dtype=torch.complex64), 1.0, InterfaceError, "means"),
    ],
)
def test_refusals(weights: Any, means: Any, covariances: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        GaussianMixture(weights, means, covariances)


@pytest.mark.parametrize("n", [-3, 2.5, "3", True, None])
def test_how_many_samples_is_a_whole_number(n: Any) -> None:
    g = targets.ring()
    for draw in (g.sample, lambda n: g.under(VP()).sample(0.5, n)):
        with pytest.raises((OptionError, InterfaceError), match=r"^n: got"):
            draw(n)
    assert g.sample(0).shape == (0, 2)


def test_refuses_other_dtypes_and_processes() -> None:
    g = targets.ring()
    with pytest.raises(OptionError, match="float32"):
        g.to(dtype=torch.float16)
    with pytest.raises(InterfaceError, match="affine"):
        g.under(torch.nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="sigma = 0"):
        targets.empirical(torch.zeros(2, 3)).log_prob(torch.zeros(1, 3))
    with pytest.raises(ShapeError, match=r"\(B, 2\)"):
        g.log_prob(torch.zeros(4, 3))


def test_singular_full_covariances_are_those_of_a_subspace() -> None:
    direction = torch.tensor([1.0, 2.0, -1.0]).double()
    g = targets.gaussian(torch.zeros(3), torch.outer(direction, direction))
    assert g.has_point_masses
    x = g.sample(10)
    torch.testing.assert_close(x, (x @ direction / 6)[:, None] * direction, atol=1e-12, rtol=0)
    m = g.under(VP())
    assert m.score(0.1, x).isfinite().all()
    with pytest.raises(OptionError, match="sigma = 0"):
        m.score(0.0, x)


@pytest.mark.parametrize(
    ("factors", "diagonal", "argument"),
    [
        (np.ones((3, 4)), 0.1, "factors"),
        (np.ones((2, 4, 1)), 0.1, "factors"),
        (np.ones((3, 4, 5)), 0.1, "factors"),
        (np.full((3, 4, 1), np.nan), 0.1, "factors"),
        ("ones", 0.1, "factors"),
        (np.ones((3, 4, 2)), np.ones(4), "diagonal"),
        (np.ones((3, 4, 2)), -0.1, "diagonal"),
        (np.ones((3, 4, 2)), None, "diagonal"),
    ],
)
def test_low_rank_refusals(factors: Any, diagonal: Any, argument: str) -> None:
    with pytest.raises((OptionError, ShapeError, InterfaceError)) as caught:
        GaussianMixture(np.ones(3), np.zeros((3, 4)), targets.LowRank(factors, diagonal))
    assert caught.value.argument == argument


def test_low_rank_is_the_full_covariance() -> None:
    factors = np.random.default_rng(0).normal(size=(2, 4, 3))
    factors[1, :, 2] = factors[1, :, 0]  # of rank 2
    low = GaussianMixture([1.0, 3.0], np.eye(2, 4), targets.LowRank(factors, [0.1, 0.2]))
    rest = np.array([0.1, 0.2])[:, None, None] * np.eye(4)
    full = GaussianMixture([1.0, 3.0], np.eye(2, 4), factors @ factors.transpose(0, 2, 1) + rest)
    torch.testing.assert_close(low.cov, full.cov, rtol=1e-12, atol=1e-12)
    x = full.sample(9, seed=1)
    for name in ("data", "score", "v", "jacobian", "log_prob"):
        answers = [getattr(g.under(VP()), name)(0.4, x) for g in (low, full)]
        torch.testing.assert_close(*answers, rtol=1e-11, atol=1e-11)
    assert "low rank" in repr(low)
    check_samples(low, full.mean, full.cov)
