"""Adaptive steps along Brownian paths: errors follow the tolerance, laws are right, samples are independent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import sdekit
from sdekit.brownian import BrownianPath
from sdekit.control import stochastic
from sdekit.errors import NonFiniteError, OptionError, OutOfDomain, SolverMismatchError, UnfinishedError

F64 = torch.float64

# X = sinh(W + asinh x0) solves dX = X/2 dt + sqrt(1 + X^2) dW.
SINH = sdekit.make_sde(lambda t, x: x / 2, lambda t, x: (1 + x * x).sqrt())
PULL = sdekit.make_sde(lambda t, x: torch.sin(2 * x) + t, lambda t, x: 1 + t, "scalar", additive=True)


def start(n: int, d: int = 2) -> torch.Tensor:
    return torch.linspace(-1, 1, n * d, dtype=F64).reshape(n, d)


def solve(sde: Any, x: torch.Tensor, times: list[float], solver: Any, tol: float, **options: Any) -> sdekit.Solution:
    return sdekit.solve(sde, x, times, solver, rtol=0.0, atol=tol, seed=0, **options)


def sinh(x: torch.Tensor, t0: float, t1: float) -> torch.Tensor:
    w = BrownianPath(0, torch.arange(len(x)), x[0].numel()).increment(t0, t1)[0].reshape(x.shape)
    return torch.sinh(w + torch.asinh(x))


@pytest.mark.parametrize(
    "solver, tolerances",
    [
        ("sriw1", (1e-1, 1e-2)),
        ("milstein", (3e-1, 3e-2)),
        pytest.param("sosri2", (1e-1, 1e-2, 1e-3), marks=pytest.mark.slow),
        pytest.param("spark", (1e-1, 1e-2, 1e-3), marks=pytest.mark.slow),
    ],
)
def test_errors_follow_the_tolerance(solver, tolerances):
    """By the method's own estimate, and by steps of half the length."""
    x = start(10)
    exact = sinh(x, 0.5, 1.5)
    errors, steps = [], []
    for tol in tolerances:
        found = solve(SINH, x, [0.5, 1.5], solver, tol)
        assert found.success and found.t.tolist() == [1.5]
        errors.append(float((found.x - exact).square().mean().sqrt()) / tol)
        steps.append(float(found.steps.double().mean()))
    assert all(0.003 < e < 10 for e in errors), errors
    assert steps == sorted(steps) and steps[-1] > 1.7 * steps[0]


@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.0]])
@pytest.mark.parametrize("solver", ["sra1", "sosra"])
def test_the_path_is_that_of_fixed_steps(solver, times):
    """The limit of fixed steps on the same path, in both directions of time, and far from that on another."""
    x = start(4)
    fine = sdekit.solve(PULL, x, times, solver, steps=64, seed=0, noise="path").x
    found = solve(PULL, x, times, solver, 1e-2)
    other = sdekit.solve(PULL, x, times, solver, rtol=0.0, atol=1e-2, seed=1).x
    assert float((found.x - fine).abs().max()) < 0.03 < 0.1 * float((other - fine).abs().mean())
    assert found.provenance["noise"] == "path"


def test_samples_do_not_know_of_each_other():
    x, ids = start(5), torch.tensor([7, 3, 9, 1, 4])
    whole = solve(SINH, x, [0.0, 1.0], "sriw1", 1e-2, sample_ids=ids)
    for part in (slice(0, 1), slice(1, 5)):
        alone = solve(SINH, x[part], [0.0, 1.0], "sriw1", 1e-2, sample_ids=ids[part])
        assert torch.equal(alone.x, whole.x[part]) and torch.equal(alone.steps, whole.steps[part])


def test_lands_on_the_times_asked_for():
    seen: list[float] = []

    def drift(t, x):
        seen.extend(t.reshape(-1).tolist())
        return -x

    sde = sdekit.make_sde(drift, lambda t, x: torch.ones_like(x), additive=True)
    found = solve(sde, start(3), [2.0, 0.1], "sra1", 1e-2, save=[0.7, 0.1])
    assert found.t.tolist() == [0.7, 0.1] and min(seen) >= 0.1 and max(seen) == 2.0
    assert torch.equal(found.xs[-1], found.x)
    again = solve(sde, start(3), [2.0, 0.7], "sra1", 1e-2)
    assert torch.equal(again.x, found.xs[0])


def redrawn(self: Any, save: Any, attempt: Any = stochastic._Loop.attempt) -> None:
    """The mutant: every attempt has noise of its own, so that a rejected step's is lost."""
    path = self.path
    self.path = BrownianPath(1000 + self.attempts, path.sample_ids, path.size, path.moments)
    attempt(self, save)


@pytest.mark.slow
def test_rejections_do_not_change_the_law(monkeypatch):
    """asinh of the end is W: of variance 1, for noise that rejected steps see again alone."""
    x = torch.zeros(1500, 1, dtype=F64)
    run = lambda: float(torch.asinh(solve(SINH, x, [0.0, 1.0], "milstein", 0.03).x).var())  # noqa: E731
    error = math.sqrt(2 / len(x))
    assert abs(run() - 1) < 3 * error
    monkeypatch.setattr(stochastic._Loop, "attempt", redrawn)
    assert run() < 1 - 5 * error


@pytest.mark.parametrize("name, noise", [("euler_maruyama", "diagonal"), ("log_ode", "general")])
def test_what_could_converge_to_something_else_is_refused(name, noise):
    g = (lambda t, x: x) if noise == "diagonal" else (lambda t, x: x[..., None] * torch.tensor([1.0, 0.5], dtype=F64))
    sde = sdekit.make_sde(lambda t, x: -x, g, noise)  # type: ignore[arg-type]
    with pytest.raises((SolverMismatchError, OptionError)):
        solve(sde, start(2), [0.0, 1.0], name, 1e-2)


def test_the_refusal_names_what_would_work():
    with pytest.raises(SolverMismatchError, match=r"'euler_maruyama', whose strong order is 0.5 on diagonal.*sriw1"):
        solve(SINH, start(2), [0.0, 1.0], "euler_maruyama", 1e-2)
    assert solve(PULL, start(2), [0.0, 1.0], "euler_maruyama", 1e-1).success  # of order 1 there
    with pytest.raises(SolverMismatchError, match="must see the same noise again"):
        solve(SINH, start(2), [0.0, 1.0], "sriw1", 1e-2, noise="plain")


def test_a_sample_that_fails_is_named_and_leaves_the_others_alone():
    sde = sdekit.make_sde(lambda t, x: torch.where((x > 0.9) & (t > 0.5), torch.nan, -x), lambda t, x: 0.01 * x)
    x = torch.tensor([[0.1], [5.0], [0.2]], dtype=F64)
    with pytest.raises(NonFiniteError, match="sample 1"):
        solve(sde, x, [0.0, 1.0], "sriw1", 1e-3)
    masked = solve(sde, x, [0.0, 1.0], "sriw1", 1e-3, on_failure="mask")
    good = solve(sde, x[[0, 2]], [0.0, 1.0], "sriw1", 1e-3, sample_ids=torch.tensor([0, 2]))
    assert masked.status.tolist() == [0, 1, 0] and torch.equal(masked.x[[0, 2]], good.x)
    assert bool(masked.x[1].isnan().all())


def test_limits():
    with pytest.raises(UnfinishedError, match="MAX_NFE") as caught:
        solve(SINH, start(2), [0.0, 1.0], "sriw1", 1e-4, max_nfe=50)
    assert caught.value.partial is not None and 0 <= float(torch.as_tensor(caught.value.partial.t).min()) < 1
    rough = sdekit.make_sde(lambda t, x: x, lambda t, x: torch.where(torch.sin(1e9 * x) > 0, 1.0, -1.0).to(x.dtype))
    with pytest.raises(UnfinishedError, match=r"STEP_UNDERFLOW|REJECTIONS|MAX_NFE"):
        solve(rough, start(1, 1), [0.0, 1.0], "sriw1", 1e-6, max_nfe=3000)


def test_a_model_that_refuses_a_state_is_asked_again_nearer():
    """sqrt does not exist below 0: steps that lead there are shortened, for that sample alone."""

    def diffusion(t, x):
        outside = (x < 0).flatten(1).any(1)
        if bool(outside.any()):
            raise OutOfDomain(outside)
        return 0.2 * x.sqrt()

    sde = sdekit.make_sde(lambda t, x: 2 * (1 - x), diffusion)
    x = torch.tensor([[1.0], [0.05], [0.5]], dtype=F64)
    found = solve(sde, x, [0.0, 1.0], sdekit.solvers.get("milstein", derivative="free"), 1e-2)
    assert found.success and bool((found.x > 0).all())


def test_callbacks_and_gradients():
    told: list[sdekit.StepInfo] = []
    stopped = solve(
        SINH, start(2), [0.0, 1.0], "sriw1", 1e-2, callback=lambda info: told.append(info) or len(told) == 3
    )
    assert len(told) == 3 and stopped.status.tolist() == [2, 2]
    assert bool((torch.as_tensor(told[1].t) == torch.as_tensor(told[0].t_next)).all())
    scale = torch.tensor(0.5, dtype=F64, requires_grad=True)
    run = lambda s: solve(  # noqa: E731
        sdekit.make_sde(lambda t, x: -s * x, lambda t, x: 0.1 * x), start(2), [0.0, 1.0], "sriw1", 1e-2
    ).x.sum()
    (gradient,) = torch.autograd.grad(run(scale), scale)
    with torch.no_grad():
        difference = (run(scale + 1e-6) - run(scale - 1e-6)) / 2e-6
    assert float(gradient) == pytest.approx(float(difference), rel=1e-4)


def test_a_reverse_diffusion_of_a_model():
    model = sdekit.targets.gaussian(np.zeros(2), 0.25).under(sdekit.VP())
    x = model.sample(0.9, 4, seed=0)
    found = sdekit.solve(model, x, [0.9, 0.05], "sra1", rtol=3e-2, atol=3e-2, seed=0)
    fine = sdekit.solve(sdekit.VP().reverse(model), x, [0.9, 0.05], "shark", steps=150, seed=0, noise="path")
    assert found.success and float((found.x - fine.x).abs().max()) < 0.1


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (3,), (2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_states_of_any_shape(shape, dtype):
    with torch.inference_mode():
        found = solve(SINH, torch.ones(shape, dtype=dtype), [0.0, 1.0], "sriw1", 0.3)
    assert found.success and found.x.shape == shape and found.x.dtype == dtype and len(found.steps) == shape[0]


@pytest.mark.parametrize("how", ["raise", pytest.param("mask", marks=pytest.mark.slow)])
def test_a_step_without_a_root_is_tried_again_shorter(how):
    """Newton's method finds no root for some samples at long steps; at short ones it does."""
    sde = sdekit.make_sde(lambda t, x: -torch.sin(3 * x), lambda t, x: 0.5 * torch.ones_like(x), additive=True)
    x = torch.ones(60, 1, dtype=F64)
    options: Any = {"rtol": 1e-2, "atol": 1e-3, "seed": 0, "on_failure": how}
    found = sdekit.solve(sde, x, [0.0, 1.0], "implicit_euler_maruyama", **options)
    fine = sdekit.solve(sde, x, [0.0, 1.0], "sra1", steps=256, seed=0, noise="path").x
    assert found.success and int(found.rejected.max()) > 0
    assert float((found.x - fine).square().mean().sqrt()) < 0.05


@pytest.mark.parametrize("name", ["implicit_euler_maruyama", "theta_maruyama"])
def test_a_sample_without_a_root_at_any_step_fails_alone(name):
    def drift(t, x):
        return torch.where(x < -5, -1e25 * torch.sign(x + 10), -x)

    sde = sdekit.make_sde(drift, lambda t, x: 0.5 * torch.ones_like(x), additive=True)
    x = torch.tensor([[1.0], [-10.0], [0.5]], dtype=F64)
    with pytest.raises(UnfinishedError, match=r"NEWTON.*sample 1 at t = 1, .*more iterations") as caught:
        solve(sde, x, [1.0, 1.5], name, 1e-2)
    assert caught.value.sample == 1 and 0 < caught.value.step_size < 1e-3
    masked = solve(sde, x, [1.0, 1.5], name, 1e-2, on_failure="mask")
    good = solve(sde, x[[0, 2]], [1.0, 1.5], name, 1e-2, sample_ids=torch.tensor([0, 2]))
    assert masked.status.tolist() == [0, 1, 0] and torch.equal(masked.x[[0, 2]], good.x)


def test_gradients_pass_by_attempts_that_overflow():
    """A step across t = 0.1 throws the second sample so far that the drift there is infinite; 0 times that is NaN."""

    def run(offset, x):
        sde = sdekit.make_sde(
            lambda t, x: torch.where(t > 0.1, -x * torch.exp(40 * x * x - offset), torch.zeros_like(x)),
            lambda t, x: 0.05 * torch.ones_like(x),
            additive=True,
        )
        return sdekit.solve(sde, x, [0.0, 0.15], "sra1", rtol=1e-2, atol=1e-2, seed=0)

    x = torch.tensor([[1.9], [2.0], [0.1]], dtype=torch.float64, requires_grad=True)
    offset = torch.tensor(155.5, dtype=torch.float64, requires_grad=True)
    found = run(offset, x)
    assert found.rejected.tolist()[1] > 0
    gradients = torch.autograd.grad(found.x.sum(), (offset, x))
    with torch.no_grad():
        assert torch.equal(run(offset, x).x, found.x)
        high, low = (float(run(offset + e, x).x.sum()) for e in (1e-4, -1e-4))
    assert all(g.isfinite().all() for g in gradients)
    assert float(gradients[0]) == pytest.approx((high - low) / 2e-4, rel=1e-4)
