"""sdekit and the released azula take the same steps: largest differences in float64, and both against the truth.

    python -m benchmarks.compare_azula

The denoiser is the exact posterior mean of a Gaussian mixture, the schedule that of our process: azula's own VP has
sigma^2 = 1 - alpha^2 + 1e-6, which is not variance preserving. Times are equally spaced, as azula's samplers choose
them, and the noise of stochastic methods is the same numbers. The last columns are root mean square errors against the
exact flow, of azula and of sdekit, for methods without noise.

Where azula is known to deviate the row has a star, says why, and does not count:

* Its Rosenbrock-type sampler multiplies the integral by sqrt(alpha_s^2 + sigma_t^2) for sqrt(alpha_s^2 + sigma_s^2), s
  being the end of the step: a method of order 1, whatever its `order`.
* Its `eta` of DDIM is the square of ours: 0.25 is compared with 0.5, which agrees.

Exits with 1 where another difference is above the bound, with 2 where azula is not installed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks.peers import installed, missing
from sdekit import targets

BOUND = 1e-9
STEPS = 24
RELEASE = "0.11.1"


class Method(NamedTuple):
    """Our solver and its options; azula's sampler and its options; whether it draws noise, and why it deviates."""

    name: str
    options: dict[str, Any]
    sampler: str
    theirs: dict[str, Any]
    noise: bool = False
    deviates: str = ""


_REAB = "sigma of the step's start for that of its end"

METHODS: dict[str, Method] = {
    "ddim": Method("ddim", {}, "DDIMSampler", {}),
    "ddim, eta 0.5": Method("ddim", {"eta": 0.5}, "DDIMSampler", {"eta": 0.25}, noise=True),
    "ddpm": Method("ddpm", {}, "DDPMSampler", {}, noise=True),
    "euler": Method("euler", {}, "EulerSampler", {}),
    "heun": Method("heun", {}, "HeunSampler", {}),
    **{f"lms, order {p}": Method("lms", {"order": p}, "zABSampler", {"order": p}) for p in (2, 3, 4)},
    **{
        f"exp_adams, order {p}, {kind}": Method("exp_adams", {"order": p, "prediction": kind}, sampler, {"order": p})
        for kind, sampler in (("noise", "zEABSampler"), ("data", "xEABSampler"))
        for p in (2, 3)
    },
    **{
        f"preconditioned_adams, order {p}": Method(
            "preconditioned_adams",
            {"order": p, "data_variance": 1.0, "mean": "zero", "starter": "ramp"},
            "REABSampler",
            {"order": p},
            deviates=_REAB,
        )
        for p in (1, 2)
    },
}


def theirs(method: Method, model: Any, x: Tensor, ends: tuple[float, float], noises: list[Tensor]) -> Tensor:
    """azula's result."""
    denoise, sample = importlib.import_module("azula.denoise"), importlib.import_module("azula.sample")
    process = model.process

    class Exact(denoise.Denoiser):
        """The exact posterior mean, on the process's own schedule."""

        @staticmethod
        def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
            return process.alpha(t), process.sigma(t)

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            return denoise.DiracPosterior(mean=model.data(t, x_t))

    settings = {"start": ends[0], "stop": ends[1], "steps": len(noises), "silent": True, "dtype": torch.float64}
    sampler = getattr(sample, method.sampler)(Exact(), **settings, **method.theirs)
    drawn = iter(noises)
    original, torch.randn_like = torch.randn_like, lambda *args, **kwargs: next(drawn)
    try:
        return sampler(x)
    finally:
        torch.randn_like = original


def ours(method: Method, model: Any, x: Tensor, ends: tuple[float, float], noises: list[Tensor]) -> Tensor:
    """Ours from the same start at the same times."""
    times = torch.linspace(*ends, len(noises) + 1, dtype=torch.float64)
    solver = sdekit.solvers.get(method.name, **method.options)
    return sdekit.solve(model, x, times, solver, noise=lambda out, step, stream: out.copy_(noises[step])).x


def compared(name: str, process: Any, ends: tuple[float, float], steps: int = STEPS) -> tuple[float, float, float]:
    """The largest difference over a batch whose final states are of size 1, and the errors of azula and of ours."""
    method, model = METHODS[name], targets.random_mixture(6, 10, 0).under(process)
    generator = torch.Generator().manual_seed(0)
    x = process.sample_prior((32, 6), seed=0, dtype=torch.float64)
    noises = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(steps)]
    a, b = (run(method, model, x, ends, noises) for run in (theirs, ours))
    truth = model.flow(x, *ends)
    errors = [float("nan") if method.noise else float((v - truth).square().mean().sqrt()) for v in (a, b)]
    return float((a - b).abs().max()), *errors


def main() -> int:
    """Print the table; 0 where all agree that should."""
    found = installed("azula")
    if found is None:
        print(missing("azula"))
        return 2
    print(f"azula {found}, float64, torch {torch.__version__}, {STEPS} steps, bound {BOUND:g}")
    if found != RELEASE:
        print(f"The comparison was made for {RELEASE}.")
    processes: dict[str, tuple[Any, tuple[float, float]]] = {
        "VP": (sdekit.VP(), (1.0, 0.01)),
        "RectifiedFlow": (sdekit.RectifiedFlow(), (0.99, 0.01)),
    }
    print(f"{'':<32}" + "".join(f"{name:>36}" for name in processes))
    print(f"{'method':<32}" + f"{'difference':>12}{'azula':>12}{'sdekit':>12}" * len(processes))
    worst = 0.0
    for name, method in METHODS.items():
        rows = [compared(name, *where) for where in processes.values()]
        if not method.deviates:
            # A NaN is no agreement either.
            worst = max([worst, *(d if d == d else float("inf") for d, *_ in rows)])
        cells = "".join(f"{'-' if v != v else f'{v:.1e}':>12}" for row in rows for v in row)
        print(f"{name:<32}{cells}" + (f"  * {method.deviates}" if method.deviates else ""))
    print("All agree." if worst <= BOUND else f"NOT EQUAL: {worst:.3g} is above the bound.")
    return 0 if worst <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
