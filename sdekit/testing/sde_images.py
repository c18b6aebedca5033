"""SDEs with solutions in closed form: images x = phi(y), in both calculi and both directions of time.

Where y solves dy = b(t, y) dt + sum_k s_k(t, y) dB_k, in which Ito and Stratonovich agree, x solves by the chain rule a
Stratonovich SDE of drift J b and diffusion J s_k, J = d phi / d y. The Ito drift is larger by half the sum over k of
the second derivatives of phi along s_k, or smaller by it where time runs downwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdekit.sde import SDE
from sdekit.testing.sde_path import SampledPath

__all__ = ["Base", "Coordinatewise", "Heisenberg", "ImageMap", "ImageSDE", "Linear", "Sheared", "Twisted"]


class ImageMap(ABC):
    """phi, a map of R^n onto its image; all tensors are (B, n)."""

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """phi(y)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """phi^{-1}(x)."""

    @abstractmethod
    def push(self, y: Tensor, v: Tensor) -> Tensor:
        """J v, the derivative along v."""

    @abstractmethod
    def bend(self, y: Tensor, v: Tensor) -> Tensor:
        """The second derivative along v."""


@dataclass(frozen=True)
class Coordinatewise(ImageMap):
    """phi(y)_i = f(y_i), by f, its inverse and its derivatives at y."""

    f: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]

    def forward(self, y: Tensor) -> Tensor:
        return self.f(y)

    def inverse(self, x: Tensor) -> Tensor:
        return self.back(x)

    def push(self, y: Tensor, v: Tensor) -> Tensor:
        return self.first(y) * v

    def bend(self, y: Tensor, v: Tensor) -> Tensor:
        return self.second(y) * v * v


class Sheared(ImageMap):
    """x_1 = asinh y_1, x_2 = (3 + sin y_1) y_2 / 2: what it makes of linear SDEs grows no faster than linearly."""

    def forward(self, y: Tensor) -> Tensor:
        a, b = y.unbind(1)
        return torch.stack([torch.asinh(a), (1.5 + torch.sin(a) / 2) * b], 1)

    def inverse(self, x: Tensor) -> Tensor:
        a = torch.sinh(x[:, 0])
        return torch.stack([a, x[:, 1] / (1.5 + torch.sin(a) / 2)], 1)

    def push(self, y: Tensor, v: Tensor) -> Tensor:
        (a, b), (c, d) = y.unbind(1), v.unbind(1)
        second = (1.5 + torch.sin(a) / 2) * d + torch.cos(a) / 2 * b * c
        return torch.stack([c * torch.rsqrt(1 + a * a), second], 1)

    def bend(self, y: Tensor, v: Tensor) -> Tensor:
        (a, b), (c, d) = y.unbind(1), v.unbind(1)
        second = (torch.cos(a) * d - torch.sin(a) / 2 * b * c) * c
        return torch.stack([-a * c * c / (1 + a * a) ** 1.5, second], 1)


class Twisted(ImageMap):
    """x_1 = asinh y_1, x_2 = y_2 + sin(y_3) / 2, x_3 = y_3."""

    def forward(self, y: Tensor) -> Tensor:
        a, b, c = y.unbind(1)
        return torch.stack([torch.asinh(a), b + torch.sin(c) / 2, c], 1)

    def inverse(self, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        return torch.stack([torch.sinh(a), b - torch.sin(c) / 2, c], 1)

    def push(self, y: Tensor, v: Tensor) -> Tensor:
        (a, _, c), (p, q, r) = y.unbind(1), v.unbind(1)
        return torch.stack([p * torch.rsqrt(1 + a * a), q + torch.cos(c) * r / 2, r], 1)

    def bend(self, y: Tensor, v: Tensor) -> Tensor:
        (a, _, c), (p, _, r) = y.unbind(1), v.unbind(1)
        return torch.stack([-a * p * p / (1 + a * a) ** 1.5, -torch.sin(c) * r * r / 2, torch.zeros_like(r)], 1)


class Base(ABC):
    """The SDE of y: one in which Ito and Stratonovich agree."""

    @abstractmethod
    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        """b(t, y), (B, n)."""

    @abstractmethod
    def columns(self, t: Tensor, y: Tensor) -> list[Tensor]:
        """s_k(t, y), each to broadcast against (B, n)."""

    @abstractmethod
    def solution(self, y: Tensor, path: SampledPath) -> Tensor:
        """y at the path's last time, from y (B, n) at its first."""


@dataclass(frozen=True)
class Linear(Base):
    """dy = (A y + a(t)) dt + S(t) dB, exactly solved:

        y(T) = e^{A (T - t0)} y(t0) + int e^{A (T - u)} (a(u) du + S(u) dB(u)).

    Args:
        matrix: A, (n, n) as rows.
        force: a(t), (*t.shape, n).
        noise: S(t), (*t.shape, n, m).
    """

    matrix: tuple[tuple[float, ...], ...]
    force: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ y.new_tensor(self.matrix).T + self.force(t.reshape(-1)).to(y.dtype)

    def columns(self, t: Tensor, y: Tensor) -> list[Tensor]:
        return [s.expand_as(y) for s in self.noise(t.reshape(-1)).to(y.dtype).unbind(-1)]

    def solution(self, y: Tensor, path: SampledPath) -> Tensor:
        a = torch.tensor(self.matrix, dtype=torch.float64)
        start, end = path.edges[0], path.edges[-1]

        def spread(u: Tensor) -> Tensor:
            return torch.matrix_exp(a * (end - u)[..., None, None])

        forced = path.time_integral(lambda u: (spread(u) @ self.force(u)[..., None])[..., 0])
        return y @ spread(start).T + forced + path.integral(lambda u: spread(u) @ self.noise(u))


class Heisenberg(Base):
    """dy_1 = rate dt + size dB_1, dy_2 = cos(2 t) dt + size dB_2, dy_3 = dt + y_1 dB_2: the columns do not commute.

    In each cell of the path the integral of y_1 dB_2 is that of the polynomials which W and H give. The area left open
    is an error in y_3, of root mean square some 0.2 size sqrt(length of a cell) over a time of 1.
    """

    rate, size = 0.5, 0.6

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        return self._rates(t.reshape(-1)).to(y.dtype).expand_as(y)

    def columns(self, t: Tensor, y: Tensor) -> list[Tensor]:
        s, zero = torch.full_like(y[:, 0], self.size), torch.zeros_like(y[:, 0])
        return [torch.stack([s, zero, zero], 1), torch.stack([zero, s, y[:, 0]], 1)]

    def solution(self, y: Tensor, path: SampledPath) -> Tensor:
        (w1, w2), (h1, h2) = (v.unbind(-1) for v in path.areas[:2])
        steps = path.edges.diff()[:, None]
        moved = torch.cumsum(self.rate * steps + self.size * w1, 0)
        before = y[:, 0] + torch.cat([torch.zeros_like(moved[:1]), moved[:-1]])
        inner = self.rate * steps * (w2 / 2 - h2) + self.size * (w1 * w2 / 2 + h1 * w2 - w1 * h2)
        noise = torch.stack([self.size * w1.sum(0), self.size * w2.sum(0), (before * w2 + inner).sum(0)], 1)
        return y + path.time_integral(self._rates) + noise

    def _rates(self, t: Tensor) -> Tensor:
        return torch.stack([torch.full_like(t, self.rate), torch.cos(2 * t), torch.ones_like(t)], -1)


class ImageSDE(SDE):
    """The SDE of x = phi(y), see above.

    Args:
        base: the SDE of y. For diagonal noise its columns are those of a diagonal matrix.
        image: phi, of coordinates one by one for diagonal noise.
        noise_type: "diagonal" or "general".
        calculus: "ito" or "stratonovich".
        down: whether time runs downwards.
        additive, commutative: what is declared.
    """

    def __init__(
        self,
        base: Base,
        image: ImageMap,
        noise_type: Literal["diagonal", "general"],
        calculus: Literal["ito", "stratonovich"],
        down: bool,
        *,
        additive: bool = False,
        commutative: bool = False,
    ) -> None:
        self.base, self.image, self.noise_type, self.sde_type, self.down = base, image, noise_type, calculus, down
        self.additive, self.commutative = additive, commutative

    def __repr__(self) -> str:
        return f"ImageSDE({type(self.base).__name__}, {type(self.image).__name__}, {self.sde_type})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        y = self.image.inverse(x)
        drift = self.image.push(y, self.base.drift(t, y))
        if self.sde_type == "stratonovich":
            return drift
        half = -0.5 if self.down else 0.5
        return drift + half * sum(self.image.bend(y, s) for s in self.base.columns(t, y))

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        y = self.image.inverse(x)
        columns = self.base.columns(t, y)
        if self.noise_type == "diagonal":
            return self.image.push(y, torch.stack(columns).sum(0))
        return torch.stack([self.image.push(y, s) for s in columns], -1)
