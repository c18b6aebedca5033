"""Stochastic Runge-Kutta steps against torchsde's "srk": time, calls and errors.

Diagonal noise: x = sinh(W + t + a) on [0, 1], 1024 samples of 16 coordinates, float32; torchsde's srk is sdekit's sriw2
by its coefficients. Additive noise: a 16 x 16 matrix that changes in time, where torchsde's srk is sra1. With normals
drawn before, both take the same paths and the time is that of the steps alone; with its own Brownian path
(BrownianInterval with space-time Levy area; noise="path") or sdekit's default noise it includes the paths. Errors are
root mean squares of asinh(x) against the exact solution of each path.

"At equal error" takes dx = (cos(t) sin(x) - x / 2) dt + (0.6 + 0.4 sin(x + t)) dW in float64, on paths whose end is
known from 2048 steps: each solver of ours takes the fewest steps, of 8, 12, 16, 24, ..., with which its error is at
most that of torchsde's srk in 64. slowrk has order 3/2 in Stratonovich's calculus: given the Ito SDE it also
differentiates g, unless the SDE has a `diffusion_derivative`. torchsde has no method of that order for the Stratonovich
SDE.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import sdekit
from sdekit.bench.speed.others import installed, missing
from sdekit.bench.speed.paths import BATCH, SIZE, Drawn, Matrix, Mixed, Sinh, with_torchsde
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of

__all__ = ["ROWS"]

STEPS = 64
GOAL = 8.0
FINE = 2048  # steps to the end of a path
CALLS = {"sriw2": 7, "sriw1": 6, "sosri2": 8}  # drifts and diffusions of a step; torchsde's srk: 20
SHAPES = ((1, 10), (64, 1), (64, 10), (4096, 10), (64, 1000))
EQUAL = (8, 12, 16, 24, 32, 48, 64, 96, 128)
RIVALS = (("sriw2", "Ito"), ("sosri2", "Ito"), ("slowrk", "Ito"), ("slowrk", "Ito, g'"), ("slowrk", "Stratonovich"))


def _solvers(sde: Any, names: dict[str, int], x: Tensor, whole: str | None) -> dict[str, Callable[[], Tensor]]:
    """Functions that solve from x, by name of the solver and of the noise: all kinds for `whole`, else drawn before."""
    found: dict[str, Callable[[], Tensor]] = {}
    if installed("torchsde"):
        drawn = Drawn.fresh(STEPS)
        if whole is not None:
            found["torchsde srk, path"] = lambda: with_torchsde(sde, x, STEPS, "srk")
        found["torchsde srk, drawn"] = lambda: with_torchsde(sde, x, STEPS, "srk", drawn)
    own = sde.sdekit()
    for name, steps in names.items():
        noises: dict[str, Any] = {"path": "path", "default": "step"} if name == whole else {}
        noises["drawn"] = Drawn.fresh(steps)
        for label, noise in noises.items():
            options: dict[str, Any] = {} if label == "drawn" else {"seed": 0}
            found[f"{name}, {label}"] = lambda name=name, noise=noise, steps=steps, options=options: (
                sdekit.solve(own, x, [0.0, 1.0], name, steps=steps, noise=noise, **options).x
            )
    return found


def _compared(
    title: str, sde: Any, names: dict[str, int], x: Tensor, rounds: int, whole: str | None
) -> Iterator[Reading]:
    """Solvers with so many steps each; the goal is held against `whole`, whose steps are torchsde's."""
    functions = _solvers(sde, names, x, whole)
    calls, ends = {}, {}
    for label, function in functions.items():
        sde.calls = [0, 0]
        ends[label] = function()
        calls[label] = sum(sde.calls)
    found = rounds_of({label: (lambda run=run: clocked(run)) for label, run in functions.items()}, rounds)
    for label in functions:
        name, noise = label.split(", ")
        steps = names.get(name, STEPS)
        case = f"{title}: {label}, {steps} steps"
        yield of_rounds(case, "step", [1e6 * seconds / steps for seconds in found[label]], "us")
        yield Reading(case, "calls of drift and diffusion", calls[label], "count", exact=True)
        peer = "torchsde srk, drawn" if noise == "drawn" else "torchsde srk, path"
        if peer in found and label != peer:
            goal = GOAL if name == whole else None
            speed = ratios(found[peer], found[label])
            yield of_rounds(case, "torchsde / sdekit", speed, goal=goal, sense="at least")
        if noise == "drawn" and not sde.additive:
            exact = torch.asinh(x) + 1 + Drawn.fresh(steps).end
            yield Reading(case, "root mean square error", _rms(torch.asinh(ends[label]) - exact), "", exact=True)


def _equal_error(shape: tuple[int, int], rounds: int) -> Iterator[Reading]:
    """Our solvers at the error of torchsde's srk, at one size."""
    problem = Mixed()
    forms, x = problem.forms(), 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
    paths = {steps: Drawn.walked(steps, shape) for steps in EQUAL}

    def ours(name: str, form: str, steps: int, noise: Any) -> Tensor:
        return sdekit.solve(forms[form], x, [0.0, 1.0], name, steps=steps, noise=noise).x

    truth = ours("sosri2", "Ito", FINE, Drawn.walked(FINE, shape))
    runs: dict[str, Any] = {"torchsde": functools.partial(with_torchsde, problem, x, STEPS, "srk", paths[STEPS])}
    bound, taken = _rms(runs["torchsde"]() - truth), {}
    for name, form in RIVALS:
        fits = (n for n in EQUAL if _rms(ours(name, form, n, paths[n]) - truth) <= 1.001 * bound)
        steps = next(fits, None)
        if steps is not None:
            taken[f"{name} ({form})"] = steps
            runs[f"{name} ({form})"] = functools.partial(ours, name, form, steps, paths[steps])
    found = rounds_of({label: (lambda run=run: clocked(run)) for label, run in runs.items()}, rounds)
    where = f"at equal error, {shape[0]} x {shape[1]}"
    yield Reading(f"{where}: torchsde srk, {STEPS} steps", "root mean square error", bound, "", exact=True)
    for name, form in RIVALS:
        label = f"{name} ({form})"
        if label not in taken:
            note = f"its error stays above in up to {EQUAL[-1]} steps"
            yield Reading(f"{where}: {label}", "torchsde / sdekit", None, note=note)
            continue
        yield Reading(f"{where}: {label}", "steps", taken[label], "count", exact=True)
        yield of_rounds(f"{where}: {label}", "torchsde / sdekit", ratios(found["torchsde"], found[label]))
    if taken:
        quickest = [min(found[label][i] for label in taken) for i in range(rounds)]
        speed = ratios(found["torchsde"], quickest)
        yield of_rounds(f"{where}: the quickest", "torchsde / sdekit", speed, goal=GOAL, sense="at least")


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _measure(setting: Setting) -> Iterator[Reading]:
    yield from missing("torchsde")
    x, rounds = 0.3 * torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(2)), setting.rounds
    names = ("sriw2", "sriw1", "sosri2", "milstein")
    yield from _compared("diagonal noise", Sinh(), dict.fromkeys(names, STEPS), x, rounds, "sriw2")
    equal = {name: STEPS * 20 // count for name, count in CALLS.items()}
    yield from _compared("diagonal noise, as many calls as torchsde's", Sinh(), equal, x, rounds, None)
    both: dict[str, int] = dict.fromkeys(("sra1", "sosra"), STEPS)
    yield from _compared("additive noise, a matrix", Matrix(), both, x, rounds, "sra1")
    if installed("torchsde"):
        for shape in SHAPES:
            yield from _equal_error(shape, rounds)


ROWS = (
    Row(
        "srk",
        "Stochastic Runge-Kutta steps against torchsde's srk",
        "At the same number of steps, as many calls, and equal error. With normals drawn before, the time is that of "
        "the steps alone; 'path' and 'default' include the noise. A step of torchsde's srk makes 20 calls for sriw2's "
        "7, so that where calls are all that costs the ratio is 20 / 7 = 2.9 with the same steps; slowrk's 7 calls in "
        "about half the steps make it 5.7.",
        _measure,
        devices=("cpu",),
        dtypes=("float32",),
    ),
)
