"""What the dtype of a state costs in errors: coefficients are float64 at any, and the model is exact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sdekit import grids, solvers, targets
from sdekit.bench.speed.reading import Reading, Row, Setting
from sdekit.plan import Plan
from sdekit.processes import VP
from sdekit.solve import solve

__all__ = ["ROWS", "cases", "relative"]

_PROCESS = VP()
_SAMPLES, _SEED = 32, 0
_BUDGETS = (10, 50, 200)
_FLOWS = {
    "dpmpp_2m": ("dpmpp_2m", {}, 1),
    "unipc, order 3": ("unipc", {"order": 3}, 1),
    "heun": ("heun", {}, 2),
}
_LAWS = {"dpmpp_2m_sde": ("dpmpp_2m_sde", {}, 1), "ddpm": ("ddpm", {}, 1)}


def cases() -> dict[str, targets.GaussianMixture]:
    """The targets, by name."""
    return {"ring": targets.ring(), "64 dimensions": targets.random_mixture(64, 16, 0)}


def relative(x: Tensor, truth: Tensor) -> float:
    """The error of x (B, *shape) on any device over the size of the truth, all samples together."""
    return float((x.cpu().double() - truth).norm() / truth.norm())


def _plan(name: str, options: dict[str, object], calls: int, budget: int) -> Plan:
    return solvers.get(name, **options).plan(_PROCESS, grids.half_log_snr(_PROCESS, budget // calls).tolist())


def _measure(setting: Setting) -> Iterator[Reading]:
    dtype = getattr(torch, setting.dtype)
    for place, target in cases().items():
        exact = target.under(_PROCESS)
        model = target.to(device=setting.device).under(_PROCESS)
        prior = _PROCESS.sample_prior((_SAMPLES, target.size), seed=_SEED, dtype=torch.float64)
        start = prior.to(torch.bfloat16).double()  # a number of every dtype: all are given the same start
        truth: Tensor | None = None
        for label, (name, options, calls) in (_FLOWS | _LAWS).items():
            for budget in _BUDGETS:
                plan = _plan(name, options, calls, budget)
                seed = _SEED if label in _LAWS else None
                here = solve(exact, start, plan.times, plan, seed=seed).x
                there = solve(model, start.to(setting.device, dtype), plan.times, plan, seed=seed).x
                case = f"{place}: {label}, {budget} calls"
                if label in _FLOWS:
                    if truth is None:
                        truth = exact.flow(start, plan.times[0], plan.times[-1])
                    yield Reading(case, "error", relative(there, truth), "", exact=True)
                quantity = "difference to float64"
                yield Reading(case, quantity, relative(there, here), "", exact=True)


ROWS = (
    Row(
        "device-error",
        "Errors by the dtype of the state",
        "Exact scores of two mixtures under VP: relative errors of the flow's samplers against the exact flow, and of "
        "all the relative difference that the dtype and the device make, against the same plan in float64 on the "
        "processor, with the same keyed noise. Every dtype starts from the same numbers. Coefficients are float64 at "
        "any dtype; a state in bfloat16 is accumulated in float32, and rounded for the network and at the end.",
        _measure,
    ),
)
