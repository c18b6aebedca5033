"""What a sampler of another library is run on: an exact denoiser, the levels of a grid, a start and normals."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import MissingPackageError

__all__ = ["Peer", "Trial", "installed", "normals_from"]


@dataclass
class Trial:
    """One run: from y = x_0 + rho eps at the first level to the last, rho = sigma / alpha.

    Attributes:
        denoise: E[x_0 | y] at a level rho, exactly; called with (rho, y).
        levels: rho, (steps + 1,) float64, decreasing.
        y: the start, (B, *shape) float64.
        normals: what the sampler draws, noise by noise; None for zeros, which deterministic ones multiply by zero.
        calls: how often the denoiser was asked.
    """

    denoise: Callable[[float, Tensor], Tensor]
    levels: Tensor
    y: Tensor
    normals: Callable[[], Tensor] | None = None
    calls: int = field(default=0, init=False)

    def data(self, rho: Any, y: Tensor) -> Tensor:
        """E[x_0 | y], counted."""
        self.calls += 1
        return self.denoise(float(torch.as_tensor(rho, dtype=torch.float64).flatten()[0]), y)


@dataclass(frozen=True)
class Peer:
    """A sampler of another library.

    Attributes:
        name: "k-diffusion:dpmpp_2m".
        package: the distribution that it is from.
        install: the command that installs it.
        family: of methods, as in the registry.
        kind: "deterministic" or "weak".
        run: the sampler; gives y at the last level.
        note: what is not as a user would have it.
    """

    name: str
    package: str
    install: str
    family: str
    kind: str
    run: Callable[[Trial], Tensor]
    note: str = ""

    def require(self) -> str:
        """The package's version. Raises MissingPackageError, which says how to install it."""
        found = installed(self.package)
        if found is None:
            raise MissingPackageError(
                "solver", got=self.name, expected=f"{self.package}, installed", fix=f"{self.install}."
            )
        return found

    def calls(self, steps: int) -> int:
        """How often the model is called in so many steps, counted on a denoiser that is zero."""
        levels = torch.linspace(1.0, -1.0, steps + 1, dtype=torch.float64).exp()
        y = torch.ones(1, 1, dtype=torch.float64)
        trial = Trial(lambda rho, y: torch.zeros_like(y), levels, y, lambda: torch.zeros_like(y))
        self.run(trial)
        return trial.calls


def installed(package: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def normals_from(trial: Trial, module: str, function: str) -> Iterator[None]:
    """Inside, a module's function that draws normals draws those of the trial."""
    normals = trial.normals

    def drawn(*args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros_like(trial.y) if normals is None else normals()

    owner: Any = importlib.import_module(module)
    if not hasattr(owner, function):
        yield
        return
    original = getattr(owner, function)
    setattr(owner, function, drawn)
    try:
        yield
    finally:
        setattr(owner, function, original)
