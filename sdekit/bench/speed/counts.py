"""What PyTorch is asked to do for each step: operations over the whole state, blocking reads, draws, allocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdekit.bench.speed.free import PROCESS, STEPS, FreeNetwork, drawn, times
from sdekit.bench.speed.reading import Reading, Row, Setting
from sdekit.model import Model
from sdekit.solve import solve

__all__ = ["ROWS"]

_FROM = 3  # calls of the network, after which every step is like the next
_SHAPE = (16, 4, 64, 64)
_CASES = (("data", "end"), ("data", "full"), ("noise", "end"), ("noise", "full"))


class _Counts(TorchDispatchMode):
    """Counts what happens from a network's call number _FROM to its last."""

    def __init__(self, net: FreeNetwork) -> None:
        super().__init__()
        self.net, self.counts = net, Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _FROM <= self.net.calls < STEPS:
            return result
        name, size = func.__name__.split(".")[0], self.net.out.numel()
        tensors = [v for v in (*args, *(kwargs or {}).values()) if isinstance(v, Tensor)]
        full = any(v.numel() >= size for v in tensors) and name not in ("new_full", "detach")
        memory = {v.untyped_storage().data_ptr() for v in tensors}
        self.counts["operations"] += full
        self.counts["reads"] += name in ("_local_scalar_dense", "equal")
        self.counts["draws"] += name in ("normal_", "randn", "randn_like", "randint", "random_")
        if isinstance(result, Tensor) and result.numel() >= size and result.untyped_storage().data_ptr() not in memory:
            self.counts["allocations"] += 1
        return result


def _measure(setting: Setting) -> Iterator[Reading]:
    for prediction, checks in _CASES:
        net = FreeNetwork(drawn(_SHAPE, setting))
        with _Counts(net) as counter:
            solve(Model(net, PROCESS, prediction), drawn(_SHAPE, setting), times(), "dpmpp_2m", checks=checks)
        goals = {"operations": 3.0 if prediction == "data" and checks == "end" else None, "draws": 0.0}
        goals |= {"reads": 0.0 if checks == "end" else None, "allocations": 0.0}
        for quantity in ("operations", "reads", "draws", "allocations"):
            yield Reading(
                f"network predicts {prediction}, checks='{checks}'",
                f"{quantity} a step",
                counter.counts[quantity] / (STEPS - _FROM),
                "count",
                goal=goals[quantity],
                exact=True,
            )


ROWS = (
    Row(
        "counts",
        "What a step of dpmpp_2m asks of PyTorch",
        "Operations over the whole state, reads for which the device is waited for, draws, and new tensors of the "
        "state's size, once the first three calls are made. A prediction other than the solver's own costs one "
        "operation more: its conversion is kept for later steps. checks='full' costs one operation and one read. Where "
        "nobody counts, states on a processor take one pass of a kernel instead of the operations.",
        _measure,
    ),
)
