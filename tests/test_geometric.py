"""Geometric Brownian motion: moments, densities, scores and paths against each other and against the equation."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit
from sdekit import GeometricBrownianMotion
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.testing import fokker_planck_residual

F64 = torch.float64
GBM = GeometricBrownianMotion(0.4, 0.6)
X = torch.tensor([[0.5, 2.0], [1.5, -1.0], [3.0, -0.2]], dtype=F64)


def test_the_density_solves_the_equation_of_the_sde() -> None:
    to = X * torch.tensor([[1.3, 0.7]], dtype=F64)
    fair = fokker_planck_residual(GBM, lambda t, y: GBM.log_prob(0.2, t, X, y), 0.9, to)
    assert fair.abs().max() < 1e-12
    other = GeometricBrownianMotion(0.4, 0.61)
    assert fokker_planck_residual(other, lambda t, y: GBM.log_prob(0.2, t, X, y), 0.9, to).abs().max() > 1e-2
    score = torch.func.grad(lambda y: GBM.log_prob(0.2, 0.9, X, y).sum())(to)
    torch.testing.assert_close(GBM.score(0.2, 0.9, X, to), score, rtol=1e-13, atol=1e-13)


def test_the_density_has_mass_one_and_the_moments() -> None:
    # In log x the density is smooth: the trapezoidal rule is exact to rounding.
    u = torch.linspace(-8, 8, 2001, dtype=F64)[:, None]
    x, start = torch.exp(u), torch.full_like(u, 1.3)
    mass = torch.exp(GBM.log_prob(0.0, 0.7, start, x)) * x[:, 0] * (u[1, 0] - u[0, 0])
    mean, std = GBM.moments(0.0, 0.7, torch.tensor([[1.3]], dtype=F64))
    assert float(mass.sum()) == pytest.approx(1, rel=1e-12)
    assert float((mass * x[:, 0]).sum()) == pytest.approx(float(mean), rel=1e-12)
    assert float((mass * (x[:, 0] - mean) ** 2).sum()) == pytest.approx(float(std**2), rel=1e-10)
    assert float(mean) == pytest.approx(1.3 * math.exp(0.4 * 0.7), rel=1e-14)


def test_transitions_compose() -> None:
    whole, parts = GBM.transition(0.1, 1.1), [GBM.transition(0.1, 0.5), GBM.transition(0.5, 1.1)]
    assert float(whole[0]) == pytest.approx(float(parts[0][0] + parts[1][0]), rel=1e-14)
    assert float(whole[1]) == pytest.approx(float(torch.hypot(parts[0][1], parts[1][1])), rel=1e-14)
    each = GBM.transition(torch.tensor([0.0, 0.1]), torch.tensor([0.5, 0.5]))
    assert each[0].shape == (2,) and each[0].dtype == F64
    assert GBM.transition(0.3, 0.3)[1] == 0


def test_paths_are_exact_in_law_and_keyed_by_row() -> None:
    x0 = torch.full((20_000, 2), 1.5, dtype=F64)
    x0[:, 1] = -0.5
    path = GBM.simulate(x0, [0.0, 0.3, 1.0], seed=3)
    assert path.shape == (3, 20_000, 2) and torch.equal(path[0], x0)
    for k, t in ((1, 0.3), (2, 1.0)):
        shift, std = GBM.transition(0.0, t)
        z = (torch.log(path[k] / x0) - shift) / std
        assert z.mean(0).abs().max() < 5 / 20_000**0.5 and (z.var(0) - 1).abs().max() < 5 * (2 / 20_000) ** 0.5
    assert (path[:, :, 1] < 0).all()
    torch.testing.assert_close(GBM.simulate(x0[:7], [0.0, 0.3, 1.0], seed=3), path[:, :7], rtol=0, atol=0)
    assert not torch.equal(GBM.simulate(x0[:7], [0.0, 0.3, 1.0], seed=4)[1], path[1, :7])
    assert GBM.simulate(x0[:2].half(), [0.0, 1.0], seed=0).dtype == torch.float16


def test_solvers_follow_its_moments() -> None:
    x0 = torch.ones(20_000, 1, dtype=F64)
    out = sdekit.solve(GBM, x0, [0.0, 0.5], "euler_maruyama", steps=50, seed=0).x
    mean, std = GBM.moments(0.0, 0.5, x0[:1])
    assert abs(float(out.mean() - mean)) < 5 * float(std) / 20_000**0.5 + 2e-3
    assert float(out.std()) == pytest.approx(float(std), rel=0.04)


def test_bad_arguments_are_named() -> None:
    assert repr(GBM) == "GeometricBrownianMotion(mu=0.4, sigma=0.6)" and GeometricBrownianMotion(0.4, 0.6) == GBM
    with pytest.raises(OptionError, match="sigma: got 0"):
        GeometricBrownianMotion(0.1, 0.0)
    with pytest.raises(OptionError, match="mu: got nan"):
        GeometricBrownianMotion(math.nan, 1.0)
    with pytest.raises(InterfaceError, match="mu: got 'a'"):
        GeometricBrownianMotion("a", 1.0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"t_to: got a time 0\.5 before t_from"):
        GBM.transition(1.0, 0.5)
    with pytest.raises(OptionError, match="t_to: got t_to = t_from"):
        GBM.log_prob(0.5, 0.5, X, X)
    with pytest.raises(ShapeError, match="x_to: got shape"):
        GBM.score(0.0, 0.5, X, X[:1])
    with pytest.raises(OptionError, match="increasing"):
        GBM.simulate(X, [1.0, 0.0])
    with pytest.raises(InterfaceError, match="x0: got list"):
        GBM.simulate([1.0], [0.0, 1.0])  # type: ignore[arg-type]
    assert GBM.log_prob(0.0, 0.5, X, -X).tolist() == [-math.inf] * 3
