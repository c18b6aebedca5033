"""torchsde's methods behind `solve`: one call a step, with the noise that sdekit draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdekit.errors import BackendError, OptionError
from sdekit.interop.backend import Backend, Caller, check_method, choose
from sdekit.interop.torchsde import matrix_of
from sdekit.leaves import leaves_of, refuse_unknown
from sdekit.noise_class import noise_classes
from sdekit.solvers.base import Increments, NoiseOrder, Order, StepResult

__all__ = ["METHODS", "TorchsdeSolver"]


class _Method(NamedTuple):
    calculus: str
    calls: int
    deterministic: int
    noise: Mapping[str, NoiseOrder]
    note: str = ""


_HALF, _ONE, _HIGH = NoiseOrder(0.5, 1), NoiseOrder(1, 1), NoiseOrder(1.5, 1.5)
_ANY = {"additive": _ONE, "commutative": _ONE, "general": _HALF}
_MILSTEIN = {"additive": _ONE, "scalar": _ONE, "diagonal": _ONE}

METHODS = {
    "euler": _Method("ito", 1, 1, {"additive": _ONE, "general": _HALF}),
    "milstein": _Method("ito", 1, 1, _MILSTEIN),
    "srk": _Method("ito", 10, 3, {"additive": _HIGH, "scalar": _HIGH, "diagonal": _HIGH}),
    "euler_heun": _Method("stratonovich", 1, 1, _ANY),
    "heun": _Method("stratonovich", 2, 2, _ANY),
    "midpoint": _Method("stratonovich", 2, 2, _ANY),
    "log_ode": _Method("stratonovich", 2, 2, _ANY),
    "reversible_heun": _Method("stratonovich", 1, 2, {"additive": _ONE, "general": _HALF}),
}


@dataclass(frozen=True)
class TorchsdeSolver(Backend):
    """A method of torchsde with fixed steps, one for each step of the grid, either direction of time.

    torchsde sees the step as an SDE in ascending time with a flattened state; its Brownian motion is the step's
    increment, from the same stream or path as any solver of sdekit takes it. States of any shape are welcome.

    Args:
        method: "euler", "milstein", "srk", "euler_heun", "heun", "midpoint", "log_ode" or "reversible_heun".
        calculus: "ito" or "stratonovich", for "milstein", which has both; None for the method's own.
        gradients: "direct", through the operations of each step; or "adjoint", torchsde's: each step is solved back,
            exactly by "reversible_heun", with an error of the method's order by others.
    """

    package: ClassVar[str] = "torchsde"
    family: ClassVar[str] = "backend"
    reference: ClassVar[str] = "torchsde (Li et al.; Kidger et al.)"
    default_stochasticity: ClassVar[float] = 1.0

    calculus: str | None = None  # type: ignore[assignment]
    gradients: str = "direct"

    def __post_init__(self) -> None:
        check_method(self.package, self.method, METHODS)
        choose("gradients", self.gradients, ("direct", "adjoint"))
        own = METHODS[self.method].calculus
        if self.calculus is None:
            object.__setattr__(self, "calculus", own)
        choices = ("ito", "stratonovich") if self.method == "milstein" else (own,)
        choose("calculus", self.calculus, choices)
        if self.gradients == "adjoint" and self.method in ("srk", "log_ode"):
            raise OptionError(
                "gradients",
                got=f"'adjoint' with {self.name!r}",
                expected="'direct': torchsde has no adjoint of this method",
                fix="Use gradients='checkpoint' in solve, or 'torchsde:reversible_heun'.",
            )

    @property
    def declared(self) -> Order:  # type: ignore[override]
        method = METHODS[self.method]
        additive = method.noise["additive"]
        return Order(
            deterministic=method.deterministic,
            weak=None if additive.weak is None else int(additive.weak),
            strong=additive.strong,
            note=method.note,
            noise=method.noise,
        )

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return METHODS[self.method].calls

    @property
    def uses_area(self) -> bool:  # type: ignore[override]
        return self.method in ("srk", "log_ode")

    def extra_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """For log_ode the normals of a Levy area."""
        m = torch.Size(shape[1:]).numel()
        return ((shape[0], m, m),) if self.method == "log_ode" else ()

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        import torchsde

        if x.numel() == 0:
            return StepResult(x)
        caller = Caller(dynamics, t0, t1, x.dtype, upward=True)
        motion = _Step(caller, x, increments)
        view: Any = _View(self, caller, x, motion.shape[1])
        y = x.reshape(len(x), -1)
        ends = torch.tensor(caller.ends, dtype=torch.float64, device=x.device)
        # A little longer than the step, which then ends at ts[-1] itself, with no remainder by rounding.
        dt = abs(t1 - t0) + 4 * math.ulp(max(abs(t0), abs(t1)))
        options: dict[str, Any] = {"bm": motion, "method": self.method, "dt": dt, "extra": True}
        if self.method == "milstein" and view.noise_type == "scalar":
            # Its formula with derivatives has those of g transposed for several coordinates.
            options["options"] = {"grad_free": True}
        held, known = (None, None) if state is None else state
        if held is not None:
            view.stand_in = {"drift": held[0], "diffusion": held[1]}
        with self.guarded(caller):
            if self.gradients == "direct" or not torch.is_grad_enabled():
                ys, held = torchsde.sdeint(view, y, ends, extra_solver_state=held, **options)
            else:
                known = self._known(view, ends[0], y) if known is None else known
                view.known = known
                options["adjoint_params"] = known
                ys, held = torchsde.sdeint_adjoint(view, y, ends, extra_solver_state=held, **options)
        end = ys[-1]
        if not (x.requires_grad or view.live):
            end = end.detach()  # of the graph that derivatives of g leave behind
        keeps = tuple(held) if self.method == "reversible_heun" else None
        return StepResult(end.reshape(x.shape), None, (keeps, known))

    def _known(self, view: Any, s: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            return tuple(leaves_of([view.f(s, point), view.g(s, point)], but=[point]))


class _View:
    """One step's SDE as torchsde calls it.

    torchsde begins every solve with a call of f and of g at the start, to see their shapes, which it makes again in
    the step. Each is made once: what the first returns is kept for the second.

    Attributes:
        stand_in: what to show instead, where the step does not call at the start.
    """

    stand_in: dict[str, Tensor] | None = None

    def __init__(self, method: TorchsdeSolver, caller: Caller, x: Tensor, columns: int) -> None:
        self.caller, self.x, self.sde_type = caller, x, method.calculus
        sde: Any = caller.dynamics.dynamics
        self._noise = caller.dynamics.noise_type
        self.known: tuple[Tensor, ...] | None = None
        self._kept: dict[str, tuple[Any, ...]] = {}
        self._probed: set[str] = set()
        self.live = False  # whether what the functions return at the start requires a gradient
        if self._noise is None:  # an ODE
            self.diagonal, self.noise_type = True, "diagonal"
            return
        classes = noise_classes(sde, x)
        # Where coordinates mix, derivatives of g taken entry by entry are wrong.
        self.diagonal = self._noise != "general" and ("diagonal" in classes or method.method != "log_ode")
        several = "scalar" if self._noise == "general" and columns == 1 else "general"
        self.noise_type = "diagonal" if self.diagonal else "additive" if sde.additive else several

    def f(self, s: Any, y: Tensor) -> Tensor:
        """(B, d)."""
        return self._once("drift", s, y)

    def g(self, s: Any, y: Tensor) -> Tensor:
        """(B, d) or (B, d, m)."""
        return self._once("diffusion", s, y)

    def _once(self, name: str, s: Any, y: Tensor) -> Tensor:
        if self.stand_in is not None and name in self.stand_in:
            out = self.stand_in.pop(name)
            self.live = self.live or out.requires_grad
            return out
        mode = torch.is_grad_enabled()
        kept = self._kept.pop(name, None)
        if kept is not None and kept[0] == float(s) and kept[1] is y and kept[2] is mode:
            return kept[3]
        out = self._call(name, s, y)
        if name not in self._probed:
            self._probed.add(name)
            self.live = self.live or out.requires_grad
            self._kept[name] = (float(s), y, mode, out)
        return out

    def _call(self, name: str, s: Any, y: Tensor) -> Tensor:
        x = y.reshape(self.x.shape)
        if name == "drift":
            out = self.caller.drift(s, x).reshape(y.shape)
        elif self._noise is None:
            out = torch.zeros_like(y)
        else:
            out = matrix_of(self.caller.diffusion(s, x), x, self._noise, diagonal=self.diagonal)
        if self.known is not None and torch.is_grad_enabled() and out.requires_grad:
            refuse_unknown(out, [*self.known, *leaves_of([y])], name)
        return out


class _Step:
    """The Brownian motion over one step, in torchsde's time: it knows that interval and no other."""

    levy_area_approximation = "foster"

    def __init__(self, caller: Caller, x: Tensor, increments: Increments | None) -> None:
        self.caller, self.increments = caller, increments
        self.dtype, self.device = x.dtype, x.device
        w = torch.zeros_like(x) if increments is None else increments.W
        self.w = w.reshape(len(x), -1)
        area = None if increments is None else increments.H
        self.area = torch.zeros_like(self.w) if area is None else area.reshape(self.w.shape)
        self.shape = tuple(self.w.shape)

    def size(self) -> tuple[int, ...]:
        """(B, m)."""
        return self.shape

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        s0, s1 = self.caller.ends
        if tb is None or float(ta) != s0 or float(tb) != s1:
            raise BackendError(
                "torchsde",
                t=float(ta),
                got=f"a query of the path over [{float(ta)!r}, {None if tb is None else float(tb)!r}]",
                expected=f"the step, [{s0!r}, {s1!r}]",
                fix="Use one of sdekit's own solvers.",
            )
        out: list[Tensor] = [self.w]
        if return_U:
            out.append((s1 - s0) * (0.5 * self.w + self.area))
        if return_A:
            out.append(self._levy_area(s1 - s0))
        return out[0] if len(out) == 1 else tuple(out)

    def _levy_area(self, h: float) -> Tensor:
        """Levy areas A_kl given W and H: H_k W_l - W_k H_l, plus a normal of its conditional variance given H.

        That is h^2 / 20 + (h / 5) (H_k^2 + H_l^2), of mean h^2 / 12.
        """
        w, area = self.w, self.area
        known = area[:, :, None] * w[:, None, :] - w[:, :, None] * area[:, None, :]
        extra = () if self.increments is None else self.increments.extra
        if not extra:
            return known
        square = area * area
        std = (h * h / 20 + (h / 5) * (square[:, :, None] + square[:, None, :])).sqrt()
        upper = torch.triu(extra[0], 1)
        return known + std * (upper - upper.mT)
