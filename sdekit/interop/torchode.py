"""torchode's methods for ODEs behind `solve`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.errors import BackendError, MissingPackageError
from sdekit.interop.backend import Backend, Caller, check_method, choose
from sdekit.interop.rows import Rows, Stretch
from sdekit.solvers.base import Order

__all__ = ["METHODS", "TorchodeSolver"]

METHODS = {"dopri5": ("Dopri5", 5, 6), "tsit5": ("Tsit5", 5, 6), "heun": ("Heun", 2, 2)}
"""The class there, the order, and the calls of a step."""

_CONTROLLERS = ("pid", "integral")
_PID = {"pcoeff": 0.2, "icoeff": 0.5, "dcoeff": 0.0}  # what torchode.solve_ivp takes


@dataclass(frozen=True)
class TorchodeSolver(Rows, Backend):
    """A Runge-Kutta pair with torchode's own control of steps. Needs rtol= or atol=.

    torchode takes a batch (B, d) with a step for each sample, and ends for all of them where one fails. Here each
    sample is solved by itself, flattened to (1, d), so that none sees another's failure, and lands on every time of the
    grid. Times are float64, and nothing is evaluated outside the interval.

    Args:
        method: "dopri5", "tsit5" or "heun", the trapezoidal rule with Euler's method inside.
        controller: "pid", with the coefficients of torchode's solve_ivp; or "integral".
    """

    package: ClassVar[str] = "torchode"
    family: ClassVar[str] = "backend"
    needs: ClassVar[str] = "ode"
    reference: ClassVar[str] = "torchode (Lienen and Guennemann)"

    controller: str = "pid"

    def __post_init__(self) -> None:
        check_method(self.package, self.method, METHODS)
        choose("controller", self.controller, _CONTROLLERS)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=METHODS[self.method][1])

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return METHODS[self.method][2]

    def advance(self, caller: Caller, t0: float, t1: float, x: Tensor, rtol: float, atol: float) -> Stretch:
        torchode = _torchode(self.name)
        if x.numel() == 0:
            return Stretch(x, 0, 0)

        def drift(t: Tensor, y: Tensor) -> Tensor:
            return caller.drift(t, y.reshape(x.shape)).reshape(y.shape)

        term = torchode.ODETerm(drift)
        make, options = (
            (torchode.PIDController, _PID) if self.controller == "pid" else (torchode.IntegralController, {})
        )
        control = make(atol=atol, rtol=rtol, term=term, **options).to(x.device)
        solver = torchode.AutoDiffAdjoint(getattr(torchode, METHODS[self.method][0])(term=term), control)
        start, end = (torch.tensor([t], dtype=torch.float64, device=x.device) for t in (t0, t1))
        with self.guarded(caller):
            result = solver.solve(torchode.InitialValueProblem(x.reshape(1, -1), start, end))
        if int(result.status):
            raise BackendError(
                self.name,
                t=caller.last,
                got=torchode.Status(int(result.status)).name,
                expected="steps that reach the end",
                fix="Raise rtol or atol, or end earlier: the solution may cease to exist.",
            )
        accepted, steps = (int(result.stats[key]) for key in ("n_accepted", "n_steps"))
        return Stretch(result.ys[:, -1].reshape(x.shape).to(x.dtype), accepted, steps - accepted)


def _torchode(name: str) -> Any:
    try:
        return importlib.import_module("torchode")
    except ImportError as error:
        raise MissingPackageError(
            "solver", got=name, expected="torchode, installed", fix="Type: pip install 'sdekit[peers]'."
        ) from error
