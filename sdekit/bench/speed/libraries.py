"""A step of a whole solve with default settings, against the same of other libraries, from their released packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit import solvers
from sdekit.bench.peers import kdiffusion
from sdekit.bench.speed.free import PROCESS, SHAPES, STEPS, FreeNetwork, drawn, times
from sdekit.bench.speed.others import installed, missing
from sdekit.bench.speed.reading import Reading, Row, Setting, of_rounds
from sdekit.bench.speed.timing import clocked, ratios, rounds_of
from sdekit.model import Model
from sdekit.solve import solve

__all__ = ["ROWS"]

_LIBRARIES = ("k-diffusion", "diffusers", "azula")
_GOALS = {"k-diffusion": 3.0, "diffusers": 4.0, "azula": 4.0}


def _peers(fixed: Tensor, x: Tensor) -> dict[str, Callable[[], float]]:
    """Seconds per step of a whole call of other libraries, their grids made before; those installed only."""
    found: dict[str, Callable[[], float]] = {}
    sampling = kdiffusion.sampling()
    if sampling is not None:
        sigmas = torch.tensor(times(), dtype=x.dtype, device=x.device)
        run = lambda: sampling.sample_dpmpp_2m(lambda x, s: fixed, x, sigmas, disable=True)  # noqa: E731
        found["k-diffusion dpmpp_2m"] = lambda: clocked(run) / STEPS
    if installed("diffusers"):
        found["diffusers dpmpp_2m"] = _diffusers(fixed, x)
    if installed("azula"):
        found |= _azula(fixed, x)
    return found


def _diffusers(fixed: Tensor, x: Tensor) -> Callable[[], float]:
    module: Any = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_multistep")
    scheduler = module.DPMSolverMultistepScheduler(prediction_type="sample")

    def run() -> None:
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(fixed, t, state).prev_sample

    def measure() -> float:
        scheduler.set_timesteps(STEPS)
        return clocked(run) / STEPS

    return measure


def _azula(fixed: Tensor, x: Tensor) -> dict[str, Callable[[], float]]:
    denoisers: Any = importlib.import_module("azula.denoise")
    noises: Any = importlib.import_module("azula.noise")
    samplers: Any = importlib.import_module("azula.sample")

    class Free(denoisers.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = noises.VESchedule(0.002, 80.0)

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            return denoisers.DiracPosterior(mean=fixed)

    ddim = samplers.DDIMSampler(Free(), steps=STEPS, silent=True)
    reab = samplers.REABSampler(Free(), order=2, steps=STEPS, silent=True)
    return {
        "azula ddim": lambda: clocked(lambda: ddim(x)) / STEPS,
        "azula reab, order 2": lambda: clocked(lambda: reab(x)) / STEPS,
    }


def _ours(name: str, net: FreeNetwork, x: Tensor) -> dict[str, Callable[[], float]]:
    """Ours in three ways: with a plan made before, by name, and from one network call to the next."""
    grid, model = times(), Model(net, PROCESS, "data")
    plan = solvers.get(name).plan(PROCESS, grid)
    planned = lambda: solve(model, x, grid, plan)  # noqa: E731
    return {
        f"planned {name}": lambda: clocked(planned) / STEPS,
        f"by name {name}": lambda: clocked(lambda: solve(model, x, grid, name)) / STEPS,
        f"in the loop {name}": lambda: net.per_step(planned),
    }


def _readings(shape: Sequence[int], setting: Setting) -> Iterator[Reading]:
    x, net = drawn(shape, setting), FreeNetwork(drawn(shape, setting))
    peers = _peers(net.out, x)
    ours = {**_ours("dpmpp_2m", net, x), **_ours("ddim", net, x)}
    found = rounds_of({**peers, **ours}, setting.rounds)
    for name in ("dpmpp_2m", "ddim"):
        yield of_rounds(f"{shape}", f"sdekit {name}, a step", [1e6 * s for s in found[f"planned {name}"]], "us")
    for library in peers:
        own = "ddim" if library.endswith("ddim") else "dpmpp_2m"
        goal = _GOALS[library.partition(" ")[0]]
        yield of_rounds(f"{shape}", f"{library}, a step", [1e6 * s for s in found[library]], "us")
        for kind in ("planned", "by name", "in the loop"):
            values = ratios(found[library], found[f"{kind} {own}"])
            quantity = f"{library} / sdekit {own}, {kind}"
            yield of_rounds(
                f"{shape}", quantity, values, goal=None if kind == "in the loop" else goal, sense="at least"
            )


def _measure(setting: Setting) -> Iterator[Reading]:
    yield from missing(*_LIBRARIES)
    for shape in SHAPES:
        yield from _readings(shape, setting)


ROWS = (
    Row(
        "libraries",
        "A step of other libraries / one of ours, with default settings",
        "Whole calls of 50 steps of a free network. Planned: with a plan made before, as the others' grids are. By "
        "name: planning on every call, where equal plans are remembered. In the loop: ours from one network call to "
        "the next. azula's DDIM is held against ours, the others against dpmpp_2m. With a real network of 5 ms a call "
        "the differences vanish, except where the state is large.",
        _measure,
        devices=("cpu",),
        dtypes=("float64", "float32"),
    ),
)
