"""Gradients are right, or there are none because none were asked for: never lost on the way.

Held against finite differences of the whole solve. Without the out-of-place sums of the executor, or with a detach on
either route, these fail.
"""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError


def parametric(w):
    def function(x, t):
        return torch.tanh(w * x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))

    return function


def test_gradient_in_the_start_and_in_parameters(case):
    x = case.start(batch=2).requires_grad_()
    w = torch.tensor([0.3, -0.5, 0.9], dtype=torch.float64, requires_grad=True)

    def final(x, w):
        return case.solve(parametric(w), x).x

    assert torch.autograd.gradcheck(final, (x, w), fast_mode=True)


def test_gradient_in_parameters_alone(case):
    w = torch.tensor([0.3, -0.5, 0.9], dtype=torch.float64, requires_grad=True)
    solution = case.solve(parametric(w), save="all")
    assert solution.x.requires_grad and solution.xs.requires_grad
    (g,) = torch.autograd.grad(solution.x.square().sum(), w)
    step = 1e-6
    for i in range(3):
        ends = []
        for sign in (1, -1):
            moved = w.detach().clone()
            moved[i] += sign * step
            ends.append(case.solve(parametric(moved)).x.square().sum())
        assert float(g[i]) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)


def test_values_do_not_depend_on_the_mode(case):
    w = torch.tensor([0.3, -0.5, 0.9], dtype=torch.float64, requires_grad=True)
    recorded = case.solve(parametric(w), case.start().requires_grad_())
    with torch.no_grad():
        plain = case.solve(parametric(w), case.start().requires_grad_())
    assert recorded.x.requires_grad and not plain.x.requires_grad
    torch.testing.assert_close(recorded.x, plain.x, rtol=1e-13, atol=1e-13)


def test_gradients_survive_half_precision(case):
    x = case.start(dtype=torch.bfloat16).requires_grad_()
    case.solve(x=x).x.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16 and bool((x.grad != 0).any())


def test_gradients_survive_a_masked_row(case):
    x = case.start()
    x[3] = torch.nan
    x.requires_grad_()
    solution = case.solve(x=x, on_failure="mask")
    (g,) = torch.autograd.grad(solution.x[[0, 1, 2, 4]].sum(), x)
    clean = case.start().requires_grad_()
    (expected,) = torch.autograd.grad(case.solve(x=clean).x[[0, 1, 2, 4]].sum(), clean)
    assert torch.equal(g[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])


@pytest.mark.parametrize("ambient", [True, False])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_sample_records_on_request_only(ambient, batch_size):
    w = torch.tensor(0.3, requires_grad=True)
    model = sdekit.Model(lambda x, t: torch.tanh(w * x), sdekit.VP())
    with torch.set_grad_enabled(ambient):
        assert not sdekit.sample(model, (3, 2), "heun", 3, seed=0, batch_size=batch_size).requires_grad
        drawn = sdekit.sample(model, (3, 2), "heun", 3, seed=0, batch_size=batch_size, grad=True)
        assert torch.is_grad_enabled() == ambient
    assert drawn.requires_grad
    drawn.sum().backward()
    assert w.grad is not None and float(w.grad) != 0


def test_sample_carries_gradients_to_its_start():
    x = torch.ones(2, 2, requires_grad=True)
    model = sdekit.Model(lambda x, t: torch.tanh(x), sdekit.VP())
    out = sdekit.sample(model, (2, 2), "heun", 3, x_start=x, t_start=0.5, grad=True)
    (g,) = torch.autograd.grad(out.sum(), x)
    assert bool((g != 0).all())


def test_gradients_are_refused_where_nothing_records():
    model = sdekit.Model(lambda x, t: x, sdekit.VP())
    with torch.inference_mode(), pytest.raises(OptionError, match="grad: got True"):
        sdekit.sample(model, (2, 2), "heun", 3, grad=True)


def test_gradients_in_times_are_refused_not_lost():
    times = torch.tensor([0.9, 0.1], dtype=torch.float64, requires_grad=True)
    ode = sdekit.make_ode(lambda t, x: x)
    with pytest.raises(InterfaceError, match="no gradient with respect to times"):
        sdekit.solve(ode, torch.ones(1, 1), times, "euler")
    with torch.no_grad():
        assert sdekit.solve(ode, torch.ones(1, 1), times, "euler").success


def test_second_derivatives():
    x = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    ode = sdekit.make_ode(lambda t, x: torch.sin(x))
    assert torch.autograd.gradgradcheck(lambda x: sdekit.solve(ode, x, [0.0, 0.5, 1.0], "rk4").x, (x,))
