"""Adaptive solves of a mixture's probability flow, against torchdiffeq and torchode, where they are installed.

    python -m benchmarks.speed_adaptive [--rounds 9] [--threads 1]

The flow of the ring of eight Gaussians from sigma = 80 to 0.002, tolerances 1e-6, float64, by rk45 and the others'
dopri5, which share their tableau. Every solver calls one function of sigma and x, the posterior mean; torchdiffeq for
all samples at one time, torchode and sdekit at a time for each. sdekit solves it twice: as the same ODE in sigma, and
as the flow of a model, where it integrates in the angle atan(sigma) and needs fewer calls. Process time, medians of
interleaved rounds; errors are those of the median sample, in units of the tolerance, against the exact flow.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from benchmarks.peers import installed
from benchmarks.timing import run_rows, times_of

START, END, TOLERANCE, VARIANCE = 80.0, 0.002, 1e-6, 0.09
BATCHES = (1, 64, 4096)
RING = sdekit.targets.ring(std=VARIANCE**0.5)
PROCESS = sdekit.EDM()


class Denoiser:
    """E[x_0 | x] at sigma: (), or one for each sample, (B, 1). Components first: a softmax over few is slow."""

    def __init__(self) -> None:
        self.means, self.calls, self.rows = RING.means, 0, 0
        self.low, self.high = START, END

    def __call__(self, sigma: Tensor, x: Tensor) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        s = sigma * sigma + VARIANCE
        r = torch.softmax((self.means @ x.mT) / (s.mT if s.ndim else s), 0)
        return (VARIANCE * x + (sigma * sigma) * (r.mT @ self.means)) / s

    def drift(self, sigma: Tensor, x: Tensor) -> Tensor:
        """dx/dsigma."""
        self.low, self.high = min(self.low, float(sigma.min())), max(self.high, float(sigma.max()))
        return (x - self(sigma, x)) / sigma


def solvers(net: Denoiser, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Functions that solve the flow from x, by name."""
    drift = lambda t, x: (x - net(t, x)) / t  # noqa: E731
    ode = sdekit.make_ode(drift)
    model = sdekit.Model(lambda x, t: net(t[:, None], x), PROCESS, "data")
    ends = [START, END]
    tolerances: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE}
    found: dict[str, Callable[[], Tensor]] = {}
    if installed("torchdiffeq"):
        odeint: Any = importlib.import_module("torchdiffeq").odeint

        times = torch.tensor(ends, dtype=torch.float64)
        found["torchdiffeq dopri5"] = lambda: odeint(drift, x, times, **tolerances)[-1]
    if installed("torchode"):
        found["torchode dopri5"] = _torchode(lambda t, x: drift(t[:, None], x), x)
    found["sdekit rk45, ODE"] = lambda: sdekit.solve(ode, x, ends, "rk45", **tolerances).x
    found["sdekit rk45, model"] = lambda: sdekit.solve(model, x, ends, "rk45", **tolerances).x
    return found


def _torchode(drift: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """Its steps are each sample's own too."""
    to: Any = importlib.import_module("torchode")
    term = to.ODETerm(drift)
    control = to.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
    solver = to.AutoDiffAdjoint(to.Dopri5(term=term), control)
    start, end = (torch.full((len(x),), t, dtype=torch.float64) for t in (START, END))
    problem = to.InitialValueProblem(y0=x, t_start=start, t_end=end)
    return lambda: solver.solve(problem).ys[:, -1]


def row_6(rounds: int) -> None:
    """Time."""
    print("\n6  Adaptive ODE, tolerance 1e-6. Goals: 3 times torchdiffeq's speed at B = 1 and 64, 2.5 at 4096;")
    print("   at most 1.5 of (batch calls x score) at 4096.")
    print("   diffrax has an environment of its own: see benchmarks/speed_diffrax.py.")
    for name in ("torchdiffeq", "torchode"):
        if not installed(name):
            print(f"   {name}: not installed")
    print(f"{'B':>5} {'solver':<20} {'ms':>8} {'calls':>6} {'x score':>8} {'speed':>6} {'error':>6}   goal")
    for batch in BATCHES:
        net, x = Denoiser(), PROCESS.sample_prior((batch, 2), seed=0, dtype=torch.float64)
        truth = RING.under(PROCESS).flow(x, START, END)
        functions = solvers(net, x)
        calls, errors = {}, {}
        for name, function in functions.items():
            net.calls = 0
            errors[name] = float((function() - truth).abs().amax(1).median()) / TOLERANCE
            calls[name] = net.calls
        at = torch.linspace(0.1, 10, batch, dtype=torch.float64)[:, None]
        score = lambda: [net(at, x) for _ in range(20)]  # noqa: E731, B023
        found = times_of({**functions, "score": score}, rounds)
        for name in functions:
            speed = found.get("torchdiffeq dopri5", float("nan")) / found[name]
            multiple = found[name] / (calls[name] * found["score"] / 20)
            goal = _goal(batch, speed, multiple) if name.startswith("sdekit") else ""
            shown = f"{found[name] * 1e3:>8.1f} {calls[name]:>6} {multiple:>8.2f} {speed:>6.2f} {errors[name]:>6.2f}"
            print(f"{batch:>5} {name:<20} {shown}   {goal}", flush=True)


def row_7(rounds: int) -> None:
    """Landing."""
    print("\n7  What the drift sees of [0.002, 80], and the median error over 256 samples. Goal: inside; at most 10.")
    x = PROCESS.sample_prior((256, 2), seed=1, dtype=torch.float64)
    truth = RING.under(PROCESS).flow(x, START, END)
    runs: dict[str, Callable[[Denoiser], Tensor]] = {}
    if installed("torchdiffeq"):
        odeint: Any = importlib.import_module("torchdiffeq").odeint

        times = torch.tensor([START, END], dtype=torch.float64)
        for method in ("dopri5", "dopri8"):
            runs[f"torchdiffeq {method}"] = lambda net, method=method: odeint(
                net.drift, x, times, rtol=TOLERANCE, atol=TOLERANCE, method=method
            )[-1]
    for name in ("bosh3", "rk45", "tsit5", "dop853"):
        runs[f"sdekit {name}"] = lambda net, name=name: (
            sdekit.solve(
                sdekit.make_ode(net.drift), x, [START, END], name, rtol=TOLERANCE, atol=TOLERANCE, max_nfe=10**6
            ).x
        )
    print(f"{'solver':<20} {'least sigma':>24} {'largest':>20} {'error':>7}   goal")
    for name, run in runs.items():
        net = Denoiser()
        error = float((run(net) - truth).abs().amax(1).median()) / TOLERANCE
        reached = net.low >= END and net.high <= START and error <= 10
        print(f"{name:<20} {net.low:>24.17g} {net.high:>20.15g} {error:>7.2f}   {'reached' if reached else 'MISSED'}")


def _goal(batch: int, speed: float, multiple: float) -> str:
    reached = [("speed", speed >= (2.5 if batch == 4096 else 3))]
    reached += [("score", multiple <= 1.5)] if batch == 4096 else []
    return ", ".join(f"{name} {'reached' if ok else 'MISSED'}" for name, ok in reached)


def main() -> None:
    """Print both tables."""
    run_rows(__doc__, 9, row_6, row_7)


if __name__ == "__main__":
    main()
