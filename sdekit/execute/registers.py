"""Rows as operations on numbered tensors, worked out before the loop: all that is left to do in it is to run them.

The tensors of a run stand in one list. Register BASE holds the committed state, STAGE a point that is not the base, OUT
the model's output while its row lasts; noises and the outputs that later rows need follow. A kept output E = y point +
m M stands there as F with E = scale F: F = M itself where y = 0, else one pass of a ratio of at most 1 in size,
F = M + ratio point or F = point + ratio M. Scales are folded into the coefficients.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.math.combinations import passes_of, table
from sdekit.plan import Row
from sdekit.plan.coefficients import Coefficient, apply

__all__ = ["BASE", "OUT", "STAGE", "Call", "Keep", "Sum", "make_sum"]

BASE, STAGE, OUT = 0, 1, 2
_ADD, _SCALE, _SET, _SET_SUM, _ZERO = range(5)

Pass = tuple[int, int, int, float]


class Sum(NamedTuple):
    """register `into` <- sum of coefficient * register.

    `passes` do it in place, one term each; None where a coefficient is not a number. `fused` are those of
    `sdekit.math.combinations`, which do the same: where a pass's coefficients begin in the program's table, in bytes,
    and its registers.
    """

    into: int
    terms: list[tuple[Coefficient, int]]
    passes: list[Pass] | None
    fused: list[tuple[int, tuple[int, ...]]]

    def in_place(self, registers: list[Any]) -> None:
        """Overwrite the register, which must hold a buffer of ours that no gradient is recorded for."""
        at, _, passes, _ = self
        into = registers[at]
        for kind, a, b, c in passes or ():
            if kind == _ADD:
                into.add_(registers[a], alpha=c)
            elif kind == _SCALE:
                into.mul_(c)
            elif kind == _SET:
                torch.mul(registers[a], c, out=into)
            elif kind == _SET_SUM:
                torch.add(registers[a], registers[b], alpha=c, out=into)
            else:
                into.zero_()

    def out_of_place(self, registers: list[Any]) -> Tensor:
        """The sum as a new tensor."""
        if not self.terms:
            return torch.zeros_like(registers[BASE])
        total, *rest = (apply(c, registers[a]) for c, a in self.terms)
        for term in rest:
            total = total + term
        return total


class Keep(NamedTuple):
    """Where E is kept: F = `first` + ratio * `second`, two registers, or the output itself where ratio is 0."""

    slot: int
    first: int
    second: int
    ratio: float


class Call(NamedTuple):
    """One row: a model call at (row.t, register `point`) and what is made of it.

    `noises` and `kick_noises` are the (stream, register) to be drawn; `live` the (slot, call) of outputs kept from
    earlier calls, `dead` the slots no longer needed after this one. `ends` if the step ends here, with its state in
    register `after`. `overwritten` if the step overwrites the state that it began with before its last model call.
    `denoise` is (y, m) of the data prediction.
    """

    row: Row
    point: int
    after: int
    kick: Sum | None
    kick_noises: list[tuple[int, int]]
    keep: Keep | None
    sums: list[Sum]
    noises: list[tuple[int, int]]
    live: list[tuple[int, int]]
    dead: list[int]
    ends: bool
    overwritten: bool
    denoise: tuple[float, float]


def make_sum(into: int, terms: list[tuple[Coefficient, int]], coefficients: array[float]) -> Sum:
    """The sum with terms of one register merged, terms of 0 left out, and the passes that do it.

    Args:
        coefficients: the program's table, to which those of its fused passes are added.
    """
    merged: dict[int, float] = {}
    for c, a in terms:
        if not isinstance(c, (int, float)):
            return Sum(into, [(c, a) for c, a in terms if c != 0.0], None, [])
        if c != 0:
            merged[a] = merged[a] + c if a in merged else c
    kept: list[tuple[Coefficient, int]] = [(c, a) for a, c in merged.items()]
    own = merged.pop(into, None)
    rest = list(merged.items())
    passes: list[Pass] = []
    ordered = rest
    if own is not None:
        ordered = [(into, own), *rest]
        if own != 1:
            passes.append((_SCALE, into, into, own))
    elif not rest:
        passes.append((_ZERO, into, into, 0.0))
    else:
        # A coefficient of 1 saves a pass.
        unit = next((i for i, (_, c) in enumerate(rest) if c == 1), None)
        if unit is not None and len(rest) > 1:
            first = rest.pop(unit)
            ordered = [first, *rest]
            b, c = rest.pop(0)
            passes.append((_SET_SUM, first[0], b, c))
        else:
            ordered = list(rest)
            a, c = rest.pop(0)
            passes.append((_SET, a, a, c))
    passes += [(_ADD, a, a, c) for a, c in rest]
    fused = [(table(some, coefficients), places) for places, some in passes_of(into, ordered)] if ordered else []
    return Sum(into, kept, passes, fused)
