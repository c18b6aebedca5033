"""Embedded Runge-Kutta methods: adaptive where tolerances are given, of a fixed order on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sdekit.errors import InterfaceError, OptionError, suggest
from sdekit.shapes import finite_number
from sdekit.solvers import embedded
from sdekit.solvers.base import register
from sdekit.solvers.controller import Controller, as_controller
from sdekit.solvers.embedded import Pair
from sdekit.solvers.runge_kutta import RungeKutta
from sdekit.solvers.tableau import Tableau

__all__ = ["DOP853", "RK45", "Bosh3", "EmbeddedRungeKutta", "Tsit5"]

CLOCKS = ("theta", "rho", "lambda", "t")


@dataclass(frozen=True)
class EmbeddedRungeKutta(RungeKutta):
    """A Runge-Kutta method that knows the error of its steps.

    With rtol= or atol= in `solve` every sample takes steps of its own, as long as the controller lets them be: a step
    is accepted where the root mean square of error / (atol + rtol max(|x|, |x_new|)) over the sample is at most 1. The
    solution of the higher order is propagated. Without tolerances it is a method of fixed steps, like its relatives.

    Args:
        clock: on affine processes, for fixed steps: "rho" or "t".
        adaptive_clock: on affine processes, the variable of adaptive steps: see `sdekit.control.clocks`.
        controller: a name in `sdekit.solvers.controller.CONTROLLERS`, or a `Controller`.
        first_step: the length of the first step, in the clock's variable; None estimates it.
        compact: whether samples that have arrived leave the batch. False keeps its size for a drift that holds one
            value for each sample, or a network that was compiled for one size.
    """

    pair: ClassVar[Pair]
    adaptive: ClassVar[bool] = True

    adaptive_clock: str = "theta"
    controller: str | Controller = "cautious"
    first_step: float | None = None
    compact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive_clock not in CLOCKS:
            fix = suggest(str(self.adaptive_clock), CLOCKS)
            raise OptionError("adaptive_clock", got=repr(self.adaptive_clock), expected=", ".join(CLOCKS), fix=fix)
        as_controller(self.controller)
        if self.first_step is not None:
            finite_number("first_step", self.first_step, positive=True)
        if not isinstance(self.compact, bool):
            raise InterfaceError("compact", got=repr(self.compact), expected="True or False", fix="Pass a bool.")

    @property
    def filter(self) -> Controller:
        """The controller itself."""
        return as_controller(self.controller)


@register("bosh3", aliases=("bogacki_shampine", "rk23"))
@dataclass(frozen=True)
class Bosh3(EmbeddedRungeKutta):
    """Bogacki and Shampine's pair of orders 3 and 2."""

    pair: ClassVar[Pair] = embedded.BOGACKI_SHAMPINE
    tableau: ClassVar[Tableau] = embedded.BOGACKI_SHAMPINE.tableau
    reference: ClassVar[str] = "Bogacki and Shampine, Appl. Math. Lett. 2 (1989)"


@register("rk45", aliases=("dopri5", "dormand_prince"))
@dataclass(frozen=True)
class RK45(EmbeddedRungeKutta):
    """Dormand and Prince's pair of orders 5 and 4.

    Args:
        error_weights: "dormand_prince", the pair's own fourth-order weights (5179/57600, ...), as in Hairer's dopri5
            and SciPy's RK45; or "shampine" (1951/21600, ...), as in torchdiffeq, torchode and diffrax.
    """

    tableau: ClassVar[Tableau] = embedded.DORMAND_PRINCE.tableau
    reference: ClassVar[str] = "Dormand and Prince, J. Comput. Appl. Math. 6 (1980)"

    error_weights: str = "dormand_prince"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.error_weights not in _WEIGHTS:
            fix = suggest(str(self.error_weights), _WEIGHTS)
            raise OptionError("error_weights", got=repr(self.error_weights), expected=" or ".join(_WEIGHTS), fix=fix)

    @property
    def pair(self) -> Pair:  # type: ignore[override]
        return _WEIGHTS[self.error_weights]


_WEIGHTS = {"dormand_prince": embedded.DORMAND_PRINCE, "shampine": embedded.DORMAND_PRINCE_SHAMPINE}


@register("tsit5")
@dataclass(frozen=True)
class Tsit5(EmbeddedRungeKutta):
    """Tsitouras's pair of orders 5 and 4."""

    pair: ClassVar[Pair] = embedded.TSITOURAS
    tableau: ClassVar[Tableau] = embedded.TSITOURAS.tableau
    reference: ClassVar[str] = "Tsitouras, Comput. Math. Appl. 62 (2011)"


@register("dop853")
@dataclass(frozen=True)
class DOP853(EmbeddedRungeKutta):
    """The method of order 8 of Hairer's code of that name, with his error estimate from weights of orders 5 and 3."""

    pair: ClassVar[Pair] = embedded.DOP853_PAIR
    tableau: ClassVar[Tableau] = embedded.DOP853_PAIR.tableau
    reference: ClassVar[str] = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.5, II.10"
