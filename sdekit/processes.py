"""The processes that the field names: VP in its four forms, VE, EDM, rectified flow, Ornstein-Uhlenbeck, heat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError
from sdekit.schedules import (
    CosineSchedule,
    DiscreteVPSchedule,
    EDMSchedule,
    HeatSchedule,
    OUSchedule,
    RFSchedule,
    Schedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)
from sdekit.times import times_as_floats

__all__ = ["EDM", "VE", "VP", "DiscreteVP", "Heat", "OrnsteinUhlenbeck", "RectifiedFlow", "SubVP", "VPCosine"]

_SHOWN = 8  # betas that are shown one by one


class _Text(str):
    """Text that stands in a repr as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Named(AffineSDE):
    """An affine process that prints as the call that makes it."""

    def __init__(
        self, schedule: Schedule, t_min: float, t_max: float, t_end: float, default_grid: str, **shown: Any
    ) -> None:
        super().__init__(schedule=schedule, t_min=t_min, t_max=t_max, domain=(0.0, t_end), default_grid=default_grid)
        object.__setattr__(self, "_shown", shown)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.__dict__["_shown"].items())
        return f"{type(self).__name__}({arguments})"


class VP(_Named):
    """Variance preserving: dx = -beta/2 x dt + sqrt(beta) dW, beta(t) linear from beta_min to beta_max on [0, 1].

    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, ICLR 2021, eq. 11.
    The limit of DDPM's linear schedule. Sampling runs from t = 1 to t = 0.001 by default.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__(
            VPSchedule(beta_min, beta_max), 1e-3, 1.0, 1.0, "half_log_snr", beta_min=beta_min, beta_max=beta_max
        )


class VPCosine(_Named):
    """Variance preserving with alpha = cos(theta) / cos(theta_0), theta = (pi / 2) (t + s) / (1 + s), on [0, 1].

    The cosine schedule of Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, ICML 2021, in
    continuous time; s = 0 is alpha = cos(pi t / 2), sigma = sin(pi t / 2). At t = 1 there is no data left: sampling
    runs from t = 0.9946 to t = 0.001 by default.
    """

    def __init__(self, s: float = 0.008) -> None:
        super().__init__(CosineSchedule(s), 1e-3, 0.9946, 1.0, "half_log_snr", s=s)


class SubVP(_Named):
    """dx = -beta/2 x dt + sqrt(beta (1 - e^{-2 B})) dW: the alpha of `VP` with sigma = 1 - alpha^2, on [0, 1].

    Song et al., ICLR 2021. Sampling runs from t = 1 to t = 0.001 by default.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__(
            SubVPSchedule(beta_min, beta_max), 1e-3, 1.0, 1.0, "half_log_snr", beta_min=beta_min, beta_max=beta_max
        )


class DiscreteVP(_Named):
    """The chain that a DDPM was trained on, with its betas, filled in between its steps: log alpha is linear there.

    Times are those of Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020: x is data at t = 0, and at
    t = n after n steps, alpha(n)^2 = (1 - beta_1) ... (1 - beta_n); every t in [0, N] is a time. Networks count from 0,
    so that the timestep n of a network is our t = n + 1: give its model `time_map=process.timestep`. Sampling runs from
    t = N to t = 1 by default.

    f and g jump at whole times. Solvers that work in half-log-SNR do not see it; Runge-Kutta methods in t lose their
    order unless the grid consists of whole times.

    Args:
        betas: two or more numbers, each above 0 and below 1, the first for the step out of the data.
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        values = tuple(times_as_floats(betas, "betas"))
        if len(values) < 2:
            raise OptionError("betas", got=f"{len(values)} of them", expected="two or more", fix="Give one a step.")
        few = len(values) <= _SHOWN
        shown = values if few else _Text(f"<{len(values)} numbers from {min(values):.6g} to {max(values):.6g}>")
        count = float(len(values))
        super().__init__(DiscreteVPSchedule(values), 1.0, count, count, "half_log_snr", betas=shown)

    @staticmethod
    def timestep(t: Tensor) -> Tensor:
        """The timestep t - 1 of a network that counts the steps from 0."""
        return t - 1


class VE(_Named):
    """Variance exploding: dx = g dW with sigma(t) = sigma_min (sigma_max / sigma_min)^t on [0, 1].

    Song et al., ICLR 2021, eq. 9. sigma(0) = sigma_min is not 0: x at t = 0 is not yet data.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        super().__init__(
            VESchedule(sigma_min, sigma_max), 0.0, 1.0, 1.0, "karras", sigma_min=sigma_min, sigma_max=sigma_max
        )


class EDM(_Named):
    """sigma(t) = t, alpha = 1: dx = sqrt(2 t) dW. Sampling runs from t = 80 to t = 0.002 by default.

    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022, Table 1.
    """

    def __init__(self) -> None:
        super().__init__(EDMSchedule(), 0.002, 80.0, math.inf, "karras")


class RectifiedFlow(_Named):
    """alpha = 1 - t, sigma = t: straight lines from data (t = 0) to noise (t = 1), both ends included.

    Liu et al., Flow Straight and Fast, ICLR 2023; the optimal-transport path of Lipman et al., Flow Matching for
    Generative Modeling, ICLR 2023, with time reversed so that data is at t = 0.
    """

    def __init__(self) -> None:
        super().__init__(RFSchedule(), 0.0, 1.0, 1.0, "uniform")


class OrnsteinUhlenbeck(_Named):
    """dx = -theta x dt + sigma dW. Sampling runs from t = 4 / theta to t = 0.001 / theta by default."""

    def __init__(self, theta: float = 1.0, sigma: float = math.sqrt(2.0)) -> None:
        schedule = OUSchedule(theta, sigma)
        super().__init__(schedule, 1e-3 / theta, 4.0 / theta, math.inf, "half_log_snr", theta=theta, sigma=sigma)


class Heat(_Named):
    """dx = sigma dW: Brownian motion from the data, sigma(t) = sigma sqrt(t).

    Sampling runs by default between the times at which sigma(t) is 80 and 0.002, as for `EDM`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        schedule = HeatSchedule(sigma)
        super().__init__(schedule, (0.002 / sigma) ** 2, (80.0 / sigma) ** 2, math.inf, "karras", sigma=sigma)
