"""What a metric of samples says: a value with an interval, held against the noise floor of exact sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, cast

import numpy as np
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, UnknownNameError, suggest
from sdekit.math.philox import check_seed
from sdekit.metrics.pairs import energy_estimate, mmd2_estimate
from sdekit.metrics.samples import Estimated
from sdekit.metrics.transport import exact_w2_estimate, sliced_w2_estimate
from sdekit.times import check_count

__all__ = ["METRICS", "Measured", "NoiseFloor", "compare", "noise_floor"]

Metric = Callable[[Tensor, Tensor], Estimated]
Sampler = Callable[[int, int], Tensor]

METRICS: dict[str, Callable[..., Estimated]] = {
    "energy": energy_estimate,
    "exact_w2": exact_w2_estimate,
    "mmd2": mmd2_estimate,
    "sliced_w2": sliced_w2_estimate,
}
"""The metrics by name: `energy_distance`, `exact_w2`, `mmd2` and `sliced_w2`, each with its standard error."""


@dataclass(frozen=True)
class NoiseFloor:
    """A metric between pairs of independent exact samples.

    Attributes:
        metric: its name.
        n: the number of points in each sample.
        values: one per pair, rising.
    """

    metric: str
    n: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the pairs: what a perfect sampler is measured at. 0 on average for unbiased metrics."""
        return math.fsum(self.values) / len(self.values)

    def level(self, confidence: float = 0.95) -> float:
        """What a perfect sampler stays below with this probability, as far as so many pairs can tell.

        The smallest of the values whose rank r is at least confidence (pairs + 1), the bound of one further draw; the
        largest one where there are too few.
        """
        rank = math.ceil(_share("confidence", confidence) * (len(self.values) + 1))
        return self.values[min(rank, len(self.values)) - 1]


@dataclass(frozen=True)
class Measured:
    """A value of a metric between a sampler's output and exact samples.

    Attributes:
        metric, n: what was measured, on how many points.
        value: of the two samples at hand.
        low, high: an interval for the value that infinitely many samples would give.
        floor: what exact samples in place of the sampler's stay below, at the same confidence; None if not measured.
        above_floor: whether the value is above it; None where there is no floor.
    """

    metric: str
    n: int
    value: float
    low: float
    high: float
    confidence: float = 0.95
    floor: float | None = None
    above_floor: bool | None = None

    def __str__(self) -> str:
        numbers = (
            f"{self.metric} {self.value:.3g}, {100 * self.confidence:.0f} % interval [{self.low:.3g}, {self.high:.3g}]"
        )
        if self.floor is None:
            return f"{numbers}, n = {self.n}: no noise floor was measured, so that nothing follows"
        if not self.above_floor:
            return f"{numbers}, floor {self.floor:.3g}: not told apart from exact samples with n = {self.n}"
        return f"{numbers}, floor {self.floor:.3g}: above what exact samples show with n = {self.n}"


def noise_floor(
    metric: str | Callable[..., Any], sampler: Any, n: int, repeats: int = 39, seed: int = 0, **options: Any
) -> NoiseFloor:
    """The distribution of a metric between two independent exact samples: what noise alone shows.

    Args:
        metric: a name of `METRICS`, or a function (x, y) -> value.
        sampler: a target, or a function (n, seed) -> (n, *shape) of exact samples, independent for different seeds.
        n: points in each sample; take as many as are compared.
        repeats: pairs. 39 or more settle a level of 95 %, 199 one of 99 %.
        seed: the pairs depend on it alone.
        **options: of the metric, as for `compare`.

    Raises:
        UnknownNameError: for a metric of another name.
        InterfaceError, OptionError: for a sampler that is none, or fewer than one pair.
    """
    name, measure = _metric(metric, options)
    draw = _sampler(sampler)
    check_count("n", n)
    state = np.random.SeedSequence(check_seed(seed)).generate_state(2 * check_count("repeats", repeats), np.uint64)
    seeds = (state >> np.uint64(1)).tolist()
    values = [measure(draw(n, seeds[2 * i]), draw(n, seeds[2 * i + 1])).value for i in range(repeats)]
    return NoiseFloor(name, n, tuple(sorted(values)))


def compare(
    metric: str | Callable[..., Any],
    x: Tensor,
    y: Tensor,
    floor: NoiseFloor | None = None,
    confidence: float = 0.95,
    **options: Any,
) -> Measured:
    """A metric between a sampler's output x and exact samples y, with an interval and the verdict of its noise floor.

    The interval is the value and its standard error times the normal quantile. Distances that are biased upwards, the
    sliced and the exact W2, have it on their squares, and its lower end less the mean square of the floor: so it covers
    the distance of the laws also where that is not far above the floor.

    Args:
        metric: a name of `METRICS`; or a function (x, y) -> value, for which the interval is the value alone.
        x, y: (n, *shape) and (m, *shape).
        floor: from `noise_floor` with the same metric, options and n.
        confidence: of the interval and of the floor.
        **options: bandwidths= of "mmd2", projections= and seed= of "sliced_w2", anyway= of "exact_w2".

    Raises:
        UnknownNameError: for a metric of another name.
        OptionError: for a floor of another metric or of another n; otherwise as the metric.
    """
    name, measure = _metric(metric, options)
    if floor is not None and (floor.metric, floor.n) != (name, len(x)):
        raise OptionError(
            "floor",
            got=f"that of {floor.metric!r} with n = {floor.n}",
            expected=f"{name!r} with n = {len(x)}",
            fix="Measure the noise floor of this metric with as many points.",
        )
    value, error = measure(x, y)
    half = NormalDist().inv_cdf(0.5 + 0.5 * _share("confidence", confidence)) * error
    if name in ("sliced_w2", "exact_w2"):
        bias = 0.0 if floor is None else math.fsum(v * v for v in floor.values) / len(floor.values)
        low, high = (math.sqrt(max(value**2 + d, 0.0)) for d in (-2 * value * half - bias, 2 * value * half))
    else:
        low, high = value - half, value + half
    level = None if floor is None else floor.level(confidence)
    return Measured(name, len(x), value, low, high, confidence, level, None if level is None else value > level)


def _metric(metric: Any, options: dict[str, Any]) -> tuple[str, Metric]:
    if callable(metric):
        plain = partial(metric, **options)
        return getattr(metric, "__name__", "metric"), lambda x, y: _as_estimate(plain(x, y))
    if metric not in METRICS:
        raise UnknownNameError(
            "metric", got=repr(metric), expected="a metric of samples", fix=suggest(str(metric), METRICS)
        )
    return metric, partial(METRICS[metric], **options)


def _as_estimate(value: Any) -> Estimated:
    return value if isinstance(value, Estimated) else Estimated(float(value), 0.0)


def _sampler(sampler: Any) -> Sampler:
    draw: Any = getattr(sampler, "sample", sampler)
    if not callable(draw):
        raise InterfaceError(
            "sampler",
            got=type(sampler).__name__,
            expected="a target, or a function (n, seed) -> samples",
            fix="Pass sdekit.targets.ring(), or lambda n, seed: ...",
        )
    return cast(Sampler, draw)


def _share(argument: str, value: float) -> float:
    if not 0 < value < 1:
        raise OptionError(argument, got=repr(value), expected="a number between 0 and 1", fix="Pass 0.95.")
    return value
