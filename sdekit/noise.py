"""Where a solver's random numbers come from: keyed streams, torch's generators, or the user's own object."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.brownian import BrownianPath, check_moments
from sdekit.errors import InterfaceError, OptionError, ShapeError, UnknownNameError, suggest
from sdekit.math.philox import PRIOR_STREAM, check_sample_ids, check_seed, fill_normals
from sdekit.seeds import resolve_seed

__all__ = ["OWN", "CustomNoise", "NoiseSource", "PathNoise", "PlainNoise", "StepNoise", "make_noise", "resolve_seed"]

NAMES = ("path", "plain", "step")
"""What `make_noise` knows by name."""
_AHEAD, _POINTS = 2**20, 64  # the numbers kept of grid points that are drawn at once, and how many these are at most


class NoiseSource(ABC):
    """Independent standard normals for the steps of one solve."""

    @abstractmethod
    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        """Overwrite `out` (B, *shape) with independent standard normals of its dtype, on its device, and return it.

        Args:
            out: a tensor of a floating dtype, of any strides.
            step: the index of the step, from 0.
            stream: which of the step's noises, from 0, where a step takes several.
        """


class StepNoise(NoiseSource):
    """Normals keyed by (seed, sample id, step, stream), from Philox: see `sdekit.math.philox`.

    A sample's noise does not depend on the other samples of its batch, their number or order, the device, or calls
    before. On a grid of other steps it is other noise, not the same Brownian path.

    Args:
        seed: an integer in [0, 2^64).
        sample_ids: (B,) integers in [0, 2^63). Two rows of one id get the same noise.

    Raises:
        OptionError, InterfaceError, ShapeError: an argument out of range or of the wrong kind.
    """

    def __init__(self, seed: int, sample_ids: Tensor) -> None:
        self.seed = check_seed(seed)
        self.sample_ids = check_sample_ids(sample_ids)

    def __repr__(self) -> str:
        return f"StepNoise(seed={self.seed}, {len(self.sample_ids)} sample ids)"

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        """As `NoiseSource.fill`, for step < 2^24 and stream < PRIOR_STREAM (OptionError otherwise)."""
        _check_out(out)
        _check_rows(out, len(self.sample_ids))
        if stream >= PRIOR_STREAM:
            raise OptionError(
                "stream", got=str(stream), expected=f"below {PRIOR_STREAM}", fix="The others are kept for other draws."
            )
        if self.sample_ids.device != out.device:
            self.sample_ids = self.sample_ids.to(out.device)
        rows = (len(out), math.prod(out.shape[1:]))
        if out.is_contiguous():
            fill_normals(out.view(rows), self.seed, self.sample_ids, step, stream=stream)
            return out
        flat = torch.zeros(rows, dtype=out.dtype, device=out.device)
        return out.copy_(fill_normals(flat, self.seed, self.sample_ids, step, stream=stream).view(out.shape))


class PathNoise(NoiseSource):
    """Increments of one Brownian path per (seed, sample id), the same for every grid; see `sdekit.brownian`.

    Stream 0 of a step from clock value s to t is (B(t) - B(s)) / sqrt(h), h = |t - s|; stream 1 is sqrt(12 / h) H with
    H the step's space-time Levy area, and stream 2, for three moments, sqrt(720 / h) K with K the space-time-time one:
    independent standard normals. The steps of any grid in the same clock are increments of the same B: those of a
    coarse grid are sums of those of a fine one. Streams from 3 on are no part of the path, but normals of the step as
    `StepNoise` gives them.

    Args:
        seed: an integer in [0, 2^64).
        sample_ids: (B,) integers in [0, 2^63). Two rows of one id get the same path.
        clock: the time of the path at each grid point.
        moments: 2 for streams 0 and 1, 3 for stream 2 too, of another path.
        streams: how many of them steps will be asked for, where that is known: W alone is cheaper. Bits are the same.

    Raises:
        OptionError, InterfaceError, ShapeError: an argument out of range or of the wrong kind.
    """

    def __init__(
        self, seed: int, sample_ids: Tensor, clock: Sequence[float], moments: int = 2, streams: int | None = None
    ) -> None:
        self.seed, self.sample_ids = check_seed(seed), check_sample_ids(sample_ids)
        self.clock, self.moments = tuple(clock), check_moments(moments)
        self._path: BrownianPath | None = None
        self._others: StepNoise | None = None
        self._drawn: dict[int, tuple[Tensor, ...]] = {}  # by step
        self._last, self._known = -1, 0  # the step asked for last; the grid points up to this one have been drawn for
        self._streams = self.moments if streams is None else min(streams, self.moments)  # as many as a step is drawn

    def __repr__(self) -> str:
        return f"PathNoise(seed={self.seed}, {len(self.sample_ids)} sample ids, {len(self.clock)} clock values)"

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        """As `NoiseSource.fill`, for the clock's steps and any stream but 2 of two moments (OptionError otherwise)."""
        _check_out(out)
        _check_rows(out, len(self.sample_ids))
        if not 0 <= step < len(self.clock) - 1 or stream < 0 or self.moments <= stream < 3:
            known = ("0 (W)", "1 (H)", "2 (K)")[: self.moments]
            raise OptionError(
                "step, stream",
                got=f"step {step}, stream {stream}",
                expected=f"a step below {len(self.clock) - 1} and stream {', '.join(known)} or 3 and up",
                fix="Use noise='step' for other noise, or PathNoise(..., moments=3) for K.",
            )
        if stream >= 3:
            self._others = self._others or StepNoise(self.seed, self.sample_ids)
            return self._others.fill(out, step, stream)
        size = math.prod(out.shape[1:])
        if self._path is None or self._path.size != size or self._path.sample_ids.device != out.device:
            self._path = BrownianPath(self.seed, self.sample_ids.to(out.device), size, self.moments)
            self._drawn, self._last, self._known = {}, -1, 0
        if len(self._drawn.get(step, ())) <= stream:
            self._draw(self._path, step, stream)
        self._last = step
        return out.copy_(self._drawn[step][stream].view(out.shape))

    def _draw(self, path: BrownianPath, step: int, stream: int) -> None:
        """On a walk along the grid, several steps at once: they share nodes, and calls."""
        walks = self._last in (step - 1, step)
        if not walks or step >= self._known or stream >= self._streams:
            self._streams = max(self._streams, stream + 1)
            self._drawn, self._known = {}, 0
            if walks:
                kept = self._streams if self.moments == 2 else self.moments
                count = _AHEAD // max(1, kept * len(self.sample_ids) * path.size)
                self._known = min(step + min(max(count, 1), _POINTS), len(self.clock) - 1)
                found = path.walk(self.clock[step : self._known + 1], self._streams)
                self._drawn = {step + k: normals for k, normals in enumerate(found) if normals is not None}
        if step not in self._drawn:
            self._drawn[step] = path.normals(self.clock[step], self.clock[step + 1], self._streams)


class PlainNoise(NoiseSource):
    """Normals from a torch generator, in the order of the calls: the fastest source.

    Each value depends on all calls before and on the batch; step and stream are ignored.

    Args:
        generator: a generator to draw from, or the seed in [0, 2^64) of one to be made on the first tensor's device.

    Raises:
        OptionError, InterfaceError: a seed out of range or of the wrong kind.
    """

    def __init__(self, generator: int | torch.Generator) -> None:
        given = isinstance(generator, torch.Generator)
        self._generator: torch.Generator | None = generator if given else None
        self._seed = 0 if given else check_seed(generator)

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        """As `NoiseSource.fill`. Raises InterfaceError for a tensor on another device than the generator's."""
        _check_out(out)
        if self._generator is None:
            self._generator = torch.Generator(out.device).manual_seed(self._seed)
        if self._generator.device != out.device:
            raise InterfaceError(
                "generator",
                got=f"a generator on {self._generator.device}",
                expected=f"one on {out.device}, where the state is",
                fix=f"Pass torch.Generator({str(out.device)!r}), or an integer seed.",
            )
        return out.normal_(generator=self._generator)


OWN = (StepNoise, PathNoise, PlainNoise)
"""Sources whose numbers are known to be finite."""


class CustomNoise(NoiseSource):
    """A user's function as a source.

    Args:
        function: called as function(out, step, stream). It overwrites out and returns it or None, or returns a tensor
            of out's shape, dtype and device, which is copied.
    """

    def __init__(self, function: Callable[[Tensor, int, int], Any]) -> None:
        self.function = function

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        """As `NoiseSource.fill`. Raises ShapeError or InterfaceError where what the function returns does not fit."""
        out.fill_(math.nan)  # what the function leaves as it is must not pass for noise
        result = self.function(out, step, stream)
        if result is None or result is out:
            return out
        if not isinstance(result, Tensor) or result.dtype != out.dtype or result.device != out.device:
            kind = f"{result.dtype} on {result.device}" if isinstance(result, Tensor) else type(result).__name__
            raise InterfaceError(
                "noise",
                got=kind,
                expected=f"{out.dtype} on {out.device}",
                fix="Overwrite the tensor passed, and return it.",
            )
        if result.shape != out.shape:
            got, expected = f"shape {tuple(result.shape)}", f"shape {tuple(out.shape)}"
            raise ShapeError("noise", got=got, expected=expected, fix="Overwrite the tensor passed, and return it.")
        return out.copy_(result)


def make_noise(
    noise: Any,
    seed: int | torch.Generator | None,
    sample_ids: Tensor | None,
    batch: int,
    device: torch.device | str,
    clock: Sequence[float] = (0.0, 1.0),
    moments: int = 2,
    streams: int | None = None,
) -> NoiseSource:
    """The source that a solve draws from.

    Args:
        noise: "step" (StepNoise), "path" (PathNoise), "plain" (PlainNoise), a NoiseSource, an object with its `fill`
            method, or a function fill(out, step, stream). The last three ignore seed and sample_ids, and draw no seed.
        seed: see `resolve_seed`.
        sample_ids: (batch,) integers, 0 to batch - 1 by default.
        batch: the number of samples.
        device: where the state is.
        clock: for "path", its time at each grid point.
        moments: for "path", 3 if K is used.
        streams: for "path", see `PathNoise`.

    Raises:
        UnknownNameError: a name that is not known.
        InterfaceError, OptionError, ShapeError: an argument of the wrong kind, range or shape.
    """
    if isinstance(noise, str):
        if noise not in NAMES:
            expected = "the name of a noise, an object with a fill method, or a function"
            raise UnknownNameError("noise", got=repr(noise), expected=expected, fix=suggest(noise, NAMES))
        if noise == "plain":
            return PlainNoise(resolve_seed(seed))
        ids = torch.arange(batch, device=device) if sample_ids is None else sample_ids
        key = resolve_seed(seed)
        source = StepNoise(key, ids) if noise == "step" else PathNoise(key, ids, clock, moments, streams)
        if len(source.sample_ids) != batch:
            got = f"{len(source.sample_ids)} ids"
            raise ShapeError("sample_ids", got=got, expected=f"{batch}, one for each sample", fix="Pass as many ids.")
        source.sample_ids = source.sample_ids.to(device)
        return source
    if isinstance(noise, NoiseSource):
        return noise
    function: Any = getattr(noise, "fill", noise)
    if isinstance(noise, (type, Tensor)) or not callable(function):
        raise InterfaceError(
            "noise",
            got=repr(noise) if isinstance(noise, type) else type(noise).__name__,
            expected="a name, an object with a fill method, or a function fill(out, step, stream)",
            fix='Pass "step", for example.',
        )
    return CustomNoise(function)


def _check_rows(out: Tensor, count: int) -> None:
    if out.shape[0] != count:
        raise ShapeError(
            "out",
            got=f"shape {tuple(out.shape)}",
            expected=f"{count} rows, one for each sample id",
            fix="Make the noise for this batch.",
        )


def _check_out(out: Tensor) -> None:
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.dim() == 0:
        got = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise InterfaceError(
            "out",
            got=got,
            expected="a floating tensor of shape (B, *shape)",
            fix="Pass torch.zeros(B, d), for example.",
        )
