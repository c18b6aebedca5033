"""sdekit and the released k-diffusion take the same steps: largest differences in float64 on the same grids.

    python -m benchmarks.compare_kdiffusion

The denoiser is the exact posterior mean of a Gaussian mixture, the grid that of Karras et al. with and without a last
zero, the noise of stochastic methods the same numbers. k-diffusion's variable is x = x_0 + sigma eps. Each method runs
under the process EDM, which is that, and under VP, whose x is alpha times k-diffusion's at the time where sigma / alpha
is its sigma. For methods without noise the last columns are root mean square errors against the exact flow, of
k-diffusion and of sdekit, under EDM without the zero. Exits with 1 where a difference is above the bound, with 2 where
k-diffusion is not installed.

The last lines are dpm_adaptive at the same tolerances, whose steps are not the same: k-diffusion has one step for the
batch, measures its error over all of it, against max(atol, rtol |x|), and accepts somewhat more than the tolerance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks.peers import installed, kdiffusion_sampling, missing
from sdekit import targets

BOUND = 1e-9
STEPS = 20
RELEASE = "0.1.1.post1"


class Table:
    """Noise from a table: step i of either library takes entry i, and a second noise of that step entry steps + i."""

    def __init__(self, x: Tensor, steps: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.steps = steps
        self.values = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(2 * steps)]

    def fill(self, out: Tensor, step: int, stream: int) -> Tensor:
        """For sdekit."""
        return out.copy_(self.values[step + self.steps * stream])

    def sampler(self) -> Callable[[Any, Any], Tensor]:
        """For k-diffusion's samplers with a noise_sampler: called once a step, in order."""
        values = iter(self.values)
        return lambda sigma, sigma_next: next(values)

    def path(self, sigmas: Tensor, eta: float) -> Callable[[Any, Any], Tensor]:
        """For dpmpp_sde: normalised increments from sigma of one path, whose time is sigma^(-2 eta^2)."""
        nodes = [float(s) for s in sigmas]

        def increment(sigma: Any, sigma_next: Any) -> Tensor:
            i = min(range(self.steps), key=lambda k: abs(nodes[k] - float(sigma)))
            whole, part = (v ** (-2 * eta**2) - nodes[i] ** (-2 * eta**2) for v in (nodes[i + 1], float(sigma_next)))
            # The end has gone through a logarithm: what rounding leaves of 1 - c2 is not noise of the other stream.
            c2 = 1.0 if abs(part / whole - 1) < 1e-12 else part / whole
            return c2**0.5 * self.values[i] + (1 - c2) ** 0.5 * self.values[self.steps + i]

        return increment


# Our solver and its options; k-diffusion's function and its options. A churned step draws by torch.randn_like there.
METHODS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "ddim": ("ddim", {}, "sample_euler", {}),
    "euler": ("euler", {}, "sample_euler", {}),
    "heun": ("heun", {}, "sample_heun", {}),
    "edm_heun": ("edm_heun", {}, "sample_heun", {}),
    "edm_heun, churn 5": ("edm_heun", {"churn": 5.0}, "sample_heun", {"s_churn": 5.0}),
    "edm_heun, churn 40 within [0.05, 50], s_noise 1.003": (
        "edm_heun",
        {"churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003},
        "sample_heun",
        {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003},
    ),
    "dpm_solver_2": ("dpm_solver_2", {}, "sample_dpm_2", {}),
    "dpmpp_2s": ("dpmpp_2s", {}, "sample_dpmpp_2s_ancestral", {"eta": 0.0}),
    "dpmpp_2m": ("dpmpp_2m", {}, "sample_dpmpp_2m", {}),
    "lms": ("lms", {}, "sample_lms", {}),
    "lms, order 2": ("lms", {"order": 2}, "sample_lms", {"order": 2}),
    "deis, rho, order 3": ("deis", {"clock": "rho"}, "sample_lms", {"order": 3}),
    "dpmpp_3m, as released": ("dpmpp_3m", {"as_released": True}, "sample_dpmpp_3m_sde", {"eta": 0.0}),
    "dpmpp_3m_sde, as released": ("dpmpp_3m_sde", {"as_released": True}, "sample_dpmpp_3m_sde", {}),
    "dpmpp_3m_sde, as released, eta 0.5": (
        "dpmpp_3m_sde",
        {"as_released": True, "eta": 0.5},
        "sample_dpmpp_3m_sde",
        {"eta": 0.5},
    ),
    "euler_ancestral": ("euler_ancestral", {}, "sample_euler_ancestral", {}),
    "euler_ancestral, eta 0.5, s_noise 1.003": (
        "euler_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
        "sample_euler_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
    ),
    "dpm_2_ancestral": ("dpm_2_ancestral", {}, "sample_dpm_2_ancestral", {}),
    "dpm_2_ancestral, eta 0.5, s_noise 1.003": (
        "dpm_2_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
        "sample_dpm_2_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
    ),
    "dpmpp_2s_ancestral": ("dpmpp_2s_ancestral", {}, "sample_dpmpp_2s_ancestral", {}),
    "dpmpp_2s_ancestral, eta 0.5, s_noise 1.003": (
        "dpmpp_2s_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
        "sample_dpmpp_2s_ancestral",
        {"eta": 0.5, "s_noise": 1.003},
    ),
    "dpmpp_sde": ("dpmpp_sde", {}, "sample_dpmpp_sde", {}),
    "dpmpp_sde, r 0.3, eta 0.5, s_noise 1.003": (
        "dpmpp_sde",
        {"r1": 0.3, "eta": 0.5, "s_noise": 1.003},
        "sample_dpmpp_sde",
        {"r": 0.3, "eta": 0.5, "s_noise": 1.003},
    ),
    "dpmpp_2m_sde, midpoint": ("dpmpp_2m_sde", {}, "sample_dpmpp_2m_sde", {"solver_type": "midpoint"}),
    "dpmpp_2m_sde, heun": ("dpmpp_2m_sde", {"second": "exact"}, "sample_dpmpp_2m_sde", {"solver_type": "heun"}),
    "dpmpp_2m_sde, heun, eta 0.5": (
        "dpmpp_2m_sde",
        {"second": "exact", "eta": 0.5},
        "sample_dpmpp_2m_sde",
        {"solver_type": "heun", "eta": 0.5},
    ),
}


def theirs(sampling: Any, function: str, options: dict[str, Any], target: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """k-diffusion's result from x at sigmas[0]."""
    model, table = target.under(sdekit.EDM()), Table(x, len(sigmas) - 1)
    options = dict(options)
    if function == "sample_dpmpp_sde":
        options["noise_sampler"] = table.path(sigmas, options.get("eta", 1.0))
    elif function.endswith(("_sde", "_ancestral")):
        options["noise_sampler"] = table.sampler()
    values = iter(table.values)
    original, torch.randn_like = torch.randn_like, lambda *args, **kwargs: next(values)
    try:
        return getattr(sampling, function)(lambda x, s: model.data(s, x), x, sigmas, disable=True, **options)
    finally:
        torch.randn_like = original


def ours(name: str, options: dict[str, Any], process: Any, target: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Ours from the same start, in k-diffusion's variable. Times are the process's where sigma / alpha = sigmas."""
    times = process.time_at(-torch.log(sigmas))
    times = times if sigmas[-1] > 0 else torch.cat([times[:-1], times.new_zeros(1)])
    first, last = float(process.alpha(times[0])), float(process.alpha(times[-1]))
    solver = sdekit.solvers.get(name, **options)
    out = sdekit.solve(target.under(process), first * x, times, solver, noise=Table(x, len(times) - 1))
    return out.x / last


def both(
    sampling: Any, method: str, process: Any, append_zero: bool, steps: int = STEPS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ours and k-diffusion's results, of size 1, from the same start; the start, and the sigmas."""
    name, options, function, their_options = METHODS[method]
    target = targets.random_mixture(6, 10, 0)
    sigmas = sampling.get_sigmas_karras(steps, 0.02, 80.0).double()
    sigmas = sigmas if append_zero else sigmas[:-1]
    x = 80.0 * torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = theirs(sampling, function, their_options, target, x, sigmas)
    return ours(name, options, process, target, x, sigmas), want, x, sigmas


def difference(sampling: Any, method: str, process: Any, append_zero: bool, steps: int = STEPS) -> float:
    """The largest absolute difference over a batch."""
    got, want, *_ = both(sampling, method, process, append_zero, steps)
    return float((got - want).abs().max())


def errors(sampling: Any, method: str) -> tuple[float, float] | None:
    """Root mean square errors of k-diffusion and of ours against the exact flow; None for a method with noise."""
    name, options, *_ = METHODS[method]
    if sdekit.solvers.get(name, **options).plan(sdekit.EDM(), [2.0, 1.0, 0.5, 0.1]).stochastic:
        return None
    got, want, x, sigmas = both(sampling, method, sdekit.EDM(), False)
    truth = targets.random_mixture(6, 10, 0).under(sdekit.EDM()).flow(x, float(sigmas[0]), float(sigmas[-1]))
    return tuple(float((v - truth).square().mean().sqrt()) for v in (want, got))  # type: ignore[return-value]


def adaptive(sampling: Any, order: int, rtol: float, atol: float) -> tuple[float, float, float, float]:
    """Calls and root mean square error, of k-diffusion and of ours; our calls are the mean over samples."""
    model = targets.random_mixture(6, 10, 0).under(sdekit.EDM())
    x = 80.0 * torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = model.flow(x, 80.0, 0.02)
    torch.set_default_dtype(torch.float64)  # of the ends, which it makes itself
    try:
        options = {"order": order, "rtol": rtol, "atol": atol, "disable": True, "return_info": True}
        want, info = sampling.sample_dpm_adaptive(lambda x, s: model.data(s, x), x, 0.02, 80.0, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    solver = sdekit.solvers.get("dpm_adaptive", order=order)
    got = sdekit.solve(model, x, [80.0, 0.02], solver, rtol=rtol, atol=atol)
    wrong = (float((v - truth).square().mean().sqrt()) for v in (want, got.x))
    return float(info["nfe"]), next(wrong), float(got.nfe.double().mean()), next(wrong)


def main() -> int:
    """Print the table; 0 where all agree."""
    sampling = kdiffusion_sampling()
    if sampling is None:
        print(missing("k-diffusion"))
        return 2
    found = installed("k-diffusion")
    print(f"Largest differences to k-diffusion {found}, float64, torch {torch.__version__}, bound {BOUND:g}")
    if found != RELEASE:
        print(f"The comparison was made for {RELEASE}.")
    processes = {"EDM": sdekit.EDM(), "VP": sdekit.VP(beta_max=30.0)}
    grids = {"with 0": True, "without": False}
    heads = [f"{p}, {g}" for p in processes for g in grids]
    print(f"{'method':<54}" + "".join(f"{h:>14}" for h in (*heads, "k-d error", "error")))
    worst = 0.0
    for method in METHODS:
        found_here = [difference(sampling, method, p, zero) for p in processes.values() for zero in grids.values()]
        # A NaN is no agreement either.
        worst = max([worst, *(d if d == d else float("inf") for d in found_here)])
        wrong = errors(sampling, method) or ()
        print(f"{method:<54}" + "".join(f"{d:14.1e}" for d in (*found_here, *wrong)))
    print(f"{'dpm_adaptive':<54}" + "".join(f"{h:>14}" for h in ("k-d calls", "k-d error", "calls", "error")))
    for order in (2, 3):
        for rtol, atol in ((0.05, 0.0078), (1e-2, 1e-3), (1e-3, 1e-4)):
            calls, wrong, our_calls, our_error = adaptive(sampling, order, rtol, atol)
            label = f"order {order}, rtol {rtol:g}, atol {atol:g}"
            print(f"{label:<54}{calls:14.0f}{wrong:14.1e}{our_calls:14.0f}{our_error:14.1e}")
    print("All agree." if worst <= BOUND else f"NOT EQUAL: {worst:.3g} is above the bound.")
    return 0 if worst <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
