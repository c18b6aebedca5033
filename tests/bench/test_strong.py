"""Errors of paths, in a suite: orders that are known, what uncoupled paths show, and where the numbers are shown."""

from __future__ import annotations

import io
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import sdekit
from sdekit.bench import bands, build, compare, curves, export, query, report, results, table
from sdekit.bench.cells import Cell, expand
from sdekit.bench.measure import measure
from sdekit.bench.suite import Suite, load
from sdekit.bench.summary import summarise
from sdekit.errors import SdekitError
from sdekit.noise import PathNoise, StepNoise
from sdekit.testing import strong
from tests.bench.conftest import STRONG


def cells(what: str, *labels: str) -> list[Cell]:
    """Those of VP, as the labels are ordered."""
    suite = Suite.model_validate(tomllib.loads(STRONG))
    found = [c for c in expand(suite) if c.what == what and c.process.name == "vp"]
    return [next(c for c in found if c.variant.label == label) for label in labels]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """Errors of work by solver."""
    chosen = cells("work", "euler_maruyama", "sra1", "ddpm", "sra3")
    return {cell.variant.label: measure(cell, 0.15) for cell in chosen}


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("seconds", "point_seconds")}


def test_the_cells() -> None:
    found = expand(Suite.model_validate(tomllib.loads(STRONG)))
    assert {c.kind for c in found} == {"strong"}
    ordered = {c.variant.label for c in found if c.what == "order"}
    assert ordered >= {"ddpm", "dpmpp_2m", "euler_maruyama", "exp_sra", "shark"}
    assert not ordered & {"heun", "er_sde", "ddim", "sra3"}  # no noise, no declared order, no plans
    assert [c.label for c in found if c.process.name == "edm"] == ["dpmpp_2m, tau 0.5", "dpmpp_2m, tau 1"]


KNOWN = [("euler_maruyama", 1.0), ("sra1", 1.5), ("shark", 1.5), ("ddpm", 1.0)]


@pytest.mark.parametrize(("label", "order"), KNOWN)
def test_known_orders_are_measured(label: str, order: float) -> None:
    found = measure(cells("order", label)[0], 0.15)
    assert (found["status"], found["kind"], found["declared"]) == ("ok", "strong", order)
    assert order - 0.1 < found["measured"] < order + 0.25
    low, high = found["interval"]
    assert low < found["measured"] < high < order + 0.5


def test_slopes_of_errors_are_those_orders(measured: dict[str, dict[str, Any]]) -> None:
    slopes = {}
    for label, result in measured.items():
        points = [p for p in result["points"] if p["steps"]]
        slopes[label] = curves.fitted_slope([p["steps"] for p in points], [p["error"] for p in points])
        assert all(p["low"] < p["error"] < p["high"] and len(p["starts"]) == 64 for p in points)
    assert slopes["euler_maruyama"] == pytest.approx(1, abs=0.2)
    assert slopes["ddpm"] == pytest.approx(1, abs=0.3)
    assert min(slopes["sra1"], slopes["sra3"]) > 1.35
    assert measured["sra1"]["points"][0]["error"] is None  # a step takes two calls


@pytest.mark.parametrize("label", ["ddpm", "euler_maruyama"])  # one in each clock
def test_errors_are_those_of_solves_against_another_fine_one(label: str, measured: dict[str, dict[str, Any]]) -> None:
    given = build.problem(cells("work", label)[0])
    vp, model = sdekit.VP(), sdekit.targets.random_mixture(2, 4, 3, std=(0.3, 0.6)).under(sdekit.VP())
    ends = {"t_start": float(vp.time_at(-2.0)), "t_end": float(vp.time_at(2.0))}
    x = model.sample(ends["t_start"], 64, given.seed)
    ends_of = {
        n: sdekit.solve(
            model.process.reverse(model, 1.0),
            x,
            sdekit.grids.half_log_snr(vp, n, **ends),
            "shark" if n > 100 and label != "ddpm" else "exp_sra" if n > 100 else label,
            seed=given.seed + 1,
            noise="path",
        ).x
        for n in (16, 32, 600)
    }
    by_calls = {p["calls"]: p for p in measured[label]["points"]}
    for n in (16, 32):
        expected = float((ends_of[n] - ends_of[600]).norm() / ends_of[600].norm())
        assert by_calls[n]["error"] == pytest.approx(expected, rel=0.02)


def test_intervals_hold_what_the_reference_is_off(measured: dict[str, dict[str, Any]]) -> None:
    result = measured["sra1"]
    assert 0 < result["reference"] < 0.2 * result["points"][-1]["error"]
    for point in result["points"][1:]:
        distances = torch.tensor(point["starts"], dtype=torch.float64).square()
        alone = bands.of_squares(distances, torch.ones(64, dtype=torch.float64))
        assert point["error"] == pytest.approx(alone["error"], rel=1e-3)
        # Sizes vary from path to path, which the factor of the whole accounts for.
        factor = (point["high"] - result["reference"]) / point["error"]
        assert max(point["error"] / factor - result["reference"], 0.0) == pytest.approx(point["low"], rel=1e-9)


def test_uncoupled_paths_show_no_order(measured: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: noise drawn anew for each grid, of the same law."""

    def fresh(self: PathNoise, out: torch.Tensor, step: int, stream: int = 0) -> torch.Tensor:
        return StepNoise(self.seed + len(self.clock), self.sample_ids).fill(out, step, stream)

    monkeypatch.setattr(PathNoise, "fill", fresh)
    strong._reference.cache_clear()
    found = measure(cells("work", "euler_maruyama")[0], 0.15)
    strong._reference.cache_clear()
    errors = [p["error"] for p in found["points"][1:]]
    assert max(errors) < 1.5 * min(errors)
    assert errors[-1] > 5 * measured["euler_maruyama"]["points"][-1]["error"]


def test_a_cell_gives_the_same_again(measured: dict[str, dict[str, Any]]) -> None:
    cell = cells("work", "ddpm")[0]
    strong._reference.cache_clear()
    build.problem_of.cache_clear()
    assert numbers(measure(cell, 0.15)) == numbers(measured["ddpm"])


def test_the_seed_is_of_the_place() -> None:
    first, second = cells("work", "ddpm", "sra1")
    assert build.problem(first) is build.problem(second)
    others = [replace(first, **more) for more in ({"low": -1.0}, {"samples": 63}, {"seed": 1})]
    others += cells("order", "ddpm")
    seeds = {build.problem(cell).seed for cell in [first, *others]}
    assert len(seeds) == 1 + len(others) and all(0 <= seed < 2**60 for seed in seeds)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_paths(
    measured: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def spied(dynamics: Any, x: torch.Tensor, *args: Any, **more: Any) -> Any:
        batches.append(len(x))
        return sdekit.solve(dynamics, x, *args, **more)

    monkeypatch.setattr(strong, "solve", spied)
    monkeypatch.setattr(strong, "_NUMBERS", 2 * 25)
    strong._reference.cache_clear()
    found = measure(cells("work", "ddpm")[0], 0.15)
    strong._reference.cache_clear()
    assert set(batches) == {25, 14}
    for parts, whole in zip(found["points"], measured["ddpm"]["points"], strict=True):
        assert len(parts["starts"]) == 64 and len(set(parts["starts"])) > 60  # no path twice, but for rounding
        assert parts["starts"][:25] == pytest.approx(whole["starts"][:25], rel=0.2)
        assert parts["low"] < whole["high"] and whole["low"] < parts["high"]


FAULTS = [
    ('kinds = ["strong"]\nprocesses', 'kinds = ["stong"]\nprocesses', "orders.0.kinds.0: got 'stong'"),
    ("[0.5, 1.0]", "[0, 1.0]", "work.1.stochasticity.0: got 0 for 'strong'; expected above 0"),
    ('{ solver = "sra3" }', '{ solver = "er_sde" }', "work.0.solvers.3: kinds: got ['strong'] for er_sde"),
    ('grid = "karras"', 'grid = "karras"\npeers = ["k-diffusion:*"]', "work.1.peers.0: got 'strong'"),
    ('{ solver = "sra1" }', '{ solver = "sra11" }', "work.0.solvers.1: solver: got 'sra11'"),
]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = STRONG
    for old, new, _ in FAULTS:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SdekitError) as caught:
        expand(load(str(tmp_path / "mine.toml")))
    told = str(caught.value)
    assert not [words for *_, words in FAULTS if words not in told], told
    assert f"got {len(FAULTS)} faults" in told


def test_other_sections_have_no_strong_kind(tmp_path: Path) -> None:
    text = (Path(build.__file__).parent / "suites" / "samples.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('target = "ring"\n', 'target = "ring"\nkinds = ["strong"]\n', 1))
    with pytest.raises(SdekitError, match=r"sampled\.0\.kinds\.0: got 'strong'"):
        load(str(tmp_path / "mine.toml"))


# Where the numbers are shown


def written(folder: Path, found: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    suite = Suite.model_validate(tomllib.loads(STRONG))
    results.write_results(
        folder,
        source="mine.toml",
        suite=suite.model_dump(mode="json"),
        results=found,
        lines=summarise(found, 0.15, suite.table_calls),
        about=results.environment(1),
        seconds=1.0,
        complete=True,
    )
    return folder


def test_they_are_on_the_page_in_tables_and_queries(measured: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    found = [*measured.values(), measure(cells("order", "ddpm")[0], 0.15)]
    folder = written(tmp_path / "run", found)
    content = results.read_results(folder)
    drawn = {c["solvers"][0]: c for c in report._curves(content["results"])}
    assert all(c["kind"] == "strong" and len(c["low"]) == len(c["errors"]) for c in drawn.values())
    assert drawn["sra3"]["declared"] == 1.5 and len(drawn["ddpm"]["seconds"]) == 5
    assert '"kind":"strong"' in report.page(content)
    export.export(folder, export.FORMATS[:3])
    text = (folder / "export" / "tables.md").read_text()
    assert "Errors: plane, strong" in text and "over paths" in text and "| strong" in text
    assert {"table-errors-plane-strong.csv", "table-errors-plane-strong.tex"} <= {
        p.name for p in (folder / "export").iterdir()
    }
    sql = (
        "select count(*), min(low), max(error) from points where kind = 'strong' and what = 'work' and solver = 'ddpm'"
    )
    _, [(count, low, error)] = query.query(folder, sql)
    points = measured["ddpm"]["points"]
    assert (count, low, error) == (5, points[-1]["low"], points[0]["error"])
    assert query.query(folder, "select reference from cells where solver = 'sra1'")[1] == [
        (measured["sra1"]["reference"],)
    ]
    assert query.write_parquet(folder, found).stat().st_size > 0
    console = Console(width=140, file=io.StringIO())
    console.print(table.render(summarise(found, 0.15, [8, 32]), ["plane"], [8, 32], 140))
    assert "same Brownian path" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("scale", "status", "words"), [(1.05, 1, "1 of them for the worse"), (None, 0, "noise")])
def test_what_paths_do_not_tell_apart_is_noise(
    scale: float | None, status: int, words: str, measured: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The same paths and a twentieth more of each is worse; other paths of the same law are not."""
    old = measured["ddpm"]
    last = old["points"][-1]
    if scale is None:
        new = numbers(measure(replace(cells("work", "ddpm")[0], seed=5), 0.15)) | {"seconds": 1.0}
    else:
        more = {k: last[k] * scale for k in ("error", "low", "high")} | {"starts": [scale * v for v in last["starts"]]}
        new = {**old, "points": [*old["points"][:-1], {**last, **more}]}
    console = Console(width=140, file=io.StringIO())
    folders = written(tmp_path / "a", [old]), written(tmp_path / "b", [new])
    assert compare.compare_runs(*folders, console) == status
    assert words in console.file.getvalue()  # type: ignore[attr-defined]
