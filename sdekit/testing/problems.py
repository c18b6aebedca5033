"""Problems on which orders of convergence can be measured: a process, a target with exact answers, a range, starts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from sdekit import grids, targets
from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError, UnknownNameError, suggest
from sdekit.processes import EDM, VE, VP, Heat, OrnsteinUhlenbeck, RectifiedFlow
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order
from sdekit.targets import ExactModel, GaussianMixture
from sdekit.times import check_count

__all__ = [
    "FAMILIES",
    "HIGH",
    "HIGH_STEPS",
    "SEEDED",
    "OrderProblem",
    "gaussian_problem",
    "limited_by_start",
    "order_problems",
    "problem_for",
]

FAMILIES = ("half_log_snr", "karras", "random", "uniform")
"""The families of grids on which a declared order holds. `OrderProblem.grid` knows "irregular" besides."""

SEEDED = ("irregular", "random")
"""Those that are random: `observed_order` combines several seeds of them."""

Family = str | Callable[[AffineSDE, int], Tensor]


@dataclass(frozen=True, eq=False)
class OrderProblem:
    """A process and a target, solved from half-log-SNR `low` down in time to `high`, with sigma > 0 at both ends.

    Args:
        name: for tables.
        process: an affine process.
        target: a mixture whose narrowest standard deviation is wide against e^-high, else step counts below a
            thousand show no order yet.
        low, high: lambda = log(alpha / sigma) at the first and the last time.
        count: how many start points; the error is a root mean square over them, because that of a single point
            crosses zero as the number of steps grows and shows orders that are none.
        seed: of the start points.

    Raises:
        InterfaceError: for a process or a target of another kind.
        OptionError: for low >= high, a range outside the process, or fewer than one start.
    """

    name: str
    process: AffineSDE
    target: GaussianMixture
    low: float = -2.0
    high: float = 2.0
    count: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for argument, value, kind in (("process", self.process, AffineSDE), ("target", self.target, GaussianMixture)):
            if not isinstance(value, kind):
                raise InterfaceError(argument, got=type(value).__name__, expected=kind.__name__, fix="Pass one.")
        if not finite_number("low", self.low) < finite_number("high", self.high):
            raise OptionError("low, high", got=f"{self.low}, {self.high}", expected="low < high", fix="Swap them.")
        check_count("count", self.count)
        for argument, value in (("low", self.low), ("high", self.high)):
            t = float(self.process.time_at(value))
            inside = self.process.domain[0] <= t <= self.process.domain[1]
            if not (inside and math.isclose(float(self.process.half_log_snr(t)), value, abs_tol=1e-6)):
                raise OptionError(
                    argument, got=f"lambda = {value}", expected=f"a value that {self.process!r} takes", fix="Change it."
                )

    @cached_property
    def model(self) -> ExactModel:
        """The target under the process."""
        return self.target.under(self.process)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The first and the last time, t(low) > t(high)."""
        return float(self.process.time_at(self.low)), float(self.process.time_at(self.high))

    def grid(self, family: Family, steps: int, seed: int = 0) -> Tensor:
        """steps + 1 times, float64, decreasing.

        Args:
            family: "uniform" (equal steps in t), "half_log_snr", "karras"; "random", a smooth random map of
                half_log_snr, the same map for every number of steps; "irregular", steps in half_log_snr of independent
                random lengths, the longest at most three times the shortest; the name of any other grid, or a
                function (process, steps, *, t_start, t_end) -> times.
            steps: the number of steps.
            seed: for "random" and "irregular".

        Raises:
            UnknownNameError: for an unknown family, with near names.
            OptionError: for fewer than one step.
        """
        check_count("steps", steps)
        if family in SEEDED:
            lambdas = [self.low + (self.high - self.low) * u for u in places(family, steps, seed)]
            times = self.process.time_at(torch.tensor(lambdas, dtype=torch.float64))
            times[0], times[-1] = self.ends
            return times
        if not callable(family) and family not in grids.available():
            known = {*FAMILIES, *SEEDED, *grids.available()}
            raise UnknownNameError("grid", got=repr(family), expected="a family of grids", fix=suggest(family, known))
        function = family if callable(family) else grids.get(family)
        return function(self.process, steps, t_start=self.ends[0], t_end=self.ends[1])  # type: ignore[call-arg]

    def starts(self) -> Tensor:
        """(count, *shape) float64 draws of the exact marginal at the first time, the same at each call."""
        return self.model.sample(self.ends[0], self.count, self.seed).clone()

    def exact(self) -> Tensor:
        """(count, *shape): where the probability flow carries `starts()`, to about 1e-12 of the state's scale."""
        return self._exact.clone()

    @cached_property
    def _exact(self) -> Tensor:
        return self.model.flow(self.starts(), *self.ends)


def places(family: object, steps: int, seed: int) -> list[float]:
    """steps + 1 numbers from 0 to 1: "random" is one smooth map of equal steps for all numbers of steps, "irregular"
    independent lengths, the longest at most three times the shortest."""
    return (_smooth if family == "random" else _irregular)(steps, seed)


def _smooth(steps: int, seed: int) -> list[float]:
    """u + sum_k c_k sin(pi k u) / (pi k) at equal u: from 0 to 1 with a slope between 0.4 and 1.6."""
    generator = random.Random(seed)
    c = [generator.uniform(-1, 1) for _ in range(4)]
    size = math.fsum(abs(v) for v in c) / 0.6
    waves = [(v / size / (math.pi * k), math.pi * k) for k, v in enumerate(c, 1)]
    inner = [i / steps for i in range(1, steps)]
    return [0.0, *(u + math.fsum(a * math.sin(w * u) for a, w in waves) for u in inner), 1.0]


def _irregular(steps: int, seed: int) -> list[float]:
    generator = random.Random(f"{seed}, {steps}")
    lengths = [generator.uniform(0.5, 1.5) for _ in range(steps)]
    whole = math.fsum(lengths)
    return [0.0, *(math.fsum(lengths[:i]) / whole for i in range(1, steps)), 1.0]


# Ranges on which equal steps in t become small in half-log-SNR at moderate step counts. EDM and OrnsteinUhlenbeck need
# a shorter one for that; Heat, where t is the square of sigma, the shortest.
_RANGES: dict[type[AffineSDE], tuple[float, float]] = {
    EDM: (-1.0, 1.0),
    OrnsteinUhlenbeck: (-1.0, 1.0),
    Heat: (-0.5, 0.5),
}
_RANGE = (-2.0, 2.0)


HIGH, HIGH_STEPS = 5, (32, 48, 64, 96)
"""Orders from this one on, of several calls a step, show on the problem "sharp", with so many steps up to order 6."""


def problem_for(declared: Order, calls: int) -> tuple[OrderProblem, tuple[int, ...] | None]:
    """The standard problem on which a declared deterministic order shows, and step counts; None are the usual ones.

    Args:
        calls: the calls of a step.
    """
    problems = order_problems()
    if limited_by_start(declared.note):
        return problems["start"], None
    if declared.deterministic in (HIGH, HIGH + 1) and calls > 1:
        return problems["sharp"], HIGH_STEPS
    return problems["vp"], None


def limited_by_start(note: str) -> bool:
    """Whether the declaration says that the first steps limit the order."""
    return note.startswith("limited by") and "first" in note


def order_problems() -> dict[str, OrderProblem]:
    """The standard problems for deterministic orders, one on each process, by name; "vp" is the default.

    The target is one mixture in the plane whose narrowest standard deviation is 0.3; "sharp" has one of 0.14. "start"
    is "vp" on half-log-SNR 0 to 1, a short range in the middle: there the first steps of a multistep method, which are
    of lower order, weigh as much as all others, while on a long range they hide where the data prediction hardly moves.
    """
    return dict(_standard())


@cache
def _standard() -> dict[str, OrderProblem]:
    smooth = targets.random_mixture(2, 4, 3, std=(0.3, 0.6))
    processes: dict[str, AffineSDE] = {
        "vp": VP(),
        "ve": VE(),
        "edm": EDM(),
        "rectified_flow": RectifiedFlow(),
        "ornstein_uhlenbeck": OrnsteinUhlenbeck(),
        "heat": Heat(),
    }
    found = {
        name: OrderProblem(name, process, smooth, *_RANGES.get(type(process), _RANGE))
        for name, process in processes.items()
    }
    found["start"] = OrderProblem("start", VP(), smooth, 0.0, 1.0)
    found["sharp"] = OrderProblem("sharp", VP(), targets.random_mixture(2, 4, 3, std=(0.14, 0.5)))
    return found


def gaussian_problem(
    process: AffineSDE | None = None, low: float | None = None, high: float | None = None
) -> OrderProblem:
    """The standard problem for weak orders: one Gaussian, of variances 0.04 to 3 in four directions; VP by default.

    Args:
        low, high: the range of half-log-SNR, by default that of `order_problems` on this kind of process. 0 to 1 brings
            out the first steps, see there.
    """
    process = VP() if process is None else process
    target = targets.gaussian([0.3, -0.8, 0.5, 1.1], [0.04, 0.3, 1.0, 3.0])
    least, most = _RANGES.get(type(process), _RANGE)
    return OrderProblem(
        f"gaussian, {type(process).__name__}",
        process,
        target,
        least if low is None else low,
        most if high is None else high,
    )
