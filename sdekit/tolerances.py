"""Tolerances: which solvers take them, what those of a solve are, and what they mean for its dynamics."""

from __future__ import annotations

from typing import Any

import torch

from sdekit import solvers
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.shapes import finite_number
from sdekit.solvers.base import Stepper

__all__ = ["check_path_order", "check_tolerance", "follows_path", "resolve_tolerance"]

_LEAST_ORDER = 1.0


def resolve_tolerance(
    method: Any, rtol: float | None, atol: float | None, stochastic: bool
) -> tuple[float, float] | None:
    """rtol and atol, or None where neither is given. What is left out: atol is as rtol, and rtol is 0.

    Raises:
        OptionError: for numbers that are no tolerances, or a solver that takes none.
    """
    given = {name: value for name, value in (("rtol", rtol), ("atol", atol)) if value is not None}
    for argument, value in given.items():
        number = finite_number(argument, value)
        if number < 0 or (argument == "rtol" and number >= 1):
            raise OptionError(
                argument, got=repr(value), expected="0 <= rtol < 1 and atol >= 0", fix="Choose another value."
            )
        if not getattr(method, "adaptive", False) and not (stochastic and follows_path(method)):
            taking = [i.name for i in solvers.available() if i.adaptive]
            raise OptionError(
                argument,
                got=f"{value!r} with a fixed-step solver",
                expected="no tolerance, or an adaptive solver" + (_along() if stochastic else ": " + ", ".join(taking)),
                fix="Choose the error by the grid.",
            )
    if not given:
        return None
    relative = given.get("rtol", 0.0)
    absolute = given.get("atol", relative)
    if relative == absolute == 0:
        raise OptionError(
            "rtol, atol", got="0 and 0", expected="one of them greater than 0", fix="Pass rtol=1e-6, for example."
        )
    return float(relative), float(absolute)


def check_tolerance(tolerance: tuple[float, float], dtype: torch.dtype) -> None:
    """Raises OptionError for a relative tolerance below ten roundings of the dtype."""
    least = 10 * torch.finfo(dtype).eps
    if 0 < tolerance[0] < least:
        raise OptionError(
            "rtol",
            got=f"{tolerance[0]!r} for {str(dtype).removeprefix('torch.')}",
            expected=f"at least {least:.3g}, ten times its rounding, or 0",
            fix="Raise rtol, or pass the state in float64.",
        )


def follows_path(method: Any) -> bool:
    """Whether a solver can take adaptive steps along a Brownian path: a stepper of SDEs that draws nothing besides."""
    if not isinstance(method, Stepper) or method.needs == "ode" or method.own_steps:
        return False
    if getattr(method, "package", None) is not None:  # another package's, which takes one time for all samples
        return False
    return not method.extra_shapes((1, 2))


def path_order(method: Any, classes: tuple[str, ...]) -> float:
    """The strong order of a stepper on an SDE of these noise classes; 0 where it has none."""
    if not method.declared.noise:
        return method.declared.strong or 0.0
    order = method.declared.on(classes)
    return 0.0 if order is None else order.strong or 0.0


def _along() -> str:
    """The solvers that take adaptive steps on an SDE of diagonal noise, and those that do on additive noise alone."""
    fitting = [s for s in (solvers.get(i.name) for i in solvers.available()) if follows_path(s)]
    any_noise = [s.name for s in fitting if path_order(s, ("diagonal", "general")) >= _LEAST_ORDER]
    additive = [s.name for s in fitting if path_order(s, ("additive", "diagonal", "general")) >= _LEAST_ORDER]
    more = [name for name in additive if name not in any_noise]
    return f" of an SDE: {', '.join(any_noise)}; where its noise is additive also {', '.join(more)}"


def check_path_order(method: Any, classes: tuple[str, ...]) -> float:
    """The strong order, for adaptive steps on an SDE of these noise classes.

    Below 1 the sum of the errors of single steps tells nothing of the error at the end, and where steps follow the
    path the limit itself may be wrong: so Euler-Maruyama is refused unless the noise is additive.

    Raises:
        SolverMismatchError: for less than 1.
    """
    found = path_order(method, classes)
    if found >= _LEAST_ORDER:
        return found
    every = [solvers.get(i.name) for i in solvers.available()]
    fitting = [s.name for s in every if follows_path(s) and path_order(s, classes) >= _LEAST_ORDER]
    raise SolverMismatchError(
        "rtol, atol",
        got=f"tolerances with {method.name or type(method).__name__!r}, whose strong order is {found:g} on "
        f"{classes[0]} noise",
        expected="a solver of strong order 1 or more there: " + (", ".join(fitting) or "none is registered"),
        fix="Choose one of them, or fixed steps." if fitting else "Take fixed steps.",
    )
