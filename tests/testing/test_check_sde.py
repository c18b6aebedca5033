"""check_sde: sound SDEs pass, and each broken promise is named with what to set instead."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdekit
from sdekit import processes
from sdekit.errors import ConformanceError, InterfaceError, OptionError, ShapeError
from sdekit.targets import GaussianMixture
from sdekit.testing import check_sde, exact_problems, polynomial_problems, sde_problems

TARGET = GaussianMixture([0.4, 0.6], [[-0.8, 0.3], [0.7, -0.5]], [[0.15, 0.3], [0.25, 0.1]])
MADE = {
    "DiscreteVP": processes.DiscreteVP(torch.linspace(1e-4, 0.02, 100)),
    "OrnsteinUhlenbeck": processes.OrnsteinUhlenbeck(1.0, 0.7),
    "Heat": processes.Heat(1.2),
}
PROCESSES = {name: MADE[name] if name in MADE else getattr(processes, name)() for name in processes.__all__}


def user(drift: Any = lambda t, x: -x, diffusion: Any = lambda t, x: 0.3 + 0.1 * torch.cos(x), **options: Any) -> Any:
    return sdekit.make_sde(drift, diffusion, **options)


# --- sound ones ---


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_and_their_reverses_pass(name: str):
    process = PROCESSES[name]
    for sde in (process, process.reverse(TARGET.under(process))):
        assert isinstance(sde, sdekit.SDE)
        report = check_sde(sde)
        assert report.classes[0] == "additive" and not report.notes, str(report)


EXACT = [
    pytest.param(n, marks=[] if n in ("sinh", "shear", "square root", "carried, stratonovich") else pytest.mark.slow)
    for n in exact_problems()
    if "mixing" not in n
]


@pytest.mark.parametrize("name", EXACT)
def test_sdes_with_any_noise_and_their_reverses_pass(name: str):
    problem = exact_problems()[name]
    early, late = problem.times
    times = [early + 0.2 * (late - early), late]
    for sde in (problem.sde, problem.sde.reverse(problem.score)):
        assert isinstance(sde, sdekit.SDE)
        check_sde(sde, problem.sample(late, 4), times)


FORWARD = [n for n in sde_problems() if "reverse" not in n]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "down" in n else []) for n in FORWARD])
def test_problems_of_every_class_pass(name: str):
    problem = sde_problems()[name]
    for calculus in ("ito", "stratonovich"):
        report = check_sde(problem.form(calculus), problem.start(4), problem.times)
        assert report.classes == problem.classes and not report.notes, str(report)


@pytest.mark.parametrize("name", ["commutative", "general", "diagonal"])
def test_polynomials_pass(name: str):
    assert not check_sde(polynomial_problems()[name].form("ito")).notes


def test_the_report_says_what_was_checked():
    report = check_sde(sdekit.GeometricBrownianMotion(0.1, 0.5))
    text = str(report)
    assert all(name in text for name in report.checks) and "diagonal, commutative, general" in text
    assert set(report.checks) >= {"shapes", "finite", "rows", "additive", "diagonal", "commutative", "derivatives"}


def test_dimensions_are_found_and_states_of_any_rank_are_taken():
    def drift(t: Any, x: Any) -> Any:
        a, b, c = x.unbind(1)
        return torch.stack([b, c, -a], 1)

    assert "finite" in check_sde(user(drift)).checks
    assert "finite" in check_sde(user(diffusion=columns_of_three, noise_type="general")).checks
    assert "rows" in check_sde(user(), torch.randn(3, 2, 4, 4)).checks
    assert check_sde(user(), torch.randn(3)).classes[0] == "scalar"
    root = user(diffusion=lambda t, x: torch.sqrt(x))
    assert check_sde(root).classes[0] == "diagonal"  # at positive states


# --- broken ones ---


class Buffered(sdekit.SDE):
    """Returns one buffer from every call."""

    def __init__(self) -> None:
        self.out: Any = None

    def drift(self, t: Any, x: Any) -> Any:
        if self.out is None or self.out.shape != x.shape or self.out.dtype != x.dtype:
            self.out = torch.zeros_like(x)
        return self.out.copy_(-x)

    def diffusion(self, t: Any, x: Any) -> Any:
        return torch.ones_like(x)


class WrongDerivative(sdekit.SDE):
    """A derivative by hand with a sign too many."""

    def drift(self, t: Any, x: Any) -> Any:
        return -x

    def diffusion(self, t: Any, x: Any) -> Any:
        return 1 + 0.5 * torch.sin(x)

    def diffusion_derivative(self, t: Any, x: Any) -> Any:
        return -0.5 * torch.cos(x)


def in_place(t: Any, x: Any) -> Any:
    return x.mul_(-1)


def mixing(t: Any, x: Any) -> Any:
    return 1 + 0.3 * torch.sin(x + x.roll(1, -1))


def heisenberg(t: Any, x: Any) -> Any:
    one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([torch.stack([one, zero], 1), torch.stack([zero, x[:, 0]], 1)], -1)


def columns_of_three(t: Any, x: Any) -> Any:
    """Takes any number of dimensions without an error, and fits three."""
    one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([torch.stack([one, zero, x[:, 0]], 1), torch.stack([zero, one, -x[:, 0]], 1)], -1)


def swapped(*arguments: Any) -> Any:
    state, time = arguments
    return -state + 0.0 * time.mean()


BROKEN = [
    ("shapes", user(lambda t, x: x.sum(1)), r"drift.*shape \(5,\)"),
    ("shapes", user(lambda t, x: [1.0, 2.0]), r"drift with list.*one floating-point tensor"),
    ("shapes", user(lambda t, x: (x > 0).to(torch.int64)), r"drift with dtype torch.int64"),
    ("shapes", user(swapped), "look swapped"),
    ("shapes", user(diffusion=lambda t, x: x[:, :, None]), r"Set noise_type = 'general'"),
    ("shapes", user(diffusion=lambda t, x: x, noise_type="general"), r"Set noise_type = 'diagonal'"),
    ("shapes", user(diffusion=lambda t, x: t * 0 + 1), r"Set noise_type = 'scalar'"),
    ("finite", user(lambda t, x: 1 / (x - x)), r"drift not finite at t = 0.3, x = \["),
    ("finite", user(diffusion=lambda t, x: x * math.nan), "diffusion not finite"),
    ("arguments", user(in_place), "drift changes its x in place.*x.clone"),
    ("arguments", user(diffusion=lambda t, x: x * t.mul_(2)), "diffusion changes its t in place"),
    ("outputs", Buffered(), "rewrites the tensor.*new tensor"),
    ("outputs", user(lambda t, x: torch.rand_like(x)), "other values"),
    ("rows", user(lambda t, x: x - x.mean(0)), "drift of row 0 changes with other rows.*over the batch"),
    ("rows", user(lambda t, x: -x * len(x)), "no row beside it"),
    ("rows", user(diffusion=lambda t, x: x / x.norm()), "diffusion of row 0"),
    ("times", user(lambda t, x: -x * t.mean()), "drift with a time for each row.*broadcast"),
    ("additive", user(additive=True), "Set additive = False"),
    ("derivatives", user(diffusion=lambda t, x: 1 + x.detach() ** 2), "Leave detach"),
    ("derivatives", WrongDerivative(), "diffusion_derivative that is not.*leave it out"),
    ("diagonal", user(diffusion=mixing), r"g_[01] that changes with other coordinates.*diag_embed"),
    ("commutative", user(diffusion=heisenberg, noise_type="general", commutative=True), "columns 1 and 2.*= False"),
    (
        "commutative",
        user(diffusion=lambda t, x: 1 + x[:, :1] ** 2, noise_type="scalar", commutative=True),
        "Set commutative = False",
    ),
]


@pytest.mark.parametrize("check, sde, match", BROKEN, ids=[f"{n}-{b[0]}" for n, b in enumerate(BROKEN)])
def test_broken_promises_are_named(check: str, sde: Any, match: str):
    with pytest.raises(ConformanceError, match=match) as caught:
        check_sde(sde)
    assert caught.value.check == check and caught.value.fix and caught.value.expected


def test_what_raises_is_reported_with_its_cause():
    def drift(t: Any, x: Any) -> Any:
        return x[:, 7]

    with pytest.raises(ConformanceError, match="IndexError") as caught:
        check_sde(user(drift))
    assert caught.value.check == "states" and isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(ConformanceError, match="IndexError"):
        check_sde(user(drift), torch.randn(3, 2))


def test_mixing_of_any_two_coordinates_is_found():
    for i in range(7):
        for j in range(7):

            def diffusion(t: Any, x: Any, i: int = i, j: int = j) -> Any:
                return 1 + torch.eye(7, dtype=x.dtype)[i] * x[:, j : j + 1] ** 2

            if i == j:
                check_sde(user(diffusion=diffusion), torch.randn(3, 7))
                continue
            with pytest.raises(ConformanceError, match=f"g_{i} that changes"):
                check_sde(user(diffusion=diffusion), torch.randn(3, 7))


def test_what_could_be_declared_is_noted():
    def shear(t: Any, x: Any) -> Any:
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        return torch.stack([torch.stack([one, 2 * x[:, 0]], 1), torch.stack([zero, one], 1)], -1)

    def plain(t: Any, x: Any) -> Any:
        return torch.from_numpy(x.numpy() * 0.5)

    notes = {
        "commutative = True": user(diffusion=shear, noise_type="general"),
        "additive = True": user(diffusion=lambda t, x: torch.ones_like(x)),
        "cannot be differentiated": user(diffusion=plain),
        "float64 only": user(lambda t, x: x @ torch.eye(2, dtype=torch.float64)),
        "one time for all rows only": user(lambda t, x: -float(t) * x),
    }
    for text, sde in notes.items():
        report = check_sde(sde)
        assert len(report.notes) == 1 and text in report.notes[0] and text in str(report)


def test_what_is_no_sde_or_state_is_refused():
    with pytest.raises(InterfaceError, match="make_sde"):
        check_sde(sdekit.make_ode(lambda t, x: -x))  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        check_sde(user(), torch.tensor(1.0))
    with pytest.raises(InterfaceError, match="t"):
        check_sde(user(), t="now")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="t: got no times"):
        check_sde(user(), t=[])
    for shape in ((0, 2), (3, 0)):
        with pytest.raises(ShapeError, match="x: got shape"):
            check_sde(user(), torch.zeros(shape))
