"""dpm_fast and the single-step DPM-Solvers: k-diffusion's and diffusers' samplers, orders, and what limits them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks import peers
from sdekit import EDM, VP, RectifiedFlow, solvers
from sdekit.errors import OptionError
from sdekit.plan import interpret
from tests.solvers import papers
from tests.solvers.test_exponential_runge_kutta import ours, planned
from tests.solvers.test_properties import LAMBDAS, PROCESSES, At, nonlinear, times

F64 = torch.float64
START = np.array([-70.0, -3.0, 11.0, 95.0])
# The middle of three calls at many places; the second of one is beyond 0.6.
UNEVEN = [-2.0, -1.8, -1.1, -0.9, 0.0, 0.2, 0.5, 0.6, 1.0, 1.3, 1.35, 1.6, 2.0, 2.1]


@pytest.fixture(scope="module")
def sampling():
    module = peers.kdiffusion_sampling()
    if module is None:
        pytest.skip(peers.missing("k-diffusion"))
    return module


def tensors(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """`nonlinear` as k-diffusion calls it."""
    rho2 = sigma.reshape(-1, 1) ** 2
    return 0.1 / (0.1 + rho2) * x + rho2 / (0.1 + rho2) * torch.tanh(x / (0.1 + rho2))


def run(plan) -> np.ndarray:
    return np.array([interpret(plan, nonlinear, y) for y in START])


def close(got: np.ndarray, want: torch.Tensor, bound: float = 1e-9) -> bool:
    return bool(np.abs(got - want.numpy().ravel()).max() <= bound * np.abs(START).max())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 11])
def test_dpm_fast_is_k_diffusions(sampling, n: int) -> None:
    x = torch.tensor(START, dtype=F64).reshape(-1, 1)
    ends = torch.tensor([0.02, 80.0], dtype=F64)
    # The module makes its ends with torch.tensor(float), in the default dtype.
    torch.set_default_dtype(F64)
    try:
        want = sampling.sample_dpm_fast(tensors, x, float(ends[0]), float(ends[1]), n, disable=True)
    finally:
        torch.set_default_dtype(torch.float32)
    solver = solvers.get("dpm_fast")
    plan = solver.plan(EDM(), solver.times(EDM(), n, t_start=80.0, t_end=0.02))
    assert plan.nfe == n == plan.steps and close(run(plan), want)
    full = solvers.get("dpm_fast", tail="full")
    same = n % 3 == 2 or n == 1
    assert close(run(full.plan(EDM(), full.times(EDM(), n, t_start=80.0, t_end=0.02))), want) == same


@pytest.mark.parametrize("append_zero", [False, True])
def test_dpm_2_is_k_diffusions(sampling, append_zero: bool) -> None:
    grid = torch.tensor([80.0, 30.0, 9.0, 2.0, 0.5, 0.1, *((0.0,) if append_zero else ())], dtype=F64)
    want = sampling.sample_dpm_2(tensors, torch.tensor(START, dtype=F64).reshape(-1, 1), grid, disable=True)
    assert close(run(solvers.get("dpm_2").plan(EDM(), grid)), want)
    assert not close(run(solvers.get("dpm_2", second="exact").plan(EDM(), grid)), want, 1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("n", [6, 7, 8])
def test_dpm_fast_is_the_single_step_scheduler_of_diffusers(n: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        solver_order=3,
        lower_order_final=True,
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(n)
    lam = [-math.log(float(s)) for s in scheduler.sigmas]
    x = start = torch.tensor([[-0.7], [0.4], [1.6]], dtype=F64)
    for t, v in zip(scheduler.timesteps, lam, strict=False):
        alpha, sigma = (1 / math.sqrt(1 + math.exp(k * v)) for k in (-2, 2))
        data = torch.tensor([[nonlinear(At(alpha, sigma), float(u))] for u in x], dtype=F64)
        x = scheduler.step((x - alpha * data) / sigma, t, x).prev_sample
    ends = []
    for second in ("half", "exact"):
        solver = solvers.get("dpm_fast", prediction="data", third="line", second=second)
        plan = solver.plan(VP(), times(VP(), lam))
        ends.append(torch.tensor([[interpret(plan, nonlinear, float(u))] for u in start], dtype=F64))
    assert float((ends[0] - x).abs().max()) < 1e-5 < 1e-4 < float((ends[1] - x).abs().max())


# What it is made of.


def test_the_calls_are_at_the_grids_times_and_the_tails_as_documented() -> None:
    released, full = (solvers.get("dpm_fast", tail=k) for k in ("released", "full"))
    assert [released.orders(n) for n in range(1, 8)] == [[1], [2], [2, 1], [3, 1], [3, 2], [3, 2, 1], [3, 3, 1]]
    assert [full.orders(n) for n in range(1, 8)] == [[1], [2], [3], [2, 2], [3, 2], [3, 3], [3, 2, 2]]
    for n in (1, 4, 9, 14):
        grid = times(VP(), UNEVEN[: n + 1] if n < 14 else [*UNEVEN, 2.3])
        plan = released.plan(VP(), grid)
        assert [r.t for r in plan.rows] == grid[:-1] and [r.step for r in plan.rows] == list(range(n))
    grid = released.times(EDM(), 4)
    lam = [-math.log(t) for t in grid]
    h = lam[3] - lam[0]
    assert np.diff(lam) == pytest.approx([h / 3, h / 3, h / 3, h])


def test_two_thirds_are_dpm_solver_3_and_other_places_etdrk3() -> None:
    for prediction in ("data", "noise"):
        got = ours(planned(VP(), "dpm_fast", [-1.0, -0.7, -0.4, -0.1], prediction=prediction, tail="full"))
        assert got == pytest.approx(ours(planned(VP(), "dpm_solver_3", [-1.0, -0.1], prediction=prediction)), rel=1e-13)
        got = ours(planned(VP(), "dpm_fast", [-1.0, -0.7, -0.2, 0.0], prediction=prediction, tail="full"))
        want = ours(planned(VP(), "etdrk3", [-1.0, 0.0], prediction=prediction, c2=0.3, c3=0.8))
        assert got == pytest.approx(want, rel=1e-13)
        line = ours(
            planned(VP(), "dpm_fast", [-1.0, -0.7, -0.2, 0.0], prediction=prediction, tail="full", third="line")
        )
        assert abs(line - want) > 1e-6


def slope(solver, uneven: float, steps: tuple[int, int]) -> float:
    """The order between two numbers of calls, on groups of three whose calls are at 0.4 and 0.4 + uneven."""

    def ends(solver, grid) -> np.ndarray:
        plan = solver.plan(VP(), times(VP(), grid), 0.0)
        return np.array([interpret(plan, nonlinear, y * plan.start[0]) for y in (-2.1, -0.4, 0.7, 1.3, 2.9)])

    def grid(n: int) -> np.ndarray:
        groups = np.linspace(-1.0, 1.5, math.ceil(n / 3) + 1)
        inner = np.array([0.0, 0.4, 0.4 + uneven])
        whole = (groups[:-1, None] + np.diff(groups)[:, None] * inner).ravel()
        return np.append(whole[:n], 1.5)

    want = ends(solvers.get("etdrk4"), np.linspace(-1.0, 1.5, 201))
    errors = [np.linalg.norm(ends(solver, grid(n)) - want) for n in steps]
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


def test_orders() -> None:
    full, line, released = (
        solvers.get("dpm_fast", tail="full"),
        solvers.get("dpm_fast", tail="full", third="line"),
        solvers.get("dpm_fast"),
    )
    assert full.declared.deterministic == 3 and slope(full, 0.4, (60, 120)) == pytest.approx(3, abs=0.15)
    assert line.declared.deterministic == 2 and slope(line, 0.4, (60, 120)) == pytest.approx(2, abs=0.15)
    # A tail of orders 2 and 1, or 1, costs an order; one of order 2 does not.
    assert released.declared.deterministic == 2
    assert slope(released, 0.4, (62, 122)) == pytest.approx(3, abs=0.15)
    for rest in (0, 1):
        assert slope(released, 0.4, (240 + rest, 480 + rest)) == pytest.approx(2, abs=0.25)


def test_corrected_weights_keep_order_three_where_the_published_lose_it() -> None:
    at = {"dpm_solver_3": "noise", "dpmpp_3s": "data"}
    for name, prediction in at.items():
        assert solvers.get(name).prediction == prediction
        for third, order in (("corrected", 3), ("line", 2), ("parabola", 2)):
            solver = solvers.get(name, third=third, r1=0.3, r2=0.6)
            assert solver.declared.deterministic == order
            assert single_step_slope(solver) == pytest.approx(order, abs=0.15), (name, third)
    assert single_step_slope(solvers.get("dpmpp_3s", second="half")) == pytest.approx(3, abs=0.15)
    # At 2/3 the correction is 1.
    assert ours(planned(VP(), "dpmpp_3s", third="corrected")) == pytest.approx(
        ours(planned(VP(), "dpmpp_3s", third="parabola")), rel=1e-13
    )


def single_step_slope(solver) -> float:
    def ends(solver, n: int) -> np.ndarray:
        plan = solver.plan(VP(), times(VP(), np.linspace(-1.0, 1.5, n + 1)), 0.0)
        return np.array([interpret(plan, nonlinear, y * plan.start[0]) for y in (-2.1, -0.4, 0.7, 1.3, 2.9)])

    want = ends(solvers.get("etdrk4"), 150)
    return math.log2(np.linalg.norm(ends(solver, 40) - want) / np.linalg.norm(ends(solver, 80) - want))


def test_dpmpp_3s_is_the_papers() -> None:
    for process in PROCESSES[:3]:
        plan = planned(process, "dpmpp_3s")
        want = papers.dpm_solver_3(papers.scales_of(process), LAMBDAS, 2.3 * plan.start[0], pp=True)
        assert abs(ours(plan) - want) <= 1e-12 * max(abs(want), 1)


# What any exponential method must do.

OPTIONS = [
    {"prediction": p, "tail": t, "third": k}
    for p in ("data", "noise")
    for t, k in (("released", "line"), ("full", "corrected"))
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_a_point_mass_is_exact_and_all_processes_give_one_sampler(options) -> None:
    ends = []
    for process in PROCESSES:
        for n in (1, 2, 3, 4, 6, 13):
            plan = planned(process, "dpm_fast", UNEVEN[: n + 1], **options)
            (a, s), (b, t) = plan.start, plan.end
            got = interpret(plan, lambda row, x: 1.7, a * 1.7 + s * 0.9)
            assert got == pytest.approx(b * 1.7 + t * 0.9, rel=1e-12, abs=1e-12 * (b + t))
        ends.append(ours(plan) / plan.end[0])
    assert ends == pytest.approx([ends[0]] * len(ends), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_ends_without_data_or_noise_take_their_limits(n: int) -> None:
    grid = np.linspace(1.0, 0.0, n + 1).tolist()
    plan = solvers.get("dpm_fast", prediction="data").plan(RectifiedFlow(), grid)
    assert plan.nfe == n and interpret(plan, lambda row, x: 1.7, 0.4) == pytest.approx(1.7, rel=1e-12)
    law = solvers.get("dpm_fast").plan(RectifiedFlow(), grid[::-1]).gaussian_moments(1.7, 0.3)
    assert math.isfinite(float(law.cov))


def test_options_are_checked() -> None:
    for name, options in (
        ("dpm_fast", {"tail": "none"}),
        ("dpm_fast", {"third": "parabola"}),
        ("dpm_fast", {"second": "taylor"}),
        ("dpm_fast", {"prediction": "v"}),
        ("dpmpp_3s", {"second": "published"}),
        ("dpmpp_3s", {"third": "corrected", "r1": 2 / 3, "r2": 0.9}),
    ):
        with pytest.raises(OptionError):
            solvers.get(name, **options)
    with pytest.raises(OptionError, match="steps"):
        solvers.get("dpm_fast").times(EDM(), 0)
    with pytest.raises(OptionError, match="positive"):
        solvers.get("dpm_fast").times(RectifiedFlow(), 4, t_start=1.0)
