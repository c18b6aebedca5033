"""Order problems: ranges, grids, starts and exact ends."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, UnknownNameError
from sdekit.testing import FAMILIES, OrderProblem, gaussian_problem, order_problems

TARGET = sdekit.targets.gaussian([0.0, 1.0], 0.5)
PROBLEMS = order_problems()


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("family", [*FAMILIES, "irregular"])
def test_grids_run_between_the_ends(name: str, family: str):
    problem = PROBLEMS[name]
    for steps in (1, 2, 7):
        times = problem.grid(family, steps, seed=3)
        assert times.dtype == torch.float64 and len(times) == steps + 1
        assert bool((times[1:] < times[:-1]).all())
        ends = problem.process.half_log_snr(times[[0, -1]])
        torch.testing.assert_close(ends, torch.tensor([problem.low, problem.high], dtype=torch.float64))
        assert (float(times[0]), float(times[-1])) == problem.ends


def test_families_are_what_they_say():
    p = PROBLEMS["edm"]
    t = p.grid("uniform", 8)
    torch.testing.assert_close(t.diff(), t.diff()[:1].expand(8))
    steps = p.process.half_log_snr(p.grid("half_log_snr", 8)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(8))
    powers = (p.grid("karras", 8) ** (1 / 7)).diff()
    torch.testing.assert_close(powers, powers[:1].expand(8))
    called = p.grid(lambda process, n, *, t_start, t_end: torch.linspace(t_start, t_end, n + 1), 4)
    assert len(called) == 5


def test_random_is_one_smooth_map_for_every_step_count():
    problem = PROBLEMS["vp"]
    coarse, fine = problem.grid("random", 10, seed=2), problem.grid("random", 20, seed=2)
    torch.testing.assert_close(fine[::2], coarse)
    steps = problem.process.half_log_snr(problem.grid("random", 400, seed=2)).diff()
    ratios = steps[1:] / steps[:-1]
    assert float((ratios - 1).abs().max()) < 0.05  # smooth
    assert float(steps.max() / steps.min()) > 1.3  # but not equal steps
    assert not torch.allclose(problem.grid("random", 10, seed=3), coarse)


def test_irregular_steps_are_independent_and_bounded():
    problem = PROBLEMS["vp"]
    steps = problem.process.half_log_snr(problem.grid("irregular", 400, seed=2)).diff()
    assert 2 < float(steps.max() / steps.min()) <= 3 + 1e-9
    centred = steps - steps.mean()
    assert abs(float((centred[1:] * centred[:-1]).mean() / centred.square().mean())) < 0.15
    torch.testing.assert_close(problem.grid("irregular", 400, seed=2), problem.grid("irregular", 400, seed=2))


def test_starts_follow_the_marginal_and_stay_what_they_are():
    problem = OrderProblem("many", sdekit.VP(), TARGET, count=4000)
    x = problem.starts()
    assert x.dtype == torch.float64 and x.shape == (4000, 2)
    t = problem.ends[0]
    alpha, sigma = float(problem.process.alpha(t)), float(problem.process.sigma(t))
    torch.testing.assert_close(x.mean(0), alpha * TARGET.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((2,), alpha**2 * 0.5 + sigma**2).double(), atol=0.06, rtol=0)
    kept = x.clone()
    x.zero_()
    assert torch.equal(problem.starts(), kept)


def test_exact_is_the_flow_and_is_not_handed_out():
    problem = PROBLEMS["start"]
    exact = problem.exact()
    torch.testing.assert_close(exact, problem.model.flow(problem.starts(), *problem.ends), rtol=0, atol=1e-13)
    back = problem.model.flow(exact, *problem.ends[::-1])
    torch.testing.assert_close(back, problem.starts(), rtol=0, atol=1e-10)
    exact.zero_()
    assert float(problem.exact().abs().max()) > 0.1


def test_standard_problems_cover_all_processes_and_stay_wide_against_the_noise():
    kinds = {type(p.process) for p in PROBLEMS.values()}
    assert kinds == {
        sdekit.VP,
        sdekit.VE,
        sdekit.EDM,
        sdekit.RectifiedFlow,
        sdekit.OrnsteinUhlenbeck,
        sdekit.Heat,
    }
    for problem in PROBLEMS.values():
        assert float(problem.target.components.variances.min()) ** 0.5 >= 0.14
        assert problem.count >= 6
        assert float(problem.process.sigma(problem.ends[1])) > 0
    for kind in kinds:
        assert gaussian_problem(kind()).ends[1] > 0
    assert gaussian_problem(low=0.0, high=1.0).high == 1.0


def test_bad_problems_are_refused():
    with pytest.raises(UnknownNameError, match="'karras'"):
        PROBLEMS["vp"].grid("karas", 4)
    with pytest.raises(UnknownNameError, match="irregular"):
        PROBLEMS["vp"].grid("iregular", 4)
    with pytest.raises(OptionError, match="steps: got 0"):
        PROBLEMS["vp"].grid("uniform", 0)
    with pytest.raises(InterfaceError, match="process: got str"):
        OrderProblem("x", "vp", TARGET)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="target: got Tensor"):
        OrderProblem("x", sdekit.VP(), torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="low < high"):
        OrderProblem("x", sdekit.VP(), TARGET, 1.0, 1.0)
    with pytest.raises(OptionError, match=r"lambda = 6.0.*VE\("):
        OrderProblem("x", sdekit.VE(), TARGET, high=6.0)
    with pytest.raises(OptionError, match="count"):
        OrderProblem("x", sdekit.VP(), TARGET, count=0)
