"""sdekit and the released diffusers take the same steps: largest differences on the same grids.

    python -m benchmarks.compare_diffusers

The model is the exact posterior mean of a Gaussian mixture under VP, the grid the same levels sigma / alpha in both:
diffusers' schedulers are given them in place of their own, which are rounded to float32. The last step leads to
sigma > 0 at the order of the others (`lower_order_final` off), to sigma = 0, or is of order 1 as diffusers makes it.
Single-step methods of p calls take p intervals of diffusers' grid, whose levels are equally spaced in log sigma, as one
step; that of three calls and type "midpoint" is left out: it is not DPM-Solver-3, for its second stage weights the
difference of predictions by half the total. The last columns are root mean square errors against the exact flow, of
diffusers and of sdekit, where it ends at sigma > 0 and no noise is drawn. Exits with 1 where a difference is above the
bound, with 2 where diffusers is not installed.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks.peers import installed, missing
from sdekit import targets

BOUND = 1e-5
STEPS = 18
RELEASE = "0.42.1"
LEVELS = 14.0, 0.05
"""sigma / alpha at both ends."""


class Method(NamedTuple):
    """Our solver and its options; diffusers' scheduler and its options; how many calls make a step."""

    name: str
    options: dict[str, Any]
    scheduler: str
    theirs: dict[str, Any]
    calls: int = 1
    zero: bool = False
    noise: bool = False


_MULTI, _SINGLE, _UNI = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"
_DEIS = "DEISMultistepScheduler"
_PP, _DPM = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "dpmsolver"}
_MID, _HEUN = {"solver_type": "midpoint"}, {"solver_type": "heun"}
_LATE = {"lower_order_final": True}


def _unipc(order: int, b: str, data: bool, **more: Any) -> dict[str, Any]:
    return {"solver_order": order, "solver_type": b, "predict_x0": data, **more}


METHODS: dict[str, Method] = {
    "dpmpp_2m": Method("dpmpp_2m", {}, _MULTI, {"solver_order": 2, **_PP, **_MID}),
    "dpmpp_2m, exact": Method("dpmpp_2m", {"second": "exact"}, _MULTI, {"solver_order": 2, **_PP, **_HEUN}),
    "dpmpp_2m, order 1 last": Method("dpmpp_2m", {"final_order": 1}, _MULTI, {"solver_order": 2, **_PP, **_LATE}),
    "dpmpp_2m, to 0": Method("dpmpp_2m", {}, _MULTI, {"solver_order": 2, **_PP, **_MID}, zero=True),
    "dpmpp_3m, as released": Method(
        "dpmpp_3m", {"as_released": True, "second": "half"}, _MULTI, {"solver_order": 3, **_PP, **_MID}
    ),
    "dpmpp_3m, as released, to 0": Method(
        "dpmpp_3m", {"as_released": True}, _MULTI, {"solver_order": 3, **_PP, **_HEUN}, zero=True
    ),
    "dpm_solver_2": Method("dpm_solver_2", {}, _SINGLE, {"solver_order": 2, **_DPM, **_MID}, 2),
    "dpm_solver_2, exact": Method(
        "dpm_solver_2", {"second": "exact"}, _SINGLE, {"solver_order": 2, **_DPM, **_HEUN}, 2
    ),
    "dpmpp_2s": Method("dpmpp_2s", {}, _SINGLE, {"solver_order": 2, **_PP, **_MID}, 2),
    "dpmpp_2s, exact": Method("dpmpp_2s", {"second": "exact"}, _SINGLE, {"solver_order": 2, **_PP, **_HEUN}, 2),
    "dpm_solver_3, parabola": Method(
        "dpm_solver_3", {"third": "parabola"}, _SINGLE, {"solver_order": 3, **_DPM, **_HEUN}, 3
    ),
    "dpm_solver_3, parabola, data": Method(
        "dpm_solver_3", {"third": "parabola", "prediction": "data"}, _SINGLE, {"solver_order": 3, **_PP, **_HEUN}, 3
    ),
    **{
        f"unipc, order {p}, {b}, {'data' if x0 else 'noise'}": Method(
            "unipc", {"order": p, "variant": b, "prediction": "data" if x0 else "noise"}, _UNI, _unipc(p, b, x0)
        )
        for p in (1, 2, 3, 4, 5)
        for b in ("bh1", "bh2")
        for x0 in (True, False)
    },
    "unipc, to 0": Method("unipc", {}, _UNI, _unipc(2, "bh2", True, **_LATE), zero=True),
    "unipc, order 1 last": Method("unipc", {"final_order": 1}, _UNI, _unipc(2, "bh2", True, **_LATE)),
    "euler_ancestral": Method("euler_ancestral", {}, "EulerAncestralDiscreteScheduler", {}, noise=True),
    **{
        f"deis, order {p}": Method("deis", {"order": p, "clock": "lambda"}, _DEIS, {"solver_order": p})
        for p in (1, 2, 3)
    },
    "lms": Method("lms", {}, "LMSDiscreteScheduler", {}, noise=True),
}


def scheduler_class(name: str) -> Any:
    """A scheduler of diffusers, or None where that is not installed."""
    if installed("diffusers") is None:
        return None
    return getattr(importlib.import_module("diffusers"), name)


def levels(method: Method, steps: int) -> Tensor:
    """sigma / alpha at each of diffusers' intervals, equally spaced in the logarithm; a last 0 where asked for."""
    high, low = (math.log(v) for v in LEVELS)
    sigmas = torch.linspace(high, low, steps + 1, dtype=torch.float64).exp()
    if method.zero:
        sigmas[-1] = 0.0
    return sigmas


def theirs(method: Method, target: Any, x: Tensor, sigmas: Tensor, noises: list[Tensor]) -> Tensor:
    """diffusers' result from x at sigmas[0]: x is alpha times x_0 + sigma eps, for Euler that without alpha."""
    options = dict(method.theirs)
    if not method.noise:
        options = {"lower_order_final": False, **options}
    if method.scheduler in (_MULTI, _SINGLE, _UNI):
        options["final_sigmas_type"] = "zero" if method.zero else "sigma_min"
    if method.scheduler == _MULTI and options["lower_order_final"] and not method.zero:
        options["euler_at_final"] = True  # the other is for fewer than 15 steps
    kind = "epsilon" if method.noise else "sample"  # with x_0 only the levels matter; Euler has no choice
    scheduler = scheduler_class(method.scheduler)(prediction_type=kind, **options)
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas, scheduler.is_scale_input_called = sigmas, True
    exact = target.under(sdekit.EDM())
    predict = exact.noise if method.noise else exact.data
    drawn = iter(noises)
    module: Any = importlib.import_module(type(scheduler).__module__)
    original = getattr(module, "randn_tensor", None)
    module.randn_tensor = lambda *args, **kwargs: next(drawn)
    try:
        for i, t in enumerate(scheduler.timesteps):
            scaled = x if method.noise else x * math.sqrt(1 + float(sigmas[i]) ** 2)
            x = scheduler.step(predict(float(sigmas[i]), scaled), t, x).prev_sample
    finally:
        module.randn_tensor = original
    return x


def ours(method: Method, target: Any, x: Tensor, sigmas: Tensor, noises: list[Tensor]) -> Tensor:
    """Ours from the same start."""
    process = sdekit.EDM() if method.noise else sdekit.VP(beta_max=30.0)
    times = process.time_at(-torch.log(sigmas[:: method.calls]))
    if method.zero:
        times[-1] = 0.0
    solver = sdekit.solvers.get(method.name, **method.options)
    noise = lambda out, step, stream: out.copy_(noises[step])  # noqa: E731
    return sdekit.solve(target.under(process), x, times, solver, noise=noise).x


def compared(name: str, steps: int = STEPS) -> tuple[float, float, float]:
    """The largest absolute difference over a batch whose final states are of size 1; and the errors of diffusers and of
    ours against the exact flow, NaN where there is none."""
    method, target = METHODS[name], targets.random_mixture(6, 10, 0)
    sigmas = levels(method, steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    x = x * float(sigmas[0]) if method.noise else x
    noises = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(steps)]
    want, got = (run(method, target, x, sigmas, noises) for run in (theirs, ours))
    found = float((got - want).abs().max())
    process = sdekit.EDM() if method.noise else sdekit.VP(beta_max=30.0)
    solver = sdekit.solvers.get(method.name, **method.options)
    if method.zero or solver.plan(sdekit.EDM(), [2.0, 1.0, 0.5, 0.1]).stochastic:
        return found, math.nan, math.nan
    truth = target.under(process).flow(x, *process.time_at(-torch.log(sigmas[[0, -1]])).tolist())
    wrong = (float((v - truth).square().mean().sqrt()) for v in (want, got))
    return found, *wrong


def difference(name: str, steps: int = STEPS) -> float:
    """The largest absolute difference alone."""
    return compared(name, steps)[0]


def main() -> int:
    """Print the table; 0 where all agree."""
    found = installed("diffusers")
    if found is None:
        print(missing("diffusers"))
        return 2
    print(f"Largest differences to diffusers {found}, float64, torch {torch.__version__}, bound {BOUND:g}")
    if found != RELEASE:
        print(f"The comparison was made for {RELEASE}.")
    print(f"{'method':<40}{'difference':>14}{'their error':>14}{'our error':>14}")
    worst = 0.0
    for name in METHODS:
        d, *wrong = compared(name)
        # A NaN is no agreement either.
        worst = max(worst, d if d == d else float("inf"))
        print(f"{name:<40}{d:14.1e}" + "".join(f"{'-' if v != v else f'{v:.1e}':>14}" for v in wrong))
    print("All agree." if worst <= BOUND else f"NOT EQUAL: {worst:.3g} is above the bound.")
    return 0 if worst <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
