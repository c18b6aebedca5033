"""Dense output: between the ends of a step, the solution as a polynomial made of the slopes of the step.

x(theta) = x + h sum_i b_i(theta) k_i, theta in [0, 1], with k_i the slopes of the stages and that at the new state. The
polynomials b_i are found from the tableau. The order conditions of every rooted tree up to some order hold at every
theta, and x(theta) and its derivative are continuous from step to step (Hairer, Norsett and Wanner, Solving Ordinary
Differential Equations I, II.6); what is left free makes the errors of the next order least. The highest order for which
there are such is taken: 3 for bosh3 (there it is the cubic of Hermite), 4 for rk45 and tsit5, 6 for dop853. No slope is
asked for beside the step's.

The flow of a model is integrated in another variable and another scale: there x is what is integrated.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit.control.fields import Field
from sdekit.control.nodes import Nodes
from sdekit.errors import OptionError

__all__ = ["Dense", "Extension", "evaluate", "extension_of"]

_ROUNDING = 1e-11  # of conditions that hold
_HIGHEST = 6

Tree = tuple[Any, ...]


class Extension:
    """The polynomials of a method.

    Attributes:
        weights: (slopes, degree): the coefficients of theta, theta^2, ... in each b_i.
        order: the error of x(theta) over a step falls as h^(order + 1).
    """

    def __init__(self, weights: np.ndarray, order: int) -> None:
        self.weights, self.order = weights, order

    def polynomial(self, slopes: list[Tensor], gain: Tensor) -> list[Tensor]:
        """The coefficients of theta, theta^2, ... in x(theta) - x; gain (n, 1, ..., 1) is the signed step."""
        return [gain * sum(float(w) * k for w, k in zip(column, slopes, strict=True) if w) for column in self.weights.T]


@functools.lru_cache(maxsize=16)
def extension_of(tableau: Any) -> Extension:
    """The extension of highest order. The slope at the new state counts as a last stage."""
    stages = len(tableau.c) + 1
    a = np.zeros((stages, stages))
    for i, row in enumerate((*tableau.a, tableau.b)):
        a[i, : len(row)] = row
    for order in range(min(tableau.order, _HIGHEST), 2, -1):
        found = _solve(a, tableau, order)
        if found is not None:
            return Extension(found, order)
    raise OptionError(
        f"tableau {tableau.name}", got="no dense output", expected="slopes at both ends", fix="Use another method."
    )


def _solve(a: np.ndarray, tableau: Any, order: int) -> np.ndarray | None:
    """The coefficients for an order, or None where there are none. Unknowns: weights (slopes, degree), by columns."""
    stages, degree = len(a), max(order, 3)
    rows, right = [], []

    def demand(values: np.ndarray, powers: np.ndarray, equals: float) -> None:
        rows.append(np.outer(powers, values).ravel())
        right.append(equals)

    unit = np.eye(degree)
    for tree in trees_up_to(order):
        phi, gamma = _weight(tree, a), _density(tree)
        for p in range(degree):
            demand(phi, unit[p], 1 / gamma if p + 1 == _size(tree) else 0.0)
    ends = np.append(np.array(tableau.b), 0.0)
    powers = np.arange(1, degree + 1)
    for i, slope in enumerate(np.eye(stages)):
        demand(slope, np.ones(degree), ends[i])  # x(1) is the new state
        demand(slope, unit[0], float(i == 0))  # the slopes at both ends
        demand(slope, powers, float(i == stages - 1))
    matrix, vector = np.array(rows), np.array(right)
    solution = np.linalg.lstsq(matrix, vector, rcond=1e-12)[0]
    if np.abs(matrix @ solution - vector).max() > _ROUNDING:
        return None
    # What is left free makes the errors of the next order small, at places spread over the step.
    errors, misses = [], []
    for tree, place in itertools.product(_trees(order + 1), np.linspace(0, 1, 9)[1:-1]):
        errors.append(np.outer(place**powers, _weight(tree, a)).ravel())
        misses.append(place ** (order + 1) / _density(tree))
    free = _null_space(matrix)
    step = np.linalg.lstsq(np.array(errors) @ free, np.array(misses) - np.array(errors) @ solution, rcond=1e-2)[0]
    return (solution + free @ step).reshape(degree, stages).T


def _null_space(matrix: np.ndarray) -> np.ndarray:
    """Columns that span it."""
    _, sizes, rows = np.linalg.svd(matrix, full_matrices=True)
    return rows[int((sizes > 1e-12 * sizes[0]).sum()) :].T


def trees_up_to(order: int) -> Iterator[Tree]:
    """Rooted trees with at most this many nodes; a tree is the tuple of its branches."""
    for n in range(1, order + 1):
        yield from _trees(n)


@functools.cache
def _trees(n: int) -> tuple[Tree, ...]:
    return tuple(_forests(n - 1, n - 1, None))


def _forests(n: int, size: int, index: int | None) -> Iterator[Tree]:
    """Multisets of trees with n nodes in all, none greater than that of this size and index (None: the last)."""
    if n == 0:
        yield ()
    for first in range(min(n, size), 0, -1):
        trees = _trees(first)
        last = len(trees) - 1 if index is None or first < size else index
        for i in range(last, -1, -1):
            for rest in _forests(n - first, first, i):
                yield (trees[i], *rest)


def _size(tree: Tree) -> int:
    return 1 + sum(_size(branch) for branch in tree)


def _density(tree: Tree) -> int:
    return _size(tree) * math.prod(_density(branch) for branch in tree)


def _weight(tree: Tree, a: np.ndarray) -> np.ndarray:
    """Phi of a tree at each stage."""
    out = np.ones(len(a))
    for branch in tree:
        out = out * (a @ _weight(branch, a))
    return out


class _Piece(NamedTuple):
    """Accepted steps of samples `rows`, between the times `since` and `until`; u, width and x are those of the field.

    `since` is where the samples' steps before ended, from which a jump may lie between; `until` where the solution
    ends, within the last step of a sample. x is what is integrated, at the start of the steps.
    """

    rows: np.ndarray
    since: np.ndarray
    until: np.ndarray
    u: np.ndarray
    width: np.ndarray
    x: Tensor
    polynomial: list[Tensor]
    field: Field

    def at(self, which: np.ndarray, t: np.ndarray) -> Tensor:
        """The states of some of them, by position, at times (n,)."""
        u, scale = self.field.place(t)
        theta = np.clip((u - self.u[which]) / self.width[which], 0.0, 1.0)
        return evaluate(self.x, self.polynomial, which, theta, scale)


class Dense:
    """The solution at any time of an adaptive solve, for each sample by its own steps.

    Attributes:
        order: the error between the ends of steps falls as this power of their length.
    """

    def __init__(self, extension: Extension, x: Tensor, times: list[float]) -> None:
        self.extension, self.order, self.start, self.ends = extension, extension.order, x, (times[0], times[-1])
        self._pieces: list[_Piece] = []

    def add(self, *piece: Any) -> None:
        """Accepted steps: what `_Piece` holds."""
        self._pieces.append(_Piece(*piece))

    def cut(self, which: np.ndarray, when: np.ndarray) -> None:
        """The solutions of some samples end at these times, inside their last step."""
        last = self._pieces[-1]
        last.until[np.searchsorted(last.rows, which)] = when

    def at(self, t: Any) -> Tensor:
        """The states at a time, or at a time for each sample.

        Raises:
            OptionError: outside what a sample has reached, or for times that are no numbers.
        """
        batch = len(self.start)
        given = _numbers(t)
        if given.size not in (1, batch):
            got = f"{given.size} times for {batch} samples"
            raise OptionError("t", got=got, expected="one time, or one for each sample", fix="Call it once for each.")
        wanted = np.broadcast_to(given.reshape(-1), (batch,))
        out: list[Tensor] = [self.start[:0]]
        order: list[np.ndarray] = []
        left = np.ones(batch, dtype=bool)
        for piece in self._pieces:
            rows, time = piece.rows, wanted[piece.rows]
            low, high = np.minimum(piece.since, piece.until), np.maximum(piece.since, piece.until)
            which = np.flatnonzero(left[rows] & (low <= time) & (time <= high))
            if len(which):
                left[rows[which]] = False
                order.append(rows[which])
                out.append(piece.at(which, time[which]).to(self.start.dtype))
        if left.any():
            row = int(np.flatnonzero(left)[0])
            raise OptionError(
                "t",
                got=f"{float(wanted[row])!r} for sample {row}",
                expected=f"a time between {self.ends[0]!r} and where the sample's solution ends",
                fix="Ask for a time that it has reached.",
            )
        if not order:
            return self.start.clone()
        return torch.cat(out)[torch.from_numpy(np.argsort(np.concatenate(order))).to(self.start.device)]


def _numbers(t: Any) -> np.ndarray:
    """Times as float64. Raises OptionError for what is not real numbers."""
    try:
        values = t.detach().cpu() if isinstance(t, Tensor) else torch.as_tensor(np.ascontiguousarray(t))
        real = values.dtype is not torch.bool and not values.is_complex()
    except (TypeError, ValueError, RuntimeError):
        real, values = False, torch.zeros(0)
    if not real:
        got, expected = (str(t.dtype) if isinstance(t, Tensor) else repr(t)), "one time, or one for each sample"
        raise OptionError("t", got=got, expected=expected, fix="Pass a real number, or a tensor (B,) of them.")
    return values.double().reshape(-1).numpy()


def evaluate(
    x: Tensor, polynomial: list[Tensor], at: np.ndarray, theta: np.ndarray, scale: np.ndarray | None
) -> Tensor:
    """scale x(theta) for some of the samples of a piece; scale (n,), or None for 1."""
    rows = torch.from_numpy(at).to(x.device)
    place = Nodes.tensor(theta, x)
    total = torch.zeros_like(x.index_select(0, rows))
    for coefficient in reversed(polynomial):
        total = (total + coefficient.index_select(0, rows)) * place
    found = x.index_select(0, rows) + total
    return found if scale is None else found * Nodes.tensor(scale, x)
