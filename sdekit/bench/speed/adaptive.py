"""Adaptive solves of a mixture's probability flow, against torchdiffeq and torchode, where they are installed.

The flow of the ring of eight Gaussians from sigma = 80 to 0.002, tolerances 1e-6, float64, by rk45 and the others'
dopri5, which share their tableau. Every solver calls one function of sigma and x, the posterior mean; torchdiffeq for
all samples at one time, torchode and sdekit at a time for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import sdekit
from sdekit.bench.speed.others import installed, missing
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of

__all__ = ["END", "ROWS", "START", "Denoiser"]

START, END, TOLERANCE, VARIANCE = 80.0, 0.002, 1e-6, 0.09
BATCHES = (1, 64, 4096)
SCORES = 20  # calls of the score that are timed together
RING = sdekit.targets.ring(std=VARIANCE**0.5)
PROCESS = sdekit.EDM()


class Denoiser:
    """E[x_0 | x] at sigma: (), or one for each sample, (B, 1). Components first: a softmax over few is slow."""

    def __init__(self) -> None:
        self.means, self.calls = RING.means, 0
        self.low, self.high = START, END

    def __call__(self, sigma: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        s = sigma * sigma + VARIANCE
        r = torch.softmax((self.means @ x.mT) / (s.mT if s.ndim else s), 0)
        return (VARIANCE * x + (sigma * sigma) * (r.mT @ self.means)) / s

    def drift(self, sigma: Tensor, x: Tensor) -> Tensor:
        """dx/dsigma; notes the least and the largest sigma."""
        self.low, self.high = min(self.low, float(sigma.min())), max(self.high, float(sigma.max()))
        return (x - self(sigma, x)) / sigma


def _solvers(net: Denoiser, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Functions that solve the flow from x, by name."""

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return (x - net(t, x)) / t

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


def _error(x: Tensor, truth: Tensor) -> float:
    """The median sample's, in units of the tolerance."""
    return float((x - truth).abs().amax(1).median()) / TOLERANCE


def _adaptive(setting: Setting) -> Iterator[Reading]:
    yield from missing("torchdiffeq", "torchode")
    for batch in BATCHES:
        net, x = Denoiser(), PROCESS.sample_prior((batch, 2), seed=0, dtype=torch.float64)
        truth = RING.under(PROCESS).flow(x, START, END)
        functions = _solvers(net, x)
        calls, errors = {}, {}
        for name, function in functions.items():
            net.calls = 0
            errors[name] = _error(function(), truth)
            calls[name] = net.calls
        at = torch.linspace(0.1, 10, batch, dtype=torch.float64)[:, None]

        def score(net: Denoiser = net, at: Tensor = at, x: Tensor = x) -> None:
            for _ in range(SCORES):
                net(at, x)

        timed = {name: (lambda run=run: clocked(run)) for name, run in functions.items()}
        found = rounds_of(timed | {"score": lambda score=score: clocked(score) / SCORES}, setting.rounds)
        for name in functions:
            case, ours = f"{name}, B = {batch}", name.startswith("sdekit")
            yield of_rounds(case, "solve", [1e3 * seconds for seconds in found[name]], "ms")
            yield Reading(case, "calls for the whole batch", calls[name], "count", exact=True)
            multiples = [ratio / calls[name] for ratio in ratios(found[name], found["score"])]
            yield of_rounds(case, "solve / (calls x score)", multiples, goal=1.5 if ours and batch == 4096 else None)
            if ours and "torchdiffeq dopri5" in found:
                speed, goal = ratios(found["torchdiffeq dopri5"], found[name]), 2.5 if batch == 4096 else 3.0
                yield of_rounds(case, "torchdiffeq / sdekit", speed, goal=goal, sense="at least")
            yield Reading(case, "median error / tolerance", errors[name], exact=True)


def _runs(x: Tensor) -> dict[str, Callable[[Denoiser], Tensor]]:
    """Solves from x by their names."""
    tolerances: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE}
    found: dict[str, Callable[[Denoiser], Tensor]] = {}
    if installed("torchdiffeq"):
        odeint: Any = importlib.import_module("torchdiffeq").odeint
        times = torch.tensor([START, END], dtype=torch.float64)
        for method in ("dopri5", "dopri8"):
            found[f"torchdiffeq {method}"] = lambda net, method=method: odeint(
                net.drift, x, times, method=method, **tolerances
            )[-1]
    for name in ("bosh3", "rk45", "tsit5", "dop853"):
        found[f"sdekit {name}"] = lambda net, name=name: (
            sdekit.solve(sdekit.make_ode(net.drift), x, [START, END], name, max_nfe=10**6, **tolerances).x
        )
    return found


def _evaluations(setting: Setting) -> Iterator[Reading]:
    """Nothing is timed: one round says it all."""
    yield from missing("torchdiffeq")
    x = PROCESS.sample_prior((256, 2), seed=1, dtype=torch.float64)
    truth = RING.under(PROCESS).flow(x, START, END)
    for name, run in _runs(x).items():
        net = Denoiser()
        error = _error(run(net), truth)
        ours = name.startswith("sdekit")
        inside, bound = (1.0, 10.0) if ours else (None, None)
        yield Reading(name, "least sigma / 0.002", net.low / END, goal=inside, sense="at least", exact=True)
        yield Reading(name, "largest sigma / 80", net.high / START, goal=inside, exact=True)
        yield Reading(name, "median error / tolerance", error, goal=bound, exact=True)


ROWS = (
    Row(
        "adaptive",
        "Adaptive solves against torchdiffeq and torchode",
        "The probability flow of a ring of eight Gaussians in two dimensions, sigma from 80 to 0.002, tolerance 1e-6, "
        "float64, by one tableau in all libraries. sdekit solves it twice: as the same ODE in sigma, and as the flow "
        "of a model, where it integrates in the angle atan(sigma) and needs fewer calls. diffrax has an environment of "
        "its own: benchmarks/speed_diffrax.py.",
        _adaptive,
        devices=("cpu",),
        dtypes=("float64",),
    ),
    Row(
        "evaluations",
        "Where adaptive solves evaluate, and their errors",
        "What the drift is asked for of sigma in [0.002, 80], in the same flow, and the median error over 256 samples "
        "against the exact one. Goals of sdekit: never outside, and an error of at most 10 tolerances.",
        _evaluations,
        devices=("cpu",),
        dtypes=("float64",),
    ),
)
