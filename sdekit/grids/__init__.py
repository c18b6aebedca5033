"""Time grids: steps + 1 times from noise to data, by name; and conversions from other libraries' noise levels.

Every grid is called as grid(process, steps, *, t_start=None, t_end=None, append_zero=False, ...) and returns a float64
tensor (steps + 1,), strictly decreasing:

    process       an affine process
    steps         the number of intervals
    t_start       the noisy end, exactly the first time; default the process's t_max
    t_end         the clean end, exactly the last time; default the process's t_min
    append_zero   make the last time the one at which sigma = 0; t_end is then the last but one, or, for the grids that
                  are published that way (sgm_uniform, simple, trailing, ddim_uniform, beta), gives way to it

and raises an InterfaceError for an argument of the wrong kind, an UnknownNameError for an option that it does not have,
and an OptionError for ends outside the domain or out of order, fewer than one step, ends at which it would be infinite,
and steps closer than rounding.
"""

from __future__ import annotations

from sdekit.grids.base import available, get, register
from sdekit.grids.convert import from_sigmas, from_timesteps, to_sigmas, to_timesteps
from sdekit.grids.spaced import (
    cosine,
    exponential,
    flow_shift,
    half_log_snr,
    karras,
    linear_quadratic,
    quadratic,
    uniform,
    vp,
)
from sdekit.grids.trained import align_your_steps, beta, beta_sigma, ddim_uniform, sgm_uniform, simple, trailing

__all__ = [
    "align_your_steps",
    "available",
    "beta",
    "beta_sigma",
    "cosine",
    "ddim_uniform",
    "exponential",
    "flow_shift",
    "from_sigmas",
    "from_timesteps",
    "get",
    "half_log_snr",
    "karras",
    "linear_quadratic",
    "quadratic",
    "register",
    "sgm_uniform",
    "simple",
    "to_sigmas",
    "to_timesteps",
    "trailing",
    "uniform",
    "vp",
]
