"""Coefficients of a plan: a number, one number per direction, or a k x k block on the first state axis.

Numbers serve every isotropic process. A `Direction` broadcasts against one sample and serves integrators that treat
directions of the state differently. A `Block` acts on the first axis of one sample, (k, ...), and serves processes
whose state is a stack of k fields (position and velocity in damped Langevin dynamics).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError

__all__ = ["Block", "Coefficient", "Direction", "apply", "check_fits", "from_json", "is_finite", "scaled", "to_json"]


@dataclass(frozen=True, eq=False)
class Direction:
    """One number per direction; `values` broadcasts against one sample."""

    values: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _frozen("Direction", self.values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())


@dataclass(frozen=True, eq=False)
class Block:
    """A k x k matrix that acts on the first axis of one sample."""

    matrix: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", _frozen("Block", self.matrix))
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ShapeError("Block", got=f"shape {self.matrix.shape}", expected="(k, k)", fix="Pass a square matrix.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash(self.matrix.tobytes())


Coefficient = float | Direction | Block


def _frozen(argument: str, values: Any) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise OptionError(
            argument, got="NaN or infinity", expected="finite numbers", fix="Check the formula at this step."
        )
    array.setflags(write=False)
    return array


def is_finite(coefficient: Coefficient) -> bool:
    """Whether a number is finite; `Direction` and `Block` are by construction."""
    return math.isfinite(coefficient) if isinstance(coefficient, (int, float)) else True


def apply(coefficient: Coefficient, value: Any) -> Any:
    """coefficient times value, for a batch of states (B, *shape) as tensor or NumPy array, or for a bare scalar."""
    if isinstance(coefficient, Direction):
        return value * (_like(coefficient.values, value))
    if isinstance(coefficient, Block):
        matrix = _like(coefficient.matrix, value)
        flat = value.reshape(value.shape[0], matrix.shape[0], -1)
        return (matrix @ flat).reshape(value.shape)
    return coefficient * value


def scaled(coefficient: Coefficient, factor: float) -> Coefficient:
    """coefficient times a number."""
    if isinstance(coefficient, Direction):
        return Direction(coefficient.values * factor)
    if isinstance(coefficient, Block):
        return Block(coefficient.matrix * factor)
    return coefficient * factor


def check_fits(coefficient: Coefficient, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless the coefficient acts on samples of this shape without changing it."""
    if isinstance(coefficient, Block):
        fits, want = bool(shape) and shape[0] == len(coefficient.matrix), f"({len(coefficient.matrix)}, ...)"
    elif isinstance(coefficient, Direction):
        try:
            fits = np.broadcast_shapes(coefficient.values.shape, shape) == shape
        except ValueError:
            fits = False
        want = f"a shape that {coefficient.values.shape} broadcasts to"
    else:
        return
    if not fits:
        raise ShapeError(
            "x", got=f"samples of shape {shape}", expected=want, fix="Use the plan on the state it was made for."
        )


def _like(array: np.ndarray, value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.tensor(array, dtype=value.dtype, device=value.device)  # a copy: the array is not writable
    return array


def to_json(coefficient: Coefficient) -> Any:
    """A number, {"direction": [...]} or {"block": [[...]]}."""
    if isinstance(coefficient, Direction):
        return {"direction": coefficient.values.tolist()}
    if isinstance(coefficient, Block):
        return {"block": coefficient.matrix.tolist()}
    return float(coefficient)


def from_json(value: Any) -> Coefficient:
    """The inverse of `to_json`. Raises InterfaceError."""
    if isinstance(value, dict) and value.keys() == {"direction"}:
        return Direction(np.array(value["direction"]))
    if isinstance(value, dict) and value.keys() == {"block"}:
        return Block(np.array(value["block"]))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InterfaceError(
        "coefficient", got=repr(value), expected="a number, a direction or a block", fix="Correct the plan."
    )
