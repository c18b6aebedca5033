"""What a benchmark of speed is given, and what it gives: settings, and readings beside their goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Reading", "Row", "Setting", "of_rounds"]


@dataclass(frozen=True)
class Setting:
    """Where and how it is timed.

    Attributes:
        device: of all tensors, "cpu" or "cuda".
        dtype: of the state: "float64", "float32" or "bfloat16".
        rounds: interleaved rounds, of which medians are taken.
    """

    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 15


@dataclass(frozen=True)
class Reading:
    """One number.

    Attributes:
        case: what of, such as a shape of the state.
        quantity: what it is, such as "step / its three operations".
        value: None where it cannot be measured here; the note says why.
        unit: "x" for ratios, "count", or of a time: "us", "ms".
        goal, sense: what the value should be at most or at least; None where there is no goal.
        exact: the same whenever it is measured: a count or an error, not a time.
        low, high: quartiles over the rounds, which tell a change from noise; None where there are none.
    """

    case: str
    quantity: str
    value: float | None
    unit: str = "x"
    goal: float | None = None
    sense: Literal["at most", "at least"] = "at most"
    note: str = ""
    exact: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value <= self.goal if self.sense == "at most" else self.value >= self.goal


@dataclass(frozen=True)
class Row:
    """A benchmark of several readings.

    Attributes:
        name: by which suites refer to it.
        title, about: one line, and what a reader must know to judge the numbers.
        measure: what gives the readings, in one process; under `torch.no_grad`, on one thread of the processor.
        devices, dtypes: where it can be measured, and in what. A clock of the process tells nothing of what a GPU does.
    """

    name: str
    title: str
    about: str
    measure: Callable[[Setting], Iterator[Reading]]
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16")


def of_rounds(case: str, quantity: str, values: Sequence[float], unit: str = "x", **more: Any) -> Reading:
    """A reading of one value for each round: their median, with quartiles."""
    value = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [value] * 3
    return Reading(case, quantity, value, unit, low=low, high=high, **more)
