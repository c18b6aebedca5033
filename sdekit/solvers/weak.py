"""Weak order 2 for any Ito noise: Platen's explicit scheme, and two Runge-Kutta methods of Roessler's class RI.

With g_k the columns of the diffusion and h = |t1 - t0|, all of them need, for k /= l, a stand-in for the iterated
integral of W_k and W_l. It is (W_k W_l + V_kl) / 2 with V_kl = -V_lk = +-h at random: a method of weak order 2 needs no
more of the area between two motions than its mean and its covariances. One sign s_k for each motion gives all of them:
V_kl = -h s_k s_l for k < l (Milstein and Tretyakov, Stochastic Numerics for Mathematical Physics, chapter 2), which are
uncorrelated. The signs are those of the space-time Levy area H, which is independent of W.

V_kl = -h s_k for k < l would need one sign less, but V_12 and V_13 are then equal: with three motions that do not
commute, second moments are wrong by O(h^2) a step, and the weak order is 1.

The increments W stay normal, as every other solver's are, in place of three-point variables of the same moments.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError
from sdekit.solvers.base import Increments, NoiseOrder, Order, Stepper, StepResult, register

__all__ = ["DRI1", "MOST_COLUMNS", "RI5", "PlatenWeak2", "WeakTableau"]

MOST_COLUMNS = 256
"""The most coordinates in which a number g(t, x) that depends on x is taken: each needs diffusions of its own."""


@dataclass(frozen=True)
class WeakTableau:
    """A method of class RI whose second and third stages of the noise lie symmetrically about the first.

    With w_k = W_k / sqrt(h), and H = |t1 - t0|, h = t1 - t0 in what follows:

        F_i      = f(t0 + c_i h, x + h sum_j a_ij F_j + kick_i sum_k g_k W_k),     c_i = sum_j a_ij
        g_k^+-   = g_k(t0 + lag h, x + lag h F_1 +- spread sqrt(H) g_k)
        ghat_k^+- = g_k(t0, x +- sum_{l /= k} (mix_1 g_l + mix_2 (g_l^+ + g_l^-)) I_kl / sqrt(H))
        x1       = x + h sum alpha_i F_i + sum_k (outer_1 g_k + outer_2 (g_k^+ + g_k^-)) W_k
                     + slope (g_k^+ - g_k^-) (W_k^2 - H) / (2 sqrt(H))
                     + curve (ghat_k^+ + ghat_k^- - 2 g_k) W_k + turn (ghat_k^+ - ghat_k^-) sqrt(H)

    where g_k without arguments is taken at (t0, x), and I_kl is the stand-in for the iterated integral. `mix`, `curve`
    and `turn` are None for a scheme that has other terms in their place.

    Raises:
        OptionError: if a condition of weak order 2 is not met that symmetry leaves open.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    alpha: tuple[float, ...]
    kick: tuple[float, ...]
    lag: float
    spread: float
    outer: tuple[float, float]
    slope: float
    mix: tuple[float, float] | None = None
    curve: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        half = [sum(row) for row in self.a], self.kick, [k * k for k in self.kick]
        sums = [sum(self.alpha) - 1, *(sum(p * q for p, q in zip(self.alpha, v, strict=True)) - 0.5 for v in half)]
        first, second = self.outer
        sums += [first + 2 * second - 1, 2 * second * self.lag - 0.5, 2 * second * self.spread**2 - 0.5]
        sums += [2 * self.slope * self.spread - 1]
        if self.mix is not None:
            total = self.mix[0] + 2 * self.mix[1]
            sums += [2 * self.curve * total**2 - 0.5, 2 * self.turn * total - 1]
        if not all(abs(s) <= 1e-14 for s in sums):
            raise OptionError(
                f"tableau {self.name}", got=f"residuals {sums}", expected="weak order 2", fix="Correct it."
            )

    def time(self, place: float, t0: float, t1: float) -> float:
        """t0 + place (t1 - t0), the end itself for place 1."""
        return t1 if place == 1 else t0 + place * (t1 - t0)


class _Columns:
    """A diffusion as columns g_k, k = 1, ..., m: those of general noise, or g e_k for a number g in n coordinates.

    The second kind is held as n numbers for each sample, not as n vectors.
    """

    def __init__(self, dynamics: Any, general: bool, x: Tensor, increments: Increments) -> None:
        self.dynamics, self.general, self.shape = dynamics, general, x.shape
        self.w = increments.W.reshape(len(x), math.prod(increments.W.shape[1:]))
        self.count = self.w.shape[1]
        if not general and self.count > MOST_COLUMNS:
            raise OptionError(
                "solver",
                got=f"a method of weak order 2 for a number g(t, x) in {self.count} coordinates",
                expected=f"at most {MOST_COLUMNS} coordinates, each of which takes diffusions of its own",
                fix="Set additive = True if g ignores x, or take euler_maruyama.",
            )
        if increments.H is None:
            raise InterfaceError(
                "increments", got="W alone", expected="W and the space-time Levy area H", fix="Pass Increments(W, H)."
            )
        self._signs = torch.where(increments.H < 0, -1.0, 1.0).to(self.w.dtype).reshape(self.w.shape)

    def at(self, t: float, x: Tensor) -> Tensor:
        return self.view(self.dynamics.diffusion(t, x))

    def view(self, g: Tensor) -> Tensor:
        """All columns of a diffusion: (B, *shape, m), or (B, n)."""
        return g if self.general else g.reshape(-1, 1).expand(self.w.shape)

    def vector(self, g: Tensor, k: int) -> Tensor:
        """Column k, like x."""
        if self.general:
            return g[..., k]
        return torch.nn.functional.pad(g[:, k : k + 1], (k, self.count - 1 - k)).reshape(self.shape)

    def sum(self, g: Tensor, weights: Tensor) -> Tensor:
        """sum_k g_k w_k for weights (B, m), like x."""
        if self.general:
            return _product("general", g, weights)
        return (g * weights).reshape(self.shape)

    def without(self, k: int) -> Tensor:
        """W with 0 for W_k: (B, m)."""
        return torch.cat([self.w[:, :k], torch.zeros_like(self.w[:, :1]), self.w[:, k + 1 :]], 1)

    def integrals(self, k: int, length: float) -> Tensor:
        """(W_k W_l + V_kl) / 2 for all l, and 0 for l = k: (B, m)."""
        s = self._signs * (length * self._signs[:, k : k + 1])
        turned = torch.cat([s[:, :k], torch.zeros_like(s[:, :1]), -s[:, k + 1 :]], 1)
        return (self.w[:, k : k + 1] * self.without(k) + turned) / 2


def _product(kind: str, g: Any, w: Tensor) -> Tensor:
    """g w, like x."""
    return torch.einsum("b...m,bm->b...", g, w) if kind == "general" else g * w


class _WeakTwo(Stepper):
    """All but the terms in which different columns meet."""

    family: ClassVar[str] = "weak second order"
    uses_area: ClassVar[bool] = True
    tableau: ClassVar[WeakTableau]

    @property
    def calls_per_step(self) -> int:  # type: ignore[override]
        return len(self.tableau.alpha)

    def step(
        self, dynamics: Any, t0: float, t1: float, x: Tensor, increments: Increments | None, state: Any
    ) -> StepResult:
        rows, h = self.tableau, t1 - t0
        sde = dynamics.dynamics
        g = None if increments is None else dynamics.diffusion(t0, x)
        kick = 0.0 if increments is None else _product(sde.noise_type, g, increments.W)
        slopes: list[Tensor] = []
        for row, push in zip(rows.a, rows.kick, strict=True):
            moved = sum((v * f for v, f in zip(row, slopes, strict=True) if v), torch.zeros_like(x))
            point = x if not row else x + h * moved + push * kick
            slopes.append(dynamics.drift(rows.time(sum(row), t0, t1), point))
        new = x + h * sum((v * f for v, f in zip(rows.alpha, slopes, strict=True)), torch.zeros_like(x))
        if g is None or increments is None:
            return StepResult(new)
        base, later = x + (rows.lag * h) * slopes[0], rows.time(rows.lag, t0, t1)
        kind = sde.noise_type
        if sde.additive:
            first, second = rows.outer
            last = _product(kind, dynamics.diffusion(later, x), increments.W)
            return StepResult(new + first * kick + (2 * second) * last)
        if kind == "diagonal" or (kind == "scalar" and math.prod(x.shape[1:]) == 1):
            return StepResult(new + self._alone(dynamics, later, base, g, increments.W, abs(h)))
        columns = _Columns(dynamics, kind == "general", x, increments)
        return StepResult(new + self._together(columns, t0, later, x, base, columns.view(g), abs(h)))

    def _alone(self, dynamics: Any, t: float, base: Tensor, g: Tensor, w: Tensor, length: float) -> Tensor:
        """The noise where coordinate i has its own motion and g_i depends on x_i alone: all at once."""
        spread = (self.tableau.spread * math.sqrt(length)) * g
        above, below = dynamics.diffusion(t, base + spread), dynamics.diffusion(t, base - spread)
        outer, inner = self._weights(w, length)
        return (outer[0] * g + outer[1] * (above + below)) * w + (above - below) * inner

    def _together(
        self, columns: _Columns, t: float, later: float, x: Tensor, base: Tensor, g: Tensor, length: float
    ) -> Tensor:
        """The noise with columns g at (t, x), of which each is taken at stages of its own."""
        root = math.sqrt(length)
        above, below = [], []
        for k in range(columns.count):
            spread = (self.tableau.spread * root) * columns.vector(g, k)
            above.append(columns.at(later, base + spread)[..., k])
            below.append(columns.at(later, base - spread)[..., k])
        up, down = torch.stack(above, -1), torch.stack(below, -1)
        outer, inner = self._weights(columns.w, length)
        noise = columns.sum(outer[0] * g + outer[1] * (up + down), columns.w) + columns.sum(up - down, inner)
        return noise if columns.count == 1 else noise + self._across(columns, t, x, g, up + down, length)

    def _weights(self, w: Tensor, length: float) -> tuple[tuple[float, float], Tensor]:
        return self.tableau.outer, (w * w - length) * (self.tableau.slope / (2 * math.sqrt(length)))

    @abstractmethod
    def _across(self, columns: _Columns, t: float, x: Tensor, g: Tensor, ends: Tensor, length: float) -> Tensor:
        """The terms in which two different columns meet; ends is g_k^+ + g_k^- for each k."""


_NOISE = {"additive": NoiseOrder(1, 2), "commutative": NoiseOrder(1, 2), "general": NoiseOrder(0.5, 2)}
_NOTE = "weak 2 on any noise; strong 1 where the columns of the diffusion commute, else 1/2"

_PLATEN = WeakTableau("platen_weak2", ((), (1.0,)), (0.5, 0.5), (0.0, 1.0), 1.0, 1.0, (0.5, 0.25), 0.5)


@register("platen_weak2")
@dataclass(frozen=True)
class PlatenWeak2(_WeakTwo):
    """With f, g_k at (t0, x), h = t1 - t0, H = |h|, U_k^+- = x +- sqrt(H) g_k and R_k^+- = U_k^+- + h f:

        x1 = x + h/2 (f + f(t1, x + h f + sum g_k W_k))
           + 1/4 sum_k (g_k(t1, R_k^+) + g_k(t1, R_k^-) + 2 g_k) W_k
           + 1/4 sum_k (g_k(t1, R_k^+) - g_k(t1, R_k^-)) (W_k^2 - H) / sqrt(H)
           + 1/4 sum_k sum_{j /= k} (g_j(t0, U_k^+) + g_j(t0, U_k^-) - 2 g_j) W_j
           + 1/4 sum_k sum_{j /= k} (g_j(t0, U_k^+) - g_j(t0, U_k^-)) (W_j W_k + V_kj) / sqrt(H).

    A step makes 2 drifts, and 3 diffusions for diagonal noise, 2 for additive, 1 + 4 m for general noise with m > 1
    columns. Diagonal noise is taken as one whose g_i depends on x_i alone.

    Raises:
        OptionError: at the first step, for a number g(t, x) that depends on x in more than `MOST_COLUMNS` coordinates.
    """

    reference: ClassVar[str] = (
        "Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, eq. 15.1.1 and 15.1.3"
    )
    declared: ClassVar[Order] = Order(deterministic=2, weak=2, strong=1, note=_NOTE, noise=_NOISE)
    tableau: ClassVar[WeakTableau] = _PLATEN

    def _across(self, columns: _Columns, t: float, x: Tensor, g: Tensor, ends: Tensor, length: float) -> Tensor:
        root = math.sqrt(length)
        total = torch.zeros_like(x)
        for k in range(columns.count):
            spread = root * columns.vector(g, k)
            above, below = columns.at(t, x + spread), columns.at(t, x - spread)
            total = total + columns.sum(above - below, columns.integrals(k, length) / (2 * root))
            total = total + columns.sum(above + below - 2 * g, columns.without(k) / 4)
        return total


class _RungeKutta(_WeakTwo):
    """The cross terms of Roessler's class, with the coefficients of the tableau."""

    declared: ClassVar[Order] = Order(deterministic=3, weak=2, strong=1, note=_NOTE, noise=_NOISE)

    def _across(self, columns: _Columns, t: float, x: Tensor, g: Tensor, ends: Tensor, length: float) -> Tensor:
        rows, root = self.tableau, math.sqrt(length)
        first, second = rows.mix or (0.0, 0.0)
        mixed = first * g + second * ends
        above, below = [], []
        for k in range(columns.count):
            shift = columns.sum(mixed, columns.integrals(k, length) / root)
            above.append(columns.at(t, x + shift)[..., k])
            below.append(columns.at(t, x - shift)[..., k])
        up, down = torch.stack(above, -1), torch.stack(below, -1)
        curved = columns.sum(rows.curve * (up + down - 2 * g), columns.w)
        return curved + columns.sum((rows.turn * root) * (up - down), torch.ones_like(columns.w))


_DRI1 = WeakTableau(
    "dri1",
    a=((), (0.5,), (-1.0, 2.0)),
    alpha=(1 / 6, 2 / 3, 1 / 6),
    kick=(0.0, (6 - math.sqrt(6)) / 10, (3 + 2 * math.sqrt(6)) / 5),
    lag=342 / 491,
    spread=3 * math.sqrt(38 / 491),
    outer=(193 / 684, 491 / 1368),
    slope=math.sqrt(491 / 38) / 6,
    mix=(-214 / 513 * math.sqrt(1105 / 991), -491 / 513 * math.sqrt(221 / 4955)),
    curve=4955 / 14144,
    turn=-math.sqrt(4955 / 221) / 8,
)

_RI5 = WeakTableau(
    "ri5",
    a=((), (1.0,), (25 / 144, 35 / 144)),
    alpha=(1 / 10, 3 / 14, 24 / 35),
    kick=(0.0, -1 / 3, 5 / 6),
    lag=0.25,
    spread=0.5,
    outer=(-1.0, 1.0),
    slope=1.0,
    mix=(1.0, 0.0),
    curve=0.25,
    turn=0.5,
)


@register("dri1")
@dataclass(frozen=True)
class DRI1(_RungeKutta):
    """The method of class RI, see `WeakTableau`, with small coefficients in its error.

    A step makes 3 drifts, and 3 diffusions for diagonal noise, 2 for additive, 1 + 4 m for general noise with m > 1
    columns. Diagonal noise is taken as one whose g_i depends on x_i alone.

    Raises:
        OptionError: at the first step, for a number g(t, x) that depends on x in more than `MOST_COLUMNS` coordinates.
    """

    reference: ClassVar[str] = "Debrabant and Roessler, Appl. Numer. Math. 59 (2009), 582-594, DRI1"
    tableau: ClassVar[WeakTableau] = _DRI1


@register("ri5")
@dataclass(frozen=True)
class RI5(_RungeKutta):
    """The method of class RI, see `WeakTableau`, with the sign of W turned.

    As published it moves x by -g W where drift and slope of g vanish, which is of the same law; turned, its paths are
    those of the equation. The cost is that of `DRI1`, and so is the limit of coordinates.

    Raises:
        OptionError: at the first step, for a number g(t, x) that depends on x in more than `MOST_COLUMNS` coordinates.
    """

    reference: ClassVar[str] = "Roessler, SIAM J. Numer. Anal. 47 (2009), 1713-1738, RI5"
    tableau: ClassVar[WeakTableau] = _RI5
