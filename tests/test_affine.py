"""What the functions of time of a process accept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from sdekit import EDM, VP, AffineSDE, DiscreteVP, RectifiedFlow
from sdekit.errors import InterfaceError, OptionError
from sdekit.shapes import as_float64

FUNCTIONS = (
    *("log_alpha", "log_sigma", "alpha", "sigma", "half_log_snr", "rho"),
    *("drift_coefficient", "diffusion_coefficient", "alpha_rate", "sigma_rate"),
)
CUSTOM = AffineSDE(lambda t: -t, lambda t: torch.ones_like(t), t_min=0.1, t_max=2.0)
OUTSIDE = [(VP(), 1.2), (VP(), -0.2), (RectifiedFlow(), 1.5), (EDM(), -1), (DiscreteVP([0.1, 0.2]), 5.0), (CUSTOM, 3.0)]
NO_TIMES = ["a", None, 1j, np.array([0.5 + 1j]), torch.tensor([0.5 + 1j]), [0.5, "a"], object(), 10**400]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_outside_the_domain_are_refused_and_those_at_its_ends_are_not(name: str) -> None:
    for process, t in OUTSIDE:
        for value in (t, float(t), np.float32(t), [t], math.nan):
            with pytest.raises(OptionError, match=r"^t: got .*; expected times in "):
                getattr(process, name)(value)
        for end in process.domain:
            if math.isfinite(end):
                assert getattr(process, name)(end).shape == ()


@pytest.mark.parametrize("value", NO_TIMES, ids=lambda v: type(v).__name__)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for take in (as_float64, VP().alpha, VP().rho, VP().time_at, VP().levels):
            with pytest.raises(InterfaceError, match=r"^t: .* a real number"):
                take(value)
