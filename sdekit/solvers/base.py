"""What a solver is: a maker of plans, a stepper, or both; and the registry of their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, SolverMismatchError
from sdekit.increments import Increments
from sdekit.plan import Plan, Row
from sdekit.registry import Registry, check_options
from sdekit.reverse import stochasticity_at
from sdekit.sde import Stochasticity
from sdekit.times import check_times

__all__ = [
    "Increments",
    "NoiseOrder",
    "Order",
    "PlanSolver",
    "Solver",
    "SolverInfo",
    "StepResult",
    "Stepper",
    "available",
    "get",
    "info",
    "register",
]


class NoiseOrder(NamedTuple):
    """The orders of a stepper on one class of noise; None where it has none."""

    strong: float | None
    weak: float | None


@dataclass(frozen=True)
class Order:
    """Declared orders of convergence of the default start-up and last step; None where one makes no sense.

    Args:
        deterministic: of the error against the exact flow, at stochasticity 0.
        weak, strong: of the law and of the paths, at stochasticity > 0: for the additive noise of affine processes.
        note: what limits them: start-up, last step, grid.
        noise: for a stepper of SDEs, its orders by noise class, see `sdekit.noise_class`. It refuses a class for which
            neither this nor a wider class is named; where `noise` is empty it takes any.
    """

    deterministic: int | None = None
    weak: float | None = None
    strong: float | None = None
    note: str = ""
    noise: Mapping[str, NoiseOrder] = field(default_factory=dict, hash=False)

    def on(self, classes: Sequence[str]) -> NoiseOrder | None:
        """The orders on an SDE of these noise classes, the most special first; None if it has none there."""
        return next((self.noise[name] for name in classes if name in self.noise), None)


class Solver:
    """What plan solvers and steppers share.

    Attributes:
        family, reference: for tables; the reference names the source of the formula.
        declared: the orders; the conformance tests enforce them.
        fixed_stochasticity: the stochasticity that the method's name implies, or None if it takes the problem's.
        default_stochasticity: what a method without a fixed one takes when it is given a bare Model.
    """

    name: ClassVar[str] = ""
    family: ClassVar[str] = "user"
    reference: ClassVar[str] = ""
    declared: Order = Order()
    fixed_stochasticity: float | None = None
    default_stochasticity: float = 0.0
    adaptive: ClassVar[bool] = False
    """Whether it takes tolerances: see `sdekit.solvers.adaptive.EmbeddedRungeKutta`."""
    released_with: ClassVar[dict[str, Any]] = {}
    """The options beside which as_released=True, where a solver has it, changes anything."""
    own_steps: ClassVar[bool] = False
    """Whether its steps are another package's, which chooses them by tolerances: see `sdekit.interop.rows`."""

    @property
    def implied_stochasticity(self) -> float:
        """What the name stands for where nothing else is asked."""
        return self.default_stochasticity if self.fixed_stochasticity is None else self.fixed_stochasticity

    @property
    def label(self) -> str:
        """The name with its options: "heun(clock='rho')"."""
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items())
        return f"{self.name or type(self).__name__}({options})"


class PlanSolver(Solver, ABC):
    """A fixed-step sampler of affine processes, written as rows of coefficients."""

    plan_is_remembered: bool = True
    """Whether a plan follows from the options: not where one is a function or a user's object."""

    @abstractmethod
    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        """The program: one row per model call; see `sdekit.plan.rows`."""

    def noise_clock(
        self, process: AffineSDE, times: list[float], stochasticity: Stochasticity
    ) -> tuple[float, ...] | None:
        """The time of the Brownian path whose exact increments the steps' noises are, or None."""
        return None

    def plan(
        self, process: AffineSDE, times: Sequence[float] | Tensor, stochasticity: Stochasticity | None = None
    ) -> Plan:
        """The program of this solver on a grid; no model is needed.

        Args:
            times: the grid, decreasing for sampling; increasing grids run the probability flow upwards.
            stochasticity: kappa of the reverse SDE; None takes the solver's own, or 0.

        Raises:
            OptionError: for a grid that breaks its contract, or on which a coefficient is infinite.
            SolverMismatchError: for a stochasticity that the solver cannot have.
        """
        if not isinstance(process, AffineSDE):
            raise InterfaceError(
                "process", got=type(process).__name__, expected="an affine process", fix="Plans need alpha and sigma."
            )
        grid = check_times(times, domain=process.domain)
        tau = self.resolve_stochasticity(stochasticity)
        if tau != 0 and grid[1] > grid[0]:
            raise SolverMismatchError(
                "times",
                got=f"increasing times with stochasticity {tau!r}",
                expected="decreasing times for a reverse SDE",
                fix="Reverse the grid, or use stochasticity 0.",
            )
        # Our own solvers are values, and a plan follows from values; a user's solver may read anything.
        own = type(self).__module__.startswith(f"{__package__}.") and isinstance(tau, float) and self.plan_is_remembered
        return (_remembered if own else _make_plan)(self, process, repr(process), tuple(grid), tau)

    def resolve_stochasticity(self, asked: Stochasticity | None) -> Stochasticity:
        """The stochasticity to plan with: the one asked for, checked against the one that the name implies."""
        fixed = self.fixed_stochasticity
        if asked is None:
            return 0.0 if fixed is None else fixed
        if not callable(asked):
            asked = stochasticity_at(asked, float("nan"))
        if fixed is not None and asked != fixed:
            raise SolverMismatchError(
                "stochasticity",
                got=f"{asked!r} with solver {self.name or type(self).__name__!r}",
                expected=f"{fixed:g}, which the solver implies",
                fix="Pass the Model itself, the reverse() of that stochasticity, or a solver that takes any: "
                + ", ".join(sorted(n for n in _REGISTRY if _any_stochasticity(_REGISTRY.get(n))))
                + ".",
            )
        return asked


def _make_plan(
    solver: PlanSolver, process: AffineSDE, described: str, grid: tuple[float, ...], tau: Stochasticity
) -> Plan:
    ends = torch.tensor([grid[0], grid[-1]], dtype=torch.float64)
    start, end = zip(process.alpha(ends).tolist(), process.sigma(ends).tolist(), strict=True)
    return Plan(
        solver=solver.label,
        times=grid,
        rows=tuple(solver.rows(process, list(grid), tau)),
        start=start,
        end=end,
        process=described,
        clock=solver.noise_clock(process, list(grid), tau) if tau != 0 else None,
    )


_remembered = lru_cache(maxsize=32)(_make_plan)
"""Sampling again on the same grid costs no planning, and a plan that is the same object is compiled once."""


class StepResult(NamedTuple):
    """What a step returns: the new state, an error estimate or None, and what the next step may reuse or None."""

    x: Tensor
    error: Tensor | None = None
    state: Any = None


class Stepper(Solver, ABC):
    """A one-step method for dynamics given by drift and diffusion."""

    needs: ClassVar[str] = "sde"
    """"ode" for methods that solve dx/dt = drift only, "additive" for those that need a diffusion without x."""

    calculus: ClassVar[str] = "ito"
    """"ito" or "stratonovich": what the drift is read as. An SDE of the other is converted, see `SDE.to_ito`."""

    uses_area: ClassVar[bool] = False
    """Whether steps use `increments.H`, which is drawn only then."""

    uses_time_area: ClassVar[bool] = False
    """Whether steps use `increments.K`, which is drawn only then."""

    places: tuple[float, float] = (0.0, 1.0)
    """The least and the greatest c of the times t0 + c (t1 - t0) at which a step calls the dynamics."""

    calls_per_step: int = 1
    """How many drift calls a step makes: what `max_nfe` is held against before the start."""

    calls_at_start: ClassVar[int] = 0
    """How many more the first one makes, for what `state` then keeps."""

    def extra_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes, each with the batch first, of the normals a step takes besides the path's; shape is that of W."""
        return ()

    @abstractmethod
    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult | tuple[Tensor, Tensor | None, Any]:
        """From (t0, x) to t1, either direction of time.

        An SDE solved downwards has t1 < t0: its drift enters with h = t1 - t0 and all that comes of the noise with |h|.

        Args:
            dynamics: has drift(t, x), diffusion(t, x) and, for SDEs, product(g, W) = g W for a diffusion already found
                and diffuse(t, x, W) = g(t, x) W; t may be a float. Where its `estimates` is false, nobody reads the
                error.
            x: (B, *shape), not to be changed in place.
            increments: Brownian increments, None for an ODE.
            state: what the previous step returned, None at the first.
        """


@dataclass(frozen=True)
class SolverInfo:
    """What the registry knows of a solver.

    `nfe_per_step` counts the calls of an interior step; `names_with_options` are other names for it with options.
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    order: Order
    nfe_per_step: int
    stochastic: bool
    adaptive: bool
    needs: str
    reference: str
    options: dict[str, Any] = field(default_factory=dict)
    names_with_options: dict[str, dict[str, Any]] = field(default_factory=dict)


_REGISTRY: Registry[type[Solver]] = Registry("solver")
S = TypeVar("S", bound=type[Solver])


def register(name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[S], S]:
    """Class decorator: make a `PlanSolver` or `Stepper` available by name.

    Raises:
        InterfaceError: for a class that is neither.
        OptionError: for a name that is taken.
    """

    def decorate(cls: S) -> S:
        if not (isinstance(cls, type) and issubclass(cls, (PlanSolver, Stepper))):
            raise InterfaceError(
                "register",
                got=repr(cls),
                expected="a subclass of PlanSolver or Stepper",
                fix="Derive from one of them.",
            )
        _REGISTRY.register(name, cls, aliases)
        cls.name = name
        return cls

    return decorate


def get(name: str, **options: Any) -> Any:
    """A solver by name or alias, with its options.

    Raises:
        UnknownNameError: for an unknown name or option, with near ones suggested.
    """
    if isinstance(name, str) and ":" in name:
        from sdekit.interop.names import get_backend

        return get_backend(name, **options)
    cls = _REGISTRY.get(name)
    check_options(_REGISTRY.resolve(name), cls.__init__, options)
    return cls(**{**_REGISTRY.options(name), **options})


def registered() -> list[str]:
    """The names of all registered solvers, sorted. Nothing of them is called, which may be other people's."""
    return sorted(_REGISTRY)


def available(*, backends: bool = False) -> list[SolverInfo]:
    """All registered solvers with their default options, by name.

    Args:
        backends: list those of other packages too: "torchdiffeq:...", "torchode:...", "torchsde:..." and "scipy:...".
            They are left out else, as what is promised of registered solvers (speed, memory, batches) is not theirs.
    """
    names = registered()
    if backends:
        from sdekit.interop.names import backends as others

        names += others()
    return [info(name) for name in names]


def info(name: str, **options: Any) -> SolverInfo:
    """What is known of a solver with these options. Raises UnknownNameError."""
    foreign = isinstance(name, str) and ":" in name
    key = name if foreign else _REGISTRY.resolve(name)
    solver = get(name, **options)
    calls, stochastic = _measure(solver)
    return SolverInfo(
        name=solver.name if foreign else key,
        aliases=() if foreign else _REGISTRY.aliases(key),
        family=solver.family,
        order=solver.declared,
        nfe_per_step=calls,
        stochastic=stochastic,
        adaptive=solver.adaptive,
        needs=_needs(solver),
        reference=solver.reference,
        options=dict(vars(solver)),
        names_with_options={} if foreign else _REGISTRY.with_options(key),
    )


def _needs(solver: Solver) -> str:
    kinds = []
    if isinstance(solver, PlanSolver):
        kinds.append("an affine process")
    if isinstance(solver, Stepper):
        kinds.append(_dynamics_of(solver))
    return " or ".join(kinds)


def _dynamics_of(solver: Stepper) -> str:
    if solver.needs == "ode":
        return "any ODE"
    classes = ("additive",) if solver.needs == "additive" else tuple(solver.declared.noise)
    return "any SDE" if not classes or "general" in classes else f"any SDE with {' or '.join(classes)} noise"


def _measure(solver: Solver) -> tuple[int, bool]:
    """Calls of an interior step and whether noise is drawn, read off a small plan; 1 call for a bare stepper."""
    if not isinstance(solver, PlanSolver):
        return getattr(solver, "calls_per_step", 1), getattr(solver, "needs", "sde") != "ode"
    from sdekit.processes import EDM

    steps = 8
    plan = solver.plan(EDM(), [2.0 ** (1 - i) for i in range(steps + 1)], solver.implied_stochasticity)
    # The last full step but two: past every start-up, and before what differs towards the end.
    return sum(row.step == steps - 3 for row in plan.rows), plan.stochastic


def _any_stochasticity(cls: type[Solver]) -> bool:
    return issubclass(cls, PlanSolver) and cls.__dict__.get("fixed_stochasticity", cls.fixed_stochasticity) is None
