"""The contract of a time grid: finite, strictly monotone, inside the domain, spaced wider than rounding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from sdekit.errors import InterfaceError, OptionError

__all__ = ["check_count", "check_times"]

_ULPS = 8


def check_times(
    times: Any,
    *,
    argument: str = "times",
    domain: tuple[float, float] | None = None,
    direction: Literal["down", "up", "either"] = "either",
) -> list[float]:
    """A time grid as host floats.

    Args:
        times: a 1-D tensor, array or sequence of two or more numbers.
        domain: the closed interval in which they must lie.
        direction: "down", "up" or "either".

    Raises:
        InterfaceError: for something that is not a sequence of numbers.
        OptionError: naming the index and both values where the contract is broken.
    """
    values = _as_floats(times, argument)

    def bad(got: str, expected: str, fix: str) -> OptionError:
        return OptionError(argument, got=got, expected=expected, fix=fix)

    if len(values) < 2:
        raise bad(f"{len(values)} point(s)", "two or more times", "Give both ends, or a whole grid.")
    for i, t in enumerate(values):
        if not math.isfinite(t):
            raise bad(f"{t} at index {i}", "finite times", "Remove it.")
        if domain is not None and not domain[0] <= t <= domain[1]:
            raise bad(
                f"{t!r} at index {i}",
                f"times in [{domain[0]}, {domain[1]}]",
                "Choose times inside the process's domain.",
            )
    down = values[1] < values[0] if direction == "either" else direction == "down"
    word = "decreasing" if down else "increasing"
    for i, (a, b) in enumerate(itertools.pairwise(values)):
        if a == b or (b < a) != down:
            what = "repeated" if a == b else "out of order"
            fix = (
                "Drop the repetition."
                if a == b
                else "Sort the grid; samplers go down in time, forward simulation goes up."
            )
            raise bad(f"{a!r}, {b!r} at indices {i}, {i + 1} ({what})", f"strictly {word} times", fix)
        if abs(b - a) < _ULPS * math.ulp(max(abs(a), abs(b))):
            raise bad(f"{a!r}, {b!r} at indices {i}, {i + 1}", f"times at least {_ULPS} ulp apart", "Use fewer steps.")
    return values


def _as_floats(times: Any, argument: str) -> list[float]:
    if isinstance(times, Tensor):
        if times.ndim != 1:
            shape = tuple(times.shape)
            raise OptionError(argument, got=f"a tensor of shape {shape}", expected="a 1-D tensor", fix="Flatten it.")
        times = times.detach().cpu().tolist()
    elif hasattr(times, "tolist"):
        times = times.tolist()
    if isinstance(times, (str, bytes)) or not isinstance(times, Sequence):
        got = repr(times) if isinstance(times, str) else type(times).__name__
        raise InterfaceError(argument, got=got, expected="a 1-D sequence of numbers", fix="Pass a tensor or a list.")
    try:
        return [float(t) for t in times]
    except (TypeError, ValueError) as error:
        raise InterfaceError(
            argument, got=repr(times)[:80], expected="numbers", fix="Pass a tensor or a list."
        ) from error


def check_count(argument: str, value: Any, *, least: int = 1) -> int:
    """A whole number, at least `least`. Raises InterfaceError or OptionError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InterfaceError(argument, got=repr(value), expected="a whole number", fix="Pass an int.")
    if value < least:
        raise OptionError(argument, got=repr(value), expected=f"{least} or more", fix="Raise it.")
    return value
