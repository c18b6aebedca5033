"""Times to land on, and times at which drift or diffusion jumps, for ODEs, SDEs and the flows of models."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit.brownian import BrownianPath
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.solution import Status

JUMP = 0.37
X = torch.ones(32, 1, dtype=torch.float64)


def rates(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of drift and diffusion: those of the later side at the jump itself."""
    return torch.where(t < JUMP, 1.0, -2.0), torch.where(t < JUMP, 0.2, 0.8)


GROWTH = sdekit.make_sde(
    lambda t, x: rates(t)[0].to(x.dtype) * x, lambda t, x: rates(t)[1].to(x.dtype) * x, noise_type="diagonal"
)


def exact(first: float = 0.0, last: float = 1.0) -> torch.Tensor:
    """x at `last` from 1 at `first`, on either side of the jump, for seed 5."""
    path, log = BrownianPath(5, torch.arange(len(X)), 1), torch.zeros_like(X)
    for s, t, a, b in ((0.0, JUMP, 1.0, 0.2), (JUMP, 1.0, -2.0, 0.8)):
        w, h = path.increment(s, t)[0], t - s
        # Downwards the noise is seen from its end: x goes by the same exponents, with h and W of the other sign.
        sign = 1 if last > first else -1
        log = log + sign * a * h - b * b / 2 * h + sign * b * w
    return log.exp()


def error(solver: str, tol: float, ends: tuple[float, float] = (0.0, 1.0), **options: Any) -> float:
    s = sdekit.solve(GROWTH, X, ends, solver, rtol=tol, seed=5, **options)
    return float((s.x - exact(*ends)).square().mean().sqrt())


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("name", ["sriw1", "sosri2"])
def test_the_error_follows_the_tolerance_across_a_jump_of_an_sde(name, ends):
    coarse, fine = (error(name, tol, ends, jump_times=[JUMP]) for tol in (3e-2, 3e-3))
    assert coarse < 2e-2 and fine < 2e-3


def test_landing_on_the_jump_is_not_enough():
    """The mutant: steps end at the jump, but what is asked for there is of the later side, in both steps."""
    good, bad = (error("sriw1", 3e-3, (0.0, 1.0), **{which: [JUMP]}) for which in ("jump_times", "step_times"))
    assert bad > 5 * good


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_of_an_sde_is_called_across(dtype):
    asked: list[list[float]] = []

    def drift(t: Any, x: Any) -> Any:
        asked.append(t.reshape(-1).tolist())
        return torch.zeros_like(x)

    sde = sdekit.make_sde(drift, lambda t, x: 0.1 * torch.cos(x), noise_type="diagonal", sde_type="stratonovich")
    at = float(torch.tensor(JUMP, dtype=dtype))
    s = sdekit.solve(
        sde, X[:4].to(dtype), [0.0, 1.0], "stochastic_heun", rtol=1e-2, seed=0, jump_times=[at, 0.0], save="all"
    )
    assert s.t.tolist() == [0.0, 1.0] and s.success
    times = [t for call in asked for t in call]
    assert at not in times and max(times) == 1.0 and min(times) > 0
    below, above = (float(torch.nextafter(torch.tensor(at, dtype=dtype), torch.tensor(e))) for e in (0.0, 1.0))
    assert below in times and above in times


def test_jumps_of_an_sde_with_general_noise_and_samples_of_their_own():
    """An additive matrix that jumps: the end is the sum over both pieces, whatever steps each sample takes."""
    first, second = torch.tensor([[1.0, 0.5], [0.0, 2.0]]).double(), torch.tensor([[0.3, 0.0], [1.0, -1.0]]).double()

    def diffusion(t: Any, x: Any) -> Any:
        return torch.where(t.reshape(-1, 1, 1) < JUMP, first, second).expand(len(x), 2, 2)

    sde = sdekit.make_sde(lambda t, x: torch.zeros_like(x), diffusion, noise_type="general", additive=True)
    x = torch.tensor([[0.0, 0.0], [50.0, 3.0], [1.0, -9.0]], dtype=torch.float64)
    s = sdekit.solve(sde, x, [0.0, 1.0], "sra1", rtol=1e-3, seed=3, jump_times=[JUMP], save=[JUMP, 1.0])
    path = BrownianPath(3, torch.arange(3), 2)
    w = [path.increment(a, b)[0] for a, b in ((0.0, JUMP), (JUMP, 1.0))]
    torch.testing.assert_close(s.xs[0], x + w[0] @ first.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(s.x, x + w[0] @ first.mT + w[1] @ second.mT, rtol=0, atol=1e-12)


def test_the_order_of_an_ode_holds_across_a_jump_and_is_lost_without():
    def drift(t: Any, x: Any) -> Any:
        return torch.where(t < JUMP, torch.cos(5 * t), -3 * torch.sin(7 * t)).to(x.dtype) * x

    truth = math.exp(math.sin(5 * JUMP) / 5 + 3 / 7 * (math.cos(7) - math.cos(7 * JUMP)))
    ode, found = sdekit.make_ode(drift), {}
    for tol in (1e-5, 1e-11):
        for which in ("jump_times", "step_times", "callback"):
            told: dict[str, Any] = {which: None if which == "callback" else [JUMP]}
            s = sdekit.solve(ode, X[:1], [0.0, 1.0], "rk45", rtol=tol, **told)
            found[tol, which] = float((s.x - truth).abs().max()) / tol, int(s.nfe)
        assert found[tol, "jump_times"][0] < 5
        for without in ("step_times", "callback"):
            error, calls = found[tol, without]
            assert error > 10 and calls > 1.2 * found[tol, "jump_times"][1]
    (coarse, few), (fine, many) = (found[tol, "jump_times"] for tol in (1e-5, 1e-11))
    assert math.log(1e6 * coarse / fine) / math.log(many / few) > 4.8


def test_a_guidance_interval_is_a_jump_of_a_models_flow():
    """With the jump told, the flow over both pieces is that of two solves; the network is never asked across."""
    process, at = sdekit.VP(), 0.4
    left, right = (sdekit.targets.gaussian(torch.full((2,), m), 0.3).under(process) for m in (-1.0, 2.0))
    asked = []

    def net(x: Any, t: Any) -> Any:
        asked.extend(t.reshape(-1).tolist())
        t = t.reshape(-1, 1)
        return torch.where(t < at, left.noise(t, x), right.noise(t, x))

    model = sdekit.Model(net, process, "noise")
    x = process.sample_prior((5, 2), seed=1, dtype=torch.float64)
    s = sdekit.solve(model, x, (1.0, 0.01), "rk45", rtol=1e-7, jump_times=[at], save=[at, 0.01], dense=True)
    middle = right.flow(x, 1.0, at)
    torch.testing.assert_close(s.xs[0], middle, rtol=0, atol=1e-5)
    torch.testing.assert_close(s.x, left.flow(middle, at, 0.01), rtol=0, atol=1e-5)
    torch.testing.assert_close(s.at(0.7), right.flow(x, 1.0, 0.7), rtol=0, atol=1e-5)
    torch.testing.assert_close(s.at(at), middle, rtol=0, atol=1e-5)
    assert at not in asked
    blind = sdekit.solve(model, x, (1.0, 0.01), "rk45", rtol=1e-7)
    assert int(blind.rejected.min()) > int(s.rejected.max())


def test_events_beside_jumps_end_each_sample_in_its_piece():
    """x' = -1 before 0.4, -3 after, from 0.2 and 0.7 and 5: events at 0 in either piece, or none."""
    ode = sdekit.make_ode(lambda t, x: torch.where(t < 0.4, -1.0, -3.0).to(x.dtype) + 0 * x)
    x = torch.tensor([[0.2], [0.7], [5.0]], dtype=torch.float64)
    for compact in (True, False):
        solver = sdekit.solvers.get("rk45", compact=compact)
        s = sdekit.solve(
            ode, x, [0.0, 1.0], solver, rtol=1e-6, jump_times=[0.4], event=lambda t, x: x[:, 0], dense=True
        )
        assert s.status.tolist() == [int(Status.EVENT), int(Status.EVENT), 0]
        assert s.event_t is not None
        torch.testing.assert_close(s.event_t[:2], torch.tensor([0.2, 0.5], dtype=torch.float64), rtol=1e-9, atol=0)
        torch.testing.assert_close(s.x, torch.tensor([[0.0], [0.0], [2.8]], dtype=torch.float64), rtol=0, atol=1e-9)
        assert float(s.at(torch.tensor([0.1, 0.4, 0.4]))[2, 0]) == pytest.approx(4.6)


def test_step_times_are_landed_on_and_not_saved():
    asked = []

    def drift(t: Any, x: Any) -> Any:
        asked.extend(t.reshape(-1).tolist())
        return -x

    ode, x = sdekit.make_ode(drift), X[:2]
    s = sdekit.solve(ode, x, [0.0, 1.0], "tsit5", rtol=1e-4, step_times=[0.123, 0.5], save="all")
    assert s.t.tolist() == [0.0, 1.0] and {0.123, 0.5} <= set(asked)
    sde = sdekit.make_sde(drift, lambda t, x: 0.1 * torch.ones_like(x), noise_type="diagonal", additive=True)
    asked.clear()
    s = sdekit.solve(sde, x, [0.0, 1.0], "sosra", rtol=1e-3, step_times=torch.tensor([0.5]), save=[0.25, 1.0], seed=0)
    assert s.t.tolist() == [0.25, 1.0] and 0.5 in asked
    s = sdekit.solve(ode, x, [0.0, 1.0], "scipy:RK45", rtol=1e-4, step_times=[0.5])
    torch.testing.assert_close(s.x, x * math.exp(-1), rtol=1e-3, atol=0)


def test_what_is_refused():
    ode, calls = sdekit.make_ode(lambda t, x: calls.append(t) or -x), []
    wrong: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ("rk4", {"steps": 4, "step_times": [0.5]}, SolverMismatchError, "adaptive"),
        ("rk4", {"steps": 4, "jump_times": [0.5]}, SolverMismatchError, "into times"),
        ("scipy:RK45", {"rtol": 1e-3, "jump_times": [0.5]}, SolverMismatchError, "both sides"),
        ("rk45", {"rtol": 1e-3, "jump_times": [1.5]}, OptionError, "jump_times"),
        ("rk45", {"rtol": 1e-3, "step_times": [float("nan")]}, OptionError, "step_times"),
        ("rk45", {"rtol": 1e-3, "step_times": 0.5}, sdekit.SdekitError, "step_times"),
        ("rk45", {"rtol": 1e-3, "step_times": [0.5], "jump_times": [0.5 + 1e-16 * 4]}, OptionError, "step_times"),
    ]
    for solver, options, kind, text in wrong:
        with pytest.raises(kind, match=text):
            sdekit.solve(ode, X, [0.0, 1.0], solver, **options)
    with pytest.raises(SolverMismatchError, match="inside its steps"):
        sdekit.solve(GROWTH, X, [0.0, 1.0], "sosri", rtol=1e-2, jump_times=[JUMP])
    with pytest.raises(SolverMismatchError, match="dense"):
        sdekit.solve(GROWTH, X, [0.0, 1.0], "sriw1", rtol=1e-2, dense=True)
    assert not calls
