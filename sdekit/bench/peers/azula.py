"""azula's samplers, as released, on the grid's own levels in place of equal steps in time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdekit.bench.peers.base import Peer, Trial, normals_from

__all__ = ["PEERS"]

PACKAGE = "azula"
_INSTALL = "pip install azula"


def _run(trial: Trial, sampler: str, options: dict[str, Any]) -> Tensor:
    """In the variance-exploding form, where azula's time is the level itself."""
    samplers: Any = importlib.import_module("azula.sample")
    denoisers: Any = importlib.import_module("azula.denoise")

    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    class Exact(denoisers.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            return denoisers.DiracPosterior(trial.data(t, x_t))

    cls = getattr(samplers, sampler)
    # The times are a property of the class.
    on_grid = type(sampler, (cls,), {"timesteps": property(lambda self: trial.levels)})
    with normals_from(trial, "torch", "randn_like"):
        steps = len(trial.levels) - 1
        return on_grid(Exact(), steps=steps, silent=True, dtype=torch.float64, **options)(trial.y)


def _peers() -> Iterator[Peer]:
    found: dict[str, tuple[str, str, str, dict[str, Any]]] = {
        "DDIM": ("DDIM", "deterministic", "DDIMSampler", {}),
        "Euler": ("Runge-Kutta", "deterministic", "EulerSampler", {}),
        "Heun": ("Runge-Kutta", "deterministic", "HeunSampler", {}),
        "zAB": ("Adams-Bashforth", "deterministic", "zABSampler", {"order": 3}),
        "vAB": ("Adams-Bashforth", "deterministic", "vABSampler", {"order": 3}),
        "zEAB": ("exponential Adams", "deterministic", "zEABSampler", {"order": 3}),
        "xEAB": ("exponential Adams", "deterministic", "xEABSampler", {"order": 3}),
        "REAB": ("exponential Adams", "deterministic", "REABSampler", {"order": 3}),
        "DDPM": ("DDPM", "weak", "DDPMSampler", {}),
        "Ito": ("Euler-Maruyama", "weak", "ItoSampler", {}),
    }
    for name, (family, kind, sampler, options) in found.items():
        run = partial(_run, sampler=sampler, options=options)
        yield Peer(f"{PACKAGE}:{name}", PACKAGE, _INSTALL, family, kind, run)


PEERS = tuple(_peers())
