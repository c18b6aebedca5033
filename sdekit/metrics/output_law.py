"""The whole law of a plan's output on a mixture in one dimension, by quadrature: no sampling, no moments only.

A step x -> F(x) + s z takes a density p to

    p'(y) = int p(x) N(y; F(x), s^2) dx,

the equation of Chapman and Kolmogorov. On a uniform grid the trapezoid rule turns this into a sum of Gaussians at
F(x_i) with masses p(x_i) dx, which is known at every y: its error falls like exp(-2 (pi w / dx)^2), w the width of the
integrand, and is below 1e-15 for the grids chosen here. A law that is pushed on without noise, by the last step to
sigma = 0 or by a whole deterministic sampler, keeps its masses at the points F(x_i), and has density p / |F'|: there
points are those of Gauss and Legendre's rule on panels that are halved where F is steep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError
from sdekit.math.quadrature import gauss_legendre
from sdekit.metrics.bumps import Bumps
from sdekit.metrics.gaussian import excess
from sdekit.metrics.law import AGAINST
from sdekit.metrics.segments import Segment, run_with_slope, segments
from sdekit.plan import Plan
from sdekit.solvers.options import check_choice
from sdekit.targets import GaussianMixture
from sdekit.times import check_count

__all__ = ["LawDistance", "OutputLaw", "output_law"]

_FINE = 0.55  # of the integrand's width
_LIGHT = 1e-26  # masses below this are left out
_NODES = 8
_ROUNDS = 40


@dataclass(frozen=True)
class LawDistance:
    """Distances of an output law from an exact one.

    Attributes:
        w2: Wasserstein-2, by quantiles; to about 1e-5 of itself where components leave a gap, which quantiles jump.
        tv: total variation, half of int |p - q|; None where the map folds, see `OutputLaw.folded`.
        kl: KL of the output from the exact law, in nats; None as tv.
    """

    w2: float
    tv: float | None
    kl: float | None


@dataclass(frozen=True, eq=False)
class OutputLaw:
    """A law on the line; all arrays (G,), float64.

    Attributes:
        points: rising.
        masses: the mass of each point in sums over the law; they add up to 1.
        density: at the points; where the law is folded, without a meaning.
        below, above: the mass on either side.
        folded: whether a step without noise maps two states to one; quantiles and moments are right even so.
        nfe: model calls of the plan.
        exact: the exact marginal at the last time, and `data` the target.
    """

    points: Tensor
    masses: Tensor
    density: Tensor
    below: Tensor
    above: Tensor
    folded: bool
    nfe: int
    exact: Bumps
    data: Bumps | None

    @property
    def mean(self) -> float:
        """The mean."""
        return float(self.masses @ self.points)

    @property
    def variance(self) -> float:
        """The variance."""
        return float(self.masses @ (self.points - self.mean).square())

    def expectation(self, function: Any) -> float:
        """The mean of function(points), a tensor (G,)."""
        return float(self.masses @ function(self.points))

    def distance(self, against: str = "marginal") -> LawDistance:
        """From the exact marginal at the last time, or from the "data" itself.

        Raises:
            OptionError: against data with point masses.
        """
        check_choice("against", against, AGAINST)
        other = self.exact if against == "marginal" else self.data
        if other is None:
            raise OptionError(
                "against", got="'data' with point masses", expected="'marginal'", fix="Give components a variance."
            )
        usable = (self.below > 0) & (self.above > 0)
        y, masses = self.points[usable], self.masses[usable]
        matched = other.quantile(self.below[usable], self.above[usable], y)
        w2 = math.sqrt(float(masses @ (y - matched).square()))
        if self.folded:
            return LawDistance(w2, None, None)
        below, above = other.tails(self.points)
        left = self.below <= self.above
        change = torch.where(left[1:], (self.below - below).diff(), (above - self.above).diff())
        outside = float((self.below - below)[0].abs() + (self.above - above)[-1].abs())
        gap = (other.log_density(self.points) - torch.log(self.density)).numpy()
        # int p log(p / q) - p + q: every term is positive, and none is a difference of large ones.
        near = np.abs(gap) < 0.3
        terms = np.where(near, excess(np.expm1(np.where(near, gap, 0.0))), np.expm1(np.minimum(gap, 700.0)) - gap)
        kl = float((self.masses.numpy() * terms).sum())
        missing = 1 - float((self.masses.numpy() * np.exp(np.minimum(gap, 700.0))).sum())
        if missing > 1e-12:  # what q has where p has nothing
            kl += missing
        return LawDistance(w2, 0.5 * (float(change.abs().sum()) + outside), kl)


def output_law(
    plan: Plan, target: GaussianMixture, *, start: Any = "marginal", finer: float = 1.0, max_points: int = 40_000
) -> OutputLaw:
    """The law of a plan's output on a mixture in one dimension.

    Args:
        plan: any deterministic plan, of one step or several; or a stochastic one whose steps depend on the last state
            alone and end in one noise: ddpm, ddim, euler_maruyama, exp_adams(order=1) and other one-step methods.
        target: a mixture of samples of shape (1,), with positive variances.
        start: "marginal", the exact law at the first time; "prior", N(0, sigma^2); or (mean, std).
        finer: divides the spacing of the grids; 1 leaves errors at rounding, see the module.
        max_points: the most points of a grid: time grows with its square where noise is as wide as the law, memory with
            itself alone.

    Raises:
        SolverMismatchError: for another stochastic plan.
        InterfaceError, OptionError: for another target, or a law that needs more points.
    """
    if not isinstance(target, GaussianMixture) or target.size != 1:
        got = f"samples of {target.size} numbers" if isinstance(target, GaussianMixture) else type(target).__name__
        raise InterfaceError("target", got=got, expected="a mixture in one dimension", fix="Use samples.")
    if not (math.isfinite(finer) and finer > 0):
        raise OptionError("finer", got=repr(finer), expected="a positive number", fix="Pass 1.0.")
    check_count("max_points", max_points)
    parts, host = segments(plan), target.to(dtype=torch.float64, device="cpu")
    exact = _marginal(host, *plan.end)
    law = _start(host, plan, start)
    waiting: list[Segment] = []
    for part in parts[:-1]:
        waiting.append(part)
        if part.std > 0:
            law = _stepped(plan, waiting, host, law, part.std, finer, max_points)
            waiting = []
    data = None if target.has_point_masses else _marginal(host, 1.0, 0.0)
    return _pushed(plan, [*waiting, parts[-1]], host, law, exact, data, finer, max_points)


def _marginal(target: GaussianMixture, alpha: float, sigma: float) -> Bumps:
    variances = torch.stack([target.components.spectrum(k)[0] for k in range(target.components.count)])
    stds = torch.sqrt(alpha**2 * variances + sigma**2)
    return Bumps.of(alpha * target.means.reshape(-1), stds, target.weights)


def _start(target: GaussianMixture, plan: Plan, start: Any) -> Bumps:
    if isinstance(start, str):
        check_choice("start", start, ("marginal", "prior"))
        if start == "marginal":
            return _marginal(target, *plan.start)
        start = (0.0, plan.start[1])
    if not (isinstance(start, (tuple, list)) and len(start) == 2 and all(isinstance(v, (int, float)) for v in start)):
        raise OptionError(
            "start", got=repr(start), expected="'marginal', 'prior' or (mean, std)", fix="Pass (0.0, 1.0)."
        )
    mean, std = (torch.tensor([float(v)], dtype=torch.float64) for v in start)
    return Bumps.of(mean, std, torch.ones(1, dtype=torch.float64))


def _grid(law: Bumps, spacing: float, max_points: int) -> tuple[Tensor, float]:
    """Points at about this spacing where the law has mass, and the spacing."""
    low, high = law.ends
    count = math.ceil((high - low) / spacing) + 1
    if count > max_points:
        raise _too_many(count, max_points, f"a law on [{low:.3g}, {high:.3g}] at a spacing of {spacing:.2g}")
    return torch.linspace(low, high, count, dtype=torch.float64), (high - low) / max(count - 1, 1)


def _loaded(law: Bumps, spacing: float, max_points: int) -> tuple[Tensor, Tensor]:
    """Points of a grid and their masses, without those that carry nothing."""
    x, dx = _grid(law, spacing, max_points)
    masses = dx * law.density(x)
    heavy = masses > _LIGHT
    return x[heavy], masses[heavy]


def _stepped(
    plan: Plan,
    parts: list[Segment],
    target: GaussianMixture,
    law: Bumps,
    std: float,
    finer: float,
    max_points: int,
) -> Bumps:
    """One step of Chapman and Kolmogorov's equation."""
    spacing = _FINE * law.width / finer
    for _ in range(4):
        x, masses = _loaded(law, spacing, max_points)
        y, slope = run_with_slope(plan, parts, target, x)
        steepest = float(slope.abs().max())
        needed = _FINE / (finer * math.hypot(1 / law.width, steepest / std))
        if spacing <= 1.02 * needed:
            break
        spacing = needed
    return Bumps.of(y, torch.full_like(y, std), masses / masses.sum())


def _pushed(
    plan: Plan,
    parts: list[Segment],
    target: GaussianMixture,
    law: Bumps,
    exact: Bumps,
    data: Bumps | None,
    finer: float,
    max_points: int,
) -> OutputLaw:
    """The law carried through what is left without noise."""
    if all(part.first == part.last and not part.kick for part in parts):  # nothing is left to do
        x, masses = _loaded(law, _FINE * law.width / finer, max_points)
        y, slope = x, torch.ones_like(x)
    else:
        x, weights = _panels(plan, parts, target, law, exact.width, finer, max_points)
        masses = weights * law.density(x)
        x, masses = x[masses > _LIGHT], masses[masses > _LIGHT]
        y, slope = run_with_slope(plan, parts, target, x)
    below, above = law.tails(x)
    masses, density = masses / masses.sum(), law.density(x) / slope.abs()
    folded = bool((y.diff() <= 0).any())
    if folded:
        order = y.argsort()
        y, masses, density = y[order], masses[order], density[order]
        below, above = masses.cumsum(0) - 0.5 * masses, masses.flip(0).cumsum(0).flip(0) - 0.5 * masses
    return OutputLaw(y, masses, density, below, above, folded, plan.nfe, exact, data)


def _panels(
    plan: Plan, parts: list[Segment], target: GaussianMixture, law: Bumps, width: float, finer: float, max_points: int
) -> tuple[Tensor, Tensor]:
    """Points and weights of Gauss and Legendre's rule on panels, each at most twice as wide as the law's narrowest
    bump, and its image half as wide as the narrowest exact one."""
    nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in gauss_legendre(_NODES))
    low, high = law.ends
    edges = torch.linspace(low, high, math.ceil(finer * (high - low) / (2 * law.width)) + 1, dtype=torch.float64)
    left, size = edges[:-1], edges.diff()
    done: list[tuple[Tensor, Tensor]] = []
    for _ in range(_ROUNDS):
        x = left[:, None] + size[:, None] * nodes
        heavy = (law.density(x.reshape(-1)).reshape(x.shape) * size[:, None]).amax(1) > _LIGHT
        x, left, size = x[heavy], left[heavy], size[heavy]
        _, slope = run_with_slope(plan, parts, target, x.reshape(-1))
        coarse = slope.reshape(x.shape).abs().amax(1) * size * finer > 0.5 * width
        done.append((left[~coarse], size[~coarse]))
        left, size = left[coarse], 0.5 * size[coarse]
        left, size = torch.cat([left, left + size]), torch.cat([size, size])
        order = left.argsort()
        left, size = left[order], size[order]
        count = _NODES * (len(left) + sum(len(v) for v, _ in done))
        if count > max_points:
            raise _too_many(count, max_points, f"a map as steep as {float(slope.abs().max()):.2g}")
        if not len(left):
            break
    left, size = (torch.cat(v) for v in zip(*done, strict=True))
    order = left.argsort()
    left, size = left[order, None], size[order, None]
    return (left + size * nodes).reshape(-1), (size * weights).reshape(-1)


def _too_many(count: int, most: int, what: str) -> OptionError:
    return OptionError(
        "max_points",
        got=f"{count} points for {what}",
        expected=f"at most {most}",
        fix="Raise max_points, or stop at a larger sigma.",
    )
