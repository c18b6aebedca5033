"""Tableaus of Roessler's stochastic Runge-Kutta methods of strong order 3/2: frozen numbers that check themselves.

Source of both classes: A. Roessler, SIAM J. Numer. Anal. 48 (2010), 922-952. With h = t1 - t0, root = sqrt|h|, the
increment W and I = |h| (W / 2 + H), the integral of B - B(t0) over the step, in each coordinate:

    SRI     u_i = x + h sum_j a0_ij f_j + I / |h| sum_j b0_ij g_j,       f_i = drift(t0 + c0_i h, u_i)
            v_i = x + h sum_j a1_ij f_j + root sum_j b1_ij g_j,          g_i = diffusion(t0 + c1_i h, v_i)
            x_1 = x + h sum_i alpha_i f_i + sum_i g_i (beta1_i W + beta2_i (W^2 - |h|) / (2 root)
                    + beta3_i I / |h| + beta4_i (W^3 - 3 |h| W) / (6 |h|))

    SRA     for a diffusion without x:   g_i = diffusion(t0 + c1_i h), a1 = b1 = 0 and beta2 = beta4 = 0; the weights of
            I / |h| are called beta2 there.

Roessler's conditions of strong order 3/2, in a notation where (b e)_i is the sum of row i:

    SRA     beta1 e = 1, beta2 e = 0, alpha (b0 e) = 1, alpha (b0 e)^2 = 3/2, beta1 c1 = 1, beta2 c1 = -1
    SRI     beta e = (1, 0, 0, 0), beta (b1 e) = (0, 1, 0, 0), beta c1 = (1, 0, -1, 0), beta (b1 e)^2 = (1, 0, -1, 2),
            beta (b1 b1 e) = (0, 0, 0, 1), alpha (b0 e) = 1, alpha (b0 e)^2 = 3/2,
            beta1 a1 b0 e / 2 + beta3 a1 b0 e / 3 = 0, with c1 = a1 e
    both    c0 = a0 e and those of the deterministic order, of which 2 is needed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sdekit.errors import OptionError

__all__ = [
    "SOSRA",
    "SOSRA2",
    "SOSRI",
    "SOSRI2",
    "SRA1",
    "SRA2",
    "SRA3",
    "SRIW1",
    "SRIW2",
    "Call",
    "Recipe",
    "SRATableau",
    "SRITableau",
]

Rows = tuple[tuple[float, ...], ...]
Numbers = tuple[float, ...]
Terms = tuple[tuple[float, int], ...]

_TOLERANCE = 1e-12
_NONE: Numbers = ()


class Call(NamedTuple):
    """One call of drift or diffusion: at t0 + place h and x + h sum of drifts + the noise of its kind times g's.

    Attributes:
        place: c.
        drifts, noises: pairs (coefficient, stage) of the f and the g that enter.
    """

    place: float
    drifts: Terms
    noises: Terms


class Recipe(NamedTuple):
    """A tableau without what is zero, needed by nothing or the same twice: what a step does.

    Attributes:
        stages: for each stage the call of the drift and that of the diffusion, None where there is none.
        drifts: pairs (alpha, stage).
        noises: for each diffusion called the weights of W, I_11 / root, I / |h| and I_111 / |h|, and the stage.
    """

    stages: tuple[tuple[Call | None, Call | None], ...]
    drifts: Terms
    noises: tuple[tuple[tuple[float, float, float, float], int], ...]

    @property
    def drift_calls(self) -> int:
        """Calls of the drift in a step."""
        return sum(drift is not None for drift, _ in self.stages)

    @property
    def diffusion_calls(self) -> int:
        """Calls of the diffusion in a step."""
        return sum(diffusion is not None for _, diffusion in self.stages)

    @property
    def places(self) -> tuple[float, float]:
        """The least and the greatest c of the times t0 + c h of its calls."""
        found = [call.place for stage in self.stages for call in stage if call is not None]
        return min(found), max(found)


@dataclass(frozen=True)
class SRATableau:
    """A method for additive noise: row i of a0 and b0 has i entries.

    Args:
        name: for messages.
        order: the deterministic order, 2 or 3, of a0 and alpha.

    Raises:
        OptionError: if it is not explicit, or violates a condition by more than 1e-12.
    """

    name: str
    order: int
    a0: Rows
    b0: Rows
    alpha: Numbers
    beta1: Numbers
    beta2: Numbers
    c0: Numbers
    c1: Numbers

    def __post_init__(self) -> None:
        _check_shapes(self, ("a0", "b0"), ("alpha", "beta1", "beta2", "c0", "c1"))
        _check_conditions(self)

    def conditions(self) -> dict[str, float]:
        """By how much each condition of strong order 3/2 and of the deterministic order is missed."""
        kick, c1 = _square(self.b0) @ np.ones(len(self.alpha)), np.array(self.c1)
        found = _deterministic(self) | _kicks(self, kick)
        wanted = {"beta1": (1.0, 1.0), "beta2": (0.0, -1.0)}
        for name, (whole, first) in wanted.items():
            beta = np.array(getattr(self, name))
            found |= {f"{name} e": float(beta.sum() - whole), f"{name} c1": float(beta @ c1 - first)}
        return found

    @cached_property
    def recipe(self) -> Recipe:
        """What a step does."""
        zero = (0.0,) * len(self.alpha)
        none = ((),) * len(self.alpha)
        return _recipe(
            (self.a0, self.b0, self.c0), (none, none, self.c1), self.alpha, (self.beta1, zero, self.beta2, zero)
        )


@dataclass(frozen=True)
class SRITableau:
    """A method for Ito noise, scalar or diagonal: row i of a0, a1, b0 and b1 has i entries.

    Args:
        name: for messages.
        order: the deterministic order, 2 or 3, of a0 and alpha.

    Raises:
        OptionError: if it is not explicit, or violates a condition by more than 1e-12.
    """

    name: str
    order: int
    a0: Rows
    a1: Rows
    b0: Rows
    b1: Rows
    alpha: Numbers
    beta1: Numbers
    beta2: Numbers
    beta3: Numbers
    beta4: Numbers
    c0: Numbers
    c1: Numbers

    def __post_init__(self) -> None:
        _check_shapes(self, ("a0", "a1", "b0", "b1"), ("alpha", "beta1", "beta2", "beta3", "beta4", "c0", "c1"))
        _check_conditions(self)

    def conditions(self) -> dict[str, float]:
        """By how much each condition of strong order 3/2 and of the deterministic order is missed."""
        e = np.ones(len(self.alpha))
        a1, b0, b1 = (_square(rows) for rows in (self.a1, self.b0, self.b1))
        found = _deterministic(self) | _kicks(self, b0 @ e)
        found["c1 - a1 e"] = float(np.abs(a1 @ e - np.array(self.c1)).max())
        wanted = {
            "e": (e, (1, 0, 0, 0)),
            "(b1 e)": (b1 @ e, (0, 1, 0, 0)),
            "(a1 e)": (a1 @ e, (1, 0, -1, 0)),
            "(b1 e)^2": ((b1 @ e) ** 2, (1, 0, -1, 2)),
            "(b1 b1 e)": (b1 @ b1 @ e, (0, 0, 0, 1)),
        }
        betas = [np.array(beta) for beta in (self.beta1, self.beta2, self.beta3, self.beta4)]
        for name, (vector, values) in wanted.items():
            for i, (beta, value) in enumerate(zip(betas, values, strict=True), 1):
                found[f"beta{i} {name}"] = float(beta @ vector - value)
        inner = a1 @ b0 @ e
        found["beta1 a1 b0 e / 2 + beta3 a1 b0 e / 3"] = float(betas[0] @ inner / 2 + betas[2] @ inner / 3)
        return found

    @cached_property
    def recipe(self) -> Recipe:
        """What a step does."""
        betas = (self.beta1, self.beta2, self.beta3, self.beta4)
        return _recipe((self.a0, self.b0, self.c0), (self.a1, self.b1, self.c1), self.alpha, betas)


def _square(rows: Rows) -> np.ndarray:
    """A lower triangle as a matrix."""
    matrix = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
    return matrix


def _deterministic(tableau: Any) -> dict[str, float]:
    """c0 = a0 e, and the order conditions of a Runge-Kutta method over the rooted trees of up to 3 vertices."""
    a, alpha = _square(tableau.a0), np.array(tableau.alpha)
    c = a.sum(1)
    found = {
        "c0 - a0 e": float(np.abs(c - np.array(tableau.c0)).max()),
        "alpha e": float(alpha.sum() - 1),
        "alpha (a0 e)": float(alpha @ c - 1 / 2),
    }
    if tableau.order > 2:
        found |= {"alpha (a0 e)^2": float(alpha @ c**2 - 1 / 3), "alpha (a0 a0 e)": float(alpha @ a @ c - 1 / 6)}
    return found


def _kicks(tableau: Any, kick: np.ndarray) -> dict[str, float]:
    alpha = np.array(tableau.alpha)
    return {"alpha (b0 e)": float(alpha @ kick - 1), "alpha (b0 e)^2": float(alpha @ kick**2 - 3 / 2)}


def _check_shapes(tableau: Any, triangles: Sequence[str], vectors: Sequence[str]) -> None:
    stages = len(tableau.alpha)
    wrong = [n for n in triangles if [len(row) for row in getattr(tableau, n)] != list(range(stages))]
    wrong += [n for n in vectors if len(getattr(tableau, n)) != stages]
    if wrong or tableau.order not in (2, 3):
        raise OptionError(
            f"tableau {tableau.name}",
            got=f"{', '.join(wrong) or 'order'} of another size" if wrong else f"order {tableau.order}",
            expected=f"{stages} numbers, {stages} rows of which row i has i entries, and order 2 or 3",
            fix="Correct it.",
        )


def _check_conditions(tableau: Any) -> None:
    missed = {name: value for name, value in tableau.conditions().items() if not abs(value) <= _TOLERANCE}
    if missed:
        raise OptionError(
            f"tableau {tableau.name}",
            got="residuals " + ", ".join(f"{name}: {value:.3g}" for name, value in missed.items()),
            expected=f"the conditions of strong order 3/2 and deterministic order {tableau.order}",
            fix="Correct it.",
        )


def _recipe(
    drift: tuple[Rows, Rows, Numbers], diffusion: tuple[Rows, Rows, Numbers], alpha: Numbers, betas: tuple[Numbers, ...]
) -> Recipe:
    """Leave out calls on which nothing depends, and take those at one time and state from the first of them."""
    count = len(alpha)
    kinds = (drift, diffusion)
    needed = [[bool(v) for v in alpha], [any(beta[i] for beta in betas) for i in range(count)]]
    for i in reversed(range(count)):
        for kind, (a, b, _) in enumerate(kinds):
            for j in range(i):
                if needed[kind][i]:
                    needed[0][j] |= bool(a[i] and a[i][j])
                    needed[1][j] |= bool(b[i] and b[i][j])
    first: list[dict[int, int]] = [{}, {}]  # the stage whose value a stage takes
    seen: list[dict[Call, int]] = [{}, {}]
    stages: list[list[Call | None]] = [[None, None] for _ in range(count)]
    for i in range(count):
        for kind, (a, b, c) in enumerate(kinds):
            if not needed[kind][i]:
                continue
            call = Call(c[i], _merged(a[i], first[0]), _merged(b[i], first[1]))
            first[kind][i] = seen[kind].setdefault(call, i)
            if first[kind][i] == i:
                stages[i][kind] = call
    columns = [{j: w for w, j in _merged(beta, first[1])} for beta in betas]
    used = sorted({j for column in columns for j in column})
    noises = tuple((tuple(column.get(j, 0.0) for column in columns), j) for j in used)
    return Recipe(tuple((f, g) for f, g in stages), _merged(alpha, first[0]), noises)  # type: ignore[arg-type]


def _merged(weights: Numbers, first: dict[int, int]) -> Terms:
    """Pairs (weight, stage) with the weights of one value added up, without zeros."""
    total: dict[int, list[float]] = {}
    for j, weight in enumerate(weights):
        if weight:
            total.setdefault(first[j], []).append(weight)
    return tuple((value, j) for j, parts in total.items() if (value := math.fsum(parts)))


SRA1 = SRATableau(
    "sra1", 2, ((), (3 / 4,)), ((), (3 / 2,)), (1 / 3, 2 / 3), (1.0, 0.0), (-1.0, 1.0), (0.0, 3 / 4), (1.0, 0.0)
)

SRA2 = SRATableau(
    "sra2", 2, ((), (3 / 4,)), ((), (3 / 2,)), (1 / 3, 2 / 3), (0.0, 1.0), (3 / 2, -3 / 2), (0.0, 3 / 4), (1 / 3, 1.0)
)

SRA3 = SRATableau(
    "sra3",
    3,
    ((), (1.0,), (1 / 4, 1 / 4)),
    ((), (0.0,), (1.0, 1 / 2)),
    (1 / 6, 1 / 6, 2 / 3),
    (1.0, 0.0, 0.0),
    (-1.0, 1.0, 0.0),
    (0.0, 1.0, 1 / 2),
    (1.0, 0.0, 0.0),
)

SOSRA = SRATableau(
    "sosra",
    2,
    ((), (0.6923962376159507,), (-3.1609142252828395, 4.1609142252828395)),
    ((), (1.3371632704399763,), (1.442371048468624, 1.8632741501139225)),
    (0.2889874966892885, 0.6859880440839937, 0.025024459226717772),
    (-16.792534242221663, 17.514995785380226, 0.27753845684143835),
    (0.4237535769069274, 0.6010381474428539, -1.0247917243497813),
    (0.0, 0.6923962376159507, 1.0),
    (0.0, 0.041248171110700504, 1.0),
)

SOSRA2 = SRATableau(
    "sosra2",
    2,
    ((), (1.0,), (0.9511849235504364, 0.04881507644956362)),
    ((), (0.7686101171003622,), (0.43886792994934987, 0.7490415909204886)),
    (0.4999999999999998, -0.9683897375354181, 1.4683897375354185),
    (0.0, 0.92438032145683, 0.07561967854316998),
    (1.0, -0.8169981105823436, -0.18300188941765633),
    (0.0, 1.0, 1.0),
    (0.0, 1.0, 1.0),
)

SRIW1 = SRITableau(
    name="sriw1",
    order=2,
    a0=((), (3 / 4,), (0.0, 0.0), (0.0, 0.0, 0.0)),
    a1=((), (1 / 4,), (1.0, 0.0), (0.0, 0.0, 1 / 4)),
    b0=((), (3 / 2,), (0.0, 0.0), (0.0, 0.0, 0.0)),
    b1=((), (1 / 2,), (-1.0, 0.0), (-5.0, 3.0, 1 / 2)),
    alpha=(1 / 3, 2 / 3, 0.0, 0.0),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(-1.0, 4 / 3, -1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    c0=(0.0, 3 / 4, 0.0, 0.0),
    c1=(0.0, 1 / 4, 1.0, 1 / 4),
)

SRIW2 = SRITableau(
    name="sriw2",
    order=3,
    a0=((), (1.0,), (1 / 4, 1 / 4), (0.0, 0.0, 0.0)),
    a1=((), (1 / 4,), (1.0, 0.0), (0.0, 0.0, 1 / 4)),
    b0=((), (0.0,), (1.0, 1 / 2), (0.0, 0.0, 0.0)),
    b1=((), (-1 / 2,), (1.0, 0.0), (2.0, -1.0, 1 / 2)),
    alpha=(1 / 6, 1 / 6, 2 / 3, 0.0),
    beta1=(-1.0, 4 / 3, 2 / 3, 0.0),
    beta2=(1.0, -4 / 3, 1 / 3, 0.0),
    beta3=(2.0, -4 / 3, -2 / 3, 0.0),
    beta4=(-2.0, 5 / 3, -2 / 3, 1.0),
    c0=(0.0, 1.0, 1 / 2, 0.0),
    c1=(0.0, 1 / 4, 1.0, 1 / 4),
)

SOSRI = SRITableau(
    name="sosri",
    order=2,
    a0=(
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    a1=(
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    b0=(
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    b1=(
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta1=(-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    beta2=(0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    beta3=(2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    beta4=(0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    c0=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    c1=(0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175),
)

SOSRI2 = SRITableau(
    name="sosri2",
    order=2,
    a0=(
        (),
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    a1=(
        (),
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    b0=(
        (),
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    b1=(
        (),
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    alpha=(-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    beta1=(-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
    beta2=(-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
    beta3=(1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
    beta4=(-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
    c0=(0.0, 0.13804532298278663, 1.0, 1.0),
    c1=(0.0, 0.45605532163856893, 1.0, 1.0),
)
"""The SOS tableaus are those of Rackauckas and Nie, arXiv:1804.04344, with the digits of StochasticDiffEq.jl; places
that differ from 1 by rounding are set to 1."""
