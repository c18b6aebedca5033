"""torchsde's solvers on the reverse SDE, as released: dy = 2 (y - E[x_0 | y]) / rho drho + sqrt(2 rho) dW, downwards.

That is the variance-exploding form, with the level itself for time; its noise is additive, and declared to be. torchsde
takes equal steps between the times that it is asked for, so that each step of the grid is a solve of its own, in
ascending time -rho. Ito's and Stratonovich's equations are the same one.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdekit.bench.peers.base import Peer, Trial

__all__ = ["PEERS"]

PACKAGE = "torchsde"
_INSTALL = "pip install torchsde"


def _run(trial: Trial, method: str, calculus: str) -> Tensor:
    torchsde: Any = importlib.import_module("torchsde")
    sde = _Reverse(trial, calculus)
    y = trial.y.reshape(-1, 1)
    levels = [float(rho) for rho in trial.levels]
    for start, end in itertools.pairwise(levels):
        times = torch.tensor([-start, -end], dtype=torch.float64)
        # A little longer than the step, which then ends at its end itself, with no remainder by rounding.
        dt = start - end + 4 * math.ulp(start)
        y = torchsde.sdeint(sde, y, times, bm=_Motion(trial, start - end), method=method, dt=dt)[-1]
    return y.reshape(trial.y.shape)


class _Reverse:
    """Every entry of the state is a sample of its own to torchsde: (B, 1), with one Brownian motion each."""

    noise_type = "additive"

    def __init__(self, trial: Trial, calculus: str) -> None:
        self.trial, self.sde_type = trial, calculus
        self.last: tuple[float, Tensor, Tensor] | None = None

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift in s = -rho. torchsde asks for it once to see its shape, and at the same place in the step."""
        rho = -float(s)
        if self.last is None or self.last[0] != rho or self.last[1] is not y:
            data = self.trial.data(rho, y.reshape(self.trial.y.shape)).reshape(y.shape)
            self.last = (rho, y, 2 / rho * (data - y))
        return self.last[2]

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """(B, 1, 1)."""
        return torch.full((len(y), 1, 1), math.sqrt(-2 * float(s)), dtype=y.dtype)


class _Motion:
    """The Brownian motion over one step: its increment W, and where it is asked for the integral U = h (W / 2 + H)."""

    levy_area_approximation = "space-time"

    def __init__(self, trial: Trial, h: float) -> None:
        self.trial, self.h = trial, h
        self.shape, self.dtype, self.device = (trial.y.numel(), 1), trial.y.dtype, trial.y.device
        self.w: Tensor | None = None
        self.u: Tensor | None = None

    def size(self) -> tuple[int, int]:
        """(B, 1)."""
        return self.shape

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        w = self.w = math.sqrt(self.h) * self._normals() if self.w is None else self.w
        if not return_U:
            return w
        if self.u is None:
            self.u = self.h * (w / 2 + math.sqrt(self.h / 12) * self._normals())
        return w, self.u

    def _normals(self) -> Tensor:
        normals = self.trial.normals
        return torch.zeros(self.shape, dtype=self.dtype) if normals is None else normals().reshape(self.shape)


def _peers() -> Iterator[Peer]:
    found = {
        "euler": ("Euler-Maruyama", "ito"),
        "srk": ("stochastic Runge-Kutta", "ito"),
        "heun": ("stochastic Runge-Kutta", "stratonovich"),
        "midpoint": ("stochastic Runge-Kutta", "stratonovich"),
    }
    for name, (family, calculus) in found.items():
        run = partial(_run, method=name, calculus=calculus)
        note = "of the reverse SDE in the level rho"
        yield Peer(f"{PACKAGE}:{name}", PACKAGE, _INSTALL, family, "weak", run, note)


PEERS = tuple(_peers())
