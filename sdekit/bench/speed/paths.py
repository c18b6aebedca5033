"""SDEs and noises for both sdekit and torchsde: the same functions of (t, x), on the same paths, with calls counted."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import torch
from torch import Tensor

import sdekit
from sdekit.noise import PathNoise

__all__ = ["BATCH", "SIZE", "Drawn", "Matrix", "Mixed", "Sinh", "with_torchsde"]

BATCH, SIZE = 1024, 16


class Sinh:
    """dx = (sqrt(1 + x^2) + x / 2) dt + sqrt(1 + x^2) dW, solved by x = sinh(W + t + a)."""

    noise_type, sde_type, additive = "diagonal", "ito", False

    def __init__(self) -> None:
        self.calls = [0, 0]

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return torch.addcmul(torch.ones_like(x), x, x).sqrt_().add_(x, alpha=0.5)

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return torch.addcmul(torch.ones_like(x), x, x).sqrt_()

    def sdekit(self) -> sdekit.SDE:
        """The SDE as sdekit takes it."""
        return sdekit.make_sde(self.f, self.g, "diagonal")


class Matrix:
    """dx = -x dt + G(t) dW."""

    noise_type, sde_type, additive = "additive", "ito", True

    def __init__(self) -> None:
        self.calls = [0, 0]
        self.matrix = torch.eye(SIZE) + 0.1 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(3))

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return -x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return (self.matrix * (1 + t.reshape(-1)[:1])).expand(len(x), SIZE, SIZE)

    def sdekit(self) -> sdekit.SDE:
        """The SDE as sdekit takes it."""
        return sdekit.make_sde(self.f, self.g, "general", additive=True)


class Mixed:
    """dx = (cos(t) sin(x) - x / 2) dt + (0.6 + 0.4 sin(x + t)) dW; its Ito and its Stratonovich form."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.cos(t) * torch.sin(x) - 0.5 * x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        return 0.6 + 0.4 * torch.sin(x + t)

    def slope(self, t: Tensor, x: Tensor) -> Tensor:
        """g'."""
        return 0.4 * torch.cos(x + t)

    def centred(self, t: Tensor, x: Tensor) -> Tensor:
        """The drift of the Stratonovich form."""
        sine, cosine = torch.sin(x + t), torch.cos(x + t)
        return torch.cos(t) * torch.sin(x) - 0.5 * x - 0.2 * (0.6 + 0.4 * sine) * cosine

    def forms(self) -> dict[str, sdekit.SDE]:
        """As sdekit takes it: Ito, Ito with the derivative of g, Stratonovich."""
        return {
            "Ito": sdekit.make_sde(self.f, self.g),
            "Ito, g'": sdekit.make_sde(self.f, self.g, diffusion_derivative=self.slope),
            "Stratonovich": sdekit.make_sde(self.centred, self.g, sde_type="stratonovich"),
        }


class Drawn:
    """Normals drawn before, on equal steps of [0, 1]: a noise source for sdekit, and a Brownian motion for torchsde.

    Args:
        normals: of each step those of W and of H, (steps, 2, B, d).
    """

    levy_area_approximation = "space-time"

    def __init__(self, normals: Tensor) -> None:
        self.normals, self.steps, self.shape = normals, len(normals), tuple(normals.shape[2:])
        self.dtype, self.device = normals.dtype, normals.device

    @classmethod
    def fresh(cls, steps: int) -> Drawn:
        """From a seed, (BATCH, SIZE), float32."""
        return cls(torch.randn(steps, 2, BATCH, SIZE, generator=torch.Generator().manual_seed(1)))

    @classmethod
    def walked(cls, steps: int, shape: tuple[int, int]) -> Drawn:
        """Those of one Brownian path, whatever the steps; float64."""
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
        noise = PathNoise(3, torch.arange(shape[0]), times, streams=2)
        normals = torch.zeros(steps, 2, *shape, dtype=torch.float64)
        for step, stream in itertools.product(range(steps), range(2)):
            noise.fill(normals[step, stream], step, stream)
        return cls(normals)

    def fill(self, out: Tensor, step: int, stream: int) -> Tensor:
        """The normals of a step: stream 0 for W, stream 1 for H."""
        return out.copy_(self.normals[step, stream])

    def __call__(self, t0: Any, t1: Any, return_U: bool = False) -> Any:
        w, n = self.normals[min(round(float(t0) * self.steps), self.steps - 1)]
        h = 1 / self.steps
        w = w * h**0.5
        return (w, torch.add(w, n, alpha=(h / 3) ** 0.5) * (h / 2)) if return_U else w

    @property
    def end(self) -> Tensor:
        """W at 1."""
        return self.normals[:, 0].sum(0) / self.steps**0.5


def with_torchsde(sde: Any, x: Tensor, steps: int, method: str, path: Any = None) -> Tensor:
    """Solve on [0, 1]; on a Brownian path of its own unless one is given."""
    torchsde: Any = importlib.import_module("torchsde")
    if path is None:
        path = torchsde.BrownianInterval(0.0, 1.0, size=x.shape, levy_area_approximation="space-time")
    return torchsde.sdeint(sde, x, torch.tensor([0.0, 1.0]), bm=path, method=method, dt=1 / steps)[-1]
