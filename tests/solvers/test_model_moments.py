"""Moments that a model knows: exact on Gaussians at any time, close to those of any data where the noise is large."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdekit
from sdekit import targets
from sdekit.errors import ModelOutputError, OptionError
from sdekit.plan.coefficients import Block, Direction
from sdekit.solvers.model_moments import moments_of_model

MEAN = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.4, 0.1], [0.4, 0.5, 0.0], [0.1, 0.0, 2.0]], dtype=torch.float64)
PROCESSES = [sdekit.VP(), sdekit.EDM(), sdekit.RectifiedFlow()]


@pytest.mark.parametrize("t", [None, 0.4])
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_gaussians_have_their_own(process, t):
    full = moments_of_model(targets.gaussian(MEAN, COV).under(process), (3,), "covariance", t=t)
    assert isinstance(full.variance, Block) and np.allclose(full.variance.matrix, COV, rtol=1e-8, atol=1e-8)
    each = moments_of_model(targets.gaussian(MEAN, COV.diagonal()).under(process), (3,), "direction", t=t)
    assert isinstance(each.variance, Direction) and np.allclose(each.variance.values, COV.diagonal(), rtol=1e-8)
    one = moments_of_model(targets.gaussian(MEAN, 0.7).under(process), (3,), t=t)
    assert one.variance == pytest.approx(0.7, rel=1e-8)
    for found in (full, each, one):
        assert torch.allclose(found.mean, MEAN, rtol=1e-8)


def test_samples_with_more_numbers_than_probes():
    mean = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 3, 4)
    level = sdekit.EDM().levels([5.0])[0]
    k = 0.7 / (0.7 + level.rho**2)
    model = sdekit.Model(lambda x, t: mean + k * (x - mean), sdekit.EDM(), "data")
    for per in ("sample", "direction"):
        found = moments_of_model(model, (2, 3, 4), per, t=5.0, probes=7)
        assert np.allclose(getattr(found.variance, "values", found.variance), 0.7, rtol=1e-10)
        assert found.mean.shape == mean.shape and torch.allclose(found.mean, mean, rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_other_data_have_nearly_theirs(process):
    data = targets.ring(std=0.3)
    found = moments_of_model(data.under(process), (2,), "covariance")
    assert isinstance(found.variance, Block) and np.allclose(found.variance.matrix, data.cov, atol=0.05)
    assert torch.allclose(found.mean, data.mean.to(torch.float64), atol=0.05)
    with pytest.raises(ModelOutputError, match="as for a Gaussian"):
        moments_of_model(data.under(process), (2,), t=float(process.time_at(1.0)))


def test_what_cannot_be_asked_is_refused():
    model = targets.ring().under(sdekit.RectifiedFlow())
    for options, argument in (({"t": 1.0}, "t"), ({"per": "pixel"}, "per"), ({"probes": 0}, "probes")):
        with pytest.raises(OptionError, match=argument):
            moments_of_model(model, (2,), **options)
    with pytest.raises(OptionError, match="per"):
        moments_of_model(model, (2, 2), "covariance")
    blind = sdekit.Model(lambda x, t: x.detach(), sdekit.VP(), "data")
    with pytest.raises(ModelOutputError, match="gradient"):
        moments_of_model(blind, (2,))
    steep = sdekit.Model(lambda x, t: 3e3 * x, sdekit.VP(), "data")
    with pytest.raises(ModelOutputError, match="as for a Gaussian"):
        moments_of_model(steep, (2,))
