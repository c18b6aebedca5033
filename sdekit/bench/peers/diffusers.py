"""diffusers' schedulers, as released, with their default settings, on the grid's own levels.

A scheduler rounds the levels that it makes to float32; it is given the grid's in their place, in float64. Its variable
is alpha (x_0 + sigma eps) with alpha^2 + (alpha sigma)^2 = 1, or without alpha for the Euler schedulers and LMS. Some
of them work in float32 all the same.
"""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from sdekit.bench.peers.base import Peer, Trial, normals_from

__all__ = ["PEERS"]

PACKAGE = "diffusers"
_INSTALL = "pip install diffusers"


def _run(trial: Trial, scheduler: str, options: dict[str, Any]) -> Tensor:
    exploding = scheduler.startswith(("Euler", "LMS"))
    made = _make(scheduler, {"prediction_type": "epsilon" if exploding else "sample", **options})
    made.set_timesteps(len(trial.levels) - 1)
    made.sigmas, made.is_scale_input_called = trial.levels, True
    scales = [1.0 if exploding else 1 / math.sqrt(1 + float(s) ** 2) for s in trial.levels]
    x = scales[0] * trial.y
    with normals_from(trial, type(made).__module__, "randn_tensor"):
        for i, t in enumerate(made.timesteps):
            y = x / scales[i]
            data = trial.data(trial.levels[i], y)
            x = made.step((y - data) / trial.levels[i] if exploding else data, t, x).prev_sample
    return x / scales[-1]


def _make(scheduler: str, options: dict[str, Any]) -> Any:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module("diffusers"), scheduler)(**options)


def _peers() -> Iterator[Peer]:
    multi, single, uni = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"
    end = {"final_sigmas_type": "sigma_min"}
    found: dict[str, tuple[str, str, str, dict[str, Any]]] = {
        "Euler": ("Runge-Kutta", "deterministic", "EulerDiscreteScheduler", {}),
        "LMS": ("Adams-Bashforth", "deterministic", "LMSDiscreteScheduler", {}),
        "DPMSolverMultistep(2)": ("DPM-Solver++", "deterministic", multi, {"solver_order": 2, **end}),
        "DPMSolverMultistep(3)": ("DPM-Solver++", "deterministic", multi, {"solver_order": 3, **end}),
        "DPMSolverSinglestep(2)": ("DPM-Solver++", "deterministic", single, {"solver_order": 2, **end}),
        "UniPCMultistep(2)": ("UniPC", "deterministic", uni, {"solver_order": 2, **end}),
        "UniPCMultistep(3)": ("UniPC", "deterministic", uni, {"solver_order": 3, **end}),
        "DEISMultistep(3)": ("exponential Adams", "deterministic", "DEISMultistepScheduler", {"solver_order": 3}),
        "EulerAncestral": ("ancestral", "weak", "EulerAncestralDiscreteScheduler", {}),
        "DPMSolverMultistep(2, sde)": (
            "DPM-Solver++",
            "weak",
            multi,
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", **end},
        ),
    }
    for name, (family, kind, scheduler, options) in found.items():
        run = partial(_run, scheduler=scheduler, options=options)
        yield Peer(f"{PACKAGE}:{name}", PACKAGE, _INSTALL, family, kind, run)


PEERS = tuple(_peers())
