"""A Gaussian mixture under an affine process: a model that is exact in every parameterisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError, ShapeError, UnknownNameError, suggest
from sdekit.math.philox import normals
from sdekit.model import Model, Weights
from sdekit.parameterisation import PREDICTIONS
from sdekit.shapes import as_float64, check_state, finite_number
from sdekit.targets.components import DATA, NOISE, SCORE, Scales, Want
from sdekit.targets.flow import flow

if TYPE_CHECKING:
    from sdekit.targets.mixture import GaussianMixture

__all__ = ["ExactModel"]

_NOISE_STREAM = 161
_WANTS = {"data": DATA, "noise": NOISE, "score": SCORE}


class ExactModel(Model):
    """The exact model of a mixture: x_t = alpha x_0 + sigma eps with x_0 from the mixture.

    It predicts data natively, but every prediction is evaluated by itself, never converted by a division: all are
    finite at sigma = 0 (as far as components have positive variances) and at alpha = 0. Answers are in x's computing
    dtype, whatever dtype they are computed in. Gradients flow through everything but the integrated `flow`.
    """

    def __init__(self, target: GaussianMixture, process: AffineSDE) -> None:
        super().__init__(self._net, process, "data")
        self.target = target
        self._last: tuple[float, Scales] = (math.nan, Scales(1.0, 0.0))

    def network(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """E[x_0 | x_t = x]. t: a float, or (), (B,) or (B, 1, ..., 1); x: (B, *shape).

        Raises:
            ShapeError: for an x that is not of the target's shape, or a t that does not fit it.
            InterfaceError: for an x that is no floating tensor, or is on another device than the target.
            OptionError: for a time outside the process.
            UnknownNameError: for any conditioning, as there is nothing to condition.
        """
        _refuse({**self.conditioning, **conditioning})
        return self.target.evaluate(self.scales(t, x), x, DATA)

    def predict(self, want: str | Weights, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """Any prediction, by name or by its weights on (data, noise). Raises as `network`, and for unknown names."""
        _refuse({**self.conditioning, **conditioning})
        scales = self.scales(t, x)
        if not isinstance(want, str):
            given = (torch.as_tensor(w, dtype=torch.float64).reshape(-1, 1).to(x.device) for w in (*want, 0.0))
            weights = self._want(scales, *given)
        elif want == "velocity":
            return self._velocity(t, scales, x)
        elif want == "v":
            weights = Want(-scales.sigma, scales.alpha, 0.0)
        elif want in _WANTS:
            weights = _WANTS[want]
        else:
            raise OptionError("want", got=repr(want), expected="a prediction", fix=suggest(want, PREDICTIONS))
        return self.target.evaluate(scales, x, weights)

    def log_prob(self, t: float | Tensor, x: Tensor) -> Tensor:
        """log p_t(x), (B,)."""
        return self.target.marginal_log_prob(self.scales(t, x), x)

    def jacobian(self, t: float | Tensor, x: Tensor) -> Tensor:
        """d data / dx = (alpha / sigma^2) Cov(x_0 | x_t = x), (B, d, d): symmetric, positive semidefinite."""
        return self.target.jacobian(self.scales(t, x), x)

    def sample(self, t: float, n: int, seed: int = 0) -> Tensor:
        """(n, *shape) draws of x_t, in the target's dtype: alpha target.sample(n, seed) + sigma noise."""
        x0 = self.target.sample(n, seed)
        alpha, sigma = self.scales(t, x0)
        ids = torch.arange(n, dtype=torch.int64, device=x0.device)
        z = normals(seed, ids, 0, self.target.size, stream=_NOISE_STREAM, dtype=x0.dtype)
        return alpha * x0 + sigma * z.reshape(x0.shape)

    def flow(self, x: Tensor, t_from: float, t_to: float) -> Tensor:
        """Where the probability flow carries x (B, *shape) from t_from to t_to, in either direction; x's dtype.

        In closed form for one Gaussian. For mixtures integrated to about 1e-12 of the state's scale (see
        `sdekit.targets.flow`), and remembered on disk.

        Raises:
            OptionError: where the flow starts or ends at sigma = 0 with point masses, or x is not finite.
            InterfaceError: for a mixture where x requires a gradient: the integration does not carry one.
        """
        return flow(self.target, self.scales(t_from, x), self.scales(t_to, x), x)

    def scales(self, t: float | Tensor, x: Tensor) -> Scales:
        """alpha and sigma at t: floats, or (B, 1) tensors in the target's dtype beside x (B, *shape)."""
        if not isinstance(x, Tensor):
            check_state(x)  # which names the mistake
        if isinstance(t, Tensor) and t.numel() != 1:
            if t.ndim == 0 or t.shape[0] != len(x) or t.numel() != len(x):
                raise ShapeError(
                    "t",
                    got=f"shape {tuple(t.shape)} beside a state of shape {tuple(x.shape)}",
                    expected=f"a float, (), ({len(x)},) or ({len(x)}, 1, ..., 1)",
                    fix="Pass one time for all samples, or one per sample. The order of arguments is (t, x).",
                )
            time = as_float64(t).to(x.device).reshape(-1, 1)
            return Scales(*(f(time).to(self.target.dtype) for f in (self.process.alpha, self.process.sigma)))
        try:
            time = float(t)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            time = finite_number("t", t)  # which names the mistake
        if time != self._last[0]:
            low, high = self.process.domain
            if not low <= time <= high:
                raise OptionError(
                    "t", got=f"{time:g}", expected=f"a time in [{low:g}, {high:g}]", fix="Choose one inside."
                )
            self._last = (time, Scales(float(self.process.alpha(time)), float(self.process.sigma(time))))
        return self._last[1]

    def _velocity(self, t: float | Tensor, scales: Scales, x: Tensor) -> Tensor:
        """alpha' data + sigma' noise; where sigma' is infinite (VP at t = 0) f x - g^2/2 score, which is not."""
        process = self.process
        time = as_float64(t).to(x.device).reshape(-1, 1) if not scales.shared else float(t)
        rates = process.alpha_rate(time), process.sigma_rate(time)
        usable = torch.isfinite(rates[1])
        if bool(usable.all()):
            return self.target.evaluate(scales, x, self._want(scales, *rates, torch.zeros_like(rates[0])))
        zero = torch.zeros_like(rates[0])
        weights = [torch.where(usable, r, zero) for r in rates]
        weights.append(torch.where(usable, zero, -0.5 * process.diffusion_coefficient(time) ** 2))
        f = torch.where(usable, zero, process.drift_coefficient(time)).to(x.device)
        result = self.target.evaluate(scales, x, self._want(scales, *weights))
        return result + f.to(result.dtype).reshape(-1, *(1,) * (x.ndim - 1)) * x

    def _want(self, scales: Scales, *weights: Tensor) -> Want:
        return Want(*(float(w) if scales.shared else w.to(self.target.dtype) for w in weights))

    def _net(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact data prediction in the order of arguments of networks."""
        return self.network(t, x)

    def __repr__(self) -> str:
        return f"ExactModel({self.target!r}, {self.process!r})"


def _refuse(conditioning: dict[str, Any]) -> None:
    for name in conditioning:
        raise UnknownNameError(
            name, got=f"conditioning {name!r}", expected="none", fix="An exact target takes no conditioning."
        )
