"""deis as released: weights that are sums of 10,000 terms, and the first order that they leave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

import sdekit
from sdekit import VP, AffineSDE, RectifiedFlow, solvers
from sdekit.errors import OptionError
from sdekit.plan import interpret
from sdekit.solvers import multistep
from sdekit.testing import order_problems
from tests.solvers.test_properties import nonlinear

TIMES = [0.9, 0.7, 0.6, 0.35, 0.2, 0.15]
RELEASED = solvers.get("deis", as_released=True)


def vp_alpha(t: float) -> float:
    return math.exp(-(0.05 * t + 4.975 * t**2))  # beta from 0.1 to 20


def vp_integrand(t: float) -> float:
    """-1/2 d log alpha^2 / dt over sqrt(1 - alpha^2)."""
    return 0.5 * (0.1 + 19.9 * t) / math.sqrt(1 - vp_alpha(t) ** 2)


def flow_integrand(t: float) -> float:
    """g^2 / (2 sigma) of sigma = t, alpha = 1 - t."""
    return 1 + t / (1 - t)


def coefficients(
    alpha: Callable[[float], float], integrand: Callable[[float], float], times: list[float], order: int, part: float
) -> list[list[float]]:
    """C_ij, newest first, each sum written out; `part` is where in its part of the step a term is taken."""
    found = []
    for i, (start, end) in enumerate(itertools.pairwise(times)):
        nodes = times[max(0, i + 1 - order) : i + 1][::-1]
        points = [start + (end - start) * (k + part) / 10_000 for k in range(10_000)]
        base = [alpha(end) / alpha(v) * integrand(v) * (end - start) / 10_000 for v in points]
        row = []
        for j, center in enumerate(nodes):
            rest = [v for m, v in enumerate(nodes) if m != j]
            row.append(
                math.fsum(
                    b * math.prod((v - r) / (center - r) for r in rest) for b, v in zip(base, points, strict=True)
                )
            )
        found.append(row)
    return found


@pytest.mark.parametrize("order", [1, 3, 4])
@pytest.mark.parametrize(
    "process, alpha, integrand",
    [(VP(), vp_alpha, vp_integrand), (RectifiedFlow(), lambda t: 1 - t, flow_integrand)],
    ids=["vp", "flow"],
)
def test_the_weights_are_left_sums(process: AffineSDE, alpha, integrand, order: int) -> None:
    plan = solvers.get("deis", order=order, as_released=True).plan(process, TIMES)
    left, middle = (coefficients(alpha, integrand, TIMES, order, part) for part in (0.0, 0.5))
    exact = solvers.get("deis", order=order).plan(process, TIMES)
    for row, sums, better, right in zip(plan.rows, left, middle, exact.rows, strict=True):
        got, true = ([b for _, b in r.base.outputs] for r in (row, right))
        assert got == pytest.approx(sums, rel=1e-12)
        # The sums of middle terms, the mutant, are the exact weights to a square.
        assert better == pytest.approx(true, rel=1e-6) and got != pytest.approx(better, rel=1e-6)
    y = [interpret(p, nonlinear, 1.3) for p in (plan, exact)]
    assert 1e-7 < abs(y[0] - y[1]) < 1e-3


@pytest.mark.parametrize("terms, steps", [(10_000, (20, 40, 80)), (10, (40, 80, 160, 320))])
def test_what_the_sums_add_is_of_order_one(monkeypatch: pytest.MonkeyPatch, terms: int, steps: tuple[int, ...]) -> None:
    """Halved by twice as many steps, of any number of terms: with few it is all the error that there is."""
    monkeypatch.setattr(multistep, "_TERMS", terms)
    problem = order_problems()["vp"]
    added = []
    for n in steps:
        process, grid = problem.model.process, problem.grid("uniform", n)
        rows = RELEASED.rows(process, grid.tolist(), 0.0)
        exact = solvers.get("deis").plan(process, grid)
        plan = type(exact)(**{**vars(exact), "rows": tuple(rows)})
        ends = [interpret(p, nonlinear, 1.0) for p in (plan, exact)]
        added.append(abs(ends[0] - ends[1]))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(added)]
    assert RELEASED.declared.deterministic == 1 and slopes == pytest.approx([1.0] * len(slopes), abs=0.1)
    # At the 10,000 of the release it is less than a ten thousandth.
    assert (terms < 100) == (added[0] > 1e-3)


def test_they_are_those_of_the_clock_t_alone() -> None:
    for options in ({"clock": "rho"}, {"clock": "lambda"}, {"starter": "single_step"}, {"final_order": 1}):
        with pytest.raises(OptionError, match=r"as_released: got True with clock=.*; expected clock='t', .*"):
            solvers.get("deis", as_released=True, **options)
    with pytest.raises(OptionError, match="as_released: got 1"):
        solvers.get("deis", as_released=1)
    # Ends as with the exact weights.
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    model = sdekit.targets.ring().under(RectifiedFlow())
    ends = [sdekit.solve(model, x, [1.0, 0.6, 0.3, 0.0], k).x for k in (RELEASED, "deis")]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-3)
    assert not torch.equal(ends[0], ends[1])
