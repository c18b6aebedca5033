"""Whole laws of outputs: against exact moments, nested quadrature, samples, and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from sdekit import EDM, VP, RectifiedFlow, grids, solvers, targets
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.metrics import output_law, plan_law_error, segments
from sdekit.metrics.bumps import Bumps
from sdekit.plan import Plan, interpret

ONE = targets.gaussian([0.7], 0.25)
TWO = targets.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [0.09, 0.25])


def plan_of(name: str, steps: int, process: Any = None, tau: float | None = None, **options: Any) -> Plan:
    process = VP() if process is None else process
    times = getattr(grids, process.default_grid)(process, steps)
    return solvers.get(name, **options).plan(process, times, tau)


CHAINS = [
    ("ddpm", {}, None),
    ("ddim", {"eta": 0.5}, None),
    ("euler_maruyama", {}, 1.0),
    ("exp_adams", {"order": 1}, 0.7),
    ("euler_ancestral", {}, None),
    ("splitting", {}, None),
    ("ddim", {}, None),
    ("dpmpp_2m", {}, None),
    ("unipc", {}, None),
    ("rk4", {}, None),
    ("edm_heun", {"churn": 3.0}, None),
]


@pytest.mark.parametrize(("name", "options", "tau"), CHAINS)
@pytest.mark.parametrize("start", ["marginal", (0.3, 1.2)], ids=["marginal", "other"])
def test_gaussians_have_their_exact_law(name: str, options: dict[str, Any], tau: float | None, start: Any):
    plan = plan_of(name, 5, EDM() if name == "edm_heun" else VP(), tau, **options)
    law = output_law(plan, ONE, start=start)
    first = {} if start == "marginal" else {"start_mean": start[0], "start_cov": start[1] ** 2}
    exact = plan.gaussian_moments([0.7], 0.25, **first)
    assert law.mean == pytest.approx(float(exact.mean), rel=1e-11, abs=1e-12)
    assert law.variance == pytest.approx(float(exact.cov), rel=1e-11)
    assert float(law.masses.sum()) == pytest.approx(1, abs=1e-14)
    found, expected = law.distance(), plan_law_error(plan, ONE, start=start)
    assert found.w2 == pytest.approx(expected.w2, rel=1e-9)
    assert found.kl == pytest.approx(expected.kl, rel=1e-9)
    against = law.distance("data").w2
    assert against == pytest.approx(plan_law_error(plan, ONE, start=start, against="data").w2, rel=1e-9)


def test_total_variation_is_its_integral():
    from scipy.integrate import quad
    from scipy.stats import norm

    plan = plan_of("ddpm", 6)
    law = output_law(plan, ONE)
    alpha, sigma = plan.end
    p: Any = norm(law.mean, math.sqrt(law.variance)).pdf  # pyright: ignore[reportAttributeAccessIssue]
    q: Any = norm(alpha * 0.7, math.sqrt(alpha**2 * 0.25 + sigma**2)).pdf  # pyright: ignore[reportAttributeAccessIssue]
    expected = 0.5 * quad(lambda x: abs(p(x) - q(x)), -6, 8, limit=400, points=[0, 0.5, 1, 1.5])[0]
    assert law.distance().tv == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "euler_maruyama"])
def test_mixtures_by_nested_quadrature(name: str):
    """Two steps: start and both noises by Gauss and Hermite's rule, all combinations."""
    plan = solvers.get(name).plan(VP(), [0.9, 0.6, 0.4], 1.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, w = torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))
    alpha, sigma = plan.start
    expected = dict.fromkeys(("cos", "square"), 0.0)
    model = TWO.under(VP())
    for share, mean, variance in zip(TWO.weights, TWO.means[:, 0], (0.09, 0.25), strict=True):
        x = alpha * mean + math.sqrt(alpha**2 * variance + sigma**2) * z
        x, one, two = (v.reshape(-1) for v in torch.meshgrid(x, z, z, indexing="ij"))
        mass = torch.einsum("i,j,k->ijk", w, w, w).reshape(-1)
        noises = {0: one, 1: two}
        end = interpret(plan, lambda row, p: model.data(row.t, p[:, None])[:, 0], x, lambda step, _, v=noises: v[step])
        expected["cos"] += float(share * (mass @ torch.cos(3 * end)))
        expected["square"] += float(share * (mass @ end.square()))
    law = output_law(plan, TWO)
    assert law.expectation(lambda x: torch.cos(3 * x)) == pytest.approx(expected["cos"], abs=1e-9)
    assert law.expectation(torch.square) == pytest.approx(expected["square"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "process"), [("ddpm", VP()), ("ddpm", RectifiedFlow()), ("dpmpp_2m", VP()), ("unipc", RectifiedFlow())]
)
def test_mixtures_by_samples(name: str, process: Any):
    """The mutant: a law without the noise of its last step is told apart."""
    plan, n = plan_of(name, 7, process), 40_000
    model, generator = TWO.under(process), torch.Generator().manual_seed(0)
    x = model.sample(plan.times[0], n, seed=1)[:, 0]
    noise = {i: torch.randn(n, generator=generator, dtype=torch.float64) for i in range(7)}
    end = interpret(plan, lambda row, p: model.data(row.t, p[:, None])[:, 0], x, lambda step, _: noise[step])
    law = output_law(plan, TWO)
    for f in (torch.cos, torch.square, lambda x: torch.sin(3 * x)):
        values = f(end)
        assert abs(law.expectation(f) - float(values.mean())) < 4.5 * float(values.std()) / math.sqrt(n)
    matched = torch.quantile(end, torch.tensor([0.1, 0.5, 0.9]).double())
    below = torch.from_numpy(np.interp([0.1, 0.5, 0.9], law.below.numpy(), law.points.numpy()))
    torch.testing.assert_close(matched, below, atol=0.03, rtol=0)


def test_finer_grids_agree():
    for plan, tolerance in ((plan_of("ddpm", 6), 1e-8), (plan_of("ddim", 6), 1e-6)):
        coarse, fine = (output_law(plan, TWO, finer=f) for f in (1.0, 1.7))
        one, two = coarse.distance(), fine.distance()
        assert len(fine.points) > 1.2 * len(coarse.points)
        assert one.w2 == pytest.approx(two.w2, rel=1e-4)  # quantiles jump across the gap between components
        assert one.kl == pytest.approx(two.kl, rel=tolerance)
        assert one.tv == pytest.approx(two.tv, rel=1e-3)
    rough = output_law(plan_of("ddpm", 6), TWO, finer=0.25).distance()  # the mutant: a grid that is too coarse
    fine = output_law(plan_of("ddpm", 6), TWO).distance()
    assert abs(rough.w2 / fine.w2 - 1) > 1e-6


def test_the_order_of_the_law_shows_without_sampling():
    errors = [output_law(plan_of("ddpm", n), TWO).distance().w2 for n in (10, 20, 40)]
    assert 0.7 < math.log2(errors[1] / errors[2]) < 1.2


@pytest.mark.slow
def test_folds_leave_the_quantiles():
    """A map that is not monotone: W2 by rank is still right, densities are not given."""
    sharp = targets.GaussianMixture([1.0, 1.0], [[-2.0], [2.0]], 0.01)
    plan = plan_of("dpm_solver_3", 3)
    law = output_law(plan, sharp)
    assert law.folded
    found = law.distance()
    assert (found.tv, found.kl) == (None, None)
    n = 50_000
    model = sharp.under(VP())
    x = model.sample(plan.times[0], n, seed=1)[:, 0]
    end = interpret(plan, lambda row, p: model.data(row.t, p[:, None])[:, 0], x).sort().values
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    matched = law.exact.quantile(ranks, 1 - ranks, end)
    assert found.w2 == pytest.approx(float((end - matched).square().mean().sqrt()), rel=0.03)


def test_point_masses():
    points = targets.GaussianMixture([1.0, 3.0], [[-1.0], [1.0]], 0.0)
    law = output_law(solvers.get("ddpm").plan(VP(), [0.9, 0.7, 0.5, 0.4], 1.0), points)
    assert 0 < law.distance().w2 < 0.5
    with pytest.raises(OptionError, match="point masses"):
        law.distance("data")
    with pytest.raises(OptionError, match="point masses"):
        output_law(plan_of("ddim", 5, RectifiedFlow()), points)


def normal(z):
    """The distribution function with the digits of its tail."""
    return torch.from_numpy(ndtr(z.numpy()))


def test_bumps_keep_both_tails():
    bumps = Bumps.of(*torch.tensor([[3.0, 0.0], [0.5, 1.0], [0.4, 0.6]], dtype=torch.float64))
    x = torch.tensor([-12.0, -3.0, 1.0, 4.0, 8.0], dtype=torch.float64)
    below, above = bumps.tails(x)
    lower = 0.6 * normal(x) + 0.4 * normal((x - 3) / 0.5)
    upper = 0.6 * normal(-x) + 0.4 * normal(-(x - 3) / 0.5)
    torch.testing.assert_close(below, lower, rtol=1e-14, atol=0)
    torch.testing.assert_close(above, upper, rtol=1e-14, atol=0)
    torch.testing.assert_close(bumps.quantile(below, above, torch.zeros(5).double()), x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "tau", "why"),
    [
        ("dpmpp_2m_sde", None, "earlier steps"),
        ("dpmpp_sde", None, "noise"),
        ("seeds_3", 1.0, "noise"),
    ],
)
def test_plans_that_are_no_chain_are_refused(name: str, tau: float | None, why: str):
    with pytest.raises(SolverMismatchError, match=why):
        output_law(plan_of(name, 6, tau=tau), TWO)


def test_what_is_refused():
    plan = plan_of("ddpm", 6)
    with pytest.raises(InterfaceError, match="one dimension"):
        output_law(plan, targets.ring())
    with pytest.raises(InterfaceError):
        output_law(plan, "two")  # type: ignore[arg-type]
    wrong: list[dict[str, Any]] = [{"start": "x"}, {"start": 2.0}, {"start": (0.0, 0.0)}, {"finer": 0.0}]
    for options in (*wrong, {"max_points": 100}, {"max_points": 0}):
        with pytest.raises(OptionError):
            output_law(plan, TWO, **options)
    with pytest.raises(OptionError, match="against"):
        output_law(plan, TWO).distance("noise")


def test_segments_end_at_noise():
    found = segments.segments(plan_of("ddpm", 4))
    assert [(s.first, s.last, s.std > 0) for s in found] == [
        (0, 1, True),
        (1, 2, True),
        (2, 3, True),
        (3, 4, True),
        (4, 4, False),
    ]
    assert [(s.first, s.last) for s in segments.segments(plan_of("dpmpp_2m", 4))] == [(0, 4)]
