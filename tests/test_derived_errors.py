"""What AffineSDE(f, g) refuses, and in which words."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import VP, AffineSDE
from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError

F64 = torch.float64


def test_times_outside_the_range_are_refused() -> None:
    p = AffineSDE(VP().drift_coefficient, VP().diffusion_coefficient, t_min=1e-3, t_max=1.0)
    for t in (-1e-9, 1 + 1e-9, math.nan, torch.tensor([0.5, 2.0])):
        for function in (p.alpha, p.sigma, p.half_log_snr, p.log_sigma, p.alpha_rate):
            with pytest.raises(OptionError, match=r"t: got .*times in \[0(\.0)?, 1(\.0)?\]"):
                function(t)
    with pytest.raises(OptionError, match=r"half_log_snr: got -30; expected at least -5\.02"):
        p.time_at(-30.0)
    with pytest.raises(OptionError, match="half_log_snr"):
        p.time_at(math.nan)
    assert p.time_at(math.inf) == 0


def one(t: Tensor) -> Tensor:
    return torch.ones_like(t)


BAD: dict[str, tuple[type[SdekitError], str, Callable[[], AffineSDE]]] = {}


def bad(name: str, error: type[SdekitError], match: str, f=one, g=one, **options) -> None:
    BAD[name] = (error, match, lambda: AffineSDE(f, g, **({"t_min": 1e-3, "t_max": 1.0} | options)))


bad("no f", InterfaceError, "f, g: got g alone", None)
bad("no g", InterfaceError, "f, g: got f alone", one, None)
bad("nothing", InterfaceError, "f, g: got neither", None, None)
bad("f a number", InterfaceError, "f: got 1.0; expected a function of t", 1.0)
bad("g a tensor", InterfaceError, "g: got tensor.*expected a function of t", one, torch.ones(3))
bad("ends swapped", OptionError, "t_min, t_max: got 1.0, 0.5", t_min=1.0, t_max=0.5)
bad("ends equal", OptionError, "t_min, t_max: got 0.5, 0.5", t_min=0.5, t_max=0.5)
bad("t_data inside", OptionError, "t_data: got 0.5 .*t_data <= t_min", t_data=0.5)
bad("t_data at the noisy end", OptionError, "t_data: got 2.0 .*substitute", t_data=2.0)
bad("t_data no number", InterfaceError, "t_data", t_data="0")
bad("t_max infinite", OptionError, "t_max", t_max=math.inf)
bad("domain too small", OptionError, "t_min, t_max: got", domain=(0.0, 0.5))
bad("domain infinite", OptionError, "domain: got inf", domain=(0.0, math.inf))
bad("f and a schedule", OptionError, "schedule: got together", schedule=VP().schedule)
bad("no schedule", InterfaceError, "schedule: got int", None, None, schedule=3)
bad("g negative", OptionError, r"g\(t\): got -1\.0 at t = .*>= 0", one, lambda t: -one(t))
bad("g negative somewhere", OptionError, r"g\(t\): got -.*>= 0", one, lambda t: torch.cos(6 * t))
bad("g zero", OptionError, "g: got zero.*expected g > 0", one, torch.zeros_like)
bad("g zero at first", OptionError, "g: got zero.*between t = 0", one, lambda t: torch.relu(t - 0.5))
bad("g zero at last", OptionError, "g: got zero.*between t = 0.5", one, lambda t: torch.relu(0.5 - t))
bad("g zero for a while", OptionError, "g: got zero.*between t = 0.40", one,
    lambda t: torch.where((t > 0.4) & (t < 0.42), 0.0, 1.0).double())  # fmt: skip
bad("g too small to count", OptionError, "g: got zero, or too small", one,
    lambda t: torch.where((t > 0.3) & (t < 0.6), 1e-30, 1.0).double())  # fmt: skip
bad("f NaN", OptionError, r"f\(t\): got nan", lambda t: torch.sqrt(t - 0.5))
bad("g infinite at the end", OptionError, r"g\(t\): got inf at t = 1.*smaller t_max", one, lambda t: 1 / (1 - t))
bad("alpha zero at the end", OptionError, r"f\(t\): got -inf at t = 1", lambda t: -1 / (1 - t))
bad("a pole inside", OptionError, r"cannot be integrated near t = 0\.|got inf at t = 0\.5", lambda t: 1 / (t - 0.5))
bad(
    "a pole of g inside",
    OptionError,
    r"cannot be integrated near t = 0\.|got inf at t = 0\.5",
    one,
    lambda t: (t - 0.5).abs() ** -0.5,
)
bad("a pole at the end in all but name", OptionError, "cannot be integrated near t = 1",
    lambda t: torch.tan(0.5 * math.pi * t))  # fmt: skip
bad("f not integrable from t_data", OptionError, r"t_data: got 0, next to which f grows like \(t - t_data\)\^-1",
    lambda t: 1 / t)  # fmt: skip
bad("g not integrable from t_data", OptionError, r"t_data: got 0, next to which g\^2", one, lambda t: t**-0.5)
bad("another function at every call", OptionError, "the same at every call",
    lambda t: 1 + 1e-6 * torch.rand_like(t))  # fmt: skip
bad("computed in float32", OptionError, "Compute them in float64", lambda t: torch.sin(t.float()).double())
bad("alpha too large", OptionError, "within the range of floats", lambda t: 1000 * one(t))
bad("f of float32", InterfaceError, r"f\(t\): got dtype torch.float32", lambda t: t.float())
bad("g an array", InterfaceError, r"g\(t\): got ndarray", one, lambda t: t.numpy())
bad("g a boolean", InterfaceError, r"g\(t\): got bool", one, lambda t: True)
bad("f of another shape", ShapeError, r"f\(t\): got shape \(3,\)", lambda t: torch.ones(3, dtype=F64))
bad("g without a shape", ShapeError, r"g\(t\): got shape \(\)", one, lambda t: torch.tensor(1.0, dtype=F64))
bad("f with a gradient", InterfaceError, "requires grad", lambda t: torch.nn.Parameter(torch.ones(t.shape, dtype=F64)))


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_process_is_refused(name: str) -> None:
    error, match, make = BAD[name]
    with np.errstate(all="raise", under="ignore"), pytest.raises(error, match=match):
        make()
