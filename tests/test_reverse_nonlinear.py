"""Time reversal with state-dependent noise, on problems whose marginals and flows are known exactly.

Each kind of test is run once more on a reversal that leaves the divergence out, and must fail on it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import ODE, SDE, VP, targets
from sdekit.calculus import LocalNoise
from sdekit.errors import InterfaceError, ModelOutputError, OptionError, SolverMismatchError
from sdekit.reverse import AffineReverse, Flow, Reverse
from sdekit.solvers import Stepper, StepResult
from sdekit.testing import continuity_residual, exact_problems, fokker_planck_residual

F64 = torch.float64
PROBLEMS = exact_problems()
KAPPAS = [0.4, 1.0, lambda t: 0.3 + t]
NAMED = {"ids": lambda k: "varying" if callable(k) else str(k)}
# One of each way in which the divergence enters.
KINDS = ["sinh", "shear", "shear, stratonovich", "carried, scalar", "carried, mixing", "carried, general"]
SOLVED = [*KINDS, "geometric Brownian motion", "square root"]
# The others combine the same noises and densities anew.
SWEPT = [name if name in SOLVED else pytest.param(name, marks=pytest.mark.slow) for name in PROBLEMS]
# Of the stochasticities each has one in turn, the slow part all.
PAIRS = [
    pytest.param(name, k, marks=() if name in SOLVED and (i + j) % len(KAPPAS) == 0 else pytest.mark.slow)
    for i, name in enumerate(PROBLEMS)
    for j, k in enumerate(KAPPAS)
]


@pytest.fixture
def no_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: div(g g^T) taken for zero."""
    monkeypatch.setattr(LocalNoise, "divergence", lambda self, method, seed: torch.zeros_like(self.x))


def points(problem, count: int = 6) -> tuple[Tensor, Tensor]:
    early, late = problem.times
    return torch.linspace(early, late, count, dtype=F64)[:, None], problem.sample(0.5 * (early + late), count, seed=1)


def hidden(sde: SDE) -> SDE:
    """The same functions and nothing else."""
    return sdekit.make_sde(sde.drift, sde.diffusion, sde.noise_type, sde.sde_type)


# Residuals.


@pytest.mark.parametrize("name, kappa", PAIRS, **NAMED)
def test_every_reversal_keeps_the_marginals(name: str, kappa) -> None:
    problem = PROBLEMS[name]
    t, x = points(problem)
    flow = hidden(problem.sde).probability_flow(problem.score)
    assert isinstance(flow, Flow) and continuity_residual(flow, problem.log_prob, t, x).abs().max() < 1e-11
    reverse = hidden(problem.sde).reverse(problem.score, kappa)
    assert isinstance(reverse, Reverse) and reverse.backward
    assert (reverse.noise_type, reverse.sde_type) == (problem.sde.noise_type, problem.sde.sde_type)
    assert fokker_planck_residual(reverse, problem.log_prob, t, x).abs().max() < 1e-11


@pytest.mark.parametrize("name", SWEPT)
def test_without_the_divergence_they_do_not(name: str, no_divergence: None) -> None:
    problem = PROBLEMS[name]
    t, x = points(problem)
    assert continuity_residual(problem.sde.probability_flow(problem.score), problem.log_prob, t, x).abs().max() > 0.05
    reverse = problem.sde.reverse(problem.score)
    assert fokker_planck_residual(reverse, problem.log_prob, t, x).abs().max() > 0.05


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kappa", KAPPAS, **NAMED)
def test_the_family_is_its_definition(name: str, kappa) -> None:
    """Noise kappa g; drifts differ by kappa^2 / 2 (div D + D s), which the flow and the forward drift give."""
    problem = PROBLEMS[name]
    t, x = points(problem)
    reverse, flow = problem.sde.reverse(problem.score, kappa), problem.sde.probability_flow(problem.score)
    k = kappa(t) if callable(kappa) else torch.tensor(kappa, dtype=F64)
    pull = problem.sde.drift(t, x) - flow.drift(t, x)
    want = flow.drift(t, x) - k**2 * pull
    torch.testing.assert_close(reverse.drift(t, x), want, rtol=1e-12, atol=1e-12)
    g = problem.sde.diffusion(t, x)
    wide = k[..., None] if g.ndim == 3 and k.ndim else k
    torch.testing.assert_close(reverse.diffusion(t, x), wide * g, rtol=1e-14, atol=0)
    zero = problem.sde.reverse(problem.score, 0)
    assert isinstance(zero, ODE) and torch.equal(zero.drift(t, x), flow.drift(t, x))
    late = problem.sde.reverse(problem.score, lambda t: 0.0)
    torch.testing.assert_close(late.drift(t, x), flow.drift(t, x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", KINDS)
def test_a_reverse_reversed_runs_forward_again(name: str) -> None:
    problem = PROBLEMS[name]
    t, x = points(problem)
    again = problem.sde.reverse(problem.score).reverse(problem.score)
    assert isinstance(again, Reverse) and not again.backward
    torch.testing.assert_close(again.drift(t, x), problem.sde.drift(t, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.diffusion(t, x), problem.sde.diffusion(t, x))
    other = problem.sde.reverse(problem.score, 0.6).reverse(problem.score, 0.4)
    assert fokker_planck_residual(other, problem.log_prob, t, x).abs().max() < 1e-11


def test_an_affine_reverse_reversed_runs_forward_again() -> None:
    process, x = VP(), torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    model, t = targets.random_mixture(2, 3, seed=0).under(process), torch.tensor(0.4, dtype=F64)
    again = process.reverse(model).reverse(model)
    torch.testing.assert_close(again.drift(t, x), process.drift(t, x), rtol=1e-11, atol=1e-11)


# Ito and Stratonovich.


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_both_calculi_have_one_law(name: str) -> None:
    problem = PROBLEMS[name]
    t, x = points(problem)
    sde = hidden(problem.sde)
    other = sde.to_ito() if sde.sde_type == "stratonovich" else sde.to_stratonovich()
    assert other.sde_type != sde.sde_type and other.noise_type == sde.noise_type
    assert fokker_planck_residual(other, problem.log_prob, t, x).abs().max() < 1e-11
    torch.testing.assert_close(other.diffusion(t, x), sde.diffusion(t, x))
    assert (other.drift(t, x) - sde.drift(t, x)).abs().max() > 0.02  # the conversion did something
    back = hidden(other).to_ito() if sde.sde_type == "ito" else hidden(other).to_stratonovich()
    torch.testing.assert_close(back.drift(t, x), sde.drift(t, x), rtol=1e-13, atol=1e-13)
    assert (other.to_ito() if sde.sde_type == "ito" else other.to_stratonovich()) is sde  # no round-off at all
    assert (sde.to_ito() if sde.sde_type == "ito" else sde.to_stratonovich()) is sde
    # Converting and reversing commute, for every stochasticity.
    for kappa in KAPPAS[:1]:
        one, two = other.reverse(problem.score, kappa), sde.reverse(problem.score, kappa)
        two = two.to_ito() if other.sde_type == "ito" else two.to_stratonovich()  # type: ignore[union-attr]
        torch.testing.assert_close(one.drift(t, x), two.drift(t, x), rtol=1e-12, atol=1e-12)
        assert fokker_planck_residual(two, problem.log_prob, t, x).abs().max() < 1e-11
    flows = [s.probability_flow(problem.score).drift(t, x) for s in (sde, other)]
    torch.testing.assert_close(flows[0], flows[1], rtol=1e-12, atol=1e-12)


def test_the_two_forms_written_by_hand_are_converted_into_each_other() -> None:
    ito, strat = PROBLEMS["shear"], PROBLEMS["shear, stratonovich"]
    t, x = points(ito)
    for a, b in ((strat.sde.to_ito(), ito.sde), (ito.sde.to_stratonovich(), strat.sde)):
        torch.testing.assert_close(a.drift(t, x), b.drift(t, x), rtol=1e-12, atol=1e-12)
    a, b = strat.sde.reverse(strat.score).to_ito(), ito.sde.reverse(ito.score)  # type: ignore[union-attr]
    torch.testing.assert_close(a.drift(t, x), b.drift(t, x), rtol=1e-12, atol=1e-12)


def test_conversion_of_additive_noise_changes_the_name_only() -> None:
    process, x = VP(), torch.ones(3, 2, dtype=F64)
    other, t = process.to_stratonovich(), torch.tensor(0.5, dtype=F64)
    assert process.to_ito() is process and other.sde_type == "stratonovich" and other.additive
    assert torch.equal(other.drift(t, x), process.drift(t, x)) and other.to_ito() is process
    assert repr(other) == "VP(beta_min=0.1, beta_max=20.0).to_stratonovich()"


class StratonovichHeun(Stepper):
    """Predictor by Euler, then both ends averaged in drift and noise: consistent with Stratonovich's integral."""

    calculus: ClassVar[str] = "stratonovich"
    calls_per_step = 2

    def step(self, dynamics, t0, t1, x, increments, state):
        a, b = (t1 - t0) * dynamics.drift(t0, x), dynamics.diffuse(t0, x, increments.W)
        y = x + a + b
        c, d = (t1 - t0) * dynamics.drift(t1, y), dynamics.diffuse(t1, y, increments.W)
        return StepResult(x + 0.5 * (a + b + c + d))


@pytest.mark.parametrize("name", ["sinh", pytest.param("carried, general", marks=pytest.mark.slow)])
def test_both_calculi_have_one_path(name: str) -> None:
    """Euler-Maruyama on the Ito form and Heun on the Stratonovich form, with the same noise, upwards and downwards."""
    problem = PROBLEMS[name]
    early, late = problem.times

    def apart(ito, strat, x: Tensor, times: list[float]) -> float:
        ends = [
            sdekit.solve(s, x, times, m, steps=50, seed=1).x
            for s, m in ((ito, "euler_maruyama"), (strat, StratonovichHeun()))
        ]
        return float(((ends[0] - ends[1]).square().mean() / ends[0].var()).sqrt())

    start, end, sde = problem.sample(early, 200, seed=2), problem.sample(late, 200, seed=2), problem.sde
    reverse = sde.reverse(problem.score)
    wrong = apart(sde, sdekit.make_sde(sde.drift, sde.diffusion, sde.noise_type, "stratonovich"), start, [early, late])
    assert 3 * apart(sde, sde.to_stratonovich(), start, [early, late]) < wrong
    assert 3 * apart(reverse, reverse.to_stratonovich(), end, [late, early]) < wrong  # type: ignore[union-attr]


# Solves.


def flow_error(name: str) -> float:
    problem = PROBLEMS[name]
    early, late = problem.times
    x = problem.sample(late, 6, seed=3)
    exact = problem.flow(x, late, early)
    flow = hidden(problem.sde).probability_flow(problem.score)
    down = sdekit.solve(flow, x, [late, early], "rk4", steps=16).x
    up = sdekit.solve(flow, down, [early, late], "rk4", steps=16).x
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in ((down, exact), (up, x)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_flows_are_solved_to_their_exact_maps(name: str) -> None:
    assert flow_error(name) < 5e-6


@pytest.mark.parametrize("name", SWEPT)
def test_without_the_divergence_flows_go_elsewhere(name: str, no_divergence: None) -> None:
    assert flow_error(name) > 0.02


def test_flows_converge_at_the_order_of_their_solver() -> None:
    problem = PROBLEMS["shear"]
    early, late = problem.times
    x = problem.sample(late, 6, seed=3)
    exact, flow = problem.flow(x, late, early), problem.sde.probability_flow(problem.score)
    for solver, order, steps in (("heun", 2, 24), ("rk4", 4, 8)):
        errors = [
            float((sdekit.solve(flow, x, [late, early], solver, steps=n).x - exact).square().mean().sqrt())
            for n in (steps, 2 * steps)
        ]
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25


def distance(a: Tensor, b: Tensor) -> float:
    """The largest distance of Kolmogorov and Smirnov between two samples, over the coordinates and their sum."""
    pairs = zip(torch.cat([a, a.sum(1, keepdim=True)], 1).T, torch.cat([b, b.sum(1, keepdim=True)], 1).T, strict=True)
    out = 0.0
    for u, v in ((p.sort().values, q.sort().values) for p, q in pairs):
        z = torch.cat([u, v])
        shares = [torch.searchsorted(w, z, right=True) / len(w) for w in (u, v)]
        out = max(out, float((shares[0] - shares[1]).abs().max()))
    return out


def reverse_distance(name: str, kappa) -> float:
    problem, count = PROBLEMS[name], 10_000
    early, late = problem.times
    reverse = problem.sde.reverse(problem.score, kappa).to_ito()  # type: ignore[union-attr]
    x = problem.sample(late, count, seed=1)
    out = sdekit.solve(reverse, x, [late, early], "euler_maruyama", steps=50, seed=5).x
    return distance(out, problem.sample(early, count, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED)
def test_reverse_sdes_are_solved_to_the_known_law(name: str) -> None:
    # Two samples of 10,000 of one law are within 0.023 with probability 0.99; 50 steps add less than 0.01.
    assert reverse_distance(name, 1.0) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED)
def test_without_the_divergence_they_miss_it(name: str, no_divergence: None) -> None:
    assert reverse_distance(name, 1.0) > 0.06


@pytest.mark.slow
def test_other_stochasticities_and_estimated_divergences_are_solved_to_the_same_law() -> None:
    assert reverse_distance("carried, mixing", 0.5) < 0.03
    assert reverse_distance("sinh", lambda t: 1.5 - t) < 0.03
    problem = PROBLEMS["carried, general"]
    early, late = problem.times
    x = problem.sample(late, 10_000, seed=1)
    reverse = problem.sde.reverse(problem.score, divergence="hutchinson", seed=9)
    out = sdekit.solve(reverse, x, [late, early], "euler_maruyama", steps=50, seed=5).x
    assert distance(out, problem.sample(early, 10_000, seed=2)) < 0.03


# The estimate.


def test_an_estimated_divergence_is_reproducible_and_row_by_row() -> None:
    problem = PROBLEMS["carried, general"]
    early, late = problem.times
    x = problem.sample(late, 12, seed=1)
    flow = problem.sde.probability_flow(problem.score, "hutchinson")
    run = [sdekit.solve(flow, part, [late, early], "heun", steps=20).x for part in (x, x, x[3:9])]
    assert torch.equal(run[0], run[1])
    torch.testing.assert_close(run[2], run[0][3:9], rtol=1e-12, atol=1e-12)
    other = problem.sde.probability_flow(problem.score, "hutchinson", seed=1)
    assert (sdekit.solve(other, x, [late, early], "heun", steps=20).x - run[0]).abs().max() > 1e-3


def test_an_estimated_divergence_is_unbiased() -> None:
    problem, t = PROBLEMS["carried, mixing"], torch.tensor(0.4, dtype=F64)
    x = problem.sample(0.4, 4, seed=1)
    exact = problem.sde.reverse(problem.score).drift(t, x)
    drifts = torch.stack(
        [problem.sde.reverse(problem.score, divergence="hutchinson", seed=s).drift(t, x) for s in range(100)]
    )
    error = (drifts.mean(0) - exact).abs() / (drifts.std(0) / 10)
    assert error.max() < 4.5 and drifts.std(0).min() > 0.01


# Agreement with the affine route, gradients, grad modes.


@pytest.mark.parametrize("noise_type", ["scalar", "diagonal", "general"])
@pytest.mark.parametrize("sde_type", ["ito", "stratonovich"])
def test_a_hidden_affine_process_gives_the_affine_reverse(noise_type: str, sde_type: str) -> None:
    """Not flagged additive, so the derivatives are taken: they are zero, and so is the difference."""
    process = VP()
    model = targets.random_mixture(2, 3, seed=0).under(process)

    def g(t: Tensor, x: Tensor) -> Tensor:
        size = process.diffusion_coefficient(t)
        shape = {"scalar": (len(x), 1), "diagonal": (len(x), 2)}.get(noise_type)
        if shape:
            return size * torch.ones(shape, dtype=x.dtype)
        return (size if size.ndim == 0 else size[..., None]) * torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)

    mine = sdekit.make_sde(lambda t, x: process.drift_coefficient(t) * x, g, noise_type, sde_type)
    x = model.sample(0.4, 5, seed=1)
    for t in (torch.tensor(0.4, dtype=F64), torch.linspace(0.2, 0.9, 5, dtype=F64)[:, None]):
        for divergence in ("exact", "hutchinson"):
            for kappa in (0.0, 0.6, lambda t: 0.3 + t):
                general, affine = (s.reverse(model.score, kappa, divergence) for s in (mine, process))
                torch.testing.assert_close(general.drift(t, x), affine.drift(t, x), rtol=1e-11, atol=1e-11)
    assert isinstance(process.reverse(model, 1.0, "hutchinson"), AffineReverse)


@pytest.mark.parametrize("noise_type", ["scalar", "diagonal", "general"])
def test_gradients_flow_through_a_solve(noise_type: str) -> None:
    """To parameters of the diffusion and of the score, and to the start; without grad mode nothing is recorded."""
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))

    def run(scale: Tensor, slope: Tensor, x: Tensor) -> Tensor:
        g = {
            "scalar": lambda t, x: torch.sqrt(scale + (x**2).sum(1, keepdim=True)),
            "diagonal": lambda t, x: 1 + 0.3 * torch.sin(scale * x),
            "general": lambda t, x: (1 + 0.3 * torch.sin(scale * x))[..., None] * torch.ones(2, dtype=F64),
        }[noise_type]
        reverse = sdekit.make_sde(lambda t, x: -x, g, noise_type).reverse(lambda t, x: -slope * x)
        return sdekit.solve(reverse, x, [0.3, 0.0], "euler_maruyama", steps=3, seed=0).x

    values = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.8, 0.9)]
    assert torch.autograd.gradcheck(run, (*values, x.clone().requires_grad_()), atol=1e-6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = run(*values, x)
            assert not out.requires_grad
        torch.testing.assert_close(out.clone(), run(*values, x).detach())


# What is refused.


def test_bad_arguments_are_named_at_once() -> None:
    sde = PROBLEMS["sinh"].sde
    for call in (sde.reverse, sde.probability_flow):
        with pytest.raises(InterfaceError, match="score: got NoneType"):
            call(None)
        with pytest.raises(InterfaceError, match=r"score: got a function of \(x, t\), in the other order"):
            call(lambda x, t: x)
        with pytest.raises(OptionError, match=r"divergence: got 'hutchinsen'.*Did you mean 'hutchinson'"):
            call(lambda t, x: x, divergence="hutchinsen")
        with pytest.raises(InterfaceError, match="seed"):
            call(lambda t, x: x, seed=0.5)
    with pytest.raises(OptionError, match="divergence"):
        VP().probability_flow(lambda t, x: x, "none")  # type: ignore[arg-type]


def test_bad_outputs_are_named_at_the_first_call_and_too_many_dimensions_before_the_score() -> None:
    t, x, calls = torch.tensor(0.5), torch.ones(2, 300), []

    def score(t, x):
        calls.append(1)
        return -x

    general = sdekit.make_sde(lambda t, x: -x, lambda t, x: x[..., None], "general")
    for dynamics in (general.reverse(score), general.probability_flow(score)):
        with pytest.raises(OptionError, match=r"'exact' with general noise in 300 dimensions.*hutchinson"):
            sdekit.solve(dynamics, x, [1.0, 0.0], "euler_maruyama" if isinstance(dynamics, SDE) else "heun", steps=2)
    hiding = sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.as_tensor(np.sin(x.numpy())))
    with pytest.raises(InterfaceError, match="cannot be differentiated"):
        hiding.reverse(score).drift(t, x)
    detached = sdekit.make_sde(lambda t, x: -x, lambda t, x: 1 + x.detach() ** 2)
    for dynamics in (detached.reverse(score), detached.probability_flow(score), detached.to_stratonovich()):
        with pytest.raises(InterfaceError, match="its derivative is zero throughout"):
            dynamics.drift(t, x)
    assert not calls
    good = sdekit.make_sde(lambda t, x: -x, lambda t, x: x)
    with pytest.raises(ModelOutputError, match=r"score: got shape \(2,\)"):
        good.reverse(lambda t, x: x.sum(1)).drift(t, x)
    with pytest.raises(ModelOutputError, match="score: got tuple"):
        good.probability_flow(lambda t, x: (x,)).drift(t, x)  # type: ignore[arg-type, return-value]
    with pytest.raises(ModelOutputError, match=r"drift: got shape \(2,\)"):
        sdekit.make_sde(lambda t, x: x.sum(1), lambda t, x: x).reverse(score).drift(t, x)
    with pytest.raises(ModelOutputError, match=r"diffusion: got shape \(300,\)"):
        sdekit.make_sde(lambda t, x: -x, lambda t, x: x[0]).reverse(score).drift(t, x)


def test_directions() -> None:
    problem = PROBLEMS["sinh"]
    early, late = problem.times
    x = problem.sample(late, 3, seed=1)
    reverse = problem.sde.reverse(problem.score)
    for dynamics in (reverse, reverse.to_stratonovich().to_ito(), VP().reverse(lambda t, x: -x)):  # type: ignore[union-attr]
        with pytest.raises(SolverMismatchError, match="decreasing times for a reverse SDE"):
            sdekit.solve(dynamics, x, [early, late], Plain(), steps=3, seed=0)
    with pytest.raises(SolverMismatchError, match="increasing times for the reverse of a reverse"):
        sdekit.solve(reverse.reverse(problem.score), x, [late, early], "euler_maruyama", steps=3, seed=0)
    with pytest.raises(OptionError, match="which runs forward"):
        sdekit.solve(sdekit.GeometricBrownianMotion(0.1, 0.2), x, [1.0, 0.0], "euler_maruyama", steps=3)


class Plain(Stepper):
    """Euler-Maruyama as a stepper alone."""

    def step(self, dynamics, t0, t1, x, increments, state):
        return StepResult(x + (t1 - t0) * dynamics.drift(t0, x) + dynamics.diffuse(t0, x, increments.W))


def test_names_hold_no_addresses() -> None:
    def f(t, x):
        return -x

    sde = sdekit.make_sde(f, f)
    for dynamics in (
        sde.reverse(f, f),
        sde.probability_flow(f, "hutchinson", seed=3),
        sde.reverse(f).to_stratonovich(),
    ):
        assert "0x" not in repr(dynamics) and "make_sde" in repr(dynamics)
    assert "divergence='hutchinson', seed=3" in repr(sde.probability_flow(f, "hutchinson", seed=3))
