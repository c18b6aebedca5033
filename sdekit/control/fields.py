"""What an adaptive solve integrates: an ODE in t, or the probability flow of a model in another variable.

Times stay on the host in float64; a sample's times are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.clocks import CLOCKS
from sdekit.control.nodes import Nodes
from sdekit.errors import ModelOutputError, OptionError
from sdekit.execute.outputs import same_memory
from sdekit.math.stages import combined, kernels
from sdekit.model import Model, check_output
from sdekit.parameterisation import Schedules
from sdekit.sde import ODE
from sdekit.shapes import compute_dtype

__all__ = ["Field", "FlowField", "ODEField"]


class ODEField:
    """dx/dt = drift(t, x).

    The drift may rewrite one buffer at every call: its first output is copied, and where the second lies in the same
    memory, all are.

    Args:
        times: where to go, from the start on.
    """

    def __init__(self, dynamics: ODE, x: Tensor, times: Sequence[float]) -> None:
        self.drift, self.dtype, self.computes = dynamics.drift, x.dtype, compute_dtype(x.dtype)
        self.device, self.ones = x.device, (1,) * (x.ndim - 1)
        self.counts = not torch.is_inference_mode_enabled()  # whether tensors count their changes
        self.sign = 1.0 if times[-1] > times[0] else -1.0
        self.goals = self.sign * np.asarray(times)
        self.one = np.ones(1)
        self.narrow = _Narrow(times) if self.computes == torch.float32 else None
        self.copied = False  # whether the caller copies what it is given
        self.copies: bool | None = None
        self.held: list[tuple[Tensor, int]] = []

    def start(self, n: int) -> tuple[Any, np.ndarray]:
        """What to pass on at the start, and the scale there."""
        return self._calls(np.full((1, n), self.sign * self.goals[0]))[0], self.one

    def nodes(
        self, u: np.ndarray, step: np.ndarray, scale: np.ndarray, goal: np.ndarray, lands: np.ndarray | None
    ) -> Nodes:
        """The points u (m, n) of steps of length `step` (n,); where `lands`, the last is the goal."""
        times = u if self.sign > 0 else -u
        gain = step if self.sign > 0 else -step
        return Nodes(times, [gain] * len(u), None, step, self.one, self._calls(times))

    def __call__(self, call: Any, point: Tensor, out: Tensor | None = None) -> Tensor:
        """The slope at a point (n, *shape), in its computing dtype; `out` may be used for it."""
        handed = point if self.dtype is self.computes else point.to(self.dtype)
        if not self.counts:
            return self.checked(self.drift(call, handed.clone()), point).clone()
        version = handed._version
        slope = self.checked(self.drift(call, handed), point)
        if handed._version != version:
            raise _changed("drift", "its input")
        if self.copied:
            return slope
        if self.copies or slope.is_inference() or (self.copies is None and self._decide(slope)):
            return slope.clone()
        self.held.append((slope, slope._version))
        return slope

    def checked(self, out: Any, point: Tensor) -> Tensor:
        """An output that looks like the state. Raises ModelOutputError."""
        usual = type(out) is Tensor and out.dtype is self.computes and out.shape == point.shape
        if usual and out.device == self.device and out.layout is torch.strided:
            return out
        return check_output(out, point, "drift")

    def check(self) -> None:
        """Raise where the drift has changed an output that is still in use."""
        for out, version in self.held:
            if out._version != version:
                raise _changed("drift", "the tensor returned by an earlier call")
        del self.held[:-1]  # the last slope is the next step's first

    def times(self, u: Any) -> np.ndarray:
        """t, of any shape."""
        return self.sign * np.asarray(u)

    def place(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """u at times, and the scale there: x is the scale times what is integrated; None where it is 1."""
        return self.sign * t, None

    def take(self, call: Any, rows: Tensor) -> Any:
        """What to pass on for some of the rows."""
        return call[rows]

    def select(self, rows: np.ndarray) -> None:
        """From now on, the batch is these samples of the original one."""

    def _decide(self, out: Tensor) -> bool:
        """Whether to copy this output: the first, and from the second on all where the memory is the same."""
        if not self.held:
            self.held.append((out, out._version))
            return True
        self.copies = same_memory(out, self.held.pop()[0])
        return self.copies

    def _calls(self, times: np.ndarray) -> Sequence[Tensor]:
        values = torch.from_numpy(times if self.narrow is None else self.narrow(times))
        if self.device.type != "cpu":
            values = values.to(self.device)
        return values.view(*times.shape, *self.ones).unbind(0)


class FlowField:
    """The probability flow of a model's process, in one of `CLOCKS`.

    Conditioning tensors whose first axis is the batch are cut with it.

    Raises:
        OptionError: where the clock is infinite at an end, or the network's prediction does not determine the slope.
    """

    def __init__(
        self, model: Model, x: Tensor, times: Sequence[float], clock: str, conditioning: Mapping[str, Any]
    ) -> None:
        self.copied = False
        self.own = type(model).predict is not Model.predict  # a model that answers any question by itself
        self.plain = not self.own and type(model).network is Model.network
        self.direct = self.plain and model.dtype is None and model.output is None
        """Whether what net returns is the prediction as it is."""
        self.model, self.process, self.clock = model, model.process, CLOCKS[clock]
        # Of the predictions a velocity alone is converted by the rates.
        self.rates = self.clock.rates or (not self.own and model.native == "velocity")
        self.dtype, self.computes, self.like = x.dtype, compute_dtype(x.dtype), x.new_zeros(())
        self.ends = np.asarray(times)
        values = _finite(self.clock.value(self.process, self.ends), clock, times)
        self.sign = 1.0 if values[-1] > values[0] else -1.0
        self.goals = self.sign * values
        self.low, self.high = min(times), max(times)
        self.conditioning: dict[str, Any] = {**model.conditioning, **conditioning}
        self.given = {k: v for k, v in self.conditioning.items() if _per_sample(v, len(x))}
        self._check_ends()

    def _at(self, times: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """The scale, and at each node what the network is told, the weights (2, m, n), and which of the m are its own.

        The weights are those of data and noise, or of x and the network's output.
        """
        schedules = self._schedules(times)
        scale, data, noise = self.clock.slope(schedules)
        t = torch.from_numpy(times)
        if not self.own:
            data, noise = self.model.convert((data, noise), schedules)
        inputs: Any = self.model.inputs(t, schedules, self.like) if self.plain else t.unbind()
        weights = torch.from_numpy(np.stack((data, noise)))
        return scale, [(told, weights, row) for row, told in enumerate(inputs)]

    def _schedules(self, times: np.ndarray) -> Schedules:
        """At these times, with the rates where they are read."""
        p = self.process
        needed = (p.alpha, p.sigma, p.alpha_rate, p.sigma_rate) if self.rates else (p.alpha, p.sigma)
        t = torch.from_numpy(np.ascontiguousarray(times))
        return Schedules(*(f(t).numpy() for f in needed), *(np.nan,) * (4 - len(needed)))

    def _check_ends(self) -> None:
        """That the network's prediction gives the slope at both ends."""
        if self.own:
            return
        ends = self.ends[[0, -1]]
        schedules = self._schedules(ends)
        _, data, noise = self.clock.slope(schedules)
        found = np.stack(self.model.convert((data, noise), schedules))
        for t, known in zip(ends.tolist(), np.isfinite(found).T.tolist(), strict=True):
            if not all(known):
                raise OptionError(
                    "times",
                    got=f"t = {t!r}, where {self.model!r} does not determine the flow",
                    expected="a time where it does",
                    fix="Move that end inside, or use a network that predicts 'v'.",
                )

    def start(self, n: int) -> tuple[Any, np.ndarray]:
        """What to pass on at the start, and the scale there."""
        scale, calls = self._at(np.full((1, n), self.ends[0]))
        return calls[0], scale[0]

    def nodes(
        self, u: np.ndarray, step: np.ndarray, scale: np.ndarray, goal: np.ndarray, lands: np.ndarray | None
    ) -> Nodes:
        times = self.clock.time(self.process, self.sign * u)
        if lands is not None:
            times[-1] = np.where(lands, self.ends[goal], times[-1])
        times = np.minimum(np.maximum(times, self.low), self.high)
        scales, calls = self._at(times)
        return Nodes(times, self.sign * step * scales, scales / scale, step * scales[-1], scales[-1], calls)

    def __call__(self, call: Any, point: Tensor, out: Tensor | None = None) -> Tensor:
        """The slope at a point (n, *shape), in its computing dtype; `out` may be used for it."""
        t, weights, row = call
        handed = point if point.dtype == self.dtype else point.to(self.dtype)
        version = None if handed.is_inference() else handed._version
        if self.own:
            data, noise = weights[:, row].numpy()
            slope = self.model.predict((data, noise), t, handed, **self.conditioning)
        else:
            raw = self._answer(t, handed)
            if self.copied:
                slope = combined(point, raw, weights, row, kernels(raw), out)
            else:
                slope = Nodes.column(weights[0, row], raw) * point + Nodes.column(weights[1, row], raw) * raw
        if version is not None and handed._version != version:
            raise _changed("net", "its input")
        return slope

    def _answer(self, t: Any, handed: Tensor) -> Tensor:
        """What the network says, checked."""
        if not self.plain:
            return self.model.network(t, handed, **self.conditioning)
        time, scale = t
        if scale is None and self.direct:
            return check_output(self.model.net(handed, time, **self.conditioning), handed, "net")
        return self.model.answer(
            handed, time, None if scale is None else Nodes.tensor(scale, handed), self.conditioning
        )

    def check(self) -> None:
        """Nothing to do: predictions are new tensors."""

    def times(self, u: Any) -> np.ndarray:
        """t, of any shape."""
        t = self.clock.time(self.process, self.sign * np.asarray(u))
        return np.minimum(np.maximum(t, self.low), self.high)

    def place(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """u at times, and the scale there: x is the scale times what is integrated."""
        return self.sign * self.clock.value(self.process, t), self.clock.slope(self._schedules(t))[0]

    def take(self, call: Any, rows: Tensor) -> Any:
        """What to pass on for some of the rows."""
        at, (t, weights, row) = rows.cpu(), call
        told = (t[0][rows], None if t[1] is None else t[1][at.numpy()]) if self.plain else t[at]
        return told, weights[:, row : row + 1, at].contiguous(), 0

    def select(self, rows: np.ndarray) -> None:
        for name, value in self.given.items():
            self.conditioning[name] = value[torch.from_numpy(rows).to(value.device)]


Field = ODEField | FlowField


class _Narrow:
    """float32 times that stay inside the interval: rounding to the nearest would leave it by half an ulp."""

    def __init__(self, times: Sequence[float]) -> None:
        low, high = min(times), max(times)
        self.low, self.high = np.float32(low), np.float32(high)
        if float(self.low) < low:
            self.low = np.nextafter(self.low, np.float32(np.inf))
        if float(self.high) > high:
            self.high = np.nextafter(self.high, np.float32(-np.inf))

    def __call__(self, times: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(times.astype(np.float32), self.low), self.high)


def _changed(source: str, what: str) -> ModelOutputError:
    return ModelOutputError(
        source,
        got=f"a change in place of {what}",
        expected="inputs and outputs that are left as they are",
        fix="Work on a copy, and return a new tensor from each call.",
    )


def _finite(values: np.ndarray, clock: str, times: Sequence[float]) -> np.ndarray:
    """The clock at the times. Raises OptionError where it is infinite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise OptionError(
            "clock",
            got=f"{clock!r}, which is infinite at t = {times[bad[0]]!r}",
            expected="a clock that is finite at all times",
            fix="Move that time inside, or use sdekit.solvers.get('rk45', adaptive_clock='theta'), whose clock is "
            "finite wherever the process is.",
        )
    return values


def _per_sample(value: Any, batch: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == batch
