"""The steps are those of the released diffusers at the same start-up and last step, where that is installed."""

from __future__ import annotations

import pytest

from benchmarks import compare_diffusers, peers

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own


@pytest.fixture(autouse=True)
def installed(request):
    if "monkeypatch" not in request.fixturenames and peers.installed("diffusers") is None:
        pytest.skip("diffusers is not installed; make bench-speed installs it")


@pytest.mark.parametrize("method", compare_diffusers.METHODS)
def test_same_steps(method):
    assert compare_diffusers.difference(method, 6) <= compare_diffusers.BOUND


PLANTED = {
    "dpmpp_2m, order 1 last": {"final_order": None},
    "dpmpp_3m, as released": {"as_released": False},
    "dpm_solver_2": {"second": "exact"},
    "dpmpp_2s": {"r1": 0.51},
    "dpm_solver_3, parabola": {"third": "line"},
    "unipc, order 2, bh2, data": {"variant": "bh1"},
    "unipc, order 3, bh1, noise": {"corrector": "none"},
    "unipc, order 5, bh2, data": {"order": 4},
    "euler_ancestral": {"eta": 0.99},
    "deis, order 3": {"clock": "t"},
    "lms": {"order": 3},
}


@pytest.mark.parametrize("method", PLANTED)
def test_another_method_is_told_apart(method):
    chosen = compare_diffusers.METHODS[method]
    other = chosen._replace(options=chosen.options | PLANTED[method])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compare_diffusers.METHODS, method, other)
        assert compare_diffusers.difference(method, 6) > 10 * compare_diffusers.BOUND


def test_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setattr(compare_diffusers, "installed", lambda name: None)
    assert compare_diffusers.main() == 2
    assert "pip install -c constraints.txt -e '.[peers]'" in capsys.readouterr().out
