"""Steppers with fixed steps: the general route, for dynamics given by drift and diffusion alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, SdekitError, ShapeError
from sdekit.model import check_output
from sdekit.monitor import Monitor
from sdekit.noise import NoiseSource, PlainNoise, StepNoise
from sdekit.sde import ODE, SDE
from sdekit.shapes import compute_dtype, time_like, uninitialised_like
from sdekit.solution import Partial, Run, StepInfo

__all__ = ["Dynamics", "integrate"]


class _Stepper(Protocol):
    def step(self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Any, state: Any) -> Any: ...


class _Increments(NamedTuple):
    W: Tensor


class Dynamics:
    """An SDE or ODE as steppers see it: times may be floats, outputs are checked, drift calls are counted.

    Args:
        dynamics: the user's SDE or ODE.
        x: the start, for shapes.
    """

    def __init__(self, dynamics: SDE | ODE, x: Tensor, monitor: Monitor) -> None:
        self.dynamics, self.monitor = dynamics, monitor
        self.noise_type = dynamics.noise_type if isinstance(dynamics, SDE) else None
        self.dtype = x.dtype
        self.calls = 0
        self.at: tuple[int, float] = (0, 0.0)

    def drift(self, t: float, x: Tensor) -> Tensor:
        """drift(t, x), checked."""
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        out = check_output(self._call(self.dynamics.drift, t, point), point, "drift")
        self.monitor.output(out, x, *self.at, self.calls)
        self.calls += 1
        return out

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """g(t, x) in the shape of its noise type, checked."""
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        out = self._call(self.dynamics.diffusion, t, point)  # type: ignore[union-attr]
        return _check_diffusion(out, point, self.noise_type)

    def diffuse(self, t: float, x: Tensor, w: Tensor) -> Tensor:
        """g(t, x) w for an increment w: like x, or (B, m) for general noise."""
        g = self.diffusion(t, x)
        return torch.einsum("b...m,bm->b...", g, w) if self.noise_type == "general" else g * w

    def increment_shape(self, t: float, x: Tensor) -> tuple[int, ...]:
        """The shape of a Brownian increment; for general noise read off the diffusion, by one call of it."""
        return (len(x), self.diffusion(t, x).shape[-1]) if self.noise_type == "general" else tuple(x.shape)

    def _call(self, function: Callable[[Tensor, Tensor], Tensor], t: float, x: Tensor) -> Tensor:
        if x.is_inference():
            return function(time_like(t, x), x.clone())
        version = x._version
        out = function(time_like(t, x), x)
        if x._version != version:
            raise ModelOutputError(
                function.__name__,
                got="a change in place of its input",
                expected="an input that is left as it is",
                fix="Work on a copy: x = x.clone().",
            )
        return out


def _check_diffusion(out: Any, x: Tensor, noise_type: str | None) -> Tensor:
    if noise_type == "diagonal":
        return check_output(out, x, "diffusion")
    if not isinstance(out, Tensor) or not out.dtype.is_floating_point or out.device != x.device:
        got = f"{out.dtype} on {out.device}" if isinstance(out, Tensor) else type(out).__name__
        raise ModelOutputError(
            "diffusion", got=got, expected=f"a real floating tensor on {x.device}", fix="Return such a tensor."
        )
    if noise_type == "scalar":
        fits = out.ndim == 0 or (out.ndim == x.ndim and out.shape[0] in (1, len(x)) and out.numel() == out.shape[0])
        expected = f"() or ({len(x)}, 1, ..., 1) for scalar noise"
    else:
        fits, expected = (
            out.ndim == x.ndim + 1 and out.shape[:-1] == x.shape,
            f"{tuple(x.shape)} + (m,) for general noise",
        )
    if not fits:
        raise ShapeError(
            "diffusion", got=f"shape {tuple(out.shape)}", expected=expected, fix="Match noise_type and the shape of g."
        )
    return out.to(compute_dtype(x.dtype))


def integrate(
    dynamics: SDE | ODE,
    stepper: _Stepper,
    x: Tensor,
    times: Sequence[float],
    noise: NoiseSource | None,
    monitor: Monitor,
    *,
    save: Collection[int] = (),
    callback: Callable[[StepInfo], Any] | None = None,
    advance: Callable[[int], Any] | None = None,
) -> Run:
    """Step through a grid, either direction of time; arguments and errors as for `sdekit.execute.execute`."""
    state: Any = None
    inner = Dynamics(dynamics, x, monitor)
    y = x.to(compute_dtype(x.dtype), copy=True)
    shape = inner.increment_shape(times[0], y) if inner.noise_type is not None else None
    run = Run(y, {0: x.clone()} if 0 in save else {})
    for i, (t0, t1) in enumerate(itertools.pairwise(times)):
        inner.at = (i, t0)
        try:
            increments = None
            if shape is not None and noise is not None:
                increments = _Increments(_increment(noise, y, shape, i, t0, t1, monitor))
            y, _, state = stepper.step(inner, t0, t1, y, increments, state)
        except BaseException as error:
            if isinstance(error, SdekitError):
                error.partial = Partial(run.x, times[run.steps], inner.calls)
            else:
                error.add_note(f"raised in step {i}, from t = {t0:.8g}, of a sdekit solve")
            raise
        if advance is not None:
            advance(inner.calls - run.nfe)
        run.x, run.steps, run.nfe = y, i + 1, inner.calls
        if run.steps in save:
            run.saved[run.steps] = y.to(x.dtype, copy=True)
        if callback is not None:
            info = StepInfo(i, t0, t1, y.to(x.dtype, copy=True), None, run.nfe)
            if callback(info) is True:
                run.stopped = True
                break
    monitor.state(y, run.steps - 1, times[run.steps])
    return run


def _increment(
    noise: NoiseSource, y: Tensor, shape: tuple[int, ...], i: int, t0: float, t1: float, monitor: Monitor
) -> Tensor:
    z = noise.fill(uninitialised_like(y.detach().new_zeros(()).expand(shape)), i, 0)
    if not isinstance(noise, (StepNoise, PlainNoise)):
        monitor.noise(z, i, t0)
    return z * abs(t1 - t0) ** 0.5
