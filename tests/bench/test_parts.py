"""Errors in parts and the Gaussian protocol: as `sdekit.metrics` gives them, and on the page."""

from __future__ import annotations

import tomllib
from dataclasses import asdict

import pytest
import torch

import sdekit
from sdekit import metrics, targets
from sdekit.bench import parts_page
from sdekit.bench.cells import expand
from sdekit.bench.measure import measure
from sdekit.bench.suite import Suite
from sdekit.bench.summary import summarise

TEXT = """
name = "mine"
description = "parts"
[processes]
edm = { make = "EDM" }
[targets]
mixture = { make = "random_mixture", options = { dim = 3, components = 3, seed = 1, std = [0.3, 0.6] } }
[[parts]]
target = "mixture"
process = "edm"
grid = "karras"
half_log_snr = [-2.0, 2.0]
calls = [1, 12]
samples = 16
solvers = [{ solver = "heun" }, { solver = "exp_adams" }]
stochasticity = [0.5]
[[protocol]]
target = "mixture"
calls = [20, 40]
truncations = [0.0, 1e-2]
"""


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return [measure(cell, 0.15) for cell in expand(Suite.model_validate(tomllib.loads(TEXT)))]


def test_the_cells(results):
    assert [(r["what"], r["solver"], r["kind"], r["status"]) for r in results] == [
        ("parts", "heun", "deterministic", "ok"),
        ("parts", "exp_adams", "deterministic", "ok"),
        ("parts", "exp_adams, tau 0.5", "weak", "ok"),
        ("protocol", "Gaussian protocol", "weak", "ok"),
        ("protocol", "Gaussian protocol", "weak", "ok"),
    ]
    assert not summarise(results, 0.15, [10])


def test_parts_are_those_of_decompose(results):
    edm, mixture = sdekit.EDM(), targets.random_mixture(3, 3, 1, std=(0.3, 0.6))
    ends = {"t_start": float(edm.time_at(-2.0)), "t_end": float(edm.time_at(2.0))}
    none, twelve = results[0]["points"]
    assert none["parts"] is None and twelve["calls"] == 12
    expected = metrics.decompose(mixture, edm, "heun", sdekit.grids.karras(edm, 6, **ends), samples=16, seed=0)
    assert twelve["parts"] == asdict(expected)
    variances, axes = torch.linalg.eigh(mixture.cov)
    gaussian = targets.gaussian(mixture.mean @ axes, variances)
    expected = metrics.decompose(
        gaussian, edm, "exp_adams", sdekit.grids.karras(edm, 12, **ends), stochasticity=0.5, samples=16
    )
    found = results[2]["points"][1]["parts"]
    assert found.pop("measure") == expected.measure == "W2"
    assert found == pytest.approx({k: v for k, v in asdict(expected).items() if k != "measure"}, rel=1e-9)


def test_the_protocol_is_that_of_the_covariance(results):
    spectrum = torch.linalg.eigvalsh(targets.random_mixture(3, 3, 1, std=(0.3, 0.6)).cov)
    rows = metrics.gaussian_protocol(spectrum=spectrum, calls=[40], truncations=[0.0, 1e-2])
    assert results[-1]["rows"] == [asdict(row) for row in rows]


def test_the_page_shows_both_and_is_inert(results):
    hostile = [{**results[0], "target": "<img src=x onerror=alert(1)>"}, results[-1]]
    text = parts_page.sections(hostile)
    assert "<img" not in text and "&lt;img" in text
    assert 'id="parts"' in text and 'id="protocol"' in text and "SDE EM" in text
    assert parts_page.links(results).count("href") == 2
    assert parts_page.sections([]) == parts_page.links([]) == ""
