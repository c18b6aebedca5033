"""Time reversal, derived: the reverse SDE of any stochasticity and the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError
from sdekit.model import Model, ScoreModel, check_output
from sdekit.sde import ODE, SDE, Score, Stochasticity, check_two_arguments
from sdekit.shapes import compute_dtype, expand_time, time_like

__all__ = ["AdditiveReverse", "AffineFlow", "AffineReverse", "derive_flow", "derive_reverse", "stochasticity_at"]


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


class AdditiveReverse(SDE):
    """The reverse of an SDE whose diffusion ignores x: dx = [f - (1 + kappa^2)/2 g g^T s] dt + kappa g dW."""

    additive = True

    def __init__(self, forward: SDE, score: Score, stochasticity: Stochasticity) -> None:
        self.forward, self.score, self.stochasticity = forward, score, stochasticity
        self.noise_type, self.sde_type = forward.noise_type, forward.sde_type

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        kappa = _kappa(self.stochasticity, time)
        s = check_output(self.score(time, x), x, "score")
        return self.forward.drift(time, x) - 0.5 * (1 + kappa**2) * _squared(self.forward, time, x, s)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        g, kappa = self.forward.diffusion(time, x), _kappa(self.stochasticity, time)
        return g * (kappa[..., None] if self.noise_type == "general" and kappa.ndim else kappa)


class _AdditiveFlow(ODE):
    """The probability flow of an SDE whose diffusion ignores x: dx/dt = f - g g^T s / 2."""

    def __init__(self, forward: SDE, score: Score) -> None:
        self.forward, self.score = forward, score

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        time = time_like(t, x)
        s = check_output(self.score(time, x), x, "score")
        return self.forward.drift(time, x) - 0.5 * _squared(self.forward, time, x, s)


def _kappa(stochasticity: Stochasticity, t: Tensor) -> Tensor:
    values = [stochasticity_at(stochasticity, s) for s in t.reshape(-1).tolist()]
    return torch.tensor(values, dtype=t.dtype, device=t.device).reshape(t.shape)


def _squared(sde: SDE, t: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """g g^T s for each noise type."""
    g = sde.diffusion(t, x)
    if sde.noise_type != "general":
        return g * g * s
    flat, size = g.reshape(len(g), -1, g.shape[-1]), (len(x), -1, 1)
    return (flat @ (flat.mT @ s.reshape(size))).reshape(x.shape)


def derive_reverse(sde: SDE, score: Model | Score, stochasticity: Stochasticity) -> SDE | ODE:
    """See `SDE.reverse`."""
    if not callable(stochasticity) and stochasticity_at(stochasticity, math.nan) == 0:
        return derive_flow(sde, score)
    if isinstance(sde, AffineSDE):
        return AffineReverse(sde, _as_model(sde, score), stochasticity)
    return AdditiveReverse(_require_additive(sde), _as_score(score), stochasticity)


def derive_flow(sde: SDE, score: Model | Score) -> ODE:
    """See `SDE.probability_flow`."""
    if isinstance(sde, AffineSDE):
        return AffineFlow(sde, _as_model(sde, score))
    return _AdditiveFlow(_require_additive(sde), _as_score(score))


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


def _require_additive(sde: SDE) -> SDE:
    if not isinstance(sde, SDE):
        raise InterfaceError("sde", got=type(sde).__name__, expected="an SDE", fix="Make one with sdekit.make_sde.")
    if not sde.additive:
        raise OptionError(
            "sde",
            got=f"{type(sde).__name__} with additive = False",
            expected="a diffusion that ignores x, or an affine process",
            fix="Set additive = True if g ignores x; otherwise div(g g^T) would enter the reversal.",
        )
    return sde
