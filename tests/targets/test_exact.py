"""Posterior means, scores, densities and Jacobians of mixtures against loops, quadrature, autograd and 60 digits."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from sdekit import targets
from sdekit.errors import InterfaceError, OptionError, ShapeError, UnknownNameError
from sdekit.processes import EDM, VE, VP, RectifiedFlow
from sdekit.targets import expanded
from sdekit.targets.components import DATA, NOISE, SCORE, Components, Scales, Want
from sdekit.targets.expanded import DiagonalComponents, IsotropicComponents
from sdekit.targets.low_rank import LowRank
from sdekit.targets.mixture import GaussianMixture

KINDS = ("common", "isotropic", "diagonal", "full", "low_rank")
TIMES = {VP(): (0.01, 0.3, 0.97), EDM(): (0.02, 1.0, 50.0), RectifiedFlow(): (0.05, 0.5, 0.95)}
NAMES = ("data", "noise", "score")


def mixture(kind: str, dim: int = 3, components: int = 5) -> GaussianMixture:
    return targets.random_mixture(dim, components, seed=4, covariance=kind)


def levels(process: Any, times: list[float]) -> tuple[list[float], list[float]]:
    t = torch.tensor(times, dtype=torch.float64)
    return process.alpha(t).tolist(), process.sigma(t).tolist()


def check_against_loops(loops: Callable, kind: str, process: Any, t: float, per_sample: bool) -> None:
    g = mixture(kind)
    m = g.under(process)
    x = torch.cat([m.sample(t, 6, seed=1), 3 * m.sample(t, 2, seed=2)])
    times = [t] * len(x)
    if per_sample:
        times = [t * (0.5 + 0.06 * i) for i in range(len(x))]
    time = torch.tensor(times, dtype=torch.float64) if per_sample else t
    alphas, sigmas = levels(process, times)
    truth = {name: loops(g).batch(name, alphas, sigmas, x) for name in (*NAMES, "log_prob", "cov")}
    answers = {name: getattr(m, name)(time, x) for name in (*NAMES, "log_prob")}
    for name, answer in answers.items():
        scale = 1 + truth[name].abs()
        assert ((answer - truth[name]).abs() / scale).max() < 2e-13, name
    a, s = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (alphas, sigmas))
    torch.testing.assert_close(m.v(time, x), a * truth["noise"] - s * truth["data"], rtol=1e-12, atol=1e-12)
    t64 = torch.tensor(times, dtype=torch.float64)[:, None]
    velocity = process.drift_coefficient(t64) * x - 0.5 * process.diffusion_coefficient(t64) ** 2 * truth["score"]
    torch.testing.assert_close(m.velocity(time, x), velocity, rtol=1e-11, atol=1e-11)
    jacobian = (a / s**2)[..., None] * truth["cov"]
    torch.testing.assert_close(m.jacobian(time, x), jacobian, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("process", TIMES, ids=str)
def test_equals_loops(loops: Callable, kind: str, process: Any, per_sample: bool) -> None:
    for t in TIMES[process]:
        check_against_loops(loops, kind, process, t, per_sample)


def _no_log_det(self: Components, scales: Any, want: Want) -> Any:
    """Responsibilities that forget the determinant: the mistake that equal variances hide."""
    terms = type(self).right(self, scales, want)  # type: ignore[attr-defined]
    s = scales.alpha**2 * self.variances + scales.sigma**2
    determinant = torch.log(s).sum(1) * (self.size // s.shape[1])
    return terms._replace(bias=terms.bias + 0.5 * determinant.reshape(terms.bias.shape))


@pytest.mark.parametrize(("kind", "cls"), [("isotropic", IsotropicComponents), ("diagonal", DiagonalComponents)])
def test_loops_notice_a_missing_determinant(
    loops: Callable, kind: str, cls: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, "right", cls._make_terms, raising=False)
    monkeypatch.setattr(cls, "_make_terms", _no_log_det)
    with pytest.raises(AssertionError):
        check_against_loops(loops, kind, VP(), 0.3, per_sample=False)


WIDE = {"few": (8, 3, 3000), "many": (40, 3, 1200), "long": (300, 2, 500), "blocks": (60, 2, 3000)}
"""Components, dimension, batch: each lays its logits out in another way."""


def check_layout(kind: str, layout: str) -> None:
    """Whole batches without gradients against the direct form, which knows no layout, no expansion and no buffer."""
    count, dim, batch = WIDE[layout]
    m = targets.random_mixture(dim, count, 3, covariance=kind).under(VP())
    x = m.sample(0.3, batch, seed=1)
    c, scales = m.target.components, m.scales(0.3, x)
    given = x.clone()
    for want in (DATA, NOISE, SCORE):
        direct = c._direct(scales, c._centred(scales, x), want)
        if c.centre is not None:
            direct = direct + want.data * c.centre
        for _ in range(2):  # the second time from terms that were kept
            with torch.no_grad():
                answer = m.target.evaluate(scales, x, want)
            torch.testing.assert_close(answer, direct, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(m.target.evaluate(scales, x, want), direct, rtol=1e-11, atol=1e-11)
    assert torch.equal(x, given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", WIDE)
def test_every_layout_gives_the_same(kind: str, layout: str) -> None:
    check_layout(kind, layout)


@pytest.mark.parametrize("layout", WIDE)
def test_layouts_notice_a_softmax_over_the_batch(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = IsotropicComponents._responsibilities
    monkeypatch.setattr(IsotropicComponents, "_responsibilities", lambda *a: right(*a).roll(1, 0))
    with pytest.raises(AssertionError):
        check_layout("common", layout)


def test_kept_terms_belong_to_one_time_and_one_want() -> None:
    for kind in ("isotropic", "diagonal"):
        g = targets.random_mixture(3, 40, 3, covariance=kind)
        m, x = g.under(VP()), g.sample(20, seed=1)
        with torch.inference_mode():
            kept = m.data(0.4, x).clone()
        state = x.clone().requires_grad_()
        m.data(0.4, state).sum().backward()  # terms made in inference mode serve autograd
        torch.testing.assert_close(m.data(0.4, x), kept, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(m.score(0.4, x), g.under(VP()).score(0.4, x), rtol=0, atol=0)
        torch.testing.assert_close(m.data(0.5, x), g.under(VP()).data(0.5, x), rtol=0, atol=0)
        assert "_kept" not in pickle.loads(pickle.dumps(g)).components.__dict__


@pytest.mark.parametrize("kind", ["isotropic", "diagonal"])
def test_a_graph_under_capture_neither_leaves_terms_nor_uses_kept_ones(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = targets.random_mixture(3, 40, 3, covariance=kind)
    m, x = g.under(VP()), g.sample(20, seed=1)
    expected = m.data(0.4, x)
    kept = vars(g.components)["_kept"]
    with monkeypatch.context() as patch:
        patch.setattr(expanded, "_in_capture", lambda _: True)
        patch.setitem(vars(g.components), "_kept", (kept[0], None))  # would be used otherwise, and fail
        torch.testing.assert_close(m.data(0.4, x), expected, rtol=0, atol=0)
        m.data(0.5, x)
        assert vars(g.components)["_kept"] == (kept[0], None)
    assert not expanded._in_capture(x)


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_see_a_function(kind: str) -> None:
    """vmap, jvp and dual numbers work without gradients too, where buffers are used otherwise."""
    m = targets.random_mixture(2, 40, 3, covariance=kind).under(VP())
    x = m.sample(0.4, 2000, seed=1)
    with torch.no_grad():
        whole = m.data(0.4, x)
        torch.testing.assert_close(torch.vmap(lambda v: m.data(0.4, v))(x.reshape(4, 500, 2)).reshape(-1, 2), whole)
        ones = torch.ones_like(x)
        value, slope = torch.func.jvp(lambda v: m.data(0.4, v), (x,), (ones,))
        torch.testing.assert_close(value, whole)
        torch.testing.assert_close(slope, (m.jacobian(0.4, x) @ ones[..., None])[..., 0])
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(m.data(0.4, forward_ad.make_dual(x, ones)))
            torch.testing.assert_close(dual.tangent, slope)


@pytest.mark.parametrize("layout", WIDE)
def test_weights_never_underflow(layout: str) -> None:
    """A product with numbers below 1e-308 takes two hundred times longer; far points make such weights."""
    count, dim, batch = WIDE[layout]
    g = targets.random_mixture(dim, count, 3)
    x = 700 * g.sample(batch, seed=1)
    c, least = g.components, torch.finfo(torch.float64).tiny
    scales = g.under(VP()).scales(0.3, x)
    terms = c._terms(scales, DATA)
    with torch.no_grad():
        logits = c._logits(terms, x)
        assert (torch.softmax(logits, 0 if c._few else 1) < least).any()
        for out in (None, torch.empty_like(logits)):
            assert c._responsibilities(logits.clone(), out).min() > least


@pytest.mark.parametrize("kind", KINDS)
def test_loops_notice_a_wrong_gain(loops: Callable, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Want.gains
    monkeypatch.setattr(Want, "gains", lambda *a: tuple(1.0001 * v for v in right(*a)))
    with pytest.raises(AssertionError):
        check_against_loops(loops, kind, VP(), 0.3, per_sample=False)


@pytest.mark.parametrize("kind", KINDS)
def test_score_and_jacobian_are_derivatives(kind: str) -> None:
    m = mixture(kind).under(VP())
    x = m.sample(0.4, 5, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(m.log_prob(0.4, x).sum(), x)
    torch.testing.assert_close(m.score(0.4, x), gradient, rtol=1e-11, atol=1e-12)
    for i in range(len(x)):
        row = x[i].detach()
        derivative = torch.autograd.functional.jacobian(lambda v: m.data(0.4, v[None])[0], row)
        torch.testing.assert_close(m.jacobian(0.4, row[None])[0], derivative, rtol=1e-11, atol=1e-12)
    assert torch.autograd.gradcheck(lambda v: m.score(0.4, v), x)
    assert torch.autograd.gradcheck(lambda v: m.data(torch.linspace(0.2, 0.8, 5), v), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("process", TIMES, ids=str)
def test_jacobian_is_symmetric_and_positive(kind: str, process: Any) -> None:
    m = mixture(kind).under(process)
    for t in TIMES[process]:
        j = m.jacobian(t, m.sample(t, 20, seed=5))
        assert torch.equal(j, j.mT)
        assert torch.linalg.eigvalsh(j).min() > -1e-12 * j.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_tweedie(kind: str) -> None:
    process = VP()
    m = mixture(kind).under(process)
    for t in (0.0, 1e-4, 0.5, 1.0):
        x = m.sample(t, 30, seed=6)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        torch.testing.assert_close(alpha * m.data(t, x) + sigma * m.noise(t, x), x, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(m.noise(t, x), -sigma * m.score(t, x), rtol=1e-13, atol=1e-14)


def test_against_quadrature_in_one_dimension() -> None:
    """E[x_0 | x], p(x) and the score by integrals over x_0 that know nothing of components' posteriors."""
    w, means, stds, alpha, sigma = (0.2, 0.5, 0.3), (-2.0, 0.4, 1.5), (0.3, 0.7, 0.2), 0.6, 0.8

    def normal(z: float, mean: float, std: float) -> float:
        return math.exp(-0.5 * ((z - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    def prior(x0: float) -> float:
        return sum(a * normal(x0, b, c) for a, b, c in zip(w, means, stds, strict=True))

    g = GaussianMixture(w, [[v] for v in means], [v**2 for v in stds])
    for x in (-2.5, -0.3, 0.8, 3.0):

        def integral(f: Callable[[float], float], x: float = x) -> float:
            return quad(
                lambda v: f(v) * prior(v) * normal(x, alpha * v, sigma), -8, 8, epsabs=1e-14, epsrel=1e-13, limit=400
            )[0]

        p, first = integral(lambda v: 1.0), integral(lambda v: v)
        state = torch.tensor([[x]], dtype=torch.float64)
        assert float(g.marginal_log_prob(Scales(alpha, sigma), state)) == pytest.approx(math.log(p), abs=1e-11)
        assert float(g.evaluate(Scales(alpha, sigma), state, DATA)) == pytest.approx(first / p, abs=1e-11)
        slope = (alpha * first / p - x) / sigma**2
        assert float(g.evaluate(Scales(alpha, sigma), state, SCORE)) == pytest.approx(slope, abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_ends_are_finite_and_right(loops: Callable, kind: str) -> None:
    g = mixture(kind)
    m = g.under(RectifiedFlow())
    x = g.sample(6, seed=7)
    truth = loops(g).batch("score", [1.0] * 6, [0.0] * 6, x)
    for t in (0.0, torch.zeros(6, dtype=torch.float64)):
        torch.testing.assert_close(m.score(t, x), truth, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(m.data(t, x), x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(m.noise(t, x), torch.zeros_like(x))
        torch.testing.assert_close(m.velocity(t, x), -x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(m.jacobian(t, x), torch.eye(3).double().expand(6, 3, 3), rtol=1e-11, atol=1e-11)
    for t in (1.0, torch.ones(6, dtype=torch.float64)):
        torch.testing.assert_close(m.data(t, x), g.mean.expand(6, 3), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(m.score(t, x), -x)
        torch.testing.assert_close(m.velocity(t, x), x - g.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(m.jacobian(t, x), torch.zeros(6, 3, 3).double(), atol=1e-14, rtol=0)
        exact = -0.5 * (x**2).sum(1) - 1.5 * math.log(2 * math.pi)
        torch.testing.assert_close(m.log_prob(t, x), exact, rtol=1e-13, atol=1e-13)
    # VP's sigma has an infinite rate at t = 0, the velocity has not.
    vp, mixed = g.under(VP()), torch.tensor([0.0, 0.5, 0.0, 0.1, 1.0, 0.0], dtype=torch.float64)
    flow = -0.05 * x - 0.05 * truth
    torch.testing.assert_close(vp.velocity(0.0, x), flow, rtol=1e-11, atol=1e-11)
    several = vp.velocity(mixed, x)
    for i, t in enumerate(mixed.tolist()):
        torch.testing.assert_close(several[i : i + 1], vp.velocity(t, x[i : i + 1]), rtol=1e-12, atol=1e-12)


def test_point_masses() -> None:
    data = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    m = targets.empirical(data).under(EDM())
    x = torch.tensor([[0.4, 0.1], [0.6, 0.1], [-3.0, 2.5]], dtype=torch.float64)
    for t in (0.0, torch.zeros(3), 1e-9):
        torch.testing.assert_close(m.data(t, x), data.double())
    for name in ("score", "noise", "log_prob", "jacobian"):
        for t in (0.0, torch.tensor([0.0, 1.0, 1.0])):
            with pytest.raises(OptionError, match="sigma = 0"):
                getattr(m, name)(t, x)
    diagonal = GaussianMixture([1, 1], [[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.5, 0.0]]).under(EDM())
    assert diagonal.data(0.0, x).isfinite().all()


CLUSTERS = torch.tensor([[4.0, 1.0], [4.001, 1.0], [4.0, 1.0021], [-4.0, 0.0], [0.0, 3.9]], dtype=torch.float64)


@pytest.mark.parametrize("kind", ["common", "isotropic", "diagonal"])
@pytest.mark.parametrize("sigma", [1e-3, 1e-5])
@pytest.mark.parametrize("per_sample", [False, True])
def test_digits_survive_small_noise(sixty_digits: Callable, kind: str, sigma: float, per_sample: bool) -> None:
    """Between points closer than sigma, far from the centre: expanded squares would lose 7 to 11 of 16 digits here.

    The bound is what the rounding of x itself causes: eps |x| |x - alpha m| / s in a logit, times the spread of the
    close means in what is returned.
    """
    check_small_noise(sixty_digits, kind, sigma, per_sample)


def check_small_noise(sixty_digits: Callable, kind: str, sigma: float, per_sample: bool) -> None:
    means = CLUSTERS if sigma > 1e-4 else 0.01 * (CLUSTERS - CLUSTERS[0]) + CLUSTERS[0]
    size = {"common": (), "isotropic": (5,), "diagonal": (5, 2)}[kind]
    scale = (
        torch.linspace(0.5, 1.0, 5, dtype=torch.float64).reshape(-1, *(1,) * (len(size) - 1))
        if size
        else torch.tensor(0.7)
    )
    g = GaussianMixture(torch.arange(1, 6), means, scale.double().expand(size).clone() * sigma**2)
    m = g.under(EDM())
    generator = torch.Generator().manual_seed(0)
    x = means[:3].repeat(3, 1) + 1.2 * sigma * torch.randn(9, 2, dtype=torch.float64, generator=generator)
    time = torch.full((9,), sigma, dtype=torch.float64) if per_sample else sigma
    answers = {name: getattr(m, name)(time, x) for name in ("data", "score", "log_prob")}
    for i in range(len(x)):
        truth = sixty_digits(g, 1.0, sigma, x[i])
        logit = 20 * 2.2e-16 * 4.2 / sigma
        assert np.abs(answers["log_prob"][i].numpy() - truth["log_prob"]) < logit
        assert np.abs(answers["data"][i].numpy() - truth["data"]).max() < logit * 5 * sigma + 2e-15
        assert np.abs(answers["score"][i].numpy() - truth["score"]).max() * sigma < 5 * logit


def test_sixty_digits_notice_plain_expansion(sixty_digits: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdekit.targets.expanded.SHARP", math.inf)
    for kind in ("common", "isotropic", "diagonal"):
        with pytest.raises(AssertionError):
            check_small_noise(sixty_digits, kind, 1e-3, per_sample=False)


@pytest.mark.parametrize("sigma", [1e-3, 1e-5])
@pytest.mark.parametrize("per_sample", [False, True])
def test_low_rank_keeps_digits_near_its_planes(sixty_digits: Callable, sigma: float, per_sample: bool) -> None:
    """Within sigma of planes a thousand to a hundred thousand times wider; |z|^2 - |c|^2 would lose 6 to 10 digits."""
    check_planes(sixty_digits, sigma, per_sample)


def check_planes(sixty_digits: Callable, sigma: float, per_sample: bool) -> None:
    means = torch.tensor([[0.0, 0.3, 1.0], [0.5, -0.2, 1.0 + 2 * sigma]], dtype=torch.float64)
    factors = torch.tensor([[[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]], [[0.7, 0.0], [0.0, 0.9], [0.0, 0.0]]])
    thin = 0.7 * sigma**2
    g = GaussianMixture([1.0, 2.0], means, LowRank(factors, thin))
    diagonal = GaussianMixture([1.0, 2.0], means, (factors.double() ** 2).sum(2) + thin)
    m = g.under(EDM())
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    x = torch.cat([z[:, :2], 1 + 1.2 * sigma * z[:, 2:]], 1)
    time = torch.full((9,), sigma, dtype=torch.float64) if per_sample else sigma
    answers = {name: getattr(m, name)(time, x) for name in ("data", "score", "log_prob")}
    logit = 20 * 2.2e-16 / sigma  # what the rounding of x causes
    for i in range(len(x)):
        truth = sixty_digits(diagonal, 1.0, sigma, x[i])
        assert np.abs(answers["log_prob"][i].numpy() - truth["log_prob"]) < logit
        assert np.abs(answers["data"][i].numpy() - truth["data"]).max() < logit * 2 + 2e-15
        assert np.abs(answers["score"][i].numpy() - truth["score"]).max() * sigma < 5 * logit


def test_planes_notice_an_expanded_square(sixty_digits: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdekit.targets.low_rank.SHARP", math.inf)
    with pytest.raises(AssertionError):
        check_planes(sixty_digits, 1e-3, per_sample=False)


def test_low_rank_in_three_thousand_dimensions() -> None:
    """Against Woodbury's identity in NumPy, without a matrix of d x d anywhere."""
    B, K, d, r = 3, 4, 3072, 6
    generator = torch.Generator().manual_seed(0)
    factors, means = (torch.randn(K, d, n, dtype=torch.float64, generator=generator) / 8 for n in (r, 1))
    g = GaussianMixture(torch.arange(1, K + 1), means[..., 0].reshape(K, 3, 32, 32), LowRank(factors, 0.04))
    m = g.under(VP())
    with _Largest() as seen:
        x = m.sample(0.3, B, seed=1)
        data, log_prob, score = m.data(0.3, x), m.log_prob(0.3, x), m.score(0.3, x)
    assert seen.elements <= K * d * r
    assert data.shape == x.shape == (B, 3, 32, 32)
    alpha, sigma = m.scales(0.3, x)
    s = alpha**2 * 0.04 + sigma**2
    logs, means_given, scores = [], [], []
    for w, mean, f in zip(g.weights.numpy(), means[..., 0].numpy(), factors.numpy(), strict=True):
        z = x.flatten(1).numpy() - alpha * mean
        inner = np.eye(r) + alpha**2 * f.T @ f / s
        solved = z / s - alpha**2 * np.linalg.solve(inner, (z @ f).T / s).T @ f.T / s
        log_det = d * np.log(2 * np.pi * s) + np.linalg.slogdet(inner)[1]
        logs.append(np.log(w) - 0.5 * ((z * solved).sum(1) + log_det))
        means_given.append(mean + alpha * ((solved @ f) @ f.T + 0.04 * solved))
        scores.append(-solved)
    top = np.logaddexp.reduce(logs)
    weights = np.exp(np.array(logs) - top)[..., None]
    np.testing.assert_allclose(log_prob.numpy(), top, rtol=1e-12)
    np.testing.assert_allclose(data.flatten(1).numpy(), (weights * means_given).sum(0), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(score.flatten(1).numpy(), (weights * scores).sum(0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["common", "isotropic", "diagonal"])
def test_far_points_and_far_mixtures(sixty_digits: Callable, kind: str) -> None:
    """A thousand standard deviations out, and with all means displaced by a million: no error but rounding."""
    near = targets.random_mixture(3, 6, 8, covariance=kind)
    for offset, distance in ((0.0, 1e3), (1e6, 1.0)):
        variances = near.components.variances
        g = GaussianMixture(near.weights, near.means + offset, variances if kind == "diagonal" else variances[:, 0])
        x = g.sample(4, seed=9) * (distance if not offset else 1.0)
        m = g.under(EDM())
        for i in range(4):
            for sigma in (0.05, 2.0):
                truth = sixty_digits(g, 1.0, sigma, x[i])
                state = x[i : i + 1]
                reach = float(state.abs().max())
                for name in ("data", "score", "log_prob"):
                    error = np.abs(getattr(m, name)(sigma, state)[0].numpy() - truth[name]).max()
                    # The logits move by up to eps |x| |x - m| / s when x is rounded.
                    s = 0.02 + sigma**2
                    slack = 50 * 2.2e-16 * (reach * (distance + 3) / s)
                    assert error <= slack * (3 if name == "data" else (1 + distance) / s), (name, error)


class _Largest(TorchDispatchMode):
    """Records the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("shape", [(64, 12, 16), (3, 5, 40), (1, 40, 8), (700, 40, 6)])
def test_no_array_over_samples_components_and_axes(kind: str, per_sample: bool, shape: tuple[int, int, int]) -> None:
    B, K, d = shape
    m = targets.random_mixture(d, K, 0, covariance=kind).under(VP())
    x = m.sample(0.5, B)
    t = torch.full((B,), 0.5) if per_sample else 0.5
    m.data(0.5, x)  # tables that are made once, which no batch enters
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), _Largest() as seen:
            for name in (*NAMES, "velocity", "log_prob"):
                getattr(m, name)(t, x)
        # Tables of one time, which know no batch.
        parameters = {"full": K * d * d, "low_rank": K * d * -(-d // 4)}.get(kind, 2 * K * d)
        assert seen.elements < max(B * K * d, parameters + 1)


def test_the_recorder_sees_a_large_array() -> None:
    with _Largest() as seen:
        (torch.zeros(4, 1, 6) - torch.zeros(5, 6)).sum()
    assert seen.elements == 4 * 5 * 6


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_samples_do_not_show(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m = mixture(kind, 4, 9).under(VP())
    x = m.sample(0.5, 50, seed=1)
    t = torch.linspace(0.1, 0.9, 50, dtype=torch.float64)
    whole = [m.data(0.5, x), m.score(t, x), m.velocity(t, x), m.log_prob(t, x)]
    for cls in (IsotropicComponents, DiagonalComponents, type(mixture("full").components)):
        monkeypatch.setattr(cls, "_rows", lambda self: 7)
    for a, b in zip(whole, [m.data(0.5, x), m.score(t, x), m.velocity(t, x), m.log_prob(t, x)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_states_are_computed_in_float64(kind: str, dtype: torch.dtype) -> None:
    g = mixture(kind)
    m = g.under(VP())
    x = m.sample(0.2, 10, seed=1).to(dtype)
    out = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    for name in (*NAMES, "velocity", "v", "log_prob", "jacobian"):
        answer = getattr(m, name)(0.2, x)
        assert answer.dtype == out
        assert torch.equal(answer, getattr(m, name)(0.2, x.double()).to(out))
    narrow = g.to(dtype=torch.float32).under(VP())
    assert narrow.target.dtype == torch.float32
    assert g.dtype == torch.float64
    error = (narrow.score(0.2, x) - m.score(0.2, x)).abs().max() / m.score(0.2, x).abs().max()
    assert (0 < error < 1e-4) if dtype != torch.float64 else error < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_function_transforms_and_modes_agree(kind: str) -> None:
    m = mixture(kind).under(VP())
    x = m.sample(0.4, 5, seed=2)
    plain = m.score(0.4, x)
    with torch.no_grad():
        assert torch.allclose(m.score(0.4, x), plain, rtol=1e-13)
        _, tangent = torch.func.jvp(lambda v: m.data(0.4, v), (x,), (torch.ones_like(x),))
        torch.testing.assert_close(tangent, m.jacobian(0.4, x).sum(-1), rtol=1e-11, atol=1e-12)
        per_row = torch.func.vmap(torch.func.jacrev(lambda v: m.data(0.4, v[None])[0]))(x)
        torch.testing.assert_close(per_row, m.jacobian(0.4, x), rtol=1e-11, atol=1e-12)
        per_row = torch.func.vmap(torch.func.jacfwd(lambda v: m.data(0.4, v[None])[0]))(x)
        torch.testing.assert_close(per_row, m.jacobian(0.4, x), rtol=1e-11, atol=1e-12)


def test_times_of_every_shape_agree() -> None:
    m = GaussianMixture([1, 2], torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.5, -1.0]]]), [0.2, 0.4]).under(
        VE()
    )
    x = m.sample(0.3, 4, seed=1)
    assert x.shape == (4, 2, 2)
    expected = m.score(0.3, x)
    t = torch.tensor(0.3, dtype=torch.float64)
    for time in (t, t.expand(1), t.expand(4), t.expand(4, 1, 1)):
        torch.testing.assert_close(m.score(time, x), expected, rtol=1e-13, atol=1e-13)
    with pytest.raises(ShapeError, match="t"):
        m.score(torch.zeros(3), x)
    with pytest.raises(OptionError, match=r"1\.3"):
        mixture("full").under(VP()).score(1.3, x[:, 0, :])


def test_errors() -> None:
    m = mixture("isotropic").under(VP())
    with pytest.raises(ShapeError, match=r"\(B, 3\)"):
        m.score(0.3, torch.zeros(2, 4))
    with pytest.raises(InterfaceError, match="dtype"):
        m.score(0.3, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(UnknownNameError, match="classes"):
        m.score(0.3, torch.zeros(2, 3), classes=1)
    with pytest.raises(UnknownNameError, match="classes"):
        m.bind(classes=1).data(0.3, torch.zeros(2, 3))
    with pytest.raises(OptionError, match="score"):
        m.predict("scores", 0.3, torch.zeros(2, 3))
    x: Any = torch.zeros(2, 3)
    for swapped in (m.score, m.data, m.velocity, m.log_prob, m.jacobian):
        for state in (x, x[:1, :1]):
            with pytest.raises(InterfaceError, match=r"^x: got float"):
                swapped(state, 0.5)
    for t in ("a", None, [0.5], 1j, torch.tensor(1j)):
        with pytest.raises(InterfaceError, match=r"^t: got"):
            m.score(t, x)
    for t in (math.nan, math.inf, 10**400):
        with pytest.raises(OptionError, match=r"^t: got"):
            m.score(t, x)
    assert m.score(0.3, torch.zeros(0, 3)).shape == (0, 3)
    assert m.jacobian(0.3, torch.zeros(0, 3)).shape == (0, 3, 3)


def test_is_a_model_of_its_process() -> None:
    """What planners read: the native prediction and its conversions agree with the exact answers."""
    process = VP()
    m = mixture("full").under(process)
    x = m.sample(0.4, 5)
    assert m.predicts == "data"
    for want in ("noise", "score", "velocity", "v"):
        y, k = m.coefficients(want, 0.4)
        torch.testing.assert_close(y * x + k * m.network(0.4, x), getattr(m, want)(0.4, x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(m.predict((0.3, -2.0), 0.4, x), 0.3 * m.data(0.4, x) - 2 * m.noise(0.4, x))
    torch.testing.assert_close(m.net(x, torch.full((5,), 0.4).double()), m.data(0.4, x))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_the_marginal(kind: str) -> None:
    """Mean and covariance within 4.5 standard errors at a fixed seed."""
    process, n, t = VP(), 20_000, 0.25
    g = mixture(kind)
    x = g.under(process).sample(t, n, seed=11)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    cov = alpha**2 * g.cov + sigma**2 * torch.eye(3)
    z = (x.mean(0) - alpha * g.mean) / torch.sqrt(torch.diagonal(cov) / n)
    assert z.abs().max() < 4.5
    centred = x - alpha * g.mean
    products = centred[:, :, None] * centred[:, None, :]
    z = (products.mean(0) - cov) / (products.std(0) / math.sqrt(n))
    assert z.abs().max() < 4.5
    doubled = (products.mean(0) - cov - 0.1 * torch.eye(3)) / (products.std(0) / math.sqrt(n))
    assert doubled.abs().max() > 4.5  # a variance that is off by 0.1 shows
