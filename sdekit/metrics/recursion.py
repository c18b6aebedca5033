"""The law of a plan's output, axis by axis, in memory that does not grow with its steps.

`Plan.gaussian_moments` keeps one number for each noise of the plan, and so needs memory and time that grow with the
square of the steps. Here what is live after a step, the state and the outputs that later rows read, is k registers of
an affine map of independent standard normals; of these k are enough to have the same law, by a QR factorization of
their coefficients. Square roots of covariances are carried, never covariances, so that nothing is lost by squaring.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from sdekit.plan import Combination, Plan, Row
from sdekit.plan.moments import extrapolated

__all__ = ["propagated"]

Array = np.ndarray
"""A register: (1 + m, d), the mean and the coefficients of m normals, in each of d axes."""


def propagated(
    plan: Plan, mean: Array, variances: Array, start_mean: Array, start_variance: Array
) -> tuple[Array, Array]:
    """Means (d,) and variances (d,) of the output for data N(mean, variances), from a start of independent axes.

    The plan's coefficients must be numbers.
    """
    registers: dict[Any, Array] = {"state": np.stack([start_mean, np.sqrt(start_variance)])}
    for first, last in _steps(plan):
        registers = _compressed(_run(plan, first, last, registers, mean, variances))
    state = registers["state"]
    return state[0], (state[1:] ** 2).sum(0)


def _steps(plan: Plan) -> list[tuple[int, int]]:
    """The range of rows between one moment at which base and point agree, and the next."""
    rows, bounds = plan.rows, [0]
    for i, row in enumerate(rows):
        ends = i + 1 == len(rows) or rows[i + 1].step != row.step
        if ends and (row.point is None or i + 1 == len(rows)):
            bounds.append(i + 1)
    return list(itertools.pairwise(bounds))


def _run(plan: Plan, first: int, last: int, registers: Mapping[Any, Array], mean: Array, c: Array) -> dict[Any, Array]:
    """The rows of one step; returns the state, and by row the outputs that later ones read."""
    noises: dict[tuple[int, int], int] = {}
    for row in plan.rows[first:last]:
        for combination in row.combinations():
            for stream, _ in combination.noises:
                noises.setdefault((row.step, stream), len(noises))
    old = len(next(iter(registers.values())))
    live = {key: np.concatenate([v, np.zeros((len(noises), len(c)))]) for key, v in registers.items()}
    base = point = live.pop("state")

    def combined(part: Combination, row: Row, i: int) -> Array:
        total: Any = part.base * base  # type: ignore[operator]
        for age, b in part.outputs:
            total = total + b * live[i - age]  # type: ignore[operator]
        for stream, b in part.noises:
            total[old + noises[row.step, stream]] += b
        return total

    for i in range(first, last):
        row = plan.rows[i]
        if row.kick is not None:
            base = point = combined(row.kick, row, i)
        live[i] = extrapolated(row, point, mean, c)
        moved = base if row.base is None else combined(row.base, row, i)
        point = moved if row.point is None else combined(row.point, row, i)
        base = moved
    kept = {i: v for i, v in live.items() if plan.last_use[i] >= last}
    return {"state": point, **kept}


def _compressed(registers: dict[Any, Array]) -> dict[Any, Array]:
    """The same joint law with as many normals as there are registers."""
    stack = np.stack(list(registers.values()))
    count, size = len(stack), stack.shape[1] - 1
    if size <= count:
        return registers
    if count == 1:
        roots = np.sqrt((stack[:, 1:] ** 2).sum(1, keepdims=True))
    else:
        upper = np.linalg.qr(stack[:, 1:].transpose(2, 1, 0)).R  # (d, normals, registers) = Q R
        roots = upper.transpose(2, 1, 0)
    return {key: np.concatenate([stack[i, :1], roots[i]]) for i, key in enumerate(registers)}
