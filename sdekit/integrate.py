"""Steppers with fixed steps: the general route, for dynamics given by drift and diffusion alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from torch import Tensor

from sdekit.calculus import LocalNoise, check_diffusion, columns_times
from sdekit.errors import InterfaceError, ModelOutputError, NonFiniteError, OptionError, SdekitError, ShapeError
from sdekit.execute.outputs import same_memory
from sdekit.increments import Increments
from sdekit.model import check_output
from sdekit.monitor import Monitor
from sdekit.noise import OWN, NoiseSource
from sdekit.sde import ODE, SDE
from sdekit.shapes import compute_dtype, time_like, uninitialised_like
from sdekit.solution import Partial, Run, StepInfo

__all__ = ["Dynamics", "Walk", "checked_step", "integrate"]


class _Stepper(Protocol):
    def step(self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Any, state: Any) -> Any: ...


class _Buffers:
    """Outputs of one function that a stepper may still hold.

    A function may rewrite one buffer at every call. Its first output is therefore copied; where the second lies in the
    same memory, all are copied from then on.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._first: Tensor | None = None
        self._copies: bool | None = None
        self._held: list[tuple[Tensor, int]] = []

    def next_step(self) -> None:
        """Forget what the last step held."""
        self._held.clear()

    def own(self, out: Tensor) -> Tensor:
        """`out`, or a copy where it would not stay as it is. Raises ModelOutputError where an earlier one did not."""
        if any(held._version != version for held, version in self._held):
            raise ModelOutputError(
                self.name,
                got="a call that changed the tensor returned by an earlier one",
                expected="outputs that stay as they were returned",
                fix="Return a new tensor from each call.",
            )
        if self._copies is None and not out.is_inference():
            if self._first is None:
                self._first = out
                return out.clone()
            # The first is still alive, so that its memory can be the second's only by intent.
            self._copies, self._first = same_memory(out, self._first), None
        if self._copies is not False:
            return out.clone()
        self._held.append((out, out._version))
        return out


class Dynamics:
    """An SDE or ODE as steppers see it: times may be floats, outputs are checked, drift calls are counted.

    Args:
        dynamics: the user's SDE or ODE.
        x: the start, for its dtype, in which the dynamics are called.
        limit: how many drift calls may be made.
        estimates: whether the errors that steps estimate are read.
    """

    def __init__(self, dynamics: SDE | ODE, x: Tensor, monitor: Monitor, limit: int, estimates: bool = False) -> None:
        self.dynamics, self.monitor, self.limit, self.estimates = dynamics, monitor, limit, estimates
        self.noise_type = dynamics.noise_type if isinstance(dynamics, SDE) else None
        self.dtype = x.dtype
        self.calls = 0
        self.step = 0
        self._buffers = {name: _Buffers(name) for name in ("drift", "diffusion", "diffusion_derivative")}

    def begin(self, step: int) -> None:
        """Enter a step."""
        self.step = step
        for buffers in self._buffers.values():
            buffers.next_step()

    def drift(self, t: float, x: Tensor) -> Tensor:
        """drift(t, x), checked. Raises OptionError where the limit of calls is reached."""
        if self.calls >= self.limit:
            raise OptionError(
                "max_nfe",
                got=f"a stepper that needs more than {self.limit} calls of the drift, in step {self.step}, t = {t:.8g}",
                expected="an end by then",
                fix="Raise max_nfe, or correct the stepper: it declares its calls as calls_per_step.",
            )
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        out = check_output(self._call("drift", t, point), point, "drift")
        self.monitor.output(out, point, self.step, t, self.calls)
        self.calls += 1
        return self._buffers["drift"].own(out)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """g(t, x) in the shape of its noise type, checked."""
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        out = check_diffusion(self._call("diffusion", t, point), point, self.noise_type)
        self._look(out, point, t)
        return self._buffers["diffusion"].own(out)

    def diffuse(self, t: float, x: Tensor, w: Tensor) -> Tensor:
        """g(t, x) w for an increment w: like x, or (B, m) for general noise."""
        return self.product(self.diffusion(t, x), w)

    def product(self, g: Tensor, w: Tensor) -> Tensor:
        """g w for a diffusion g that was found before."""
        return columns_times(g, w) if self.noise_type == "general" else g * w

    def local_noise(self, t: float, x: Tensor) -> LocalNoise:
        """g(t, x) as its `g`, checked, and its derivatives: one call of g.

        Raises:
            InterfaceError: for a g that torch cannot differentiate.
        """
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        noise = LocalNoise(self.dynamics, time_like(t, point), point, slopes=True)  # type: ignore[arg-type]
        self._look(noise.g, point, t)
        return noise

    def diffusion_derivative(self, t: float, x: Tensor) -> Tensor:
        """What the SDE's own `diffusion_derivative` gives, checked: of the shape of g."""
        point = x if x.dtype == self.dtype else x.to(self.dtype)
        out = check_diffusion(self._call("diffusion_derivative", t, point), point, self.noise_type)
        self._look(out, point, t)
        return self._buffers["diffusion_derivative"].own(out)

    def increment_shape(self, t: float, x: Tensor) -> tuple[int, ...]:
        """The shape of a Brownian increment; for general noise read off the diffusion, by one call of it."""
        return (len(x), self.diffusion(t, x).shape[-1]) if self.noise_type == "general" else tuple(x.shape)

    def _look(self, g: Tensor, point: Tensor, t: float) -> None:
        """For NaN and infinity, in each row."""
        if g.ndim == 0 or len(g) != len(point):
            g = g.expand(len(point), *g.shape[1:])
        self.monitor.output(g, point, self.step, t, self.calls)

    def _call(self, name: str, t: float, x: Tensor) -> Tensor:
        function: Callable[[Tensor, Tensor], Tensor] = getattr(self.dynamics, name)
        if x.is_inference():
            return function(time_like(t, x), x.clone())
        version = x._version
        out = function(time_like(t, x), x)
        if x._version != version:
            raise ModelOutputError(
                name,
                got="a change in place of its input",
                expected="an input that is left as it is",
                fix="Work on a copy: x = x.clone().",
            )
        return out


def integrate(
    dynamics: SDE | ODE,
    stepper: _Stepper,
    x: Tensor,
    times: Sequence[float],
    noise: NoiseSource | None,
    monitor: Monitor,
    *,
    limit: int,
    save: Collection[int] = (),
    callback: Callable[[StepInfo], Any] | None = None,
    advance: Callable[[int], Any] | None = None,
    parts: Sequence[range] | None = None,
) -> Run:
    """Step through a grid, either direction of time.

    Args:
        limit: how many drift calls may be made; OptionError beyond.
        parts: of the steps, at whose beginnings what the rest depends on is kept, for `sdekit.adjoint`.
        noise, save, callback, advance: as for `sdekit.execute.execute`, and so are the errors.
    """
    walk = Walk(Dynamics(dynamics, x, monitor, limit), stepper, x, times, noise, save)
    walk.callback, walk.advance = callback, advance
    y, state = walk.run.x, None
    for part in parts or [range(len(times) - 1)]:
        if parts is not None:
            walk.run.kept.append((part, y, state))
        y, state = walk.through(part, y, state)
        if walk.run.stopped:
            break
    walk.run.state = state
    _check_end(walk.run, x, times, monitor)
    return walk.run


class Walk:
    """One solve on its way through the grid; `sdekit.adjoint` goes it again."""

    callback: Callable[[StepInfo], Any] | None = None
    advance: Callable[[int], Any] | None = None

    def __init__(
        self,
        inner: Dynamics,
        stepper: _Stepper,
        x: Tensor,
        times: Sequence[float],
        noise: NoiseSource | None,
        save: Collection[int] = (),
    ) -> None:
        self.inner, self.stepper, self.times, self.save = inner, stepper, times, save
        self.noise = None if inner.noise_type is None else noise
        self.dtype = x.dtype
        self.run = Run(x.to(compute_dtype(x.dtype), copy=True), {0: x.clone()} if 0 in save else {})
        self.shape: tuple[int, ...] | None = None

    def through(self, part: range, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The steps of a part of the grid, from y and what the step before left."""
        run, inner, times = self.run, self.inner, self.times
        for i in part:
            t0, t1 = times[i], times[i + 1]
            try:
                y, state = self.step(inner, i, y, state)
                calls = inner.calls - run.nfe
                run.x, run.steps, run.nfe = y, i + 1, inner.calls
                if run.steps in self.save:
                    run.saved[run.steps] = y.to(self.dtype, copy=True)
                    inner.monitor.state(run.saved[run.steps], i, t1)
                if self.advance is not None:
                    self.advance(calls)
                if self.callback is not None:
                    info = StepInfo(i, t0, t1, y.to(self.dtype, copy=True), None, run.nfe)
                    if self.callback(info) is True:
                        run.stopped = True
                        break
            except BaseException as error:
                if isinstance(error, SdekitError):
                    error.partial = Partial(run.x.to(self.dtype), times[run.steps], inner.calls)
                error.add_note(f"raised in step {i}, from t = {t0:.8g}, of a sdekit solve")
                raise
        return y, state

    def step(self, inner: Dynamics, i: int, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step, with the noise that belongs to it."""
        inner.begin(i)
        increments = self.increments(inner, i, y)
        made = self.stepper.step(inner, self.times[i], self.times[i + 1], y, increments, state)
        y, _, state = checked_step(made, y)
        return y, state

    def increments(self, inner: Dynamics, i: int, y: Tensor) -> Increments | None:
        """The noise of a step, the same whenever it is asked for where the source is keyed."""
        if self.noise is None:
            return None
        t0, t1 = self.times[i], self.times[i + 1]
        self.shape = inner.increment_shape(t0, y) if self.shape is None else self.shape
        return _draw(self.noise, self.stepper, y, self.shape, i, t0, t1, inner.monitor)


def _check_end(run: Run, x: Tensor, times: Sequence[float], monitor: Monitor) -> None:
    """The last state, in the dtype in which it is returned: half precisions overflow there."""
    try:
        monitor.state(run.x.to(x.dtype), run.steps - 1, times[run.steps])
    except NonFiniteError as error:
        error.partial = Partial(run.x.to(x.dtype), times[run.steps], run.nfe)
        raise


def checked_step(result: Any, y: Tensor) -> tuple[Tensor, Any, Any]:
    """What a stepper returned. Raises InterfaceError or ShapeError: a plugin must not change shapes unnoticed."""
    fix = "Return StepResult(x, error, state), x like the state it was given."
    if not isinstance(result, tuple) or len(result) != 3 or not isinstance(result[0], Tensor):
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise InterfaceError("solver.step", got=got, expected="a tensor, an error or None, a state", fix=fix)
    if result[0].shape != y.shape or result[0].dtype != y.dtype:
        got = f"{result[0].dtype} of shape {tuple(result[0].shape)}"
        raise ShapeError("solver.step", got=got, expected=f"{y.dtype} of shape {tuple(y.shape)}", fix=fix)
    return result


def _draw(
    noise: NoiseSource, stepper: Any, y: Tensor, shape: tuple[int, ...], i: int, t0: float, t1: float, monitor: Monitor
) -> Increments:
    """W, and H and K where they are used: streams 0 to 2, scaled to variances h, h / 12, h / 720. Extra ones follow."""

    one = y.detach().new_zeros(())
    usual = one.expand(shape)

    def normal(stream: int, like: Tensor = usual) -> Tensor:
        z = noise.fill(uninitialised_like(like), i, stream)
        if not isinstance(noise, OWN):
            monitor.noise(z, i, t0)
        return z

    root = abs(t1 - t0) ** 0.5
    area, time_area = (bool(getattr(stepper, name, False)) for name in ("uses_area", "uses_time_area"))
    extra: Any = getattr(stepper, "extra_shapes", lambda shape: ())
    return Increments(
        normal(0) * root,
        normal(1) * (root / 12**0.5) if area else None,
        normal(2) * (root / 720**0.5) if time_area else None,
        tuple(normal(3 + k, one.expand(asked)) for k, asked in enumerate(extra(shape))),
    )
