"""The steps are those of the released azula, where that is installed; its Rosenbrock-type sampler is of order 1."""

from __future__ import annotations

import math

import pytest

import sdekit
from benchmarks import compare_azula, peers

ENDS = (0.99, 0.05)


@pytest.fixture(autouse=True)
def installed():
    if peers.installed("azula") is None:
        pytest.skip(peers.missing("azula"))


@pytest.mark.parametrize("method", compare_azula.METHODS)
def test_same_steps(method: str) -> None:
    for process in (sdekit.RectifiedFlow(), sdekit.VP()):
        found = compare_azula.compared(method, process, ENDS, 6)[0]
        deviates = bool(compare_azula.METHODS[method].deviates)
        assert (found > 1e-3) if deviates else (found <= compare_azula.BOUND)


def test_another_method_is_told_apart(monkeypatch) -> None:
    chosen = compare_azula.METHODS["ddim, eta 0.5"]
    monkeypatch.setitem(compare_azula.METHODS, "ddim, eta 0.5", chosen._replace(theirs={"eta": 0.5}))
    assert compare_azula.compared("ddim, eta 0.5", sdekit.VP(), ENDS, 6)[0] > 1e-3


@pytest.mark.slow
def test_the_rosenbrock_type_sampler_of_azula_is_of_order_one_and_ours_of_two() -> None:
    few, many = (
        compare_azula.compared("preconditioned_adams, order 2", sdekit.RectifiedFlow(), (0.9, 0.3), n)[1:]
        for n in (50, 100)
    )
    slopes = [math.log2(a / b) for a, b in zip(few, many, strict=True)]
    assert slopes[0] == pytest.approx(1, abs=0.2) and slopes[1] == pytest.approx(2, abs=0.2)
