"""The steps are those of the released k-diffusion, where that is installed."""

from __future__ import annotations

import pytest

import sdekit
from benchmarks import compare_kdiffusion, peers


@pytest.fixture
def sampling():
    module = peers.kdiffusion_sampling()
    if module is None:
        pytest.skip("k-diffusion is not installed; make bench-speed installs it")
    return module


@pytest.mark.parametrize("append_zero", [True, False])
@pytest.mark.parametrize("method", compare_kdiffusion.METHODS)
def test_same_steps(sampling, method, append_zero):
    for process in (sdekit.EDM(), sdekit.VP(beta_max=30.0)):
        assert compare_kdiffusion.difference(sampling, method, process, append_zero, 6) <= compare_kdiffusion.BOUND


PLANTED = {
    "dpmpp_2m": {"second": "exact"},
    "edm_heun, churn 5": {"churn": 5.001},
    "dpmpp_2m_sde, midpoint": {"eta": 1.0001},
    "heun": {"clock": "t"},
    "dpm_solver_2": {"r1": 0.5001},
    "dpmpp_2s": {"second": "exact"},
    "dpmpp_3m, as released": {"as_released": False},
    "dpmpp_3m_sde, as released": {"as_released": False},
    "euler_ancestral": {"eta": 0.9999},
    "lms": {"order": 3},
    "deis, rho, order 3": {"clock": "lambda"},
    "dpm_2_ancestral": {"eta": 0.9999},
    "dpmpp_2s_ancestral": {"s_noise": 1.0001},
    "dpmpp_sde": {"r1": 0.5001},
}


@pytest.mark.parametrize("method", PLANTED)
def test_another_method_is_told_apart(sampling, method, monkeypatch):
    name, options, *rest = compare_kdiffusion.METHODS[method]
    monkeypatch.setitem(compare_kdiffusion.METHODS, method, (name, options | PLANTED[method], *rest))
    process = sdekit.VP(beta_max=30.0)
    assert compare_kdiffusion.difference(sampling, method, process, False) > 100 * compare_kdiffusion.BOUND


def test_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setattr(compare_kdiffusion, "kdiffusion_sampling", lambda: None)
    assert compare_kdiffusion.main() == 2
    assert "pip install --no-deps -r benchmarks/requirements-peers.txt" in capsys.readouterr().out
