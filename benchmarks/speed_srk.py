"""Stochastic Runge-Kutta steps against torchsde's "srk": time, calls and errors.

    python -m benchmarks.speed_srk [--rounds 9] [--threads 1]

Diagonal noise: x = sinh(W + t + a) on [0, 1], 1024 samples of 16 coordinates, float32; torchsde's srk is sdekit's sriw2
by its coefficients. Additive noise: a 16 x 16 matrix that changes in time, where torchsde's srk is sra1. With normals
drawn before, both take the same paths and the time is that of the steps alone; with its own Brownian path
(BrownianInterval with space-time Levy area; noise="path") or sdekit's default noise it includes the paths. Processor
time; medians of interleaved rounds; errors are root mean squares of asinh(x) against the exact solution of each path.
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

BATCH, SIZE, STEPS = 1024, 16, 64
GOAL = 8


class Sinh:
    """dx = (sqrt(1 + x^2) + x / 2) dt + sqrt(1 + x^2) dW, for both libraries. Counts its calls."""

    noise_type, sde_type, additive = "diagonal", "ito", False

    def __init__(self) -> None:
        self.calls = [0, 0]

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return torch.addcmul(torch.ones_like(x), x, x).sqrt_().add_(x, alpha=0.5)

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return torch.addcmul(torch.ones_like(x), x, x).sqrt_()

    def sdekit(self) -> sdekit.SDE:
        """The SDE as sdekit takes it."""
        return sdekit.make_sde(self.f, self.g, "diagonal")


class Matrix(Sinh):
    """dx = -x dt + G(t) dW."""

    noise_type, additive = "additive", True

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.eye(SIZE) + 0.1 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(3))

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return -x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return (self.matrix * (1 + t.reshape(-1)[:1])).expand(len(x), SIZE, SIZE)

    def sdekit(self) -> sdekit.SDE:
        """The SDE as sdekit takes it."""
        return sdekit.make_sde(self.f, self.g, "general", additive=True)


class Drawn:
    """Normals drawn before: a noise source for sdekit, and a Brownian motion with U for torchsde."""

    def __init__(self, steps: int) -> None:
        self.steps, self.shape = steps, (BATCH, SIZE)
        self.normals = torch.randn(steps, 2, *self.shape, generator=torch.Generator().manual_seed(1))
        self.dtype, self.device, self.levy_area_approximation = torch.float32, torch.device("cpu"), "space-time"

    def fill(self, out: Tensor, step: int, stream: int) -> Tensor:
        """The normals of a step: stream 0 for W, stream 1 for H."""
        return out.copy_(self.normals[step, stream])

    def __call__(self, t0: Any, t1: Any, return_U: bool = False) -> Any:
        w, n = self.normals[min(round(float(t0) * self.steps), self.steps - 1)]
        h = 1 / self.steps
        w = w * h**0.5
        return (w, torch.add(w, n, alpha=(h / 3) ** 0.5) * (h / 2)) if return_U else w

    @property
    def end(self) -> Tensor:
        """W at 1."""
        return self.normals[:, 0].sum(0) / self.steps**0.5


def with_torchsde(sde: Any, x: Tensor, steps: int, method: str, path: Any) -> Tensor:
    """Solve on [0, 1]."""
    torchsde: Any = importlib.import_module("torchsde")
    path = (
        torchsde.BrownianInterval(0.0, 1.0, size=x.shape, levy_area_approximation="space-time")
        if path is None
        else path
    )
    return torchsde.sdeint(sde, x, torch.tensor([0.0, 1.0]), bm=path, method=method, dt=1 / steps)[-1]


def solvers(sde: Any, names: dict[str, int], x: Tensor, whole: str | None) -> dict[str, Callable[[], Tensor]]:
    """Functions that solve from x, by name of the solver and of the noise: all kinds for `whole`, else drawn before."""
    found: dict[str, Callable[[], Tensor]] = {}
    if installed("torchsde"):
        drawn = Drawn(STEPS)
        if whole is not None:
            found["torchsde srk, path"] = lambda: with_torchsde(sde, x, STEPS, "srk", None)
        found["torchsde srk, drawn"] = lambda: with_torchsde(sde, x, STEPS, "srk", drawn)
    own = sde.sdekit()
    for name, steps in names.items():
        noises: dict[str, Any] = {"path": "path", "default": "step"} if name == whole else {}
        noises["drawn"] = Drawn(steps)
        for label, noise in noises.items():
            options = {} if label == "drawn" else {"seed": 0}
            found[f"{name}, {label}"] = lambda name=name, noise=noise, steps=steps, options=options: (
                sdekit.solve(own, x, [0.0, 1.0], name, steps=steps, noise=noise, **options).x
            )
    return found


def row_8(rounds: int) -> None:
    """Time of a step at the same number of steps, calls, and error."""
    print(f"\n8  Stochastic Runge-Kutta, {BATCH} x {SIZE}, float32. Goal: {GOAL} times torchsde's srk at equal error.")
    if not installed("torchsde"):
        print("   torchsde: not installed")
    x = 0.3 * torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(2))
    names = [n for n in ("sriw2", "sriw1", "sosri2", "milstein") if n in {i.name for i in sdekit.solvers.available()}]
    _table("diagonal noise", Sinh(), dict.fromkeys(names, STEPS), x, rounds, "sriw2")
    calls = {"sriw2": 7, "sriw1": 6, "sosri2": 8}  # drifts and diffusions of a step; torchsde's srk: 20
    equal = {name: STEPS * 20 // count for name, count in calls.items()}
    _table("diagonal noise, as many calls as torchsde's", Sinh(), equal, x, rounds, None)
    _table("additive noise, a matrix", Matrix(), dict.fromkeys(("sra1", "sosra"), STEPS), x, rounds, "sra1")


def _table(title: str, sde: Any, names: dict[str, int], x: Tensor, rounds: int, same: str | None) -> None:
    functions = solvers(sde, names, x, same)
    calls, errors = {}, {}
    for label, function in functions.items():
        sde.calls = [0, 0]
        end = function()
        calls[label] = tuple(sde.calls)
        steps = names.get(label.split(",")[0], STEPS)
        exact = torch.asinh(x) + 1 + Drawn(steps).end
        drawn = label.endswith("drawn") and not sde.additive
        errors[label] = float((torch.asinh(end) - exact).square().mean().sqrt()) if drawn else None
    found = times_of(functions, rounds)
    print(f"   {title}")
    print(f"   {'solver, noise':<26} {'steps':>5} {'calls':>12} {'us a step':>10} {'speed':>6} {'error':>9}   goal")
    for label in functions:
        name, noise = label.split(", ")
        steps = names.get(name, STEPS)
        peer = found.get("torchsde srk, drawn" if noise == "drawn" else "torchsde srk, path", float("nan"))
        goal = ("reached" if peer / found[label] >= GOAL else "MISSED") if name == same else ""
        error = "" if errors[label] is None else f"{errors[label]:.2e}"
        a, b = calls[label]
        shown = f"{steps:>5} {f'{a} + {b}':>12} {found[label] / steps * 1e6:>10.0f} {peer / found[label]:>6.2f}"
        print(f"   {label:<26} {shown} {error:>9}   {goal}", flush=True)


def main() -> None:
    """Print the tables."""
    run_rows(__doc__, 9, row_8)


if __name__ == "__main__":
    main()
