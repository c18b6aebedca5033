"""A network as a model of a process: whatever it predicts, it answers in data, noise, score, velocity or v."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, ModelOutputError, OptionError, suggest
from sdekit.parameterisation import PREDICTIONS, EDMPreconditioning, Schedules, convert, weights
from sdekit.sde import check_two_arguments
from sdekit.shapes import check_dtype, check_state, compute_dtype, expand_time, finite_number, time_like

__all__ = ["Model", "ScoreModel", "Weights", "check_output"]

Weights = tuple[float, float] | tuple[np.ndarray, np.ndarray]
"""A prediction as its weights on (data, noise), at one time or at several."""


class Model:
    """A network and the process it was trained for.

    Args:
        net: called as net(x, t, **conditioning) with x (B, *shape) and t (B,); returns a tensor of x's shape.
        process: the affine process.
        predicts: what net returns: "noise" (epsilon, the default), "data" (x_0), "score", "velocity" (dx/dt of the
            probability flow) or "v" (alpha eps - sigma x_0). Not to be given with `precondition`.
        time_map: a function from our times to the network's, elementwise on a float64 tensor; None passes t itself
            (with `precondition`, its own time).
        precondition: "edm" or an `EDMPreconditioning`, for a raw network F inside Karras et al.'s wrapper.
        dtype: the dtype in which net is called; None calls it in x's dtype.
        output: picks the prediction out of what net returns, for example `lambda out: out.sample`.

    Raises:
        InterfaceError: for a net that is not callable or a process that is not affine.
        OptionError: for an unknown prediction or precondition.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        process: AffineSDE,
        predicts: str | None = None,
        *,
        time_map: Callable[[Tensor], Tensor] | None = None,
        precondition: str | EDMPreconditioning | None = None,
        dtype: torch.dtype | None = None,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        _check_interface(net, process, time_map, output)
        if not isinstance(self, ScoreModel):
            check_two_arguments("net", net, time_first=False)
        if dtype is not None:
            check_dtype(dtype)
        self.net, self.process, self.time_map, self.dtype, self.output = net, process, time_map, dtype, output
        self.conditioning: Mapping[str, Any] = {}
        self.native = _native(predicts, precondition)
        self.predicts = self.native if isinstance(self.native, str) else "data"

    def network(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """What net returns at (t, x), checked and in x's computing dtype; the native prediction, not yet converted.

        Args:
            t: a float for the whole batch (the fast path) or a tensor of shape (), (B,) or (B, 1, ..., 1).
            x: (B, *shape).

        Raises:
            ModelOutputError: for anything that is not a real tensor of x's shape on x's device.
        """
        scale = None
        if isinstance(self.native, EDMPreconditioning):
            scale = self._spread(self.native.input_scale(self._schedules(t)), t, x)
        if self.conditioning:
            conditioning = {**self.conditioning, **conditioning}
        return self.answer(x, self._network_time(t, x), scale, conditioning)

    def answer(self, x: Tensor, time: Tensor, scale: Any, conditioning: Mapping[str, Any]) -> Tensor:
        """What net returns for its own time (B,) and an input scaled by `scale` where that is not None; checked."""
        point = x if scale is None else (x * scale).to(x.dtype)
        if self.dtype is not None:
            point, time = point.to(self.dtype), time.to(self.dtype)
        out = self.net(point, time, **conditioning)
        return check_output(out if self.output is None else self.output(out), x, "net")

    def network_times(self, times: Sequence[float], x: Tensor) -> list[tuple[Tensor, float | None]]:
        """For each time what `answer` needs: the network's own time for a batch like x, and the scale of its input.

        Made at once they cost a fifth of what they cost one by one.
        """
        t = torch.tensor(times, dtype=torch.float64)
        scales: list[float | None] = [None] * len(times)
        if isinstance(self.native, EDMPreconditioning):
            scales = self.native.input_scale(self._schedules(t)).tolist()
        return list(zip(_time_rows(self._mapped(t), x), scales, strict=True))

    def inputs(self, t: Tensor, schedules: Schedules, x: Tensor) -> list[tuple[Tensor, np.ndarray | None]]:
        """As `network_times` for times (m, B), one for each sample, at which the schedules are known; scales (B,)."""
        table = self._mapped(t).to(x.device, compute_dtype(x.dtype))
        scales: Sequence[np.ndarray | None] = [None] * len(t)
        if isinstance(self.native, EDMPreconditioning):
            scales = list(self.native.input_scale(schedules))
        return list(zip(table.unbind(), scales, strict=True))

    def coefficients(self, want: str | Weights, t: float) -> tuple[float, float]:
        """(y, m) with `want` = y x + m network(t, x); `want` is a prediction's name or its weights on (data, noise)."""
        y, m = self._convert(want, self._schedules(t))
        return float(y), float(m)

    def convert(self, weights: tuple[np.ndarray, np.ndarray], schedules: Schedules) -> tuple[np.ndarray, np.ndarray]:
        """(y, m) for p data + q noise at many times at once; not finite where the prediction does not determine it."""
        return convert(self.native, *weights, schedules)

    def predict(self, want: str | Weights, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """Any prediction at (t, x): y x + m network(t, x).

        Args:
            want: a prediction's name, or its weights on (data, noise): numbers, or arrays with one entry per time.
            t, x: as for `network`.

        Raises:
            InterfaceError, ShapeError: for an x that is no state, or a t that is no time.
            OptionError: where the native prediction cannot give `want` (noise gives no data at alpha = 0), and, for a
                prediction by name, for times outside the process, as far as they need not be read from a device.
        """
        if isinstance(want, str):
            check_state(x)
            self._check_time(t, read=want != self.native)
            if want == self.native:
                return self.network(t, x, **conditioning)
        y, m = self._convert(want, self._schedules(t))
        if not (np.isfinite(y).all() and np.isfinite(m).all()):
            raise OptionError(
                "t",
                got=f"a time where {self._native_name} does not determine {want}",
                expected="a time inside the open range of the process",
                fix="Move t off the singular end, or use a network that predicts 'v', which is defined at both ends.",
            )
        raw = self.network(t, x, **conditioning)
        return self._spread(y, t, x) * x.to(raw.dtype) + self._spread(m, t, x) * raw

    def data(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """E[x_0 | x_t = x], same shape as x."""
        return self.predict("data", t, x, **conditioning)

    def noise(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """E[eps | x_t = x], same shape as x."""
        return self.predict("noise", t, x, **conditioning)

    def score(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """grad log p_t(x), same shape as x."""
        return self.predict("score", t, x, **conditioning)

    def velocity(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """dx/dt of the probability flow at (t, x), same shape as x."""
        return self.predict("velocity", t, x, **conditioning)

    def v(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        """alpha eps - sigma x_0 (Salimans and Ho, ICLR 2022), same shape as x."""
        return self.predict("v", t, x, **conditioning)

    def bind(self, **conditioning: Any) -> Model:
        """The same model with these keyword arguments passed to net at every call."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.conditioning = {**self.conditioning, **conditioning}
        return bound

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._native_name}, {self.process!r})"

    @property
    def _native_name(self) -> str:
        return f"predicts={self.native!r}" if isinstance(self.native, str) else f"precondition={self.native!r}"

    def _check_time(self, t: float | Tensor, *, read: bool) -> None:
        """Numbers must lie in the domain, and tensors in the host's memory as well, where their values are read."""
        low, high = self.process.domain
        if not isinstance(t, Tensor):
            inside = finite_number("t", t) >= low and t <= high
        else:
            # Compared in the dtype of t, in which an end may be rounded outwards.
            inside = not read or t.device.type != "cpu" or bool(((t >= low) & (t <= high)).all())
        if not inside:
            got = f"{t:g}" if not isinstance(t, Tensor) else f"times from {float(t.min()):g} to {float(t.max()):g}"
            raise OptionError("t", got=got, expected=f"a time in [{low:g}, {high:g}]", fix="Choose one inside.")

    def _schedules(self, t: float | Tensor) -> Schedules:
        p = self.process
        columns = (p.alpha(t), p.sigma(t), p.alpha_rate(t), p.sigma_rate(t))
        return Schedules(*(c.detach().cpu().numpy() for c in columns))

    def _convert(self, want: str | Weights, s: Schedules) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(want, str):
            if want == self.native:
                return np.zeros_like(s.alpha), np.ones_like(s.alpha)
            if want not in PREDICTIONS:
                raise OptionError("want", got=repr(want), expected="a prediction", fix=suggest(want, PREDICTIONS))
            p, q = weights(want, s)
        else:
            p, q = (np.asarray(w, dtype=np.float64) for w in want)
            if p.ndim:
                p, q = p.reshape(s.alpha.shape), q.reshape(s.alpha.shape)
        return convert(self.native, p, q, s)

    def _network_time(self, t: float | Tensor, x: Tensor) -> Tensor:
        """(B,) times for net, mapped in float64 and then cast; a float never crosses to the device as a tensor."""
        dtype = compute_dtype(x.dtype)
        if not isinstance(t, Tensor):
            return x.new_full((x.shape[0],), self._map_time(t), dtype=dtype)
        time = self._mapped(expand_time(t, x))
        return time.to(x.device, dtype).reshape(-1).expand(len(x)).contiguous()

    def _map_time(self, t: float) -> float:
        if self.time_map is None and isinstance(self.native, str):
            return t
        return float(self._mapped(torch.tensor(t, dtype=torch.float64)))

    def _mapped(self, t: Tensor) -> Tensor:
        if self.time_map is not None:
            return self._checked_times(self.time_map(t.to(torch.float64)), t)
        if isinstance(self.native, EDMPreconditioning):
            return torch.from_numpy(np.atleast_1d(self.native.network_time(self._schedules(t)))).reshape(t.shape)
        return t

    def _checked_times(self, mapped: Any, t: Tensor) -> Tensor:
        """What time_map returned; a finite one can be told apart from a fault of the network."""
        if isinstance(mapped, (int, float)) and not isinstance(mapped, bool):
            mapped = torch.tensor(mapped, dtype=torch.float64)
        if not isinstance(mapped, Tensor) or mapped.shape != t.shape or not bool(torch.isfinite(mapped).all()):
            got = f"shape {tuple(mapped.shape)}" if isinstance(mapped, Tensor) else type(mapped).__name__
            if isinstance(mapped, Tensor) and mapped.shape == t.shape:
                got = "NaN or infinity"
            raise OptionError(
                "time_map",
                got=f"{got} for times of shape {tuple(t.shape)}",
                expected="a function that maps a float64 tensor to a finite tensor of its shape",
                fix="Use elementwise operations: lambda t: 1000 * t.",
            )
        return mapped

    @staticmethod
    def _spread(value: np.ndarray, t: float | Tensor, x: Tensor) -> Any:
        """A coefficient as a float for one time, else as a tensor that broadcasts against x, in its computing dtype."""
        if value.ndim == 0:
            return float(value)
        return expand_time(torch.from_numpy(value.reshape(-1)), x).to(compute_dtype(x.dtype))


class ScoreModel(Model):
    """A plain function score(t, x) as a model of a process."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], process: AffineSDE) -> None:
        super().__init__(function, process, "score")

    def network(self, t: float | Tensor, x: Tensor, **conditioning: Any) -> Tensor:
        return check_output(self.net(time_like(t, x), x, **{**self.conditioning, **conditioning}), x, "score")


def check_output(out: Any, x: Tensor, source: str) -> Tensor:
    """The output of user code that must look like the state x; returned in x's computing dtype.

    Raises:
        ModelOutputError: naming what came back.
    """
    dtype = compute_dtype(x.dtype)
    usual = isinstance(out, Tensor) and out.dtype is dtype and out.layout is torch.strided
    if usual and out.shape == x.shape and out.device == x.device:
        return out
    if not isinstance(out, Tensor):
        raise _wrong(
            source, x, type(out).__name__, "Return the tensor itself, or pass Model(..., output=) to pick it out."
        )
    if out.shape != x.shape:
        order = "net(x, t)" if source == "net" else f"{source}(t, x)"
        fix = f"Return one value per element of x. The order of arguments is {order}."
        raise _wrong(source, x, f"shape {tuple(out.shape)}", fix)
    given = out.dtype
    if not given.is_floating_point or out.layout is not torch.strided:
        fix = "Return a dense tensor of floating-point values."
        raise _wrong(source, x, f"dtype {given}, layout {out.layout}", fix)
    if out.device != x.device:
        raise _wrong(source, x, f"a tensor on {out.device}", "Move the network and the state to one device.")
    return out.to(dtype)


def _time_rows(times: Tensor, x: Tensor) -> Sequence[Tensor]:
    """Each of the times (n,) as (B,) beside x, in its computing dtype."""
    dtype = compute_dtype(x.dtype)
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        # A CUDA graph that is being captured refuses a copy from the host's memory, and takes numbers.
        return [x.new_full((len(x),), t, dtype=dtype) for t in times.tolist()]
    return times.to(x.device, dtype)[:, None].expand(-1, len(x)).contiguous().unbind()


def _wrong(source: str, x: Tensor, got: str, fix: str) -> ModelOutputError:
    expected = f"a real tensor of shape {tuple(x.shape)} on {x.device}"
    return ModelOutputError(source, got=got, expected=expected, fix=fix)


def _native(predicts: str | None, precondition: str | EDMPreconditioning | None) -> str | EDMPreconditioning:
    if precondition is None:
        name = "noise" if predicts is None else predicts
        if name not in PREDICTIONS:
            fix = suggest(str(name), PREDICTIONS)
            raise OptionError("predicts", got=repr(name), expected=", ".join(PREDICTIONS), fix=fix)
        return name
    if predicts is not None:
        raise OptionError(
            "predicts",
            got=f"{predicts!r} together with precondition",
            expected="one of the two",
            fix="Drop predicts: a preconditioned network returns F, from which the data prediction follows.",
        )
    if precondition == "edm":
        return EDMPreconditioning()
    if isinstance(precondition, EDMPreconditioning):
        return precondition
    raise OptionError(
        "precondition", got=repr(precondition), expected="'edm' or an EDMPreconditioning", fix="Use 'edm'."
    )


def _check_interface(net: Any, process: Any, time_map: Any, output: Any) -> None:
    if not callable(net):
        raise InterfaceError("net", got=type(net).__name__, expected="a callable net(x, t)", fix="Pass the network.")
    if not isinstance(process, AffineSDE):
        raise InterfaceError(
            "process", got=type(process).__name__, expected="an affine process such as sdekit.VP()", fix="Pass one."
        )
    for argument, value in (("time_map", time_map), ("output", output)):
        if value is not None and not callable(value):
            raise InterfaceError(
                argument, got=type(value).__name__, expected="a function", fix="Pass a callable or None."
            )
