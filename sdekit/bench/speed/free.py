"""A network that costs nothing, so that only the rest of a solve is timed, and the bare operations of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdekit import grids
from sdekit.bench.speed.reading import Setting
from sdekit.processes import EDM

__all__ = ["PROCESS", "SHAPES", "STEPS", "FreeNetwork", "drawn", "raw_step", "times"]

SHAPES = ((1, 4, 64, 64), (16, 4, 64, 64), (64, 3, 32, 32), (256, 3, 32, 32))
STEPS = 50
PROCESS = EDM()
_WARM = 5  # calls before the clock starts


class FreeNetwork:
    """Returns one tensor; notes the process time between its first calls and the last."""

    def __init__(self, out: Tensor) -> None:
        self.out = out
        self.calls, self.start, self.end = 0, 0.0, 0.0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == _WARM:
            self.start = time.process_time()
        elif self.calls == STEPS:
            self.end = time.process_time()
        return self.out

    def per_step(self, run: Callable[[], object]) -> float:
        """Seconds from one call to the next, inside one solve of STEPS steps."""
        self.calls = 0
        run()
        return (self.end - self.start) / (STEPS - _WARM)


def drawn(shape: Sequence[int], setting: Setting) -> Tensor:
    """Normals of this shape."""
    return torch.randn(shape, dtype=getattr(torch, setting.dtype), device=setting.device)


def times() -> list[float]:
    """The grid of all rows: Karras et al., STEPS steps, without a last zero."""
    return grids.get("karras")(PROCESS, STEPS).tolist()


def raw_step(shape: Sequence[int], setting: Setting, adds: int = 2, draw: bool = False) -> Callable[[], float]:
    """Seconds per step of the bare in-place operations: one scaling, additions, and for an SDE the draw."""
    x, others = drawn(shape, setting), [drawn(shape, setting) for _ in range(adds)]

    def run() -> float:
        start = time.process_time()
        for _ in range(STEPS):
            if draw:
                others[-1].normal_()
            x.mul_(0.9)
            for other in others:
                x.add_(other, alpha=0.01)
        return (time.process_time() - start) / STEPS

    return run
