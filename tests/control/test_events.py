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
    with pytest.raises(NonFiniteError):
        run(lambda t, x: x[:, 0] * torch.nan)
    with pytest.raises(OptionError, match="jump"):
        run(below(0.5), jump_times=[0.5])
    with pytest.raises(SolverMismatchError, match="event"):
        sdekit.solve(DECAY, X, [0.0, 1.0], "rk4", steps=4, event=below(0.5))
