"""Tableaus of explicit exponential Runge-Kutta methods: frozen numbers that check themselves, and their rows.

A step h of y' = L y + N(t, y) is, with z = h L and phi_k as in `sdekit.math.phi`,

    Y_i = e^{c_i z} y + h sum_{j < i} a_ij(z) N(t + c_i h, Y_j),    y_new = e^z y + h sum_i b_i(z) N(t + c_i h, Y_i).

A coefficient a_ij or b_i is a sum of terms (w, k, c), each w phi_k(c z). On the flow of an affine process in lambda the
step has h = lambda_t - lambda_s, and it is y = x / alpha with z = -h and N = data, or y = x / sigma with z = h and
N = -noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sdekit.affine import Level
from sdekit.errors import OptionError
from sdekit.math.phi import phis
from sdekit.plan import DATA, NOISE, Row, commit, stage

__all__ = [
    "COX_MATTHEWS",
    "HOCHBRUCK_OSTERMANN",
    "KROGSTAD",
    "ExponentialTableau",
    "Weight",
    "tableau_rows",
    "three_stages",
    "two_stages",
]

Weight = tuple[tuple[float, int, float], ...]


@dataclass(frozen=True)
class ExponentialTableau:
    """An explicit exponential Runge-Kutta method: nodes c, couplings a (row i has i entries), weights b.

    Raises:
        OptionError: if it is not explicit, or violates sum_j a_ij(z) = c_i phi_1(c_i z) or sum_i b_i(z) = phi_1(z),
            which carry a constant N exactly.
    """

    name: str
    order: int
    a: tuple[tuple[Weight, ...], ...]
    b: tuple[Weight, ...]
    c: tuple[float, ...]

    def __post_init__(self) -> None:
        stages = len(self.b)
        if not len(self.a) == len(self.c) == stages or any(len(row) != i for i, row in enumerate(self.a)):
            raise OptionError(
                f"tableau {self.name}",
                got=f"{self.a}",
                expected=f"row i of a with i entries, {stages} rows",
                fix="Correct it.",
            )
        for row, c in (*zip(self.a, self.c, strict=True), (self.b, 1.0)):
            left = _sum_of(row, c)
            if max(map(abs, left.values())) > 1e-13 * max(1.0, *(abs(w) for u in row for w, _, _ in u), 0.0):
                raise OptionError(
                    f"tableau {self.name}",
                    got=f"a row that differs from {c:g} phi_1({c:g} z) by terms (k, c): w of {left}",
                    expected="none",
                    fix="Correct it.",
                )

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.b)

    @property
    def inner(self) -> tuple[float, ...]:
        """The distinct nodes strictly inside a step."""
        return tuple(sorted({c for c in self.c if c not in (0.0, 1.0)}))


def _sum_of(row: tuple[Weight, ...], c: float) -> dict[tuple[int, float], float]:
    """What the sum of a row has beyond c phi_1(c z), by term."""
    left: dict[tuple[int, float], float] = {(1, c): -c}
    for weight in row:
        for w, k, node in weight:
            left[k, node] = left.get((k, node), 0.0) + w
    return left


def _plus(*weights: Weight) -> Weight:
    return tuple(term for weight in weights for term in weight)


def _times(factor: float, weight: Weight) -> Weight:
    return tuple((factor * w, k, c) for w, k, c in weight)


def _rest(c: float, *others: Weight) -> Weight:
    """c phi_1(c z) less the others: what is left for the first stage."""
    return _plus(((c, 1, c),), *(_times(-1.0, other) for other in others))


def two_stages(c2: float, second: str = "exact") -> ExponentialTableau:
    """The methods of two stages: b_2 = phi_2(z) / c2 ("exact"), or phi_1(z) / (2 c2) ("half")."""
    b2: Weight = ((1 / c2, 2, 1.0),) if second == "exact" else ((0.5 / c2, 1, 1.0),)
    return ExponentialTableau("two stages", 2, ((), (_rest(c2),)), (_rest(1.0, b2), b2), (0.0, c2))


def three_stages(c2: float, c3: float, gamma: float, second: str = "exact") -> ExponentialTableau:
    """Hochbruck and Ostermann's family of three stages; of order 3 where 2 (g c2 + c3) = 3 (g c2^2 + c3^2).

    The third stage weights the second by phi_2(c3 z) ("exact"), or by phi_1(c3 z) / 2 for it ("half").
    """
    a32: Weight = ((gamma * c2, 2, c2), (c3**2 / c2, 2, c3) if second == "exact" else (0.5 * c3**2 / c2, 1, c3))
    total = gamma * c2 + c3
    b2: Weight = ((gamma / total, 2, 1.0),)
    b3: Weight = ((1 / total, 2, 1.0),)
    order = 3 if math.isclose(2 * total, 3 * (gamma * c2**2 + c3**2), rel_tol=1e-12) else 2
    rows = ((), (_rest(c2),), (_rest(c3, a32), a32))
    return ExponentialTableau("three stages", order, rows, (_rest(1.0, b2, b3), b2, b3), (0.0, c2, c3))


def third_order_gamma(c2: float, c3: float) -> float:
    """The gamma with which `three_stages` is of order 3: 2 (g c2 + c3) = 3 (g c2^2 + c3^2). c2 is not 2/3."""
    return c3 * (3 * c3 - 2) / (c2 * (2 - 3 * c2))


_HALF: Weight = ((0.5, 1, 0.5),)  # phi_1(z / 2) / 2
_LAST: Weight = ((4.0, 3, 1.0), (-1.0, 2, 1.0))
_MIDDLE: Weight = ((2.0, 2, 1.0), (-4.0, 3, 1.0))

KROGSTAD = ExponentialTableau(
    "krogstad",
    4,
    (
        (),
        (_HALF,),
        (_rest(0.5, ((1.0, 2, 0.5),)), ((1.0, 2, 0.5),)),
        (_rest(1.0, ((2.0, 2, 1.0),)), (), ((2.0, 2, 1.0),)),
    ),
    (_rest(1.0, _MIDDLE, _MIDDLE, _LAST), _MIDDLE, _MIDDLE, _LAST),
    (0.0, 0.5, 0.5, 1.0),
)

COX_MATTHEWS = ExponentialTableau(
    "cox_matthews",
    4,
    # a_41 = phi_1(z / 2) (e^{z/2} - 1) / 2, which is phi_1(z) - phi_1(z / 2).
    ((), (_HALF,), ((), _HALF), (((1.0, 1, 1.0), (-1.0, 1, 0.5)), (), ((1.0, 1, 0.5),))),
    KROGSTAD.b,
    (0.0, 0.5, 0.5, 1.0),
)

_A52: Weight = ((0.5, 2, 0.5), (-1.0, 3, 1.0), (0.25, 2, 1.0), (-0.5, 3, 0.5))
_A54 = _plus(((0.25, 2, 0.5),), _times(-1.0, _A52))
_FIFTH: Weight = ((4.0, 2, 1.0), (-8.0, 3, 1.0))

HOCHBRUCK_OSTERMANN = ExponentialTableau(
    "hochbruck_ostermann",
    4,
    (
        *KROGSTAD.a[:3],
        (_rest(1.0, ((2.0, 2, 1.0),)), ((1.0, 2, 1.0),), ((1.0, 2, 1.0),)),
        (_rest(0.5, _A52, _A52, _A54), _A52, _A52, _A54),
    ),
    (_rest(1.0, _LAST, _FIFTH), (), (), _LAST, _FIFTH),
    (0.0, 0.5, 0.5, 1.0, 0.5),
)


def tableau_rows(
    tableau: ExponentialTableau, n: int, s: Level, t: Level, inner: Mapping[float, Level], prediction: str
) -> list[Row]:
    """One step on the flow, both ends of finite lambda.

    Args:
        inner: for each of `tableau.inner` the level at lambda_s + c h.
    """
    h = t.half_log_snr - s.half_log_snr
    data = prediction == "data"
    z, weights = (-h, DATA) if data else (h, NOISE)
    table: dict[float, list[float]] = {}

    def value(weight: Weight) -> float:
        total = 0.0
        for w, k, c in weight:
            if c not in table:
                table[c] = phis(3, c * z)
            total += w * table[c][k]
        return total

    def to(level: Level, row: tuple[Weight, ...]) -> tuple[float, dict[int, float]]:
        """The coefficients of x and of the stages' outputs, newest first."""
        scale, amount = (level.sigma / s.sigma, h * level.alpha) if data else (level.alpha / s.alpha, -h * level.sigma)
        return scale, {len(row) - 1 - j: amount * value(w) for j, w in enumerate(row)}

    at = [s if c == 0.0 else t if c == 1.0 else inner[c] for c in tableau.c]
    rows = [
        stage(n, here, weights, *to(there, row)) for here, there, row in zip(at, at[1:], tableau.a[1:], strict=False)
    ]
    return [*rows, commit(n, at[-1], weights, *to(t, tableau.b))]
