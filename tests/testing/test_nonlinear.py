"""The exact nonlinear problems and the residuals: formulas by hand against automatic differentiation and samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import SDE
from sdekit.errors import InterfaceError, ModelOutputError, ShapeError
from sdekit.testing import (
    CoxIngersollRoss,
    ExactProblem,
    Sinh,
    SinhShear,
    continuity_residual,
    exact_problems,
    fokker_planck_residual,
    state_noises,
)

F64 = torch.float64
PROBLEMS = exact_problems()
# These combine the noises and densities of the others anew.
MORE = ("carried, diagonal", "carried, stratonovich", *(n for n in PROBLEMS if n.startswith("langevin")))


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.slow) if n in MORE else n for n in PROBLEMS])
def problem(request) -> ExactProblem:
    return PROBLEMS[request.param]


def points(problem: ExactProblem, count: int = 12) -> tuple[Tensor, Tensor]:
    """Times (count, 1) from the early one to the late one, and draws from near the middle."""
    early, late = problem.times
    t = torch.linspace(early, late, count, dtype=F64)[:, None]
    return t, problem.sample(0.5 * (early + late), count, seed=1)


def gradient(function, x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: function(y).sum())(x)


def test_scores_are_gradients_and_samples_have_the_density(problem) -> None:
    t, x = points(problem)
    score = gradient(lambda y: problem.log_prob(t, y), x)
    torch.testing.assert_close(problem.score(t, x), score, rtol=1e-11, atol=1e-11)
    # Integration by parts: E[s] = 0 and E[x_i s_j] = -delta_ij, within five standard errors.
    for time in problem.times:
        draws = problem.sample(time, 8_000, seed=2)
        s = problem.score(time, draws)
        for values, expected in [(s, 0.0), *((draws.roll(k, 1) * s, float(k) - 1) for k in (0, 1))]:
            error = (values.mean(0) - expected).abs() / (values.std(0) / len(values) ** 0.5)
            assert error.max() < 5
    assert not torch.equal(draws[:5], problem.sample(time, 5, seed=3))
    torch.testing.assert_close(draws[:5], problem.sample(time, 8_000, seed=2)[:5], rtol=0, atol=0)


def test_the_sde_satisfies_the_fokker_planck_equation(problem) -> None:
    t, x = points(problem)
    assert fokker_planck_residual(problem.sde, problem.log_prob, t, x).abs().max() < 1e-11
    alone = fokker_planck_residual(problem.sde, problem.log_prob, float(t[3]), x[3:4])
    torch.testing.assert_close(alone, torch.zeros(1, dtype=F64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["sinh", "shear, stratonovich", "carried, scalar"])
def test_one_percent_off_does_not(name: str) -> None:
    problem = PROBLEMS[name]
    t, x = points(problem)

    class Other(SDE):
        noise_type, sde_type = problem.sde.noise_type, problem.sde.sde_type

        def __init__(self, a: float, b: float) -> None:
            self.a, self.b = a, b

        def drift(self, t, x):
            return self.a * problem.sde.drift(t, x)

        def diffusion(self, t, x):
            return self.b * problem.sde.diffusion(t, x)

    for wrong in (Other(1.01, 1.0), Other(1.0, 1.01)):
        assert fokker_planck_residual(wrong, problem.log_prob, t, x).abs().max() > 1e-3


def test_the_velocity_carries_the_density(problem) -> None:
    """Written out here, not taken from the library; that flow maps follow it is tested with the solvers."""

    def velocity(t: Tensor, z: Tensor) -> Tensor:
        """f - (div D + D s) / 2, with D of the Ito form by hand-coded loops over coordinates."""
        sde = problem.sde.to_ito()

        def matrix(w: Tensor) -> Tensor:
            g = sde.diffusion(t, w)
            return g @ g.mT if sde.noise_type == "general" else torch.diag_embed((g * g).expand(w.shape))

        directions = torch.eye(z.shape[1], dtype=F64)
        divergence = sum(torch.func.jvp(matrix, (z,), (e.expand(z.shape),))[1][:, j] for j, e in enumerate(directions))
        return sde.drift(t, z) - 0.5 * (divergence + (matrix(z) @ problem.score(t, z)[..., None])[..., 0])

    t, z = points(problem)
    assert continuity_residual(velocity, problem.log_prob, t, z).abs().max() < 1e-11
    assert continuity_residual(lambda t, x: 1.01 * velocity(t, x) + 1e-3, problem.log_prob, t, z).abs().max() > 1e-4


def test_the_flow_of_the_square_root_process_is_its_scaling() -> None:
    problem = CoxIngersollRoss(1.0, 1.3, 0.6, 0.02, 2, (0.1, 1.0))
    x, late, early = problem.sample(1.0, 6, seed=4), 1.0, 0.4
    rate = torch.func.jvp(lambda t: problem.flow(x, late, t), (torch.tensor(early),), (torch.tensor(1.0),))[1]
    y, t = problem.flow(x, late, early), torch.tensor(early, dtype=F64)
    d, s = problem.sde.sigma**2, problem.score(t, y)  # D = d x, div D = d
    torch.testing.assert_close(rate, problem.sde.drift(t, y) - 0.5 * (d + d * y * s), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(problem.flow(y, early, late), x)


@pytest.mark.parametrize("diffeomorphism", [Sinh(), SinhShear()], ids=lambda d: type(d).__name__)
def test_derivatives_of_diffeomorphisms(diffeomorphism) -> None:
    y = torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(diffeomorphism.inverse(diffeomorphism.forward(y)), y, rtol=1e-13, atol=1e-13)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: diffeomorphism.forward(v[None])[0]))(y)
    hessian = torch.func.vmap(torch.func.hessian(lambda v: diffeomorphism.forward(v[None])[0]))(y)
    shown = diffeomorphism.jacobian(y)
    torch.testing.assert_close(torch.diag_embed(shown) if diffeomorphism.elementwise else shown, jacobian)
    torch.testing.assert_close(diffeomorphism.laplacian(y), torch.einsum("bijj->bi", hessian))
    torch.testing.assert_close(diffeomorphism.log_det(y), torch.linalg.slogdet(jacobian)[1])
    torch.testing.assert_close(diffeomorphism.log_det_gradient(y), gradient(diffeomorphism.log_det, y))


@pytest.mark.parametrize("name", state_noises())
def test_derivatives_of_noises(name: str) -> None:
    noise, t = state_noises()[name], torch.tensor(0.7, dtype=F64)
    x = torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(0))

    def matrix(y: Tensor) -> Tensor:
        g = noise.g(t, y[None])
        return g[0] if noise.noise_type == "general" else torch.diag_embed(g.expand(1, 2))[0]

    slopes, g = torch.func.vmap(torch.func.jacrev(matrix))(x), torch.func.vmap(matrix)(x)  # (B, i, k, j), (B, i, k)
    torch.testing.assert_close(noise.correction(t, x), torch.einsum("bjk,bikj->bi", g, slopes))
    torch.testing.assert_close(noise.contraction(t, x), torch.einsum("bik,bjkj->bi", g, slopes))


def test_residuals_of_other_shapes() -> None:
    """States of several axes, times per row, and backward or Stratonovich SDEs: a Gaussian by hand in each."""
    x = torch.randn(5, 2, 2, dtype=torch.float32, generator=torch.Generator().manual_seed(0))

    def log_prob(t: Tensor, x: Tensor) -> Tensor:  # dx = dW from N(0, 1): variance 1 + t
        spread = 1 + t.reshape(-1)
        return -0.5 * (x.flatten(1) ** 2).sum(1) / spread - 2 * torch.log(spread)

    t = torch.linspace(0, 1, 5)
    brownian = sdekit.make_sde(lambda t, x: 0 * x, lambda t, x: torch.ones_like(x))
    flow = sdekit.make_ode(lambda t, x: 0.5 * x / (1 + t))
    for out in (
        fokker_planck_residual(brownian, log_prob, t, x),
        fokker_planck_residual(brownian.to_stratonovich(), log_prob, 0.3, x),
        fokker_planck_residual(brownian.reverse(lambda t, x: -x / (1 + t)), log_prob, 0.3, x),
        continuity_residual(flow, log_prob, t[:, None, None], x),
        continuity_residual(flow.drift, log_prob, 0.3, x),
    ):
        assert out.shape == (5,) and out.dtype == F64 and out.abs().max() < 1e-13

    class Forward(SDE):  # the reverse, taken for an SDE that runs upwards
        def drift(self, t, x):
            return brownian.reverse(lambda t, x: -x / (1 + t)).drift(t, x)

        def diffusion(self, t, x):
            return torch.ones_like(x)

    assert fokker_planck_residual(Forward(), log_prob, 0.3, x).abs().max() > 0.1


def test_bad_arguments_of_residuals() -> None:
    x, sde = torch.ones(3, 2), PROBLEMS["sinh"].sde

    def good(t, x):
        return -x.sum(1)

    with pytest.raises(InterfaceError, match="sde: got Image"):
        fokker_planck_residual(PROBLEMS["sinh"], good, 0.5, x)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="flow: got int"):
        continuity_residual(3, good, 0.5, x)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="log_prob: got NoneType"):
        fokker_planck_residual(sde, None, 0.5, x)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match=r"x: got list"):
        fokker_planck_residual(sde, good, 0.5, [1.0])  # type: ignore[arg-type]
    for wrong in (lambda t, x: -x, lambda t, x: 1.0):
        for run in (fokker_planck_residual, continuity_residual):
            with pytest.raises(ShapeError, match=r"log_prob: .*expected \(3,\)"):
                run(sde if run is fokker_planck_residual else sde.drift, wrong, 0.5, x)
    with pytest.raises(ModelOutputError, match=r"flow: got shape \(3,\)"):
        continuity_residual(lambda t, x: x.sum(1), good, 0.5, x)
    with pytest.raises(ShapeError, match="t: got shape"):
        continuity_residual(sde.drift, good, torch.ones(2), x)
