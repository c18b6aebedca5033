"""Errors at numbers of calls and at tolerances, of other libraries too, against the exact flow and exact laws."""

from __future__ import annotations

import math
import sys
import tomllib

import pytest
import torch

import sdekit
from sdekit.bench import peers
from sdekit.bench.cells import expand
from sdekit.bench.curves import merged
from sdekit.bench.measure import measure
from sdekit.bench.peers import base
from sdekit.bench.suite import Suite
from sdekit.bench.summary import summarise, work_spots
from sdekit.errors import UnknownNameError

TEXT = """
name = "mine"
description = "a few of each"
[processes]
edm = { make = "EDM" }
[targets]
mixture = { make = "random_mixture", options = { dim = 3, components = 3, seed = 1, std = [0.3, 0.6] } }
[[work]]
target = "mixture"
process = "edm"
grid = ["karras", "half_log_snr"]
half_log_snr = [-2.0, 2.0]
calls = [9, 40]
samples = 6
solvers = [{ solver = "ddim" }, { solver = "heun" }, { solver = "dpmpp_2m_sde" }]
peers = ["k-diffusion:euler", "k-diffusion:dpmpp_2m_sde"]
tolerances = [1e-3, 1e-6]
adaptive = [{ solver = "rk45" }, { solver = "torchdiffeq:dopri5" }]
[[work]]
target = "mixture"
process = "edm"
grid = "karras"
half_log_snr = [-2.0, 2.0]
calls = [20]
kinds = ["weak"]
solvers = [{ solver = "exp_adams" }, { solver = "dpmpp_2m_sde" }]
stochasticity = [0.0, 0.5, 1.0]
"""


def suite(text: str = TEXT) -> Suite:
    return Suite.model_validate(tomllib.loads(text))


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return [measure(cell, 0.15) for cell in expand(suite())]


def of(results: list[dict], solver: str, grid: str) -> dict:
    (found,) = [r for r in results if r["solver"] == solver and r["grid"] == grid]
    return found


def test_what_is_measured(results):
    flows, laws = ["ddim", "heun", "k-diffusion:euler"], ["dpmpp_2m_sde", "k-diffusion:dpmpp_2m_sde"]
    each = [(name, grid) for grid in ("karras", "half_log_snr") for name in flows + laws]
    own = [("rk45, adaptive", "own steps"), ("torchdiffeq:dopri5, adaptive", "own steps")]
    # A name that implies its stochasticity takes no other.
    laws = [(f"exp_adams, tau {tau}", "karras") for tau in ("0", "0.5", "1")]
    assert sorted((r["solver"], r["grid"]) for r in results) == sorted(each + own + laws)


def test_the_errors_are_those_of_solve(results):
    given = sdekit.testing.OrderProblem(
        "", sdekit.EDM(), sdekit.targets.random_mixture(3, 3, 1, std=(0.3, 0.6)), -2.0, 2.0, 6
    )
    point = of(results, "heun", "karras")["points"][0]
    end = sdekit.solve(given.model, given.starts(), given.grid("karras", 4), "heun").x
    exact = given.exact()
    assert (point["steps"], point["calls"]) == (4, 8)
    assert point["error"] == pytest.approx(float((end - exact).norm() / exact.norm()), rel=1e-12)


def test_errors_over_starts_have_intervals_and_those_of_laws_none(results):
    measured = [r for r in results if r["status"] == "ok"]  # other libraries may be missing
    assert {r["kind"] for r in measured} == {"deterministic", "weak"}
    for r in measured:
        for p in r["points"]:
            if r["kind"] == "weak":
                assert p["error"] > 0 and p["low"] is p["high"] is p["starts"] is None
            else:
                assert 0 < p["low"] < p["error"] < p["high"]
                assert len(p["starts"]) == 6
                assert math.hypot(*p["starts"]) / 6**0.5 == pytest.approx(p["error"], rel=1e-3)


def test_other_libraries_share_a_curve_with_what_is_the_same(results):
    if base.installed("k-diffusion") is None:
        pytest.skip("k-diffusion is not installed")
    on_karras = [r for r in results if r["grid"] == "karras"]
    names = [names for names, _, _ in merged([r for r in on_karras if r["kind"] == "deterministic"])]
    assert ["ddim", "k-diffusion:euler"] in names and ["heun"] in names
    names = [names for names, _, _ in merged([r for r in on_karras if "dpmpp_2m_sde" in r["solver"]])]
    assert names == [["dpmpp_2m_sde", "k-diffusion:dpmpp_2m_sde"]]


def test_tolerances_bring_the_error_down(results):
    for name in ("rk45, adaptive", "torchdiffeq:dopri5, adaptive"):
        coarse, fine = of(results, name, "own steps")["points"]
        assert fine["error"] < 1e-4 < coarse["error"] * 10 < 1 and fine["calls"] > coarse["calls"] > 6


def test_the_law_at_each_stochasticity_is_the_plan_s(results):
    given = sdekit.targets.random_mixture(3, 3, 1, std=(0.3, 0.6))
    variances, axes = torch.linalg.eigh(given.cov)
    mean = given.mean @ axes
    edm, solver = sdekit.EDM(), sdekit.solvers.get("exp_adams")
    times = sdekit.grids.karras(edm, 20, t_start=float(edm.time_at(-2.0)), t_end=float(edm.time_at(2.0)))
    for tau in (0.0, 0.5, 1.0):
        law = solver.plan(edm, times, tau).gaussian_moments(mean, variances)
        exact = variances + times[-1] ** 2
        squared = ((law.mean - mean) ** 2 + (law.cov.sqrt() - exact.sqrt()) ** 2).sum()
        error = float((squared / (mean**2 + exact).sum()).sqrt())
        assert of(results, f"exp_adams, tau {tau:g}", "karras")["points"][0]["error"] == pytest.approx(error, rel=1e-9)


def test_a_library_that_is_missing_is_a_skipped_row(monkeypatch):
    monkeypatch.setattr(base, "installed", lambda package: None)
    cells = [c for c in expand(suite()) if c.variant.solver == "k-diffusion:euler"]
    results = [measure(cell, 0.15) for cell in cells]
    assert {r["status"] for r in results} == {"skipped"} and "pip install" in results[0]["message"]
    (line,) = summarise(results, 0.15, [9])
    assert line.verdict == "skipped" and not line.failed


def test_solvers_of_other_packages_say_which(results):
    found = {r["solver"]: r.get("package", "") for r in results if r["grid"] == "own steps"}
    assert found["rk45, adaptive"] == "" and found["torchdiffeq:dopri5, adaptive"].startswith("torchdiffeq 0.")


def test_a_solver_whose_package_is_missing_is_a_skipped_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchode", None)
    cells = expand(suite(TEXT.replace('"torchdiffeq:dopri5"', '"torchode:tsit5"')))
    (cell,) = [c for c in cells if c.variant.solver == "torchode:tsit5"]
    result = measure(cell, 0.15)
    assert result["status"] == "skipped" and "pip install 'sdekit[peers]'" in result["message"]


def test_errors_stand_under_the_place_where_a_target_has_several(results):
    spots = work_spots(results)
    assert spots["mixture", "edm", "karras"] == "mixture, edm, karras"
    assert work_spots([r for r in results if r["grid"] != "half_log_snr"])["mixture", "edm", "karras"] == "mixture"


def test_names_that_nothing_matches_are_faults_of_the_suite():
    with pytest.raises(UnknownNameError, match=r"work\.0\.peers\.0.*k-diffusion:euler"):
        expand(suite(TEXT.replace('"k-diffusion:euler",', '"k-diffusion:eulerr",')))
    assert set(peers.PEERS) >= {"k-diffusion:euler", "azula:DDIM", "diffusers:UniPCMultistep(3)"}
