"""Butcher tableaus: frozen numbers that check themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdekit.errors import OptionError

__all__ = ["EULER", "HEUN", "KUTTA3", "MIDPOINT", "RALSTON", "RK4", "Tableau"]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: stages at c, couplings a (row i has i entries), weights b.

    Raises:
        OptionError: if it is not explicit, or violates sum a_i = c_i or sum b = 1.
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    def __post_init__(self) -> None:
        stages = len(self.b)
        explicit = len(self.a) == len(self.c) == stages and all(len(row) == i for i, row in enumerate(self.a))
        if not explicit:
            raise OptionError(
                f"tableau {self.name}",
                got=f"{self.a}",
                expected=f"row i of a with i entries, {stages} rows",
                fix="Correct it.",
            )
        sums = [math.fsum(row) - c for row, c in zip(self.a, self.c, strict=True)] + [math.fsum(self.b) - 1.0]
        if max(abs(s) for s in sums) > 1e-14:
            raise OptionError(
                f"tableau {self.name}",
                got=f"residuals {sums}",
                expected="sum a_i = c_i and sum b = 1",
                fix="Correct it.",
            )

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.b)


EULER = Tableau("euler", 1, ((),), (1.0,), (0.0,))
MIDPOINT = Tableau("midpoint", 2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5))
HEUN = Tableau("heun", 2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0))
RALSTON = Tableau("ralston", 2, ((), (2 / 3,)), (0.25, 0.75), (0.0, 2 / 3))
KUTTA3 = Tableau("kutta3", 3, ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6), (0.0, 0.5, 1.0))
RK4 = Tableau("rk4", 4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0))
