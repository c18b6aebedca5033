"""Langevin steps are those of the papers and of azula; where they shrink with the grid's the whole converges."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from benchmarks import peers
from sdekit import EDM, VE, VP, RectifiedFlow, solvers, targets
from sdekit.errors import OptionError, SolverMismatchError
from sdekit.plan import interpret
from sdekit.testing import observed_order
from tests.solvers import papers
from tests.solvers.test_properties import LAMBDAS, PROCESSES, draw, nonlinear, times


def corrected(at: papers.Scales, lam: float, x: float, step: int, delta: float, n: int, form: str) -> float:
    """n Langevin steps: Song et al.'s with epsilon = delta sigma^2 / 2, or azula's."""
    alpha, sigma = at(lam)
    for k in range(n):
        z, D = draw(step, 1 + k), papers.data(at, lam, x)
        if form == "exact":
            x = alpha * D + math.sqrt(1 - delta) * (x - alpha * D) + math.sqrt(delta) * sigma * z
        else:
            epsilon, score = 0.5 * delta * sigma**2, (alpha * D - x) / sigma**2
            x = x + epsilon * score + math.sqrt(2 * epsilon) * z
    return x


def predictor_corrector(
    at: papers.Scales, lam: list[float], x: float, predictor: str, n: int, form: str, rate: float, delta: float | None
) -> float:
    """Algorithms 2 and 3 of Song et al. (2021), for any affine process."""
    for i, (ls, lt) in enumerate(itertools.pairwise(lam)):
        (a_s, s_s), (a_t, s_t), D = at(ls), at(lt), papers.data(at, ls, x)
        score, noise, z = (a_s * D - x) / s_s**2, (x - a_s * D) / s_s, draw(i, 0)
        a = a_s / a_t
        G2 = s_s**2 - a**2 * s_t**2
        if predictor == "reverse_diffusion":
            x = (2 - a) * x + G2 * score + math.sqrt(G2) * z
        elif predictor == "ancestral":
            x = a_t * D + a * s_t**2 / s_s * noise + s_t * math.sqrt(1 - (a * s_t / s_s) ** 2) * z
        else:
            x = a_t * D + s_t * noise
        size = 1 - math.exp(-2 * rate * (lt - ls)) if delta is None else delta
        x = corrected(at, lt, x, i, size, n, form)
    return x


@pytest.mark.parametrize(
    "n, form, rate, delta", [(0, "exact", 0.5, None), (1, "exact", 0.5, None), (2, "euler", 1, 0.1)]
)
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral", "ddim"])
def test_predictor_and_corrector_are_the_papers(predictor: str, n: int, form: str, rate: float, delta) -> None:
    for process in PROCESSES[:3]:
        options = {"predictor": predictor, "corrections": n, "corrector": form, "rate": rate, "delta": delta}
        plan = solvers.get("predictor_corrector", **options).plan(process, times(process))
        x = 2.3 * plan.start[0]
        want = predictor_corrector(papers.scales_of(process), LAMBDAS, x, predictor, n, form, rate, delta)
        assert interpret(plan, nonlinear, x, draw) == pytest.approx(want, rel=1e-12)
        assert plan.nfe == (1 + n) * plan.steps


@pytest.mark.parametrize("form", ["euler", "exact"])
def test_annealed_langevin_is_algorithm_1(form: str) -> None:
    process, T, epsilon = VE(0.02, 30.0), 3, 1e-4
    sigmas = [math.exp(-v) for v in LAMBDAS]
    delta = epsilon / sigmas[-1] ** 2
    x = 2.3
    for i, sigma in enumerate(sigmas[1:]):
        alpha = epsilon * sigma**2 / sigmas[-1] ** 2
        for k in range(T):
            row = type("Row", (), {"alpha": 1.0, "sigma": sigma})
            D, z = nonlinear(row, x), draw(i, k)
            if form == "euler":
                x = x + alpha / 2 * (D - x) / sigma**2 + math.sqrt(alpha) * z
            else:
                x = D + math.sqrt(1 - delta) * (x - D) + math.sqrt(delta) * sigma * z
    solver = solvers.get("annealed_langevin", corrections=T, delta=delta, corrector=form)
    plan = solver.plan(process, times(process))
    assert interpret(plan, nonlinear, 2.3, draw) == pytest.approx(x, rel=1e-12)
    assert plan.nfe == T * plan.steps
    # In x / alpha it is one sampler on every process.
    for other in PROCESSES:
        plan = solver.plan(other, times(other))
        got = interpret(plan, nonlinear, 2.3 * plan.start[0], draw) / plan.end[0]
        assert got == pytest.approx(x, rel=1e-12)


def test_exact_steps_keep_the_law_of_a_point() -> None:
    for process, n in itertools.product(PROCESSES[::2], (1, 6)):
        for delta, predictor in itertools.product((None, 0.2, 1.0), ("ancestral", "ddim")):
            solver = solvers.get("predictor_corrector", predictor=predictor, corrections=2, delta=delta)
            plan = solver.plan(process, times(process, LAMBDAS[: n + 1]))
            law = plan.gaussian_moments(1.7, 0.0)
            assert float(law.mean) == pytest.approx(plan.end[0] * 1.7, rel=1e-13)
            assert float(law.cov) == pytest.approx(plan.end[1] ** 2, rel=1e-13)
    plan = solvers.get("predictor_corrector", predictor="ddim", corrector="euler", delta=0.2).plan(VP(), times(VP()))
    assert abs(float(plan.gaussian_moments(1.7, 0.0).cov) / plan.end[1] ** 2 - 1) > 0.02


@pytest.mark.parametrize("name, predictor", [("predictor_corrector", "ddim"), ("annealed_langevin", None)])
@pytest.mark.parametrize("form", ["euler", "exact"])
def test_fixed_steps_leave_a_bias_of_order_delta(name: str, predictor: str | None, form: str) -> None:
    """That no number of steps removes: the law at the end of 500 corrections on one level is the chain's own."""
    options = {} if predictor is None else {"predictor": predictor}
    biases = []
    for delta in (0.1, 0.05):
        solver = solvers.get(name, corrections=500, delta=delta, corrector=form, **options)
        plan = solver.plan(EDM(), [1.1, 1.0])
        assert solver.declared.weak is None and solver.declared.note.startswith("none")
        biases.append(float(plan.gaussian_moments(0.7, 0.3).cov) / 1.3 - 1)
    assert biases[0] / biases[1] == pytest.approx(2.0, rel=0.1) and abs(biases[0]) > 1e-3
    if predictor:
        found = observed_order(solvers.get(name, delta=0.05, **options), "weak", steps=(40, 160, 640))
        assert found.slopes[-1] < 0.3, str(found)


def test_shrinking_steps_converge_to_the_reverse_sde_that_they_add_up_to() -> None:
    """From a fixed start; with the stochasticity that is declared and no other."""
    grid = times(VP(), torch.linspace(-1, 1, 201).tolist())
    for options, kappa in (
        ({}, math.sqrt(1.5)),
        ({"predictor": "ddim", "corrections": 3, "rate": 0.2}, math.sqrt(0.6)),
    ):
        solver = solvers.get("predictor_corrector", **options)
        assert solver.fixed_stochasticity == pytest.approx(kappa)
        got = solver.plan(VP(), grid).gaussian_moments(0.7, 0.3, 0.4, 0.0)
        want, other = (
            solvers.get("exp_adams", order=2).plan(VP(), grid, k).gaussian_moments(0.7, 0.3, 0.4, 0.0)
            for k in (kappa, kappa + 0.3)
        )
        errors = [abs(float(got.mean - v.mean)) + abs(float(got.cov - v.cov)) for v in (want, other)]
        assert errors[0] < 1e-2 and errors[1] > 3 * errors[0]


def test_azulas_corrector() -> None:
    """azula corrects before its step: from the second level on its chain is ours, one correction later."""
    if peers.installed("azula") is None:
        pytest.skip("azula is not installed; make bench-speed installs it")
    from azula.denoise import Denoiser, DiracPosterior  # pyright: ignore[reportMissingImports]
    from azula.sample import PCSampler  # pyright: ignore[reportMissingImports]

    model, grid = targets.random_mixture(3, 4, 0).under(RectifiedFlow()), [0.9, 0.6, 0.3, 0.1]

    class Exact(Denoiser):
        def schedule(self, t):
            return 1 - t, t

        def forward(self, x, t, **kwargs):
            return DiracPosterior(mean=model.data(t, x))

    generator = torch.Generator().manual_seed(0)
    x, *noises = (torch.randn(8, 3, generator=generator, dtype=torch.float64) for _ in range(4))
    theirs, drawn = PCSampler(Exact(), corrections=1, delta=0.1), iter(noises)
    got = x
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda v: next(drawn))
        for t, s in itertools.pairwise(torch.tensor(grid, dtype=torch.float64)):
            got = theirs.step(got, t, s)
    plan = solvers.get("predictor_corrector", predictor="ddim", delta=0.1).plan(RectifiedFlow(), grid)
    level = RectifiedFlow().levels([0.9])[0]
    D = model.data(0.9, x)
    start = level.alpha * D + math.sqrt(0.9) * (x - level.alpha * D) + math.sqrt(0.1) * level.sigma * noises[0]
    short = dataclasses.replace(plan, rows=plan.rows[:-1])  # without the last correction
    want = interpret(short, lambda row, v: model.data(row.t, v), start, lambda step, stream: noises[1 + step])
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_ends_and_what_is_refused() -> None:
    for process, grid, calls in ((EDM(), [2.0, 1.0, 0.0], 5), (RectifiedFlow(), [1.0, 0.5, 0.0], 2)):
        assert solvers.get("predictor_corrector").plan(process, grid).nfe == 3
        assert solvers.get("annealed_langevin", corrections=4).plan(process, grid).nfe == calls
    for solver in (solvers.get("annealed_langevin"), solvers.get("predictor_corrector", delta=0.1)):
        with pytest.raises(SolverMismatchError, match="increasing"):
            solver.plan(VP(), [0.1, 0.5])
    plain = solvers.get("predictor_corrector", predictor="ddim", corrections=0)
    assert plain.plan(VP(), [0.1, 0.5]).nfe == 1 and plain.declared.deterministic == 1
    for options in ({"delta": 0.0}, {"delta": 1.5}, {"rate": -1.0}, {"corrector": "norms"}, {"predictor": "ddpm"}):
        with pytest.raises(OptionError):
            solvers.get("predictor_corrector", **options)
    with pytest.raises(OptionError):
        solvers.get("annealed_langevin", corrections=0)
