"""Hypothesis strategies for tests of solvers, models and processes. Hypothesis is imported on use."""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdekit import grids as grids_by_name
from sdekit.affine import AffineSDE
from sdekit.errors import SdekitError
from sdekit.processes import EDM, VE, VP, DiscreteVP, Heat, OrnsteinUhlenbeck, RectifiedFlow, SubVP, VPCosine
from sdekit.targets import GaussianMixture, random_mixture

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["affine_processes", "grids", "mixtures", "states"]


def affine_processes() -> SearchStrategy[AffineSDE]:
    """Every named affine process over wide ranges of its parameters, and processes known by f and g alone."""
    st = _strategies()
    floats = st.floats
    return st.one_of(
        st.just(EDM()),
        st.just(RectifiedFlow()),
        st.builds(VP, floats(0.01, 1.0), floats(5.0, 40.0)),
        st.builds(VPCosine, floats(0.0, 0.1)),
        st.builds(_chain, st.integers(2, 1000), floats(5.0, 20.0)),
        st.builds(SubVP, floats(0.01, 1.0), floats(5.0, 40.0)),
        st.builds(VE, floats(0.002, 0.1), floats(5.0, 200.0)),
        st.builds(OrnsteinUhlenbeck, floats(0.1, 5.0), floats(0.2, 5.0)),
        st.builds(Heat, floats(0.1, 10.0)),
        st.builds(_derived, floats(-1.0, 0.5), floats(0.0, 8.0), floats(-2.0, 2.0)),
    )


def _chain(steps: int, total: float) -> DiscreteVP:
    """A chain whose rates rise linearly and add up to `total`."""
    ranks = torch.arange(1, steps + 1, dtype=torch.float64)
    return DiscreteVP(-torch.expm1(-total * ranks / ranks.sum()))


def _derived(drift: float, growth: float, t_data: float) -> AffineSDE:
    """f = drift - x, g = 1 + growth x^2 for 3 units of x = t - t_data."""

    def f(t: Tensor) -> Tensor:
        return drift - (t - t_data)

    def g(t: Tensor) -> Tensor:
        return 1 + growth * (t - t_data) ** 2

    return AffineSDE(f, g, t_min=t_data + 0.001, t_max=t_data + 3, t_data=t_data)


def mixtures(
    dims: tuple[int, int] = (1, 4), components: tuple[int, int] = (1, 5), std: tuple[float, float] = (0.14, 1.0)
) -> SearchStrategy[GaussianMixture]:
    """`sdekit.targets.random_mixture` of every kind of covariance.

    Args:
        dims, components: the least and the largest number.
        std: the range of standard deviations along principal axes; the default keeps flows smooth.
    """
    st = _strategies()
    return st.builds(
        random_mixture,
        st.integers(*dims),
        st.integers(*components),
        st.integers(0, 2**32 - 1),
        covariance=st.sampled_from(["isotropic", "common", "diagonal", "full", "low_rank"]),
        std=st.just(std),
    )


def grids(process: AffineSDE, *, steps: tuple[int, int] = (1, 12), low: float = -3.0) -> SearchStrategy[Tensor]:
    """Decreasing float64 grids of a process, alpha > 0 and sigma > 0 everywhere: of several names, and irregular ones.

    Args:
        steps: the least and the largest number of steps.
        low: the least half-log-SNR at the first time. The range is 1 to 6 long, as far as the process reaches.
    """
    st = _strategies()

    least, most = _bounds(process)

    def make(count: int, start: float, length: float, kind: str, seed: int) -> Tensor:
        length = min(length, most - least)
        first = min(max(start, least), most - length)
        last = first + length
        ends = [float(process.time_at(v)) for v in (first, last)]
        if kind != "irregular":
            return grids_by_name.get(kind)(process, count, t_start=ends[0], t_end=ends[1])
        lengths = 0.3 + torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        places = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumsum(lengths, 0) / lengths.sum()])
        times = process.time_at(first + (last - first) * places)
        times[0], times[-1] = ends
        return times

    return st.builds(
        make,
        st.integers(*steps),
        st.floats(low, 0.0),
        st.floats(1.0, 6.0),
        st.sampled_from(["uniform", "half_log_snr", "karras", "irregular"]),
        st.integers(0, 2**16),
    )


def _bounds(process: AffineSDE) -> tuple[float, float]:
    """The half-log-SNR of a process, less a margin at a finite end."""
    first, last = process.domain
    least = float(process.half_log_snr(last)) + 1e-3 if math.isfinite(last) else -math.inf
    return least, float(process.half_log_snr(first)) - 1e-3


def states(shape: tuple[int, ...], *, batch: tuple[int, int] = (1, 8), scale: float = 1.0) -> SearchStrategy[Tensor]:
    """Float64 states (B, *shape) of normal numbers times `scale`."""
    st = _strategies()

    def make(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(count, *shape, dtype=torch.float64, generator=generator)

    return st.builds(make, st.integers(*batch), st.integers(0, 2**32 - 1))


def _strategies() -> ModuleType:
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise SdekitError(
            "sdekit.testing.strategies",
            got="no hypothesis",
            expected="hypothesis",
            fix="Install it: pip install 'sdekit[test]'.",
        ) from error
    return strategies
