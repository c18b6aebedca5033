"""Gaussian-preconditioned exponential integrators: exact on their Gaussian, their order, and their two limits."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from benchmarks.preconditioned import POINTS, errors
from sdekit import targets
from sdekit.errors import OptionError, ShapeError
from sdekit.plan import Plan, Row
from sdekit.plan.coefficients import Block, Direction
from sdekit.solvers import Order, PlanSolver
from sdekit.solvers.preconditioned import centred, moments_of
from sdekit.testing import observed_order, order_problems

VP, EDM, RF, VE = sdekit.VP(), sdekit.EDM(), sdekit.RectifiedFlow(), sdekit.VE(0.01, 50.0)
PROCESSES = {"vp": VP, "edm": EDM, "rf": RF}
FORMS = ("interpolating", "data")
GENERATOR = torch.Generator().manual_seed(3)
ROOT = torch.randn(4, 4, dtype=torch.float64, generator=GENERATOR)
COV = ROOT @ ROOT.T / 4 + 0.1 * torch.eye(4, dtype=torch.float64)
MEAN = torch.tensor([1.5, -2.0, 0.3, 0.0], dtype=torch.float64)
VARIANCES: dict[str, Any] = {
    "number": 0.6,
    "direction": torch.tensor([0.0, 0.2, 1.0, 5.0], dtype=torch.float64),
    "covariance": COV,
}
LAMBDAS = (-2.5, -1.1, 0.4, 0.9, 2.0)


def ours(variance: Any = 1.0, **options) -> PlanSolver:
    if isinstance(variance, Tensor) and variance.ndim == 2:
        variance = Block(variance.numpy())
    return sdekit.solvers.get("preconditioned_adams", data_variance=variance, **options)


def at(process, lambdas: Sequence[float] = LAMBDAS) -> list[float]:
    return process.time_at(torch.tensor(lambdas, dtype=torch.float64)).tolist()


def matrix(variance: Any) -> Tensor:
    if isinstance(variance, float):
        return variance * torch.eye(4, dtype=torch.float64)
    return torch.diag(variance) if variance.ndim == 1 else variance


def gaussian_flow(process, mean: Tensor, cov: Tensor, x: Tensor, s: float, t: float) -> Tensor:
    """alpha_t m + S_t^(1/2) S_s^(-1/2) (x - alpha_s m), S = alpha^2 C + sigma^2."""
    values, vectors = torch.linalg.eigh(cov)
    (a0, s0), (a1, s1) = ((float(process.alpha(v)), float(process.sigma(v))) for v in (s, t))
    gain = torch.sqrt((a1**2 * values + s1**2) / (a0**2 * values + s0**2))
    return a1 * mean + ((x - a0 * mean) @ vectors * gain) @ vectors.T


def miss(solver: PlanSolver, process, mean: Tensor, cov: Tensor, times: list[float]) -> float:
    """The largest distance from the exact flow of the Gaussian."""
    model = targets.gaussian(mean, cov).under(process)
    x = torch.randn(5, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = sdekit.solve(model, x, times, solver).x
    return float((found - gaussian_flow(process, mean, cov, x, times[0], times[-1])).abs().max())


@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("order, starter", [(1, "ramp"), (2, "ramp"), (4, "ramp"), (4, "single_step")])
def test_it_is_exact_on_its_gaussian(order, starter, kind):
    """Of any mean, without knowing it, in one step and in several, on every process, down and up."""
    cov = matrix(VARIANCES[kind])
    for form, (name, process) in itertools.product(FORMS, PROCESSES.items()):
        solver = ours(VARIANCES[kind], order=order, starter=starter, form=form)
        for lambdas in (LAMBDAS[::4], LAMBDAS):
            assert miss(solver, process, MEAN, cov, at(process, lambdas)) < 2e-13, (form, name, lambdas)
        # Upwards the mean is found where the data prediction is nearly the state: digits are lost.
        assert miss(solver, process, MEAN, cov, at(process)[::-1]) < 2e-12, (form, name)


@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("form", FORMS)
def test_with_mean_zero_it_is_exact_on_a_centred_gaussian_alone(form, kind):
    solver, cov = ours(VARIANCES[kind], form=form, mean="zero"), matrix(VARIANCES[kind])
    assert miss(solver, VP, 0 * MEAN, cov, at(VP)) < 2e-13
    assert miss(solver, VP, MEAN, cov, at(VP)) > 1e-3


def test_another_variance_is_not_exact():
    """The mutants: a variance 10 % too large, and the mean of the variances for each direction."""
    assert miss(ours(0.66), VP, MEAN, matrix(0.6), at(VP)) > 1e-3
    assert miss(ours(float(VARIANCES["direction"].mean())), VP, MEAN, matrix(VARIANCES["direction"]), at(VP)) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_from_alpha_0_it_is_exact_too(form):
    """From pure noise to a level, where the first step has no log-SNR to begin at."""
    times = [1.0, 0.9, 0.4, 0.2]
    for variance in VARIANCES.values():
        cov = matrix(variance)
        model = targets.gaussian(MEAN, cov).under(RF)
        x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for solver, mean in ((ours(variance, form=form), MEAN), (ours(variance, form=form, mean="zero"), 0 * MEAN)):
            model = targets.gaussian(mean, cov).under(RF)
            velocity = sdekit.Model(lambda x, t, m=model: m.velocity(t, x), RF, "velocity")
            found = sdekit.solve(velocity, x, times, solver).x
            assert float((found - gaussian_flow(RF, mean, cov, x, 1.0, 0.2)).abs().max()) < 2e-13


def test_to_sigma_0_it_ends_at_the_data_prediction():
    plan = ours().plan(RF, [0.9, 0.5, 0.0])
    assert plan.rows[-1].weights == (1.0, 0.0) and plan.rows[-1].base is not None
    assert plan.rows[-1].base.base == 0.0 and plan.rows[-1].base.outputs == ((0, 1.0),)


MIXTURE = targets.random_mixture(4, 3, seed=1)


def run(solver: Any, process=VP, lambdas: Sequence[float] = LAMBDAS, target=MIXTURE) -> Tensor:
    model, times = target.under(process), at(process, lambdas)
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = x * float(process.alpha(times[0])) * 3
    return sdekit.solve(model, x, times, solver).x


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_small_variances_are_data_prediction_and_large_ones_noise_prediction(order):
    data, noise = (run(sdekit.solvers.get("exp_adams", order=order, prediction=p)) for p in ("data", "noise"))
    for c in (0.0, 1e-13):
        assert apart(run(ours(c, order=order, mean="zero")), data) < 1e-10
        assert apart(run(ours(c, order=order)), data) < 1e-10
        assert apart(run(ours(c, order=order, form="data")), data) < 1e-10
    assert apart(run(ours(1e14, order=order, mean="zero")), noise) < 1e-10
    if order > 1:  # order 1 is the same in both predictions
        assert apart(data, noise) > 1e-3
        assert apart(run(ours(1e14, order=order, form="data", mean="zero")), noise) > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_weights_integrate_polynomials_below_the_order(order, form):
    """Against an adaptive quadrature of (R_t / (g R)) lambda^k, over an uneven last step; not one degree more."""
    from scipy.integrate import quad

    c = 0.7
    row = ours(c, order=order, form=form, mean="zero").plan(EDM, at(EDM)).rows[-1]
    assert row.base is not None and len(row.base.outputs) == order
    start, end = LAMBDAS[-2:]

    def weight(lam: float) -> float:
        rho, last = math.exp(-lam), math.exp(-end)
        root, end_root = math.sqrt(c + rho**2), math.sqrt(c + last**2)
        return end_root * rho / root**2 if form == "interpolating" else end_root / root

    gaps = []
    for k in range(order + 1):
        exact, _ = quad(lambda lam, k=k: weight(lam) * lam**k, start, end, epsabs=1e-14, epsrel=1e-13)
        gaps.append(abs(sum(b * LAMBDAS[-2 - age] ** k for age, b in row.base.outputs) - exact))  # type: ignore[operator]
    assert max(gaps[:-1]) < 1e-12 and gaps[-1] > 1e-4


@pytest.mark.parametrize("clock", ["rho", "kappa", "t"])
def test_weights_integrate_polynomials_in_the_clock(clock):
    """Not one degree more."""
    from scipy.integrate import quad

    c, order, process = 0.7, 3, VP
    plan = ours(c, order=order, mean="zero", clock=clock).plan(process, at(process))
    row, alpha = plan.rows[-1], plan.end[0]
    assert row.base is not None and len(row.base.outputs) == order
    start, end = LAMBDAS[-2:]

    def value(lam: float) -> float:
        return {"rho": math.exp(-lam), "kappa": math.exp(lam), "t": float(process.time_at(lam))}[clock]

    def weight(lam: float) -> float:
        rho, last = math.exp(-lam), math.exp(-end)
        return math.sqrt(c + last**2) * rho / (c + rho**2)

    gaps = []
    for k in range(order + 1):
        exact, _ = quad(lambda lam, k=k: weight(lam) * value(lam) ** k, start, end, epsabs=1e-14, epsrel=1e-13)
        found = sum(b / alpha * value(LAMBDAS[-2 - age]) ** k for age, b in row.base.outputs)  # type: ignore[operator]
        gaps.append(abs(found - exact) / abs(exact))
    assert max(gaps[:-1]) < 1e-11 and gaps[-1] > 1e-5


@pytest.mark.parametrize("clock, order", [("rho", 3), ("kappa", 2), ("t", 4), ("lambda", 5)])
def test_the_order_in_other_clocks(clock, order):
    solver = ours(0.8, order=order, clock=clock, starter="single_step")
    assert solver.declared.deterministic == order
    found = observed_order(solver)
    assert order - 0.15 <= found.value <= order + 0.35, str(found)
    assert ours(order=7, starter="single_step").declared.deterministic == 5


@pytest.mark.parametrize("form, mean", [("interpolating", "any"), ("interpolating", "zero"), ("data", "any")])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_order(order, form, mean):
    solver = ours(0.8, order=order, form=form, mean=mean, starter="single_step")
    assert solver.declared.deterministic == order and not solver.declared.note
    found = observed_order(solver, grid="karras", steps=(10, 20, 40))
    assert order - 0.15 <= found.value <= order + 0.35, str(found)


@pytest.mark.parametrize("kind", ["direction", "covariance"])
def test_the_order_with_variances_per_direction(kind):
    problem = order_problems()["vp"]
    variance = problem.target.cov if kind == "covariance" else torch.tensor([0.1, 3.0], dtype=torch.float64)
    found = observed_order(ours(variance, order=3, starter="single_step"), problem=problem, steps=(10, 20, 40))
    assert found.reaches(3), str(found)


@dataclass(frozen=True)
class Distorted(PlanSolver):
    """Mutants: the weights of the two older outputs exchanged, or one coefficient of the state for all directions."""

    kind: str
    fixed_stochasticity = 0.0
    declared = Order(deterministic=3)

    def rows(self, process, times, stochasticity) -> Sequence[Row]:
        right = ours(VARIANCES["direction"][:2], order=3, starter="single_step").rows(process, times, 0.0)
        return [self.changed(row) for row in right]

    def changed(self, row: Row) -> Row:
        if row.base is None or row.step < 4:
            return row
        c, outputs = row.base, dict(row.base.outputs)
        if self.kind == "exchanged":
            outputs[1], outputs[2] = outputs[2], outputs[1]
            return replace(row, base=replace(c, outputs=tuple(outputs.items())))
        assert isinstance(c.base, Direction)
        return replace(row, base=replace(c, base=float(c.base.values.mean())))


def test_wrong_weights_show_in_the_order():
    assert not observed_order(Distorted("exchanged"), steps=(10, 20, 40)).reaches(2.0)


def test_a_coefficient_for_all_directions_shows_on_the_gaussian():
    """Not in the order: what depends on the direction in a coefficient is as small as the error."""
    lambdas = torch.linspace(-2, 2, 8).tolist()
    cov = torch.diag(VARIANCES["direction"][:2])
    assert miss(Distorted("forgotten"), VP, MEAN[:2], cov, at(VP, lambdas)) > 1e-4


@pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES)
def test_invariances(variance):
    """Shift of the data, rotation with the covariance, and the process at the same log-SNR."""
    covs = torch.stack([0.2 * COV, 0.1 * torch.eye(4, dtype=torch.float64)])
    means = torch.stack([MEAN, -0.5 * MEAN])
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3

    def out(change, x, solver, process: sdekit.AffineSDE = EDM) -> Tensor:
        target = targets.GaussianMixture([0.4, 0.6], *change(means, covs))
        return sdekit.solve(target.under(process), x, at(process), solver).x

    solver = ours(variance)
    plain = out(lambda m, c: (m, c), x, solver)
    shifted = out(lambda m, c: (m + MEAN, c), x + MEAN, solver)
    assert apart(shifted, plain + MEAN) < 1e-11
    turn, _ = torch.linalg.qr(ROOT)
    turning = ours(turn @ matrix(variance) @ turn.T)
    turned = out(lambda m, c: (m @ turn.T, turn @ c @ turn.T), x @ turn.T, turning)
    assert apart(turned, plain @ turn.T) < 1e-11
    for process in (VP, RF):
        first, last = (float(process.alpha(t)) for t in (at(process)[0], at(process)[-1]))
        assert apart(out(lambda m, c: (m, c), first * x, solver, process) / last, plain) < 1e-11


def test_samples_with_several_axes():
    """One number for each pixel, or a covariance of channels that the pixels share."""
    channels = COV[:3, :3]
    cov = torch.kron(channels, torch.eye(4, dtype=torch.float64))
    mean = torch.linspace(-1, 1, 12, dtype=torch.float64)
    flat = targets.gaussian(mean, cov).under(VP)
    model = sdekit.Model(lambda x, t: flat.data(t.reshape(-1, 1), x.reshape(-1, 12)).reshape(x.shape), VP, "data")
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    times = at(VP)
    found = sdekit.solve(model, x, times, ours(channels)).x.reshape(3, 12)
    assert apart(found, gaussian_flow(VP, mean, cov, x.reshape(3, 12), times[0], times[-1])) < 2e-13
    each = torch.linspace(0.1, 2.0, 12, dtype=torch.float64)
    flat = targets.gaussian(mean, torch.diag(each)).under(VP)
    found = sdekit.solve(model, x, times, ours(each.reshape(3, 2, 2))).x.reshape(3, 12)
    assert apart(found, gaussian_flow(VP, mean, torch.diag(each), x.reshape(3, 12), times[0], times[-1])) < 2e-13


def test_plans_with_directions_and_matrices_are_values():
    for variance in VARIANCES.values():
        solver, times = ours(variance), at(VP)
        plan = solver.plan(VP, times)
        assert Plan.from_json(plan.to_json()) == plan and solver == ours(variance) and solver.plan(VP, times) is plan
        law = plan.gaussian_moments(MEAN, matrix(variance).numpy())
        alpha, sigma = float(VP.alpha(times[-1])), float(VP.sigma(times[-1]))
        exact = alpha**2 * matrix(variance) + sigma**2 * torch.eye(4, dtype=torch.float64)
        assert apart(law.mean, alpha * MEAN) < 1e-12
        assert apart(law.cov if law.cov.ndim == 2 else torch.diag(law.cov), exact) < 1e-12


def test_equal_variances_are_one_number():
    plans = [
        ours(v).plan(VP, at(VP)).rows for v in (0.5, torch.full((4,), 0.5), 0.5 * torch.eye(4, dtype=torch.float64))
    ]
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize("predicts", ["data", "noise", "score", "velocity", "v"])
def test_a_centred_model_gives_the_same_samples(predicts):
    """Any solver that does not mind shifts ends alpha m away, and mean="zero" is exact on a Gaussian with a mean."""
    exact = targets.gaussian(MEAN, COV).under(VP)
    model = sdekit.Model(lambda x, t: getattr(exact, predicts)(t.reshape(-1, 1), x), VP, predicts)
    times = at(VP)
    first, last = (float(VP.alpha(t)) for t in (times[0], times[-1]))
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for solver in ("dpmpp_2m", ours(COV, mean="zero")):
        found = sdekit.solve(centred(model, MEAN), x - first * MEAN, times, solver).x + last * MEAN
        expected = (
            sdekit.solve(model, x, times, solver).x
            if solver == "dpmpp_2m"
            else (gaussian_flow(VP, MEAN, COV, x, times[0], times[-1]))
        )
        assert apart(found, expected) < 1e-11


def test_moments_of_samples():
    x = targets.gaussian(MEAN, COV).sample(500, seed=0)
    one, each, full = (moments_of(x, per) for per in ("sample", "direction", "covariance"))
    assert apart(one.mean, x.mean(0)) < 1e-14 and apart(full.mean, x.mean(0)) < 1e-14
    assert isinstance(one.variance, float) and one.variance == pytest.approx(float(x.var(0).mean()), rel=1e-12)
    assert isinstance(each.variance, Direction) and np.allclose(each.variance.values, x.var(0), rtol=1e-12)
    assert isinstance(full.variance, Block) and np.allclose(full.variance.matrix, x.T.cov(), rtol=1e-12)
    for moments in (one, each, full):
        assert ours(moments.variance).plan(VP, at(VP)).nfe == 4
    pixels = x.reshape(125, 4, 4).transpose(1, 2)  # channels first, four pixels each
    found = moments_of(pixels, "covariance").variance
    off = (pixels - pixels.mean(0)).transpose(1, 2).reshape(-1, 4)
    assert isinstance(found, Block) and np.allclose(found.matrix, off.T @ off / (124 * 4), rtol=1e-12)
    with pytest.raises(ShapeError, match="samples"):
        moments_of(x[:1])
    with pytest.raises(OptionError, match="direction"):
        moments_of(x, "directions")


@pytest.mark.parametrize(
    "variance",
    [-1.0, math.nan, math.inf, "one", True, torch.tensor([1.0, -0.1]), [], Block(np.array([[1.0, 2.0], [2.0, 1.0]]))],
    ids=["negative", "nan", "inf", "text", "bool", "one negative", "none", "indefinite"],
)
def test_what_is_no_variance_is_refused(variance):
    with pytest.raises(OptionError, match="data_variance"):
        sdekit.solvers.get("preconditioned_adams", data_variance=variance)


def test_wrong_options_are_refused():
    for options in (
        {"order": 21},
        {"order": 0},
        {"clock": "sigma"},
        {"form": "noise"},
        {"mean": "known"},
        {"starter": "none"},
    ):
        with pytest.raises(OptionError, match=next(iter(options))):
            ours(**options)
    with pytest.raises(ShapeError, match="broadcasts"):
        run(ours(torch.ones(3) + torch.arange(3)))


def test_the_page_shows_what_the_benchmark_measures():
    """One row of its first table again."""
    page = (Path(__file__).parents[2] / "docs" / "preconditioned.md").read_text()
    (line,) = re.findall(r"^\| order 3, one variance \|(.*)\|$", page.split("| 16 dimensions")[0], re.MULTILINE)
    shown = [float(v) for v in re.findall(r"\d\.\d{4}", line)]
    found = errors(targets.ring(), only="order 3, one variance")["order 3, one variance"]
    assert POINTS == 256 and np.allclose(shown, np.array(found).ravel(), atol=2e-4)
