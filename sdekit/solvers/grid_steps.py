"""The steps of a grid, all at once: the weights of multistep methods, and their rows.

A step n adds int W(lambda) q(lambda) dlambda, where q goes through the predictions at the step's start and at grid
times before it. It may be a polynomial in lambda or in another clock, see `sdekit.solvers.clocks`. Arrays over all
steps take the time of planning a few of them one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from sdekit.affine import AffineSDE, Level
from sdekit.math.interpolation import moment_weights
from sdekit.plan import DATA, NOISE, Row, commit_history
from sdekit.sde import Stochasticity
from sdekit.solvers.exponential import ExponentialStep, exponential_step, krogstad_rows, limit_row, regular_steps

__all__ = ["GridSteps", "InLambda", "Interpolation", "history_weights", "multistep_rows"]

Special = Callable[[slice | int, list[Any], Any, Sequence[Any]], Sequence[Any] | None]
"""Of a part of the steps, their nodes, totals and moments the weights, where they are not the polynomial's; or None."""


class Interpolation(Protocol):
    """In what the predictions are interpolated. Levels and what is returned are arrays over steps."""

    def regular(self, s: Level, t: Level) -> bool:
        """Whether a step that touches an end has weights; where not, it takes the limit of order 1."""
        ...

    def place(self, s: Level, t: Level, at: Level) -> Any:
        """Where levels (..., n) are in n steps: 0 at s, 1 at t."""
        ...

    def moments(self, s: Level, t: Level, exact: ExponentialStep, count: int) -> Sequence[Any]:
        """int W(lambda) place^k dlambda, k < count."""
        ...


class InLambda:
    """The polynomial in lambda; an `Interpolation`."""

    def regular(self, s: Level, t: Level) -> bool:
        return False

    def place(self, s: Level, t: Level, at: Level) -> Any:
        return (at.half_log_snr - s.half_log_snr) / (t.half_log_snr - s.half_log_snr)

    def moments(self, s: Level, t: Level, exact: ExponentialStep, count: int) -> Sequence[Any]:
        return exact.moments(count)


class GridSteps:
    """Some steps of a grid, as arrays over them.

    Args:
        which: their indices, ascending: step n leads from level n to level n + 1.
        most: the largest number of outputs that a step interpolates.

    Attributes:
        exact: scale, std and total of each.
    """

    def __init__(
        self,
        process: AffineSDE,
        levels: Sequence[Level],
        which: Sequence[int],
        prediction: str,
        tau: Stochasticity,
        most: int,
        interpolation: Interpolation | None = None,
    ) -> None:
        flat = np.fromiter(itertools.chain.from_iterable(levels), np.float64)
        self.columns, self.which = flat.reshape(len(levels), -1).T, np.array(which, dtype=np.int64)
        clock = interpolation or InLambda()
        self.s, self.t = self._levels(self.which), self._levels(self.which + 1)
        self.exact = exponential_step(process, self.s, self.t, prediction, tau)
        before = self._levels(np.maximum(self.which - np.arange(most)[:, None], 0))
        self.places = list(clock.place(self.s, self.t, before))
        self.moments = clock.moments(self.s, self.t, self.exact, most) if most > 1 else [self.exact.total]

    def _levels(self, which: np.ndarray) -> Any:
        return Level(*self.columns[:, which])

    def linear(self) -> tuple[list[float], list[float]]:
        """scale and std of each."""
        std = self.exact.std + np.zeros(len(self.which))  # without noise it is one number
        return self.exact.scale.tolist(), std.tolist()

    def weights(
        self, counts: Sequence[int], special: Special | None = None, *, ahead: bool = False
    ) -> list[list[float]]:
        """For each step the weights of as many outputs as counted, newest first.

        Args:
            ahead: whether the prediction at t is one more node, and the last weight its own.
        """
        new = [np.ones(len(self.which))] if ahead else []
        found: list[list[float]] = []
        for count, run in itertools.groupby(counts):
            first, length = len(found), len(list(run))
            part = slice(first, first + length) if length > 1 else first  # numbers do for one
            used = [v[part] for v in (*self.places[:count], *new)]
            total, integrals = self.exact.total[part], [m[part] for m in self.moments[: len(used)]]
            b = special(part, used, total, integrals) if special else None
            if b is None:
                b = [total] if len(used) == 1 else moment_weights(used, integrals)
            found += np.stack(b, -1).reshape(length, -1).tolist()
        return found


def history_weights(
    clock: Sequence[float], which: Sequence[int], moments: Sequence[np.ndarray], order: int
) -> dict[int, list[float]]:
    """For each of these steps the weights of its latest outputs, newest first, of which there are up to `order`.

    Args:
        clock: at each level, that in which they are interpolated.
        which: steps that follow each other; the first has one output.
        moments: int W(lambda) place^k dlambda of each step, k < order, with place 0 at its start and 1 at its end.
    """
    at, steps = np.array(clock), np.array(which, dtype=np.int64)
    start, whole = at[steps], at[steps + 1] - at[steps]
    found: list[list[float]] = []
    for count in range(1, min(order, len(which)) + 1):
        part = slice(count - 1, len(which) if count == order else count)
        nodes = [(at[steps[part] - j] - start[part]) / whole[part] for j in range(count)]
        found += np.stack(moment_weights(nodes, [m[part] for m in moments[:count]]), -1).tolist()
    return dict(zip(which, found, strict=True))


def multistep_rows(
    process: AffineSDE,
    times: list[float],
    tau: Stochasticity,
    *,
    order: int,
    prediction: str = "data",
    second: str = "exact",
    third: str = "exact",
    final_order: int | None = None,
    starts: int = 0,
    interpolation: Interpolation | None = None,
) -> list[Row]:
    """Rows of an exponential Adams method.

    Args:
        order: the number of outputs that a step interpolates, as far as there are any.
        second: "half" replaces the weights of two nodes by total (1 + 1/(2r)), -total / (2r), r = h_last / h.
        third: "released" halves the second divided difference that the weights of three nodes give; "other_sign" takes
            alpha_t times it away besides.
        final_order: a smaller order for the last step, or None.
        starts: how many first steps are taken by a single-step method of order 4 (deterministic only).
        interpolation: in what the outputs are interpolated; None is lambda.
    """
    levels = process.levels(times, rates=False)
    clock = interpolation or InLambda()
    last = len(levels) - 2
    rows: list[Any] = []
    calls: list[int] = []  # the row that calls the model at each level
    first, which, counts, inside = 0, [], [], set(regular_steps(levels))
    for n, (s, t) in enumerate(itertools.pairwise(levels)):
        calls.append(len(rows))
        if n not in inside and not clock.regular(s, t):
            rows.append(limit_row(n, s, t, prediction, tau))  # a grid's first or last step: no history is needed
            first = n + 1
        elif n < starts and n in inside:
            rows += krogstad_rows(process, n, s, t, prediction)
        else:
            which.append(n)
            counts.append(min(n + 1 - first, final_order if final_order and n == last else order))
            rows.append(None)
    if not which:
        return rows
    steps = GridSteps(process, levels, which, prediction, tau, max(counts), clock)
    found = steps.weights(counts, _special(second, third, steps.t))
    weights = DATA if prediction == "data" else NOISE
    for n, scale, std, b in zip(which, *steps.linear(), found, strict=True):
        i = calls[n]
        ages = [i - calls[n - j] for j in range(len(b))]
        rows[i] = commit_history(n, levels[n], weights, scale, ages, b, std)
    return rows


def _special(second: str, third: str, t: Any) -> Special:
    """See `multistep_rows`; t are the levels that the steps lead to."""

    def weights(part: slice | int, nodes: list[Any], total: Any, moments: Sequence[Any]) -> list[Any] | None:
        if len(nodes) == 2 and second == "half":
            half = total / (2 * -nodes[1])
            return [total + half, -half]
        if len(nodes) == 3 and third != "exact":
            # Without half the term of the second divided difference f'' / 2 of the prediction. A parabola contributes
            # that difference times the integral of r^2 once it is written with the derivative at r = 0.
            x, y, z = nodes
            products = (x - y) * (x - z), (y - x) * (y - z), (z - x) * (z - y)
            off = 0.5 * moments[2] + (t.alpha[part] if third == "other_sign" else 0.0)
            return [w - off / p for w, p in zip(moment_weights(nodes, moments), products, strict=True)]
        return None

    return weights
