"""Linear combinations of states in one pass through memory, in C, where a compiler is at hand (`sdekit.math.native`).

PyTorch's operations pass once for each term. The bits are theirs: the first product, then each product added with one
rounding. A processor on which PyTorch rounds otherwise is one for which the build is refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from sdekit.math.native import Native

__all__ = ["NATIVE", "TERMS", "kernel", "passes_of", "plain", "table"]

TERMS = 6
"""How many terms a pass takes."""

_BITS = {torch.float64: "64", torch.float32: "32"}
_ALONE = 2**16
"""States of more elements are left to PyTorch where it has several threads: on two it is then as fast or faster."""


def kernel(x: Tensor, combinations: int) -> Any:
    """`run(out, size, table, terms, *pointers)` for states like x; None where PyTorch's operations serve.

    Args:
        x: a contiguous tensor.
        combinations: about how many are to come.
    """
    alone = 0 < x.numel() <= _ALONE or torch.get_num_threads() == 1
    if x.dtype not in _BITS or x.device.type != "cpu" or not alone or not plain(x) or _watched():
        return None
    library = NATIVE.get(combinations * x.numel())
    return None if library is None else getattr(library, f"sdekit_combination_{_BITS[x.dtype]}")


def plain(x: Tensor) -> bool:
    """Whether a tensor is what its memory holds, element after element."""
    return type(x) is Tensor and x.is_contiguous() and not x.is_neg() and x.data_ptr() != 0


def _watched() -> bool:
    """Whether someone records or transforms PyTorch's operations, who must then see them."""
    transformed = maybe_current_level() is not None or forward_ad._current_level >= 0
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
    return transformed or traced or _get_current_dispatch_mode() is not None


def passes_of(into: int, terms: Sequence[tuple[int, float]]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Terms (register, coefficient), in order, by passes of at most TERMS; later ones go on from register `into`."""
    found, rest = [terms[:TERMS]], terms[TERMS:]
    while rest:
        found.append([(into, 1.0), *rest[: TERMS - 1]])
        rest = rest[TERMS - 1 :]
    return [(tuple(a for a, _ in some), tuple(c for _, c in some)) for some in found]


def table(coefficients: Sequence[float], into: array[float]) -> int:
    """Append the coefficients of a pass; returns where they begin, in bytes."""
    at = len(into)
    into.extend(coefficients)
    into.extend([0.0] * (TERMS - len(coefficients)))
    return at * into.itemsize


def _right(library: Any) -> bool:
    """Whether a build gives the bits of PyTorch's operations, in its long loops and in their last elements."""
    for dtype, bits in _BITS.items():
        run = getattr(library, f"sdekit_combination_{bits}")
        for size in (1, 77, 4099):
            numbers = torch.sin(torch.arange(1.0, size * TERMS + 1, dtype=torch.float64)).to(dtype).view(TERMS, size)
            for count in range(1, TERMS + 1):
                weights = array("d")
                table([0.3 + 0.7 * k for k in range(count)], weights)
                expected, out = numbers[0] * weights[0], numbers[0].clone()
                for x, c in zip(numbers[1:count], weights[1:], strict=False):
                    expected.add_(x, alpha=c)
                places = [out.data_ptr(), *(x.data_ptr() for x in numbers[1:count]), *[None] * (TERMS - count)]
                run(out.data_ptr(), size, weights.buffer_info()[0], count, *places)
                if not torch.equal(out, expected):
                    return False
    return True


NATIVE = Native(_right, "combinations.c")
"""The kernels; built when a process has combined as many numbers as it would draw for those of noise."""
