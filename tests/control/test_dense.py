"""Dense output and jumps: states between the ends of steps, of the declared order, for each sample by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit.control import dense as module
from sdekit.control.dense import extension_of, trees_up_to
from sdekit.errors import OptionError, SolverMismatchError

ORDERS = {"bosh3": 3, "rk45": 4, "tsit5": 4, "dop853": 6}
X = torch.tensor([[0.2, 0.5], [0.7, 1.4]], dtype=torch.float64)
ODE = sdekit.make_ode(lambda t, x: x * (1 - x) * torch.cos(t))


def exact(x: Any, t: float, t0: float = 0.0) -> Any:
    e = math.exp(math.sin(t) - math.sin(t0))
    return x * e / (1 + x * (e - 1))


def test_trees_are_counted():
    assert [len(list(trees_up_to(n))) for n in (1, 2, 3, 4, 5, 6, 7)] == [1, 2, 4, 8, 17, 37, 85]


@pytest.mark.parametrize("name", ORDERS)
def test_order_between_the_ends_of_one_step(name):
    extension = extension_of(sdekit.solvers.get(name).tableau)
    assert extension.order == ORDERS[name]
    errors = [_worst(name, extension.weights, h) for h in ((0.2, 0.1) if name == "bosh3" else (0.4, 0.2))]
    assert ORDERS[name] + 0.6 < math.log2(errors[0] / errors[1]) < ORDERS[name] + 2.1


def _worst(name: str, weights: Any, h: float) -> float:
    """The largest error over a step of length h from t = 0.3."""
    tableau, x, t0, slopes = sdekit.solvers.get(name).tableau, X.numpy(), 0.3, []
    f = lambda t, x: x * (1 - x) * math.cos(t)  # noqa: E731
    for c, row in zip((*tableau.c, 1.0), (*tableau.a, tableau.b), strict=True):
        slopes.append(f(t0 + c * h, x + h * sum((a * k for a, k in zip(row, slopes, strict=False)), 0 * x)))
    worst = 0.0
    for place in (0.2, 0.5, 0.8):
        b = weights @ place ** np.arange(1, weights.shape[1] + 1)
        found = x + h * sum(w * k for w, k in zip(b, slopes, strict=True))
        worst = max(worst, float(np.abs(found - exact(x, t0 + place * h, t0)).max()))
    return worst


def test_a_wrong_weight_loses_the_order():
    """The mutant: one coefficient moved, as in a misprinted table."""
    weights = extension_of(sdekit.solvers.get("rk45").tableau).weights.copy()
    weights[2, 1] += 0.01
    assert math.log2(_worst("rk45", weights, 0.4) / _worst("rk45", weights, 0.2)) < 2.5


@pytest.mark.parametrize("name", ["bosh3", "rk45"])
def test_scipys_polynomials_keep_the_same_conditions(name):
    """SciPy's tables, made by others: ours are theirs where nothing is left free, and have no larger errors."""
    rk = pytest.importorskip("scipy.integrate._ivp.rk")
    theirs = {"bosh3": rk.RK23.P, "rk45": rk.RK45.P}[name]
    ours = extension_of(sdekit.solvers.get(name).tableau).weights
    assert _worst(name, ours, 0.2) < 1.5 * _worst(name, theirs, 0.2)
    if name == "bosh3":
        np.testing.assert_allclose(ours, theirs, atol=1e-13)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("up", [True, False])
def test_a_solve_has_states_at_any_time(name, up):
    ends, start = ((0.0, 2.0), X) if up else ((2.0, 0.0), exact(X, 2.0))
    s = sdekit.solve(ODE, start, ends, name, rtol=1e-6, dense=True)
    plain = sdekit.solve(ODE, start, ends, name, rtol=1e-6)
    torch.testing.assert_close(s.x, plain.x, rtol=1e-13, atol=1e-13)
    for t in (0.0, 0.123, 0.9, 1.7, 2.0):
        torch.testing.assert_close(s.at(t), exact(X, t), rtol=0, atol=1e-4)
    assert torch.allclose(s.at(ends[1]), s.x, rtol=1e-12) and torch.equal(s.at(ends[0]), start)
    mixed = s.at(torch.tensor([0.3, 1.1], dtype=torch.float64))
    assert torch.equal(mixed[0], s.at(0.3)[0]) and torch.equal(mixed[1], s.at(1.1)[1])


def test_samples_do_not_depend_on_each_other():
    stiff = sdekit.make_ode(lambda t, x: -x * (1 + 50 * (x > 2)))
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    both = sdekit.solve(stiff, x, [0.0, 1.0], "rk45", rtol=1e-6, dense=True)
    alone = sdekit.solve(stiff, x[:1], [0.0, 1.0], "rk45", rtol=1e-6, dense=True)
    assert torch.equal(both.at(0.37)[:1], alone.at(0.37))


def test_gradients_pass_through():
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    s = sdekit.solve(sdekit.make_ode(lambda t, x: w * x), X, [0.0, 1.0], "tsit5", rtol=1e-9, dense=True)
    (g,) = torch.autograd.grad(s.at(0.4).sum(), w)
    assert float(g) == pytest.approx(0.4 * float(X.sum()) * math.exp(0.28), rel=1e-6)


def test_what_is_refused():
    with pytest.raises(OptionError, match="dense=True"):
        sdekit.solve(ODE, X, [0.0, 1.0], "rk45", rtol=1e-3).at(0.5)
    s = sdekit.solve(ODE, X, [0.0, 1.0], "rk45", rtol=1e-3, dense=True)
    for t in (-0.1, 1.1, torch.tensor([0.5, 1.5]), torch.zeros(3)):
        with pytest.raises(OptionError):
            s.at(t)
    wrong: Any
    for wrong in ("a", None, 0.5j, True, torch.tensor(0.5j), ["a"], [[0.1], [0.2, 0.3]]):
        with pytest.raises(OptionError, match="t: got"):
            s.at(wrong)
    with pytest.raises(OptionError, match=r"got 1\.5 for sample 0"):
        s.at(1.5)
    both: Any = np.array([0.7, 0.5])
    assert torch.equal(s.at(both[::-1]), s.at(torch.tensor([0.5, 0.7], dtype=torch.float64)))
    others: list[tuple[str, dict[str, Any]]] = [("rk45", {"steps": 4}), ("scipy:RK45", {"rtol": 1e-3})]
    for solver, options in others:
        with pytest.raises(SolverMismatchError, match="dense"):
            sdekit.solve(ODE, X, [0.0, 1.0], solver, dense=True, **options)
    for jumps in ([2.0], [float("nan")]):
        with pytest.raises(OptionError):
            sdekit.solve(ODE, X, [0.0, 1.0], "rk45", rtol=1e-3, jump_times=jumps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)])
def test_jumps_are_met_from_both_sides(times, dtype):
    """dx/dt = a, then b, whatever the drift says at the jump itself; steps land there, so that few are rejected."""
    asked = []

    def drift(t: Any, x: Any) -> Any:
        asked.extend(t.reshape(-1).tolist())
        return torch.where(t < 0.4, 1.0, torch.where(t == 0.4, torch.inf, -2.0)).to(x.dtype) + 0 * x

    x = torch.zeros(3, 1, dtype=dtype)
    at = 0.4 if dtype is torch.float64 else float(torch.tensor(0.4))
    s = sdekit.solve(sdekit.make_ode(drift), x, times, "rk45", rtol=1e-5, jump_times=[at], save="all", dense=True)
    value = 0.4 - 2 * 0.6 if times[0] == 0 else 2 * 0.6 - 0.4
    torch.testing.assert_close(s.x, torch.full_like(x, value), rtol=1e-6, atol=1e-6)
    assert at not in asked and int(s.rejected.max()) == 0
    assert s.t.tolist() == list(times)
    inside = (0.2, 0.4 - 2 * 0.2) if times[0] == 0 else (1.0, 1.2 - 0.2)
    torch.testing.assert_close(s.at(0.2)[0, 0], torch.tensor(0.2 if times[0] == 0 else inside[1], dtype=dtype))
    blind = sdekit.make_ode(lambda t, x: torch.where(t < 0.4, 1.0, -2.0).to(x.dtype) + 0 * x)
    assert int(sdekit.solve(blind, x, times, "rk45", rtol=1e-5).rejected.max()) > 0


def test_saved_times_beside_jumps():
    s = sdekit.solve(ODE, X, [0.0, 1.0], "tsit5", rtol=1e-8, jump_times=[0.5], save=[0.0, 0.25, 0.5, 0.75, 1.0])
    assert s.t.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    for t, state in zip(s.t.tolist(), s.xs, strict=True):
        torch.testing.assert_close(state, exact(X, t), rtol=0, atol=1e-6)


def test_no_samples():
    s = sdekit.solve(ODE, X[:0], [0.0, 1.0], "rk45", rtol=1e-3, dense=True)
    assert s.at(0.5).shape == (0, 2)
    assert module.Dense is not None
