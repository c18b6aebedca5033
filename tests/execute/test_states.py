"""States of every dtype, layout and size; saved states, callbacks, and what a failed solve leaves."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.execute import run as run_module
from sdekit.plan import interpret_all
from tests.execute.cases import TableNoise, data, fitting, model, network, reference, solver_plan
from tests.kinds import plan_kinds

PROCESS = sdekit.VP()
TIMES = [0.9, 0.62, 0.41, 0.3, 0.17, 0.08]
X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def solve(name, x, net=None, **options):
    times = options.pop("times", TIMES)
    plan = solver_plan(name, PROCESS, times)
    return sdekit.solve(
        sdekit.Model(net or network(PROCESS, "data"), PROCESS, "data"), x, times, plan, noise=TableNoise(), **options
    )


def half_error(dtype):
    """The error of 400 small steps towards a constant, relative, against float64."""
    times = torch.linspace(0.9, 0.02, 401, dtype=torch.float64).tolist()
    plan = sdekit.solvers.get("dpmpp_2m").plan(PROCESS, times)
    x = torch.linspace(0.5, 2.0, 16, dtype=torch.float64).reshape(4, 4).to(dtype)
    constant = torch.full((4, 4), 1.25)  # exact in every dtype

    def run(start):
        net = lambda x, t: constant.to(x.dtype)  # noqa: E731
        return sdekit.solve(sdekit.Model(net, PROCESS, "data"), start, times, plan).x

    got, want = run(x), run(x.double())
    assert got.dtype == dtype
    return float(((got.double() - want) / want).abs().max())


HALVES = {torch.float16: 2**-11, torch.bfloat16: 2**-8}


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_accumulated_in_float32(dtype, monkeypatch):
    """All that is left of the error is the rounding of the result, half a unit in the last place."""
    bound = HALVES[dtype] * 1.02
    assert half_error(dtype) <= bound
    monkeypatch.setattr(run_module, "compute_dtype", lambda given: given)
    assert half_error(dtype) > 3 * bound


def test_float32_against_float64():
    for name in plan_kinds():
        times = fitting(name, TIMES)
        want = solve(name, X, times=times).x
        got = solve(name, X.float(), times=times).x
        assert got.dtype == torch.float32
        assert float((got.double() - want).abs().max()) <= 1e-5 * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("name", plan_kinds())
def test_layouts_change_no_bit(name):
    base = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for x in (base.transpose(1, 2), base[::2], base[:, :, ::2], base[:1].expand(3, 4, 5), base[:, :1].expand(6, 3, 5)):
        before = x.clone()
        assert torch.equal(solve(name, x).x, solve(name, x.contiguous()).x)
        assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1,), (5,), (2, 1, 1, 1, 1)])
def test_sizes(shape):
    x = torch.ones(shape, dtype=torch.float64)
    for name in ("dpmpp_2m", "edm_heun", "dpmpp_2m_sde"):
        got = solve(name, x)
        assert got.x.shape == shape
        assert torch.allclose(got.x, reference(solver_plan(name, PROCESS, TIMES), x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", plan_kinds())
def test_grad_modes_agree(name):
    want = reference(solver_plan(name, PROCESS, TIMES), X)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            x = X.clone()
            got = solve(name, x).x
            assert torch.allclose(got, want, rtol=0, atol=1e-12) and torch.equal(x, X)


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", plan_kinds())
def test_results_never_share_memory_with_the_start(name, mode, requires_grad):
    x = X.clone().requires_grad_(requires_grad)
    with mode():
        got = solve(name, x, save="all")
    for result in (got.x, got.xs):
        assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert torch.equal(x.detach(), X)


@pytest.mark.parametrize("name", plan_kinds())
def test_saved_states(name):
    plan, noise = solver_plan(name, PROCESS, TIMES), TableNoise()
    states = interpret_all(plan, lambda row, x: data(row.t, x), X, lambda step, stream: noise.table(X, step, stream))
    everything = solve(name, X, save="all")
    assert everything.t.tolist() == TIMES
    assert torch.allclose(everything.xs, torch.stack(states), rtol=0, atol=1e-12)
    some = solve(name, X, save=[0.41, 0.9])
    assert some.t.tolist() == [0.9, 0.41]
    assert torch.equal(some.xs, everything.xs[[0, 2]])


@pytest.mark.parametrize("name", plan_kinds())
def test_callbacks_see_copies_and_stop(name):
    everything, seen = solve(name, X, save="all"), []

    def callback(info):
        seen.append((info.i, info.t, info.t_next, info.x.clone()))
        info.x.fill_(torch.nan)
        return info.i == 2

    got = solve(name, X, callback=callback)
    assert [entry[:3] for entry in seen] == [(i, TIMES[i], TIMES[i + 1]) for i in range(3)]
    assert all(torch.equal(entry[3], everything.xs[i + 1]) for i, entry in enumerate(seen))
    assert torch.equal(got.x, everything.xs[3])
    assert got.steps.tolist() == [3] * 4


def test_denoised_is_the_data_prediction():
    for prediction in ("data", "noise", "v", "edm"):
        process = sdekit.EDM() if prediction == "edm" else PROCESS
        points, denoised = [], []
        m = model(process, prediction)
        inner = m.net
        m.net = lambda x, t, inner=inner, points=points: points.append(x.clone()) or inner(x, t)
        sdekit.solve(m, X, TIMES, "ddim", callback=lambda info, denoised=denoised: denoised.append(info.denoised))
        for t, point, got in zip(TIMES, points, denoised, strict=False):
            if prediction == "edm":
                point = point * (t**2 + 0.25) ** 0.5
            assert torch.allclose(got, data(t, point), rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [*plan_kinds(), "edm_heun with churn"])
def test_a_failure_leaves_the_state_at_the_last_grid_time(solver, monkeypatch):
    """Whatever the call that fails, what is left is bit for bit the state that the whole run had at that time."""
    name, _, churn = solver.partition(" ")
    plan = (
        sdekit.solvers.get("edm_heun", churn=3.0).plan(PROCESS, TIMES) if churn else solver_plan(name, PROCESS, TIMES)
    )
    net = network(PROCESS, "data")

    def run(fails_at, **options):
        calls = iter(range(10**6))

        def failing(x, t):
            return net(x, t).fill_(torch.nan) if next(calls) == fails_at else net(x, t)

        return sdekit.solve(sdekit.Model(failing, PROCESS, "data"), X, TIMES, plan, noise=TableNoise(), **options)

    states = run(-1, save="all").xs

    def wrong():
        count = 0
        for k, row in enumerate(plan.rows):
            with pytest.raises(sdekit.errors.NonFiniteError) as caught:
                run(k)
            assert caught.value.partial.t == TIMES[row.step] and caught.value.partial.nfe == k
            count += not torch.equal(caught.value.partial.x, states[row.step])
        return count

    assert wrong() == 0
    if churn:  # the mutant: no copy where the kick is about to overwrite the state
        monkeypatch.setattr(run_module._Machine, "snapshot", lambda self, x: x)
        assert wrong() > 0
