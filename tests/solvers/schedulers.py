"""Schedulers of diffusers run on our targets, where that is installed."""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks import peers
from sdekit import EDM, VP, Model, targets

__all__ = ["Run", "diffusers", "scheduled"]

STEPS = 10


class Run(NamedTuple):
    """What a scheduler made of x, and the same problem for us."""

    x: Tensor
    noises: list[Tensor]
    """Of the steps."""
    end: Tensor
    process: VP
    model: Model
    times: Tensor


def diffusers() -> Any:
    """The package; skips the test where it is not installed."""
    if peers.installed("diffusers") is None:
        pytest.skip("diffusers is not installed; make bench-speed installs it")
    return importlib.import_module("diffusers")


def scheduled(scheduler: Any) -> Run:
    """Ten steps of a scheduler of sigmas, with prediction_type="sample", on a mixture."""
    target, process = targets.random_mixture(6, 10, 0), VP(beta_max=30.0)
    generator = torch.Generator().manual_seed(0)
    x, *noises = (torch.randn(16, 6, generator=generator, dtype=torch.float64) for _ in range(STEPS + 1))
    sigmas = torch.linspace(math.log(14.0), math.log(0.05), STEPS + 1, dtype=torch.float64).exp()
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = sigmas
    exact, end, drawn = target.under(EDM()), x, iter(noises)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            importlib.import_module(type(scheduler).__module__), "randn_tensor", lambda *args, **kwargs: next(drawn)
        )
        for i, t in enumerate(scheduler.timesteps):
            data = exact.data(float(sigmas[i]), end * math.sqrt(1 + float(sigmas[i]) ** 2))
            end = scheduler.step(data, t, end).prev_sample
    return Run(x, noises, end, process, target.under(process), process.time_at(-torch.log(sigmas)))
