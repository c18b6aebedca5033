"""A GIF of particles on their way from noise to data, in the plane: a sampler beside the exact flow."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import torch
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from sdekit import grids, processes, solvers, targets
from sdekit.affine import AffineSDE
from sdekit.bench.escape import in_figure
from sdekit.bench.files import write_as_asked
from sdekit.errors import OptionError, ShapeError, UnknownNameError, suggest
from sdekit.plan import Plan
from sdekit.solve import solve
from sdekit.solvers.base import PlanSolver
from sdekit.targets import ExactModel, GaussianMixture

__all__ = ["Motion", "animate", "motion"]

_MOST_CALLS = 1000
_MOST_PARTICLES = 5000
_TOLERANCE = 1e-9  # of the exact flow; a pixel is 1e-3
_FRAMES = 61
_PER_SECOND = 6
_HELD = 12  # frames for which the last one stays
_LARGEST = 2_000_000  # bytes
_DPI = (100, 80, 60)
_PIXELS = 201  # of the density, in each direction
_MASS = (0.99, 0.9, 0.7, 0.5, 0.25)
_SHADES = ("#e4eef7", "#cddff0", "#b0cde6", "#8fb8da", "#6fa3cc")
_PARTICLE, _TRAIL = "#c24400", "#00000038"  # orange on blue, which all readers tell apart


@dataclass(frozen=True)
class Motion:
    """Particles at the times of a grid.

    Attributes:
        model: the target under the process.
        times: decreasing, (n,).
        calls: model calls made until each of them.
        found: (n, particles, 2): where the sampler has them.
        exact: the same of the exact flow from the same starts; of a stochastic sampler, exact draws at each time.
        stochastic: whether the sampler draws noise of its own.
    """

    model: ExactModel
    times: tuple[float, ...]
    calls: tuple[int, ...]
    found: Tensor
    exact: Tensor
    stochastic: bool


def animate(
    target: str = "ring",
    process: str = "edm",
    solver: str = "dpmpp_2m",
    calls: int = 20,
    out: Path = Path("flow.gif"),
    *,
    grid: str | None = None,
    particles: int = 300,
    seed: int = 0,
) -> Path:
    """Write a GIF of at most 2 MB: on the left the sampler, on the right the exact flow of the same starts.

    Behind the particles are the regions of the exact marginal that hold 25 to 99 % of its mass. Coordinates are those
    of x about the marginal's mean, scaled so that its mean variance is the data's at every time. A frame is a time of
    the grid. The same arguments give the same bytes with the same versions of matplotlib and Pillow.

    Args:
        target: a function of `sdekit.targets` that makes a target in the plane without options.
        process: a process of `sdekit` that needs no options.
        solver: a registered sampler. One that draws noise is shown beside exact draws of each marginal.
        calls: the most model calls; as many steps are made as they allow.
        out: the file, ending in .gif.
        grid: the name of a grid; by default the process's.
        particles: how many, at most 5000.
        seed: of the starts and of the sampler's noise.

    Raises:
        UnknownNameError: for a name that nothing is known under.
        ShapeError: for a target that is not in the plane.
        OptionError: for anything else that cannot be done as asked; all before the first model call.
    """
    path = _checked_path(out)
    moved = motion(target, process, solver, calls, grid=grid, particles=particles, seed=seed)
    heading = f"{target} under {process}"
    for dpi in _DPI:
        content = _gif(moved, heading, solver, dpi)
        if len(content) <= _LARGEST:
            break
    else:
        got = f"a file of {len(content)} bytes"
        raise OptionError("calls, particles", got=got, expected=f"at most {_LARGEST}", fix="Lower them.")
    write_as_asked(path, content)
    return path


def motion(
    target: str, process: str, solver: str, calls: int, *, grid: str | None = None, particles: int = 300, seed: int = 0
) -> Motion:
    """What `animate` draws; its arguments and errors."""
    _check_number("calls", calls, _MOST_CALLS)
    _check_number("particles", particles, _MOST_PARTICLES)
    model = _target(target).under(_process(process))
    plan = _plan(solver, model.process, model.process.default_grid if grid is None else grid, calls)
    counts = [0]
    with torch.no_grad():
        start = model.sample(plan.times[0], particles, seed)
        found = solve(
            model, start, plan.times, plan, seed=seed, save="all", callback=lambda step: counts.append(step.nfe)
        ).xs
        exact = _draws(model, plan.times, particles, seed) if plan.stochastic else _flow(model, start, plan.times)
    shown = np.unique(np.linspace(0, len(plan.times) - 1, min(len(plan.times), _FRAMES)).round()).astype(int).tolist()
    times, made = ([values[i] for i in shown] for values in (plan.times, counts))
    return Motion(model, tuple(times), tuple(map(int, made)), found[shown], exact[shown], plan.stochastic)


def _flow(model: ExactModel, start: Tensor, times: Sequence[float]) -> Tensor:
    return solve(model, start, times, "dop853", rtol=_TOLERANCE, atol=_TOLERANCE, save="all").xs


def _draws(model: ExactModel, times: Sequence[float], particles: int, seed: int) -> Tensor:
    """Draws of each marginal: of the same data and the same noise, so that the eye can follow them."""
    return torch.stack([model.sample(t, particles, seed) for t in times])


# What was asked for


def _checked_path(out: Path) -> Path:
    if out.suffix.lower() != ".gif":
        raise OptionError("--out", got=str(out), expected="a file that ends in .gif", fix="Rename it.")
    return out


def _check_number(argument: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise OptionError(f"--{argument}", got=repr(value), expected=f"an integer from 1 to {most}", fix="Change it.")


def _target(name: str) -> GaussianMixture:
    known = {key: getattr(targets, key) for key in targets.__all__ if key.islower()}
    target = _made("target", name, known)
    if target.shape != (2,):
        got = f"{name}, in {target.size} dimensions"
        raise ShapeError("--target", got=got, expected="a target in the plane", fix="Choose ring, for example.")
    return target


def _process(name: str) -> AffineSDE:
    """By its class, or as suites call it: RectifiedFlow or rectified_flow."""
    known = {_folded(key): getattr(processes, key) for key in processes.__all__}
    return _made("process", _folded(name), known)


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _made(kind: str, name: str, known: dict[str, Any]) -> Any:
    usable = [key for key, make in known.items() if not _needed(make)]
    if name not in known:
        expected = f"one of {', '.join(usable)}"
        raise UnknownNameError(f"--{kind}", got=repr(name), expected=expected, fix=suggest(name, usable))
    if name not in usable:
        got = f"{name}, which needs {', '.join(_needed(known[name]))}"
        raise OptionError(f"--{kind}", got=got, expected=f"one of {', '.join(usable)}", fix="Choose another.")
    return known[name]()


def _needed(make: Any) -> list[str]:
    found = inspect.signature(make).parameters.values()
    return [p.name for p in found if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _plan(name: str, process: AffineSDE, grid: str, calls: int) -> Plan:
    """That of the most steps which make no more than so many calls; a last one may make none."""
    solver = solvers.get(name)
    if not isinstance(solver, PlanSolver):
        got = f"{name}, which needs {solvers.info(name).needs}"
        fix = "Choose another: dpmpp_2m, for example."
        raise OptionError("--solver", got=got, expected="a sampler of models with fixed steps", fix=fix)
    make = grids.get(grid)
    for steps in range(calls + 1, 0, -1):
        plan = solver.plan(process, make(process, steps))
        if plan.nfe <= calls:
            return plan
    expected = f"at least {plan.nfe}, those of one step of {name}"
    raise OptionError("--calls", got=repr(calls), expected=expected, fix="Raise them.")


# The picture


@dataclass(frozen=True)
class _View:
    """u = (x - alpha mean) / c with c^2 = alpha^2 + sigma^2 / variance, in a square about 0."""

    mean: Tensor
    variance: float
    half: float

    def shown(self, model: ExactModel, t: float, x: Tensor) -> np.ndarray:
        alpha, scale = self._scales(model, t)
        return ((x - alpha * self.mean) / scale).numpy()

    def mass(self, model: ExactModel, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Places (n,) along each axis, and at each of the n x n the least mass of a region that reaches it."""
        alpha, scale = self._scales(model, t)
        places = torch.linspace(-self.half, self.half, _PIXELS, dtype=torch.float64)
        u = torch.cartesian_prod(places, places)
        density = model.log_prob(t, alpha * self.mean + scale * u).exp().reshape(_PIXELS, _PIXELS).T.numpy()
        order = np.argsort(-density, axis=None, kind="stable")
        held = np.zeros(density.size)
        held[order] = np.cumsum(density.ravel()[order])
        return places.numpy(), (held / held.max()).reshape(density.shape)

    def _scales(self, model: ExactModel, t: float) -> tuple[float, float]:
        alpha, sigma = (float(f(t)) for f in (model.process.alpha, model.process.sigma))
        return alpha, math.sqrt(alpha**2 + sigma**2 / self.variance)


def _view(target: GaussianMixture) -> _View:
    variance = float(torch.trace(target.cov)) / 2
    reach = float((target.sample(2000, 0) - target.mean).abs().max())
    return _View(target.mean, variance, max(1.08 * reach, 2.8 * math.sqrt(variance)))


def _gif(moved: Motion, heading: str, solver: str, dpi: int) -> bytes:
    with matplotlib.rc_context(), matplotlib.style.context("default"), tempfile.TemporaryDirectory() as folder:
        figure = Figure(figsize=(8.0, 4.75))
        axes = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.03, right=0.97, bottom=0.09, top=0.8, wspace=0.06)
        view, path = _view(moved.model.target), Path(folder) / "flow.gif"
        writer = PillowWriter(fps=_PER_SECOND)
        with writer.saving(figure, str(path), dpi):
            for i in range(len(moved.times)):
                _frame(figure, list(axes), view, moved, i, heading, solver)
                for _ in range(_HELD if i + 1 == len(moved.times) else 1):
                    writer.grab_frame()
        return path.read_bytes()


def _frame(figure: Figure, axes: list[Axes], view: _View, moved: Motion, i: int, heading: str, solver: str) -> None:
    t = moved.times[i]
    places, mass = view.mass(moved.model, t)
    beside = "exact draws\nof each marginal" if moved.stochastic else "exact flow\nof the same starts"
    for axis, states, title in zip(
        axes, (moved.found, moved.exact), (_made_so_far(moved, i, solver), beside), strict=True
    ):
        axis.clear()
        axis.contourf(places, places, mass, levels=[0.0, *_MASS[::-1]], colors=_SHADES[::-1])
        now = view.shown(moved.model, t, states[i])
        if i:
            before = view.shown(moved.model, moved.times[i - 1], states[i - 1])
            axis.add_collection(LineCollection(list(np.stack([before, now], 1)), colors=_TRAIL, linewidths=0.6))
        axis.scatter(*now.T, s=7, color=_PARTICLE, linewidths=0, zorder=3)
        axis.set(xlim=(-view.half, view.half), ylim=(-view.half, view.half), aspect="equal", xticks=[], yticks=[])
        axis.set_title(title, loc="left", fontsize=11)
    for text in list(figure.texts):
        text.remove()
    figure.text(0.03, 0.94, f"{heading}: t = {t:.3g}", fontsize=14)
    shades = ", ".join(f"{100 * mass:g}" for mass in _MASS[::-1])
    note = f"x scaled to the data's spread; shades: regions that hold {shades} % of the exact law"
    if not moved.stochastic:
        note += "; error: relative distance of the two"
    figure.text(0.03, 0.03, note, fontsize=8, color="#444444")


def _made_so_far(moved: Motion, i: int, solver: str) -> str:
    calls = f"{in_figure(solver)}\n{moved.calls[i]} of {moved.calls[-1]} model calls"
    if moved.stochastic:
        return calls
    distance = float((moved.found[i] - moved.exact[i]).norm() / moved.exact[i].norm())
    return f"{calls}, error {distance:.2g}"
