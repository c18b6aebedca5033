"""One cell: what is measured agrees with what can be worked out without the suite."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sdekit
from sdekit import solvers
from sdekit.bench import build, cells, measure, precision
from sdekit.bench.cells import Cell
from sdekit.bench.suite import load
from sdekit.errors import OptionError
from sdekit.testing import observed_order


def cell_of(path: Path, what: str, label: str, kind: str = "deterministic") -> Cell:
    return next(c for c in cells.expand(load(str(path))) if (c.what, c.variant.label, c.kind) == (what, label, kind))


def test_errors_are_those_of_a_solve_against_the_exact_flow(tiny: Path) -> None:
    found = measure.measure(cell_of(tiny, "work", "heun"), 0.15)
    assert found["status"] == "ok"
    mixture = sdekit.targets.random_mixture(2, 3, 1, std=(0.3, 0.6))
    model = mixture.under(sdekit.EDM())
    high, low = math.exp(3), math.exp(-2)
    x = model.sample(high, 4, 0)
    exact = model.flow(x, high, low)
    for point in found["points"]:
        steps = point["budget"] // 2
        assert (point["steps"], point["calls"]) == (steps, 2 * steps)
        grid = sdekit.grids.karras(sdekit.EDM(), steps, t_start=high, t_end=low)
        end = sdekit.solve(model.process.probability_flow(model), x, grid, "heun").x
        assert point["error"] == pytest.approx(float((end - exact).norm() / exact.norm()), rel=1e-6)


def test_error_in_law_is_wasserstein(tiny: Path) -> None:
    found = measure.measure(cell_of(tiny, "work", "ddpm", "weak"), 0.15)
    mixture = sdekit.targets.random_mixture(2, 3, 1, std=(0.3, 0.6))
    high, low = math.exp(3), math.exp(-2)
    for point in found["points"]:
        grid = sdekit.grids.karras(sdekit.EDM(), point["steps"], t_start=high, t_end=low)
        law = solvers.get("ddpm").plan(sdekit.EDM(), grid).gaussian_moments(mixture.mean, mixture.cov)
        exact = mixture.cov + low**2 * torch.eye(2)
        # Bures: tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2, with the eigenvalues of A B.
        cross = torch.linalg.eigvals(law.cov @ exact).real.sqrt().sum()
        squared = ((law.mean - mixture.mean) ** 2).sum() + law.cov.trace() + exact.trace() - 2 * cross
        size = (mixture.mean**2).sum() + exact.trace()
        assert point["error"] == pytest.approx(math.sqrt(squared / size), rel=1e-6)


RUN = [i.name for i in solvers.available() if cells.runs_models(i.name)]


@pytest.mark.parametrize("label", [*RUN[1::4], "heunpp2", "restart"])  # whose steps differ in their calls
def test_budgets_are_used_up_and_never_passed(tiny: Path, label: str) -> None:
    cell = next(c for c in cells.expand(load(str(tiny)), label) if c.what == "work")
    given = build.problem(cell)
    method = solvers.get(label)
    for budget in (1, 3, 5, 12):
        steps, calls = precision.within(method, given, cell, budget)
        assert calls <= budget
        assert steps == 0 or calls == precision._calls(method, given, cell, steps)
        assert precision._calls(method, given, cell, steps + 1) > budget


def test_order_is_measured_again_where_steps_were_too_few(tiny: Path) -> None:
    text = tiny.read_text().replace("steps = [10, 20, 40]", "steps = [2, 3, 4]")
    tiny.write_text(text)
    found = measure.measure(cell_of(tiny, "order", "rk4"), 0.15)
    assert found["steps"][-1] > 4
    assert found["status"] == "ok"


@pytest.mark.slow
def test_order_that_rounding_hides_is_measured_on_fewer_steps(tiny: Path) -> None:
    cell = replace(cell_of(tiny, "order", "rk4"), counts=(320, 640, 1280))
    with pytest.raises(OptionError, match="rounding"):
        observed_order("rk4", cell.kind, build.problem(cell), cell.grid, cell.counts)
    found = measure.measure(cell, 0.15)
    assert found["steps"] == [160, 320, 640]
    assert found["measured"] == pytest.approx(4, abs=0.15)


def test_wrong_declaration_is_not_rescued_by_finer_grids(tiny: Path, planted: None) -> None:
    found = measure.measure(cell_of(tiny, "order", "boastful"), 0.15)
    assert found["declared"] == 2
    assert found["measured"] == pytest.approx(1, abs=0.1)


def test_failure_is_recorded_and_contained(tiny: Path, planted: None) -> None:
    found = measure.measure(cell_of(tiny, "order", "broken"), 0.15)
    assert found["status"] == "failed"
    assert found["message"] == "RuntimeError: no rows today"


def test_picture_shows_samples_beside_exact_and_real_ones(tiny: Path) -> None:
    found = measure.measure(cell_of(tiny, "picture", "ddim"), 0.15)
    assert [b["calls"] for b in found["blocks"]] == [5, 10]
    errors = [b["error"] for b in found["blocks"]]
    assert errors[1] < errors[0] < 1
    end, exact = torch.tensor(found["blocks"][1]["x"]), torch.tensor(found["exact"])
    assert end.shape == exact.shape == (3, 6)
    assert float((end - exact).norm() / exact.norm()) == pytest.approx(errors[1], rel=1e-5)
    means = sdekit.targets.random_mixture(6, 5, 2).means.tolist()
    assert all(row in means for row in found["real"])
    assert len(found["real"]) == 9
