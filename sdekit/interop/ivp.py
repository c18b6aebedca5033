"""SciPy's methods for ODEs behind `solve`: implicit ones for stiff drifts, one sample at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import BackendError, InterfaceError
from sdekit.interop.backend import Backend, Caller, check_method
from sdekit.interop.rows import Rows, Stretch
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order

__all__ = ["METHODS", "ScipySolver"]

_LEAST = 100 * np.finfo(np.float64).eps

METHODS = {"RK23": (3, 3), "RK45": (5, 6), "DOP853": (8, 12), "Radau": (5, 3), "BDF": (None, 1), "LSODA": (None, 1)}
"""Order, None where it varies, and the calls of an explicit step, or the least of an implicit one."""


@dataclass(frozen=True)
class ScipySolver(Rows, Backend):
    """A method of scipy.integrate.solve_ivp. Needs rtol= or atol=.

    Each sample is solved by itself, in float64 on the host; the drift is called with (1, *shape) in the state's dtype.
    The solver ends on each time of the grid and starts anew there: no state is interpolated. Jacobians of the implicit
    methods are finite differences, by as many calls as a sample has elements. rtol below 2.3e-14 is taken as that.

    There are no gradients: a state or a drift that requires one is refused where gradients are recorded.

    Args:
        method: "RK23", "RK45", "DOP853", "Radau", "BDF" or "LSODA".
        max_step: the longest step, None for any.
    """

    package: ClassVar[str] = "scipy"
    family: ClassVar[str] = "backend"
    needs: ClassVar[str] = "ode"
    reference: ClassVar[str] = "SciPy, scipy.integrate.solve_ivp"

    max_step: float | None = None

    def __post_init__(self) -> None:
        check_method(self.package, self.method, METHODS)
        if self.max_step is not None:
            finite_number("max_step", self.max_step, positive=True)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        order = METHODS[self.method][0]
        return Order(deterministic=order, note="" if order else "the order varies with the step")

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return METHODS[self.method][1]

    def advance(self, caller: Caller, t0: float, t1: float, x: Tensor, rtol: float, atol: float) -> Stretch:
        from scipy.integrate import solve_ivp

        if x.requires_grad and torch.is_grad_enabled():
            raise _no_gradients("a state that requires a gradient", self.name)
        if x.numel() == 0:
            return Stretch(x, 0, 0)

        def drift(t: float, y: np.ndarray) -> np.ndarray:
            point = torch.from_numpy(np.array(y, dtype=np.float64)).to(x.device, x.dtype).reshape(x.shape)
            out = caller.drift(t, point)
            if out.requires_grad:
                raise _no_gradients("a drift that requires a gradient", self.name)
            return out.detach().to("cpu", torch.float64).numpy().reshape(-1)

        start = x.detach().to("cpu", torch.float64).numpy().reshape(-1)
        options: dict[str, Any] = {} if self.max_step is None else {"max_step": self.max_step}
        with self.guarded(caller):
            result = solve_ivp(drift, (t0, t1), start, self.method, rtol=max(rtol, _LEAST), atol=atol, **options)
        if not result.success or result.t[-1] != t1:
            raise BackendError(
                self.name,
                t=float(result.t[-1]),
                got=str(result.message),
                expected="steps that reach the end",
                fix="Raise rtol or atol, or end earlier: the solution may cease to exist.",
            )
        end = torch.from_numpy(result.y[:, -1].copy()).to(x.device, x.dtype).reshape(x.shape)
        return Stretch(end, len(result.t) - 1, 0)


def _no_gradients(got: str, name: str) -> InterfaceError:
    return InterfaceError(
        name,
        got=got,
        expected="no gradient, which SciPy cannot carry",
        fix="Solve under torch.no_grad(), or use an adaptive method of sdekit or torchdiffeq.",
    )
