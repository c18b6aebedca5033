"""The tree of intervals that a Brownian path is built on: its cells, its nodes and their weights at a time.

The half line [0, 2^223) is cut into cells: [0, 2^-224), then octaves [2^k, 2^(k+1)). Each is halved LEVELS times. A
node is a cell as a whole (heap number 0) or one of the intervals that are halved (1, then 2 and 3, and so on), or one
of the last level, which a time in its interior splits. Arithmetic on times is exact, on float64 tensors of any shape.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sdekit.math.wavelets import halving, legendre, splitting

__all__ = ["CELLS", "LARGEST", "LEVELS", "Cells", "branch", "cells", "chain", "in_one_leaf", "locate", "node"]

LEVELS = 19
"""How often an octave is halved."""
LARGEST = 2.0**223
"""Times are below it."""
CELLS = 448
"""How many cells there are."""

_LOWEST = -224  # the first cell is [0, 2^_LOWEST)


class Cells(NamedTuple):
    """Where each cell starts, how wide it is, and the square root of that: (CELLS,) each."""

    start: Tensor
    width: Tensor
    root: Tensor


@lru_cache
def cells(device: torch.device) -> Cells:
    """The table of all cells on a device."""
    widths = [math.ldexp(1.0, _LOWEST + max(k - 1, 0)) for k in range(CELLS)]
    starts = [0.0, *widths[1:]]
    rows = [starts, widths, [math.sqrt(w) for w in widths]]
    return Cells(*torch.tensor(rows, dtype=torch.float64, device=device).unbind())


def locate(time: Tensor) -> tuple[Tensor, Tensor]:
    """For times in [0, LARGEST) the number of the cell, int64, and the place in it, in [0, 1)."""
    cell = (torch.frexp(time).exponent.to(torch.int64) - _LOWEST).clamp_(min=0)
    cell = torch.where(time == 0, torch.zeros_like(cell), cell)
    table = cells(time.device)
    return cell, (time - table.start[cell]) / table.width[cell]


def node(cell: Tensor, side: Tensor, heap: Tensor | int) -> Tensor:
    """The number of a node, below 2^30 - 2^26. side: 0, or 1 for negative times."""
    return (side << 29) | (cell << (LEVELS + 1)) | heap


def in_one_leaf(a: Tensor, b: Tensor) -> Tensor:
    """Whether two times lie in the interior of one interval of the last level."""
    (i, x), (j, y) = ((cell, place * 2.0**LEVELS) for cell, place in (locate(a), locate(b)))
    return (i == j) & (x.floor() == y.floor()) & (x > x.floor()) & (y > y.floor())


def branch(time: Tensor, side: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nodes above times (...,), and the weights of their normals in B and its integrals from the cell's start.

    Returns:
        Nodes (..., LEVELS + 2) and weights (..., LEVELS + 2, count, count), by normal and integral. From the level on
        which a time is the end of an interval the weights are 0.
    """
    cell, place = locate(time)
    steps, scales = _scales(count, time.device)
    scaled = place[..., None] * steps
    index = scaled.floor()
    inside = scaled - index
    parts = [
        legendre(place, count)[..., None, :, :],
        halving(inside[..., :-1], count) * scales[:-1],
        (splitting(inside[..., -1], count) * scales[-1])[..., None, :, :],
    ]
    heap = torch.cat([torch.zeros_like(cell)[..., None], (index + steps).to(torch.int64)], -1)
    unit = _powers(cells(time.device).root[cell], cells(time.device).width[cell], count)
    return node(cell[..., None], side[..., None], heap), torch.cat(parts, -3) * unit[..., None, None, :]


def chain(first: Tensor, last: Tensor, side: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """As `branch` for the integrals from the start of cell `first` to the start of cell `last`, which lies above it.

    length: the largest last - first; nodes are (..., length), and those from `last` on have the weight 0.
    """
    table = cells(first.device)
    cell = first[..., None] + torch.arange(length, device=first.device)
    inside = cell < last[..., None]
    cell = torch.where(inside, cell, first[..., None])
    width = table.width[cell]
    rest = (table.start[last][..., None] - (table.start[cell] + width))[..., None]
    ends = legendre(torch.ones_like(width), count) * _powers(table.root[cell], width, count)[..., None, :]
    weights = [ends[..., 0], ends[..., 0] * rest + ends[..., 1]]
    if count == 3:
        weights.append(ends[..., 0] * (rest * rest * 0.5) + ends[..., 1] * rest + ends[..., 2])
    found = torch.stack(weights, -1)
    return node(cell, side[..., None], 0), torch.where(inside[..., None, None], found, torch.zeros_like(found))


def _powers(root: Tensor, width: Tensor, count: int) -> Tensor:
    """The units of B and its integrals on an interval: width^(1/2), width^(3/2), width^(5/2)."""
    return torch.stack([root, root * width, root * width * width][:count], -1)


@lru_cache
def _scales(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """2^j (LEVELS + 1,), and the units of B and its integrals on an interval 2^-j, (LEVELS + 1, 1, count)."""
    widths = [2.0**-j for j in range(LEVELS + 1)]
    rows = [[math.sqrt(w) * w**k for k in range(count)] for w in widths]
    steps = [2.0**j for j in range(LEVELS + 1)]
    kind = {"dtype": torch.float64, "device": device}
    return torch.tensor(steps, **kind), torch.tensor(rows, **kind)[:, None, :]
