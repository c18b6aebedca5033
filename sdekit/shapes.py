"""Shapes and dtypes: one place for how a time broadcasts against a state and in which precision a state is computed."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError

__all__ = [
    "as_float64",
    "beside",
    "check_dtype",
    "check_state",
    "compute_dtype",
    "expand_time",
    "finite_number",
    "overwritable",
    "rows_of",
    "time_like",
    "uninitialised_like",
]

_STATE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_state(x: Any, argument: str = "x") -> Tensor:
    """A state is a floating tensor (B, *shape) of rank 1 or more. Raises InterfaceError or ShapeError."""
    if not isinstance(x, Tensor):
        raise InterfaceError(
            argument,
            got=type(x).__name__,
            expected="a torch.Tensor of shape (B, *shape)",
            fix="Convert it, for example with torch.as_tensor.",
        )
    if x.dtype not in _STATE_DTYPES:
        raise InterfaceError(
            argument,
            got=f"dtype {x.dtype}",
            expected="float16, bfloat16, float32 or float64",
            fix=f"Convert it: {argument}.to(torch.float32).",
        )
    if x.layout != torch.strided or x.is_meta:
        got = "a tensor on the meta device, which holds no numbers" if x.is_meta else f"layout {x.layout}"
        fix = "Make it on a real device." if x.is_meta else f"Convert it: {argument}.to_dense()."
        raise InterfaceError(argument, got=got, expected="a dense tensor with numbers", fix=fix)
    if x.ndim < 1:
        raise ShapeError(
            argument,
            got="shape ()",
            expected="(B, *shape) of rank 1 or more",
            fix=f"Add a batch axis: {argument}[None].",
        )
    return x


def check_dtype(dtype: Any, argument: str = "dtype") -> torch.dtype:
    """A dtype that a state may have. Raises InterfaceError."""
    if not isinstance(dtype, torch.dtype) or dtype not in _STATE_DTYPES:
        raise InterfaceError(
            argument, got=repr(dtype), expected="float16, bfloat16, float32 or float64", fix="Pass torch.float32."
        )
    return dtype


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a state of `dtype` is accumulated: half precisions in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def finite_number(argument: str, value: Any, *, positive: bool = False) -> float:
    """`value` as a finite float, greater than zero if asked. Raises InterfaceError or OptionError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InterfaceError(argument, got=repr(value), expected="a number", fix="Pass a Python float.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        kind = "a finite number greater than 0" if positive else "a finite number"
        raise OptionError(argument, got=repr(value), expected=kind, fix="Choose another value.")
    return number


def as_float64(t: Any) -> Tensor:
    """Times as a float64 tensor of the same shape and device; numbers become 0-d tensors on the host.

    Raises InterfaceError for what is no real number and no array of them.
    """
    if isinstance(t, Tensor):
        if t.dtype is torch.float64:
            return t
        if not t.is_complex():
            return t.to(torch.float64)
        raise _no_time(t.dtype)
    try:
        if getattr(getattr(t, "dtype", None), "kind", "") != "c":  # of which the real part alone would be taken
            return torch.as_tensor(t, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _no_time(t) from error
    raise _no_time(t)


def _no_time(got: Any) -> InterfaceError:
    return InterfaceError(
        "t", got=repr(got), expected="a real number, or an array of them", fix="Pass a float or a tensor."
    )


def expand_time(t: float | Tensor, x: Tensor) -> Tensor:
    """A time, shape (), (B,) or (B, 1, ..., 1), reshaped so that it broadcasts against x (B, *shape); dtype kept."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64, device=x.device)
    t = t.to(x.device)
    if t.ndim == 0:
        return t
    if t.shape[0] not in (1, x.shape[0]) or t.numel() != t.shape[0]:
        raise ShapeError(
            "t",
            got=f"shape {tuple(t.shape)} beside a state of shape {tuple(x.shape)}",
            expected=f"(), ({x.shape[0]},) or ({x.shape[0]}, 1, ..., 1)",
            fix="Pass one time for all samples, or one per sample. The order of arguments is (t, x).",
        )
    return t.reshape(t.shape[0], *(1,) * (x.ndim - 1))


def time_like(t: float | Tensor, x: Tensor) -> Tensor:
    """The time that user code receives: broadcasts against x, in x's dtype but at least float32."""
    kind = compute_dtype(x.dtype)
    return expand_time(t, x).to(kind) if isinstance(t, Tensor) else torch.tensor(t, dtype=kind, device=x.device)


def beside(t: float, towards: float, dtype: torch.dtype) -> float:
    """The number next to t on the way to another time, as the functions of a state of this dtype are given times."""
    kind = compute_dtype(dtype)
    return float(torch.nextafter(torch.tensor(t, dtype=kind), torch.tensor(towards, dtype=kind)))


def uninitialised_like(x: Tensor) -> Tensor:
    """A buffer like x whose content must be overwritten before it is read: the only place that makes one."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def rows_of(x: Tensor, rows: Any) -> Tensor:
    """x[rows]. Raises OptionError for what is no index of it."""
    try:
        return x[rows]
    except (IndexError, TypeError) as error:
        expected = f"whole numbers below {len(x)}"
        raise OptionError("rows", got=repr(rows), expected=expected, fix="Pass indices of the samples.") from error


def overwritable(x: Tensor) -> bool:
    """Whether what is computed from x may be written into buffers: no gradient, transform or subclass is at work."""
    if torch.is_grad_enabled() or type(x) is not Tensor or is_functorch_wrapped_tensor(x):
        return False
    return torch.autograd.forward_ad.unpack_dual(x).tangent is None
