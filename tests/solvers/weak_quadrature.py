"""Expectations of a sampler's output on a mixture on the line, by quadrature over its noises: no Monte Carlo.

Backwards in steps: u(x_n, x_{n-1}, ...) is the expectation of f of the output, given the states that the steps to come
read, on tensor grids. A step from grid points leads to x_{n+1} between them, in the first argument
alone, where u is interpolated; its noises are integrated by the trapezoidal rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdekit.plan import Plan

__all__ = ["MEANS", "exact_expectation", "expectation", "mixture_data"]

MEANS, VARIANCE = (-0.9, 1.1), 0.3
_REACH = 4.5
_WIDTH = 12


def mixture_data(alpha: float, sigma: float, x: np.ndarray) -> np.ndarray:
    """The posterior mean for two equal Gaussians."""
    s = alpha**2 * VARIANCE + sigma**2
    logs = np.stack([-((x - alpha * m) ** 2) / (2 * s) for m in MEANS])
    shares = np.exp(logs - np.logaddexp(*logs))
    means = np.stack([m + alpha * VARIANCE / s * (x - alpha * m) for m in MEANS])
    return (shares * means).sum(0)


def exact_expectation(alpha: float, sigma: float) -> float:
    """E cos(2 x + 1/2) of the marginal."""
    s = alpha**2 * VARIANCE + sigma**2
    return float(np.mean([math.cos(2 * alpha * m + 0.5) * math.exp(-2 * s) for m in MEANS]))


class _Points:
    """Equally spaced points over the marginal of a level, and interpolation of degree eleven between them:
    local, as what is far off, where improbable steps end outside and are held, must not be felt."""

    def __init__(self, alpha: float, sigma: float, count: int) -> None:
        spread = math.sqrt(alpha**2 * VARIANCE + sigma**2)
        self.at = np.linspace(alpha * min(MEANS) - _REACH * spread, alpha * max(MEANS) + _REACH * spread, count)

    def matrix(self, x: np.ndarray) -> np.ndarray:
        """(*x.shape, count): what interpolates at x, which is held inside."""
        count = len(self.at)
        place = (np.clip(x, self.at[0], self.at[-1]) - self.at[0]) / (self.at[1] - self.at[0])
        first = np.clip(np.floor(place).astype(int) - _WIDTH // 2 + 1, 0, count - _WIDTH)
        apart = (place - first)[..., None] - np.arange(_WIDTH)
        apart = np.where(apart == 0, 1e-300, apart)
        terms = np.array([(-1) ** k * math.comb(_WIDTH - 1, k) for k in range(_WIDTH)]) / apart
        found = np.zeros((*x.shape, count))
        np.put_along_axis(found, first[..., None] + np.arange(_WIDTH), terms / terms.sum(-1, keepdims=True), -1)
        return found


def expectation(plan: Plan, count: int, nodes: int = 13) -> float:
    """E cos(2 x + 1/2) of the output from the exact marginal; `count` points in each argument, `nodes` for a noise.

    A plan of several rows a step may not read outputs of earlier steps.
    """
    steps = [list(group) for _, group in itertools.groupby(plan.rows, key=lambda row: row.step)]
    single = all(len(step) == 1 for step in steps)
    depth = max(age for row in plan.rows for c in row.combinations() for age, _ in c.outputs) if single else 0
    levels = [(step[0].alpha, step[0].sigma) for step in steps] + [plan.end]
    grids = [_Points(*level, count) for level in levels]
    # Equally spaced: as good as a Gauss rule on a Gaussian, and better on what is interpolated piece by piece.
    rule = np.linspace(-5.5, 5.5, nodes)
    weights = np.exp(-(rule**2) / 2)
    weights /= weights.sum()
    u = np.cos(2 * grids[-1].at + 0.5).reshape(-1, *(1,) * depth)
    u = np.broadcast_to(u, (count,) * (depth + 1))
    for n in reversed(range(len(steps))):
        streams = sorted({k for row in steps[n] for c in row.combinations() for k, _ in c.noises})
        axes = depth + 1 + len(streams)
        # Axes: x_n, ..., x_{n-depth}, then the noises.
        xs = [_along(grids[max(n - j, 0)].at, j, axes) for j in range(depth + 1)]
        noises = {k: _along(rule, depth + 1 + i, axes) for i, k in enumerate(streams)}
        before = [mixture_data(*levels[max(n - j, 0)], xs[j]) for j in range(1, depth + 1)]
        end = _run(steps[n], xs[0], before, noises)
        end = np.broadcast_to(end, (*(count,) * (depth + 1), *(nodes,) * len(streams)))
        moved = grids[n + 1].matrix(end)
        for _ in streams:
            moved = np.tensordot(moved, weights, ([moved.ndim - 2], [0]))
        # moved: x_n, ..., x_{n-depth}, point of x_{n+1}; u: point, x_n, ..., x_{n-depth+1}.
        letters = "abcd"[: depth + 1]
        u = np.einsum(f"{letters}z,z{letters[:-1]}->{letters}", moved, u)
    start = grids[0]
    alpha, sigma = levels[0]
    fine = np.linspace(-5.5, 5.5, 100)
    share = np.exp(-(fine**2) / 2) / np.exp(-(fine**2) / 2).sum()
    first = u.reshape(count, -1)[:, 0]  # the first step reads no state before it
    spread = math.sqrt(alpha**2 * VARIANCE + sigma**2)
    return float(np.mean([start.matrix(alpha * m + spread * fine) @ first @ share for m in MEANS]))


def _along(values: np.ndarray, axis: int, axes: int) -> np.ndarray:
    return values.reshape([-1 if i == axis else 1 for i in range(axes)])


def _run(rows: Sequence[Any], x: np.ndarray, before: list[np.ndarray], noises: dict[int, np.ndarray]) -> np.ndarray:
    """The rows of a step from x, with outputs of data predictions before it, newest first."""
    outputs = list(reversed(before))
    base = point = x

    def made(c: Any, base: np.ndarray) -> np.ndarray:
        total = c.base * base
        for age, b in c.outputs:
            total = total + b * outputs[-1 - age]
        for k, b in c.noises:
            total = total + b * noises[k]
        return total

    for row in rows:
        if row.kick is not None:
            base = point = made(row.kick, base)
        data = mixture_data(row.alpha, row.sigma, point)
        p, q = row.weights
        outputs.append(p * data + q * ((point - row.alpha * data) / row.sigma if q else 0.0))
        base, point = (
            (base if row.base is None else made(row.base, base)),
            (None if row.point is None else made(row.point, base)),
        )
        point = base if point is None else point
    return point
