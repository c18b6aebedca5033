"""The Gaussian protocol of Pierret and Galerne: exact Wasserstein errors of six schemes, cause by cause.

"Diffusion models for Gaussian distributions: Exact solutions and Wasserstein errors", ICML 2025 (arXiv 2405.14250).
Data N(0, Sigma) under VP (beta from 0.1 to 20; theirs, 0.05 to 10, is half of what it is here), grids uniform in t from
1 to a truncation time eps, and for each scheme the distance of the law of its output from the data: from the exact p_1
or from N(0, I), for several eps and numbers of calls, besides what the exact dynamics themselves leave.

    theirs          here
    EM              euler_maruyama
    EI              metrics.schemes.FrozenScore, the exponential integrator that holds the score
    DDPM            ddpm(variance="beta"); as released metrics.schemes.FirstOrderDDPM, beta to first order in the step
    Euler           euler(clock="t")
    Heun            heun(clock="t")
    RK4             rk4(clock="t")

Here every scheme makes as many model calls as its column says, or fewer by less than one step. Their notebook counts
grid points, so that schemes of one call make one fewer; RK4 takes a quarter of the points; and Heun, whose branch is
overwritten, takes all of them and makes twice the calls of its column. as_released=True does that, and gives their
published numbers from their spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit import solvers, targets
from sdekit.errors import OptionError, ShapeError
from sdekit.metrics.exact import reversed_law
from sdekit.metrics.law import Axes, Law, carried
from sdekit.metrics.schemes import FirstOrderDDPM, FrozenScore
from sdekit.processes import VP
from sdekit.solvers.base import PlanSolver
from sdekit.targets.mixture import as_array
from sdekit.times import check_count

__all__ = ["SCHEMES", "ProtocolRow", "gaussian_protocol"]

SCHEMES = ("EM", "EI", "DDPM", "Euler", "Heun", "RK4")
_STARTS = ("marginal", "standard")
_CALLS = {"Heun": 2, "RK4": 4}
_SINGULAR = "the scheme calls the flow at t = 0, where its rate in t is infinite"
_COARSE = "a step with beta >= 1, for which DDPM's chain is not defined"


@dataclass(frozen=True)
class ProtocolRow:
    """One cell of the table.

    Attributes:
        scheme: one of `SCHEMES`, or "exact" for the dynamics themselves.
        dynamics: "SDE" or "ODE".
        solver: the label of the solver that it is here; "" for "exact".
        truncation: eps, the last time.
        start: "marginal" for p_1, "standard" for N(0, I).
        column: the number of calls that the column of the table stands for; 0 for "exact".
        steps, calls: those made.
        w2: the distance from the data; None where the scheme is not defined.
        note: why it is not.
    """

    scheme: str
    dynamics: str
    solver: str
    truncation: float
    start: str
    column: int
    steps: int
    calls: int
    w2: float | None
    note: str = ""


def gaussian_protocol(
    data: Any = None,
    *,
    key: str | None = None,
    spectrum: Any = None,
    calls: Sequence[int] = (50, 250, 500, 1000),
    truncations: Sequence[float] = (0.0, 1e-5, 1e-3, 1e-2),
    as_released: bool = False,
) -> list[ProtocolRow]:
    """The rows of the protocol's table.

    Args:
        data: (n, *shape) points whose covariance is Sigma, or the path of a .npy, .npz or .safetensors file with them;
            by default the digits of scikit-learn.
        key: which array, where the file holds several.
        spectrum: the eigenvalues of Sigma themselves, (d,), instead of data.
        calls: model calls of a column.
        truncations: the last times.
        as_released: count calls and take beta as their notebook does.

    Raises:
        OptionError, ShapeError, InterfaceError, SdekitError: for data, counts or times that cannot be used, as
            `sdekit.targets.empirical`.
    """
    values = _spectrum(data, key, spectrum)
    axes, process = Axes(np.zeros_like(values), values), VP()
    for count in calls:
        if check_count("calls", count) < 2 * max(_CALLS.values()):
            raise OptionError("calls", got=repr(count), expected="8 or more", fix="RK4 makes four a step.")
    for eps in truncations:
        if not 0 <= eps < 1:
            raise OptionError("truncations", got=repr(eps), expected="times in [0, 1)", fix="Pass 1e-3.")
    rows = [
        _exact_row(process, axes, d, eps, start) for d in ("SDE", "ODE") for eps in truncations for start in _STARTS
    ]
    for scheme in SCHEMES:
        method = _solver(scheme, as_released)
        rows += [
            row
            for eps in truncations
            for count in calls
            for row in _scheme_rows(process, axes, scheme, method, eps, count, _steps(scheme, count, as_released))
        ]
    return rows


def _spectrum(data: Any, key: str | None, spectrum: Any) -> np.ndarray:
    if spectrum is None:
        target = targets.digits(std=0.0) if data is None else targets.empirical(data, key=key)
        return np.maximum(torch.linalg.eigvalsh(target.cov).numpy(), 0.0)
    if data is not None or key is not None:
        raise OptionError("spectrum", got="data as well", expected="one of both", fix="Leave data and key out.")
    values = as_array("spectrum", spectrum).cpu().numpy()
    if values.ndim != 1 or not len(values):
        raise ShapeError("spectrum", got=f"shape {values.shape}", expected="(d,)", fix="Pass the eigenvalues.")
    if (values < 0).any():
        raise OptionError("spectrum", got=f"{values.min():g}", expected="eigenvalues >= 0", fix="Clamp them at 0.")
    return values


def _solver(scheme: str, as_released: bool) -> PlanSolver:
    if scheme == "EI":
        return FrozenScore()
    if scheme == "DDPM":
        return FirstOrderDDPM() if as_released else solvers.get("ddpm", variance="beta")
    names = {"EM": "euler_maruyama", "Euler": "euler", "Heun": "heun", "RK4": "rk4"}
    return solvers.get(names[scheme]) if scheme == "EM" else solvers.get(names[scheme], clock="t")


def _steps(scheme: str, count: int, as_released: bool) -> int:
    if not as_released:
        return count // _CALLS.get(scheme, 1)
    return (count // 4 if scheme == "RK4" else count) - 1


def _start(process: VP, axes: Axes, start: str) -> Law:
    if start == "standard":
        return Law(axes.mean, np.ones_like(axes.variances))
    (level,) = process.levels([1.0])
    return axes.marginal((level.alpha, level.sigma))


def _exact_row(process: VP, axes: Axes, dynamics: str, eps: float, start: str) -> ProtocolRow:
    tau = 1.0 if dynamics == "SDE" else 0.0
    law = reversed_law(process, axes, 1.0, eps, tau, _start(process, axes, start))
    return ProtocolRow("exact", dynamics, "", eps, start, 0, 0, 0, law.w2(axes.data))


def _scheme_rows(
    process: VP, axes: Axes, scheme: str, method: PlanSolver, eps: float, count: int, steps: int
) -> list[ProtocolRow]:
    """From both starts; the same plan serves."""
    dynamics = "SDE" if scheme in ("EM", "EI", "DDPM") else "ODE"
    common = (scheme, dynamics, method.label, eps)
    if scheme in _CALLS and eps == 0:
        return [ProtocolRow(*common, start, count, steps, 0, None, _SINGULAR) for start in _STARTS]
    times: Tensor = torch.linspace(1.0, eps, steps + 1, dtype=torch.float64)
    if isinstance(method, FirstOrderDDPM) and (1 - eps) / steps * float(process.diffusion_coefficient(1.0)) ** 2 >= 1:
        return [ProtocolRow(*common, start, count, steps, 0, None, _COARSE) for start in _STARTS]
    plan = method.plan(process, times, 1.0 if dynamics == "SDE" else 0.0)
    laws = [carried(plan, axes, _start(process, axes, start)) for start in _STARTS]
    return [
        ProtocolRow(*common, start, count, steps, plan.nfe, law.w2(axes.data))
        for start, law in zip(_STARTS, laws, strict=True)
    ]
