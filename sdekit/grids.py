"""Time grids: steps + 1 times from noise to data, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError
from sdekit.registry import Registry, check_options
from sdekit.shapes import finite_number
from sdekit.times import check_count, check_times

__all__ = ["available", "exponential", "get", "half_log_snr", "karras", "register", "uniform"]

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


def _ends(
    process: AffineSDE, steps: int, t_start: float | None, t_end: float | None, append_zero: bool
) -> tuple[int, float, float]:
    """The number of intervals before an appended zero, and both ends, checked."""
    if not isinstance(process, AffineSDE):
        raise InterfaceError(
            "process", got=type(process).__name__, expected="an affine process such as sdekit.VP()", fix="Pass one."
        )
    if not isinstance(append_zero, bool):
        raise InterfaceError("append_zero", got=repr(append_zero), expected="True or False", fix="Pass a bool.")
    check_count("steps", steps, least=2 if append_zero else 1)
    start = process.t_max if t_start is None else finite_number("t_start", t_start)
    end = process.t_min if t_end is None else finite_number("t_end", t_end)
    check_times([start, end], argument="t_start, t_end", domain=process.domain, direction="down")
    return steps - append_zero, start, end


def _finish(process: AffineSDE, times: Tensor, start: float, end: float, append_zero: bool) -> Tensor:
    """Ends exactly as asked, the time of sigma = 0 appended if asked, the contract checked."""
    times[0], times[-1] = start, end
    if append_zero:
        zero = process.domain[0]
        if float(process.sigma(zero)) != 0:
            raise OptionError(
                "append_zero",
                got=f"True for {process!r}, whose sigma({zero:g}) = {float(process.sigma(zero)):g}",
                expected="a process with a time at which sigma = 0",
                fix="Leave it out.",
            )
        if end > zero:
            times = torch.cat([times, times.new_tensor([zero])])
        else:
            raise OptionError(
                "append_zero", got=f"True with t_end = {end:g}", expected="t_end > 0", fix="Leave it out."
            )
    check_times(times, argument="grid", domain=process.domain, direction="down")
    return times


def _refuse_infinite(name: str, process: AffineSDE, *ends: float) -> None:
    for t in ends:
        value = float(process.half_log_snr(t))
        if not math.isfinite(value):
            what = "alpha" if value < 0 else "sigma"
            raise OptionError(
                "t_start" if value < 0 else "t_end",
                got=f"{t:g}, where {what} = 0 for {process!r}",
                expected=f"an end with {what} > 0 for the grid {name!r}",
                fix="Move the end, or use the grid 'uniform', which is finite there.",
            )


def _in_half_log_snr(process: AffineSDE, values: Tensor, start: float, end: float, append_zero: bool) -> Tensor:
    return _finish(process, process.time_at(values), start, end, append_zero)


@register("uniform")
def uniform(
    process: AffineSDE,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    append_zero: bool = False,
) -> Tensor:
    """Equal steps in t.

    Args:
        steps: the number of intervals; the result has steps + 1 times, float64, decreasing.
        t_start, t_end: the noisy and the clean end; default the process's.
        append_zero: make the last time the one at which sigma = 0; t_end is then the last but one.

    Raises:
        OptionError: for ends outside the domain or out of order, or steps < 1.
    """
    n, start, end = _ends(process, steps, t_start, t_end, append_zero)
    return _finish(process, torch.linspace(start, end, n + 1, dtype=torch.float64), start, end, append_zero)


@register("half_log_snr", aliases=("logsnr", "lambda"))
def half_log_snr(
    process: AffineSDE,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    append_zero: bool = False,
) -> Tensor:
    """Equal steps in lambda = log(alpha / sigma). Arguments and errors as for `uniform`; both ends must be finite."""
    n, start, end = _ends(process, steps, t_start, t_end, append_zero)
    _refuse_infinite("half_log_snr", process, start, end)
    low, high = float(process.half_log_snr(start)), float(process.half_log_snr(end))
    values = torch.linspace(low, high, n + 1, dtype=torch.float64)
    return _in_half_log_snr(process, values, start, end, append_zero)


@register("karras")
def karras(
    process: AffineSDE,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    append_zero: bool = False,
    rho: float = 7.0,
) -> Tensor:
    """Equal steps in (sigma / alpha)^(1 / rho) (Karras et al., NeurIPS 2022, eq. 5).

    Args:
        rho: the exponent; the rest, and the errors, as for `uniform`. t_start must have alpha > 0.
    """
    n, start, end = _ends(process, steps, t_start, t_end, append_zero)
    power = finite_number("rho", rho, positive=True)
    _refuse_infinite("karras", process, start)
    first, last = (float(process.rho(t)) ** (1 / power) for t in (start, end))
    values = torch.linspace(first, last, n + 1, dtype=torch.float64)
    return _in_half_log_snr(process, -power * torch.log(values), start, end, append_zero)


@register("exponential", aliases=("polyexponential",))
def exponential(
    process: AffineSDE,
    steps: int,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    append_zero: bool = False,
    rho: float = 1.0,
) -> Tensor:
    """log(sigma / alpha) at the power rho of equal steps: for rho = 1 the same times as `half_log_snr`.

    The names are k-diffusion's, whose sigma is our sigma / alpha. rho > 1 puts more steps at the clean end,
    as its polyexponential schedule does.

    Args:
        rho: the exponent; the rest, and the errors, as for `half_log_snr`.
    """
    n, start, end = _ends(process, steps, t_start, t_end, append_zero)
    power = finite_number("rho", rho, positive=True)
    _refuse_infinite("exponential", process, start, end)
    first, last = -float(process.half_log_snr(start)), -float(process.half_log_snr(end))
    ramp = torch.linspace(1, 0, n + 1, dtype=torch.float64) ** power
    return _in_half_log_snr(process, -(ramp * (first - last) + last), start, end, append_zero)
