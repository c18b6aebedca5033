"""What all grids share: the registry, the arguments and their checks, both ends exactly as asked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError
from sdekit.registry import Registry, check_options
from sdekit.shapes import finite_number
from sdekit.times import check_count, check_times

__all__ = ["Grid", "Span", "available", "get", "named", "register"]

Grid = Callable[..., Tensor]
_REGISTRY: Registry[Grid] = Registry("grid")


def register(name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[Grid], Grid]:
    """Decorator: make a function (process, steps, *, t_start, t_end, append_zero, ...) -> Tensor available by name."""

    def decorate(function: Grid) -> Grid:
        if not callable(function):
            raise InterfaceError("register", got=repr(function), expected="a function", fix="Decorate a function.")
        _REGISTRY.register(name, function, aliases)
        return function

    return decorate


def get(name: str, **options: Any) -> Grid:
    """The grid of this name, with options bound where given. Raises UnknownNameError with near names."""
    function = _REGISTRY.get(name)
    if not options:
        return function
    check_options(name, function, options)

    def bound(process: AffineSDE, steps: int, **more: Any) -> Tensor:
        return function(process, steps, **{**options, **more})

    return bound


def available() -> list[str]:
    """The names of all grids."""
    return sorted(_REGISTRY)


@dataclass(frozen=True)
class Span:
    """What is asked of a grid, checked: `steps` intervals between two ends.

    Args:
        name: the grid's, for error texts.
        process: an affine process.
        steps: the number of intervals from start to end.
        start, end: the noisy and the clean end.
        own_start, own_end: whether they are the process's, for want of others.
        replaced: whether an appended zero will take the place of the last time.
    """

    name: str
    process: AffineSDE
    steps: int
    start: float
    end: float
    own_start: bool
    own_end: bool
    replaced: bool

    def fractions(self) -> Tensor:
        """1 ... 0 in equal steps, (steps + 1,)."""
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)

    def between(self, fractions: Tensor) -> Tensor:
        """Times from end at 0 to start at 1."""
        return self.exact(self.end + (self.start - self.end) * fractions)

    def at(self, half_log_snr: Tensor) -> Tensor:
        """Times at these values of lambda. The first and the last are not looked at: they are the ends."""
        inner = self.process.time_at(half_log_snr[1:-1])
        return self.exact(torch.cat([inner.new_zeros(1), inner, inner.new_zeros(1)]))

    def exact(self, times: Tensor) -> Tensor:
        """With the first and the last time as they were asked for."""
        times[0], times[-1] = self.start, self.end
        return times

    def half_log_snr(self, *, start: bool = True, end: bool = True) -> tuple[float, float]:
        """lambda at both ends. Raises OptionError where one of those named is infinite."""
        values = []
        for t, finite in ((self.start, start), (self.end, end)):
            values.append(float(self.process.half_log_snr(t)))
            if finite and not math.isfinite(values[-1]):
                what = "alpha" if values[-1] < 0 else "sigma"
                raise OptionError(
                    "t_start" if what == "alpha" else "t_end",
                    got=f"{t:g}, where {what} = 0 for {self.process!r}",
                    expected=f"an end with {what} > 0 for the grid {self.name!r}",
                    fix="Move the end, or use the grid 'uniform', which is finite there.",
                )
        return values[0], values[1]


def named(
    name: str, *, aliases: tuple[str, ...] = (), zero_for_end: bool = False
) -> Callable[[Callable[..., Tensor]], Grid]:
    """Decorator: from a function (span, options) -> times from span.start to span.end, the grid of this name.

    The result takes the arguments that all grids take, see `sdekit.grids`, and the options by keyword.

    Args:
        zero_for_end: an appended zero takes the place of the last time; by default it follows it.
    """

    def decorate(points: Callable[..., Tensor]) -> Grid:
        def grid(
            process: AffineSDE,
            steps: int,
            *,
            t_start: float | None = None,
            t_end: float | None = None,
            append_zero: bool = False,
            **options: Any,
        ) -> Tensor:
            check_options(name, grid, options)
            span = _span(name, process, steps, t_start, t_end, append_zero, zero_for_end)
            times = points(span, **options)
            if append_zero:
                zero = times.new_tensor([_zero(process, float(times[-1]))])
                times = torch.cat([times[:-1] if zero_for_end else times, zero])
            check_times(times, argument="grid", domain=process.domain, direction="down")
            return times

        own = [p.replace(kind=p.KEYWORD_ONLY) for p in list(inspect.signature(points).parameters.values())[1:]]
        common = [p for p in inspect.signature(grid).parameters.values() if p.kind is not p.VAR_KEYWORD]
        grid.__signature__ = inspect.Signature([*common, *own], return_annotation=Tensor)  # type: ignore[attr-defined]
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(grid, attribute, getattr(points, attribute))
        return register(name, aliases=aliases)(grid)

    return decorate


def _span(
    name: str,
    process: AffineSDE,
    steps: int,
    t_start: float | None,
    t_end: float | None,
    append_zero: bool,
    zero_for_end: bool,
) -> Span:
    if not isinstance(process, AffineSDE):
        raise InterfaceError(
            "process", got=type(process).__name__, expected="an affine process such as sdekit.VP()", fix="Pass one."
        )
    if not isinstance(append_zero, bool):
        raise InterfaceError("append_zero", got=repr(append_zero), expected="True or False", fix="Pass a bool.")
    more = append_zero and not zero_for_end  # one interval is the one down to the appended zero
    check_count("steps", steps, least=2 if more else 1)
    start = process.t_max if t_start is None else finite_number("t_start", t_start)
    end = process.t_min if t_end is None else finite_number("t_end", t_end)
    check_times([start, end], argument="t_start, t_end", domain=process.domain, direction="down")
    replaced = append_zero and zero_for_end
    return Span(name, process, steps - more, start, end, t_start is None, t_end is None, replaced)


def _zero(process: AffineSDE, end: float) -> float:
    """The time at which sigma = 0, later than which the grid ends."""
    zero = process.domain[0]
    sigma = float(process.sigma(zero))
    if sigma != 0:
        raise OptionError(
            "append_zero",
            got=f"True for {process!r}, whose sigma({zero:g}) = {sigma:g}",
            expected="a process with a time at which sigma = 0",
            fix="Leave it out.",
        )
    if end <= zero:
        expected = f"t_end > {zero:g}: the grid ends there as it is"
        raise OptionError("append_zero", got=f"True with t_end = {end:g}", expected=expected, fix="Leave it out.")
    return zero
