"""One Brownian path per (seed, sample id): its increments and Levy areas over any interval, in any order.

For an interval of length h the path gives, for each coordinate,

    W = B(t) - B(s),    H = (1/h) int_s^t (B(u) - B(s)) du - W / 2,

independent normals of variances h and h / 12; H is the space-time Levy area (Foster, thesis, University of Oxford,
2020, chapter 6). A path of three moments also gives the space-time-time area, of variance h / 720, independent of both:

    K = (1/h^2) int_s^t (B(u) - B(s) - (u - s) W / h) (h / 2 - (u - s)) du.

Seen backwards in time W and K change their signs and H does not.

Construction. The positive axis is cut into octaves [2^k, 2^(k+1)) and [0, 2^-224); the negative axis is its mirror
image with other numbers. Each octave has its own W and H, and is halved LEVELS times. To halve an interval with given W
and H takes two new normals, the coefficients of two functions that are linear on each half and orthogonal to 1 and u
(`sdekit.math.wavelets`): this is the exact law of (W, H) of both halves given that of the whole. With K it takes three,
and functions of degree two. Every node of these trees has its number, which together with seed, sample id and
coordinate keys its normals. So B at a point is a sum over the nodes that contain it, the same whatever was asked
before, and no step is recursive.

Below the last level the point itself splits the last interval, with the normals of that node. The law is exact for any
set of points no two of which lie in the interior of one such interval, 2^-LEVELS of an octave; a query with both ends
inside one is refused.

A path of three moments is another path than that of two: on a tree of pairs, K of an interval depends on every one of
the 2^LEVELS leaves below it, so that no few numbers could be added to give it.

Sums are formed by separate products and additions in float64, each correctly rounded: bits depend on no batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.dyadic import LARGEST, LEVELS, branch, cells, chain, in_one_leaf, locate
from sdekit.math.native import SCRATCH
from sdekit.math.philox import NATIVE, PATH_TAG, check_sample_ids, check_seed, fill_path_normals, on_host
from sdekit.shapes import finite_number, rows_of
from sdekit.times import check_count

__all__ = ["LARGEST", "LEVELS", "BrownianPath", "check_intervals", "check_moments"]

_REACH = 110  # what lies as many octaves below is less than the rounding
_WORK = 2**17  # numbers drawn at once, unless one node needs more
_Moments = Sequence[Tensor] | Tensor
"""B, I and J of `sdekit.math.wavelets` over an interval, each (n, size)."""


class BrownianPath:
    """Standard Brownian motion on (-LARGEST, LARGEST), B(0) = 0, in `size` coordinates for each sample.

    Memory: six float64 numbers a coordinate, of which four remember the ends of the last interval asked for (half as
    many again for three moments), so that a walk through a grid, either way, evaluates each point once. Time: some
    2 (LEVELS + 2) normals a coordinate for a point, fewer where its binary expansion is short, and two for each octave
    crossed.

    Args:
        seed: an integer in [0, 2^64).
        sample_ids: (B,) integers in [0, 2^63). Two rows of one id get the same path.
        size: the number of coordinates of one sample; a coordinate's path does not depend on it.
        moments: 2 for W and H, 3 for W, H and K, of another path.

    Raises:
        OptionError, InterfaceError, ShapeError: an argument out of range or of the wrong kind.
    """

    def __init__(self, seed: int, sample_ids: Tensor, size: int, moments: int = 2) -> None:
        self.seed, self.sample_ids = check_seed(seed), check_sample_ids(sample_ids)
        self.size, self.moments = check_count("size", size, least=0), check_moments(moments)
        self._ends: dict[float, Tensor] = {}  # of all samples, by time
        self._last: tuple[Tensor, Tensor] | None = None

    def __repr__(self) -> str:
        kind = ", moments=3" if self.moments == 3 else ""
        return f"BrownianPath(seed={self.seed}, {len(self.sample_ids)} sample ids, size={self.size}{kind})"

    def increment(self, s: float | Tensor, t: float | Tensor, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """W, H and, for three moments, K over the step from s to t, upwards or downwards; each (n, size), float64.

        Args:
            s, t: times of all samples, or float64 tensors (n,) with those of each. Bits are the same either way.
            rows: (n,) indices of the samples meant, each at most once; all of them by default.

        Raises:
            OptionError: for times outside the path, equal, or closer together than it resolves.
            InterfaceError, ShapeError: for times of another kind or shape. Tensors are read, which waits for a device.
        """
        ids = self.sample_ids if rows is None else rows_of(self.sample_ids, rows)
        if rows is None and not isinstance(s, Tensor) and not isinstance(t, Tensor):
            times = torch.tensor([[_number("s", s)], [_number("t", t)]], dtype=torch.float64)
            check_intervals(times[0], times[1])
            return self._between(ids, times, self._shared(float(s), float(t)))
        times = torch.stack([_times(name, v, ids) for name, v in (("s", s), ("t", t))])
        check_intervals(times[0], times[1])
        return self._between(ids, times, self._each(times, ids, rows))

    def normals(self, s: float, t: float, count: int = 3) -> tuple[Tensor, ...]:
        """W / sqrt(h), H sqrt(12 / h) and K sqrt(720 / h), h = |t - s|, or the first `count` of them.

        Independent standard normals. Raises as `increment`.
        """
        times = torch.tensor([[_number("s", s)], [_number("t", t)]], dtype=torch.float64)
        check_intervals(times[0], times[1])
        values = [value[:count] for value in self._shared(s, t, count)]
        return _standard(self._between(self.sample_ids, times, values), s, t)

    def walk(self, times: Sequence[float], count: int = 3) -> list[tuple[Tensor, ...] | None]:
        """`normals` of the steps between successive times, with the same bits, points drawn all at once.

        Returns:
            For each step what `normals` gives, or None for one that leaves its octave.
        """
        ends = torch.tensor([times[:-1], times[1:]], dtype=torch.float64)
        near = (ends.abs() < LARGEST).all(0)
        cell = locate(torch.where(near, ends, torch.zeros_like(ends)).abs())[0]
        inside = near & (cell[0] == cell[1]) & ((ends[0] < 0) == (ends[1] < 0))
        self.evaluate([time for time in times if -LARGEST < time < LARGEST], count)
        check_intervals(*ends[:, inside])
        found: list[tuple[Tensor, ...] | None] = []
        for s, t, simple in zip(times, times[1:], inside.tolist(), strict=False):
            found.append(_standard(self._within(s, t, count), s, t) if simple else None)
        return found

    def _within(self, s: float, t: float, count: int) -> list[Tensor]:
        """W, H and K over a step inside one octave, whose ends are known."""
        inner, outer = (self._ends[min(s, t, key=abs)][:count], self._ends[max(s, t, key=abs)][:count])
        h = abs(t - s)
        found = _areas(_less(outer, inner, h), h)
        return [-v if abs(t) < abs(s) and k != 1 else v for k, v in enumerate(found)]

    # --- what is known of the ends ---

    def evaluate(self, times: Sequence[float], count: int = 3) -> None:
        """Draw at once what `normals` needs at these times of all samples, and nothing else, until it is asked more.

        Keeps `count` numbers for each time and coordinate, `moments` at most. Bits are the same without it.
        """
        count = min(count, self.moments)
        known = {time: self._ends[time] for time in times if len(self._ends.get(time, ())) >= count}
        missing = sorted({time for time in times if time not in known})
        found = self._points(torch.tensor(missing, dtype=torch.float64), count) if missing else ()
        self._ends = known | dict(zip(missing, found, strict=True))

    def _shared(self, s: float, t: float, count: int = 3) -> list[Tensor]:
        """B and `count` - 1 integrals from the cell's start at two times of all samples, (count, B, size) each."""
        if min(len(self._ends.get(time, ())) for time in (s, t)) < min(count, self.moments):
            self.evaluate((s, t), count)
        return [self._ends[s], self._ends[t]]

    def _points(self, times: Tensor, count: int) -> Tensor:
        """The same at times (p,) on the host: (p, count, B, size) or more. What branches share is drawn once."""
        count = self.moments if self.moments == 3 else count
        nodes, weights = branch(times.abs(), (times < 0).long(), self.moments)
        used = (weights != 0).flatten(2).any(2)
        point = used.nonzero()[:, 0]
        # Numbers grow from level to level, so that each point's terms are added in the order of its branch.
        distinct, which = nodes[used].unique(return_inverse=True)
        order = which.argsort(stable=True)
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), which.bincount(minlength=len(distinct)).cumsum(0)])
        terms = _Terms(len(times), ptr, point[order])
        return self._sums(self.sample_ids, distinct[None], weights[used][order][None, ..., :count], terms)

    def _each(self, times: Tensor, ids: Tensor, rows: Tensor | None) -> list[Tensor]:
        """The same at times (2, n) of each sample. What a row knew of its last interval's ends is not drawn again."""
        if self._last is None:
            values = [self._values(ids, time) for time in times]
            full = (2, self.moments, len(self.sample_ids), self.size)
            unknown = torch.full((2, len(self.sample_ids)), torch.nan, dtype=torch.float64, device=ids.device)
            self._last = unknown, torch.zeros(full, dtype=torch.float64, device=ids.device)
        else:
            known, kept = self._last
            if rows is not None:
                known, kept = known[:, rows], kept[:, :, rows]
            values = [self._recalled(ids, time, known, kept) for time in times]
        known, kept = self._last
        where = slice(None) if rows is None else rows
        known[:, where] = times
        for slot, value in zip(kept, values, strict=True):
            slot[:, where] = value
        return values

    def _recalled(self, ids: Tensor, time: Tensor, old_times: Tensor, old: Tensor) -> Tensor:
        """Values at times (n,), of the last ones where they are the same."""
        same = old_times == time
        value = torch.where(same[0][:, None], old[0], old[1])
        missing = (~same.any(0)).nonzero()[:, 0]
        if len(missing):
            value[:, missing] = self._values(ids[missing], time[missing])
        return value

    # --- increments from values ---

    def _between(self, ids: Tensor, times: Tensor, values: list[Tensor]) -> tuple[Tensor, ...]:
        """W, H and K from times (2, n) or, on the host, (2, 1), and the values there."""
        low, high = times.amin(0), times.amax(0)
        negative, across = high <= 0, (low < 0) & (high > 0)
        flip = negative ^ (times[1] < times[0])  # whether the path is seen from its later to its earlier time
        inner, outer = _pick(flip, values[1], values[0]), _pick(flip, values[0], values[1])
        a = torch.where(negative, -high, low.clamp(min=0))
        b = torch.where(negative, -low, high)
        found = self._beyond(ids, a, _pick(across, torch.zeros_like(inner), inner), b, outer, negative.long())
        rows = across.nonzero()[:, 0]
        if len(rows):
            whole = len(rows) == len(across)
            part = (lambda v: v) if whole else (lambda v: v[rows])
            found = list(found) if whole else [v.clone() for v in found]
            joined = self._across(
                part(ids), part(low), inner if whole else inner[:, rows], part(high), [part(v) for v in found]
            )
            found = joined if whole else [v.index_copy(0, rows, w) for v, w in zip(found, joined, strict=True)]
        return tuple(v if k == 1 else _pick(flip, -v, v) for k, v in enumerate(found))

    def _beyond(self, ids: Tensor, a: Tensor, at_a: Tensor, b: Tensor, at_b: Tensor, side: Tensor) -> list[Tensor]:
        """W, H and K over [a, b], 0 <= a < b, on one side of 0, given the values from the starts of their cells."""
        j = locate(b)[0]
        i = torch.maximum(locate(a)[0], j - _REACH)
        start = cells(a.device).start
        length = int((j - i).max()) if len(i) else 0
        since = at_b
        if length:
            rest = _column(b - start[j], ids)
            whole = self._combine(ids, *chain(i, j, side, length, self.moments))[: len(at_b)]
            since = _after(whole, at_b, rest)
        return _areas(_less(since, at_a, _column(b - a, ids)), _column(b - a, ids))

    def _across(self, ids: Tensor, low: Tensor, at_low: Tensor, high: Tensor, found: list[Tensor]) -> list[Tensor]:
        """W, H and K over [low, high], low < 0 < high, given those over [0, high]."""
        zero = torch.zeros_like(low)
        mirrored = self._beyond(ids, zero, torch.zeros_like(at_low), -low, at_low, torch.ones_like(low).long())
        before = [-v if k != 1 else v for k, v in enumerate(mirrored)]
        p, q = _column(-low, ids), _column(high, ids)
        return _areas(_after(_integrals(before, p), _integrals(found, q), q), _column(high - low, ids))

    def _values(self, ids: Tensor, time: Tensor) -> Tensor:
        """B and its integrals at times (n,) from the starts of their cells: (moments, n, size)."""
        return self._combine(ids, *branch(time.abs(), (time < 0).long(), self.moments))

    # --- sums over nodes ---

    def _combine(self, ids: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
        """sum over a row's nodes and their normals z of weights[row, node, z, integral] z: (moments, n, size)."""
        count = nodes.shape[1]
        terms = _Terms(1, torch.arange(count + 1), torch.zeros(count, dtype=torch.int64))
        return self._sums(ids, nodes, weights, terms)[0]

    def _sums(self, ids: Tensor, nodes: Tensor, weights: Tensor, terms: _Terms) -> Tensor:
        """For each point the sum of its terms, in their order: (points, integrals, n, size).

        Args:
            nodes: (n, count), or (1, count) for all rows.
            weights: (n, pairs, z, integral), or (1, ...) for all rows, where terms pairs nodes and points.
        """
        shape = (terms.points, weights.shape[-1], len(ids), self.size)
        total = torch.zeros(shape, dtype=torch.float64, device=ids.device)
        if not total.numel() or not nodes.numel():
            return total
        library = NATIVE.get(nodes.shape[1] * total[0].numel()) if on_host(total) else None
        if library is None:
            self._sum_by_torch(total, ids, nodes.to(ids.device), weights.to(ids.device), terms)
        else:
            self._sum_native(library, total, ids, nodes.contiguous(), weights.contiguous(), terms)
        return total

    def _sum_native(
        self, library: Any, total: Tensor, ids: Tensor, nodes: Tensor, weights: Tensor, terms: _Terms
    ) -> None:
        points, integrals, n, size = total.shape
        ids, tags = ids.contiguous(), nodes + PATH_TAG
        scratch = torch.zeros(points * self.moments * SCRATCH, dtype=torch.float64)
        numbers = [ids.data_ptr(), tags.shape[1], tags.data_ptr(), tags.shape[1] if len(tags) > 1 else 0]
        factors = [weights.data_ptr(), weights[0].numel() if len(weights) > 1 else 0]
        pairs = [terms.ptr.data_ptr(), terms.point.data_ptr()]
        kinds = {(2, 2): library.sdekit_path_2, (2, 1): library.sdekit_path_1, (3, 3): library.sdekit_path_3}
        function, where = kinds[self.moments, integrals], (total.data_ptr(), scratch.data_ptr())
        function(*where, points, n, size, self.seed, *numbers, *pairs, *factors)

    def _sum_by_torch(self, total: Tensor, ids: Tensor, nodes: Tensor, weights: Tensor, terms: _Terms) -> None:
        m, (n, size) = self.moments, total.shape[2:]
        count = max(1, _WORK // (m * n * size))
        work = torch.zeros(min(count, nodes.shape[1]) * n, m * size, dtype=torch.float64, device=ids.device)
        factors = weights.permute(1, 3, 0, 2)[:, :, :, None, :]  # (pairs, integral, row, 1, z)
        ptr, point = terms.ptr.tolist(), terms.point.tolist()
        for k in range(0, nodes.shape[1], count):
            part = nodes[:, k : k + count].T.expand(-1, n)
            z = work[: part.numel()]
            fill_path_normals(z, self.seed, ids.repeat(len(part)), part.reshape(-1))
            drawn = z.view(len(part), 1, n, size, m)
            for j in range(len(part)):
                for pair in range(ptr[k + j], ptr[k + j + 1]):
                    parts = (drawn[j] * factors[pair]).unbind(-1)
                    total[point[pair]].add_(sum(parts[1:], parts[0]))


def _standard(areas: Sequence[Tensor], s: float, t: float) -> tuple[Tensor, ...]:
    """W, H and K over [s, t], divided by their standard deviations in place."""
    root = math.sqrt(abs(t - s))
    return tuple(v.div_(root / math.sqrt(c)) for v, c in zip(areas, (1, 12, 720), strict=False))


class _Terms(NamedTuple):
    """Which nodes add to which of several points: node j to point[k] for ptr[j] <= k < ptr[j + 1]. On the host."""

    points: int
    ptr: Tensor
    point: Tensor


def check_moments(moments: int) -> int:
    """2 or 3. Raises OptionError."""
    if moments not in (2, 3):
        raise OptionError("moments", got=repr(moments), expected="2 (W, H) or 3 (W, H, K)", fix="Pass one of them.")
    return moments


def check_intervals(s: Tensor, t: Tensor) -> None:
    """Raise OptionError unless a path gives the increments from all times s (n,) to t (n,)."""
    outside = ~((s.abs() < LARGEST) & (t.abs() < LARGEST))
    same_side = (s != 0) & (t != 0) & ((s > 0) == (t > 0))
    inside = [torch.where(outside, torch.ones_like(v), v).abs() for v in (s, t)]
    close = (s == t) | (same_side & in_one_leaf(*inside) & ~outside)
    wrong = (outside | close).nonzero()[:, 0]
    if not len(wrong):
        return
    row = int(wrong[0])
    first, second = float(s[row]), float(t[row])
    if bool(outside[row]):
        raise OptionError(
            "times",
            got=f"{second if abs(first) < LARGEST else first!r} on the clock of a Brownian path",
            expected=f"a number between -{LARGEST:.3g} and {LARGEST:.3g}",
            fix="Use noise='step', or a grid that stays inside.",
        )
    resolved = float(cells(s.device).width[locate(inside[0])[0][row]]) / 2**LEVELS
    raise OptionError(
        "times",
        got=f"a step from {first!r} to {second!r} on the clock of a Brownian path",
        expected=f"ends farther apart than {resolved:.3g}, what the path resolves there",
        fix="Take longer steps, or use noise='step'.",
    )


def _number(name: str, value: Any) -> float:
    """A float, of which `check_intervals` says more."""
    return value if isinstance(value, float) else finite_number(name, value)


def _times(name: str, value: float | Tensor, ids: Tensor) -> Tensor:
    """(n,) float64 on the device of the ids."""
    if not isinstance(value, Tensor):
        return torch.full((len(ids),), _number(name, value), dtype=torch.float64, device=ids.device)
    if value.dtype != torch.float64 or value.device != ids.device:
        got, expected = f"{value.dtype} on {value.device}", f"float64 on {ids.device}"
        raise InterfaceError(name, got=got, expected=expected, fix="Convert it with .to().")
    if value.shape != (len(ids),):
        got, expected = f"shape {tuple(value.shape)}", f"shape ({len(ids)},), one time for each sample"
        raise ShapeError(name, got=got, expected=expected, fix="Pass the times of the rows asked for.")
    return value.detach()


def _column(value: Tensor, ids: Tensor) -> Tensor:
    """(n, 1) on the device of the ids."""
    return value[:, None].to(ids.device)


def _pick(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """torch.where by rows (n,); one for all rows is on the host."""
    if len(mask) == 1:
        return yes if bool(mask) else no
    return torch.where(mask[:, None], yes, no)


def _after(first: _Moments, second: _Moments, h: Tensor | float) -> list[Tensor]:
    """B, I and J, or the first of them, over an interval and the next one of length h together."""
    found = [first[0] + second[0]]
    if len(first) > 1:
        found.append(first[1] + first[0] * h + second[1])
    if len(first) > 2:
        found.append(first[2] + first[1] * h + first[0] * (h * h * 0.5) + second[2])
    return found


def _less(whole: _Moments, first: _Moments, h: Tensor | float) -> list[Tensor]:
    """The same over the last part of an interval, of length h, given those of the whole and of the first part."""
    found = [whole[0] - first[0]]
    if len(whole) > 1:
        found.append(whole[1] - first[1] - first[0] * h)
    if len(whole) > 2:
        found.append(whole[2] - first[2] - first[1] * h - first[0] * (h * h * 0.5))
    return found


def _areas(moments: _Moments, h: Tensor | float) -> list[Tensor]:
    """W, H and K from B, I and J."""
    found = [moments[0]]
    if len(moments) > 1:
        mean = moments[1] / h
        found.append(mean - moments[0] * 0.5)
        if len(moments) > 2:
            found.append(moments[2] / h / h - mean * 0.5 + moments[0] / 12)
    return found


def _integrals(areas: _Moments, h: Tensor) -> list[Tensor]:
    """B, I and J from W, H and K."""
    found = [areas[0]]
    if len(areas) > 1:
        mean = areas[1] + areas[0] * 0.5
        found.append(mean * h)
        if len(areas) > 2:
            found.append((areas[2] + mean * 0.5 - areas[0] / 12) * h * h)
    return found
