"""Dynamics that a user brings: an SDE by its drift and diffusion, an ODE by its drift.

Functions of time and state are f(t, x). The state x has shape (B, *shape); the time is a tensor that broadcasts against
it, of shape () or (B, 1, ..., 1), in x's dtype but at least float32.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, suggest

if TYPE_CHECKING:
    from sdekit.model import Model

__all__ = ["ODE", "SDE", "Score", "Stochasticity", "check_two_arguments", "make_ode", "make_sde"]

NoiseType = Literal["scalar", "diagonal", "general"]
Score = Callable[[Tensor, Tensor], Tensor]
Stochasticity = float | Callable[[float], float]

_NOISE_TYPES = ("scalar", "diagonal", "general")
_CALCULI = ("ito", "stratonovich")


_TIMES = {"t", "ts", "time", "times", "timestep", "timesteps"}
_STATES = {"x", "xs", "xt", "x_t", "y", "z", "state", "states", "sample", "samples"}


def check_two_arguments(argument: str, function: Any, *, time_first: bool = True) -> None:
    """A function of time and state, or of state and time: told by its signature and its parameters' names.

    Raises:
        InterfaceError: for what is not callable, takes fewer than two arguments, or names them in the other order.
    """
    order = "(t, x)" if time_first else "(x, t)"
    wanted = f"a function {argument}{order}"
    if not callable(function):
        raise InterfaceError(argument, got=type(function).__name__, expected=wanted, fix="Pass a callable.")
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):  # not written in Python
        return
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(names) < 2 and all(p.kind is not p.VAR_POSITIONAL for p in parameters):
        got = f"a function of ({', '.join(names)})"
        raise InterfaceError(argument, got=got, expected=wanted, fix="Let it take both, in this order.")
    first, second = (_STATES, _TIMES) if time_first else (_TIMES, _STATES)
    if len(names) >= 2 and names[0] in first and names[1] in second:
        swapped = "lambda t, x: f(x, t)" if time_first else "lambda x, t: f(t, x)"
        got = f"a function of ({names[0]}, {names[1]}), in the other order"
        raise InterfaceError(argument, got=got, expected=wanted, fix=f"Swap them, for example: {swapped}.")


def _check_methods(cls: type, *names: str) -> None:
    for name in names:
        method = cls.__dict__.get(name)
        if inspect.isfunction(method):
            check_two_arguments(f"{cls.__name__}.{name}", functools.partial(method, None))


def _check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise OptionError(argument, got=repr(value), expected=" or ".join(choices), fix=suggest(str(value), choices))


class ODE(ABC):
    """dx/dt = drift(t, x).

    Attributes:
        linear: as that of `SDE`.
    """

    linear: float | Tensor = 0.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_methods(cls, "drift")

    @abstractmethod
    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at (t, x), same shape as x."""


class SDE(ABC):
    """dx = drift(t, x) dt + diffusion(t, x) dW.

    Attributes:
        noise_type: the shape of the diffusion. "scalar": () or (B, 1, ..., 1), a number times independent noise in each
            coordinate; "diagonal": like x; "general": (B, *shape, m) for m Brownian motions.
        additive: True if the diffusion ignores x.
        commutative: True if the columns of the diffusion commute, see `sdekit.noise_class`; read for general noise and
            for scalar noise of several coordinates. The others always do.
        sde_type: "ito" or "stratonovich".
        diffusion_derivative: an optional method of (t, x), for diagonal noise: dg_i / dx_i, of g's shape. It is what
            `milstein` with derivative="given", changes of calculus and reversals take instead of differentiating g.
        linear: A, where the drift is A x + F(t, x): a number, a tensor of a sample's shape, or a matrix (n, n) for the
            n coordinates of a flattened sample. `drift` remains the whole drift; exponential_euler_maruyama takes A
            exactly, all other solvers ignore it. 0 where no part is singled out.
        backward: True for an SDE that is solved downwards in time, as the result of `reverse` is.
    """

    noise_type: NoiseType = "diagonal"
    additive: bool = False
    commutative: bool = False
    sde_type: Literal["ito", "stratonovich"] = "ito"
    linear: float | Tensor = 0.0
    backward: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_choice(f"{cls.__name__}.noise_type", cls.noise_type, _NOISE_TYPES)
        _check_choice(f"{cls.__name__}.sde_type", cls.sde_type, _CALCULI)
        _check_methods(cls, "drift", "diffusion", "diffusion_derivative")

    @abstractmethod
    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """f(t, x), same shape as x."""

    @abstractmethod
    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """g(t, x), of the shape that `noise_type` names."""

    def reverse(
        self,
        score: Model | Score,
        stochasticity: Stochasticity = 1.0,
        divergence: Literal["exact", "hutchinson"] = "exact",
        *,
        seed: int = 0,
    ) -> SDE | ODE:
        """The time reversal of this SDE, in the same t, to be solved downwards in time.

        With D = g g^T and s = grad log p_t, the family of stochasticity kappa >= 0 is, for an Ito SDE,

            dx = [f - (1 + kappa^2)/2 (div D + D s)] dt + kappa g dW,    dt < 0,

        every member of which has the marginals p_t of the forward SDE. kappa = 1 is Anderson's reverse SDE (Anderson,
        Stoch. Proc. Appl. 12, 1982), kappa = 0 the probability-flow ODE (Song et al., ICLR 2021, eq. 13). The reverse
        of a Stratonovich SDE is a Stratonovich SDE, with g div g for div D. The reverse of a reverse runs upwards.

        Args:
            score: a Model, or a function score(t, x) with the shape of x.
            stochasticity: kappa, a number or a function of t.
            divergence: how div D is found where `additive` is False. "exact": for scalar noise by one reverse
                derivative of g; for diagonal noise by two forward ones where each g_i depends on x_i alone, which is
                tried at each call; else by n of them in n dimensions, up to 256. "hutchinson": by one forward
                derivative along random signs, unbiased. They are new at every time and state, which adds noise to the
                drift: over a step of h it adds O(h) to the error of an ODE solver, whatever its order.
            seed: of the random signs, which are a function of (seed, t, row of x) alone.

        Returns:
            An SDE of the same noise_type and sde_type; an ODE where stochasticity is the number 0.

        Raises:
            OptionError: for a negative or non-finite stochasticity or an unknown divergence; at the first call, for
                "exact" in more than 256 dimensions with general noise or a diagonal g that mixes coordinates.
            InterfaceError: for a score that is neither a Model nor callable; at the first call, for a g that torch
                cannot differentiate.
        """
        from sdekit.reverse import derive_reverse

        return derive_reverse(self, score, stochasticity, divergence, seed)

    def probability_flow(
        self,
        score: Model | Score,
        divergence: Literal["exact", "hutchinson"] = "exact",
        *,
        seed: int = 0,
    ) -> ODE:
        """The ODE with the marginals of this SDE: `reverse(score, stochasticity=0)`."""
        from sdekit.reverse import derive_flow

        return derive_flow(self, score, divergence, seed)

    def to_ito(self) -> SDE:
        """The Ito SDE with the law of this one; itself where it is one.

        Its drift is f + c/2 with c_i = sum_jk g_jk d_j g_ik, or f - c/2 for one that runs backward in time. The
        derivatives of g are exact: as many as `reverse` takes, or m for general noise with m < n Brownian motions.

        Raises:
            InterfaceError: at the first call, for a g that torch cannot differentiate.
        """
        from sdekit.reverse import convert_to

        return convert_to(self, "ito")

    def to_stratonovich(self) -> SDE:
        """The Stratonovich SDE with the law of this one, the inverse of `to_ito`; itself where it is one."""
        from sdekit.reverse import convert_to

        return convert_to(self, "stratonovich")


def _named(function: Any) -> str:
    """A function's name: its repr holds an address, which no two runs share."""
    return getattr(function, "__qualname__", type(function).__name__)


@dataclass(frozen=True, repr=False)
class _FunctionODE(ODE):
    function: Callable[[Tensor, Tensor], Tensor]

    def __repr__(self) -> str:
        return f"make_ode({_named(self.function)})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.function(t, x)


class _FunctionSDE(SDE):
    diffusion_derivative: Score

    def __init__(
        self,
        drift: Score,
        diffusion: Score,
        noise_type: NoiseType,
        sde_type: Any,
        additive: bool,
        commutative: bool,
    ) -> None:
        self._drift, self._diffusion = drift, diffusion
        self.noise_type, self.sde_type = noise_type, sde_type
        self.additive, self.commutative = additive, commutative

    def __repr__(self) -> str:
        functions = f"{_named(self._drift)}, {_named(self._diffusion)}"
        commutes = ", commutative=True" if self.commutative else ""
        return f"make_sde({functions}, {self.noise_type!r}, {self.sde_type!r}, additive={self.additive}{commutes})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self._drift(t, x)

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        return self._diffusion(t, x)


def make_ode(drift: Callable[[Tensor, Tensor], Tensor]) -> ODE:
    """An ODE from a function drift(t, x). Raises InterfaceError if it is not callable."""
    check_two_arguments("drift", drift)
    return _FunctionODE(drift)


def make_sde(
    drift: Score,
    diffusion: Score,
    noise_type: NoiseType = "diagonal",
    sde_type: Literal["ito", "stratonovich"] = "ito",
    additive: bool = False,
    commutative: bool = False,
    diffusion_derivative: Score | None = None,
) -> SDE:
    """An SDE from functions drift(t, x) and diffusion(t, x); the rest as the attributes of `SDE`.

    Raises:
        InterfaceError: if one of the functions is not callable.
        OptionError: for an unknown noise_type or sde_type, or a derivative of other than diagonal noise.
    """
    check_two_arguments("drift", drift)
    check_two_arguments("diffusion", diffusion)
    _check_choice("noise_type", noise_type, _NOISE_TYPES)
    _check_choice("sde_type", sde_type, _CALCULI)
    sde = _FunctionSDE(drift, diffusion, noise_type, sde_type, bool(additive), bool(commutative))
    if diffusion_derivative is not None:
        check_two_arguments("diffusion_derivative", diffusion_derivative)
        if noise_type != "diagonal":
            got, fix = f"one beside {noise_type!r} noise", "Leave it out."
            raise OptionError("diffusion_derivative", got=got, expected="noise_type='diagonal'", fix=fix)
        sde.diffusion_derivative = diffusion_derivative
    return sde
