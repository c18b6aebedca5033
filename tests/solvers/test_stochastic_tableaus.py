"""Tableaus of stochastic Runge-Kutta methods: order conditions, rooted trees, torchsde's numbers, what is refused."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest

from sdekit.errors import OptionError
from sdekit.solvers import stochastic_tableau as tableaus
from sdekit.solvers.stochastic_tableau import SRATableau, SRITableau
from tests.solvers.test_pairs import density, stages, trees

SRA = [tableaus.SRA1, tableaus.SRA2, tableaus.SRA3, tableaus.SOSRA, tableaus.SOSRA2]
SRI = [tableaus.SRIW1, tableaus.SRIW2, tableaus.SOSRI, tableaus.SOSRI2]
ALL: list[Any] = [*SRA, *SRI]
CALLS = {  # of drift and diffusion in a step
    "sra1": (2, 2),
    "sra2": (2, 2),
    "sra3": (3, 2),
    "sosra": (3, 3),
    "sosra2": (3, 2),
    "sriw1": (2, 4),
    "sriw2": (3, 4),
    "sosri": (4, 4),
    "sosri2": (4, 4),
}


def square(rows) -> np.ndarray:
    matrix = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
    return matrix


def changed(tableau: Any, field: str, i: int, j: int | None, by: float) -> Any:
    """The tableau with one number moved."""
    values: list[Any] = [list(v) if isinstance(v, tuple) else v for v in getattr(tableau, field)]
    if j is None:
        values[i] += by
    else:
        values[i][j] += by
    return dataclasses.replace(tableau, **{field: tuple(tuple(v) if isinstance(v, list) else v for v in values)})


def entries(tableau: Any) -> list[tuple[str, int, int | None]]:
    """The places of all numbers but zero."""
    found: list[tuple[str, int, int | None]] = []
    for field in dataclasses.fields(tableau):
        value = getattr(tableau, field.name)
        if field.name in ("name", "order"):
            continue
        for i, v in enumerate(value):
            found += [(field.name, i, j) for j, w in enumerate(v) if w] if isinstance(v, tuple) else []
            found += [(field.name, i, None)] if isinstance(v, float) and v else []
    return found


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_deterministic_order_by_rooted_trees(tableau: Any) -> None:
    """That of the method without noise is the declared one, and no higher."""
    a, alpha = square(tableau.a0), np.array(tableau.alpha)
    worst = {n: max(abs(alpha @ stages(t, a) - 1 / density(t)) for t in trees(n)) for n in (1, 2, 3, 4)}
    assert all(worst[n] < 1e-14 for n in range(1, tableau.order + 1)), worst
    assert worst[tableau.order + 1] > 1e-3


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_every_number_matters(tableau: Any) -> None:
    """Mutants: each number that is not zero, off in its ninth digit, breaks a condition."""
    places = entries(tableau)
    assert len(places) >= 9
    for field, i, j in places:
        with pytest.raises(OptionError, match=r"residuals .*(alpha|beta|c0|c1)"):
            changed(tableau, field, i, j, 1e-9)


def shifted(tableau: Any, field: str, i: int, j: int, by: float) -> Any:
    """Two weights moved against each other: their sum stays."""
    first = changed_unchecked(getattr(tableau, field), i, by)
    return dataclasses.replace(tableau, **{field: changed_unchecked(first, j, -by)})


def changed_unchecked(values: tuple[float, ...], i: int, by: float) -> tuple[float, ...]:
    return tuple(v + by if k == i else v for k, v in enumerate(values))


@pytest.mark.parametrize(
    "tableau, field, i, j, condition",
    [
        (tableaus.SRA2, "beta1", 0, 1, "beta1 c1"),
        (tableaus.SRA3, "beta2", 0, 1, "beta2 c1"),
        (tableaus.SRA3, "alpha", 0, 1, r"alpha \(a0 e\)"),
        (tableaus.SRIW1, "beta1", 0, 2, r"beta1 \(b1 e\)"),
        (tableaus.SRIW1, "beta2", 1, 3, r"beta2 \(b1 e\)"),
        (tableaus.SRIW1, "beta3", 0, 1, r"beta3 \(a1 e\)"),
        (tableaus.SRIW2, "beta4", 1, 3, r"beta4 \(b1 b1 e\)"),
        (tableaus.SRIW2, "alpha", 1, 2, r"alpha \(b0 e\)"),
    ],
)
def test_sums_alone_are_not_enough(tableau: Any, field: str, i: int, j: int, condition: str) -> None:
    with pytest.raises(OptionError, match=condition):
        shifted(tableau, field, i, j, 0.1)


def test_numbers_are_those_of_torchsde() -> None:
    for mine, name in ((tableaus.SRIW1, "srid1"), (tableaus.SRIW2, "srid2"), (tableaus.SRA1, "sra1")):
        theirs: Any = importlib.import_module(f"torchsde._core.methods.tableaus.{name}")
        pairs = {"a0": "A0", "b0": "B0", "alpha": "alpha", "beta1": "beta1", "beta2": "beta2", "c0": "C0", "c1": "C1"}
        if isinstance(mine, SRITableau):
            pairs |= {"a1": "A1", "b1": "B1", "beta3": "beta3", "beta4": "beta4"}
        for field, other in pairs.items():
            assert getattr(mine, field) == getattr(theirs, other), (name, field)


@pytest.mark.parametrize("name", ["sra2", "sra3"])
def test_a_wrong_sign_in_a_published_table_is_found(name: str) -> None:
    """In torchsde 0.2.6 beta2 has the other sign in both; its solvers do not use them."""
    theirs: Any = importlib.import_module(f"torchsde._core.methods.tableaus.{name}")
    mine = {"sra2": tableaus.SRA2, "sra3": tableaus.SRA3}[name]
    assert theirs.beta2 == tuple(-b for b in mine.beta2)
    with pytest.raises(OptionError, match=r"beta2 c1: 2"):
        dataclasses.replace(mine, beta2=tuple(map(float, theirs.beta2)))


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_calls_of_a_step(tableau: Any) -> None:
    assert (tableau.recipe.drift_calls, tableau.recipe.diffusion_calls) == CALLS[tableau.name]


def test_what_is_known_is_not_called_again() -> None:
    """SRIW1 needs its third drift, which is its first; SRA3's third diffusion is its second."""
    assert tableaus.SRIW1.a1[3][2] != 0 and tableaus.SRIW1.recipe.stages[2][0] is None
    assert tableaus.SRIW1.recipe.stages[3][1].drifts == ((0.25, 0),)  # type: ignore[union-attr]
    assert tableaus.SRA3.recipe.stages[2][1] is None
    other_time = dataclasses.replace(tableaus.SRA3, c1=(1.0, 0.0, 0.5))  # beta is zero there: it is not called at all
    assert other_time.recipe == tableaus.SRA3.recipe


def test_places() -> None:
    assert tableaus.SOSRI.recipe.places == (-0.04199224421316468, 3.7504010171562823)
    assert all(0 <= c <= 1 for t in ALL if t.name != "sosri" for c in t.recipe.places)


@pytest.mark.parametrize("tableau", [tableaus.SRA1, tableaus.SRIW1], ids=lambda t: t.name)
def test_a_tableau_checks_its_shape(tableau: SRATableau | SRITableau) -> None:
    with pytest.raises(OptionError, match="a0 of another size"):
        dataclasses.replace(tableau, a0=tableau.a0[1:])
    with pytest.raises(OptionError, match="beta1 of another size"):
        dataclasses.replace(tableau, beta1=(*tableau.beta1, 0.0))
    with pytest.raises(OptionError, match="order 4"):
        dataclasses.replace(tableau, order=4)
    with pytest.raises(OptionError, match="deterministic order 3"):
        dataclasses.replace(tableau, order=3)
    with pytest.raises(OptionError, match="nan"):
        dataclasses.replace(tableau, alpha=(float("nan"), *tableau.alpha[1:]))
