"""The log-ODE method: its orders, with areas that W and H leave open and with true ones; and those areas themselves."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError
from sdekit.solvers.base import Increments
from sdekit.solvers.log_ode import LogODE, area_given_increments, log_ode_step
from sdekit.testing import observed_order
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.sde_path import SampledPath
from sdekit.testing.sde_problems import sde_problems
from sdekit.testing.subject import Field

F64 = torch.float64
SDES, POLYNOMIALS = sde_problems(), polynomial_problems()


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def area_over(w: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The Levy area of a step from W and H (cells, paths, motions) of its cells, by Chen's relation."""
    before = torch.zeros_like(w[0])
    total = torch.zeros(*w[0].shape, w.shape[-1], dtype=F64)
    for step, part in zip(w, h, strict=True):
        cross = before[:, :, None] * step[:, None, :]
        total = total + area_given_increments(step, part, 0.0) + 0.5 * (cross - cross.mT)
        before = before + step
    return total


@cache
def true_path(noise: str) -> tuple[Any, SampledPath, torch.Tensor, torch.Tensor]:
    """A problem, a path of 256 cells, and its starts and ends."""
    problem = SDES[noise]
    path = SampledPath(problem.grid("uniform", 256), 100, problem.motions, seed=3)
    start = problem.start(100)
    return problem, path, start, problem.solution(start, path)


def true_area_errors(noise: str, counts: tuple[int, ...], weight: float = 1.0) -> list[float]:
    """Errors of `log_ode_step` with the areas of a path of 256 cells, against where that path leads."""
    problem, path, start, exact = true_path(noise)
    field, errors, cells = Field(problem.form("stratonovich")), [], len(path.lengths)
    for count in counts:
        times, x, r = problem.grid("uniform", count), start, cells // count
        for i, (t0, t1) in enumerate(itertools.pairwise(times)):
            w, h, _ = path.areas[:, i * r : (i + 1) * r]
            x = log_ode_step(field, t0, t1, x, w.sum(0), weight * area_over(w, h))
        errors.append(float((x - exact).square().mean().sqrt()))
    return errors


def slope(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


@pytest.mark.parametrize("noise", ["general", pytest.param("general, down", marks=pytest.mark.slow)])
def test_strong_order_one_with_true_areas(noise: str):
    """Where the noise does not commute; the closed form of the problem is that of a Heisenberg group."""
    errors = true_area_errors(noise, (8, 16, 32))
    assert 0.8 <= slope(errors) <= 1.3, errors
    # Without areas, or with areas of the other sign, the order is 1/2.
    assert slope(true_area_errors(noise, (8, 16, 32), weight=0.0)) < 0.7
    assert slope(true_area_errors(noise, (8, 16, 32), weight=-1.0)) < 0.7


def test_the_heisenberg_sde_is_solved_exactly():
    """dX = dW_1, dY = dW_2, dZ = X dW_2 - Y dW_1: Z moves by X W_2 - Y W_1 + 2 A_12, whatever the step."""

    def g(t, x):
        X, Y, _ = x.unbind(1)
        zero, one = torch.zeros_like(X), torch.ones_like(X)
        return torch.stack([torch.stack([one, zero, -Y], 1), torch.stack([zero, one, X], 1)], 2)

    sde = sdekit.make_sde(lambda t, x: torch.zeros_like(x), g, "general", "stratonovich")
    path = SampledPath([k / 64 for k in range(65)], 50, 2, seed=1)
    w, h, _ = path.areas
    start, total, area = normals(50, 3), w.sum(0), area_over(w, h)
    end = log_ode_step(Field(sde), 0.0, 1.0, start, total, area)
    X, Y, Z = start.unbind(1)
    torch.testing.assert_close(end[:, :2], start[:, :2] + total)
    torch.testing.assert_close(end[:, 2], Z + X * total[:, 1] - Y * total[:, 0] + 2 * area[:, 0, 1])
    # The area of the path is its 64 cells' by the sum over them, X dW_2 - Y dW_1 by the midpoint and areas of cells.
    places = torch.cat([torch.zeros_like(w[:1]), w.cumsum(0)])[:-1] + w / 2
    ito = (places[..., 0] * w[..., 1] - places[..., 1] * w[..., 0]).sum(0) / 2
    inside = (h[..., 0] * w[..., 1] - w[..., 0] * h[..., 1]).sum(0)
    torch.testing.assert_close(area[:, 0, 1], ito + inside)


@pytest.mark.slow
@pytest.mark.parametrize("area", ["mean", "davie_foster"])
@pytest.mark.parametrize("way", ["", ", down"])
@pytest.mark.parametrize("noise", ["additive", "scalar", "diagonal", "commutative", "general"])
def test_strong_orders(noise: str, way: str, area: str):
    found = observed_order(LogODE(area), "strong", SDES[noise + way])
    assert found.reaches() and found.value <= found.declared + 0.3, str(found)  # type: ignore[operator]


@pytest.mark.parametrize(
    "area, problem", [("mean", "general"), ("davie_foster", "general, down"), ("mean", "additive")]
)
def test_weak_orders(area: str, problem: str):
    found = observed_order(LogODE(area), "weak", POLYNOMIALS[problem])
    assert found.declared is not None and abs(found.value - found.declared) <= 0.3, str(found)


def test_areas_have_the_moments_of_areas():
    """Of 20000 paths of 32 cells: mean and variance of A_12 given W and H, and given H alone those of each size."""
    paths, cells = 20_000, 32
    path = SampledPath([2 * k / cells for k in range(cells + 1)], paths, 2, seed=5)
    w, h, _ = path.over([0.0, 2.0])[:, 0]
    true = area_over(*path.areas[:2])[:, 0, 1]
    rest = true - area_given_increments(w, h, 2.0)[:, 0, 1]
    drawn = area_given_increments(w, h, 2.0, normals(paths, 1, seed=6)) - area_given_increments(w, h, 2.0)
    spread = torch.stack([torch.ones(paths, dtype=F64), h.square().sum(1)], 1)
    for sample in (rest, drawn[:, 0, 1]):
        for against in (w[:, 0], w[:, 1], h[:, 0], h[:, 1], w[:, 0] * h[:, 1]):
            product = sample * against
            assert abs(float(product.mean())) < 4.5 * float(product.std()) / math.sqrt(paths)
        fit = torch.linalg.lstsq(spread, sample.square()[:, None]).solution[:, 0]
        assert abs(float(fit[0]) / (4 / 20) - 1) < 0.1 and abs(float(fit[1]) / (2 / 5) - 1) < 0.15, fit
    assert abs(float(true.var()) - 1.0) < 4.5 * math.sqrt(5 / paths)  # l^2 / 4
    assert torch.equal(drawn, -drawn.mT)


def test_commuting_noise_leaves_stochastic_heun():
    x = normals(4, 2)
    for kind in ("diagonal", "commutative", "additive", "scalar"):
        sde = SDES[kind].form("stratonovich")
        for area in ("mean", "davie_foster"):
            ends = [sdekit.solve(sde, x, [0.3, 1.0], s, steps=5, seed=0).x for s in (LogODE(area), "stochastic_heun")]
            torch.testing.assert_close(*ends)
    ode = sdekit.make_ode(lambda t, x: torch.sin(x + t))
    found, wanted = (sdekit.solve(ode, x, [0.0, 1.0], n, steps=6).x for n in ("log_ode", "heun"))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("area", ["mean", "davie_foster"])
def test_a_number_times_noise_is_general_noise(area: str):
    """Several coordinates with one g of all of them do not commute: the same as a matrix g I, images too."""

    def g(x):
        return 0.5 + 0.3 * torch.sin(x.flatten(1).sum(1))

    x = normals(3, 2, 2)
    noise = Increments(0.3 * normals(3, 4, seed=1), 0.1 * normals(3, 4, seed=2), None, (normals(3, 6, seed=3),))
    number = sdekit.make_sde(lambda t, x: -x, lambda t, x: g(x)[:, None, None], "scalar", "stratonovich")
    matrix = sdekit.make_sde(
        lambda t, x: -x, lambda t, x: g(x)[:, None, None] * torch.eye(4, dtype=F64), "general", "stratonovich"
    )
    image = noise._replace(W=noise.W.reshape(x.shape), H=noise.H.reshape(x.shape))  # type: ignore[union-attr]
    found = LogODE(area).step(Field(number), 0.3, 0.4, x, image, None)[0]
    wanted = LogODE(area).step(Field(matrix), 0.3, 0.4, x.flatten(1), noise, None)[0].reshape(x.shape)
    torch.testing.assert_close(found, wanted)
    assert (
        found - sdekit.solvers.get("stochastic_heun").step(Field(number), 0.3, 0.4, x, image, None)[0]
    ).abs().max() > 1e-4


def test_options_and_refusals():
    with pytest.raises(OptionError, match="'mean' or 'davie_foster'"):
        LogODE("exact")
    assert LogODE().extra_shapes((5, 3)) == () and LogODE("davie_foster").extra_shapes((5, 3)) == ((5, 3),)
    assert LogODE("davie_foster").extra_shapes((5, 1)) == ()

    def detached(t, x):
        return torch.stack([x.detach(), x.detach().flip(1)], -1)

    sde = sdekit.make_sde(lambda t, x: -x, detached, "general", "stratonovich")
    with pytest.raises(InterfaceError, match="derivative is zero"):
        sdekit.solve(sde, normals(4, 2), [0.0, 1.0], "log_ode", steps=3, seed=0)


def test_gradients_pass_through_a_step():
    noise: Any = Increments(0.3 * normals(2, 2, seed=1), 0.1 * normals(2, 2, seed=2))

    def end(x, a):
        def g(t, x):
            return torch.stack([torch.sin(a * x), torch.cos(x.flip(1)) + a], -1)

        sde = sdekit.make_sde(lambda t, x: -a * x, g, "general", "stratonovich")
        return LogODE().step(Field(sde), 0.3, 0.4, x, noise, None)[0]

    x, a = normals(2, 2).requires_grad_(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (x, a))
