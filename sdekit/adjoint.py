"""Gradients by steps that are made again backwards, part by part, each with a graph of its own for a short while.

What a part begins with is either kept from the solve ("checkpoint": about sqrt(N) parts of sqrt(N) steps), or found by
inverting the steps of a reversible method, in memory that does not grow with their number. A method is reversible
where it has, beside `step`, its exact inverse

    inverse(dynamics, t0, t1, x, increments, state) -> (x at t0, state at t0)

with x and state, a tuple of tensors, those after the step from t0 to t1, and increments those of that step. Noise is
drawn again from its key. torch.utils.checkpoint does not serve here: its hooks exclude torch.func, by which diffusions
are differentiated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sdekit.errors import SolverMismatchError
from sdekit.integrate import Dynamics, Walk, integrate
from sdekit.leaves import find_leaves, refuse_unknown
from sdekit.monitor import Monitor
from sdekit.solution import Run

__all__ = ["integrate_again"]

Kept = tuple[range, Tensor, Any]


def integrate_again(
    dynamics: Any,
    stepper: Any,
    x: Tensor,
    times: Sequence[float],
    noise: Any,
    monitor: Monitor,
    *,
    limit: int,
    parts: Sequence[range] | None,
    **options: Any,
) -> Run:
    """As `integrate`, with the gradients of this module. A call of drift and diffusion more finds what they depend on.

    Args:
        parts: of the steps, whose beginnings are kept; None inverts each step by `stepper.inverse`.

    Raises:
        InterfaceError: in the backward pass, for a drift or diffusion that depends on other tensors there.
        SolverMismatchError: for a method that remembers other things than tensors.
    """
    known: tuple[Tensor, ...] = ()
    if torch.is_grad_enabled() and len(x):
        probe = Dynamics(dynamics, x, Monitor(x, "off", False), limit)
        known = find_leaves(_At(probe, times[0]), x, diffusion=probe.noise_type is not None)
    if not known and not (x.requires_grad and torch.is_grad_enabled()):
        return integrate(dynamics, stepper, x, times, noise, monitor, limit=limit, **options)
    back = _Back(dynamics, stepper, x, times, noise, limit, known)

    def forward() -> Run:
        return integrate(dynamics, stepper, x, times, noise, monitor, limit=limit, parts=parts, **options)

    holder: list[Run] = []
    outputs = _Again.apply(back, forward, holder, x, *known)
    run = holder[0]
    run.x = outputs[0]
    for i, out in zip(back.saved, outputs[1:], strict=True):
        run.saved[i] = out
    if 0 in run.saved:
        run.saved[0] = x.clone()
    return run


class _At:
    """The dynamics as `find_leaves` calls them."""

    def __init__(self, dynamics: Dynamics, t: float) -> None:
        self.drift, self.diffusion, self.last = dynamics.drift, dynamics.diffusion, t


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, back: _Back, forward: Any, holder: list[Run], x: Tensor, *known: Tensor) -> Any:
        run = forward()
        holder.append(run)
        ctx.back = back
        back.end = range(run.steps, run.steps), run.x, run.state
        back.kept, run.kept = run.kept, []
        back.saved = [i for i in sorted(run.saved) if i > 0]
        return (run.x.clone(), *(run.saved[i].clone() for i in back.saved))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (None, None, None, *ctx.back(grads))


class _Back:
    """The backward pass.

    Attributes:
        end: the end of the solve, as a part without steps.
        kept: the parts, where their beginnings are kept.
        saved: the indices of saved states.
    """

    end: Kept
    kept: list[Kept]
    saved: list[int]

    def __init__(
        self, dynamics: Any, stepper: Any, x: Tensor, times: Any, noise: Any, limit: int, known: tuple[Tensor, ...]
    ) -> None:
        self.dynamics, self.stepper, self.start, self.times = dynamics, stepper, x.detach(), times
        self.noise, self.limit, self.known = noise, limit, known

    def __call__(self, grads: tuple[Tensor, ...]) -> list[Tensor | None]:
        """The gradients in x and the known tensors, from those in the final state and the saved ones."""
        inner = Dynamics(self.dynamics, self.start, Monitor(self.start, "off", False), 4 * self.limit + 4)
        walk = Walk(inner, self.stepper, self.start, self.times, self.noise)
        arriving = dict(zip(self.saved, grads[1:], strict=True))
        adjoint: list[Tensor | None] = [grads[0].to(self.end[1].dtype)]
        adjoint += [None] * len(_tensors(self.end[2]))
        found: list[Tensor | None] = [None] * len(self.known)
        for kept in self._inverted(walk) if not self.kept else reversed(self.kept):
            adjoint, found = self._through(walk, kept, adjoint, found, arriving)
        return [None if adjoint[0] is None else adjoint[0].to(self.start.dtype), *found]

    def _inverted(self, walk: Any) -> Iterator[Kept]:
        """The steps one by one, from the last, with what they begin with."""
        _, x, state = self.end
        for i in range(self.end[0].start - 1, -1, -1):
            if i == 0:
                x, state = self.start.to(x.dtype, copy=True), None
            else:
                walk.inner.begin(i)
                increments = walk.increments(walk.inner, i, x)
                ends = self.times[i], self.times[i + 1]
                x, state = self.stepper.inverse(walk.inner, *ends, x, increments, state)
            yield range(i, i + 1), x, state

    def _through(
        self,
        walk: Any,
        kept: Kept,
        adjoint: list[Tensor | None],
        found: list[Tensor | None],
        arriving: dict[int, Tensor],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The gradients in x and state before a part, and in the known tensors, with those of later parts."""
        part, x, state = kept
        with torch.enable_grad():
            flat, tree = tree_flatten(state)
            inputs = [t.detach().requires_grad_() for t in (x, *_tensors(state))]
            fresh = iter(inputs[1:])
            y, before = inputs[0], tree_unflatten([next(fresh) if _is_state(t) else t for t in flat], tree)
            pairs: list[tuple[Tensor, Tensor | None]] = []
            for i in part:
                y, before = walk.step(walk.inner, i, y, before)
                if i + 1 in arriving:
                    pairs.append((y.to(arriving[i + 1].dtype, copy=True), arriving[i + 1]))
                if i + 1 == self.end[0].start:
                    break  # where a callback stopped the solve
            outputs = [y, *_tensors(before)]
            for out in outputs:
                refuse_unknown(out, [*inputs, *self.known], "step")
            pairs = [*zip(outputs, adjoint, strict=True), *pairs]
            # What was found before comes first, so that sums are formed in the order of one backward pass.
            pairs = [*zip(self.known, found, strict=True), *pairs]
            live = [(out, g) for out, g in pairs if g is not None and out.requires_grad]
            grads = torch.autograd.grad(
                [out for out, _ in live],
                [*inputs, *self.known],
                [g for _, g in live],
                allow_unused=True,
                retain_graph=True,  # of what was computed outside, for the other parts
            )
        return list(grads[: len(inputs)]), list(grads[len(inputs) :])


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _tensors(state: Any) -> list[Tensor]:
    """What of a method's state has gradients. Raises SolverMismatchError for what cannot be made again."""
    flat, _ = tree_flatten(state)
    strange = [v for v in flat if not isinstance(v, (Tensor, int, float, str, type(None)))]
    if strange:
        raise SolverMismatchError(
            "gradients",
            got=f"a solver that remembers a {type(strange[0]).__name__} from step to step",
            expected="one whose state is tensors",
            fix="Use gradients='direct'.",
        )
    return [v for v in flat if _is_state(v)]
