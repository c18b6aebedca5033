"""Samples of a model: the prior, the grid, and a solve in chunks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit import grids
from sdekit.errors import InterfaceError, OptionError, ShapeError, UnknownNameError, suggest
from sdekit.math.philox import PRIOR_STREAM, check_sample_ids, normals
from sdekit.model import Model
from sdekit.noise import PlainNoise
from sdekit.problem import prepare
from sdekit.seeds import resolve_seed
from sdekit.shapes import check_dtype, check_state, compute_dtype, finite_number
from sdekit.solve import solve
from sdekit.solvers.base import Solver
from sdekit.solvers.options import check_flag
from sdekit.times import check_count, check_times

__all__ = ["sample"]

_STEPS = 20


def sample(
    model: Model,
    shape: Sequence[int],
    solver: str | Solver = "dpmpp_2m",
    steps: int | None = None,
    *,
    grid: str | Callable[..., Tensor] | Sequence[float] | Tensor | None = None,
    seed: int | torch.Generator | None = None,
    sample_ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
    x_start: Tensor | None = None,
    t_start: float | None = None,
    conditioning: Mapping[str, Any] | None = None,
    grad: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Tensor:
    """Draw samples: solve the model's process from noise to data.

    Sample i depends on (seed, sample_ids[i]) and on the model alone: not on the batch around it, as far as the model is
    row-wise. With `batch_size` every chunk is padded to that size, so that models with matrix products agree as well.

    Args:
        model: the model.
        shape: (B, *shape) of the result.
        solver: a name or a solver object.
        steps: the number of steps, 20 unless given; with tolerances it does not count. Where `grid` gives the times
            themselves it is theirs, and may be left out.
        grid: a grid's name, a function (process, steps) -> times, or the times; None takes the process's default grid.
            With tolerances only the ends of a grid by name count.
        seed: an int, a torch.Generator, or None, which draws one integer from torch's generator.
        sample_ids: B integers; default 0..B-1.
        batch_size: solve in chunks of this size.
        x_start, t_start: begin at this state (B, *shape) and time instead of the prior; both or neither.
        conditioning: keyword arguments of the network; tensors whose first axis is B are cut into chunks with the
            samples.
        grad: record gradients; by default none are.
        device, dtype: of the result; default x_start's, else torch's defaults.
        **options: further options of `sdekit.solve`, such as noise=, checks=, progress=.

    Returns:
        The samples (B, *shape).

    Raises:
        SdekitError: before the first model call, as `solve`.
    """
    if not isinstance(model, Model):
        raise InterfaceError(
            "model",
            got=type(model).__name__,
            expected="a sdekit.Model",
            fix="Wrap the network: sdekit.Model(net, process).",
        )
    _check_options(options)
    check_flag("grad", grad)
    if grad and torch.is_inference_mode_enabled():
        raise OptionError(
            "grad", got="True in torch.inference_mode()", expected="a mode that records", fix="Leave that mode first."
        )
    sizes = _check_shape(shape, x_start, t_start)
    times = _times(model, grid, steps, t_start)
    if any(options.get(name) is not None for name in ("rtol", "atol")) and not _is_times(grid):
        times = [times[0], times[-1]]
    limits = {name: options[name] for name in ("rtol", "atol", "max_nfe") if name in options}
    problem = prepare(model, times, solver, **limits)
    method = solver if problem.plan is None else problem.plan  # planned once for all chunks
    if x_start is not None:
        device, dtype = x_start.device if device is None else device, dtype or x_start.dtype
    ids = _check_ids(sample_ids, sizes[0], _check_device(device))
    chunk = sizes[0] if batch_size is None else check_count("batch_size", batch_size)
    dtype = torch.get_default_dtype() if dtype is None else check_dtype(dtype)
    if conditioning is not None and not isinstance(conditioning, Mapping):
        raise InterfaceError(
            "conditioning",
            got=type(conditioning).__name__,
            expected="a mapping from names to values",
            fix="Pass a dict.",
        )
    draws = x_start is None or (problem.stochastic and isinstance(options.get("noise", "step"), str))
    # Nothing is drawn from torch's generator where nothing is random, or before everything is checked.
    key = resolve_seed(seed) if draws or not (seed is None or isinstance(seed, torch.Generator)) else 0
    if options.get("noise") == "plain":
        # One source for all chunks: a new one for each would give every chunk the same noise.
        options = {**options, "noise": PlainNoise(key)}
    noise = options.get("noise", "step")
    keyed = sample_ids is not None or (isinstance(noise, str) and noise in ("step", "path"))
    std = float(model.process.sigma(times[0]))
    pieces = []
    with torch.set_grad_enabled(grad):
        for part, real in _chunks(sizes[0], chunk, batch_size is not None):
            rows = part.to(ids.device)
            x = _prior(key, ids[rows], sizes[1:], std, dtype) if x_start is None else x_start[rows].to(device, dtype)
            # Bound, not passed on: a network may call its condition "noise" or "steps", which solve reads itself.
            bound = model.bind(**{k: _rows(v, rows, sizes[0]) for k, v in (conditioning or {}).items()})
            out = solve(bound, x, times, method, seed=key, sample_ids=ids[rows] if keyed else None, **options)
            pieces.append(out.x[:real])
        return torch.cat(pieces) if pieces else torch.zeros(sizes, dtype=dtype, device=device)


def _check_options(options: Mapping[str, Any]) -> None:
    """Those of `solve` that `sample` does not settle itself."""
    own = [p for p in inspect.signature(sample).parameters if p != "options"]
    passed = [p.name for p in inspect.signature(solve).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p for p in passed if p not in (*own, "save")]
    for name in options:
        if name not in known:
            returns = "Call sdekit.solve for other states: sample returns the last ones only."
            fix = returns if name == "save" else suggest(name, [*own, *known])
            raise UnknownNameError(name, got="an argument that sample does not take", expected="a known one", fix=fix)


def _check_device(device: Any) -> torch.device | None:
    try:
        target = None if device is None else torch.device(device)
        torch.zeros(0, device=target)
        return target
    # Each kind of device that is not there has its own error: CUDA a failed assertion.
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise OptionError(
            "device",
            got=f"{device!r} ({error})".replace("\n", " "),
            expected="a device of torch that is there",
            fix="Pass 'cpu', or leave it out.",
        ) from error


def _check_shape(shape: Any, x_start: Any, t_start: float | None) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
        raise ShapeError("shape", got=repr(shape), expected="(B, *shape) of whole numbers >= 0", fix="Pass a tuple.")
    if not shape:
        raise ShapeError("shape", got="()", expected="(B, *shape)", fix="Begin with the number of samples.")
    if (x_start is None) != (t_start is None):
        raise OptionError(
            "x_start, t_start",
            got="one of them",
            expected="both or neither",
            fix="Say at which time x_start is a state.",
        )
    if x_start is not None and tuple(check_state(x_start, "x_start").shape) != tuple(shape):
        raise ShapeError("x_start", got=f"shape {tuple(x_start.shape)}", expected=f"{tuple(shape)}", fix="Match shape.")
    return tuple(shape)


def _times(model: Model, grid: Any, steps: int | None, t_start: float | None) -> list[float]:
    process = model.process
    count = _STEPS if steps is None else check_count("steps", steps)
    if t_start is not None:
        finite_number("t_start", t_start)
    if not _is_times(grid):
        make = grid if callable(grid) else grids.get(grid or process.default_grid)
        ends = {} if t_start is None else {"t_start": t_start}
        times = make(process, count, **ends)
    else:
        times = grid
    times = check_times(times, argument="grid", domain=process.domain, direction="down")
    if t_start is not None and times[0] != t_start:
        raise OptionError(
            "t_start", got=repr(t_start), expected=f"the grid's first time, {times[0]!r}", fix="Match them."
        )
    if steps is not None and _is_times(grid) and count != len(times) - 1:
        raise OptionError(
            "steps",
            got=f"{steps!r} beside a grid of {len(times)} times",
            expected=f"{len(times) - 1}, or none: times are a grid",
            fix="Leave steps out, or name a grid.",
        )
    return times


def _is_times(grid: Any) -> bool:
    """Whether a grid is given by its times."""
    return not (grid is None or isinstance(grid, str) or callable(grid))


def _check_ids(sample_ids: Any, batch: int, device: Any) -> Tensor:
    if sample_ids is None:
        return torch.arange(batch, dtype=torch.int64, device=device)
    try:
        ids = torch.as_tensor(sample_ids, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterfaceError(
            "sample_ids", got=repr(sample_ids), expected=f"{batch} integers", fix="Pass a list or tensor of ints."
        ) from error
    if ids.shape != (batch,) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ShapeError(
            "sample_ids",
            got=f"{ids.dtype} of shape {tuple(ids.shape)}",
            expected=f"({batch},) integers",
            fix="Match B.",
        )
    return check_sample_ids(ids)


def _chunks(batch: int, size: int, pad: bool) -> Iterator[tuple[Tensor, int]]:
    """Row indices of each chunk, padded with its last row to `size`, and how many of them are real."""
    for start in range(0, batch, max(size, 1)):
        rows = torch.arange(start, min(start + size, batch))
        real = len(rows)
        if pad and real < size:
            rows = torch.cat([rows, rows[-1:].expand(size - real)])
        yield rows, real


def _prior(key: int, ids: Tensor, shape: tuple[int, ...], std: float, dtype: torch.dtype) -> Tensor:
    size = int(torch.tensor(shape).prod()) if shape else 1
    z = normals(key, ids, 0, size, stream=PRIOR_STREAM, dtype=compute_dtype(dtype), device=ids.device)
    return (z.reshape(len(ids), *shape) * std).to(dtype)


def _rows(value: Any, rows: Tensor, batch: int) -> Any:
    """The chunk's part of a conditioning tensor; whatever does not have one row per sample is passed whole."""
    per_sample = isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
    return value[rows.to(value.device)] if per_sample else value
