"""One Brownian path per (seed, sample id): its increments and space-time areas over any interval, in any order.

For an interval of length h the path gives, for each coordinate,

    W = B(t) - B(s),    H = (1/h) int_s^t (B(u) - B(s)) du - W / 2,

independent normals of variances h and h / 12; H is the space-time Levy area (Foster, thesis, University of Oxford,
2020, chapter 6). Seen backwards in time W changes its sign and H does not.

Construction. The positive axis is cut into octaves [2^k, 2^(k+1)) and [0, 2^-224); the negative axis is its mirror
image with other numbers. Each octave has its own W and H, and is halved LEVELS times. To halve an interval with given W
and H takes two new normals, the coefficients of two functions that are linear on each half and orthogonal to 1 and u
(Alpert, SIAM J. Math. Anal. 24, 1993): this is the exact law of (W, H) of both halves given that of the whole. Every
node of these trees has its number, which together with seed, sample id and coordinate keys its normals. So B at a
point is a sum over the nodes that contain it, the same whatever was asked before, and no step is recursive.

Below the last level the point itself splits the last interval, with the normals of that node. The law is exact for any
set of points no two of which lie in the interior of one such interval, 2^-LEVELS of an octave; a query with both ends
inside one is refused.

Sums are formed by separate products and additions in float64, each correctly rounded: bits depend on no batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.philox import check_sample_ids, check_seed, fill_path_normals

__all__ = ["LARGEST", "LEVELS", "BrownianPath"]

LEVELS = 19
"""How often an octave is halved."""
LARGEST = 2.0**223
"""Paths reach from -LARGEST to LARGEST, both excluded."""

_LOWEST = -224  # the first cell is [0, 2^_LOWEST)
_WORK = 2**17  # numbers drawn at once, unless one node needs more
_ROOT_3, _ROOT_12 = math.sqrt(3.0), math.sqrt(12.0)


class BrownianPath:
    """Standard Brownian motion on (-LARGEST, LARGEST), B(0) = 0, in `size` coordinates for each sample.

    Memory: six float64 numbers a coordinate, of which four remember the ends of the last interval asked for, so that a
    walk through a grid, either way, evaluates each point once. Time: some 2 (LEVELS + 2) normals a coordinate for a
    point, fewer where its binary expansion is short, and two for each octave crossed.

    Args:
        seed: an integer in [0, 2^64).
        sample_ids: (B,) integers in [0, 2^63). Two rows of one id get the same path.
        size: the number of coordinates of one sample; a coordinate's path does not depend on it.

    Raises:
        OptionError, InterfaceError, ShapeError: an argument out of range or of the wrong kind.
    """

    def __init__(self, seed: int, sample_ids: Tensor, size: int) -> None:
        self.seed, self.sample_ids, self.size = check_seed(seed), check_sample_ids(sample_ids), size
        self._ends: dict[tuple[int, float, int], Tensor] = {}

    def __repr__(self) -> str:
        return f"BrownianPath(seed={self.seed}, {len(self.sample_ids)} sample ids, size={self.size})"

    def increment(self, s: float, t: float) -> tuple[Tensor, Tensor]:
        """W = B(t) - B(s) and H over [s, t] or, for t < s, over [t, s]; each (B, size), float64.

        Raises:
            OptionError: for times outside the path, equal, or closer together than it resolves.
        """
        w, n = self.normals(s, t)
        root = math.sqrt(abs(t - s))
        return w * root, n * (root / _ROOT_12)

    def normals(self, s: float, t: float) -> tuple[Tensor, Tensor]:
        """W / sqrt(h) and H sqrt(12 / h), h = |t - s|: independent standard normals. Raises as `increment`."""
        check_interval(s, t)
        if t < s:
            w, n = self.normals(t, s)
            return -w, n
        if s >= 0:
            return self._positive(s, t, 0)
        if t <= 0:
            w, n = self._positive(-t, -s, 1)
            return -w, n
        (w1, n1), (w2, n2) = self.normals(s, 0.0), self.normals(0.0, t)
        p, q = -s / (t - s), t / (t - s)
        n = n1 * p**1.5 + n2 * q**1.5 + (w1 * math.sqrt(q) - w2 * math.sqrt(p)) * math.sqrt(3 * p * q)
        return w1 * math.sqrt(p) + w2 * math.sqrt(q), n

    def _positive(self, a: float, b: float, side: int) -> tuple[Tensor, Tensor]:
        """As `normals` for 0 <= a < b on one side of 0. Pairs hold B and its integral, both from a cell's start."""
        (i, _, first), (j, start, second) = _cell(a), _cell(b)
        points = [(i, first, side), (j, second, side)]
        before, after = (self._ends[p] if p in self._ends else self._combine(*_to_point(*p)) for p in points)
        self._ends = dict(zip(points, (before, after), strict=True))
        if i == j:
            h = second - first
            w = after[0] - before[0]
            area = after[1] - before[1] - before[0] * h
        else:  # in units of the width of b's cell
            unit = _width(j)
            small = _width(i) / unit
            h, head = (b - a) / unit, (start - a) / unit
            whole = self._cells(i, j, side)
            w = whole[0] - before[0] * math.sqrt(small)
            area = whole[1] - before[1] * small**1.5 - before[0] * (math.sqrt(small) * head)
            area = area + w * second + after[1]
            w = w + after[0]
        root = math.sqrt(h)
        w = w / root
        return w, (area / (h * root) - w * 0.5) * _ROOT_12

    def _cells(self, i: int, j: int, side: int) -> Tensor:
        """B and its integral from the start of cell i to the start of cell j > i, in units of the width of cell j."""
        unit = _width(j)
        widths = np.array([_width(k) / unit for k in range(i, j)])
        rest = _start(j) / unit - np.array([(_start(k) + _width(k)) / unit for k in range(i, j)])
        weights = np.zeros((j - i, 2, 2))
        weights[:, 0, 0] = np.sqrt(widths)
        weights[:, 0, 1] = widths**1.5 / 2 + np.sqrt(widths) * rest
        weights[:, 1, 1] = widths**1.5 / _ROOT_12
        return self._combine([_number(k, side, 0) for k in range(i, j)], weights)

    def _combine(self, nodes: list[int], weights: np.ndarray) -> Tensor:
        """sum over nodes and their two normals z of weights[node, z, out] z: (2, B, size)."""
        ids, (batch, size) = self.sample_ids, (len(self.sample_ids), self.size)
        total = torch.zeros(2, batch, size, dtype=torch.float64, device=ids.device)
        if not nodes or not batch or not size:
            return total
        factors = torch.from_numpy(weights.swapaxes(1, 2)[:, :, None, None, :].copy()).to(ids.device)
        numbers = torch.tensor(nodes, device=ids.device)
        count = min(len(nodes), max(1, _WORK // (2 * batch * size)))
        work = torch.zeros(count * batch, 2 * size, dtype=torch.float64, device=ids.device)
        for k in range(0, len(nodes), count):
            part = numbers[k : k + count]
            z = work[: len(part) * batch]
            fill_path_normals(z, self.seed, ids.repeat(len(part)), part.repeat_interleave(batch))
            terms = z.view(len(part), 1, batch, size, 2) * factors[k : k + count]
            for term in terms[..., 0] + terms[..., 1]:
                total.add_(term)
        return total


def check_interval(s: float, t: float) -> None:
    """Raise OptionError for an interval over which a path gives no increment."""
    for time in (s, t):
        if not -LARGEST < time < LARGEST:
            raise OptionError(
                "times",
                got=f"{time!r} on the clock of a Brownian path",
                expected=f"a number between -{LARGEST:.3g} and {LARGEST:.3g}",
                fix="Use noise='step', or a grid that stays inside.",
            )
    resolved = _width(_cell(abs(s))[0]) / 2**LEVELS
    if s == t or (s != 0 and t != 0 and (s > 0) == (t > 0) and _in_one_leaf(abs(s), abs(t))):
        raise OptionError(
            "times",
            got=f"a step from {s!r} to {t!r} on the clock of a Brownian path",
            expected=f"ends farther apart than {resolved:.3g}, what the path resolves there",
            fix="Take longer steps, or use noise='step'.",
        )


def _in_one_leaf(a: float, b: float) -> bool:
    """Whether both lie in the interior of one interval of the last level."""
    (i, _, x), (j, _, y) = _cell(a), _cell(b)
    k, m = (math.modf(v * 2.0**LEVELS) for v in (x, y))
    return i == j and k[1] == m[1] and k[0] > 0 and m[0] > 0


def _start(cell: int) -> float:
    return 0.0 if cell == 0 else math.ldexp(1.0, _LOWEST + cell - 1)


def _width(cell: int) -> float:
    return math.ldexp(1.0, _LOWEST + max(cell - 1, 0))


def _cell(time: float) -> tuple[int, float, float]:
    """For a time >= 0 the number of its cell, where that starts, and the time's place in it, in [0, 1); all exact."""
    cell = max(math.frexp(time)[1] - _LOWEST, 0) if time else 0
    start = _start(cell)
    return cell, start, (time - start) / _width(cell)


def _number(cell: int, side: int, heap: int) -> int:
    """A node's number. heap 0 is the cell's own W and H; 1 halves it, 2 and 3 halve the halves, and so on."""
    return (side << 29) | (cell << (LEVELS + 1)) | heap


def _to_point(cell: int, place: float, side: int) -> tuple[list[int], np.ndarray]:
    """The nodes that contain a place in (0, 1) of a cell, and the weights of their normals in B and its integral."""
    if place == 0:
        return [], np.zeros((0, 2, 2))
    scaled = place * 2.0 ** np.arange(LEVELS + 1)
    index = np.floor(scaled)
    inside = scaled - index
    # From the level on which the place is the end of an interval there is nothing more to know.
    depth = LEVELS + 1 if inside[-1] > 0 else int(np.argmax(inside == 0))
    heaps = [0, *(2**j + int(index[j]) for j in range(depth))]
    weights = np.zeros((depth + 1, 2, 2))
    x = place
    weights[0] = [[x, x * x / 2], [_ROOT_3 * x * (1 - x), _ROOT_3 * (x * x / 2 - x**3 / 3)]]
    halved = min(depth, LEVELS)
    scale = 2.0 ** (-0.5 * np.arange(halved))
    weights[1 : halved + 1] = _halving(inside[:halved]) * np.stack([scale, scale**3], -1)[:, None]
    if depth > LEVELS:
        size = 2.0 ** (-0.5 * LEVELS)
        weights[-1] = _splitting(float(inside[-1])) * np.array([size, size**3])
    return [_number(cell, side, heap) for heap in heaps], weights


def _halving(place: np.ndarray) -> np.ndarray:
    """B and its integral at places of a unit interval, for the two functions by which it is halved: (n, 2, 2)."""
    right = place >= 0.5
    x = 2 * place - right
    bump, area = x * (1 - x), x * x / 2 - x**3 / 3
    first = np.stack([np.where(right, -bump, bump) / 2, np.where(right, 1 / 6 - area, area) / 4], -1) * _ROOT_3
    second = np.stack(
        [np.where(right, 0.25 - x, -0.5 * x) + 0.75 * x * x, np.where(right, x * (1 - x) ** 2, x**3 - x**2) / 8], -1
    )
    return np.stack([first, second], 1)


def _splitting(p: float) -> np.ndarray:
    """The same at the place p where a unit interval is split, for functions linear on each part: (2, 2)."""
    q = 1 - p
    s = math.sqrt(p**3 + q**3)
    return np.array(
        [
            [0.0, (p * q) ** 1.5 / (s * _ROOT_12)],
            [math.sqrt(p * q) * s, p**1.5 * math.sqrt(q) * (p**3 + q**3 - p**2) / (2 * s)],
        ]
    )
