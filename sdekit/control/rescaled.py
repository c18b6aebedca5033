"""One step of every sample, each at its own time and of its own length, as one step of length 1 of another SDE.

With t = t0 + s h, h of either sign, dx = f dt + g dW becomes

    dx = h f(t0 + s h, x) ds + sqrt(|h|) g(t0 + s h, x) dB,    B(s) = W / sqrt(|h|),

which runs upwards in s from 0 to 1. So any stepper steps any SDE so, and knows nothing of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdekit.calculus import check_diffusion
from sdekit.model import check_output
from sdekit.sde import SDE

__all__ = ["Rescaled"]


class Rescaled(SDE):
    """An SDE in the time s of one step.

    Args:
        sde: solved in the direction of h, in the calculus of the stepper.
        t0, t1: the ends of the steps, (n, 1, ..., 1), float64.
        limits: between which times drift and diffusion may be called, of the same shape; None for any.
    """

    def __init__(self, sde: SDE, t0: Tensor, t1: Tensor, limits: tuple[Tensor, Tensor] | None = None) -> None:
        self.sde, self.t0, self.t1, self.h, self.limits = sde, t0, t1, t1 - t0, limits
        self.noise_type, self.sde_type = sde.noise_type, sde.sde_type
        self.additive, self.commutative = sde.additive, sde.commutative
        self.root = self.h.abs().sqrt()
        if hasattr(sde, "diffusion_derivative"):
            self.diffusion_derivative = self._derivative

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        out = check_output(self.sde.drift(self._time(t, x), x), x, "drift")
        return out * self.h.to(out.dtype)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return self._by_root(self.sde.diffusion(self._time(t, x), x), x)

    def _derivative(self, t: Tensor, x: Tensor) -> Tensor:
        derivative: Any = getattr(self.sde, "diffusion_derivative")  # noqa: B009  (an optional method)
        return self._by_root(derivative(self._time(t, x), x), x)

    def _time(self, t: Tensor, x: Tensor) -> Tensor:
        s = t.to(self.h.dtype)
        time = torch.where(s == 1, self.t1, self.t0 + self.h * s).to(t.dtype)
        return time if self.limits is None else time.clamp(*(limit.to(t.dtype) for limit in self.limits))

    def _by_root(self, out: Any, x: Tensor) -> Tensor:
        out = check_diffusion(out, x, self.noise_type)
        root = self.root.to(out.dtype)
        return out * (root.unsqueeze(-1) if self.noise_type == "general" else root)
