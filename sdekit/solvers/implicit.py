"""Drift-implicit methods: the drift at the end of the step, by Newton's method; the noise as in Euler-Maruyama."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.errors import ModelOutputError, OptionError, UnfinishedError
from sdekit.shapes import finite_number
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register
from sdekit.times import check_count

__all__ = ["MOST_IMPLICIT", "ImplicitEulerMaruyama", "ThetaMaruyama"]

MOST_IMPLICIT = 256
"""The most coordinates of one sample: every iteration takes a derivative of the drift for each."""

_ROUNDINGS = 20  # of the dtype in which the drift is called: no correction is asked to be smaller
_NO_NUMPY = "numpy() on Tensor that requires grad"  # in what torch then says


class _DriftImplicit(Stepper):
    """x1 = c + theta h f(t1, x1) with c known, solved for each sample by itself."""

    family: ClassVar[str] = "drift-implicit"
    reference: ClassVar[str] = (
        "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 12.2"
    )
    theta: float
    iterations: int
    tolerance: float

    def __post_init__(self) -> None:
        check_count("iterations", self.iterations)
        finite_number("tolerance", self.tolerance, positive=True)

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return self.iterations + (1 if self.theta == 1 else 2)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(
            deterministic=2 if self.theta == 0.5 else 1,
            weak=1,
            strong=1,
            note="strong 1/2 where the diffusion depends on the state",
            noise={"additive": NoiseOrder(1, 1), "general": NoiseOrder(0.5, 1)},
        )

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        size = math.prod(x.shape[1:])
        if size > MOST_IMPLICIT:
            raise OptionError(
                "solver",
                got=f"{self.label} in {size} dimensions",
                expected=f"at most {MOST_IMPLICIT}, one derivative of the drift for each in every iteration",
                fix="Take an explicit method, or exponential_euler_maruyama where its fast part is linear.",
            )
        if torch.is_inference_mode_enabled():  # which derivatives cannot be taken in
            with torch.inference_mode(False), torch.no_grad():
                copied = None if increments is None else Increments(increments.W.clone())
                return StepResult(self._advance(dynamics, t0, t1, x.clone(), copied))
        return StepResult(self._advance(dynamics, t0, t1, x, increments))

    def _advance(self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None) -> Tensor:
        h = t1 - t0
        known = x if self.theta == 1 else x + ((1 - self.theta) * h) * dynamics.drift(t0, x)
        if increments is not None:
            known = known + dynamics.diffuse(t0, x, increments.W)
        return self._solve(dynamics, t1, h, known, x)

    def _solve(self, dynamics: Any, t1: float, h: float, known: Tensor, x: Tensor) -> Tensor:
        """Newton's method from x, then one correction that carries gradients and is held against the tolerance.

        Its derivative with respect to all that f and c depend on is that of the solution itself: the solution moves by
        (1 - theta h df/dx)^(-1) (dc + theta h df).
        """
        y, matrix, weight = x.detach(), x.new_zeros(()), self.theta * h
        slopes = matrix
        for _ in range(self.iterations):
            f, slopes = _linearised(dynamics, t1, y)
            matrix = torch.eye(slopes.shape[-1], dtype=y.dtype, device=y.device) - weight * slopes
            y = y - _quotient(matrix, y - weight * f - known.detach())
        moved = weight * dynamics.drift(t1, y)
        correction = _quotient(matrix, y - moved - known)
        new = y - correction
        if not y.numel():
            return new
        eps = torch.finfo(getattr(dynamics, "dtype", y.dtype)).eps
        last = correction.detach().reshape(len(y), -1).abs()
        limit = max(self.tolerance, _ROUNDINGS * eps) * (1 + y.reshape(len(y), -1).abs().amax(1, keepdim=True))
        # What is not finite is found by the checks of the solve.
        bad = (last > limit).any(1) & torch.isfinite(last).all(1)
        if not bool(bad.any()):  # the one read of the device in a step
            return new
        terms = known.detach().abs() + moved.detach().abs()
        floor = _rounding_floor(matrix, weight * slopes, y, terms, eps)
        bad &= (last > floor).any(1)
        # Beyond the root of the largest number an iteration that goes on falling apart is as good as infinite.
        lost = bad & (last > math.sqrt(torch.finfo(y.dtype).max)).any(1)
        if getattr(getattr(dynamics, "monitor", None), "mask", False):
            lost = bad  # on_failure="mask": no sample's failure may end the others'
        self._refuse(bad & ~lost, last, t1, h)
        return torch.where(lost.reshape(-1, *(1,) * (y.ndim - 1)), math.inf, new)

    def _refuse(self, bad: Tensor, last: Tensor, t1: float, h: float) -> None:
        """Raises UnfinishedError for the first of the samples, if any."""
        if bool(bad.any()):
            sample = int(bad.nonzero()[0])
            raise UnfinishedError(
                "NEWTON",
                sample=sample,
                t=t1,
                step_size=h,
                component=int(last[sample].argmax()),
                what=f"after {self.iterations} iterations of Newton's method the next still moves the state by "
                f"{float(last[sample].max()):.2g}; take shorter steps or more iterations",
            )


def _rounding_floor(matrix: Tensor, scaled: Tensor, y: Tensor, terms: Tensor, eps: float) -> Tensor:
    """Below what (B, n) a correction may be nothing but rounding.

    The residual r = y - w f(y) - c is rounded by some eps (|y| + |w f| + |c|), and f(y) is taken to be exact at a point
    some eps |y| away, which adds w |df/dx| of it; a correction M^(-1) r carries |M^(-1)| times the sum. Quadratic
    convergence ends there, whatever the number of iterations.

    Args:
        matrix, scaled: M = 1 - w df/dx and w df/dx, (B, n, n).
        terms: |c| + |w f|, like y.
    """
    batch = len(y)
    size = y.reshape(batch, -1, 1).abs()
    rounded = size + terms.reshape(batch, -1, 1) + scaled.abs() @ size
    return (_ROUNDINGS * eps * (torch.linalg.inv_ex(matrix).inverse.abs() @ rounded))[..., 0]


def _linearised(dynamics: Any, t: float, y: Tensor) -> tuple[Tensor, Tensor]:
    """f(t, y) and its derivatives (B, n, n), by one call of the drift and one reverse derivative per coordinate.

    Raises:
        ModelOutputError: for a drift that leaves torch for numpy.
    """
    batch, size = len(y), math.prod(y.shape[1:])
    with torch.enable_grad():
        point = y.clone().requires_grad_()
        try:
            f = dynamics.drift(t, point.clone())  # a drift that edits its input is then refused as everywhere
        except RuntimeError as error:
            if _NO_NUMPY not in str(error):
                raise
            raise ModelOutputError(
                "drift",
                got="a call of numpy(), which gives an ndarray, on values of which derivatives are taken",
                expected=f"a real tensor of shape {tuple(y.shape)} that torch can differentiate",
                fix="Write the drift with torch, or take an explicit method.",
            ) from error
        flat = f.reshape(batch, size)
        if not f.requires_grad or not y.numel():
            return f.detach(), y.new_zeros(batch, size, size)
        # Rows of the batch do not know of each other: one vector takes the same entry of all.
        picks = torch.eye(size, dtype=y.dtype, device=y.device)[:, None].expand(size, batch, size)
        several = size > 1
        chosen = picks if several else picks[0]
        (rows,) = torch.autograd.grad(flat, point, chosen, is_grads_batched=several, allow_unused=True)
    if rows is None:
        return f.detach(), y.new_zeros(batch, size, size)
    return f.detach(), rows.reshape(size, batch, size).transpose(0, 1)


def _quotient(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix^(-1) x for each sample; not finite where a matrix is singular."""
    flat = x.reshape(len(x), matrix.shape[-1], 1)
    return torch.linalg.solve_ex(matrix, flat).result.reshape(x.shape) if x.numel() else x


@register("implicit_euler_maruyama", aliases=("drift_implicit_euler",))
@dataclass(frozen=True)
class ImplicitEulerMaruyama(_DriftImplicit):
    """x1 = x + h f(t1, x1) + g(t0, x) W, h = t1 - t0.

    A linear decay of any rate keeps its mean square bounded, however long the steps.

    A step makes iterations + 1 drift calls, a number that does not depend on the states, so that no sample's result
    depends on the others of its batch. The derivatives come from torch's reverse mode.

    Args:
        iterations: of Newton's method, from x; where the drift is linear the first is exact.
        tolerance: the most by which a further iteration may move a coordinate, relative to 1 + the largest of |x1|; no
            less than 20 roundings of the dtype of x, nor than what rounding makes of it where 1 - h df/dx is near to
            singular: 20 eps |(1 - h df/dx)^(-1)| (|x1| + |h f| + |c| + |h df/dx| |x1|), c the part known beforehand.

    Raises:
        OptionError: for iterations below 1 or a tolerance not above 0; at the first step, for samples of more than
            `MOST_IMPLICIT` coordinates.
        UnfinishedError: where a sample misses the tolerance, naming it, the time, and the component. A sample whose
            iterations run away, beyond the root of the largest number, is infinite: NonFiniteError or masked.
        ModelOutputError: for a drift that calls numpy() on what derivatives are taken of.
    """

    theta: ClassVar[float] = 1.0  # type: ignore[misc]
    iterations: int = 8
    tolerance: float = 1e-8


@register("theta_maruyama")
@dataclass(frozen=True)
class ThetaMaruyama(_DriftImplicit):
    """x1 = x + h (1 - theta) f(t0, x) + h theta f(t1, x1) + g(t0, x) W, h = t1 - t0.

    theta = 1/2 is the trapezoidal rule, of order 2 without noise; theta = 1 is implicit_euler_maruyama. From 1/2 on a
    linear decay of any rate does not grow.

    A step makes iterations + 2 drift calls, iterations + 1 for theta = 1.

    Args:
        theta: above 0, at most 1.
        iterations, tolerance: as for `ImplicitEulerMaruyama`.

    Raises:
        OptionError: for a theta out of range; else as `ImplicitEulerMaruyama`.
        UnfinishedError: as `ImplicitEulerMaruyama`.
    """

    theta: float = 0.5
    iterations: int = 8
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < finite_number("theta", self.theta) <= 1:
            raise OptionError(
                "theta", got=repr(self.theta), expected="0 < theta <= 1", fix="Use euler_maruyama for theta = 0."
            )
