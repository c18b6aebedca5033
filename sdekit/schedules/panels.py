"""The integrals of f and of g^2 e^{-2 int f} as series on panels: what `sdekit.schedules.derived` evaluates.

The range is cut into panels: geometric ones from t_data on, since f and g may behave like powers of t - t_data there,
cut again until the Legendre series of f and of g^2 e^{-2 A} on each have converged: at jumps, which are found by
bisection, and in the middle elsewhere. On a panel the series are integrated term by term.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.quadrature import gauss_legendre

__all__ = ["TERMS", "Start", "Tables", "tabulate"]

Values = Callable[[np.ndarray], np.ndarray]
"""f or g on an array of times, checked to be finite and, for g, not negative."""

_NODES = 16
_TOLERANCE = 1e-14  # of the last terms of a series, relative to the integral up to there
_ROUNDING = 16 * 2.0**-52  # of a panel's values where its times are rounded, relative to (time / width)
_NEAREST = 1e-30  # the first edge, in units of the whole range
_MOST = 5_000  # panels
_DEEPEST = 60  # halvings
_TELLING = 8  # after so many halvings a jump differs from what is only steep
_LARGEST = 700.0  # log alpha and log sigma

TERMS = _NODES + 1
"""The number of coefficients of a series."""


class _Panels(NamedTuple):
    """What is known of each panel between `left` and `right`; 1-D arrays, but for the two tables of coefficients."""

    left: np.ndarray
    right: np.ndarray
    drift: np.ndarray  # int f over the panel
    noise: np.ndarray  # int g^2 e^{-2 (A - A_left)} over the panel
    drift_tail: np.ndarray  # the last terms of the series, as integrals
    noise_tail: np.ndarray
    drift_size: np.ndarray  # the largest value times the width
    noise_size: np.ndarray
    drift_series: np.ndarray  # (P, 17): A - A_left in powers of z in [-1, 1]
    noise_series: np.ndarray  # (P, 17): int_left g^2 e^{-2 (A - A_left)}
    low: np.ndarray  # between these two times f and g change most
    high: np.ndarray


class Start(NamedTuple):
    """The first panel, from t_data to t_data + width, where f and g^2 are pure powers of t - t_data."""

    width: float
    log_alpha: float  # at its right end
    half_log_snr: float
    power: float  # U = U(width) ((t - t_data) / width)^power
    drift: float  # f at t_data, as a limit
    sigma_rate: float  # d sigma / dt there


@dataclass(frozen=True, eq=False)
class Tables:
    """The panels ready for evaluation."""

    start: Start
    inner: Tensor  # (P - 1,): the edges between panels
    ends: Tensor  # (P, 4): left and right edge, log alpha and lambda at the left one
    series: Tensor  # (P, 3, 17) in powers of z: A - A_left, q, q'
    last: float  # lambda at t_end


class _Rules(NamedTuple):
    """Gauss-Legendre on [0, 1], z = 2 u - 1, and what is linear in a function's values at the nodes."""

    nodes: np.ndarray
    weights: np.ndarray
    expand: np.ndarray  # (16, 16): values to the Legendre series in z
    integrate: np.ndarray  # (17, 16): that to the series of the integral from z = -1
    powers: np.ndarray  # (17, 17): a Legendre series to powers of z
    to_nodes: np.ndarray  # (16, 16): values to the integral up to each node
    slope: np.ndarray  # (16, 16): values to derivatives by z


@functools.cache
def _rules() -> _Rules:
    nodes, weights = (np.array(v) for v in gauss_legendre(_NODES))
    order = np.arange(_NODES)
    values = np.polynomial.legendre.legvander(2 * nodes - 1, _NODES)
    expand = (2 * order + 1)[:, None] * values[:, :_NODES].T * weights
    # int_{-1}^z P_k = (P_{k+1} - P_{k-1}) / (2 k + 1), and P_1 + P_0 for k = 0.
    integrate = np.zeros((_NODES + 1, _NODES))
    integrate[order + 1, order] = 1 / (2 * order + 1)
    integrate[order[1:] - 1, order[1:]] = -1 / (2 * order[1:] + 1)
    integrate[0, 0] = 1.0
    powers = np.zeros((_NODES + 1, _NODES + 1))
    for k in range(_NODES + 1):
        powers[: k + 1, k] = np.polynomial.legendre.leg2poly(np.eye(_NODES + 1)[k])[: k + 1]
    slopes = np.stack(
        [np.polynomial.legendre.legval(2 * nodes - 1, np.polynomial.legendre.legder(row)) for row in np.eye(_NODES)], 1
    )
    return _Rules(nodes, weights, expand, integrate, powers, values @ integrate @ expand, slopes @ expand)


def tabulate(f: Values, g: Values, t_data: float, t_end: float) -> Tables:
    """The integrals of f and g^2 from t_data to t_end.

    Raises:
        OptionError: for a g that vanishes on an interval, and for functions that cannot be integrated.
    """
    start = _first(f, g, t_data, t_end)
    coarse = _coarse_edges(t_data, start.width, t_end)
    panels = _measure(f, g, coarse[:-1], coarse[1:])
    _require_noise(panels.left, panels.right, panels.noise_size)
    for _ in range(_DEEPEST):
        log_alpha, log_u = _accumulate(start, panels)
        rough = _rough(panels, log_alpha, log_u)
        if not rough.any():
            break
        if len(rough) + rough.sum() > _MOST:
            raise _unresolved(panels, rough)
        middle = _cut(f, g, _Panels(*(v[rough] for v in panels)))
        left, right = (np.concatenate(v) for v in ((panels.left[rough], middle), (middle, panels.right[rough])))
        halves = _measure(f, g, left, right)
        merged = (np.concatenate([old[~rough], new]) for old, new in zip(panels, halves, strict=True))
        order = np.argsort(np.concatenate([panels.left[~rough], left]))
        panels = _Panels(*(v[order] for v in merged))
    else:
        raise _unresolved(panels, rough)
    return _finish(start, panels, coarse, log_alpha, log_u)


def _first(f: Values, g: Values, t_data: float, t_end: float) -> Start:
    """The powers that f and g^2 follow next to t_data, from their values at one and two widths."""
    width = max(_NEAREST * (t_end - t_data), 1024 * math.ulp(t_data))
    while True:
        at = np.array([t_data + width, t_data + 2 * width, t_data + 64 * width])
        width = float(at[0]) - t_data  # as rounded
        places = (at - t_data) / width
        drift, noise = f(at), g(at) ** 2
        if noise[0] > 1e-200 or width > 1e-6 * (t_end - t_data):
            break
        width *= 64
    if noise[0] == 0:
        raise _no_noise(t_data, t_data + width)
    power = math.log(noise[1] / noise[0]) / math.log(places[1]) if noise[1] > 0 else math.nan
    slope = math.log(drift[1] / drift[0]) / math.log(places[1]) if drift[0] * drift[1] > 0 else 0.0
    for name, exponent in (("f", slope), ("g^2", power)):
        if not exponent > -1 + 1e-6:
            raise OptionError(
                "t_data",
                got=f"{t_data:g}, next to which {name} grows like (t - t_data)^{exponent:.3g}",
                expected="integrable f and g^2 from there on",
                fix="Check the formulas, or let t_data be the time at which there is no noise yet.",
            )
    log_alpha = drift[0] * width / (slope + 1)
    log_u = math.log(noise[0]) + math.log(width) - math.log(power + 1)
    # sigma ~ (t - t_data)^((power + 1) / 2): its rate is infinite, a number or 0.
    exponent = 0.5 * (power - 1)
    rate = 0.5 * (power + 1) * math.exp(0.5 * log_u) / width if abs(exponent) < 1e-6 else 0.0
    limit = math.copysign(math.inf, drift[0]) if slope < -1e-6 else float(drift[0])
    return Start(width, log_alpha, -0.5 * log_u, power + 1, limit, math.inf if exponent <= -1e-6 else rate)


def _coarse_edges(t_data: float, width: float, t_end: float) -> np.ndarray:
    """Doubling distances from t_data, as long as panels are no longer than a sixteenth of the range."""
    span = t_end - t_data
    count = max(math.ceil(math.log2(span / 16 / width)), 1)
    near = t_data + np.geomspace(width, span / 16, count + 1)
    edges = np.concatenate([near[:-1], t_data + np.linspace(span / 16, span, 16)])
    edges[0], edges[-1] = t_data + width, t_end
    return edges


def _measure(f: Values, g: Values, left: np.ndarray, right: np.ndarray) -> _Panels:
    rules = _rules()
    width = (right - left)[:, None]
    half = 0.5 * width
    # Next to both edges too: a jump beyond the outermost nodes would not be seen.
    edges = left + 2 * np.spacing(np.abs(left)), right - 2 * np.spacing(np.abs(right))
    times = np.concatenate([edges[0][:, None], left[:, None] + width * rules.nodes, edges[1][:, None]], 1)
    drift, diffusion = f(times), g(times)
    _refuse_zero(times, diffusion == 0)
    low = np.argmax(_change(drift, diffusion), 1)[:, None]
    bracket = (np.take_along_axis(times, low + i, 1)[:, 0] for i in (0, 1))
    # Times are rounded, which counts where they lie close to a t_data or a pole that is not 0.
    shift = ((times[:, 1:-1] - left[:, None]) - width * rules.nodes) / half
    inner = _moved(drift[:, 1:-1], shift)
    with np.errstate(over="ignore", invalid="ignore"):  # a panel on which alpha overflows is halved
        whole = (width * inner) @ rules.weights
        noise = _moved(diffusion[:, 1:-1] ** 2, shift) * np.exp(-2 * half * (inner @ rules.to_nodes.T))
        outer = np.stack([diffusion[:, 0] ** 2, diffusion[:, -1] ** 2 * np.exp(-2 * whole)], 1)
        series = [half * (values @ rules.expand.T) for values in (inner, noise)]
        powers = [(terms @ rules.integrate.T) @ rules.powers.T for terms in series]
        integrals = [whole, (width * noise) @ rules.weights]
        tails = [
            np.abs(terms[:, -2:]).sum(-1) + rules.nodes[0] * _gap(terms, half * ends)
            for terms, ends in zip(series, (drift[:, [0, -1]], outer), strict=True)
        ]
        sizes = [width[:, 0] * np.abs(values).max(-1) for values in (inner, noise)]
    return _Panels(left, right, *integrals, *tails, *sizes, *powers, *bracket)


def _gap(terms: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How far a Legendre series misses the values at both ends, together."""
    signs = (-1.0) ** np.arange(terms.shape[1])
    return 2 * (np.abs(terms @ signs - ends[:, 0]) + np.abs(terms.sum(-1) - ends[:, 1]))


def _change(drift: np.ndarray, diffusion: np.ndarray) -> np.ndarray:
    """How much f and g change from one time of a row to the next, relative to their size."""
    sizes = [np.abs(v).max(-1, keepdims=True) for v in (drift, diffusion)]
    steps = [
        np.abs(np.diff(v)) / np.where(size > 0, size, 1.0) for v, size in zip((drift, diffusion), sizes, strict=True)
    ]
    return steps[0] + steps[1]


def _cut(f: Values, g: Values, panels: _Panels) -> np.ndarray:
    """Where to cut each panel: at its largest jump, found by bisection, or in the middle where there is none."""
    middle = 0.5 * (panels.left + panels.right)
    some = np.arange(len(middle))  # panels that may have a jump
    low, high = panels.low, panels.high
    at_low, at_high = _pair(f, g, low), _pair(f, g, high)
    first = np.abs(at_high - at_low).sum(0)
    for i in range(_DEEPEST):
        between = 0.5 * (low + high)
        if ((between == low) | (between == high)).all():
            break
        at_between = _pair(f, g, between)
        before = np.abs(at_between - at_low).sum(0) >= np.abs(at_high - at_between).sum(0)
        low, high = np.where(before, low, between), np.where(before, between, high)
        at_low, at_high = np.where(before, at_low, at_between), np.where(before, at_between, at_high)
        if i == _TELLING:
            # What is smooth has shrunk by now; what is a pole has grown.
            size = np.abs(at_high - at_low).sum(0)
            keep = (size > 0.5 * first) & (size < 2 * first)
            some, low, high, first = some[keep], low[keep], high[keep], first[keep]
            at_low, at_high = at_low[:, keep], at_high[:, keep]
    inside = np.minimum(high - panels.left[some], panels.right[some] - high) > 0
    middle[some[inside]] = high[inside]
    return middle


def _pair(f: Values, g: Values, times: np.ndarray) -> np.ndarray:
    """f and g, (2, n)."""
    return np.stack([f(times), g(times)])


def _moved(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Values at z from values at z + shift, by the derivative; left alone where the function is not smooth."""
    change = shift * (values @ _rules().slope.T)
    small = np.abs(change).max(-1, keepdims=True) <= 1e-3 * np.abs(values).max(-1, keepdims=True)
    return np.where(small, values - change, values)


def _accumulate(start: Start, panels: _Panels) -> tuple[np.ndarray, np.ndarray]:
    """A and log U at the edges."""
    log_alpha = np.cumsum([start.log_alpha, *panels.drift])
    with np.errstate(divide="ignore"):
        added = np.log(panels.noise) - 2 * log_alpha[:-1]
    return log_alpha, np.logaddexp.accumulate([-2 * start.half_log_snr, *added])


def _rough(panels: _Panels, log_alpha: np.ndarray, log_u: np.ndarray) -> np.ndarray:
    """Which panels to halve. Raises OptionError where halving further cannot help."""
    with np.errstate(over="ignore", invalid="ignore"):
        variance = np.exp(log_u[1:] + 2 * log_alpha[:-1])
        drift = panels.drift_tail / np.maximum(1.0, np.abs(log_alpha[1:]))
        noise = panels.noise_tail / variance
        rounding = _ROUNDING * np.maximum(np.abs(panels.left), np.abs(panels.right)) / (panels.right - panels.left)
        sizes = panels.drift_size, panels.noise_size / variance
        rough = np.zeros(len(drift), dtype=bool)
        for tail, size in zip((drift, noise), sizes, strict=True):
            at_rounding = tail <= rounding * size
            rough |= ((tail > _TOLERANCE) & ~at_rounding) | ~np.isfinite(tail)
            # A jump weighs next to nothing on a panel as narrow as that; a pole does not.
            pole = (tail > _TOLERANCE) & at_rounding & (tail > 1e-3 * size) & (size > 1e-10)
            if pole.any():
                raise _unresolved(panels, pole)
    return rough


def _finish(start: Start, panels: _Panels, coarse: np.ndarray, log_alpha: np.ndarray, log_u: np.ndarray) -> Tables:
    """Checked and made into tensors."""
    edges = np.append(panels.left, panels.right[-1])
    half_log_snr = np.minimum.accumulate(-0.5 * log_u)
    largest = max(log_alpha.max(), (log_alpha + 0.5 * log_u).max())
    if not largest < _LARGEST:
        raise OptionError(
            "f, g",
            got=f"log alpha = {log_alpha[-1]:.4g}, half-log-SNR = {half_log_snr[-1]:.4g} at t = {edges[-1]:g}",
            expected="alpha and sigma within the range of floats",
            fix="End earlier: choose a smaller t_max.",
        )
    # lambda must fall visibly from one coarse edge to the next, or it has no inverse.
    values = half_log_snr[np.searchsorted(edges, coarse)]
    flat = np.flatnonzero(values[:-1] - values[1:] < 1e-13 * np.maximum(1.0, np.abs(values[1:])))
    if flat.size:
        raise _no_noise(float(coarse[flat[0]]), float(coarse[flat[0] + 1]))
    noise = panels.noise_series * np.exp(-(log_u[:-1] + 2 * log_alpha[:-1]))[:, None]
    slope = np.pad(noise[:, 1:] * np.arange(1, _NODES + 1), ((0, 0), (0, 1)))
    ends = np.stack([panels.left, panels.right, log_alpha[:-1], half_log_snr[:-1]], 1)
    series = np.stack([panels.drift_series, noise, slope], 1)
    inner = torch.from_numpy(panels.right[:-1].copy())
    return Tables(start, inner, torch.from_numpy(ends), torch.from_numpy(series), float(half_log_snr[-1]))


def _require_noise(left: np.ndarray, right: np.ndarray, size: np.ndarray) -> None:
    if (size == 0).any():
        i = int(np.argmax(size == 0))
        raise _no_noise(float(left[i]), float(right[i]))


def _refuse_zero(times: np.ndarray, zero: np.ndarray) -> None:
    """Zeros at neighbouring nodes of one panel are no single time."""
    rows, columns = np.nonzero(zero[:, 1:] & zero[:, :-1])
    if rows.size:
        raise _no_noise(float(times[rows[0], columns[0]]), float(times[rows[0], columns[0] + 1]))


def _no_noise(first: float, last: float) -> OptionError:
    return OptionError(
        "g",
        got=f"zero, or too small to count, between t = {first:.6g} and t = {last:.6g}",
        expected="g > 0 but for single times: otherwise the half-log-SNR stands still and has no inverse",
        fix="Choose t_data and t_max so that there is noise everywhere between them.",
    )


def _unresolved(panels: _Panels, where: np.ndarray) -> OptionError:
    i = int(np.argmax(where))
    return OptionError(
        "f, g",
        got=f"functions that cannot be integrated near t = {panels.left[i]:.8g}",
        expected="functions that are smooth in float64 but for isolated jumps, without poles",
        fix="Compute them in float64, the same at every call, and choose t_max before a pole.",
    )
