"""The exponential Euler-Maruyama method: the linear part of a drift exactly, the rest by Euler's rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register

__all__ = ["MOST_DENSE", "ExponentialEulerMaruyama"]

MOST_DENSE = 512
"""The most coordinates for which A may be a matrix: exponentials of three times as many rows are taken."""

_ROUNDING = 4e-16
_SERIES = 24  # terms for |z| <= 1


class _Weights(NamedTuple):
    """Functions of Z = A (t1 - t0): numbers (), entries like a sample, or matrices (n, n); and A in the same kind.

    `mixed` is the weight of H that is best for any noise, `alone` the one that makes the variance exact where each
    coordinate has motions of its own: None for matrices.
    """

    a: Tensor
    decay: Tensor
    first: Tensor
    mixed: Tensor
    alone: Tensor | None

    @property
    def dense(self) -> bool:
        return self.alone is None

    def times(self, m: Tensor, x: Tensor) -> Tensor:
        if not self.dense:
            return m * x
        # One product for each row: those of one large product depend on how many rows there are.
        return torch.bmm(m.expand(len(x), *m.shape), x.reshape(len(x), -1, 1)).reshape(x.shape)


@register("exponential_euler_maruyama")
@dataclass(frozen=True)
class ExponentialEulerMaruyama(Stepper):
    """For a drift A x + F(t, x), with h = t1 - t0 and Z = A h,

        x1 = e^Z x + h phi_1(Z) F(t0, x) + int e^(A (t1 - u)) g(t0, x) dW(u),    phi_1(Z) = (e^Z - 1) / Z.

    A is the SDE's attribute `linear`; F is the rest of its drift. With A = 0, the default of an SDE that names none,
    it is euler_maruyama. However fast A decays, there is no bound on the step from it.

    The integral is taken as phi_1(Z) g W + c(Z) g H, with the space-time Levy area H of the step. c makes its variance
    exact for a number A and any noise, and for A like x with scalar or diagonal noise: a linear SDE with constant noise
    of these kinds is solved exactly in law. For a matrix A, and A like x with general noise, c is such that the
    integral is its mean given W and H, and its variance lacks O(h^5).

    Raises:
        InterfaceError, ShapeError, OptionError: at the first step, for a `linear` that is neither a number, a tensor of
            a sample's shape, nor a matrix (n, n) for n <= `MOST_DENSE` coordinates.
    """

    family: ClassVar[str] = "exponential"
    reference: ClassVar[str] = "Lord, Powell and Shardlow, An Introduction to Computational Stochastic PDEs, chapter 8"
    declared: ClassVar[Order] = Order(
        deterministic=1,
        weak=1,
        strong=1,
        note="exact in law where drift and noise are linear and constant",
        noise={"additive": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
    )
    uses_area: ClassVar[bool] = True

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        h = t1 - t0
        if state is None or abs(state[0] - h) > _ROUNDING * max(abs(t0), abs(t1)):  # equal steps, up to that of times
            state = h, _weights(dynamics.dynamics, h, x)
        weights = state[1]
        rest = dynamics.drift(t0, x) - weights.times(weights.a, x)
        new = weights.times(weights.decay, x) + h * weights.times(weights.first, rest)
        if increments is not None:
            w, area = increments.W, increments.H
            if area is None:
                raise InterfaceError(
                    "increments", got="W alone", expected="W and the space-time Levy area H", fix="Pass both."
                )
            g, kind = dynamics.diffusion(t0, x), dynamics.dynamics.noise_type
            kicks = [torch.einsum("b...m,bm->b...", g, v) if kind == "general" else g * v for v in (w, area)]
            exact = weights.alone is not None and (kind != "general" or weights.a.ndim == 0)
            spread = weights.alone if exact and weights.alone is not None else weights.mixed
            new = new + weights.times(weights.first, kicks[0]) + weights.times(spread, kicks[1])
        return StepResult(new, state=state)


def _weights(dynamics: Any, h: float, x: Tensor) -> _Weights:
    """In float64, then in x's dtype."""
    a, dense = _linear(dynamics.linear, x)
    z = a * h
    if dense:
        found = _dense(a, z)
    else:
        safe = torch.where(z == 0, torch.ones_like(z), z)
        first = torch.where(z == 0, torch.ones_like(z), torch.expm1(safe) / safe)
        mixed = torch.where(z.abs() <= 1, _lever(z.clamp(-1, 1)), 6 * first - 12 * (first - 1) / safe)
        # phi_1(2 z) - phi_1(z)^2 = z phi_1(z) mixed / 12: what W leaves of the variance, which H / 12 has to give.
        alone = torch.sign(z) * (z * first * mixed).clamp(min=0).sqrt()
        found = _Weights(a, torch.exp(z), first, mixed, alone)
    return _Weights(*(None if v is None else v.to(x.dtype) for v in found))  # type: ignore[arg-type]


def _dense(a: Tensor, z: Tensor) -> _Weights:
    """From the exponential of the block matrix with Z and two shifts."""
    n, eye = len(z), torch.eye(len(z), dtype=z.dtype, device=z.device)
    zero = torch.zeros_like(eye)
    rows = [torch.cat(row, 1) for row in ((z, eye, zero), (zero, zero, eye), (zero, zero, zero))]
    top = torch.linalg.matrix_exp(torch.cat(rows, 0))[:n]
    decay, first, second = top[:, :n], top[:, n : 2 * n], top[:, 2 * n :]
    return _Weights(a, decay, first, 6 * first - 12 * second, None)


def _lever(z: Tensor) -> Tensor:
    """6 phi_1(z) - 12 phi_2(z) = sum_k 6 k z^k / (k + 2)!, for |z| <= 1."""
    total = torch.zeros_like(z)
    for k in range(_SERIES, 0, -1):
        total = (total + 6 * k / math.factorial(k + 2)) * z
    return total


def _linear(linear: Any, x: Tensor) -> tuple[Tensor, bool]:
    """A in float64, and whether it is a matrix."""
    shape, n = tuple(x.shape[1:]), math.prod(x.shape[1:])
    expected = f"a number, a tensor of shape {shape}, or a matrix ({n}, {n})"
    if isinstance(linear, Real) and not isinstance(linear, bool):
        a = torch.tensor(float(linear), dtype=torch.float64, device=x.device)
    elif isinstance(linear, Tensor) and linear.is_floating_point():
        a = linear.to(device=x.device, dtype=torch.float64)
    else:
        got = f"{linear.dtype}" if isinstance(linear, Tensor) else type(linear).__name__
        raise InterfaceError("linear", got=got, expected=expected, fix="Set linear to A, of the drift A x + F(t, x).")
    dense = a.ndim > 0 and tuple(a.shape) != shape
    if dense and tuple(a.shape) != (n, n):
        raise ShapeError(
            "linear", got=f"shape {tuple(a.shape)}", expected=expected, fix="A matrix acts on flattened samples."
        )
    if dense and n > MOST_DENSE:
        raise OptionError(
            "linear",
            got=f"a matrix for {n} coordinates",
            expected=f"at most {MOST_DENSE}, or a number or entries like x",
            fix="Put the diagonal of A into linear; the rest stays in the drift.",
        )
    if not bool(torch.isfinite(a).all()):  # reads the device, at steps of a new length only
        raise OptionError("linear", got="NaN or infinity", expected="finite numbers", fix="Correct it.")
    return a, dense
