"""Adaptive steps: accuracy, landing, statistics, and samples that do not know of each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sdekit
from sdekit import control
from sdekit.control import attempt
from sdekit.solution import Status

NAMES = ["bosh3", "rk45", "tsit5", "dop853"]


class Recorded(sdekit.ODE):
    """dx/dt = -t x + sin(3 t): elementwise. Keeps the times and the sizes of its batches."""

    def __init__(self):
        self.times, self.sizes = [], []

    def drift(self, t, x):
        self.times += t.flatten().tolist()
        self.sizes.append(len(x))
        return torch.sin(3 * t) - t * x


class Rational(sdekit.ODE):
    """x' = x / (1 + x^2) - t x / 4: correctly rounded operations only, so that rows ignore the batch to the bit."""

    def drift(self, t, x):
        return x / (1 + x * x) - x * (t / 4)


def start(batch=5, size=3, dtype=torch.float64, scale=1.0):
    return (scale * torch.randn(batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).to(dtype)


def reference(x, times, ode=None):
    f = (ode or Recorded()).drift
    y = solve_ivp(
        lambda t, y: f(torch.tensor(t, dtype=torch.float64), torch.from_numpy(y)[None])[0].numpy(),
        times,
        x.double().numpy().ravel(),
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    ).y[:, -1]
    return torch.from_numpy(y).reshape(x.shape)


@pytest.mark.parametrize("times", [(0.0, 3.0), (0.0, -3.0)])
@pytest.mark.parametrize("name", NAMES)
def test_errors_are_proportional_to_the_tolerance(name, times):
    x, truth = start(), reference(start(), times)
    calls, errors = [], []
    for tol in (1e-4, 1e-6, 1e-8) if name == "bosh3" else (1e-4, 1e-6, 1e-8, 1e-10):
        s = sdekit.solve(Recorded(), x, times, name, rtol=tol, atol=tol)
        assert s.success and s.route == "step"
        errors.append(float((s.x - truth).abs().max()))
        calls.append(int(s.nfe.max()))
        assert errors[-1] <= 30 * tol
    assert errors == sorted(errors, reverse=True) and calls == sorted(calls)
    assert errors[-1] >= 1e-4 * tol  # not by wasting calls


@pytest.mark.parametrize(("name", "method"), [("bosh3", "RK23"), ("rk45", "RK45"), ("dop853", "DOP853")])
def test_calls_and_errors_are_like_those_of_scipy(name, method):
    """The same tableaus and error estimates: with the elementary controller about as many calls at one tolerance."""
    x, times = start(1, 3), (0.0, 4.0)
    ours = sdekit.solve(Recorded(), x, times, sdekit.solvers.get(name, controller="i"), rtol=1e-6, atol=1e-6)
    f = Recorded().drift
    theirs = solve_ivp(
        lambda t, y: f(torch.tensor(t, dtype=torch.float64), torch.from_numpy(y)[None])[0].numpy(),
        times,
        x[0].numpy(),
        method=method,
        rtol=1e-6,
        atol=1e-6,
    )
    assert abs(int(ours.nfe[0]) - theirs.nfev) <= 0.15 * theirs.nfev
    truth = reference(x, times)
    errors = [float((y - truth[0]).abs().max()) for y in (ours.x[0], torch.from_numpy(theirs.y[:, -1]))]
    assert 0.2 < errors[0] / errors[1] < 5


def test_wrong_error_weights_are_noticed(monkeypatch):
    """The mutant: weights a thousandth as large. The error is no longer of the tolerance's size."""
    x, truth, tol = start(), reference(start(), (0.0, 4.0)), 1e-6
    good = sdekit.solve(Recorded(), x, (0.0, 4.0), "rk45", rtol=tol, atol=tol)
    plain = attempt.Scheme.__init__

    def small(self, pair):
        plain(self, pair)
        self.estimates = self.estimates * 1e-3

    monkeypatch.setattr(attempt.Scheme, "__init__", small)
    bad = sdekit.solve(Recorded(), x, (0.0, 4.0), "rk45", rtol=tol, atol=tol)
    assert float((good.x - truth).abs().max()) < 30 * tol < float((bad.x - truth).abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("times", [(0.1, 0.7, 1.3), (1.3, 0.7, 0.1), (-0.3, 0.2, 0.9)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_evaluated_outside_and_times_are_landed_on(name, times, dtype):
    ode, x = Recorded(), start(dtype=dtype)
    wanted = [times[0] + 0.37 * (times[-1] - times[0])]
    s = sdekit.solve(ode, x, times, name, rtol=1e-5, atol=1e-5, save=[*times, *wanted])
    assert min(times) <= min(ode.times) and max(ode.times) <= max(times)
    assert s.t.tolist() == sorted({*times, *wanted}, reverse=times[-1] < times[0])
    for t in (*times, *wanted):  # evaluated at the time itself: none of the states is interpolated
        nearest = min(abs(t - seen) for seen in ode.times)
        assert nearest <= (0 if dtype == torch.float64 else np.spacing(np.float32(abs(t))))
    for t, state in zip(s.t.tolist()[1:], s.xs[1:], strict=True):
        assert float((state.double() - reference(x, (times[0], t))).abs().max()) < 2e-3
    assert torch.equal(s.xs[-1], s.x) and torch.equal(s.xs[0], x)
    every = sdekit.solve(ode, x, times, name, rtol=1e-5, atol=1e-5, save="all")
    assert every.t.tolist() == list(times)


def test_a_step_past_the_end_is_noticed(monkeypatch):
    """The mutant: torchdiffeq's way, a full step past the end."""
    plain = control.ODEField.nodes
    monkeypatch.setattr(
        control.ODEField, "nodes", lambda self, u, step, *rest: plain(self, u + 1e-9 * (u == 1.3), step, *rest)
    )
    ode = Recorded()
    sdekit.solve(ode, start(), (0.1, 1.3), "rk45", rtol=1e-5, atol=1e-5)
    assert max(ode.times) > 1.3


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_counted_and_first_slopes_reused(name):
    """Two calls at the start; then each attempt costs one call less than slopes, its first being known: after a
    rejection too. dop853 needs its end's slope only where the step is accepted and not the last."""
    ode, x = Recorded(), start(1)
    s = sdekit.solve(ode, x, (0.0, 6.0), sdekit.solvers.get(name, controller="i"), rtol=1e-6, atol=1e-6)
    steps, rejected = int(s.steps[0]), int(s.rejected[0])
    assert rejected >= 3 and int(s.nfe[0]) == len(ode.sizes)
    stages = {"bosh3": 3, "rk45": 6, "tsit5": 6, "dop853": 11}[name]
    assert int(s.nfe[0]) == 2 + stages * (steps + rejected) + (steps - 1 if name == "dop853" else 0)


def test_a_slope_asked_for_again_is_noticed(monkeypatch):
    """The mutant: the first slope is asked for again after a rejection. The count of calls says so."""
    plain = control.loop._Loop.advance_most

    def again(self, bad, step, error, u_end, new, end, nodes):
        plain(self, bad, step, error, u_end, new, end, nodes)
        self.calls(self.field.start(1)[0], self.active.x)

    monkeypatch.setattr(control.loop._Loop, "advance_most", again)
    solver = sdekit.solvers.get("rk45", controller="i")
    s = sdekit.solve(Recorded(), start(1), (0.0, 6.0), solver, rtol=1e-6, atol=1e-6)
    assert int(s.nfe[0]) == 2 + 6 * int(s.steps[0] + s.rejected[0]) + int(s.rejected[0]) and int(s.rejected[0]) > 0


def test_a_wrong_slope_after_a_rejection_is_noticed(monkeypatch):
    """The mutant: the slope at the rejected end serves as the next first one."""
    solver, f = sdekit.solvers.get("rk45", controller="i"), Recorded().drift
    plain, seen = control.loop._Loop.advance_most, []

    def wrong(self, bad, step, error, u_end, new, end, nodes):
        plain(self, bad, step, error, u_end, new, end, nodes)
        t = torch.from_numpy(self.field.times(self.active.u))[:, None]
        seen.append(float((self.active.slope - f(t, self.active.x)).abs().max()))
        self.active.slope = end
        seen.append(float((self.active.slope - f(t, self.active.x)).abs().max()))

    monkeypatch.setattr(control.loop._Loop, "advance_most", wrong)
    sdekit.solve(Recorded(), start(1), (0.0, 1.0), solver, rtol=1e-6, atol=1e-6)
    assert len(seen) >= 2 and seen[0] < 1e-13 and seen[1] > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_samples_that_have_arrived_cost_nothing(name):
    """The batch shrinks: all rows of all calls are as many as the samples' own calls."""
    ode = Recorded()
    x = start(40) * torch.logspace(-3, 3, 40, dtype=torch.float64)[:, None]
    s = sdekit.solve(ode, x, (0.0, 4.0), name, rtol=1e-7, atol=1e-7)
    assert sum(ode.sizes) == int(s.nfe.sum()) and len(set(s.nfe.tolist())) > 1
    assert ode.sizes[0] == 40 > ode.sizes[-1]
    whole = Recorded()
    kept = sdekit.solve(whole, x, (0.0, 4.0), sdekit.solvers.get(name, compact=False), rtol=1e-7, atol=1e-7)
    assert set(whole.sizes) == {40}
    for a, b in ((kept.x, s.x), (kept.steps, s.steps), (kept.rejected, s.rejected)):
        assert torch.equal(a, b)
    assert torch.equal(kept.nfe, s.nfe) or name == "dop853"  # whose slopes at the ends are then asked for of all


def mixed(batch=13, size=5):
    return start(batch, size) * torch.logspace(-4, 4, batch, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("controller", ["cautious", "i", "pi", "pid", "pi33", "h211pi", "h211b"])
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_know_of_the_others(name, controller):
    x, solver = mixed(), sdekit.solvers.get(name, controller=controller)
    options = {"rtol": 1e-6, "atol": 1e-9, "on_failure": "mask"}
    whole = sdekit.solve(Rational(), x, (0.0, 5.0), solver, save=[2.0, 5.0], **options)
    assert whole.success
    for part in ([0], [12], [3, 11, 5], [12, 0, 1, 2, 4, 6]):
        s = sdekit.solve(Rational(), x[part], (0.0, 5.0), solver, save=[2.0, 5.0], **options)
        assert torch.equal(s.x, whole.x[part]) and torch.equal(s.xs, whole.xs[:, part])
        for field in ("nfe", "steps", "rejected"):
            assert torch.equal(getattr(s, field), getattr(whole, field)[part])
    x[4, 2] = math.nan
    s = sdekit.solve(Rational(), x, (0.0, 5.0), solver, save=[2.0, 5.0], **options)
    others = [i for i in range(13) if i != 4]
    assert torch.equal(s.x[others], whole.x[others]) and s.status.tolist() == [int(i == 4) for i in range(13)]
    assert s.x[4].isnan().all() and torch.equal(s.nfe[others], whole.nfe[others])


@pytest.mark.parametrize("process", [sdekit.VP(), sdekit.VPCosine(), sdekit.RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_nor_does_one_on_the_flow_of_a_model(name, process):
    """Its times come from the process, whose functions must not know of the batch either."""
    model, x = (
        sdekit.Model(lambda x, t: x / (1 + x * x), process, "noise"),
        process.sample_prior((37, 2), seed=0, dtype=torch.float64),
    )
    options = {"rtol": 1e-6, "on_failure": "mask"}
    whole = sdekit.solve(model, x, (0.999, 1e-3), name, **options)
    assert whole.success
    for sizes in ([1, 1, 35], [7, 30], [32, 5]):
        parts = [sdekit.solve(model, part, (0.999, 1e-3), name, **options).x for part in x.split(sizes)]
        assert torch.equal(torch.cat(parts), whole.x)


def test_a_norm_over_the_batch_is_noticed(monkeypatch):
    """The mutant: one error for all samples, as in torchdiffeq."""
    x, options = mixed(), {"rtol": 1e-6, "atol": 1e-9}
    alone = sdekit.solve(Rational(), x[:1], (0.0, 5.0), "rk45", **options)
    plain = attempt.Norm.rows
    monkeypatch.setattr(
        attempt.Norm, "rows", lambda self, scaled: np.full(len(scaled), np.sqrt(np.mean(plain(self, scaled) ** 2)))
    )
    whole = sdekit.solve(Rational(), x, (0.0, 5.0), "rk45", **options)
    assert not torch.equal(whole.x[:1], alone.x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 3), (7, 2, 5, 3), (300, 40)])
@pytest.mark.parametrize("name", NAMES)
def test_arrays_and_tensors_agree_to_the_bit(name, shape, dtype, monkeypatch):
    """Small states without gradients go through NumPy, others through PyTorch."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = []
    for small in (2**30, -1):
        monkeypatch.setattr(control.loop, "_SMALL", small)
        with torch.no_grad():
            found.append(sdekit.solve(Rational(), x, (0.0, 3.0), name, rtol=1e-5, atol=1e-5))
    assert torch.equal(found[0].x, found[1].x) and torch.equal(found[0].nfe, found[1].nfe)


@pytest.mark.parametrize("name", ["rk45", "dop853"])
def test_gradients_are_right(name):
    def solve(x, k):
        ode = sdekit.make_ode(lambda t, y: torch.sin(t) - k * y * y)
        return sdekit.solve(ode, x, (0.0, 1.0), name, rtol=1e-9, atol=1e-9, save=[0.5, 1.0]).xs

    x = (start(3, 2).abs() + 0.5).requires_grad_(True)
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solve, (x, k), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_dtypes_keep_their_dtype_and_accuracy(dtype):
    tol = 20 * torch.finfo(dtype).eps
    x = start(4, 3, dtype)
    s = sdekit.solve(Recorded(), x, (0.0, 2.0), "rk45", rtol=tol, atol=tol)
    assert s.x.dtype == dtype and s.success
    assert float((s.x.double() - reference(x, (0.0, 2.0))).abs().max()) < 30 * tol


def test_edge_sizes():
    for shape in ((0, 3), (4, 0), (0,), (1,)):
        s = sdekit.solve(Rational(), torch.zeros(shape, dtype=torch.float64), (0.0, 1.0), "rk45", rtol=1e-6)
        assert s.x.shape == shape and s.nfe.shape == shape[:1] and s.success


def test_callback_sees_all_samples_and_stops():
    seen = []

    def callback(info):
        seen.append(info)
        return info.i == 4

    s = sdekit.solve(Recorded(), start(), (0.0, 4.0), "rk45", rtol=1e-6, callback=callback)
    assert [info.i for info in seen] == [0, 1, 2, 3, 4] and set(s.status.tolist()) == {int(Status.STOPPED)}
    assert all(torch.equal(a.t_next, b.t) for a, b in itertools.pairwise(seen))
    assert seen[0].t.tolist() == [0.0] * 5 and (seen[-1].t_next > seen[0].t_next).all()
    assert torch.equal(seen[-1].x, s.x) and seen[-1].nfe == int(s.nfe.max())


def test_options_change_the_steps():
    x = start(2)
    run = lambda **options: sdekit.solve(  # noqa: E731
        Recorded(), x, (0.0, 4.0), sdekit.solvers.get("rk45", **options), rtol=1e-6, atol=1e-6
    )
    plain = run()
    first = run(first_step=1e-3)
    assert int(first.nfe[0] - 1) % 6 == 0 and not torch.equal(first.x, plain.x)
    for name in ("i", "pi", "dopri5", "pid", "pi33", "h211pi", "h211b"):
        assert not torch.equal(run(controller=name).x, plain.x)
    careful = run(controller=sdekit.solvers.Controller(safety=0.5))
    assert int(careful.steps[0]) > int(plain.steps[0]) and int(careful.rejected[0]) <= int(plain.rejected[0])
    assert not torch.equal(run(error_weights="shampine").x, plain.x)


def test_controllers_are_soederlinds():
    """Elementary control aims at safety times the tolerance; a filter whose exponents sum to 1 does in one step what
    others do in several. Constant errors leave the step at safety times itself, whatever the memory."""
    from sdekit.solvers.controller import CONTROLLERS, Controller

    pid = Controller.pid(0.2, 0.4)
    assert pid.beta == pytest.approx(CONTROLLERS["pi"].beta)
    for controller in CONTROLLERS.values():
        e, step = np.full(2, 1e-2), np.array([0.5, 2.0])
        history = np.stack([np.log(e), np.log(e), step, step])
        found = controller.after_acceptance(e, step, history, 5)
        assert found == pytest.approx(controller.safety * 1e-2 ** (-sum(controller.beta) / 5))
    assert CONTROLLERS["i"].after_rejection(np.array([32.0]), 5) == pytest.approx(0.45)
