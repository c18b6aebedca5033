"""Stochastic Runge-Kutta steps against torchsde's "srk": time, calls and errors.

    python -m benchmarks.speed_srk [--rounds 9] [--threads 1]

Diagonal noise: x = sinh(W + t + a) on [0, 1], 1024 samples of 16 coordinates, float32; torchsde's srk is sdekit's sriw2
by its coefficients. Additive noise: a 16 x 16 matrix that changes in time, where torchsde's srk is sra1. With normals
drawn before, both take the same paths and the time is that of the steps alone; with its own Brownian path
(BrownianInterval with space-time Levy area; noise="path") or sdekit's default noise it includes the paths. Processor
time; medians of interleaved rounds; errors are root mean squares of asinh(x) against the exact solution of each path.

"At equal error" takes dx = (cos(t) sin(x) - x / 2) dt + (0.6 + 0.4 sin(x + t)) dW in float64, on paths whose end is
known from 2048 steps: each solver of ours takes the fewest steps, of 8, 12, 16, 24, ..., with which its error is at
most that of torchsde's srk in 64. slowrk has order 3/2 in Stratonovich's calculus: given the Ito SDE it also
differentiates g, unless the SDE has a `diffusion_derivative`. torchsde has no method of that order for the Stratonovich
SDE.

What can be won: a step of torchsde's srk makes 20 calls for sriw2's 7, so that where calls are all that costs the
ratio is 20 / 7 = 2.9 with the same steps; slowrk's 7 calls in about half the steps make it 5.7.
"""

from __future__ import annotations

import functools
import importlib
import itertools
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
from sdekit.brownian import BrownianPath

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


class Mixed(Sinh):
    """Noise and drift that do not commute and change in time; its Ito and its Stratonovich form."""

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return torch.cos(t) * torch.sin(x) - 0.5 * x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls[1] += 1
        return 0.6 + 0.4 * torch.sin(x + t)

    def slope(self, t: Tensor, x: Tensor) -> Tensor:
        """g'."""
        self.calls[1] += 1
        return 0.4 * torch.cos(x + t)

    def centred(self, t: Tensor, x: Tensor) -> Tensor:
        """The drift of the Stratonovich form."""
        self.calls[0] += 1
        sine, cosine = torch.sin(x + t), torch.cos(x + t)
        return torch.cos(t) * torch.sin(x) - 0.5 * x - 0.2 * (0.6 + 0.4 * sine) * cosine

    def forms(self) -> dict[str, sdekit.SDE]:
        """As sdekit takes it: Ito, Ito with the derivative of g, Stratonovich."""
        return {
            "Ito": sdekit.make_sde(self.f, self.g),
            "Ito, g'": sdekit.make_sde(self.f, self.g, diffusion_derivative=self.slope),
            "Stratonovich": sdekit.make_sde(self.centred, self.g, sde_type="stratonovich"),
        }


class Walked:
    """The normals of one Brownian path on equal steps, for both libraries: as `Drawn`, of any size and in float64."""

    def __init__(self, steps: int, shape: tuple[int, int]) -> None:
        self.steps, self.shape = steps, shape
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
        path = BrownianPath(3, torch.arange(shape[0]), shape[1])
        self.normals = [torch.stack(path.normals(s, t)) for s, t in itertools.pairwise(times)]
        self.dtype, self.device, self.levy_area_approximation = torch.float64, torch.device("cpu"), "space-time"

    def fill(self, out: Tensor, step: int, stream: int) -> Tensor:
        """As `Drawn.fill`."""
        return out.copy_(self.normals[step][stream])

    def __call__(self, t0: Any, t1: Any, return_U: bool = False) -> Any:
        w, n = self.normals[min(round(float(t0) * self.steps), self.steps - 1)]
        h = 1 / self.steps
        w = w * h**0.5
        return (w, w * (h / 2) + n * (h**1.5 / 12**0.5)) if return_U else w


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


EQUAL = (8, 12, 16, 24, 32, 48, 64, 96, 128)
RIVALS = (("sriw2", "Ito"), ("sosri2", "Ito"), ("slowrk", "Ito"), ("slowrk", "Ito, g'"), ("slowrk", "Stratonovich"))


def equal_error(rounds: int) -> None:
    """Our solvers at the error of torchsde's srk, at several sizes."""
    if not installed("torchsde"):
        return
    print(f"   at equal error, float64: speed against torchsde's srk in {STEPS} steps, and steps taken")
    print(f"   {'shape':<12} {'error':>9}   " + "   ".join(f"{name} ({form})" for name, form in RIVALS))
    for shape in ((1, 10), (64, 1), (64, 10), (4096, 10), (64, 1000)):
        problem = Mixed()
        forms, x = problem.forms(), 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
        paths = {steps: Walked(steps, shape) for steps in EQUAL}

        def ours(name: str, form: str, steps: int, noise: Any, forms: Any = forms, x: Tensor = x) -> Tensor:
            return sdekit.solve(forms[form], x, [0.0, 1.0], name, steps=steps, noise=noise).x

        truth = ours("sosri2", "Ito", 2048, Walked(2048, shape))
        theirs: Any = functools.partial(with_torchsde, problem, x, STEPS, "srk", paths[STEPS])
        goal = _rms(theirs() - truth)
        runs: dict[str, Any] = {"torchsde": theirs}
        taken = {}
        for name, form in RIVALS:
            fits = [n for n in EQUAL if _rms(ours(name, form, n, paths[n]) - truth) <= 1.001 * goal]
            if fits:
                taken[name, form] = fits[0]
                runs[f"{name} ({form})"] = functools.partial(ours, name, form, fits[0], paths[fits[0]])
        found = times_of(runs, rounds)
        shown = [
            f"{found['torchsde'] / found[f'{name} ({form})']:.1f} in {taken[name, form]}"
            for name, form in RIVALS
            if (name, form) in taken
        ]
        print(f"   {shape!s:<12} {goal:>9.1e}   " + "   ".join(shown), flush=True)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


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
    run_rows(__doc__, 9, row_8, equal_error)


if __name__ == "__main__":
    main()
