"""Samples against exact samples, in a suite and on its page."""

from __future__ import annotations

import tomllib

import pytest

import sdekit
from sdekit import metrics
from sdekit.bench import formats, sampled_page, sampled_tables
from sdekit.bench.cells import expand
from sdekit.bench.measure import measure
from sdekit.bench.suite import Suite

TEXT = """
name = "mine"
description = "sampled"
[processes]
edm = { make = "EDM" }
[targets]
ring = { make = "ring" }
[[sampled]]
target = "ring"
process = "edm"
grid = "karras"
half_log_snr = [-3.0, 3.0]
calls = [1, 2, 60]
samples = 256
repeats = 39
metrics = ["sliced_w2", "energy"]
solvers = [{ solver = "heun" }, { solver = "dpmpp_2m_sde" }]
"""


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return [measure(cell, 0.15) for cell in expand(Suite.model_validate(tomllib.loads(TEXT)))]


def test_few_calls_show_and_many_do_not(results):
    assert [(r["solver"], r["kind"], r["status"]) for r in results] == [
        ("heun", "deterministic", "ok"),
        ("dpmpp_2m_sde", "weak", "ok"),
    ]
    assert results[0]["points"][0]["metrics"] is None  # heun has no step of one call
    for r in results:
        few, many = (p["metrics"]["energy"] for p in r["points"][1:])
        assert few["above_floor"] and few["low"] > 0
        assert not many["above_floor"] and many["low"] < many["floor"]


def test_the_numbers_are_those_of_compare(results):
    edm, model = sdekit.EDM(), sdekit.targets.ring().under(sdekit.EDM())
    start, end = float(edm.time_at(-3.0)), float(edm.time_at(3.0))
    grid = sdekit.grids.karras(edm, 60, t_start=start, t_end=end)
    x = sdekit.solve(model, model.sample(start, 256, 0), grid, "dpmpp_2m_sde", seed=2).x
    exact, draw = model.sample(end, 256, 1), lambda n, seed: model.sample(end, n, seed)
    floor = metrics.noise_floor("energy", draw, 256, 39, 3)
    expected = metrics.compare("energy", x, exact, floor)
    found = results[1]["points"][2]["metrics"]["energy"]
    assert (found["value"], found["floor"]) == (pytest.approx(expected.value, abs=1e-12), expected.floor)


def test_the_page_draws_bands_and_the_floor_and_is_inert(results):
    text = sampled_page.section([{**results[0], "target": "<script>x</script>"}, results[1]])
    assert "<script" not in text and 'class="floor"' in text and text.count("<svg viewBox") == 4
    assert text.count("<polygon") == 4 and "<strong>" in text and ", floor " in text
    assert sampled_page.section([]) == sampled_page.link([]) == ""


def test_floors_below_zero_and_metrics_of_some_sections_are_drawn(results):
    """Energy distance and MMD have no bias, so that few exact samples may give a negative floor, and values too."""

    def lowered(result: dict, to: float) -> dict:
        points = [
            {**p, "metrics": {"energy": {**p["metrics"]["energy"], "floor": -1e-3, "value": to, "high": to}}}
            for p in result["points"]
            if p["metrics"]
        ]
        return {**result, "points": points}

    for to in (-2e-3, 0.0, 0.1):
        text = sampled_page.section([lowered(results[1], to)])
        assert "<polygon" in text and "nan" not in text
    mixed = sampled_page.section([results[0], lowered(results[1], 0.1)])
    assert '<td class="number">-</td>' in mixed


def test_tables_hold_values_intervals_and_floors(results):
    failed = {**results[0], "solver": "lost", "status": "failed", "message": "no luck", "points": []}
    one, weak = sampled_tables.tables({"results": [*results, failed]})
    assert (one.name, weak.name) == ("sampled-ring-edm-karras-deterministic", "sampled-ring-edm-karras-weak")
    assert one.notes == ("Failed (no luck): lost.",)
    points = [p for p in results[0]["points"] if p["metrics"]]
    for row, p in zip(one.rows, points, strict=True):
        for cell, name in zip(row[2:], ("sliced_w2", "energy"), strict=True):
            found = p["metrics"][name]
            assert cell.values == tuple(found[key] for key in ("value", "low", "high", "floor"))
            assert cell.bold == found["above_floor"] == ("floor" not in cell.text)
    origin = [("sdekit ", "0.1.0")]
    assert "**" in formats.as_markdown(one, origin) and "textbf" in formats.as_latex(one, origin, "x")
    lines = formats.as_csv(one).splitlines()
    assert lines[0].split(",")[:3] == ["solver", "calls", "sliced_w2_value"] and len(lines) == 1 + len(points)
