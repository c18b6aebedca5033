"""Embedded Runge-Kutta pairs: a tableau, and weights that estimate the error of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdekit.errors import OptionError
from sdekit.solvers.tableau import Tableau

__all__ = ["BOGACKI_SHAMPINE", "DOP853_PAIR", "DORMAND_PRINCE", "DORMAND_PRINCE_SHAMPINE", "TSITOURAS", "Pair"]


@dataclass(frozen=True)
class Pair:
    """An explicit Runge-Kutta method with an estimate of the error of a step.

    The estimate is h sum_i e_i k_i over the slopes k_i of the stages. A row of weights with one entry more than the
    method has stages uses the slope at the end of the step too, which is the next step's first ("first same as last").

    Args:
        tableau: the method that is propagated.
        weights: one row of weights e, or two, E5 and E3, for the combined estimate of `combined`.
        order: the power of h with which the estimate of one step falls.

    Raises:
        OptionError: for weights of a wrong number, or that do not sum to zero: they would see an error in dx/dt = 1.
    """

    tableau: Tableau
    weights: tuple[tuple[float, ...], ...]
    order: int

    def __post_init__(self) -> None:
        stages = self.tableau.stages
        lengths = {len(row) for row in self.weights}
        if len(self.weights) not in (1, 2) or len(lengths) != 1 or not lengths <= {stages, stages + 1}:
            raise OptionError(
                f"pair {self.tableau.name}",
                got=f"error weights of lengths {[len(row) for row in self.weights]}",
                expected=f"one or two rows of {stages} or {stages + 1} weights",
                fix="Correct them.",
            )
        sums = [math.fsum(row) for row in self.weights]
        if max(abs(s) for s in sums) > 1e-13:
            raise OptionError(
                f"pair {self.tableau.name}",
                got=f"error weights that sum to {sums}",
                expected="sums of zero",
                fix="Correct them.",
            )
        if not all(0 <= c <= 1 for c in self.tableau.c):
            raise OptionError(
                f"pair {self.tableau.name}",
                got=f"stages at {self.tableau.c}",
                expected="0 <= c <= 1, so that nothing is evaluated past the end",
                fix="Choose another method.",
            )

    @property
    def first_same_as_last(self) -> bool:
        """Whether the estimate uses the slope at the end of the step, which then serves the next step."""
        return len(self.weights[0]) > self.tableau.stages

    @property
    def calls(self) -> int:
        """Calls of an accepted step; a rejected one makes one less where the end's slope is not in the estimate."""
        return self.tableau.stages


_DP = Tableau(
    "dormand_prince",
    5,
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
)


def _differences(b: tuple[float, ...], embedded: tuple[float, ...]) -> tuple[float, ...]:
    """b - b^, the end's slope having no weight in b."""
    return tuple(high - low for high, low in zip((*b, 0.0), embedded, strict=True))


DORMAND_PRINCE = Pair(
    _DP,
    (_differences(_DP.b, (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)),),
    5,
)
"""Dormand and Prince's own fourth-order weights."""

DORMAND_PRINCE_SHAMPINE = Pair(
    _DP,
    (_differences(_DP.b, (1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60)),),
    5,
)
"""The fourth-order weights that torchdiffeq, torchode and diffrax use, attributed there to Shampine."""

BOGACKI_SHAMPINE = Pair(
    Tableau("bogacki_shampine", 3, ((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9), (0.0, 1 / 2, 3 / 4)),
    ((2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),),
    3,
)

TSITOURAS = Pair(
    Tableau(
        "tsitouras",
        5,
        (
            (),
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        ),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
        (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    ),
    (
        (
            0.00178001105222577714,
            0.0008164344596567469,
            -0.007880878010261995,
            0.1447110071732629,
            -0.5823571654525552,
            0.45808210592918697,
            -1 / 66,
        ),
    ),
    5,
)
"""The published table of these weights has errors; these satisfy the order conditions, see the tests."""

DOP853_PAIR = Pair(
    Tableau(
        "dop853",
        8,
        (
            (),
            (0.05260015195876773,),
            (0.0197250569845379, 0.0591751709536137),
            (0.02958758547680685, 0.0, 0.08876275643042054),
            (0.2413651341592667, 0.0, -0.8845494793282861, 0.924834003261792),
            (0.037037037037037035, 0.0, 0.0, 0.17082860872947386, 0.12546768756682242),
            (0.037109375, 0.0, 0.0, 0.17025221101954405, 0.06021653898045596, -0.017578125),
            (
                0.03709200011850479,
                0.0,
                0.0,
                0.17038392571223998,
                0.10726203044637328,
                -0.015319437748624402,
                0.008273789163814023,
            ),
            (
                0.6241109587160757,
                0.0,
                0.0,
                -3.3608926294469414,
                -0.868219346841726,
                27.59209969944671,
                20.154067550477894,
                -43.48988418106996,
            ),
            (
                0.47766253643826434,
                0.0,
                0.0,
                -2.4881146199716677,
                -0.590290826836843,
                21.230051448181193,
                15.279233632882423,
                -33.28821096898486,
                -0.020331201708508627,
            ),
            (
                -0.9371424300859873,
                0.0,
                0.0,
                5.186372428844064,
                1.0914373489967295,
                -8.149787010746927,
                -18.52006565999696,
                22.739487099350505,
                2.4936055526796523,
                -3.0467644718982196,
            ),
            (
                2.273310147516538,
                0.0,
                0.0,
                -10.53449546673725,
                -2.0008720582248625,
                -17.9589318631188,
                27.94888452941996,
                -2.8589982771350235,
                -8.87285693353063,
                12.360567175794303,
                0.6433927460157636,
            ),
        ),
        (
            0.054293734116568765,
            0.0,
            0.0,
            0.0,
            0.0,
            4.450312892752409,
            1.8915178993145003,
            -5.801203960010585,
            0.3111643669578199,
            -0.1521609496625161,
            0.20136540080403034,
            0.04471061572777259,
        ),
        (
            0.0,
            0.05260015195876773,
            0.0789002279381516,
            0.1183503419072274,
            0.2816496580927726,
            0.3333333333333333,
            0.25,
            0.3076923076923077,
            0.6512820512820513,
            0.6,
            0.8571428571428571,
            1.0,
        ),
    ),
    (
        (
            0.01312004499419488,
            0.0,
            0.0,
            0.0,
            0.0,
            -1.2251564463762044,
            -0.4957589496572502,
            1.6643771824549864,
            -0.35032884874997366,
            0.3341791187130175,
            0.08192320648511571,
            -0.022355307863886294,
        ),
        (
            -0.18980075407240762,
            0.0,
            0.0,
            0.0,
            0.0,
            4.450312892752409,
            1.8915178993145003,
            -5.801203960010585,
            -0.4226823213237919,
            -0.1521609496625161,
            0.20136540080403034,
            0.02265179219836082,
        ),
    ),
    8,
)
"""Hairer's code of that name: weights of orders 5 and 3, combined as in `sdekit.control`."""
