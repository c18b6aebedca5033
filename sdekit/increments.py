"""The noise of one step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Increments"]


class Increments(NamedTuple):
    """Brownian increments over one step of length h = |t1 - t0|, the shape of x or (B, m) for general noise.

    Attributes:
        W: B(t1) - B(t0).
        H: the space-time Levy area, the mean of B - B(t0) over the step less W / 2: of variance h / 12, independent of
            W. None where the stepper does not declare `uses_area`.
        K: the space-time-time Levy area, (1/h^2) int (B(u) - B(t0) - (u - t0) W / h) (h/2 - (u - t0)) du with u - t0
            counted along the step: of variance h / 720, independent of W and H. None without `uses_time_area`.
        extra: standard normals independent of the path, of the shapes that the stepper's `extra_shapes` asks for.
    """

    W: Tensor
    H: Tensor | None = None
    K: Tensor | None = None
    extra: tuple[Tensor, ...] = ()
