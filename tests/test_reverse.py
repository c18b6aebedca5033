"""Time reversal: against the definition, and against the Fokker-Planck equation that it must satisfy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import EDM, ODE, SDE, VE, VP, Heat, Model, OrnsteinUhlenbeck, RectifiedFlow, targets
from sdekit.errors import InterfaceError, ModelOutputError, OptionError
from sdekit.reverse import AffineFlow, AffineReverse, stochasticity_at

PROCESSES = [
    *(VP(), VE(0.02, 30.0), EDM(), RectifiedFlow(), OrnsteinUhlenbeck(0.8, 1.1), Heat(1.7)),
    *(sdekit.VPCosine(), sdekit.SubVP(), sdekit.DiscreteVP([0.01, 0.05, 0.2, 0.5, 0.9, 0.95])),
    sdekit.AffineSDE(lambda t: -t, lambda t: 1 + t, t_min=1e-3, t_max=2.0),
]
KAPPAS = [0.0, 0.5, 1.0, 2.0, lambda t: 0.3 + t / (1 + t)]
F64 = torch.float64


@pytest.fixture(params=PROCESSES, ids=lambda p: type(p).__name__)
def process(request):
    return request.param


def value(kappa, t: float) -> float:
    return kappa(t) if callable(kappa) else kappa


@pytest.mark.parametrize("kappa", KAPPAS, ids=lambda k: "varying" if callable(k) else str(k))
def test_the_reverse_is_its_definition(process, kappa) -> None:
    model = targets.random_mixture(3, 3, seed=0).under(process)
    reverse = process.reverse(model, kappa)
    for t in (0.1 * process.t_max, 0.7 * process.t_max):
        x, time = model.sample(t, 5, seed=1), torch.tensor(t, dtype=F64)
        f, g, k = float(process.drift_coefficient(t)), float(process.diffusion_coefficient(t)), value(kappa, t)
        want = f * x - (1 + k**2) / 2 * g**2 * model.score(t, x)
        torch.testing.assert_close(reverse.drift(time, x), want, rtol=1e-12, atol=1e-12 * (abs(f) + g**2))
        if not isinstance(reverse, ODE):
            assert float(reverse.diffusion(time, x)) == pytest.approx(k * g, rel=1e-15)
            assert reverse.diffusion(time, x.float()).dtype == torch.float32


@pytest.mark.parametrize("native", ["data", "noise", "score", "velocity", "v"])
def test_any_native_prediction_gives_the_same_reverse(native: str) -> None:
    process = VP()
    exact = targets.random_mixture(3, 3, seed=0).under(process)
    model = Model(lambda x, t: getattr(exact, native)(t[:, None], x), process, native)
    x, t = exact.sample(0.4, 5, seed=1), torch.tensor(0.4, dtype=F64)
    for kappa in (0.0, 0.7):
        want = process.reverse(exact, kappa).drift(t, x)
        torch.testing.assert_close(process.reverse(model, kappa).drift(t, x), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kappa", [1.0, KAPPAS[-1]], ids=lambda k: "varying" if callable(k) else str(k))
def test_times_per_sample_give_what_each_sample_alone_gives(process, kappa) -> None:
    exact = targets.random_mixture(3, 3, seed=0).under(process)
    network = Model(lambda x, t: exact.v(t[:, None], x), process, "v")
    t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=F64) * process.t_max
    x = torch.cat([exact.sample(float(s), 1, seed=1) for s in t])
    for model in (exact, network):
        for dynamics in (process.reverse(model, kappa), process.probability_flow(model)):
            alone = torch.cat([dynamics.drift(s, x[i : i + 1]) for i, s in enumerate(t)])
            torch.testing.assert_close(dynamics.drift(t[:, None], x), alone, rtol=1e-12, atol=1e-12)
        g = process.reverse(model, kappa).diffusion(t[:, None], x)
        each = [float(process.reverse(model, kappa).diffusion(s, x)) for s in t]
        assert g.shape == (4, 1) and g.flatten().tolist() == pytest.approx(each, rel=1e-15)


def log_density(model, t: Tensor, x: Tensor) -> Tensor:
    """log p_t(x) of a 1-D mixture, written out so that autograd differentiates it in t too."""
    g, p = model.target, model.process
    variance = g.components.variances.reshape(1, -1) * p.alpha(t) ** 2 + p.sigma(t) ** 2
    z = x - p.alpha(t) * g.means.reshape(1, -1)
    return torch.logsumexp(g.weights.log() - 0.5 * (z**2 / variance + torch.log(2 * math.pi * variance)), 1)


def residual(model, dynamics, t: float) -> Tensor:
    """dp/dt + div(b p) + kappa^2 g^2 / 2 Laplace p, over p: an SDE run downwards in time diffuses backwards."""
    x = torch.linspace(-3, 3, 41, dtype=F64)[:, None] * float(model.process.sigma(t) + model.process.alpha(t))
    times = torch.full_like(x, t, requires_grad=True)
    x.requires_grad_()
    log_p = log_density(model, times, x)
    (rates,) = torch.autograd.grad(log_p.sum(), times, retain_graph=True)
    rates, time = rates[:, 0], torch.tensor(t, dtype=F64)
    (score,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(score.sum(), x)
    drift = dynamics.drift(time, x)
    (divergence,) = torch.autograd.grad(drift.sum(), x)
    spread = 0.0 if isinstance(dynamics, ODE) else float(dynamics.diffusion(time, x)) ** 2
    out = rates + (divergence + drift * score + 0.5 * spread * (second + score**2))[:, 0]
    return out.detach() / (1 + rates.abs().max())


@pytest.mark.parametrize("kappa", KAPPAS, ids=lambda k: "varying" if callable(k) else str(k))
def test_every_member_of_the_family_keeps_the_marginals(process, kappa) -> None:
    model = targets.GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], [0.2, 0.1]).under(process)
    for t in (0.15 * process.t_max, 0.6 * process.t_max):
        assert residual(model, process.reverse(model, kappa), t).abs().max() < 1e-10


def test_a_reverse_without_its_factor_two_does_not(process) -> None:
    model = targets.GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], [0.2, 0.1]).under(process)

    class Wrong(AffineReverse):
        def drift(self, t: Tensor, x: Tensor) -> Tensor:
            g2 = float(self.process.diffusion_coefficient(t)) ** 2
            return super().drift(t, x) - 0.5 * g2 * self.model.score(t, x)

    assert residual(model, Wrong(process, model, 1.0), 0.15 * process.t_max).abs().max() > 1e-2


def test_the_flow_is_the_reverse_without_noise(process) -> None:
    model = targets.random_mixture(2, 3, seed=0).under(process)
    flow, same = process.probability_flow(model), process.reverse(model, 0)
    assert isinstance(flow, AffineFlow) and isinstance(same, AffineFlow) and flow == same
    x, t = model.sample(0.5 * process.t_max, 3), torch.tensor(0.5 * process.t_max, dtype=F64)
    assert torch.equal(flow.drift(t, x), model.velocity(float(t), x))


def test_nothing_is_infinite_at_the_noisy_end_of_the_rectified_flow() -> None:
    model = targets.gaussian([0.5, 0.1], 0.3).under(RectifiedFlow())
    x, one = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), torch.ones((), dtype=F64)
    assert torch.isfinite(RectifiedFlow().probability_flow(model).drift(one, x)).all()


def test_a_plain_score_is_as_good_as_a_model(process) -> None:
    exact = targets.random_mixture(2, 3, seed=0).under(process)
    t = torch.tensor(0.3 * process.t_max, dtype=F64)
    x = exact.sample(float(t), 4)
    for kappa in (0.0, 1.0):
        plain, full = process.reverse(exact.score, kappa), process.reverse(exact, kappa)
        torch.testing.assert_close(plain.drift(t, x), full.drift(t, x), rtol=1e-11, atol=1e-11)


class Copy(SDE):
    """An affine process as a user would write it, with its noise in any of the three shapes."""

    additive = True

    def __init__(self, process, noise_type: str, turn: Tensor | None = None) -> None:
        self.process, self.noise_type, self.turn = process, noise_type, turn

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return self.process.drift_coefficient(t) * x

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        g = self.process.diffusion_coefficient(t)
        if self.noise_type == "scalar":
            return g
        if self.noise_type == "diagonal":
            return g * torch.ones_like(x)
        return g[..., None] * self.turn.expand(len(x), -1, -1) if g.ndim else g * self.turn.expand(len(x), -1, -1)


@pytest.mark.parametrize("noise_type", ["scalar", "diagonal", "general"])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, KAPPAS[-1]], ids=lambda k: "varying" if callable(k) else str(k))
def test_the_general_reverse_agrees_with_the_affine_one(process, noise_type: str, kappa) -> None:
    # For general noise g is turned by (2, 3): g g^T = g^2 I all the same.
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))).Q[:2]
    model = targets.random_mixture(2, 3, seed=0).under(process)
    mine = Copy(process, noise_type, turn).reverse(model, kappa)
    affine = process.reverse(model, kappa)
    x = model.sample(0.4 * process.t_max, 4, seed=2)
    for t in (
        torch.tensor(0.4, dtype=F64) * process.t_max,
        torch.tensor([[0.2], [0.4], [0.5], [0.8]], dtype=F64) * process.t_max,
    ):
        torch.testing.assert_close(mine.drift(t, x), affine.drift(t, x), rtol=1e-11, atol=1e-11)
        if isinstance(affine, ODE):
            assert isinstance(mine, ODE)
        else:
            g = mine.diffusion(t, x)
            if noise_type == "general":
                g = torch.einsum("bim,bjm->bij", g, g).diagonal(dim1=1, dim2=2).sqrt()
            torch.testing.assert_close(g.expand(4, 2), affine.diffusion(t, x).expand(4, 2), rtol=1e-12, atol=0)
            assert mine.noise_type == noise_type and mine.additive and mine.sde_type == "ito"


def test_what_cannot_be_reversed_is_refused() -> None:
    model = targets.gaussian([0.0], 1.0).under(VP())
    with pytest.raises(OptionError, match=r"a model of VP.*expected a model of EDM"):
        EDM().reverse(model)
    with pytest.raises(InterfaceError, match="score"):
        VP().reverse(3.0)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="score"):
        Copy(VP(), "scalar").reverse(None)  # type: ignore[arg-type]
    for kappa in (-0.1, math.nan, math.inf, "1.0?", None, True):
        with pytest.raises(OptionError, match="stochasticity"):
            VP().reverse(model, kappa)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"at t = 0\.5"):
        stochasticity_at(lambda t: -t, 0.5)
    bad = VP().reverse(lambda t, x: x.sum(), 1.0)
    with pytest.raises(ModelOutputError, match=r"score\(t, x\)"):
        bad.drift(torch.tensor(0.5), torch.ones(2, 1))
