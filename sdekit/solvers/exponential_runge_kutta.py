"""Exponential Runge-Kutta methods in lambda: ETDRK3, ETDRK4, Hochbruck and Ostermann's, and the res_ names."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.dpm_solver import check_ratio, steps_with_inner
from sdekit.solvers.exponential import limit_row, touches_end
from sdekit.solvers.exponential_tableau import (
    COX_MATTHEWS,
    HOCHBRUCK_OSTERMANN,
    KROGSTAD,
    ExponentialTableau,
    tableau_rows,
    third_order_gamma,
    three_stages,
    two_stages,
)
from sdekit.solvers.options import check_choice, check_flag

__all__ = ["ETDRK3", "ETDRK4", "RES2S", "RES3S", "ExpHeun2", "ExponentialRungeKutta", "HochbruckOstermann"]

_HO_2005 = "Hochbruck and Ostermann, SIAM J. Numer. Anal. 43 (2005)"
_RES = "Zhang, Song and Chen, Improved Order Analysis and Design of Exponential Integrator, 2023, arXiv:2308.02157"


@dataclass(frozen=True)
class ExponentialRungeKutta(PlanSolver, ABC):
    """A method of `sdekit.solvers.exponential_tableau` on the probability flow in lambda.

    Where sigma = 0 or alpha = 0 at an end of a step, it is a step of order 1 and one call.

    Args:
        prediction: "data" or "noise": what is kept of the flow beside its linear part.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    fixed_stochasticity: ClassVar[float] = 0.0

    prediction: str = "data"

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, ("data", "noise"))

    @property
    @abstractmethod
    def tableau(self) -> ExponentialTableau:
        """The method."""

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return Order(deterministic=self.tableau.order, note="order 1 on a step from alpha = 0 or to sigma = 0")

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        tableau = self.tableau
        rows: list[Row] = []
        for n, (s, t, inner) in enumerate(steps_with_inner(process, process.levels(times), tableau.inner)):
            if touches_end(s, t):
                rows.append(limit_row(n, s, t, self.prediction, 0.0))
            else:
                at = dict(zip(tableau.inner, inner, strict=True))
                rows += tableau_rows(tableau, n, s, t, at, self.prediction)
        return rows


@register("res_2s", aliases=("etdrk2",))
@dataclass(frozen=True)
class RES2S(ExponentialRungeKutta):
    """The refined exponential solver of two stages, which is ETDRK2: weights phi_1 - phi_2 / c2 and phi_2 / c2.

    `dpmpp_2s` takes phi_1 / 2 for phi_2.

    Args:
        c2: where in the step the second call is, in lambda: 0 < c2 <= 1.
    """

    reference: ClassVar[str] = f"{_RES}; {_HO_2005}"

    c2: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio("c2", self.c2)

    @property
    def tableau(self) -> ExponentialTableau:
        return two_stages(self.c2)


@register("exp_heun_2_x0")
@dataclass(frozen=True)
class ExpHeun2(ExponentialRungeKutta):
    """Exponential Heun, of ComfyUI: two calls, at both ends of a step; `res_2s` with c2 = 1.

    Args:
        second: "exact" weights the second call by phi_2, "half" by phi_1 / 2: there "phi_2" and "phi_1".
    """

    reference: ClassVar[str] = f"{_HO_2005}; sample_exp_heun_2_x0 of ComfyUI"

    second: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("second", self.second, ("exact", "half"))

    @property
    def tableau(self) -> ExponentialTableau:
        return two_stages(1.0, self.second)


def _gamma(c2: float, c3: float, power: int = 2) -> float:
    """The gamma with which a method of `three_stages` is of order 3; power 3 for the one of released code."""
    check_ratio("c2", c2)
    check_ratio("c3", c3)
    if power == 2 and math.isclose(c3, 2 / 3, rel_tol=1e-12):
        return 0.0
    # gamma c2 + c3 is 0 where c2 = c3^(power - 1).
    if math.isclose(c2, 2 / 3, rel_tol=1e-6) or math.isclose(c2, c3 ** (power - 1), rel_tol=1e-6):
        raise OptionError(
            "c2, c3",
            got=f"{c2!r}, {c3!r}",
            expected="nodes for which there is a gamma: c2 other than 2/3 and c3, or c3 = 2/3",
            fix="Take c2 = 1/3 and c3 = 2/3, or 1/2 and 1.",
        )
    return c3 * (3 * c3 ** (power - 1) - 2) / (c2 * (2 - 3 * c2)) if power == 3 else third_order_gamma(c2, c3)


@register("etdrk3", aliases=("res_3s_alt",))
@dataclass(frozen=True)
class ETDRK3(ExponentialRungeKutta):
    """Hochbruck and Ostermann's methods of three stages; with c3 = 2/3 and c2 = 1/3 it is DPM-Solver-3.

    Args:
        c2, c3: where in the step the other calls are, in lambda, in (0, 1]. The third parameter of the family, gamma,
            follows from them by 2 (gamma c2 + c3) = 3 (gamma c2^2 + c3^2).
    """

    reference: ClassVar[str] = _HO_2005

    c2: float = 1 / 3
    c3: float = 2 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _gamma(self.c2, self.c3)

    @property
    def tableau(self) -> ExponentialTableau:
        return three_stages(self.c2, self.c3, _gamma(self.c2, self.c3))


@register("res_3s")
@dataclass(frozen=True)
class RES3S(ExponentialRungeKutta):
    """The refined exponential solver of three stages: `etdrk3` with other nodes.

    Released code computes gamma with c3^3 for c3^2. That changes nothing at c3 = 1, where it is used; elsewhere the
    order falls to 2.

    Args:
        c2, c3: as for `etdrk3`.
        as_released: take gamma as released: `calculate_gamma` in beta/phi_functions.py of ClownsharkBatwing/RES4LYF
            at 022c873.
    """

    reference: ClassVar[str] = f"{_RES}; {_HO_2005}"
    released_with: ClassVar[dict[str, Any]] = {"c3": 0.75}

    c2: float = 0.5
    c3: float = 1.0
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("as_released", self.as_released)
        _gamma(self.c2, self.c3, 3 if self.as_released else 2)

    @property
    def tableau(self) -> ExponentialTableau:
        return three_stages(self.c2, self.c3, _gamma(self.c2, self.c3, 3 if self.as_released else 2))


@register("etdrk4")
@dataclass(frozen=True)
class ETDRK4(ExponentialRungeKutta):
    """Exponential time differencing of four stages, on the nodes of the classical Runge-Kutta method.

    Args:
        form: "krogstad" or "cox_matthews". They differ in the couplings of the inner stages.
    """

    reference: ClassVar[str] = (
        "Cox and Matthews, J. Comput. Phys. 176 (2002); Krogstad, J. Comput. Phys. 203 (2005); " + _HO_2005
    )

    form: str = "krogstad"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("form", self.form, tuple(_FORMS))

    @property
    def tableau(self) -> ExponentialTableau:
        return _FORMS[self.form]


_FORMS = {"krogstad": KROGSTAD, "cox_matthews": COX_MATTHEWS}


@register("hochbruck_ostermann", aliases=("res_5s",))
@dataclass(frozen=True)
class HochbruckOstermann(ExponentialRungeKutta):
    """Hochbruck and Ostermann's method of five stages, of order 4 however stiff the linear part is."""

    reference: ClassVar[str] = _HO_2005

    @property
    def tableau(self) -> ExponentialTableau:
        return HOCHBRUCK_OSTERMANN
