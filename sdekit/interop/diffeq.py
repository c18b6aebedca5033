"""torchdiffeq's methods for ODEs behind `solve`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import BackendError, OptionError
from sdekit.interop.backend import Backend, Caller, check_method, choose
from sdekit.interop.rows import Rows, Stretch
from sdekit.leaves import check_known, find_leaves
from sdekit.solvers.base import Increments, Order, StepResult
from sdekit.times import check_count

__all__ = ["ADAPTIVE", "FIXED", "MULTISTEP", "TorchdiffeqAdams", "TorchdiffeqAdaptive", "TorchdiffeqFixed"]


class _Method(NamedTuple):
    order: int
    calls: int
    note: str = ""


FIXED = {
    "euler": _Method(1, 1),
    "midpoint": _Method(2, 2),
    "heun2": _Method(2, 2, "the explicit trapezoidal rule"),
    "heun3": _Method(3, 3),
    "rk4": _Method(4, 4, "Kutta's 3/8 rule, not the classical method of that name"),
}
MULTISTEP = {
    "explicit_adams": _Method(4, 1, "on equal steps only; starts with the 3/8 rule"),
    "implicit_adams": _Method(4, 5, "on equal steps only; starts with the 3/8 rule"),
}
ADAPTIVE = {
    "dopri5": _Method(5, 6),
    "dopri8": _Method(8, 13),
    "bosh3": _Method(3, 3),
    "fehlberg2": _Method(2, 3),
    "adaptive_heun": _Method(2, 2),
}
GRADIENTS = ("direct", "adjoint")
_REFERENCE = "torchdiffeq (Chen et al.)"


@dataclass(frozen=True)
class _Torchdiffeq(Backend):
    package: ClassVar[str] = "torchdiffeq"
    family: ClassVar[str] = "backend"
    needs: ClassVar[str] = "ode"
    reference: ClassVar[str] = _REFERENCE
    methods: ClassVar[dict[str, _Method]]

    def __post_init__(self) -> None:
        check_method(self.package, self.method, self.methods)

    @property
    def declared(self) -> Order:  # type: ignore[override]
        method = self.methods[self.method]
        return Order(deterministic=method.order, note=method.note)

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return self.methods[self.method].calls


@dataclass(frozen=True)
class TorchdiffeqFixed(_Torchdiffeq):
    """A Runge-Kutta method of fixed steps, one for each step of the grid.

    Args:
        method: its name.
        gradients: "direct", through the operations of each step; or "adjoint", torchdiffeq's: each step is solved back
            with its adjoint equation, which keeps one state a step and is as accurate as the method.
    """

    methods: ClassVar[dict[str, _Method]] = FIXED

    gradients: str = "direct"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("gradients", self.gradients, GRADIENTS)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        import torchdiffeq

        caller = Caller(dynamics, t0, t1, x.dtype)
        times = torch.tensor([t0, t1], dtype=torch.float64, device=x.device)
        with self.guarded(caller):
            if self.gradients == "direct" or not torch.is_grad_enabled():
                states: Any = torchdiffeq.odeint(caller.drift, x, times, method=self.method)
                return StepResult(states[-1])
            known = find_leaves(caller, x) if state is None else state
            drift = check_known(caller, known)
            out: Any = torchdiffeq.odeint_adjoint(drift, x, times, method=self.method, adjoint_params=known)
            return StepResult(out[-1], None, known)


@dataclass(frozen=True)
class TorchdiffeqAdams(_Torchdiffeq):
    """An Adams method of fixed coefficients: on equal steps only, and refused on others.

    torchdiffeq takes up to 12 slopes unless told otherwise, with which the explicit method is unstable on most
    equations; here it takes as many as its order 4 needs.

    Args:
        method: "explicit_adams" or "implicit_adams".
        tolerance: of the iteration of the implicit method, relative and absolute.
        iterations: the most in a step; without convergence the solve ends with a BackendError.
    """

    methods: ClassVar[dict[str, _Method]] = MULTISTEP

    tolerance: float = 1e-10
    iterations: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("iterations", self.iterations)
        if not 0 < self.tolerance < 1:
            raise OptionError("tolerance", got=repr(self.tolerance), expected="0 < tolerance < 1", fix="Use 1e-10.")

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        caller = Caller(dynamics, t0, t1, x.dtype, upward=True)
        h = t1 - t0
        engine = _Adams(self, x) if state is None else state
        rounding = 4 * math.ulp(max(abs(t0), abs(t1)))
        if engine.h is not None and not math.isclose(h, engine.h, rel_tol=1e-6, abs_tol=rounding):
            raise OptionError(
                "times",
                got=f"steps of {engine.h!r} and {h!r} with {self.name!r}",
                expected="equal steps, for which its coefficients are made",
                fix="Pass two ends with steps=, or a Runge-Kutta method.",
            )
        engine.h = h if engine.h is None else engine.h
        with self.guarded(caller):
            return StepResult(engine.step(caller, x), None, engine)


class _Adams:
    """One of torchdiffeq's Adams solvers, which remembers slopes from step to step."""

    def __init__(self, method: TorchdiffeqAdams, x: Tensor) -> None:
        from torchdiffeq._impl.odeint import SOLVERS

        tolerance = max(method.tolerance, 10 * torch.finfo(x.dtype).eps)
        # It keeps one slope fewer than max_order, and the explicit method is of the order of the slopes that it keeps.
        order = 5 if method.method == "explicit_adams" else 4
        options: dict[str, Any] = {"rtol": tolerance, "atol": tolerance, "max_iters": method.iterations}
        self.solver: Any = SOLVERS[method.method](func=None, y0=x, max_order=order, **options)
        self.name, self.h, self.converged = method.name, None, True
        watched: Callable[..., Any] = self.solver._has_converged

        def has_converged(y0: Tensor, y1: Tensor) -> Any:
            self.converged = bool(watched(y0, y1))
            # Where it fails for the last time the step is refused below; the package itself would warn and go on.
            return self.converged

        self.solver._has_converged = has_converged

    h: float | None

    def step(self, caller: Caller, x: Tensor) -> Tensor:
        self.solver.func, self.solver.y0 = _Perturbed(caller), x
        out = self.solver.integrate(torch.tensor(caller.ends, dtype=torch.float64, device=x.device))[-1]
        if not self.converged:
            raise BackendError(
                self.name,
                t=caller.last,
                got="an iteration that does not converge",
                expected="convergence to `tolerance` in `iterations`",
                fix="Use smaller steps, or 'scipy:Radau' for a stiff drift.",
            )
        return out


class _Perturbed:
    """A drift as torchdiffeq's solver objects call it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __call__(self, t: Tensor, y: Tensor, *, perturb: Any = None) -> Tensor:
        return self.caller.drift(t, y)

    def callback_step(self, t0: Any, y0: Any, dt: Any) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class TorchdiffeqAdaptive(Rows, _Torchdiffeq):
    """A Runge-Kutta pair with torchdiffeq's own control of steps. Needs rtol= or atol=.

    torchdiffeq chooses one step for a whole batch, runs past the end and interpolates back. Here each sample is solved
    by itself, and each time of the grid, the end included, is a `step_t`: nothing is evaluated outside.

    Args:
        method: its name.
        gradients: "direct" or "adjoint", as for fixed steps.
    """

    methods: ClassVar[dict[str, _Method]] = ADAPTIVE

    gradients: str = "direct"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("gradients", self.gradients, GRADIENTS)

    def advance(self, caller: Caller, t0: float, t1: float, x: Tensor, rtol: float, atol: float) -> Stretch:
        import torchdiffeq

        if x.numel() == 0:
            return Stretch(x, 0, 0)
        times = torch.tensor([t0, t1], dtype=torch.float64, device=x.device)
        drift = _Counting(caller.drift)
        first = _first_step(caller, t0, t1, x, rtol, atol, self.methods[self.method].order)
        options: dict[str, Any] = {"step_t": times[1:], "first_step": first}
        common: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": self.method, "options": options}
        with self.guarded(caller):
            if self.gradients == "direct" or not torch.is_grad_enabled():
                out: Any = torchdiffeq.odeint(drift, x, times, **common)
            else:
                known = find_leaves(caller, x)
                drift.function = check_known(caller, known)
                # Solved back to t0, in the time in which torchdiffeq went forward, which ascends.
                back = {"step_t": times[:1] if t1 > t0 else -times[:1], "first_step": first}
                out = torchdiffeq.odeint_adjoint(drift, x, times, adjoint_params=known, adjoint_options=back, **common)
        return Stretch(out[-1], drift.accepted, drift.rejected)


class _Counting:
    """A drift that is told of accepted and rejected steps."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        self.function, self.accepted, self.rejected = function, 0, 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.function(t, y)

    def callback_accept_step(self, t0: Any, y0: Any, dt: Any) -> None:
        """A step was accepted."""
        self.accepted += 1

    def callback_reject_step(self, t0: Any, y0: Any, dt: Any) -> None:
        """A step was rejected."""
        self.rejected += 1


def _first_step(caller: Caller, t0: float, t1: float, x: Tensor, rtol: float, atol: float, order: int) -> float:
    """As in Hairer, Norsett and Wanner I, II.4, without leaving the interval, as torchdiffeq's own estimate may."""
    with torch.no_grad():
        whole, sign = abs(t1 - t0), 1.0 if t1 > t0 else -1.0
        scale = atol + rtol * x.abs()

        def size(v: Tensor) -> float:
            return float((v / scale).square().mean().sqrt()) if v.numel() else 0.0

        slope = caller.drift(t0, x)
        d0, d1 = size(x), size(slope)
        h0 = min(whole, 0.01 * d0 / d1 if min(d0, d1) > 1e-5 else 1e-6)
        d2 = size(caller.drift(t0 + sign * h0, x + sign * h0 * slope) - slope) / h0
        steepest = max(d1, d2)
        h1 = max(1e-6, 1e-3 * h0) if not steepest > 1e-15 else (0.01 / steepest) ** (1 / order)
        return min(100 * h0, h1, whole)
