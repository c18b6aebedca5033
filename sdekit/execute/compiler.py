"""From a plan and a model to operations on registers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sdekit.affine import AffineSDE
from sdekit.execute.binding import BoundRow, bind
from sdekit.execute.registers import BASE, OUT, STAGE, Call, Keep, Sum, make_sum
from sdekit.model import Model
from sdekit.parameterisation import EDMPreconditioning
from sdekit.plan import Combination, Plan
from sdekit.plan.coefficients import Coefficient, scaled

__all__ = ["Program", "compile_plan"]


class Program(NamedTuple):
    """A plan, its calls as operations on registers, the number of these, and its coefficients that are not numbers.

    `coefficients` are those of the fused passes.
    """

    plan: Plan
    calls: tuple[Call, ...]
    registers: int
    shaped: tuple[Coefficient, ...]
    coefficients: array[float]


def compile_plan(plan: Plan, model: Model) -> Program:
    """A plan with the conversions from what the model predicts; raises as `bind`.

    The last few are remembered: solving with one Plan again, as for the chunks of a large batch, compiles it once.
    """
    return _compile(_ByIdentity(plan), model.native, model.process)


@dataclass(frozen=True, eq=False)
class _ByIdentity:
    """A plan as a key: frozen, but long to compare."""

    plan: Plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.plan is self.plan

    def __hash__(self) -> int:
        return id(self.plan)


@lru_cache(maxsize=16)
def _compile(key: _ByIdentity, native: str | EDMPreconditioning, process: AffineSDE) -> Program:
    plan = key.plan
    compiler = _Compiler(plan, bind(plan, native, process))
    calls = tuple(compiler.call(i) for i in range(plan.nfe))
    return Program(plan, calls, compiler.count, tuple(compiler.shaped), compiler.coefficients)


class _Compiler:
    """What is known before each row: which register is the point, what each kept output's slot and scale are."""

    def __init__(self, plan: Plan, bound: Sequence[BoundRow]) -> None:
        self.rows, self.last_use, self.bound = plan.rows, plan.last_use, bound
        self.point = BASE
        self.streams = {s: OUT + 1 + k for k, s in enumerate(sorted({stream for _, stream in plan.noises()}))}
        self.count = OUT + 1 + len(self.streams)
        self.free: list[int] = []
        self.kept: dict[int, tuple[int, float]] = {}  # call -> slot, scale
        self.drawn: set[int] = set()
        self.shaped: list[Coefficient] = []
        self.coefficients = array("d")

    def call(self, i: int) -> Call:
        item, row = self.bound[i], self.rows[i]
        first = i == 0 or self.rows[i - 1].step != row.step
        overwritten = first and self._overwrites(i)
        if first:
            self.drawn = set()
        kick, kick_noises = None, []
        if row.kick is not None:
            kick_noises, kick = self._draw(row.kick), self._sum(row.kick, BASE, i)
            self.point = BASE
        live = [(slot, j) for j, (slot, _) in self.kept.items()]
        keep = self._keep(i, item) if item.stored else None
        point, sums, noises = self.point, [], []
        # The point first: it reads the old base.
        for combination, into in ((row.point, STAGE), (row.base, BASE)):
            if combination is not None:
                noises += self._draw(combination)
                sums.append(self._sum(combination, into, i))
        self.point = BASE if row.point is None else STAGE
        ends = i + 1 == len(self.rows) or self.rows[i + 1].step != row.step
        dead = self._release(i)
        return Call(
            row, point, self.point, kick, kick_noises, keep, sums, noises, live, dead, ends, overwritten, item.denoise
        )

    def _draw(self, c: Combination) -> list[tuple[int, int]]:
        new = [stream for stream, _ in c.noises if stream not in self.drawn]
        self.drawn.update(new)
        return [(stream, self.streams[stream]) for stream in new]

    def _keep(self, i: int, item: BoundRow) -> Keep:
        if self.free:
            slot = self.free.pop()
        else:
            slot, self.count = self.count, self.count + 1
        y, m = item.y, item.m
        if abs(m) >= abs(y):
            self.kept[i] = (slot, m)
            return Keep(slot, OUT, self.point, y / m if y else 0.0)
        self.kept[i] = (slot, y)
        return Keep(slot, self.point, OUT, m / y)

    def _release(self, i: int) -> list[int]:
        dead = [j for j in self.kept if self.last_use[j] <= i]
        slots = [self.kept.pop(j)[0] for j in dead]
        self.free += slots
        return slots

    def _sum(self, c: Combination, into: int, i: int) -> Sum:
        terms: list[tuple[Coefficient, int]] = [(c.base, BASE)]
        for age, b in c.outputs:
            if i - age in self.kept:
                slot, scale = self.kept[i - age]
                terms.append((scaled(b, scale), slot))
            else:  # this row's, used at once
                terms += [(scaled(b, self.bound[i].m), OUT), (scaled(b, self.bound[i].y), self.point)]
        terms += [(b, self.streams[stream]) for stream, b in c.noises]
        self.shaped += [b for b, _ in terms if not isinstance(b, (int, float))]
        return make_sum(into, terms, self.coefficients)

    def _overwrites(self, i: int) -> bool:
        """Whether the rows of the step that begins with row i write to the state before the last model call."""
        written: set[int] = set()
        for j in range(i, len(self.rows)):
            row = self.rows[j]
            if row.step != self.rows[i].step:
                break
            if row.kick is not None:
                written.add(BASE)
            if self.point in written:
                return True
            if row.point is not None:
                written.add(STAGE)
            if row.base is not None:
                written.add(BASE)
        return False
