"""Time reversal, derived: the reverse SDE of any stochasticity and the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.calculus import LocalNoise
from sdekit.errors import InterfaceError, OptionError, suggest
from sdekit.math.philox import check_seed
from sdekit.model import Model, ScoreModel, check_output
from sdekit.sde import ODE, SDE, Score, Stochasticity, check_two_arguments
from sdekit.shapes import compute_dtype, expand_time, time_like

__all__ = [
    "AffineFlow",
    "AffineReverse",
    "Converted",
    "Flow",
    "Reverse",
    "convert_to",
    "derive_flow",
    "derive_reverse",
    "stochasticity_at",
]

_DIVERGENCES = ("exact", "hutchinson")


def stochasticity_at(stochasticity: Stochasticity, t: float) -> float:
    """kappa at a time, checked: a finite number >= 0. Raises OptionError."""
    value = stochasticity(t) if callable(stochasticity) else stochasticity
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        where = f" at t = {t:.6g}" if callable(stochasticity) else ""
        raise OptionError(
            "stochasticity",
            got=f"{value!r}{where}",
            expected="a finite number >= 0, or a function of t that returns one",
            fix="Use 0 for the probability flow, 1 for the reverse SDE.",
        )
    return number


@dataclass(frozen=True)
class AffineFlow(ODE):
    """The probability flow of an affine process: dx/dt = velocity."""

    process: AffineSDE
    model: Model
    stochasticity: float = 0.0

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.model.velocity(t, x)


class AffineReverse(SDE):
    """The reverse SDE of an affine process: dx = [velocity + kappa^2 g^2/(2 sigma) noise] dt + kappa g dW, dt < 0.

    That is f x - (1 + kappa^2)/2 g^2 score with -g^2/2 score = g^2/(2 sigma) noise; in this form nothing cancels near
    alpha = 0, where f and g^2 are infinite and the velocity is not.
    """

    noise_type = "scalar"
    additive = True
    backward = True

    def __init__(self, process: AffineSDE, model: Model, stochasticity: Stochasticity) -> None:
        self.process, self.model, self.stochasticity = process, model, stochasticity

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        levels = self.process.levels(torch.as_tensor(t).reshape(-1))
        data, noise = np.array([drift_weights(level, self.stochasticity) for level in levels]).T
        want = (data, noise) if len(levels) > 1 else (data[0], noise[0])
        return self.model.predict(want, t if len(levels) > 1 else levels[0].t, x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        time = expand_time(t, x)
        g = self.process.diffusion_coefficient(time) * _kappa(self.stochasticity, time.to(torch.float64))
        return g.to(compute_dtype(x.dtype))


def drift_weights(level: Any, stochasticity: Stochasticity) -> tuple[float, float]:
    """The reverse drift as weights on (data, noise): (alpha', sigma' + kappa^2 g^2 / (2 sigma))."""
    kappa = stochasticity_at(stochasticity, level.t)
    extra = kappa**2 * level.half_variance_rate if kappa else 0.0
    return level.alpha_rate, level.sigma_rate + extra


class Reverse(SDE):
    """The reverse of any SDE: dx = [f -+ (1 + kappa^2)/2 (div(g g^T) + g g^T s)] dt + kappa g dW.

    The sign is minus for the reverse of an SDE that runs upwards in time, plus where that is itself a reverse. Of a
    Stratonovich SDE the reverse is one too, with g div g for div(g g^T): the corrections of both cancel.
    """

    def __init__(
        self,
        forward: SDE,
        score: Score,
        stochasticity: Stochasticity,
        divergence: str = "exact",
        seed: int = 0,
    ) -> None:
        self.forward, self.stochasticity = forward, stochasticity
        self.noise_type, self.sde_type, self.additive = forward.noise_type, forward.sde_type, forward.additive
        self.backward = not forward.backward
        self._pull = _Pull(forward, score, divergence, seed)

    def __repr__(self) -> str:
        return f"{self.forward!r}.reverse({self._pull!r}, stochasticity={_shown(self.stochasticity)})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        return self._pull.drift(time, x, 0.5 * (1 + _kappa(self.stochasticity, time) ** 2))

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        g, kappa = self.forward.diffusion(time, x), _kappa(self.stochasticity, time)
        return g * (kappa[..., None] if self.noise_type == "general" and kappa.ndim else kappa)


class Flow(ODE):
    """The probability flow of any SDE: dx/dt = f -+ (div(g g^T) + g g^T s) / 2, signs and divergence as `Reverse`."""

    def __init__(self, forward: SDE, score: Score, divergence: str = "exact", seed: int = 0) -> None:
        self.forward = forward
        self._pull = _Pull(forward, score, divergence, seed)

    def __repr__(self) -> str:
        return f"{self.forward!r}.probability_flow({self._pull!r})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self._pull.drift(time_like(t, x), x, 0.5)


class _Pull:
    """What a reversal adds to the drift: -+ weight (div(g g^T) + g g^T s)."""

    def __init__(self, forward: SDE, score: Score, divergence: str, seed: int) -> None:
        self.forward, self.score, self.divergence, self.seed = forward, score, divergence, seed
        self._verified = False

    def __repr__(self) -> str:
        method = "" if self.divergence == "exact" else f", divergence={self.divergence!r}, seed={self.seed}"
        return f"{_shown(self.score)}{method}"

    def drift(self, t: Tensor, x: Tensor, weight: float | Tensor) -> Tensor:
        """The forward drift with it, at a time that broadcasts against x."""
        noise = LocalNoise(self.forward, t, x)
        if not self._verified:
            noise.verify()
            self._verified = True
        divergence = noise.divergence(self.divergence, self.seed)  # before the score, which is the dear part
        pull = divergence + noise.squared(check_output(self.score(t, x), x, "score"))
        drift = check_output(self.forward.drift(t, x), x, "drift")
        return drift + weight * pull if self.forward.backward else drift - weight * pull


class Converted(SDE):
    """An SDE in the other calculus, with the same law: the drift moves by c / 2, see `sdekit.calculus`."""

    def __init__(self, source: SDE, downward: bool | None = None) -> None:
        self.source = source
        self.noise_type, self.additive, self.commutative = source.noise_type, source.additive, source.commutative
        self.linear = source.linear
        self.backward = source.backward if downward is None else downward
        self.sde_type = "stratonovich" if source.sde_type == "ito" else "ito"
        derivative: Any = getattr(source, "diffusion_derivative", None)
        if derivative is not None:
            self.diffusion_derivative = derivative
        self._verified = False

    def __repr__(self) -> str:
        return f"{self.source!r}.to_{self.sde_type}()"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        # Where nothing counts changes in place, the correction must not be taken where a drift has moved x to.
        point = x.clone() if x.is_inference() else x
        drift = check_output(self.source.drift(time, point), x, "drift")
        if self.additive:
            return drift
        noise = LocalNoise(self.source, time, x)
        if not self._verified:
            noise.verify()
            self._verified = True
        # Downwards in time the correction of dx/dt has the other sign: there dt < 0, and its weight is |dt| / 2.
        sign = 1 if (self.sde_type == "ito") != self.backward else -1
        return drift + 0.5 * sign * noise.correction()

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return self.source.diffusion(t, x)


def convert_to(sde: SDE, sde_type: str, downward: bool | None = None) -> SDE:
    """The SDE in this calculus; itself where it is. `downward`: whether it is solved so, default what it says."""
    if sde.sde_type == sde_type:
        return sde
    if isinstance(sde, Converted) and downward in (None, sde.backward):
        return sde.source
    return Converted(sde, downward)


def _kappa(stochasticity: Stochasticity, t: Tensor) -> Tensor:
    if not callable(stochasticity):  # then t need not be read, for which a device would be waited for
        return torch.full_like(t, stochasticity_at(stochasticity, 0.0))
    values = [stochasticity_at(stochasticity, s) for s in t.reshape(-1).tolist()]
    return torch.tensor(values, dtype=t.dtype, device=t.device).reshape(t.shape)


def _shown(value: Any) -> str:
    """A function by its name: its repr holds an address, which no two runs share."""
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)


def derive_reverse(
    sde: SDE, score: Model | Score, stochasticity: Stochasticity, divergence: str = "exact", seed: int = 0
) -> SDE | ODE:
    """See `SDE.reverse`."""
    _check_options(sde, divergence, seed)
    if not callable(stochasticity) and stochasticity_at(stochasticity, math.nan) == 0:
        return derive_flow(sde, score, divergence, seed)
    if isinstance(sde, AffineSDE):
        return AffineReverse(sde, _as_model(sde, score), stochasticity)
    return Reverse(sde, _as_score(score), stochasticity, divergence, seed)


def derive_flow(sde: SDE, score: Model | Score, divergence: str = "exact", seed: int = 0) -> ODE:
    """See `SDE.probability_flow`."""
    _check_options(sde, divergence, seed)
    if isinstance(sde, AffineSDE):
        return AffineFlow(sde, _as_model(sde, score))
    return Flow(sde, _as_score(score), divergence, seed)


def _check_options(sde: Any, divergence: Any, seed: Any) -> None:
    if not isinstance(sde, SDE):
        raise InterfaceError("sde", got=type(sde).__name__, expected="an SDE", fix="Make one with sdekit.make_sde.")
    if not isinstance(divergence, str) or divergence not in _DIVERGENCES:
        fix = suggest(str(divergence), _DIVERGENCES)
        raise OptionError("divergence", got=repr(divergence), expected=" or ".join(_DIVERGENCES), fix=fix)
    check_seed(seed)


def _as_model(process: AffineSDE, score: Any) -> Model:
    if isinstance(score, Model):
        if score.process != process:
            raise OptionError(
                "score",
                got=f"a model of {score.process!r}",
                expected=f"a model of {process!r}",
                fix="Reverse the process that the model was made for.",
            )
        return score
    return ScoreModel(_as_score(score), process)


def _as_score(score: Any) -> Score:
    if isinstance(score, Model):
        return score.score
    check_two_arguments("score", score)
    return cast(Score, score)
