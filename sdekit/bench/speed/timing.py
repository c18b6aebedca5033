"""Process time of functions, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["clocked", "medians", "ratios", "rounds_of", "times_of"]

Name = TypeVar("Name", bound=Hashable)


def clocked(run: Callable[[], object], repeats: int = 1) -> float:
    """Process seconds of one run."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def rounds_of(functions: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, list[float]]:
    """Each function's answers over interleaved rounds, after one for warming up."""
    answers: dict[Name, list[float]] = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            value = function()
            if i:
                answers[name].append(value)
    return answers


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, so that what slows both down does not show."""
    return [a / b for a, b in zip(over, under, strict=True)]


def medians(functions: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each function's answers over interleaved rounds."""
    return {name: statistics.median(values) for name, values in rounds_of(functions, rounds).items()}


def times_of(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Process seconds of each function, medians as above."""
    return medians({name: lambda f=function: clocked(f) for name, function in functions.items()}, rounds)
