"""The contract of a time grid: finite, strictly monotone, inside the domain, spaced wider than rounding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError

__all__ = ["check_count", "check_times", "times_as_floats"]

_ULPS = 8
_EPS = {
    str(dtype).removeprefix("torch."): torch.finfo(dtype).eps / torch.finfo(torch.float64).eps
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


def check_times(
    times: Any,
    *,
    argument: str = "times",
    domain: tuple[float, float] | None = None,
    direction: Literal["down", "up", "either"] = "either",
) -> list[float]:
    """A time grid as host floats.

    Args:
        times: a 1-D tensor, array or sequence of two or more numbers. Spacing is judged in the precision they come in.
        domain: the closed interval in which they must lie.
        direction: "down", "up" or "either".

    Raises:
        InterfaceError: for something that is not a sequence of numbers.
        OptionError: naming the index and both values where the contract is broken.
    """
    values, dtype = times_as_floats(times, argument), _dtype_name(times)
    coarse = _EPS.get(dtype, 1.0)  # how much wider than float64's an ulp of that dtype is
    if _is_grid(values, coarse, domain, direction):
        return values

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
        if abs(b - a) < _ULPS * coarse * math.ulp(max(abs(a), abs(b))):
            fix = "Use fewer steps." if coarse == 1 else "Use fewer steps, or make the times in float64."
            raise bad(f"{a!r}, {b!r} at indices {i}, {i + 1}", f"times at least {_ULPS} ulp of {dtype} apart", fix)
    return values


def _is_grid(values: list[float], coarse: float, domain: tuple[float, float] | None, direction: str) -> bool:
    """Whether nothing is wrong, at a tenth of the price of finding out what is."""
    if len(values) < 2:
        return False
    t = np.array(values)
    ends = values[0], values[-1]
    with np.errstate(invalid="ignore", over="ignore"):
        steps = t[1:] - t[:-1] if ends[0] < ends[1] else t[:-1] - t[1:]
        sizes = np.abs(t)
        least = _ULPS * coarse * np.spacing(np.maximum(sizes[1:], sizes[:-1]))
        # NaN fails the first comparison, and what is infinite the second.
        apart = np.minimum.reduce(steps - least) >= 0
    if not (apart and np.maximum.reduce(sizes) < math.inf):
        return False
    low, high = min(ends), max(ends)
    fits = direction == "either" or (direction == "down") == (ends[1] < ends[0])
    return fits and (domain is None or (domain[0] <= low and high <= domain[1]))


def _dtype_name(times: Any) -> str:
    """The precision in which times were made: "float64" for whatever is not an array of floats."""
    name = str(getattr(times, "dtype", "float64")).removeprefix("torch.")
    return name if name in _EPS else "float64"


def times_as_floats(times: Any, argument: str) -> list[float]:
    """Times as host floats, whatever their order. Raises InterfaceError or OptionError."""
    if isinstance(times, Tensor):
        if times.ndim != 1:
            shape = tuple(times.shape)
            raise OptionError(argument, got=f"a tensor of shape {shape}", expected="a 1-D tensor", fix="Flatten it.")
        if times.is_meta or (times.requires_grad and torch.is_grad_enabled()):
            got = "a tensor on the meta device" if times.is_meta else "a tensor that requires grad"
            expected = "numbers: no gradient with respect to times is computed"
            raise InterfaceError(argument, got=got, expected=expected, fix="Pass times.detach().")
        times = times.detach().cpu().tolist()
    elif hasattr(times, "tolist"):
        times = times.tolist()
    if isinstance(times, (str, bytes)) or not isinstance(times, Sequence):
        got = repr(times) if isinstance(times, str) else type(times).__name__
        raise InterfaceError(argument, got=got, expected="a 1-D sequence of numbers", fix="Pass a tensor or a list.")
    return [t if type(t) is float else _as_float(t, i, argument) for i, t in enumerate(times)]


def _as_float(t: Any, i: int, argument: str) -> float:
    number = t.item() if isinstance(t, Tensor) and t.numel() == 1 and not t.is_meta else t
    if isinstance(number, bool) or not isinstance(number, Real):
        raise InterfaceError(
            argument, got=f"{t!r} at index {i}", expected="numbers", fix="Pass a 1-D tensor or a list of floats."
        )
    try:
        return float(number)
    except OverflowError:
        return math.inf


def check_count(argument: str, value: Any, *, least: int = 1) -> int:
    """A whole number, at least `least`. Raises InterfaceError or OptionError."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InterfaceError(argument, got=repr(value), expected="a whole number", fix="Pass an int.")
    if value < least:
        raise OptionError(argument, got=repr(value), expected=f"{least} or more", fix="Raise it.")
    return int(value)
