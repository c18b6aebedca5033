"""Samplers of other libraries on our problems: where a method is ours too, so are its results and its law."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

import sdekit
from sdekit import targets
from sdekit.bench import peers
from sdekit.bench.peers import base
from sdekit.errors import MissingPackageError, OptionError, UnknownNameError

EDM = sdekit.EDM()
MIXTURE = targets.random_mixture(3, 4, 1, std=(0.3, 0.6)).under(EDM)
MEAN = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
VARIANCE = torch.tensor([0.04, 0.5, 3.0], dtype=torch.float64)
INSTALLED = {name: p for name, p in peers.PEERS.items() if base.installed(p.package)}

# Ours, and the same of others.
FLOWS = {
    "ddim": ("k-diffusion:euler", "azula:DDIM", "azula:Euler", "diffusers:Euler"),
    "heun": ("k-diffusion:heun", "azula:Heun"),
    "dpm_solver_2": ("k-diffusion:dpm_2",),
    "dpmpp_2s": ("k-diffusion:dpmpp_2s",),
    "dpmpp_2m": ("k-diffusion:dpmpp_2m",),
    "lms": ("k-diffusion:lms", "diffusers:LMS"),
}
LAWS = {
    "euler_ancestral": ("k-diffusion:euler_ancestral", "azula:DDPM", "diffusers:EulerAncestral"),
    "dpmpp_sde": ("k-diffusion:dpmpp_sde",),
    "dpmpp_2m_sde": ("k-diffusion:dpmpp_2m_sde",),
    "dpmpp_2s_ancestral": ("k-diffusion:dpmpp_2s_ancestral",),
}


def levels(steps: int) -> torch.Tensor:
    return torch.linspace(1.5, -1.5, steps + 1, dtype=torch.float64).exp()


def pairs(table: dict[str, tuple[str, ...]]) -> list[object]:
    missing = pytest.mark.skip(reason="the package is not installed")
    return [
        pytest.param(ours, name, marks=() if name in INSTALLED else missing)
        for ours, names in table.items()
        for name in names
    ]


def flow_errors(peer: peers.Peer, counts: tuple[int, ...]) -> Iterator[float]:
    for steps in counts:
        grid = levels(steps)
        y = MIXTURE.sample(float(grid[0]), 8, seed=0)
        exact = MIXTURE.flow(y, float(grid[0]), float(grid[-1]))
        yield float((peer.run(peers.Trial(MIXTURE.data, grid, y.clone())) - exact).norm() / exact.norm())


@pytest.mark.parametrize("ours, theirs", pairs(FLOWS))
def test_the_same_flow(ours, theirs):
    grid = levels(12)
    y = MIXTURE.sample(float(grid[0]), 8, seed=0)
    solution = sdekit.solve(MIXTURE, y, grid, ours)
    trial = peers.Trial(MIXTURE.data, grid, y.clone())
    found = peers.get(theirs).run(trial)
    bound = 1e-5 if theirs.startswith("diffusers") else 1e-9  # some schedulers work in float32
    assert torch.allclose(found, solution.x, rtol=bound, atol=bound)
    assert trial.calls == peers.get(theirs).calls(12) == int(solution.nfe.max())


@pytest.mark.parametrize("ours, theirs", pairs(LAWS))
def test_the_same_law(ours, theirs):
    grid = levels(12)
    solver = sdekit.solvers.get(ours)
    plan = solver.plan(EDM, grid, solver.implied_stochasticity)
    exact, found = plan.gaussian_moments(MEAN, VARIANCE), peers.law_of(peers.get(theirs), MEAN, VARIANCE, grid)
    bound = 1e-5 if theirs.startswith("diffusers") else 1e-9
    assert torch.allclose(found.mean, exact.mean, rtol=0, atol=bound)
    assert torch.allclose(found.variance, exact.cov, rtol=bound, atol=0)
    assert found.calls == plan.nfe


def reverse_sde(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance after steps of Euler and Maruyama on dy = 2 (y - E[x_0 | y]) / rho drho + sqrt(2 rho) dW."""
    grid = levels(steps)
    mean, variance = MEAN, VARIANCE + grid[0] ** 2
    for rho, after in itertools.pairwise(grid.tolist()):
        slope, h = 2 * rho / (VARIANCE + rho**2), rho - after  # of y - mean
        mean, variance = MEAN + (1 - h * slope) * (mean - MEAN), (1 - h * slope) ** 2 * variance + 2 * rho * h
    return mean, variance


def test_torchsde_takes_the_steps_of_the_reverse_sde():
    law = peers.law_of(peers.get("torchsde:euler"), MEAN, VARIANCE, levels(12))
    mean, variance = reverse_sde(12)
    torch.testing.assert_close(law.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(law.variance, variance, rtol=1e-12, atol=0)
    assert law.calls == 12


@pytest.mark.parametrize("name, calls, order", [("euler", 1, 1), ("srk", 2, 2), ("heun", 2, 2), ("midpoint", 2, 2)])
def test_laws_of_torchsde_have_their_weak_orders(name, calls, order):
    peer, errors = peers.get(f"torchsde:{name}"), []
    for steps in (60, 120):
        law = peers.law_of(peer, MEAN, VARIANCE, levels(steps))
        errors.append(float((law.variance - VARIANCE - levels(steps)[-1] ** 2).abs().max()))
    assert order - 0.25 < math.log2(errors[0] / errors[1]) < order + 0.4
    assert peer.calls(20) == 20 * calls


def test_the_motion_and_its_integral_have_their_joint_law():
    """W and U = int W over a step of length h: variances h and h^3 / 3, covariance h^2 / 2, asked for in any order."""
    from sdekit.bench.peers.torchsde import _Motion

    h, basis = 0.7, iter(torch.eye(2, dtype=torch.float64))
    trial = peers.Trial(lambda rho, y: y, levels(1), torch.zeros(1, 2, dtype=torch.float64), lambda: next(basis))
    motion = _Motion(trial, h)
    again, (w, u) = motion(0.0, h), motion(0.0, h, return_U=True)
    assert again is w and motion(0.0, h, return_U=True)[1] is u
    law = torch.cat([w, u], 1).T @ torch.cat([w, u], 1)
    wanted = torch.tensor([[h, h**2 / 2], [h**2 / 2, h**3 / 3]], dtype=torch.float64)
    torch.testing.assert_close(law, wanted, rtol=1e-14, atol=0)


def test_levels_are_not_rounded_on_their_way_to_the_denoiser():
    seen = []
    trial = peers.Trial(lambda rho, y: (seen.append(rho), y)[1], levels(1), torch.zeros(1, 1, dtype=torch.float64))
    for rho in (0.1, torch.tensor(0.1, dtype=torch.float64), torch.tensor([0.1, 0.1], dtype=torch.float64)):
        trial.data(rho, trial.y)
    assert seen == [0.1] * 3


def test_a_law_from_too_few_draws_is_refused():
    if "k-diffusion:euler_ancestral" not in INSTALLED:
        pytest.skip("k-diffusion is not installed")
    with pytest.raises(OptionError, match="draws"):
        peers.law_of(peers.get("k-diffusion:euler_ancestral"), MEAN, VARIANCE, levels(12), draws=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n, p in INSTALLED.items() if p.kind == "deterministic"))
def test_each_of_them_converges(name):
    coarse, fine = flow_errors(INSTALLED[name], (16, 64))
    assert fine < coarse / 3.4 and coarse < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n, p in INSTALLED.items() if p.kind == "weak"))
def test_each_law_converges(name):
    errors = []
    for steps in (16, 64):
        law = peers.law_of(INSTALLED[name], MEAN, VARIANCE, levels(steps))
        exact = VARIANCE + levels(steps)[-1] ** 2
        errors.append(float(((law.variance - exact) / exact).abs().max()))
    assert errors[1] < errors[0] / 3 and errors[0] < 0.4


def test_what_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(base, "installed", lambda package: None)
    with pytest.raises(MissingPackageError, match="pip install azula"):
        peers.get("azula:DDIM").require()


def test_near_names_are_suggested():
    with pytest.raises(UnknownNameError, match="k-diffusion:dpmpp_2m"):
        peers.get("k-diffusion:dpmpp2m")
