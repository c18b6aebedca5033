"""From what a solver extrapolates to what a model predicts: a plan's conversions, computed at once in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sdekit.affine import AffineSDE
from sdekit.errors import OptionError
from sdekit.parameterisation import EDMPreconditioning, Schedules, convert
from sdekit.plan import Plan, Row

__all__ = ["BoundRow", "bind"]


@dataclass(frozen=True)
class BoundRow:
    """A row with its conversion from the model's prediction: E = y point + m M.

    If `stored`, E is needed by later rows, or by two combinations of which the first overwrites the point. Else y and m
    enter the combinations directly. `denoise` is (y, m) of the data prediction, for callbacks.
    """

    row: Row
    y: float
    m: float
    stored: bool
    denoise: tuple[float, float]


def bind(plan: Plan, native: str | EDMPreconditioning, process: AffineSDE) -> list[BoundRow]:
    """Conversions for each row from what a model of the process predicts, computed at once in float64.

    Raises:
        OptionError: where what the model predicts does not determine what the solver needs, or the plan was made for
            another process.
    """
    t = torch.tensor([row.t for row in plan.rows], dtype=torch.float64)
    alpha, sigma = process.alpha(t).numpy(), process.sigma(t).numpy()
    _check_same_process(plan, process, alpha, sigma)
    schedules = Schedules(alpha, sigma, process.alpha_rate(t).numpy(), process.sigma_rate(t).numpy())
    data, noise = np.array([row.weights for row in plan.rows]).T
    y, m = convert(native, data, noise, schedules)
    bad = ~(np.isfinite(y) & np.isfinite(m))
    if bad.any():
        i = int(bad.argmax())
        raise OptionError(
            "model",
            got=f"a prediction of {native!r} at t = {plan.rows[i].t:.8g} of {process!r}, where alpha = {alpha[i]:.3g} "
            f"and sigma = {sigma[i]:.3g}",
            expected=f"a prediction that determines {data[i]:g} data + {noise[i]:g} noise there",
            fix="Move the end of the grid off the singular time, use a solver in data prediction (dpmpp_2m, ddim), "
            "or a model that predicts 'v' or 'velocity'.",
        )
    dy, dm = convert(native, np.ones_like(alpha), np.zeros_like(alpha), schedules)
    return [
        BoundRow(
            row,
            y_i,
            m_i,
            stored=plan.last_use[i] > i or (row.base is not None and row.point is not None and y_i != 0),
            denoise=(dy_i, dm_i),
        )
        for i, (row, y_i, m_i, dy_i, dm_i) in enumerate(
            zip(plan.rows, y.tolist(), m.tolist(), dy.tolist(), dm.tolist(), strict=True)
        )
    ]


def _check_same_process(plan: Plan, process: AffineSDE, alpha: np.ndarray, sigma: np.ndarray) -> None:
    planned = np.array([(row.alpha, row.sigma) for row in plan.rows]).T
    if not (
        np.allclose(planned[0], alpha, rtol=1e-9, atol=1e-12) and np.allclose(planned[1], sigma, rtol=1e-9, atol=1e-12)
    ):
        raise OptionError(
            "plan",
            got=f"a plan for {plan.process} with a model of {process!r}",
            expected="one process for both",
            fix="Make the plan with the model's process.",
        )
