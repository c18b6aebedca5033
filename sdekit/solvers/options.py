"""Checks of options that several solvers have."""

from __future__ import annotations

from sdekit.errors import OptionError, suggest
from sdekit.shapes import finite_number
from sdekit.times import check_count

__all__ = ["check_choice", "check_final_order", "check_flag", "check_not_negative"]


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of the choices, with a near one suggested."""
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(repr(c) for c in choices)
        raise OptionError(argument, got=repr(value), expected=expected, fix=suggest(str(value), choices))


def check_final_order(final_order: int | None, order: int) -> None:
    """Refuse an order of the last step that is neither None nor 1 to `order`."""
    if final_order is not None and check_count("final_order", final_order) > order:
        raise OptionError(
            "final_order", got=repr(final_order), expected=f"1 to {order}, the order of the method", fix="Lower it."
        )


def check_flag(argument: str, value: bool) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise OptionError(argument, got=repr(value), expected="True or False", fix="Pass one of them.")


def check_not_negative(argument: str, value: float) -> None:
    """Refuse what is not a finite number of 0 or more."""
    if finite_number(argument, value) < 0:
        raise OptionError(argument, got=repr(value), expected="0 or more", fix="Raise it.")
