"""Milstein's methods: of strong order 1 on noise for which increments settle the iterated integrals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.calculus import LocalNoise
from sdekit.errors import InterfaceError
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.solvers.options import check_choice

__all__ = ["Milstein", "StratonovichMilstein"]

_DERIVATIVES = ("automatic", "given", "free")


@dataclass(frozen=True)
class _Milstein(Stepper):
    """x_t = x_s + h f + g W + 1/2 sum_jk L_j g_k (W_j W_k - delta_jk c), with c = |h| in Ito's calculus, else 0."""

    family: ClassVar[str] = "Milstein"
    declared: ClassVar[Order] = Order(
        deterministic=1,
        weak=1,
        strong=1,
        noise={name: NoiseOrder(1, 1) for name in ("additive", "scalar", "diagonal", "commutative")},
    )
    default_stochasticity: ClassVar[float] = 1.0

    derivative: str = "automatic"

    def __post_init__(self) -> None:
        check_choice("derivative", self.derivative, _DERIVATIVES)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        moved = x + h * dynamics.drift(t0, x)
        if increments is None:
            return StepResult(moved)
        w, c = increments.W, abs(h) if self.calculus == "ito" else 0.0
        # Scalar noise in several coordinates commutes only where g has no gradient.
        flat = dynamics.noise_type == "scalar" and x[:1].numel() > 1
        if dynamics.dynamics.additive or flat:
            return StepResult(moved + dynamics.diffuse(t0, x, w))
        if self.derivative == "given":
            slope, g = _given(dynamics, t0, x), dynamics.diffusion(t0, x)
            return StepResult(moved + g * (w + 0.5 * slope * (w * w - c)))
        if self.derivative == "free":
            g = dynamics.diffusion(t0, x)
            differences = _by_root(dynamics, t0, x, g, w, c) if c else _by_increment(dynamics, t0, x, g, w)
            return StepResult(moved + dynamics.product(g, w) + differences)
        noise = dynamics.local_noise(t0, x)
        if state is None:  # once: it calls g again, and reads the device
            _verify(noise)
        return StepResult(moved + dynamics.product(noise.g, w) + _exact(dynamics, noise, w, c), None, True)


@register("milstein")
@dataclass(frozen=True)
class Milstein(_Milstein):
    """Milstein's method for Ito SDEs: with h = t - s, all at (s, x_s), and L_j g_k the derivative of g_k along g_j,

        x_t = x_s + h f + sum_k g_k W_k + 1/2 sum_jk L_j g_k (W_j W_k - delta_jk |h|).

    For diagonal noise the sum is g_i g_i' (W_i^2 - |h|). Additive noise leaves Euler-Maruyama.

    Args:
        derivative: "automatic": exact, by automatic differentiation, of each g_k along one direction; with general
            noise in as many more as there are Brownian motions. "given": the SDE's own method
            `diffusion_derivative(t, x)`, which returns dg_i / dx_i, for diagonal noise. "free": a difference quotient
            with supporting values x + sqrt(|h|) g_k: one more call of g, with general noise one for each Brownian
            motion. Kloeden and Platen add h f to them, which changes nothing that their order shows.

    Raises:
        InterfaceError: at the first step: "given" without that method or for general noise; "automatic" for a g that
            torch cannot differentiate, or a diagonal one whose entries depend on more than their own coordinate.
    """

    reference: ClassVar[str] = (
        "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, sections 10.3 and 11.1"
    )
    calculus: ClassVar[str] = "ito"


@register("milstein_stratonovich")
@dataclass(frozen=True)
class StratonovichMilstein(_Milstein):
    """Milstein's method for Stratonovich SDEs: with h = t - s, all at (s, x_s),

        x_t = x_s + h f + sum_k g_k W_k + 1/2 sum_jk L_j g_k W_j W_k.

    One directional derivative does: the sum is that of g along g W, times W.

    Args:
        derivative: as for `Milstein`, except that the supporting value of "free" is x + g W for all noise. With
            sqrt(|h|) for W the remainder has a mean of order h^(3/2), which leaves strong order 1/2.

    Raises:
        InterfaceError: as `Milstein`.
    """

    reference: ClassVar[str] = (
        "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 10.3"
    )
    calculus: ClassVar[str] = "stratonovich"


def _given(dynamics: Any, t: float, x: Tensor) -> Tensor:
    sde = dynamics.dynamics
    if dynamics.noise_type == "general":
        raise InterfaceError(
            "derivative",
            got=f"'given' for general noise, of {sde!r}",
            expected="diagonal noise, of which dg_i / dx_i is all that there is",
            fix="Use derivative='automatic' or 'free'.",
        )
    if not callable(getattr(sde, "diffusion_derivative", None)):
        raise InterfaceError(
            "derivative",
            got=f"'given', but {sde!r} has no method diffusion_derivative(t, x)",
            expected="one that returns dg_i / dx_i",
            fix="Define it, or use derivative='automatic' or 'free'.",
        )
    return dynamics.diffusion_derivative(t, x)


def _verify(noise: LocalNoise) -> None:
    noise.verify()
    if noise.sde.noise_type == "diagonal" and not noise.unmixed():
        raise InterfaceError(
            "diffusion",
            got=f"diagonal noise whose entries depend on several coordinates, of {noise.sde!r}",
            expected="a g_i that depends on x_i alone",
            fix="Use euler_maruyama or stochastic_heun, or a method for noise that does not commute.",
        )


def _exact(dynamics: Any, noise: LocalNoise, w: Tensor, c: float) -> Tensor:
    if dynamics.noise_type != "general":
        return 0.5 * noise.g * noise.along(torch.ones_like(noise.x)) * (w * w - c)
    squares = 0.5 * dynamics.product(noise.along(dynamics.product(noise.g, w)), w)
    return squares - (0.5 * c) * noise.correction() if c else squares


def _by_root(dynamics: Any, t: float, x: Tensor, g: Tensor, w: Tensor, c: float) -> Tensor:
    """Where each coordinate has its own Brownian motion, one state holds the supporting values of all."""
    root = math.sqrt(c)
    if dynamics.noise_type != "general":
        return (dynamics.diffusion(t, x + root * g) - g) * (0.5 / root) * (w * w - c)
    total = torch.zeros_like(x)
    for j in range(g.shape[-1]):
        squares = w[:, j : j + 1] * w
        squares = squares - c * torch.nn.functional.one_hot(torch.tensor(j, device=w.device), g.shape[-1])
        total = total + dynamics.product(dynamics.diffusion(t, x + root * g[..., j]) - g, squares)
    return total * (0.5 / root)


def _by_increment(dynamics: Any, t: float, x: Tensor, g: Tensor, w: Tensor) -> Tensor:
    return 0.5 * dynamics.product(dynamics.diffusion(t, x + dynamics.product(g, w)) - g, w)
