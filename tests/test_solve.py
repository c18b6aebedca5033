"""solve: what it records, saves, reports and refuses, on both routes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import VP, Model, grids, targets
from sdekit.errors import InterfaceError, OptionError, SdekitError, SolverMismatchError, UnknownNameError
from sdekit.solution import Status

F64 = torch.float64
TARGET = targets.random_mixture(2, 3, seed=0)
MODEL = TARGET.under(VP())
TIMES = grids.half_log_snr(VP(), 6)
START = MODEL.sample(1.0, 5, seed=1)
BARE = sdekit.make_sde(VP().reverse(MODEL, 1.0).drift, VP().reverse(MODEL, 1.0).diffusion, "scalar", additive=True)


def test_a_model_a_flow_and_a_reverse_are_three_problems_for_one_solver() -> None:
    flow = sdekit.solve(VP().probability_flow(MODEL), START, TIMES, "dpmpp_2m")
    assert torch.equal(sdekit.solve(MODEL, START, TIMES, "dpmpp_2m").x, flow.x)
    reverse = sdekit.solve(VP().reverse(MODEL, 1.0), START, TIMES, "dpmpp_2m", seed=0)
    assert torch.equal(sdekit.solve(MODEL, START, TIMES, "dpmpp_2m_sde", seed=0).x, reverse.x)
    assert not torch.equal(flow.x, reverse.x)
    plan = sdekit.solvers.get("dpmpp_2m").plan(VP(), TIMES)
    assert torch.equal(sdekit.solve(MODEL, START, TIMES, plan).x, flow.x)
    with pytest.raises(SolverMismatchError, match="implies"):
        sdekit.solve(VP().reverse(MODEL, 0.5), START, TIMES, "ddpm", seed=0)
    with pytest.raises(OptionError, match=r"plan\.times"):
        sdekit.solve(MODEL, START, TIMES[:-1], plan)


def test_a_plan_for_another_process_or_a_reweighted_one_is_refused() -> None:
    plan = sdekit.solvers.get("dpmpp_2m").plan(VP(0.1, 19.0), TIMES)
    with pytest.raises(OptionError, match="one process for both"):
        sdekit.solve(MODEL, START, TIMES, plan)


def test_the_flow_comes_out_right(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SDEKIT_CACHE", str(tmp_path))
    got = sdekit.solve(MODEL, START, grids.half_log_snr(VP(), 100, t_end=0.05), "rk4").x
    torch.testing.assert_close(got, MODEL.flow(START, 1.0, 0.05), rtol=1e-5, atol=1e-5)


def test_two_ends_and_steps_take_the_default_grid() -> None:
    by_steps = sdekit.solve(MODEL, START, [1.0, 0.001], "ddim", steps=6)
    assert torch.equal(by_steps.x, sdekit.solve(MODEL, START, TIMES, "ddim").x)
    bare = sdekit.solve(BARE, START, [1.0, 0.5], "euler_maruyama", steps=4, seed=0, save="all")
    torch.testing.assert_close(bare.t, torch.linspace(1.0, 0.5, 5, dtype=F64))
    with pytest.raises(OptionError, match="two ends"):
        sdekit.solve(MODEL, START, TIMES, "ddim", steps=6)


@pytest.mark.parametrize("dynamics, solver", [(MODEL, "ddpm"), (BARE, "euler_maruyama")], ids=["plan", "step"])
class TestBothRoutes:
    def test_the_solution_says_what_was_done(self, dynamics, solver: str) -> None:
        out = sdekit.solve(dynamics, START, TIMES, solver, seed=3)
        assert out.x.shape == START.shape and out.x.dtype == F64 and out.success and "5 sample(s)" in out.message
        assert out.route == ("plan" if dynamics is MODEL else "step")
        for field, value in (("nfe", 6), ("steps", 6), ("rejected", 0), ("status", Status.SUCCESS)):
            assert getattr(out, field).tolist() == [value] * 5 and getattr(out, field).dtype == torch.int64
        assert torch.equal(out.xs, out.x[None]) and out.t.tolist() == [float(TIMES[-1])]

    def test_provenance_repeats_the_solve(self, dynamics, solver: str) -> None:
        torch.manual_seed(8)
        first = sdekit.solve(dynamics, START, TIMES, solver)
        p = first.provenance
        again = sdekit.solve(dynamics, START, p["times"], p["solver"].split("(")[0], seed=p["seed"], noise=p["noise"])
        assert torch.equal(again.x, first.x)
        assert p["dtype"] == "torch.float64" and p["shape"] == (5, 2) and p["versions"]["torch"] == torch.__version__
        assert {"solver", "dynamics", "device", "checks"} <= set(p)

    def test_saved_states(self, dynamics, solver: str) -> None:
        everything = sdekit.solve(dynamics, START, TIMES, solver, seed=3, save="all")
        assert torch.equal(everything.t, TIMES) and everything.xs.shape == (7, 5, 2)
        assert torch.equal(everything.xs[0], START) and torch.equal(everything.xs[-1], everything.x)
        some = sdekit.solve(dynamics, START, TIMES, solver, seed=3, save=[float(TIMES[4]), float(TIMES[1])])
        assert torch.equal(some.xs, everything.xs[[1, 4]]) and torch.equal(some.t, TIMES[[1, 4]])
        assert torch.equal(some.x, everything.x)
        # A prefix of the grid is a prefix of the solve: nothing looks ahead.
        prefix = sdekit.solve(dynamics, START, TIMES[:4], solver, seed=3)
        torch.testing.assert_close(prefix.x, everything.xs[3], rtol=1e-14, atol=1e-14)
        with pytest.raises(OptionError, match="not a grid time"):
            sdekit.solve(dynamics, START, TIMES, solver, seed=3, save=[0.123])
        with pytest.raises(OptionError, match="'all'"):
            sdekit.solve(dynamics, START, TIMES, solver, seed=3, save="al")

    def test_callbacks_see_each_step_and_can_stop(self, dynamics, solver: str) -> None:
        seen: list[Any] = []
        full = sdekit.solve(dynamics, START, TIMES, solver, seed=3, save="all", callback=seen.append)
        assert [(s.i, s.nfe) for s in seen] == [(i, i + 1) for i in range(6)]
        assert [(s.t, s.t_next) for s in seen] == list(zip(TIMES.tolist(), TIMES.tolist()[1:], strict=False))
        for step, x in zip(seen, full.xs[1:], strict=True):
            assert torch.equal(step.x, x)
        if dynamics is MODEL:
            torch.testing.assert_close(
                seen[2].denoised, MODEL.data(float(TIMES[2]), full.xs[2]), rtol=1e-12, atol=1e-12
            )
        stopped = sdekit.solve(dynamics, START, TIMES, solver, seed=3, callback=lambda s: s.i == 2)
        assert stopped.status.tolist() == [Status.STOPPED] * 5 and not stopped.success
        assert torch.equal(stopped.x, full.xs[3]) and stopped.nfe.tolist() == [3] * 5
        # Changing what it is given changes nothing.
        spoiled = sdekit.solve(dynamics, START, TIMES, solver, seed=3, callback=lambda s: s.x.fill_(7.0) is None)
        assert torch.equal(spoiled.x, full.x)

    def test_progress_counts_calls(self, dynamics, solver: str, capsys) -> None:
        class Bar:
            total = 0

            def update(self, n: int) -> None:
                self.total += n

        bar = Bar()
        sdekit.solve(dynamics, START, TIMES, solver, seed=3, progress=bar)
        assert bar.total == 6
        sdekit.solve(dynamics, START, TIMES, solver, seed=3, progress=True)
        assert "6/6" in capsys.readouterr().err
        sdekit.solve(dynamics, START, TIMES, solver, seed=3, progress=False)
        assert capsys.readouterr() == ("", "")
        with pytest.raises(InterfaceError, match="progress"):
            sdekit.solve(dynamics, START, TIMES, solver, seed=3, progress=3)

    def test_seeds(self, dynamics, solver: str) -> None:
        def run(seed: Any, **more: Any) -> Tensor:
            return sdekit.solve(dynamics, START, TIMES, solver, seed=seed, **more).x

        assert torch.equal(run(3), run(3)) and not torch.equal(run(3), run(4))
        assert torch.equal(run(torch.Generator().manual_seed(0)), run(torch.Generator().manual_seed(0)))
        torch.manual_seed(5)
        first, after = run(None), torch.randint(2**60, ())
        torch.manual_seed(5)
        seed = int(torch.randint(0, 2**63 - 1, (1,)))  # one integer is drawn, and it is the seed
        assert torch.equal(torch.randint(2**60, ()), after) and torch.equal(run(seed), first)

    def test_rows_are_keyed_by_their_ids(self, dynamics, solver: str) -> None:
        whole = sdekit.solve(dynamics, START, TIMES, solver, seed=3).x
        ids = torch.tensor([4, 1])
        part = sdekit.solve(dynamics, START[ids], TIMES, solver, seed=3, sample_ids=ids).x
        torch.testing.assert_close(part, whole[ids], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(sdekit.solve(dynamics, START[ids], TIMES, solver, seed=3).x, whole[ids])

    def test_noise_by_name_or_object(self, dynamics, solver: str) -> None:
        plain = [sdekit.solve(dynamics, START, TIMES, solver, seed=s, noise="plain").x for s in (0, 0, 1)]
        assert torch.equal(plain[0], plain[1]) and not torch.equal(plain[0], plain[2])
        calls: list[tuple[int, int]] = []

        def fill(out: Tensor, step: int, stream: int) -> Tensor:
            calls.append((step, stream))
            return out.fill_(0.5)

        x = sdekit.solve(dynamics, START, TIMES, solver, noise=fill).x
        assert calls == [(i, 0) for i in range(6)] and torch.equal(
            x, sdekit.solve(dynamics, START, TIMES, solver, noise=fill).x
        )
        with pytest.raises(UnknownNameError, match="'plain'"):
            sdekit.solve(dynamics, START, TIMES, solver, noise="plane")

    def test_the_start_is_left_as_it_is(self, dynamics, solver: str) -> None:
        x = START.clone()
        out = sdekit.solve(dynamics, x, TIMES, solver, seed=0, save="all")
        assert torch.equal(x, START)
        out.x.zero_()
        assert torch.equal(x, START)

    def test_limits_and_options_are_checked_first(self, dynamics, solver: str) -> None:
        for bad, words in (
            ({"max_nfe": 5}, "max_nfe.*6"),
            ({"rtol": 1.5}, "rtol.*<= rtol < 1"),
            ({"atol": -1.0}, "atol"),
            ({"on_failure": "ignore"}, "on_failure"),
            ({"checks": "ful"}, "'full'"),
            ({"callback": 3}, "callback"),
            ({"sedd": 3}, "'seed'"),
        ):
            with pytest.raises(SdekitError, match=words):
                sdekit.solve(dynamics, START, TIMES, solver, **bad)
        assert sdekit.solve(dynamics, START, TIMES, solver, seed=0, max_nfe=6).success

    def test_deterministic_solves_draw_nothing(self, dynamics, solver: str) -> None:
        ode = VP().probability_flow(MODEL) if dynamics is MODEL else sdekit.make_ode(lambda t, x: -x)
        state = torch.get_rng_state()
        out = sdekit.solve(ode, START, TIMES, "heun")
        assert torch.equal(torch.get_rng_state(), state) and out.provenance["seed"] is None


def test_conditioning_reaches_the_network_at_every_call() -> None:
    seen: list[Any] = []
    model = Model(lambda x, t, label: seen.append(label) or x / 2, VP(), "data")
    sdekit.solve(model, START, TIMES, "heun", label=3)
    sdekit.solve(model.bind(label=4), START, TIMES, "ddim")
    assert seen == [3] * 12 + [4] * 6
    with pytest.raises(UnknownNameError, match="'label'"):
        sdekit.solve(model, START, TIMES, "heun", lable=3)


def test_gradients_follow_the_ambient_mode() -> None:
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    model = Model(lambda x, t: torch.tanh(weight * x), VP(), "data")
    assert sdekit.solve(model, START, TIMES, "dpmpp_2m").x.requires_grad
    with torch.no_grad():
        assert not sdekit.solve(model, START, TIMES, "dpmpp_2m").x.requires_grad
    small = START[:2].clone().requires_grad_()
    for solver in ("dpmpp_2m", "heun", "edm_heun"):
        assert torch.autograd.gradcheck(lambda x, s=solver: sdekit.solve(model, x, TIMES[:4], s).x, (small,))


def test_half_precision_accumulates_in_float32() -> None:
    model = Model(lambda x, t: torch.tanh(x), VP(), "data")
    x = START.bfloat16()
    out = sdekit.solve(model, x, grids.half_log_snr(VP(), 200), "ddim")
    want = sdekit.solve(model, x.double(), grids.half_log_snr(VP(), 200), "ddim").x
    assert out.x.dtype == torch.bfloat16
    assert float((out.x.double() - want).abs().max()) < 0.02
