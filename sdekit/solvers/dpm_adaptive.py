"""DPM-Solver-12 and 23: the exponential pairs of orders 2(1) and 3(2), with steps of each sample's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError
from sdekit.math.phi import phi_arrays
from sdekit.plan import Row
from sdekit.sde import Stochasticity
from sdekit.shapes import finite_number
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.controller import Controller, as_controller
from sdekit.solvers.dpm_solver import DPMSolver2, DPMSolver3
from sdekit.solvers.exponential_tableau import ExponentialTableau, Weight, three_stages, two_stages

__all__ = ["DPM_12", "DPM_23", "DPMAdaptive", "ExponentialPair"]


@dataclass(frozen=True)
class ExponentialPair:
    """An exponential Runge-Kutta method on the flow in lambda, with an estimate of the error of a step.

    Args:
        tableau: the method that is propagated.
        low: the weights of a method of lower order on the same stages, whose difference is the estimate.
        order: the power of h with which the estimate falls.

    Raises:
        OptionError: for weights `low` of another number than the tableau's.
    """

    tableau: ExponentialTableau
    low: tuple[Weight, ...]
    order: int
    first_same_as_last: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.low) != self.tableau.stages:
            raise OptionError(
                f"pair {self.tableau.name}",
                got=f"{len(self.low)} lower weights",
                expected=f"{self.tableau.stages}, one for each stage",
                fix="Give a stage that is not used the weight ().",
            )

    def varying(self, h: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Weights for steps h (n,) in lambda: for each state, (slopes, n), and (1, slopes, n) of the estimate.

        They are for slopes of x / alpha. Node i takes -h sigma_i sum_j a_ij(h) noise_j, and the slope there is
        k_j = -rho_j noise_j, so that with rho_i / rho_j = e^{-(c_i - c_j) h} it is h alpha_i sum_j w_ij k_j for
        w_ij = a_ij(h) e^{-(c_i - c_j) h}.
        """
        table: dict[float, np.ndarray] = {}

        def value(weight: Weight) -> np.ndarray:
            total = np.zeros_like(h)
            for w, k, c in weight:
                if c not in table:
                    table[c] = phi_arrays(2, c * h)
                total += w * table[c][k]
            return total

        def row(weights: Sequence[Weight], at: float) -> np.ndarray:
            decays = [np.exp((c - at) * h) for c in self.tableau.c]
            return np.stack([value(a) * decay for a, decay in zip(weights, decays, strict=False)])

        t = self.tableau
        states = [row(a, c) for a, c in zip(t.a[1:], t.c[1:], strict=True)]
        end = row(t.b, 1.0)
        return [*states, end], (end - row(self.low, 1.0))[None]


DPM_12 = ExponentialPair(two_stages(0.5, "half"), (((1.0, 1, 1.0),), ()), 2)
"""DPM-Solver-2, and DPM-Solver-1."""

DPM_23 = ExponentialPair(three_stages(1 / 3, 2 / 3, 0.0), (*two_stages(1 / 3, "half").b, ()), 3)
"""DPM-Solver-3, and DPM-Solver-2 with r_1 = 1/3."""


@register("dpm_adaptive", aliases=("k_dpm_adaptive", "DPM adaptive"))
@dataclass(frozen=True)
class DPMAdaptive(PlanSolver):
    """DPM-Solver-12 and 23 (Lu et al., 2022): the flow of the noise prediction in lambda, with adaptive steps.

    With rtol= or atol= every sample takes steps of its own, as with `rk45`: see
    `sdekit.solvers.adaptive.EmbeddedRungeKutta` for the error and its norm. k-diffusion's defaults are rtol=0.05 and
    atol=0.0078; its norm is over the whole batch, relative to max(atol, rtol max(|x|, |x'|)) with x and x' the states
    of the lower order of this step and the last. Here a rejected step costs one call less, as the first prediction is
    kept. Without tolerances it is DPM-Solver-2 or 3 on a grid. lambda must be finite: alpha = 0 and sigma = 0 are
    refused with tolerances.

    Args:
        order: 3 for DPM-Solver-23, 2 for DPM-Solver-12.
        controller: "pi" or another name of rk45's, or a `Controller`. "i" is the published one; at loose tolerances the
            long steps to which it grows at high noise miss what comes, at rtol=0.05 with errors up to fifty times
            those of "pi". k-diffusion's pcoeff, icoeff and dcoeff are those of `Controller.pid`.
        first_step: the length of the first step in lambda, k-diffusion's h_init; None estimates it.
        compact: whether samples that have arrived leave the batch.
    """

    family: ClassVar[str] = "exponential Runge-Kutta"
    reference: ClassVar[str] = (
        "Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver, NeurIPS 2022, arXiv:2206.00927; "
        "k_diffusion/sampling.py of crowsonkb/k-diffusion at 4601bf0, sample_dpm_adaptive"
    )
    adaptive: ClassVar[bool] = True
    adaptive_clock: ClassVar[str] = "lambda"
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 3
    controller: str | Controller = "pi"
    first_step: float | None = 0.05
    compact: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or self.order not in (2, 3):
            raise OptionError("order", got=repr(self.order), expected="2 or 3", fix="Take 3.")
        as_controller(self.controller)
        if self.first_step is not None:
            finite_number("first_step", self.first_step, positive=True)
        if not isinstance(self.compact, bool):
            raise InterfaceError("compact", got=repr(self.compact), expected="True or False", fix="Pass a bool.")

    @property
    def declared(self) -> Order:  # type: ignore[override]
        return self._fixed.declared

    @property
    def pair(self) -> ExponentialPair:
        """What adaptive steps use."""
        return DPM_23 if self.order == 3 else DPM_12

    @property
    def filter(self) -> Controller:
        """The controller itself."""
        return as_controller(self.controller)

    @property
    def calls_per_step(self) -> int:
        """The calls of a step that is accepted."""
        return self.order

    @property
    def _fixed(self) -> PlanSolver:
        return DPMSolver3() if self.order == 3 else DPMSolver2()

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        return self._fixed.rows(process, times, stochasticity)
