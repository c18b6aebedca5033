"""What nonlinear problems are made of: diffeomorphisms and state-dependent noises, with derivatives by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Diffeomorphism", "Sinh", "SinhShear", "StateNoise", "state_noises"]

Field = Callable[[Tensor, Tensor], Tensor]


class Diffeomorphism(ABC):
    """x = phi(y), smooth and invertible, with derivatives.

    Attributes:
        elementwise: whether x_i depends on y_i alone. Then `jacobian` is its diagonal.
    """

    elementwise: bool = False

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """phi(y), (B, n)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """phi^{-1}(x), (B, n)."""

    @abstractmethod
    def jacobian(self, y: Tensor) -> Tensor:
        """d phi_i / d y_j, (B, n, n); (B, n) where elementwise."""

    @abstractmethod
    def laplacian(self, y: Tensor) -> Tensor:
        """sum_j d^2 phi_i / d y_j^2, (B, n)."""

    @abstractmethod
    def log_det(self, y: Tensor) -> Tensor:
        """log |det d phi / d y|, (B,)."""

    @abstractmethod
    def log_det_gradient(self, y: Tensor) -> Tensor:
        """Its gradient in y, (B, n)."""


class Sinh(Diffeomorphism):
    """x_i = sinh y_i."""

    elementwise = True

    def forward(self, y: Tensor) -> Tensor:
        return torch.sinh(y)

    def inverse(self, x: Tensor) -> Tensor:
        return torch.asinh(x)

    def jacobian(self, y: Tensor) -> Tensor:
        return torch.cosh(y)

    def laplacian(self, y: Tensor) -> Tensor:
        return torch.sinh(y)

    def log_det(self, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(y)).sum(1)

    def log_det_gradient(self, y: Tensor) -> Tensor:
        return torch.tanh(y)


class SinhShear(Diffeomorphism):
    """x_1 = sinh y_1, x_2 = e^{0.3 y_1} y_2."""

    rate = 0.3

    def forward(self, y: Tensor) -> Tensor:
        return torch.stack([torch.sinh(y[:, 0]), torch.exp(self.rate * y[:, 0]) * y[:, 1]], 1)

    def inverse(self, x: Tensor) -> Tensor:
        first = torch.asinh(x[:, 0])
        return torch.stack([first, torch.exp(-self.rate * first) * x[:, 1]], 1)

    def jacobian(self, y: Tensor) -> Tensor:
        stretch = torch.exp(self.rate * y[:, 0])
        top = torch.stack([torch.cosh(y[:, 0]), torch.zeros_like(stretch)], 1)
        return torch.stack([top, torch.stack([self.rate * stretch * y[:, 1], stretch], 1)], 1)

    def laplacian(self, y: Tensor) -> Tensor:
        return torch.stack([torch.sinh(y[:, 0]), self.rate**2 * torch.exp(self.rate * y[:, 0]) * y[:, 1]], 1)

    def log_det(self, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(y[:, 0])) + self.rate * y[:, 0]

    def log_det_gradient(self, y: Tensor) -> Tensor:
        return torch.stack([torch.tanh(y[:, 0]) + self.rate, torch.zeros_like(y[:, 0])], 1)


@dataclass(frozen=True)
class StateNoise:
    """A diffusion g(t, x) with its derivatives by hand.

    Args:
        noise_type: of g.
        g: the diffusion.
        correction: c_i = sum_jk g_jk d_j g_ik, (B, n).
        contraction: g div g, (B, n); div(g g^T) is the sum of both.
    """

    noise_type: Literal["scalar", "diagonal", "general"]
    g: Field
    correction: Field
    contraction: Field

    def squared(self, t: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """g g^T v, (B, n)."""
        g = self.g(t, x)
        return torch.einsum("bim,bjm,bj->bi", g, g, v) if self.noise_type == "general" else g * g * v


def state_noises() -> dict[str, StateNoise]:
    """Noises of every kind: "scalar"; "diagonal", g_i of x_i alone; "mixing", diagonal with g_i of x_i and x_{i+1};
    "general", in two dimensions from three Brownian motions. All grow in time."""

    def growth(t: Tensor) -> Tensor:
        return 1 + 0.3 * t

    def radius(t: Tensor, x: Tensor) -> Tensor:
        return growth(t) * torch.sqrt(0.2 + 0.2 * (x**2).sum(1, keepdim=True))

    def shifted(x: Tensor) -> Tensor:
        return x + torch.roll(x, -1, 1)

    def scalar_term(t: Tensor, x: Tensor) -> Tensor:
        return 0.2 * growth(t) ** 2 * x

    def diagonal_term(t: Tensor, x: Tensor) -> Tensor:
        return growth(t) ** 2 * (0.6 + 0.3 * torch.sin(x)) * 0.3 * torch.cos(x)

    def mixing_term(t: Tensor, x: Tensor) -> Tensor:
        return growth(t) ** 2 * (0.6 + 0.3 * torch.sin(shifted(x))) * 0.3 * torch.cos(shifted(x))

    return {
        "scalar": StateNoise("scalar", radius, scalar_term, scalar_term),
        "diagonal": StateNoise(
            "diagonal", lambda t, x: growth(t) * (0.6 + 0.3 * torch.sin(x)), diagonal_term, diagonal_term
        ),
        "mixing": StateNoise(
            "diagonal", lambda t, x: growth(t) * (0.6 + 0.3 * torch.sin(shifted(x))), mixing_term, mixing_term
        ),
        "general": _general_noise(growth),
    }


def _general_noise(growth: Callable[[Tensor], Tensor]) -> StateNoise:
    def rows(*entries: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, 1) for row in entries], 1)

    def matrix(x: Tensor) -> Tensor:
        u, w = x.unbind(1)
        top = [0.6 + 0.4 * torch.sin(u), 0.4 * torch.cos(u), torch.full_like(u, 0.2)]
        return rows(top, [0.3 * torch.sin(u), 0.5 + 0.4 * torch.sin(w), 0.3 * torch.sin(u + w)])

    def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
        u, w = x.unbind(1)
        zero, both = torch.zeros_like(u), 0.3 * torch.cos(u + w)
        by_u = rows([0.4 * torch.cos(u), -0.4 * torch.sin(u), zero], [0.3 * torch.cos(u), zero, both])
        by_w = rows([zero] * 3, [zero, 0.4 * torch.cos(w), both])
        return by_u, by_w

    def correction(t: Tensor, x: Tensor) -> Tensor:
        g, (by_u, by_w) = matrix(x), slopes(x)
        return growth(t) ** 2 * ((by_u @ g[:, 0, :, None]) + (by_w @ g[:, 1, :, None]))[..., 0]

    def contraction(t: Tensor, x: Tensor) -> Tensor:
        g, (by_u, by_w) = matrix(x), slopes(x)
        return growth(t) ** 2 * (g @ (by_u[:, 0] + by_w[:, 1])[..., None])[..., 0]

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        return growth(t if t.ndim == 0 else t[..., None]) * matrix(x)

    return StateNoise("general", diffusion, correction, contraction)
