"""Mixtures with the fused softmax and without it: the same answers, to rounding."""

from __future__ import annotations

import pytest
import torch

from sdekit import targets
from sdekit.math import softmax
from sdekit.processes import VP
from tests.math.test_native import compiled


@compiled
@pytest.mark.parametrize("covariance", ["common", "isotropic", "diagonal"])
@pytest.mark.parametrize("batch, components, dim", [(4099, 8, 2), (1030, 64, 16), (300, 100, 40)])
@pytest.mark.parametrize("prediction", ["data", "noise", "score"])
def test_the_kernel_changes_no_answer(covariance, batch, components, dim, prediction, monkeypatch):
    monkeypatch.setattr(softmax, "_THREADS", torch.get_num_threads())
    model = targets.random_mixture(dim, components, 0, covariance=covariance).under(VP())
    x, calls, run = model.sample(0.4, batch, seed=1), [], softmax._run
    monkeypatch.setattr(softmax, "_run", lambda *args: (calls.append(1), run(*args)))
    with torch.no_grad():
        fused = getattr(model, prediction)(0.4, x)
        assert calls
        monkeypatch.setattr(softmax.NATIVE, "get", lambda numbers: None)
        plain = getattr(model, prediction)(0.4, x)
    assert torch.allclose(fused, plain, rtol=1e-11, atol=1e-12)
