"""A plan cut where its noise enters: between two such places the state follows a map without noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import SolverMismatchError
from sdekit.plan import Combination, Plan
from sdekit.targets import GaussianMixture
from sdekit.targets.components import Scales, Want

__all__ = ["Segment", "run", "segments"]


@dataclass(frozen=True)
class Segment:
    """Rows first <= i < last of a plan, then noise of this standard deviation; `kick`: the noise opens row `first`,
    and there are no rows."""

    first: int
    last: int
    std: float
    kick: bool = False


def segments(plan: Plan) -> list[Segment]:
    """The plan in segments, the last one without noise (and maybe without rows).

    Raises:
        SolverMismatchError: for a plan that is not a chain of one noise a step: its state between segments is more
            than one number, or noise enters inside a step.
    """
    uses = Counter((row.step, s) for row in plan.rows for c in row.combinations() for s, _ in c.noises)
    if any(count > 1 for count in uses.values()):
        raise _refused(plan, "one noise in several places")
    found, first = [], 0
    for i, row in enumerate(plan.rows):
        if row.kick is not None and row.kick.noises:
            if i > first:
                found.append(Segment(first, i, 0.0))
            found.append(Segment(i, i, _std(row.kick), kick=True))
            first = i
        if row.point is not None and row.point.noises:
            raise _refused(plan, "noise inside a step")
        if row.base is not None and row.base.noises:
            if row.point is not None:
                raise _refused(plan, "noise in a state that is changed later")
            found.append(Segment(first, i + 1, _std(row.base)))
            first = i + 1
    found.append(Segment(first, len(plan.rows), 0.0))
    for part in found:
        for i in range(part.first, part.last):
            oldest = max((age for c in plan.rows[i].combinations() for age, _ in c.outputs), default=0)
            if plan.stochastic and i - oldest < part.first:
                raise _refused(plan, "outputs of earlier steps")
    return found


def run(plan: Plan, part: Segment, target: GaussianMixture, x: Tensor) -> Tensor:
    """The states x (n,) at the end of a segment, its noise left out."""
    if part.kick:
        kick = plan.rows[part.first].kick
        return x if kick is None else kick.base * x  # type: ignore[operator]
    base = point = x
    outputs: dict[int, Tensor] = {}

    def combined(c: Combination, i: int) -> Tensor:
        total = c.base * base  # type: ignore[operator]
        for age, b in c.outputs:
            total = total + b * outputs[i - age]  # type: ignore[operator]
        return total

    for i in range(part.first, part.last):
        row = plan.rows[i]
        if row.kick is not None and not row.kick.noises:
            base = point = combined(row.kick, i)
        p, q = row.weights
        outputs[i] = target.evaluate(Scales(row.alpha, row.sigma), point[:, None], Want(p, q, 0.0))[:, 0]
        moved = base if row.base is None else combined(row.base, i)
        point = moved if row.point is None else combined(row.point, i)
        base = moved
    return point


def run_with_slope(plan: Plan, parts: Sequence[Segment], target: GaussianMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `run`, for several segments of which at most the last has noise, with the derivative by x."""
    with torch.enable_grad():
        start = x.detach().requires_grad_(True)
        end = start
        for part in parts:
            end = run(plan, part, target, end)
        if not end.requires_grad:
            return end.detach().expand_as(x).clone(), torch.zeros_like(x)
        (slope,) = torch.autograd.grad(end.sum(), start, allow_unused=True)
    return end.detach(), torch.zeros_like(x) if slope is None else slope


def _std(c: Combination) -> float:
    return math.sqrt(math.fsum(float(b) ** 2 for _, b in c.noises))  # type: ignore[arg-type]


def _refused(plan: Plan, got: str) -> SolverMismatchError:
    return SolverMismatchError(
        "plan",
        got=f"{plan.solver} with {got}",
        expected="a deterministic plan, or one whose steps depend on the last state alone and end in one noise",
        fix="Use ddpm, ddim(eta=1), euler_maruyama or exp_adams(order=1), or samples of this one.",
    )
