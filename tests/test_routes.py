"""The plan route and the step route are each other's oracle; and what the step route alone can do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import EDM, VE, VP, Heat, OrnsteinUhlenbeck, RectifiedFlow, targets
from sdekit.errors import ModelOutputError, ShapeError, SolverMismatchError

F64 = torch.float64
PROCESSES = [VP(), VE(0.02, 30.0), EDM(), RectifiedFlow(), OrnsteinUhlenbeck(0.8, 1.1), Heat(1.7)]
KAPPAS = [0.5, 1.0, lambda t: 0.3 + t / (1 + t)]


@pytest.fixture(params=PROCESSES, ids=lambda p: type(p).__name__)
def process(request):
    return request.param


def grid(process, up: bool = False) -> Tensor:
    times = process.time_at(torch.linspace(-2, 1.5, 9, dtype=F64))
    return times.flip(0) if up else times


def problem(process, up: bool = False):
    model = targets.random_mixture(3, 3, seed=0).under(process)
    times = grid(process, up)
    return model, model.sample(float(times[0]), 5, seed=1), times


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_runge_kutta_in_t_is_the_same_on_both_routes(process, name: str, up: bool) -> None:
    model, x, times = problem(process, up)
    flow = process.probability_flow(model)
    plan = sdekit.solve(flow, x, times, sdekit.solvers.get(name, clock="t"))
    bare = sdekit.solve(sdekit.make_ode(flow.drift), x, times, name)
    assert (plan.route, bare.route) == ("plan", "step")
    torch.testing.assert_close(plan.x, bare.x, rtol=1e-13, atol=1e-13)
    assert torch.equal(plan.nfe, bare.nfe) and torch.equal(plan.steps, bare.steps)
    in_rho = sdekit.solve(flow, x, times, name)
    # Where alpha and sigma are linear in t, Euler in t is Euler in rho: both are DDIM.
    same = isinstance(process, EDM) or (isinstance(process, RectifiedFlow) and name == "euler")
    assert bool((in_rho.x - bare.x).abs().max() < 1e-13) if same else bool((in_rho.x - bare.x).abs().max() > 1e-4)


@pytest.mark.parametrize("kappa", KAPPAS, ids=lambda k: "varying" if callable(k) else str(k))
def test_euler_maruyama_is_the_same_on_both_routes(process, kappa) -> None:
    model, x, times = problem(process)
    reverse = process.reverse(model, kappa)
    bare = sdekit.make_sde(reverse.drift, reverse.diffusion, "scalar", additive=True)
    a = sdekit.solve(reverse, x, times, "euler_maruyama", seed=3)
    b = sdekit.solve(bare, x, times, "euler_maruyama", seed=3)
    assert (a.route, b.route) == ("plan", "step") and torch.equal(a.nfe, b.nfe)
    torch.testing.assert_close(a.x, b.x, rtol=1e-13, atol=1e-13)
    assert (a.x - sdekit.solve(bare, x, times, "euler_maruyama", seed=4).x).abs().max() > 1e-2


def test_saved_states_are_the_same_on_both_routes(process) -> None:
    model, x, times = problem(process)
    reverse = process.reverse(model, 1.0)
    bare = sdekit.make_sde(reverse.drift, reverse.diffusion, "scalar", additive=True)
    a, b = (sdekit.solve(d, x, times, "euler_maruyama", seed=3, save="all") for d in (reverse, bare))
    torch.testing.assert_close(a.xs, b.xs, rtol=1e-13, atol=1e-13)
    assert torch.equal(a.t, b.t) and torch.equal(a.xs[0], x) and torch.equal(a.xs[-1], a.x)


def general(process, noise_type: str, turn: Tensor):
    """The reverse SDE with its noise written in each of the three shapes."""
    model, x, times = problem(process)
    reverse = process.reverse(model, 1.0)

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        g = reverse.diffusion(t, x)
        return {"scalar": g, "diagonal": g * torch.ones_like(x), "general": g * turn.expand(len(x), -1, -1)}[noise_type]

    return sdekit.make_sde(reverse.drift, diffusion, noise_type, additive=True), x, times


def test_noise_of_every_shape_is_one_method() -> None:
    # Diagonal noise equals scalar noise; general noise with the unit matrix too, and a turned one has another path.
    eye = torch.eye(3, dtype=F64)
    ends = []
    for kind in ("scalar", "diagonal", "general"):
        sde, x, times = general(VP(), kind, eye)
        ends.append(sdekit.solve(sde, x, times, "euler_maruyama", seed=3).x)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-14, atol=1e-14)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))).Q
    sde, x, times = general(VP(), "general", turn)
    assert (sdekit.solve(sde, x, times, "euler_maruyama", seed=3).x - ends[0]).abs().max() > 1e-2


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_general_noise_with_more_motions_than_coordinates(down: bool) -> None:
    # dx = G dW from 0 with a 2 x 3 matrix G: covariance G G^T |t|, in either direction of time.
    G = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], dtype=F64)
    sde = sdekit.make_sde(
        lambda t, x: torch.zeros_like(x), lambda t, x: G.expand(len(x), 2, 3), "general", additive=True
    )
    times = [0.0, 0.3, 1.0, 1.5]
    n = 20_000
    out = sdekit.solve(sde, torch.zeros(n, 2, dtype=F64), times[::-1] if down else times, "euler_maruyama", seed=0)
    cov, want = torch.cov(out.x.mT), 1.5 * G @ G.mT
    floor = 4.5 * torch.sqrt((want**2 + want.diagonal()[:, None] * want.diagonal()) / n)
    assert bool(((cov - want).abs() < floor).all())


def test_geometric_brownian_motion_by_hand() -> None:
    # Multiplicative diagonal noise: x <- x (1 + mu h + s sqrt(h) z) step by step.
    from sdekit.math.philox import normals

    sde = sdekit.make_sde(lambda t, x: 0.3 * x, lambda t, x: 0.5 * x)
    x, times = torch.tensor([[1.0], [2.0]], dtype=F64), [0.0, 0.2, 0.5, 1.0]
    want = x.clone()
    for i, h in enumerate((0.2, 0.3, 0.5)):
        z = normals(7, torch.arange(2), i, 1, dtype=F64)
        want = want * (1 + 0.3 * h + 0.5 * math.sqrt(h) * z)
    torch.testing.assert_close(sdekit.solve(sde, x, times, "euler_maruyama", seed=7).x, want, rtol=1e-14, atol=0)


def test_a_forward_affine_process_can_be_stepped() -> None:
    n, times = 5_000, torch.linspace(0.0, 1.0, 51, dtype=F64)
    out = sdekit.solve(OrnsteinUhlenbeck(1.0, 1.0), torch.full((n, 1), 2.0, dtype=F64), times, "euler_maruyama", seed=0)
    assert out.route == "step"
    scale, std = (float(v) for v in OrnsteinUhlenbeck(1.0, 1.0).transition(0.0, 1.0))
    # h = 0.02: a weak error of about two hundredths beside the standard error.
    assert abs(float(out.x.mean()) - 2 * scale) < 0.02 + 4.5 * std / math.sqrt(n)
    assert abs(float(out.x.std()) / std - 1) < 0.02 + 4.5 / math.sqrt(2 * n)


def test_stratonovich_is_converted_unless_additive() -> None:
    x, times = torch.ones(2, 1, dtype=torch.float64), [0.0, 0.5, 1.0]
    strat = sdekit.make_sde(lambda t, x: -x, lambda t, x: x, sde_type="stratonovich")
    # g g' / 2 = x / 2 is added to the drift upwards in time, and taken from it downwards.
    for grid, drift in ((times, -0.5), (times[::-1], -1.5)):
        ito = sdekit.make_sde(lambda t, x, a=drift: a * x, lambda t, x: x)
        a, b = (sdekit.solve(sde, x, grid, "euler_maruyama", seed=0).x for sde in (strat, ito))
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)
    constant = [
        sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.ones_like(x), sde_type=kind, additive=True)
        for kind in ("ito", "stratonovich")
    ]
    a, b = (sdekit.solve(sde, x, times, "euler_maruyama", seed=0).x for sde in constant)
    assert torch.equal(a, b)


def test_solvers_that_do_not_fit_are_refused_with_those_that_do() -> None:
    ode, sde = sdekit.make_ode(lambda t, x: -x), sdekit.make_sde(lambda t, x: -x, lambda t, x: x)
    x, times = torch.ones(2, 1), [0.0, 1.0]
    with pytest.raises(SolverMismatchError, match=r"'dpmpp_2m'.*euler_maruyama.*heun"):
        sdekit.solve(ode, x, times, "dpmpp_2m")
    with pytest.raises(SolverMismatchError, match=r"'heun'.*euler_maruyama"):
        sdekit.solve(sde, x, times, "heun", seed=0)
    assert sdekit.solve(ode, x, times, "euler_maruyama").nfe.tolist() == [1, 1]


def test_wrong_drifts_and_diffusions_are_named() -> None:
    x, times = torch.ones(2, 3), [0.0, 1.0]
    for bad in (lambda t, x: x[:1], lambda t, x: None, lambda t, x: x.long()):
        with pytest.raises(ModelOutputError, match=r"drift"):
            sdekit.solve(sdekit.make_ode(bad), x, times, "heun")
    for kind, out in (("scalar", torch.ones(2, 3)), ("general", torch.ones(2, 4, 3)), ("general", torch.ones(2, 3))):
        sde = sdekit.make_sde(lambda t, x: x, lambda t, x, out=out: out, kind)
        with pytest.raises((ShapeError, ModelOutputError), match="diffusion"):
            sdekit.solve(sde, x, times, "euler_maruyama", seed=0)
