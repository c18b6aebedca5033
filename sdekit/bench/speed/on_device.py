"""Seconds of what a device does, what its memory moves in them, and whole solves as CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.model import Model
from sdekit.plan import Plan
from sdekit.shapes import compute_dtype
from sdekit.solve import solve

__all__ = ["SteadyNetwork", "captured", "copy_bytes", "floor_bytes", "mark", "seconds_between", "seconds_on"]

_WARM_UPS = 3  # solves before the capture, in which libraries make their workspaces


def mark(device: str) -> Any:
    """Now: an event in the stream of a CUDA device, else the process's time."""
    if torch.device(device).type != "cuda":
        return time.process_time()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Any, end: Any) -> float:
    """Between two marks of one device; waits for the second."""
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds_on(device: str, run: Callable[[], object], repeats: int = 1) -> float:
    """Seconds of one run: of the device's stream from the first operation to the last, or of the process."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    start = mark(device)
    for _ in range(repeats):
        run()
    return seconds_between(start, mark(device)) / repeats


def copy_bytes(x: Tensor) -> int:
    """What a copy of x moves: it is read and written."""
    return 2 * x.numel() * x.element_size()


def floor_bytes(elements: int, dtype: torch.dtype) -> int:
    """What the three in-place operations of a step of dpmpp_2m move: x <- a x, x <- x + b E, x <- x + c F.

    Eight passes over as many elements, in the dtype in which states are accumulated. A state in half precision is also
    cast for the network, and the network's output back.
    """
    wide, narrow = compute_dtype(dtype).itemsize, dtype.itemsize
    casts = 0 if wide == narrow else 2 * (wide + narrow)
    return elements * (8 * wide + casts)


class SteadyNetwork:
    """Returns two tensors in turn, and marks its call number `warm` and the last of `calls`.

    One tensor alone would be compared with a copy of itself, to tell a constant from a buffer that is rewritten; a
    graph cannot wait for that.
    """

    def __init__(self, like: Tensor, calls: int, warm: int = 5) -> None:
        self.outs = (torch.randn_like(like), torch.randn_like(like))
        self.last, self.warm, self.calls, self.timed = calls, warm, 0, True
        self.start: Any = None
        self.end: Any = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        if self.timed and self.calls == self.warm:
            self.start = mark(str(x.device))
        elif self.timed and self.calls == self.last:
            self.end = mark(str(x.device))
        return self.outs[self.calls % 2]

    def per_step(self, run: Callable[[], object]) -> float:
        """Seconds from one call to the next, inside one solve."""
        self.calls = 0
        run()
        return seconds_between(self.start, self.end) / (self.last - self.warm)


def captured(model: Model, x: Tensor, plan: Plan) -> Callable[[Tensor], Tensor]:
    """A deterministic solve of `model` by `plan` as one CUDA graph, for states like x.

    What it gives for a state is what `solve(..., checks="off")` gives, to the bit. The tensor that it returns is the
    same in every call, and overwritten by the next. What Python does in the network is done at the capture only.

    Raises:
        OptionError: for a state that is not on a CUDA device, and for a plan that draws noise.
    """
    if not x.is_cuda:
        raise OptionError("x", got=f"a state on {x.device}", expected="one on a CUDA device", fix="Move it there.")
    if plan.noises():
        raise OptionError("plan", got=plan.solver, expected="a deterministic plan", fix="Choose another solver.")
    here = x.clone()

    def run() -> Tensor:
        return solve(model, here, plan.times, plan, checks="off").x

    graph: Any = torch.cuda.CUDAGraph()
    with torch.no_grad():
        side: Any = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            found = run()

    def replay(given: Tensor) -> Tensor:
        here.copy_(given)
        graph.replay()
        return found

    return replay
