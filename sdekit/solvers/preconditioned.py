"""Exponential integrators that solve the probability flow of one Gaussian exactly, and interpolate the rest.

With y = x / alpha, rho = sigma / alpha = e^-lambda, D the data prediction and N the noise prediction the flow is dy =
(D - y) dlambda. For data N(m, c) it is D = m + K (y - m), K = c / (c + rho^2), and y - m grows in it as R = sqrt(c +
rho^2). With the residual r = D - m - K (y - m), for any data,

    y_t = m + (R_t / R_s) (y_s - m) + int (R_t / R) r dlambda.

The methods interpolate E = g r through its latest values: g = 1 in the form "data", g = R / rho in "interpolating". The
latter is E = (rho (D - m) - c N) / R, and tends to data prediction for c -> 0 and to noise prediction for c -> inf.

Where directions have variances c_i of their own, E is formed with their mean c, as a row has one pair of weights. On
the Gaussian flow through y_s, w_i = m + A_i (y_s - m) with A_i = R_i / R_i(s), it would be F_i = g (K_i - K) (w_i - m),
known in advance, and

    y_t = w_i(t) + int (R_t / R) (r - (K_i - K) (w_i - m)) dlambda

is the same equation. So E - F_i is interpolated, which is 0 on that Gaussian, and only the coefficient of y_s depends
on the direction. A mean that is not known is replaced by the one with which the Gaussian through y_s explains the
output E_v at the noisiest level v so far: E_v = g_v ((1 - K_v) m + (K_i - K)_v A_i(v) (y_s - m)). There D hardly
depends on the state, so that this is near the mean of any data; what is put for m leaves the order as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE, Level
from sdekit.errors import OptionError, ShapeError
from sdekit.math.phi import MAX_PHI
from sdekit.model import Model
from sdekit.plan import DATA, Combination, Row, combine
from sdekit.plan.coefficients import Block, Coefficient, Direction
from sdekit.sde import Stochasticity
from sdekit.shapes import expand_time
from sdekit.solvers.adams import START_ORDER, check_order, single_step_starts
from sdekit.solvers.base import Order, PlanSolver, register
from sdekit.solvers.clocks import CLOCKS
from sdekit.solvers.exponential import lambda_rule, limit_row
from sdekit.solvers.grid_steps import history_weights
from sdekit.solvers.options import check_choice

__all__ = ["Moments", "PreconditionedAdams", "centred", "moments_of"]

_HALF = 0.5
_KUTTA = ((_HALF,), (0.0, _HALF), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@register("preconditioned_adams", aliases=("preconditioned_eab", "gaussian_adams"))
@dataclass(frozen=True)
class PreconditionedAdams(PlanSolver):
    """Exponential Adams-Bashforth on what a Gaussian of the data's variance leaves of the probability flow.

    On data N(m, data_variance) it is exact at any number of steps, on other data of the order of an exponential Adams
    method with a smaller error where the Gaussian is a fair picture of the data. A step to sigma = 0 is x_t = alpha_t
    data, and one from alpha = 0 of order 1.

    Args:
        order: the number of outputs that a step interpolates, 1 to 20, the order p of an interior step.
        form: "interpolating" between data and noise prediction, or "data"; see the module.
        data_variance: c >= 0 as one number; a tensor of the shape of one sample, or one that broadcasts to it, for one
            number per direction; or a `sdekit.plan.coefficients.Block` of a covariance that acts on the first axis of a
            sample, all of it for samples of shape (d,). See `moments_of`.
        mean: "any" finds m from the model's output at the noisiest level, which is kept for that; with "zero" it is 0,
            which `centred` makes it.
        starter: "ramp" begins with orders 1, 2, ..., p; "single_step" takes the first p - 2 steps by the classical
            Runge-Kutta method on the same equation, of four calls each, which keeps the order p up to 5.
        clock: in what the outputs are interpolated by a polynomial: "lambda", "rho" = e^-lambda, "kappa" = e^lambda or
            "t".
    """

    family: ClassVar[str] = "exponential Adams"
    reference: ClassVar[str] = (
        "sdekit: the flow of the data's Gaussian as the linear part of an exponential multistep method, for which see "
        "Hochbruck and Ostermann, Acta Numerica 19 (2010)"
    )
    fixed_stochasticity: ClassVar[float] = 0.0

    order: int = 3
    form: str = "interpolating"
    data_variance: float | Direction | Block = 1.0
    mean: str = "any"
    starter: str = "ramp"
    clock: str = "lambda"

    def __post_init__(self) -> None:
        check_order(self.order, MAX_PHI)
        check_choice("clock", self.clock, CLOCKS)
        check_choice("form", self.form, ("interpolating", "data"))
        check_choice("mean", self.mean, ("any", "zero"))
        check_choice("starter", self.starter, ("ramp", "single_step"))
        object.__setattr__(self, "data_variance", _variance(self.data_variance))

    @property
    def declared(self) -> Order:  # type: ignore[override]
        first = 2 if self.starter == "ramp" else START_ORDER + 1
        note = "limited by the first steps" if self.order > first else ""
        return Order(deterministic=min(self.order, first), note=note)

    def rows(self, process: AffineSDE, times: list[float], stochasticity: Stochasticity) -> Sequence[Row]:
        levels = process.levels(times, rates=False)
        gaussian = _Gaussian(self)
        starts = single_step_starts(self.order, self.starter, 0.0)
        places = [gaussian.output(-1, v) for v in levels]
        weights = gaussian.integrals(process, places, self.order)
        rows: list[Row] = []
        history: list[_Output] = []
        noisiest: _Output | None = None
        for n, (s, t) in enumerate(itertools.pairwise(levels)):
            now = _Output(len(rows), *places[n][1:])
            if noisiest is None or s.half_log_snr < noisiest.at.half_log_snr:
                noisiest = now
            if s.alpha == 0 and t.sigma > 0:
                rows.append(gaussian.from_pure_noise(n, s, t))
                continue
            if 0 in (s.alpha, s.sigma, t.alpha, t.sigma):
                rows.append(limit_row(n, s, t, "data", 0.0))
                noisiest = noisiest if s.sigma > 0 else None
                continue
            history = [now, *history[: self.order - 1]]
            if n < starts:
                rows += _runge_kutta(gaussian, process, n, s, t, noisiest, len(rows))
                continue
            base = gaussian.combination(now, places[n + 1], history, weights[n], noisiest, now.row)
            rows.append(Row(s.t, s.alpha, s.sigma, gaussian.weights(now), base, None, n))
        return rows


class _Output(NamedTuple):
    """An output E: its row, the level where it was made, rho there, and R, g and 1 - K of the mean variance; these are
    NaN where alpha or sigma is 0."""

    row: int
    at: Level
    rho: float
    root: float
    g: float
    share: float


class _Gaussian:
    """The Gaussian of a solver: its weights and combinations. Variances are arrays over directions, or over the
    eigenvectors of a covariance; `c` is their mean."""

    def __init__(self, solver: PreconditionedAdams) -> None:
        given = solver.data_variance
        self.basis: np.ndarray | None = None
        if isinstance(given, Block):
            values, self.basis = np.linalg.eigh(given.matrix)
            self.variances: Any = np.maximum(values, 0.0)
        else:
            self.variances = given.values if isinstance(given, Direction) else np.array(float(given))
        self.uniform = bool((self.variances == self.variances.flat[0]).all())
        self.c = float(self.variances.flat[0] if self.uniform else self.variances.mean())
        if self.uniform:
            self.variances = self.c
        self.clock = solver.clock
        self.interpolating, self.any_mean = solver.form == "interpolating", solver.mean == "any"

    def output(self, row: int, at: Level) -> _Output:
        """What a row makes at a level."""
        rho = at.rho
        if not 0 < rho < math.inf:
            return _Output(row, at, rho, math.nan, math.nan, math.nan)
        root = _root(self.c, rho)
        return _Output(row, at, rho, root, root / rho if self.interpolating else 1.0, _share(self.c, rho))

    def weights(self, s: _Output) -> tuple[float, float]:
        """E = p D + q N, for m = 0."""
        return s.g * s.share, -s.g * (self.c / s.root) * (s.rho / s.root)

    def integrals(self, process: AffineSDE, places: Sequence[_Output], order: int) -> dict[int, list[float]]:
        """For each step that does not touch an end the b_j of int (R_t / R) r dlambda = sum_j b_j E_j: from their
        moments int (R_t / (g R)) u^k dlambda, k < order, with the clock u from 0 to 1 in the step."""
        steps = [(n, s, t) for n, (s, t) in enumerate(itertools.pairwise(places)) if s.g == s.g and t.g == t.g]
        if not steps:
            return {}
        lengths = [t.at.half_log_snr - s.at.half_log_snr for _, s, t in steps]
        rules = [lambda_rule(h) for h in lengths]  # the poles of the weights are pi / 2 off the real axis too
        counts = [len(points) for points, _ in rules]
        u, base = (np.concatenate([rule[i] for rule in rules]) for i in (0, 1))
        starts, roots = [s.at.half_log_snr for _, s, _ in steps], [t.root for *_, t in steps]
        h, start, root = (np.repeat(np.array(v), counts) for v in (lengths, starts, roots))
        lambdas = start + h * u
        rho = np.exp(-lambdas)
        # For "interpolating" R_t / (g R) = R_t rho / R^2.
        below = _root(self.c, rho) if not self.interpolating else (self.c + rho * rho) / rho
        quadrature, first, found = h * root * base / below, np.cumsum([0, *counts[:-1]]), []
        clock = [_clock(self.clock, at.at.t, at.at.half_log_snr) for at in places]
        if self.clock != "lambda":
            times = process.time_at(torch.from_numpy(lambdas)).numpy() if self.clock == "t" else lambdas
            start, end = (np.repeat([clock[n + k] for n, *_ in steps], counts) for k in (0, 1))
            u = (_clock(self.clock, times, lambdas) - start) / (end - start)
        for _ in range(order):
            found.append(np.add.reduceat(quadrature, first))
            quadrature = quadrature * u
        return history_weights(clock, [n for n, *_ in steps], found, order)

    def combination(
        self, s: _Output, t: _Output, outputs: Sequence[_Output], b: Sequence[float], noisiest: _Output, row: int
    ) -> Combination:
        """x_t from x_s and sum_j b_j (E_j - F_j), with what is missing for the mean; made in this row."""
        base = self.flow(s, t)
        if not self.uniform:
            for weight, v in zip(b, outputs, strict=True):
                base = base - weight * v.g * self.change(s, v)
        factor = t.at.alpha
        found: dict[int, Any] = {row - v.row: factor * weight for v, weight in zip(outputs, b, strict=True)}
        if self.any_mean:
            # A shift of the data by m shifts E_j by g (1 - K) m, and has to shift y_t by m.
            missing = 1 - base - math.fsum([w * v.g * v.share for w, v in zip(b, outputs, strict=True)])
            of_output, of_state = self.estimate(s, noisiest)
            base = base + missing * of_state
            age = row - noisiest.row
            found[age] = self.coefficient(found.get(age, 0.0) + factor * missing * of_output)
        return combine(self.coefficient(factor / s.at.alpha * base), found)

    def flow(self, s: _Output, v: _Output) -> Any:
        """A from s to v."""
        return v.root / s.root if self.uniform else _root(self.variances, v.rho) / _root(self.variances, s.rho)

    def change(self, s: _Output, v: _Output) -> Any:
        """(K_i - K) A_i at v."""
        return (v.share - _share(self.variances, v.rho)) * self.flow(s, v)

    def estimate(self, s: _Output, v: _Output) -> tuple[Any, Any]:
        """The coefficients of E_v and y_s in what stands for the mean. Their divisor is above 0 for every c_i:
        (1 - K) (1 - A_i) + A_i (1 - K_i), or 1 - K_i A_i + K (A_i - 1) where A_i > 1 and K_i A_i < 1.
        """
        if v.at.alpha == 0:
            return 1.0, 0.0  # D itself
        change = 0.0 if self.uniform else self.change(s, v)
        divisor = v.share - change
        return 1 / (v.g * divisor), -change / divisor

    def coefficient(self, values: Any) -> Coefficient:
        """A number, a number per direction, or a matrix."""
        if isinstance(values, (float, int)) or np.ndim(values) == 0:
            return float(values)
        return Direction(values) if self.basis is None else Block((self.basis * values) @ self.basis.T)

    def from_pure_noise(self, n: int, s: Level, t: Level) -> Row:
        """A step from alpha = 0: rho_s = inf, where R_s = rho_s, E = g (D - m) and F = 0."""
        root = _root(self.variances, t.rho)
        total: Any = 1.0  # with the mean known: it is D
        if not self.any_mean:
            # int (R_t / R) dlambda = (R_t / c^(1/2)) asinh(c^(1/2) / rho_t), or with rho / R in it, atan.
            a = np.sqrt(self.variances) / t.rho
            safe = np.where(a < 1e-8, 1.0, a)
            ratio = (np.arctan(safe) if self.interpolating else np.arcsinh(safe)) / safe
            total = np.where(a < 1e-8, 1.0, ratio) * root / t.rho
        base, output = self.coefficient(t.alpha / s.sigma * root), self.coefficient(t.alpha * total)
        return Row(s.t, s.alpha, s.sigma, DATA, combine(base, {0: output}), None, n)


def _root(c: Any, rho: Any) -> Any:
    """R."""
    square = c + rho * rho
    return math.sqrt(square) if isinstance(square, float) else np.sqrt(square)


def _clock(name: str, t: Any, half_log_snr: Any) -> Any:
    """The variable that outputs are interpolated in."""
    if name in ("rho", "kappa"):
        with np.errstate(over="ignore"):
            return np.exp(-half_log_snr if name == "rho" else half_log_snr)
    return t if name == "t" else half_log_snr


def _share(c: Any, rho: float) -> Any:
    """1 - K = rho^2 / (c + rho^2), the part of m in the residual."""
    return rho * rho / (c + rho * rho)


def _runge_kutta(
    gaussian: _Gaussian, process: AffineSDE, n: int, s: Level, t: Level, noisiest: _Output, first: int
) -> list[Row]:
    """A step of the classical method on d(y - m) / R = E / (g R) dlambda, which is exact on the Gaussian as well."""
    h = t.half_log_snr - s.half_log_snr
    (mid,) = process.levels_at([s.half_log_snr + _HALF * h])
    at = [gaussian.output(first + i, v) for i, v in enumerate((s, mid, mid, t))]
    rows = []
    for i, (to, a) in enumerate(zip((at[1], at[2], at[3], at[3]), _KUTTA, strict=True)):
        used, v = at[: i + 1], at[i].at
        b = [h * w * to.root / (u.root * u.g) for w, u in zip(a, used, strict=True)]
        made = gaussian.combination(at[0], to, used, b, noisiest, first + i)
        ends = i == len(_KUTTA) - 1
        point = None if ends else made
        rows.append(Row(v.t, v.alpha, v.sigma, gaussian.weights(at[i]), made if ends else None, point, n))
    return rows


def _variance(given: Any) -> float | Direction | Block:
    """The variance as a coefficient, checked."""
    fix = "Pass the data's variance: a number, a tensor of the shape of one sample, or a Block of a covariance."
    if isinstance(given, Block):
        matrix = given.matrix
        size = float(np.abs(matrix).max())
        if np.abs(matrix - matrix.T).max() > 1e-12 * size or np.linalg.eigvalsh(matrix)[0] < -1e-12 * size:
            expected = "a symmetric positive semi-definite covariance"
            raise OptionError("data_variance", got="a Block that is none", expected=expected, fix=fix)
        return given
    try:
        values = given.values if isinstance(given, Direction) else _array(given)
    except (TypeError, ValueError):
        raise OptionError("data_variance", got=repr(given), expected="a number or numbers", fix=fix) from None
    if isinstance(given, bool) or values.size == 0 or not (np.isfinite(values).all() and (values >= 0).all()):
        got = repr(given) if values.size < 8 else f"{values.size} numbers from {values.min()} to {values.max()}"
        raise OptionError("data_variance", got=got, expected="finite numbers >= 0", fix=fix)
    return float(values) if values.ndim == 0 else Direction(values)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Moments:
    """The mean of one sample's shape, and the variance as `PreconditionedAdams` takes it."""

    mean: Tensor
    variance: float | Direction | Block


def moments_of(samples: Tensor, per: str = "sample") -> Moments:
    """The mean and the variance of data, estimated from samples (B, *shape).

    Args:
        per: "sample" for one number, the mean variance of all directions; "direction" for one each; "covariance" for
            the covariance of the first axis of a sample, of which the others are further samples: (d, d) for (B, d).

    Raises:
        ShapeError: for fewer than two samples, or samples without an axis.
    """
    check_choice("per", per, ("sample", "direction", "covariance"))
    if samples.ndim < 2 or len(samples) < 2:
        expected, fix = "(B, *shape) with B >= 2", "Pass a batch of data."
        raise ShapeError("samples", got=f"shape {tuple(samples.shape)}", expected=expected, fix=fix)
    x = samples.detach().to(torch.float64)
    mean = x.mean(0)
    off = x - mean
    if per == "covariance":
        flat = off.reshape(len(x), x.shape[1], -1)
        cov = torch.einsum("bip,bjp->ij", flat, flat) / ((len(x) - 1) * flat.shape[2])
        return Moments(mean, Block(cov.cpu().numpy()))
    variance = off.square().sum(0) / (len(x) - 1)
    return Moments(mean, float(variance.mean()) if per == "sample" else Direction(variance.cpu().numpy()))


def centred(model: Model, mean: Tensor) -> Model:
    """The model of data - mean, in the variable x - alpha(t) mean: where x ends, add alpha(t) mean.

    Args:
        mean: of the shape of one sample, or one that broadcasts to it.
    """
    process, native = model.process, model.native
    wanted = native if isinstance(native, str) else "data"

    def net(x: Tensor, t: Tensor, **conditioning: Any) -> Tensor:
        time = expand_time(t, x)
        alpha, m = process.alpha(time).to(x.dtype), mean.to(x)
        out = model.predict(wanted, t, x + alpha * m, **conditioning)
        if wanted == "data":
            return out - m
        if wanted == "v":
            return out + process.sigma(time).to(x.dtype) * m
        return out - process.alpha_rate(time).to(x.dtype) * m if wanted == "velocity" else out

    return Model(net, process, wanted)
