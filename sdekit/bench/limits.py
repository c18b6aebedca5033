"""How long one measurement may take and how much memory, and what is said of those that fail."""

from __future__ import annotations

import contextlib
import math
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdekit.errors import OptionError

__all__ = ["FAILURES", "Limits", "failure", "limited_memory"]

FAILURES = ("failed", "timeout", "oom", "crash")
"""What the status of a measurement without a result can be."""

_LEAST_MB = 64
_LONGEST = 8000  # characters of a trace that are kept: its end, where the error is
# As torch and C++ say it: there is no class of its own for it.
_NO_MEMORY = ("DefaultCPUAllocator", "bad_alloc", "not enough memory", "CUDA out of memory")


@dataclass(frozen=True)
class Limits:
    """What one measurement may take.

    Args:
        seconds: after which it is ended.
        memory_mb: how many megabytes more than its process has before; None for as many as there are. Linux only:
            elsewhere the system does not hold a process to it, and such a limit is refused.

    Raises:
        OptionError: for limits under which nothing could be measured, or that cannot be held here.
    """

    seconds: float = 1800.0
    memory_mb: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise OptionError(
                "cell_seconds", got=self.seconds, expected="a positive number of seconds", fix="Change it."
            )
        if self.memory_mb is None:
            return
        if self.memory_mb < _LEAST_MB:
            raise OptionError(
                "cell_memory_mb", got=self.memory_mb, expected=f"{_LEAST_MB} or more megabytes", fix="Raise it."
            )
        if not sys.platform.startswith("linux"):
            raise OptionError(
                "cell_memory_mb",
                got=f"{self.memory_mb} on {sys.platform}",
                expected="Linux, which alone holds a process to such a limit",
                fix="Leave it out.",
            )


@contextlib.contextmanager
def limited_memory(limits: Limits) -> Iterator[None]:
    """Let this process take so much more address space than it has, for the length of a block."""
    if limits.memory_mb is None or sys.platform == "win32":
        yield
        return
    import resource

    # Of the size of the address space: what is resident cannot be limited. Only CUDA reserves far more than it uses.
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + limits.memory_mb * 2**20
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def failure(error: BaseException) -> dict[str, Any]:
    """The status, the message and the trace of a measurement that ended in an error."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    return {
        "status": "oom" if _is_of_memory(error) else "failed",
        "message": f"{type(error).__name__}: {error}" + (f" ({notes})" if notes else ""),
        "trace": "".join(traceback.format_exception(error))[-_LONGEST:],
    }


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
