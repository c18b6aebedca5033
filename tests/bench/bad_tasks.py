"""What a measurement should never do, one of each kind, for worker processes to survive."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any


def do(task: Any) -> Any:
    """A task is a word, or a number to be squared."""
    return task * task if isinstance(task, int) else TASKS[task]()


def _raise() -> None:
    raise ValueError("not today")


def _loop() -> None:
    while True:
        pass


def _sleep() -> None:
    time.sleep(1000)


def _allocate() -> int:
    return len(bytearray(100 * 10**9))


def _allocate_tensor() -> Any:
    import torch

    return torch.ones(100 * 10**9 // 8, dtype=torch.float64).sum()


def _allocate_slowly() -> int:
    blocks = []
    while len(blocks) < 10_000:
        blocks.append(bytearray(10**7))
    return len(blocks)


def _print() -> int:
    line = "all work and no play\n" * 5000
    for _ in range(10**9 // len(line)):
        sys.stdout.write(line)
    return 1


def _print_a_little() -> int:
    sys.stdout.write("a line that nobody reads\n")
    os.write(2, b"x" * 10**6)
    return 1


def _close_output() -> int:
    os.close(1)
    os.close(2)
    time.sleep(0.2)
    return 1


TASKS = {
    "raise": _raise,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "_exit": lambda: os._exit(3),
    "_exit 0": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(0),
    "loop": _loop,
    "sleep": _sleep,
    "100 GB": _allocate,
    "100 GB tensor": _allocate_tensor,
    "100 GB slowly": _allocate_slowly,
    "1 GB of output": _print,
    "a little output": _print_a_little,
    "no output": _close_output,
    "kill": lambda: os.kill(os.getpid(), 9),
    "function": lambda: lambda: 0,
}
