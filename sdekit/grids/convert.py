"""From the noise levels and timesteps that others use to our times, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError
from sdekit.processes import DiscreteVP, RectifiedFlow
from sdekit.shapes import as_float64
from sdekit.times import check_count

__all__ = ["from_sigmas", "from_timesteps", "to_sigmas", "to_timesteps", "training_count"]

Numbers = float | Sequence[float] | Tensor

_TRAINING_TIMES = 1000  # of a process that does not say
_SLACK = 1e-6  # sigmas that were rounded to float32 still count as the ends they were made from


def from_sigmas(process: AffineSDE, sigmas: Numbers) -> Tensor:
    """The times at which sigma / alpha has these values: those of k-diffusion, EDM and ComfyUI, in their order.

    Args:
        process: an affine process.
        sigmas: numbers >= 0, of any shape. 0 gives the time at which sigma = 0, inf that at which alpha = 0. Up to a
            millionth beyond an end of the process counts as the end.

    Returns:
        float64, of the shape of sigmas.

    Raises:
        InterfaceError: for something that is not numbers.
        OptionError: for a sigma that the process does not have.
    """
    domain, values = _domain(process), _numbers("sigmas", sigmas)
    low, high = (float(process.rho(t)) if math.isfinite(t) else math.inf for t in domain)
    expected = f"sigma / alpha between {low:g} and {high:g} for {process!r}"
    good = (values >= low * (1 - _SLACK)) & (values <= high * (1 + _SLACK))
    # Only a process that ends has a time without data.
    _require("sigmas", values, good if math.isfinite(domain[1]) else good & torch.isfinite(values), expected)
    ends = [process.half_log_snr(t) if math.isfinite(t) else torch.tensor(-math.inf) for t in domain]
    levels = torch.minimum(torch.maximum(-torch.log(values), ends[1].to(values)), ends[0].to(values))
    times = process.time_at(levels)
    for i, level in enumerate(ends):  # exactly, not to rounding
        times = torch.where(levels == level.to(values), domain[i], times)
    return times


def to_sigmas(process: AffineSDE, times: Numbers) -> Tensor:
    """sigma / alpha at these times: 0 where sigma = 0, inf where alpha = 0.

    Args:
        process: an affine process.
        times: numbers in its domain, of any shape.

    Returns:
        float64, of the shape of times.

    Raises:
        InterfaceError: for something that is not numbers.
        OptionError: for a time outside the domain.
    """
    values = _numbers("times", times)
    return process.rho(_inside(process, values))


def from_timesteps(
    process: AffineSDE, timesteps: Numbers, *, count: int | None = None, first: int | None = None
) -> Tensor:
    """Our times of the timesteps that a network counts: the k-th of N training times lies k / N of the way to noise.

    Args:
        process: an affine process.
        timesteps: numbers from first - 1, which is data, to first + N - 1; whole or not, of any shape.
        count: N; default the number of betas of a `DiscreteVP`, else 1000.
        first: how the network counts the training time that is nearest to the data: 0 as in DDPM, the default, or 1 as
            diffusers does for flow matching, the default for a `RectifiedFlow`.

    Returns:
        float64, of the shape of timesteps; on a `DiscreteVP` timestep + 1.

    Raises:
        InterfaceError: for something that is not numbers.
        OptionError: for a timestep outside the range.
    """
    low, high, n, start = _training(process, count, first)
    values = _numbers("timesteps", timesteps)
    rank = values + (1 - start)
    _require("timesteps", values, (rank >= 0) & (rank <= n), f"timesteps from {start - 1} to {start + n - 1}")
    return low + (high - low) * rank / n


def to_timesteps(process: AffineSDE, times: Numbers, *, count: int | None = None, first: int | None = None) -> Tensor:
    """The inverse of `from_timesteps`, not rounded; what a `time_map` of a network that counts timesteps returns.

    Args:
        process, count, first: as for `from_timesteps`.
        times: numbers in the domain, of any shape.

    Raises:
        InterfaceError: for something that is not numbers.
        OptionError: for a time outside the domain.
    """
    low, high, n, start = _training(process, count, first)
    values = _inside(process, _numbers("times", times))
    return (values - low) * n / (high - low) - (1 - start)


def training_count(process: AffineSDE, count: int | None, *, argument: str = "count") -> int:
    """How many training times there are. Raises InterfaceError or OptionError for no whole number above 0."""
    own = round(process.t_max) if isinstance(process, DiscreteVP) else None
    if count is None:
        return own or _TRAINING_TIMES
    if check_count(argument, count) != (own or count):
        raise OptionError(argument, got=repr(count), expected=f"{own}, the number of betas", fix="Leave it out.")
    return count


def _training(process: AffineSDE, count: int | None, first: int | None) -> tuple[float, float, int, int]:
    """The times of data and of the noisiest training time, how many there are, and the number of the first."""
    low, high = _domain(process)
    own = 1 if isinstance(process, RectifiedFlow) else 0
    start = own if first is None else check_count("first", first, least=0)
    return low, high if math.isfinite(high) else process.t_max, training_count(process, count), start


def _domain(process: Any) -> tuple[float, float]:
    if not isinstance(process, AffineSDE):
        raise InterfaceError(
            "process", got=type(process).__name__, expected="an affine process such as sdekit.VP()", fix="Pass one."
        )
    return process.domain


def _numbers(argument: str, values: Any) -> Tensor:
    try:
        found = as_float64(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterfaceError(
            argument, got=repr(values), expected="numbers", fix="Pass a tensor or a list of floats."
        ) from error
    if isinstance(values, Tensor) and (values.is_complex() or values.dtype == torch.bool):
        raise InterfaceError(argument, got=f"dtype {values.dtype}", expected="numbers", fix="Convert them.")
    return found


def _inside(process: AffineSDE, times: Tensor) -> Tensor:
    low, high = _domain(process)
    _require("times", times, (times >= low) & (times <= high), f"times in [{low:g}, {high:g}] for {process!r}")
    return times


def _require(argument: str, values: Tensor, good: Tensor, expected: str) -> None:
    if not bool(good.all()):
        i = int(torch.argmin(good.flatten().to(torch.uint8)))
        got = f"{float(values.flatten()[i]):.9g}" + (f" at index {i}" if values.ndim else "")
        raise OptionError(argument, got=got, expected=expected, fix="Choose values inside, or another process.")
