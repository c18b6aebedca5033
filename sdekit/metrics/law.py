"""The exact law of what a plan returns on a Gaussian target, and its distance from the one it should have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.metrics.gaussian import gaussian_kl, gaussian_w2
from sdekit.metrics.recursion import propagated
from sdekit.plan import Plan
from sdekit.solvers.options import check_choice
from sdekit.targets import GaussianMixture

__all__ = ["AGAINST", "FINISHES", "Axes", "Law", "LawError", "plan_law_error", "principal_axes", "started"]

AGAINST = ("marginal", "data")
FINISHES = ("state", "rescaled", "denoised")
Scale = tuple[float, float]


class Law(NamedTuple):
    """A Gaussian law with independent coordinates: means (d,) and variances (d,)."""

    mean: np.ndarray
    variance: np.ndarray

    def w2(self, other: Law) -> float:
        """Wasserstein-2 distance."""
        return gaussian_w2(self.mean, self.variance, other.mean, other.variance)

    def kl(self, other: Law) -> float:
        """KL of this law from the other."""
        return gaussian_kl(self.mean, self.variance, other.mean, other.variance)


@dataclass(frozen=True, eq=False)
class Axes:
    """Data N(mean, variances) in its principal axes. Affine processes treat all axes alike, so these may be chosen.

    `basis` has the axes as columns; None where they are those of the data.
    """

    mean: np.ndarray
    variances: np.ndarray
    basis: np.ndarray | None = None

    @property
    def ones(self) -> np.ndarray:
        """The vector of ones of the data's own axes."""
        ones = np.ones_like(self.mean)
        return ones if self.basis is None else self.basis.T @ ones

    @cached_property
    def data(self) -> Law:
        """The law of the data."""
        return Law(self.mean, self.variances)

    def marginal(self, scale: Scale) -> Law:
        """The law of alpha x_0 + sigma eps."""
        alpha, sigma = scale
        return Law(alpha * self.mean, alpha**2 * self.variances + sigma**2)

    def finished(self, law: Law, scale: Scale, finish: str) -> Law:
        """The law of a state at (alpha, sigma) once it is "rescaled", x / alpha, or "denoised", E[x_0 | x]."""
        alpha, sigma = scale
        if finish == "state":
            return law
        if finish == "rescaled":
            gain = np.full_like(self.variances, 1 / alpha)
        else:
            total = alpha**2 * self.variances + sigma**2
            gain = np.divide(alpha * self.variances, total, out=np.zeros_like(total), where=total > 0)
        return Law(self.mean + gain * (law.mean - alpha * self.mean), gain**2 * law.variance)


def principal_axes(target: Any) -> Axes:
    """The axes of a Gaussian target. Raises InterfaceError or OptionError for what is not one Gaussian."""
    if not isinstance(target, GaussianMixture):
        raise InterfaceError(
            "target", got=type(target).__name__, expected="a GaussianMixture", fix="Pass sdekit.targets.gaussian(m, c)."
        )
    if target.components.count != 1:
        raise OptionError(
            "target",
            got=f"a mixture of {target.components.count} components",
            expected="one Gaussian, whose output law is known exactly",
            fix="Use output_law in one dimension, or samples.",
        )
    mean, cov = target.mean.flatten().cpu().numpy(), target.cov.cpu().numpy()
    if np.array_equal(cov, np.diag(np.diag(cov))):
        return Axes(mean, np.diag(cov).copy())
    values, basis = np.linalg.eigh(cov)
    return Axes(basis.T @ mean, np.maximum(values, 0.0), basis)


def started(axes: Axes, scale: Scale, start: Any) -> Law:
    """The law of a start: "marginal", "prior" for N(0, sigma^2 I), or (mean, std) numbers. Raises OptionError."""
    if isinstance(start, str):
        check_choice("start", start, ("marginal", "prior"))
        if start == "marginal":
            return axes.marginal(scale)
        start = (0.0, scale[1])
    if not (isinstance(start, Sequence) and len(start) == 2 and all(isinstance(v, (int, float)) for v in start)):
        raise OptionError(
            "start",
            got=repr(start),
            expected="'marginal', 'prior', or the mean and the standard deviation of the start",
            fix="Pass (0.0, 1.0) for a standard normal.",
        )
    mean, std = (float(v) for v in start)
    if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
        raise OptionError("start", got=repr(start), expected="a finite mean and std >= 0", fix="Check the numbers.")
    return Law(mean * axes.ones, np.full_like(axes.mean, std**2))


@dataclass(frozen=True)
class LawError:
    """How far a plan's output law is from the one it should have; see `plan_law_error`.

    Attributes:
        mean: the norm of the error of the mean.
        covariance: the Frobenius norm of the error of the covariance.
        w2: the Wasserstein-2 distance.
        kl: KL of the output from the exact law, in nats.
        scale: the root mean square of the norm of the exact law, which `w2` is relative to.
        nfe: model calls.
    """

    mean: float
    covariance: float
    w2: float
    kl: float
    scale: float
    nfe: int

    @property
    def relative(self) -> float:
        """w2 / scale."""
        return self.w2 / self.scale


def plan_law_error(
    plan: Plan, target: GaussianMixture, *, start: Any = "marginal", against: str = "marginal", finish: str = "state"
) -> LawError:
    """The exact error of a plan's output law on a Gaussian target: no sampling.

    Args:
        plan: any plan of numbers, deterministic or stochastic.
        target: one Gaussian.
        start: "marginal", the exact law at the first time, which leaves the discretization alone to blame; "prior",
            N(0, sigma^2 I) of the first time; or (mean, std) of an isotropic start.
        against: "marginal", the exact law at the last time; "data", the law of the data itself.
        finish: what is done with the last state: nothing ("state"); "rescaled", divided by alpha; "denoised", replaced
            by the data prediction. Compared with the data it must be "against" that.

    Raises:
        InterfaceError, OptionError: for another target, or options that do not fit.
        SolverMismatchError: for a plan with coefficients of its own for each direction.
    """
    check_choice("against", against, AGAINST)
    check_choice("finish", finish, FINISHES)
    if finish != "state" and against != "data":
        raise OptionError(
            "finish", got=f"{finish!r} against the marginal", expected="'state'", fix="Pass against='data'."
        )
    axes = principal_axes(target)
    got = axes.finished(carried(plan, axes, started(axes, plan.start, start)), plan.end, finish)
    exact = axes.data if against == "data" else axes.marginal(plan.end)
    return LawError(
        mean=float(np.linalg.norm(got.mean - exact.mean)),
        covariance=float(np.linalg.norm(got.variance - exact.variance)),
        w2=got.w2(exact),
        kl=got.kl(exact),
        scale=math.sqrt(float((exact.mean**2 + exact.variance).sum())),
        nfe=plan.nfe,
    )


def carried(plan: Plan, axes: Axes, law: Law) -> Law:
    """The law of a plan's output from this one. Raises SolverMismatchError for a plan that tells directions apart."""
    coefficients = (v for row in plan.rows for c in row.combinations() for v in c.coefficients())
    if not all(isinstance(v, (int, float)) for v in coefficients):
        raise SolverMismatchError(
            "plan",
            got=f"{plan.solver}, with coefficients for each direction",
            expected="coefficients that are numbers: the target is taken in its principal axes",
            fix="Use plan.gaussian_moments with gaussian_w2 and gaussian_kl.",
        )
    return Law(*propagated(plan, axes.mean, axes.variances, law.mean, law.variance))
