"""Two samples as float64 rows, and what an estimate from them is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.shapes import check_state

__all__ = ["ELEMENTS", "Estimated", "chunk_rows", "two_samples"]

ELEMENTS = 2**22
"""Numbers of a temporary: 32 MiB in float64."""


class Estimated(NamedTuple):
    """A value computed from samples, and its standard error."""

    value: float
    error: float


def chunk_rows(columns: int) -> int:
    """How many rows of so many numbers fit into a temporary."""
    return max(1, ELEMENTS // max(1, columns))


def two_samples(x: Any, y: Any, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both as (n, d) and (m, d) in float64, without gradients.

    Raises:
        InterfaceError: for what is no floating tensor, or on two devices.
        ShapeError: for samples of different shapes.
        OptionError: for fewer than `least` points, or numbers that are not finite.
    """
    for argument, sample in (("x", x), ("y", y)):
        check_state(sample, argument)
        if len(sample) < least:
            raise OptionError(
                argument, got=f"{len(sample)} points", expected=f"at least {least}", fix="Draw a larger sample."
            )
    if x.shape[1:] != y.shape[1:]:
        raise ShapeError(
            "y",
            got=f"points of shape {tuple(y.shape[1:])}",
            expected=f"{tuple(x.shape[1:])} as x",
            fix="Compare samples of one space.",
        )
    if x.device != y.device:
        raise InterfaceError("y", got=f"a sample on {y.device}", expected=f"one on {x.device} as x", fix="Move it.")
    flat = [v.detach().to(torch.float64).reshape(len(v), -1) for v in (x, y)]
    for argument, sample in zip(("x", "y"), flat, strict=True):
        if not bool(torch.isfinite(sample).all()):
            raise OptionError(
                argument, got="NaN or infinity", expected="finite samples", fix="Drop the rows that failed."
            )
    return flat[0], flat[1]
