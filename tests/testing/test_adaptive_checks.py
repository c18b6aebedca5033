"""check_solver on adaptive solvers: right ones pass, each planted mistake is named."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest

from sdekit.errors import ConformanceError
from sdekit.solvers import EmbeddedRungeKutta, Pair, Tableau, embedded
from sdekit.testing import check_solver

GOOD = embedded.DORMAND_PRINCE


@dataclass(frozen=True)
class Own(EmbeddedRungeKutta):
    """A user's method: a pair and nothing else."""

    pair: ClassVar[Pair] = GOOD
    tableau: ClassVar[Tableau] = GOOD.tableau


@dataclass(frozen=True)
class Boastful(EmbeddedRungeKutta):
    """The mutant: an estimate a thousandth of the error."""

    pair: ClassVar[Pair] = dataclasses.replace(GOOD, weights=(tuple(w / 1000 for w in GOOD.weights[0]),))
    tableau: ClassVar[Tableau] = GOOD.tableau


def test_a_pair_is_enough_for_an_adaptive_solver():
    found = check_solver(Own(), orders=False).checks
    assert {"adaptive: tolerance", "adaptive: landing", "adaptive: batch split"} <= set(found)


def test_wrong_error_weights_are_named():
    with pytest.raises(ConformanceError) as caught:
        check_solver(Boastful(), orders=False)
    assert caught.value.check == "adaptive: tolerance"
