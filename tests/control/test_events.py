"""Events end a sample where their function changes sign, each sample for itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, ModelOutputError, NonFiniteError, OptionError, SolverMismatchError
from sdekit.solution import Status

FALL = sdekit.make_ode(lambda t, x: torch.stack([x[:, 1], torch.full_like(x[:, 1], -9.81)], -1))
DECAY = sdekit.make_ode(lambda t, x: -x)
X = torch.tensor([[1.0], [2.0], [0.1], [4.0]], dtype=torch.float64)


def below(level: float) -> Any:
    return lambda t, x: x[:, 0] - level


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", ["rk45", "dop853"])
def test_each_sample_ends_at_its_own_event(name, compact):
    solver = sdekit.solvers.get(name, compact=compact)
    s = sdekit.solve(DECAY, X, [0.0, 2.0], solver, rtol=1e-9, event=below(0.5), dense=True)
    assert s.event_t is not None and not s.success and "event" in s.message
    assert s.status.tolist() == [int(Status.EVENT)] * 2 + [0, 0]
    for i, x in enumerate((1.0, 2.0)):
        assert float(s.event_t[i]) == pytest.approx(math.log(x / 0.5), abs=1e-6)
        assert float(s.x[i, 0]) == pytest.approx(0.5, abs=1e-10)
        assert float(s.at(s.event_t.nan_to_num(0.1))[i, 0]) == pytest.approx(float(s.x[i, 0]), abs=1e-12)
    assert bool(s.event_t[2:].isnan().all())
    plain = sdekit.solve(DECAY, X[2:], [0.0, 2.0], solver, rtol=1e-9, event=below(-1.0))
    torch.testing.assert_close(s.x[2:], plain.x, rtol=1e-12, atol=0)
    assert torch.equal(s.nfe[2:], plain.nfe)
    with pytest.raises(OptionError, match="sample 0"):
        s.at(1.5)  # past the end of the first sample


def test_located_on_the_dense_output_to_1e_10():
    """On a parabola the methods are exact: the event is where it should be, whatever the steps."""
    x = torch.tensor([[10.0, 0.0], [20.0, 3.0]], dtype=torch.float64)
    s = sdekit.solve(FALL, x, [0.0, 5.0], "rk45", rtol=1e-3, event=lambda t, x: x[:, 0])
    assert s.event_t is not None
    for i, (h, v) in enumerate(x.tolist()):
        assert float(s.event_t[i]) == pytest.approx((v + math.sqrt(v * v + 2 * 9.81 * h)) / 9.81, abs=1e-10)


def test_downwards_in_time_and_times_in_the_function():
    s = sdekit.solve(DECAY, X, [1.0, 0.0], "tsit5", rtol=1e-9, event=lambda t, x: t.reshape(-1) - 0.25)
    assert s.event_t is not None
    torch.testing.assert_close(s.event_t, torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(s.x, X * math.exp(0.75), rtol=1e-7, atol=0)


def test_an_event_is_no_failure_under_a_mask_and_bad_rows_stay_out():
    x = X.clone()
    x[1] = torch.nan
    s = sdekit.solve(DECAY, x, [0.0, 2.0], "rk45", rtol=1e-6, event=below(0.5), on_failure="mask")
    assert s.status.tolist() == [int(Status.EVENT), int(Status.NON_FINITE), 0, 0]
    assert s.event_t is not None and bool(s.event_t[1].isnan()) and bool(s.x[1].isnan().all())


def test_zero_at_the_start_is_no_event():
    s = sdekit.solve(DECAY, X, [0.0, 1.0], "rk45", rtol=1e-6, event=lambda t, x: t.reshape(-1))
    assert s.success


def test_gradients_at_the_event_hold_its_time():
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    s = sdekit.solve(sdekit.make_ode(lambda t, x: -w * x), X, [0.0, 2.0], "rk45", rtol=1e-9, event=below(0.5))
    (g,) = torch.autograd.grad(s.x[0, 0], w)
    assert s.event_t is not None
    assert float(g) == pytest.approx(-float(s.event_t[0]) * 0.5, rel=1e-6)


def test_what_is_refused():
    def run(event: Any, **options: Any) -> Any:
        return sdekit.solve(DECAY, X, [0.0, 1.0], "rk45", rtol=1e-3, event=event, **options)

    with pytest.raises(InterfaceError, match="event"):
        run(3)
    with pytest.raises(InterfaceError, match="order"):
        run(lambda x, t: x[:, 0])
    with pytest.raises(ModelOutputError, match="one value for each sample"):
        run(lambda t, x: x)
    with pytest.raises(NonFiniteError, match=r"event: got NaN.*sample 0.*Evaluate event\(t, x\)"):
        run(lambda t, x: x[:, 0] * torch.nan)
    with pytest.raises(SolverMismatchError, match="event"):
        sdekit.solve(DECAY, X, [0.0, 1.0], "rk4", steps=4, event=below(0.5))


@pytest.mark.parametrize("clock", ["theta", "rho", "lambda", "t"])
@pytest.mark.parametrize("process", [sdekit.VP(), sdekit.EDM()], ids=["vp", "edm"])
def test_on_the_flow_of_a_model_in_any_clock(process, clock):
    """The flow of a Gaussian of variance v is x(t) = x(T) sqrt((a^2 v + s^2)(t) / (a^2 v + s^2)(T))."""
    model, first, last = sdekit.targets.gaussian(torch.zeros(1), 0.25).under(process), process.t_max, process.t_min

    def size(t: torch.Tensor) -> torch.Tensor:
        return (process.alpha(t) ** 2 * 0.25 + process.sigma(t) ** 2).sqrt()

    when = torch.tensor([0.3, 0.6], dtype=torch.float64)
    level = float(size(when[0]))
    unit = torch.tensor([[1.0], [level / float(size(when[1]))], [-1.0]], dtype=torch.float64)
    x = unit * size(torch.tensor(first, dtype=torch.float64))

    def event(t: Any, x: Any) -> Any:
        assert t.shape in ((), (len(x), 1))
        return x[:, 0] - level

    solver = sdekit.solvers.get("rk45", adaptive_clock=clock)
    s = sdekit.solve(model, x, (first, last), solver, rtol=1e-8, event=event, dense=True, save=[first, 0.8, 0.4, last])
    assert s.event_t is not None and s.status.tolist() == [int(Status.EVENT)] * 2 + [0] and s.event_t[2].isnan()
    torch.testing.assert_close(s.event_t[:2], when, rtol=0, atol=1e-6)
    torch.testing.assert_close(s.x[:2], torch.full((2, 1), level, dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(s.x[2], unit[2] * size(torch.tensor(last)), rtol=1e-6, atol=0)
    for t in (0.9, 0.8, 0.65, first):
        at = torch.tensor(t, dtype=torch.float64)
        torch.testing.assert_close(s.at(t), unit * size(at), rtol=2e-6, atol=0)
    assert s.t.tolist() == [first, 0.8, 0.4, last]
    torch.testing.assert_close(s.xs[2, 0], unit[0] * size(torch.tensor(0.4)), rtol=1e-6, atol=0)
    assert bool(s.xs[2, 1].isnan().all()) and bool(s.xs[3, :2].isfinite().all())  # what it had when it ended
    with pytest.raises(OptionError, match="sample 0"):
        s.at(0.1)


def test_gradients_of_states_between_steps_of_a_flow():
    process = sdekit.VP()
    scale = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)

    def net(x: Any, t: Any) -> Any:
        a, s = (f(t.double()).reshape(-1, 1) for f in (process.alpha, process.sigma))
        return s * x / (a * a * scale + s * s)

    x = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    s = sdekit.solve(sdekit.Model(net, process, "noise"), x, (1.0, 0.01), "tsit5", rtol=1e-9, dense=True)
    (g,) = torch.autograd.grad(s.at(0.3).sum(), scale)

    def exact(v: torch.Tensor) -> torch.Tensor:
        ends = [torch.tensor(t, dtype=torch.float64) for t in (0.3, 1.0)]
        late, early = ((process.alpha(t) ** 2 * v + process.sigma(t) ** 2).sqrt() for t in ends)
        return (x * late / early).sum()

    (truth,) = torch.autograd.grad(exact(scale), scale)
    assert float(g) == pytest.approx(float(truth), rel=1e-5)
