"""One entry for every solver: all checks first, then the plan route or the step route."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdekit.brownian import BrownianPath
from sdekit.control import adapt_sde
from sdekit.errors import InterfaceError, NonFiniteError, OptionError, UnknownNameError, suggest
from sdekit.execute import compile_plan, execute
from sdekit.gradients import run_steps, with_gradients
from sdekit.model import Model
from sdekit.monitor import Monitor
from sdekit.noise import NAMES, NoiseSource, make_noise
from sdekit.observed import Wishes, adapt_ode, with_wishes
from sdekit.plan import Plan
from sdekit.plan.coefficients import check_fits
from sdekit.problem import Problem, check_noise, path_clock, path_noise, prepare, with_saved
from sdekit.progress import progress_bar
from sdekit.sde import ODE, SDE
from sdekit.seeds import resolve_seed
from sdekit.shapes import check_state
from sdekit.solution import AdaptiveRun, Run, Solution, Status, StepInfo
from sdekit.solvers.base import Solver
from sdekit.solvers.controller import as_controller
from sdekit.times import times_as_floats
from sdekit.tolerances import check_tolerance
from sdekit.version import __version__

__all__ = ["solve"]

_CHECKS = ("full", "end", "off")
_FAILURE = ("raise", "mask")


def solve(
    dynamics: SDE | ODE | Model,
    x: Tensor,
    times: Sequence[float] | Tensor,
    solver: str | Solver | Plan,
    *,
    steps: int | None = None,
    seed: int | torch.Generator | None = None,
    noise: str | NoiseSource = "step",
    sample_ids: Tensor | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_nfe: int | None = None,
    save: str | Sequence[float] | Tensor = "final",
    on_failure: str = "raise",
    checks: str = "full",
    gradients: str = "direct",
    dense: bool = False,
    event: Callable[[Tensor, Tensor], Tensor] | None = None,
    step_times: Sequence[float] | Tensor | None = None,
    jump_times: Sequence[float] | Tensor | None = None,
    callback: Callable[[StepInfo], Any] | None = None,
    progress: Any = None,
    **conditioning: Any,
) -> Solution:
    """Solve an SDE, an ODE or a model's process from x at times[0] to times[-1].

    Args:
        dynamics: an SDE, an ODE, the reverse or flow of a process, or a Model, which stands for its process run in
            reverse with the stochasticity that the solver's name implies, else 0.
        x: the start (B, *shape); not changed.
        times: the grid, or its two ends together with `steps`. Samplers go down in time.
        solver: a registered name, a solver object or a Plan.
        steps: the number of steps between two ends, on the process's default grid, or equal steps in t.
        seed: an int, a torch.Generator, or None, which draws one integer from torch's generator and records it.
        noise: "step", keyed by (seed, sample id, step); "path", one Brownian path per (seed, sample id) for any grid;
            "plain", torch's generator; or an object with fill(out, step, stream).
        sample_ids: (B,) integers that key each sample's noise; default 0..B-1.
        rtol, atol: tolerances, with which adaptive solvers choose the steps of each sample for itself: the root mean
            square over the sample of error / (atol + rtol |x|) is at most 1 in every step. `times` are then the two
            ends, and times between them that are landed on exactly. One left out: atol is as rtol, and rtol is 0.
            Without both, steps are fixed. An SDE takes them with any stepper of strong order 1 or more on its noise;
            its noise is then that of noise="path", whose values a rejected step sees again.
        max_nfe: the most model calls. With fixed steps a solve that would make more is not started; with adaptive ones
            a sample that would make more fails.
        save: "final", "all" of `times`, or a list of times whose states are kept in `xs`: of the grid with fixed steps,
            any between the ends with adaptive ones.
        on_failure: "raise", or "mask": rows that fail become NaN with their status set, the others are not affected.
        checks: "full" looks at every model output for NaN, "end" once at the end (a failure is then located by running
            again), "off" never.
        gradients: "direct", through all operations; "checkpoint", with the same bits and the memory of about sqrt(N) of
            N fixed steps (of a plan: of no network call), for one more evaluation; or "adjoint", by solving back, where
            the solver can: see `sdekit.gradients`.
        dense: for adaptive solves of an ODE or of a model's flow: the solution has states at any time, see
            `Solution.at`.
        event: for those: a function event(t, x) with one value for each sample, t as the drift gets it; it is asked of
            some of the samples at a time. A sample ends where its value changes sign between the ends of a step,
            located on the dense output; its status is EVENT, its state and `event_t` those of the event, and what was
            to be saved later is NaN.
        step_times: for adaptive solves: times on which steps end exactly, beside those of `times`, and which are not
            saved.
        jump_times: for adaptive solves, of SDEs too: times at which the drift or the diffusion jumps. Steps end there.
            No function is called across within a step: what is asked for at a jump is asked for at the number next to
            it, in the dtype of the times that it is given, on the side on which the step lies.
        callback: called with a `StepInfo` after each step; returning True stops.
        progress: True for a progress bar, or an object with update(n).
        **conditioning: passed to the network at every call.

    Returns:
        A `Solution`.

    Raises:
        SdekitError: before the first model call, for anything that cannot be solved as asked; NonFiniteError during
            it, naming sample, step and time.
    """
    problem = prepare(dynamics, times, solver, steps=steps, rtol=rtol, atol=atol, max_nfe=max_nfe)
    check_state(x)
    if problem.tolerance is not None:
        check_tolerance(problem.tolerance, x.dtype)
        problem = with_saved(problem, save)
    _check_choice("on_failure", on_failure, _FAILURE)
    _check_choice("checks", checks, _CHECKS)
    problem = with_gradients(problem, gradients, noise)
    _check_callable("callback", callback)
    _check_conditioning(problem, conditioning)
    kept = [problem.times[i] for i in _saved_indices(save, problem.times)]
    problem, wishes = with_wishes(problem, dense, event, jump_times, step_times)
    saved = [problem.times.index(t) for t in kept]
    problem = check_noise(problem, x)
    if problem.plan is not None and problem.model is not None:
        for coefficient in compile_plan(problem.plan, problem.model).shaped:
            check_fits(coefficient, tuple(x.shape[1:]))
    _check_noise(noise, seed, sample_ids, x)
    follows = problem.tolerance is not None and problem.stochastic
    if follows:
        noise = path_noise(problem, noise)
    clock = path_clock(problem) if noise == "path" and problem.stochastic else problem.times
    # Only named noise is keyed; a deterministic solve and a noise object leave torch's generator alone.
    key = resolve_seed(seed) if problem.stochastic and isinstance(noise, str) else None

    def run(level: str, first: bool) -> tuple[Run | AdaptiveRun, Monitor]:
        moments = 3 if getattr(problem.solver, "uses_time_area", False) else 2
        source: Any = None
        if follows:
            ids = torch.arange(len(x)) if sample_ids is None else sample_ids
            source = partial(BrownianPath, key or 0, ids.to(x.device))
        elif problem.stochastic:
            streams = problem.streams
            source = make_noise(noise, key or 0, sample_ids, len(x), x.device, clock, moments, streams)
        monitor = Monitor(x, level, on_failure == "mask")
        monitor.state(x, 0, problem.times[0], "x")
        told = callback if first else None
        with progress_bar(progress if first else None, None if problem.tolerance else problem.calls) as advance:
            return _run(problem, wishes, x, source, monitor, saved, told, advance, conditioning), monitor

    try:
        result, monitor = run(checks, True)
    except NonFiniteError:
        if checks == "end":
            # One flag was read at the end: run again, with the same noise, to say where it began.
            run("full", False)
        raise
    provenance = _provenance(problem, wishes, x, key, noise if problem.stochastic else None, checks)
    return _solution(problem, x, result, monitor, saved, provenance)


def _check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        expected = ", ".join(repr(c) for c in choices)
        raise OptionError(argument, got=repr(value), expected=expected, fix=suggest(str(value), choices))


def _check_callable(argument: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise InterfaceError(argument, got=type(value).__name__, expected="a function or None", fix="Pass a callable.")


def _check_noise(noise: Any, seed: Any, sample_ids: Any, x: Tensor) -> None:
    """Checked for deterministic solvers too: a wrong value must not wait for the day the solver is changed."""
    if seed is not None and not isinstance(seed, torch.Generator):
        resolve_seed(seed)
    if sample_ids is not None or not isinstance(noise, str) or noise not in NAMES:
        make_noise(noise, 0, sample_ids, len(x), x.device)
    if sample_ids is not None and not (isinstance(noise, str) and noise in ("step", "path")):
        raise OptionError(
            "sample_ids",
            got=f"ids beside noise={noise!r}" if isinstance(noise, str) else "ids beside a noise object",
            expected="noise='step' or 'path', which are keyed by them",
            fix="Leave sample_ids out, or use noise='step'.",
        )


def _check_conditioning(problem: Problem, conditioning: dict[str, Any]) -> None:
    """Keywords that nothing would read are errors: mistyped options land here."""
    names = [*(problem.model.conditioning if problem.model is not None else ()), *conditioning]
    if not names:
        return
    known = [
        p for p in inspect.signature(solve).parameters if p not in ("dynamics", "x", "times", "solver", "conditioning")
    ]
    if problem.model is not None:
        accepted = _keywords(problem.model.net)
        if accepted is None:
            return
        unread = [name for name in names if name not in accepted]
        known += sorted(accepted)
    else:
        unread = names
    if unread:
        raise UnknownNameError(
            unread[0],
            got="an argument that neither solve nor the network takes",
            expected="a known one",
            fix=suggest(unread[0], known),
        )


def _keywords(net: Any) -> set[str] | None:
    """The names that a network takes by keyword; None if it takes any, or does not say."""
    try:
        parameters = inspect.signature(getattr(net, "forward", net)).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    # The first two positional ones are x and t, which the solver passes.
    given = {p.name for p in [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]}
    return {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)} - given


def _saved_indices(save: Any, times: list[float]) -> list[int]:
    last = len(times) - 1
    if isinstance(save, str):
        _check_choice("save", save, ("final", "all"))
        return [last] if save == "final" else list(range(last + 1))
    if isinstance(save, Sequence) or hasattr(save, "tolist"):
        wanted = times_as_floats(save, "save")
    else:
        raise InterfaceError(
            "save", got=repr(save), expected="'final', 'all' or times of the grid", fix="Pass a list of times."
        )
    if not wanted:
        raise OptionError("save", got="no times", expected="at least one time of the grid", fix="Use save='final'.")
    missing = [t for t in wanted if t not in times]
    if missing:
        raise OptionError(
            "save",
            got=f"t = {missing[0]!r}, which is not a grid time",
            expected="'final', 'all' or times of the grid",
            fix="Fixed steps land on grid times only: put the time into the grid.",
        )
    return sorted(times.index(t) for t in wanted)


def _run(
    problem: Problem,
    wishes: Wishes,
    x: Tensor,
    source: NoiseSource | None,
    monitor: Monitor,
    saved: list[int],
    callback: Callable[[StepInfo], Any] | None,
    advance: Callable[[int], Any] | None,
    conditioning: dict[str, Any],
) -> Run | AdaptiveRun:
    if problem.tolerance is not None:
        return _adapt(problem, wishes, x, source, monitor, saved, callback, advance, conditioning)
    if problem.plan is not None and problem.model is not None:
        return execute(
            compile_plan(problem.plan, problem.model),
            problem.model,
            x,
            source,
            monitor,
            save=saved,
            callback=callback,
            advance=advance,
            conditioning=conditioning,
        )
    return run_steps(problem, x, source, monitor, save=saved, callback=callback, advance=advance)


def _adapt(
    problem: Problem,
    wishes: Wishes,
    x: Tensor,
    path: Any,
    monitor: Monitor,
    saved: list[int],
    callback: Callable[[StepInfo], Any] | None,
    advance: Callable[[int], Any] | None,
    conditioning: dict[str, Any],
) -> AdaptiveRun:
    method: Any = problem.solver
    rtol, atol = problem.tolerance or (0.0, 0.0)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "limit": problem.limit, "save": saved}
    options |= {"callback": callback, "advance": advance}
    if method.own_steps:
        from sdekit.interop.rows import solve_rows

        return solve_rows(problem.dynamics, method, x, problem.times, monitor, **options)
    if path is not None:
        return adapt_sde(
            problem.dynamics,
            method,
            x,
            problem.times,
            path,
            monitor,
            order=problem.order,
            jumps=wishes.jumps,
            controller=getattr(method, "filter", None) or as_controller("pi"),
            **options,
        )
    return adapt_ode(problem, wishes, x, monitor, conditioning, **options)


def _adaptive_solution(
    problem: Problem, x: Tensor, run: AdaptiveRun, monitor: Monitor, saved: list[int], provenance: dict[str, Any]
) -> Solution:
    final, status = run.x, run.status.to(x.device)
    failed = monitor.failed & (status == int(Status.SUCCESS))  # found at the end only
    status[failed] = int(Status.NON_FINITE)
    if bool(monitor.failed.any()):
        shape = (-1, *(1,) * (x.ndim - 1))
        final = torch.where(monitor.failed.reshape(shape), torch.full_like(final, torch.nan), final)
    last = len(problem.times) - 1
    kept = [i for i in saved if i in run.saved and i != last]
    states, times = [run.saved[i] for i in kept], [problem.times[i] for i in kept]
    if last in saved or not kept:
        states, times = [*states, final], [*times, problem.times[-1]]
    nfe, steps, rejected = (v.to(x.device) for v in (run.nfe, run.steps, run.rejected))
    t = torch.tensor(times, dtype=torch.float64)
    event_t = None if run.event_t is None else run.event_t.to(x.device)
    return Solution(final, torch.stack(states), t, nfe, steps, rejected, status, "step", provenance, event_t, run.dense)


def _solution(
    problem: Problem, x: Tensor, run: Run | AdaptiveRun, monitor: Monitor, saved: list[int], provenance: dict[str, Any]
) -> Solution:
    if isinstance(run, AdaptiveRun):
        return _adaptive_solution(problem, x, run, monitor, saved, provenance)
    final = run.x.to(x.dtype)
    status = torch.full(
        (len(x),), int(Status.STOPPED if run.stopped else Status.SUCCESS), dtype=torch.int64, device=x.device
    )
    if monitor.mask and bool(monitor.failed.any()):  # reads the device: only where rows may have failed
        shape = (-1, *(1,) * (x.ndim - 1))
        final = torch.where(monitor.failed.reshape(shape), torch.full_like(final, torch.nan), final)
        status[monitor.failed] = int(Status.NON_FINITE)
    # The last state stands in for grid times that a stopped run did not reach only where it is the one asked for.
    kept = [i for i in saved if i in run.saved or i == run.steps]
    states = [final if i == run.steps else run.saved[i] for i in kept] or [final]
    times = [problem.times[i] for i in kept] or [problem.times[run.steps]]

    def per_sample(value: int) -> Tensor:
        return torch.full((len(x),), value, dtype=torch.int64, device=x.device)

    return Solution(
        x=final,
        xs=torch.stack(states),
        t=torch.tensor(times, dtype=torch.float64),
        nfe=per_sample(run.nfe),
        steps=per_sample(run.steps),
        rejected=per_sample(0),
        status=status,
        route="plan" if problem.plan is not None else "step",
        provenance=provenance,
    )


def _provenance(
    problem: Problem, wishes: Wishes, x: Tensor, key: int | None, noise: Any, checks: str
) -> dict[str, Any]:
    solver = problem.plan.solver if problem.plan is not None else problem.solver.label if problem.solver else ""
    return {
        "solver": solver,
        "dynamics": repr(problem.dynamics if problem.model is None else problem.model),
        "times": list(problem.times),
        "rtol, atol": problem.tolerance,
        "jump_times": sorted(wishes.jumps),
        "seed": key,
        "noise": noise if noise is None or isinstance(noise, str) else repr(noise),
        "checks": checks,
        "gradients": problem.gradients,
        "dtype": str(x.dtype),
        "device": str(x.device),
        "shape": tuple(x.shape),
        "versions": {"sdekit": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
