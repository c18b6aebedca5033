"""Strong orders on SDEs of every noise class: what is measured is right, and planted mistakes are seen."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit.errors import ConformanceError, InterfaceError, OptionError, SolverMismatchError, UnknownNameError
from sdekit.noise import PathNoise
from sdekit.solvers.base import Stepper
from sdekit.testing import SampledPath, SDEProblem, check_solver, observed_order, sde_problems
from sdekit.testing.sde_problems import along_pieces
from tests.testing.sde_mutants import Milstein

PROBLEMS = sde_problems()
CLASSES = ("additive", "scalar", "diagonal", "commutative", "general")
CLOSED = [n for n, p in PROBLEMS.items() if p.exact is not None]


# --- the path ---


def drawn(edges=(0.3, 0.35, 0.5, 0.55, 0.9, 1.0), paths=4, motions=2, seed=0) -> SampledPath:
    return SampledPath(edges, paths, motions, seed)


def polynomials(theta: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.ones_like(theta), 0.5 - theta, (theta**2 - theta) / 2 + 1 / 12])


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_areas_of_a_step_are_integrals_over_its_cells(index: int, flip: int):
    """W, H and K are integrals of polynomials of degree 2, which `integral` gives exactly, by another formula."""
    path = drawn(tuple(flip * t for t in (0.3, 0.35, 0.5, 0.55, 0.9, 1.0)))
    times = [path.edges[0].item(), path.edges[-1].item()]

    def weight(t: torch.Tensor) -> torch.Tensor:
        theta = (t - times[0]) / (times[1] - times[0])
        return polynomials(theta)[index][..., None, None] * torch.eye(2, dtype=torch.float64)

    assert torch.allclose(path.over(times)[index, 0], path.integral(weight), atol=1e-14)


def test_areas_have_their_variances_whatever_the_cells():
    path = drawn(paths=20000)
    for times in ([0.3, 1.0], [0.3, 0.5, 1.0]):
        found, lengths = path.over(times), torch.tensor(times).double().diff()
        for area, part in zip(found, (1, 12, 720), strict=True):
            ratio = area.square().mean((1, 2)) * part / lengths
            assert bool(((ratio - 1).abs() < 0.05).all())
        together = torch.einsum("aspm,bspm->sab", found, found) / found[0].numel() * len(lengths)
        scale = together.diagonal(dim1=1, dim2=2).sqrt()
        correlation = together / (scale[:, :, None] * scale[:, None]) - torch.eye(3)
        assert float(correlation.abs().max()) < 0.03


def test_noise_is_the_path_by_its_standard_deviations_and_other_streams_are_independent():
    path, times = drawn(paths=3), [0.3, 0.5, 1.0]
    source, found = path.noise(times), path.over(times)
    for stream, part in enumerate((1, 12, 720)):
        z = source.fill(torch.zeros(3, 2, dtype=torch.float64), 1, stream)
        assert torch.allclose(z * math.sqrt(0.5 / part), found[stream, 1], atol=1e-15)
    more = [source.fill(torch.zeros(3, 5, dtype=torch.float64), n, s) for n, s in ((0, 3), (1, 3), (1, 4))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(more, 2))


@pytest.mark.parametrize("down", [False, True])
def test_noise_path_gives_the_same_steps(down: bool):
    """`noise="path"` on a fine grid, put together by the formulas here, is what it gives on a coarse one."""
    fine, coarse = [0.3, 0.4, 0.45, 0.7, 0.8, 1.1], [0.3, 0.45, 1.1]
    if down:
        fine, coarse = fine[::-1], coarse[::-1]
    ids = torch.arange(3)
    sources = [PathNoise(7, ids, grid, moments=3) for grid in (fine, coarse)]

    def drawn_from(source: PathNoise, steps: int) -> torch.Tensor:
        zero = torch.zeros(3, 2, dtype=torch.float64)
        return torch.stack(
            [torch.stack([source.fill(zero.clone(), n, k).clone() for n in range(steps)]) for k in (0, 1, 2)]
        )

    path = SampledPath(fine, 3, 2, normals=drawn_from(sources[0], 5))
    over = path.over(coarse)
    wanted = SampledPath(coarse, 3, 2, normals=drawn_from(sources[1], 2)).areas
    assert torch.allclose(over, wanted, atol=1e-12)


def test_a_path_refuses_times_that_it_does_not_have():
    with pytest.raises(OptionError, match="edges"):
        drawn().over([0.3, 0.4, 1.0])
    with pytest.raises(OptionError, match="ends"):
        drawn().over([0.3, 0.55])


# --- the problems ---


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_and_the_reference_agree(name: str):
    """Two ways to the same paths: formulas, and ordinary equations along pieces of the path."""
    problem = PROBLEMS[name]
    path = SampledPath(problem.grid("uniform", 96), 32, problem.motions)
    x = problem.start(32)
    exact = problem.solution(x, path)
    other = along_pieces(problem.form("stratonovich"), x, path)
    error = float((exact - other).square().mean().sqrt() / exact.square().mean().sqrt())
    assert error < (0.02 if problem.noise == "general" else 1e-4)


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if p.twin is not None])
def test_both_calculi_are_one_sde(name: str):
    problem = PROBLEMS[name]
    x, t = problem.start(5), torch.tensor(0.7, dtype=torch.float64)
    assert problem.twin is not None
    derived = sdekit.reverse.convert_to(problem.sde, "stratonovich", problem.down)
    assert torch.allclose(derived.drift(t, x), problem.twin.drift(t, x), atol=1e-13)
    assert torch.equal(problem.sde.diffusion(t, x), problem.twin.diffusion(t, x))


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_a_problem_of_its_own_in_both_directions(name: str):
    up, down = PROBLEMS[name], PROBLEMS[f"{name}, down"]
    assert up.noise == down.noise == name and not up.down and down.down
    assert 0 not in up.times and up.times == down.times[::-1]


def test_problems_refuse_what_is_none():
    sde, start = PROBLEMS["diagonal"].sde, PROBLEMS["diagonal"].start
    with pytest.raises(InterfaceError, match="an SDE"):
        SDEProblem("mine", None, (0.0, 1.0), start)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="two different times"):
        SDEProblem("mine", sde, (1.0, 1.0), start)
    with pytest.raises(UnknownNameError, match="uniform"):
        PROBLEMS["diagonal"].grid("unifrom", 4)


# --- orders ---


def measured(solver: Stepper, name: str, **options: Any):
    return observed_order(solver, "strong", PROBLEMS[name], **options)


@pytest.mark.parametrize("name", ["diagonal", "diagonal, down"])
def test_milstein_has_order_one_in_both_directions(name: str):
    found = measured(Milstein(), name)
    assert found.reaches(1) and found.value < 1.25 and found.declared == 1 and found.nfe == found.steps, str(found)
    assert found.route == "step" and found.grid == "uniform" and found.problem == name


MISTAKES = [
    ("no Ito correction", Milstein(correction=0.0), "diagonal"),
    ("h in place of its size", Milstein(signed=True), "diagonal, down"),
    ("some noise twice", Milstein(again=0.05), "diagonal"),
]


@pytest.mark.parametrize("mistake, solver, name", [pytest.param(*m, id=m[0]) for m in MISTAKES])
def test_mistakes_are_seen(mistake: str, solver: Stepper, name: str):
    found = measured(solver, name)
    assert not found.reaches() and found.high < 0.75, str(found)


def test_check_solver_measures_both_directions_on_each_class():
    with pytest.raises(ConformanceError, match=r"strong order on diagonal, down.*declared 1"):
        check_solver(Milstein(signed=True), problems=[])
    report = check_solver(Milstein(), problems=[])
    assert [o.problem for o in report.orders if o.kind == "strong"] == ["diagonal", "diagonal, down"]


def test_a_mistake_that_shows_downwards_only_is_seen():
    assert measured(Milstein(signed=True), "diagonal").reaches()


def test_what_is_no_stepper_of_sdes_is_refused():
    for solver in ("ddim", "rk45"):
        with pytest.raises(SolverMismatchError, match="stepper of SDEs"):
            observed_order(solver, "strong", PROBLEMS["diagonal"])
    with pytest.raises(SolverMismatchError, match="step"):
        observed_order("euler_maruyama", "strong", PROBLEMS["diagonal"], route="plan")
    with pytest.raises(SolverMismatchError, match="one of"):
        observed_order("sra1", "strong", PROBLEMS["diagonal"])
