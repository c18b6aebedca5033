"""Every grid against its formula written out again, in high precision or as the ranks that others publish."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from torch import Tensor

import sdekit
from sdekit import (
    EDM,
    VE,
    VP,
    AffineSDE,
    DiscreteVP,
    Heat,
    OrnsteinUhlenbeck,
    RectifiedFlow,
    SubVP,
    VPCosine,
    grids,
    targets,
)
from sdekit.errors import InterfaceError, OptionError, UnknownNameError

F64 = torch.float64
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
DERIVED = AffineSDE(VP().drift_coefficient, VP().diffusion_coefficient, t_min=1e-3, t_max=1.0)
PROCESSES = {
    "vp": VP(),
    "cosine": VPCosine(),
    "sub-vp": SubVP(),
    "discrete": DiscreteVP(BETAS),
    "ve": VE(0.02, 30.0),
    "edm": EDM(),
    "flow": RectifiedFlow(),
    "ou": OrnsteinUhlenbeck(0.8, 1.1),
    "heat": Heat(1.7),
    "derived": DERIVED,
}
INFINITE = ("beta_sigma", "exponential", "half_log_snr", "karras", "vp")  # where alpha = 0
OWN_START = ("align_your_steps", "ddim_uniform")
REPLACED = ("beta", "ddim_uniform", "sgm_uniform", "simple", "trailing")  # an appended zero takes the end's place


@pytest.fixture(params=PROCESSES)
def process(request) -> AffineSDE:
    return PROCESSES[request.param]


def test_the_groups_name_grids_that_exist() -> None:
    assert {*INFINITE, *OWN_START, *REPLACED} <= set(grids.available()) and len(grids.available()) >= 16


@pytest.mark.parametrize("name", grids.available())
def test_every_grid_has_its_ends_exactly_or_says_what_is_infinite(process: AffineSDE, name: str) -> None:
    grid, ends = grids.get(name), {"t_start": process.t_max, "t_end": process.t_min}
    if name in INFINITE and isinstance(process, RectifiedFlow):
        with pytest.raises(OptionError, match=r"t_start: got 1, where alpha = 0.*'uniform'"):
            grid(process, 4)
        ends = {"t_start": 0.9, "t_end": 0.1}
    if name == "align_your_steps":
        ends = {"t_start": float(grids.from_sigmas(process, 10.0)), "t_end": float(grids.from_sigmas(process, 0.1))}
    for steps in (1, 2, 5, 30):
        times = grid(process, steps, **ends)
        assert times.dtype == F64 and times.shape == (steps + 1,) and bool((times[1:] < times[:-1]).all())
        assert float(times[0]) == ends["t_start"] and float(times[-1]) == ends["t_end"]
        assert bool(torch.isfinite(times).all())
        if name not in OWN_START and ends["t_start"] == process.t_max and name not in REPLACED:
            assert torch.equal(times, grid(process, steps))


@pytest.mark.parametrize("name", grids.available())
def test_an_appended_zero_follows_the_end_or_takes_its_place(process: AffineSDE, name: str) -> None:
    grid = grids.get(name)
    ends = {"t_start": float(grids.from_sigmas(process, 10.0)), "t_end": float(grids.from_sigmas(process, 0.1))}
    if isinstance(process, VE):
        with pytest.raises(OptionError, match=r"append_zero: got True .* whose sigma\(0\) = 0\.02"):
            grid(process, 4, append_zero=True, **ends)
        return
    times = grid(process, 5, append_zero=True, **ends)
    assert times.shape == (6,) and float(times[-1]) == 0 and float(process.sigma(times[-1])) == 0
    if name in REPLACED:
        assert torch.equal(times[:-1], grid(process, 5, **ends)[:-1])
        assert grid(process, 1, append_zero=True, **ends).shape == (2,)
    else:
        assert torch.equal(times[:-1], grid(process, 4, **ends)) and float(times[-2]) == ends["t_end"]
        with pytest.raises(OptionError, match="steps"):
            grid(process, 1, append_zero=True, **ends)
    if name != "align_your_steps" and not (name in INFINITE and name not in ("karras", "beta_sigma", "vp")):
        with pytest.raises(OptionError, match="append_zero: got True with t_end = 0"):
            grid(process, 5, append_zero=True, t_start=ends["t_start"], t_end=0.0)


def test_grids_that_reach_both_singular_ends() -> None:
    # alpha = 0 at t = 1 and sigma = 0 at t = 0, in processes whose domain holds both.
    for process in (RectifiedFlow(), VPCosine()):
        for name in grids.available():
            if name in INFINITE or name == "align_your_steps":
                continue
            times = grids.get(name)(process, 9, t_start=1.0, t_end=0.0)
            assert float(times[0]) == 1 and float(times[-1]) == 0 and bool(torch.isfinite(times).all()), name
            inner = times[1:-1]
            assert bool((process.alpha(inner) > 0).all() and (process.sigma(inner) > 0).all()), name


# Formulas. Each returns the clock's values at the n + 1 points from those at the ends, in 40 digits.

Formula = Callable[[AffineSDE, int, float, float], list[mpf]]


def angle(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
    """sigma / alpha."""
    a, b = (mpmath.atan(mpf(float(process.rho(t)))) for t in (start, end))
    return [mpmath.tan(a + (b - a) * i / n) for i in range(n + 1)]


def roots(power: int) -> Formula:
    def formula(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
        origin = mpf(process.domain[0])
        a, b = ((mpf(t) - origin) ** (mpf(1) / power) for t in (start, end))
        return [origin + (a + (b - a) * i / n) ** power for i in range(n + 1)]

    return formula


def vp_time(low: float, high: float) -> Formula:
    def formula(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
        d = mpf(high) - mpf(low)
        b = [mpmath.log1p(mpf(float(process.rho(t))) ** 2) for t in (start, end)]
        first, last = ((mpmath.sqrt(mpf(low) ** 2 + 2 * d * v) - low) / d for v in b)
        u = [first + (last - first) * i / n for i in range(n + 1)]
        return [mpmath.sqrt(mpmath.expm1(low * v + d * v**2 / 2)) for v in u]

    return formula


def shifted(shift: float) -> Formula:
    def formula(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
        first, last = (mpf(v) / (shift + mpf(v)) for v in (float(process.rho(t)) for t in (start, end)))
        u = [first + (last - first) * i / n for i in range(n + 1)]
        t = [shift * v / (1 + (shift - 1) * v) for v in u]  # the shifted time of a rectified flow
        return [v / (1 - v) for v in t]

    return formula


def quantile(alpha: float, beta: float, u: mpf) -> mpf:
    """Of the beta distribution, by bisection."""
    if u in (0, 1):
        return u
    low, high = mpf(0), mpf(1)
    for _ in range(64):
        mid = (low + high) / 2
        below = mpmath.betainc(alpha, beta, 0, mid, regularized=True) < u
        low, high = (mid, high) if below else (low, mid)
    return low


def quantiles(alpha: float, beta: float, *, sigma: bool) -> Formula:
    def formula(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
        a, b = ((mpf(float(process.rho(t))) if sigma else mpf(t)) for t in (start, end))
        return [b + (a - b) * quantile(alpha, beta, 1 - mpf(i) / n) for i in range(n + 1)]

    return formula


def quadratic_after_linear(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
    """threshold = 0.1 in the first 3 steps; then a parabola, solved for from three conditions."""
    m, low = 3, mpf("0.1")
    rows = mpmath.matrix([[1, m, m**2], [0, 1, 2 * m], [1, n, n**2]])
    c = mpmath.lu_solve(rows, mpmath.matrix([low, low / m, 1]))
    w = [low * i / m if i <= m else c[0] + c[1] * i + c[2] * i**2 for i in range(n + 1)]
    return [start + (mpf(end) - start) * v for v in w]


def sloped(process: AffineSDE, n: int, start: float, end: float) -> list[mpf]:
    return [start + (mpf(end) - start) * i / n for i in range(n + 1)]


FORMULAS: dict[str, tuple[str, dict, Formula, str]] = {
    "cosine": ("cosine", {}, angle, "rho"),
    "quadratic": ("quadratic", {}, roots(2), "t"),
    "cubic": ("quadratic", {"power": 3.0}, roots(3), "t"),
    "vp": ("vp", {}, vp_time(0.1, 20.0), "rho"),
    "vp, other betas": ("vp", {"beta_min": 0.5, "beta_max": 9.0}, vp_time(0.5, 9.0), "rho"),
    "flow_shift": ("flow_shift", {}, shifted(3.0), "rho"),
    "flow_shift 1": ("flow_shift", {"shift": 1.0}, shifted(1.0), "rho"),
    "beta": ("beta", {}, quantiles(0.6, 0.6, sigma=False), "t"),
    "beta, other shape": ("beta", {"alpha": 2.0, "beta": 0.7}, quantiles(2.0, 0.7, sigma=False), "t"),
    "beta_sigma": ("beta_sigma", {}, quantiles(0.6, 0.6, sigma=True), "rho"),
    "linear_quadratic": ("linear_quadratic", {"threshold": 0.1, "linear_steps": 3}, quadratic_after_linear, "t"),
    "sgm_uniform": ("sgm_uniform", {}, sloped, "t"),
}


@pytest.mark.parametrize("case", FORMULAS)
@pytest.mark.parametrize("which", ["edm", "discrete"])
def test_grids_are_their_formulas(case: str, which: str) -> None:
    name, options, formula, clock = FORMULAS[case]
    process, n = PROCESSES[which], 6
    ends = {"t_start": float(grids.from_sigmas(process, 20.0)), "t_end": float(grids.from_sigmas(process, 0.05))}
    times = grids.get(name)(process, n, **ends, **options)
    with mpmath.workdps(40):
        want = torch.tensor([float(v) for v in formula(process, n, *ends.values())], dtype=F64)
    got = times if clock == "t" else process.rho(times)
    torch.testing.assert_close(got, want, rtol=2e-13, atol=0)
    # The mutant: a grid of another name is not this one.
    other = grids.get("exponential", rho=1.3)(process, n, **ends)
    assert not torch.allclose(other if clock == "t" else process.rho(other), want, rtol=1e-3)


def test_flow_shift_on_a_rectified_flow() -> None:
    u = 1 - torch.arange(11, dtype=F64) / 10
    torch.testing.assert_close(grids.flow_shift(RectifiedFlow(), 10), 3 * u / (1 + 2 * u), rtol=1e-14, atol=0)
    even = grids.flow_shift(RectifiedFlow(), 10, shift=1.0)
    torch.testing.assert_close(even, grids.uniform(RectifiedFlow(), 10), rtol=1e-14, atol=0)


# Ranks. On a DiscreteVP with N betas the k-th training time is t = k, and the timestep of others k - 1.


@pytest.mark.parametrize("steps", [1, 7, 10, 30, 999, 1000])
def test_the_grids_of_training_times_are_the_ranks_that_others_publish(steps: int) -> None:
    process = DiscreteVP(BETAS)

    def timesteps(name: str, **options) -> list[float]:
        return grids.to_timesteps(process, grids.get(name, **options)(process, steps, append_zero=True)).tolist()[:-1]

    # ComfyUI's simple: the int(x * 1000 / steps)-th sigma from the end.
    assert timesteps("simple") == [999 - math.floor(x * 1000 / steps) for x in range(steps)]
    # diffusers' trailing: np.round(np.arange(1000, 0, -1000 / steps)) - 1.
    assert timesteps("trailing") == [round(1000 - x * 1000 / steps) - 1 for x in range(steps)]
    if steps < 1000:
        # ComfyUI's ddim_uniform: sigmas 1, 1 + ratio, ..., the last of which comes first.
        assert timesteps("ddim_uniform") == [1 + (1000 // steps) * x for x in reversed(range(steps))]
    assert timesteps("leading", offset=0) == [(1000 // steps) * x for x in reversed(range(steps))]
    # ComfyUI's normal and sgm_uniform: timesteps from 999 to 0, with the last left out or not.
    even = np.linspace(999, 0, steps + 1)[:-1]
    assert np.allclose(timesteps("sgm_uniform"), even, rtol=1e-13)
    if steps > 1:
        assert np.allclose(timesteps("normal"), np.linspace(999, 0, steps), rtol=1e-13)


def test_rounded_to_training_times_beta_is_the_table_of_indices() -> None:
    from scipy import stats

    process = DiscreteVP(BETAS)
    rounded = grids.beta(process, 20, append_zero=True).round()
    want = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, 20, endpoint=False), 0.6, 0.6) * 999)
    assert grids.to_timesteps(process, rounded)[:-1].tolist() == want.tolist()


def test_training_times_of_other_processes() -> None:
    times = grids.simple(VP(), 3, timesteps=10)
    torch.testing.assert_close(times, torch.tensor([1.0, 0.7, 0.4, 1e-3], dtype=F64), rtol=1e-15, atol=0)
    times = grids.ddim_uniform(VP(), 3, timesteps=10, append_zero=True)
    torch.testing.assert_close(times, torch.tensor([0.8, 0.5, 0.2, 0.0], dtype=F64), rtol=1e-15, atol=0)
    # A start of one's own is kept.
    times = grids.ddim_uniform(VP(), 3, timesteps=10, t_start=1.0, append_zero=True)
    torch.testing.assert_close(times, torch.tensor([1.0, 0.6, 0.2, 0.0], dtype=F64), rtol=1e-15, atol=0)


def test_align_your_steps_is_its_table_and_interpolates_it() -> None:
    table = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]
    for process in (EDM(), VP(), DERIVED, RectifiedFlow()):
        times = grids.align_your_steps(process, 10, model="sdxl")
        torch.testing.assert_close(process.rho(times), torch.tensor(table, dtype=F64), rtol=1e-13, atol=0)
        # Twice as many steps: the geometric means come between.
        fine = process.rho(grids.align_your_steps(process, 20, model="sdxl"))
        torch.testing.assert_close(fine[::2], torch.tensor(table, dtype=F64), rtol=1e-13, atol=0)
        torch.testing.assert_close(fine[1::2], torch.sqrt(fine[:-1:2] * fine[2::2]), rtol=1e-13, atol=0)
    # Ends that are given stretch it.
    times = grids.align_your_steps(EDM(), 10, t_start=80.0, t_end=0.002)
    ratio = torch.log(times / 0.002) / math.log(80 / 0.002)
    plain = torch.log(grids.align_your_steps(EDM(), 10) / 0.029) / math.log(14.615 / 0.029)
    torch.testing.assert_close(ratio, plain, rtol=1e-13, atol=1e-15)
    assert float(grids.align_your_steps(EDM(), 10, model="svd")[0]) == pytest.approx(700, rel=1e-14)
    with pytest.raises(OptionError, match=r"sigmas: got 700; expected sigma / alpha between 0\.01 and 50"):
        grids.align_your_steps(VE(), 10, model="svd")


@pytest.mark.parametrize("model, second", [("sd15", 6.475), ("sdxl", 6.315)])
def test_align_your_steps_ends_where_the_process_that_it_was_made_for_does(model: str, second: float) -> None:
    stable = DiscreteVP(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2)
    assert 14.6145 < float(stable.rho(stable.t_max)) < 14.615  # which three decimals round up to
    for steps in (1, 10, 100_000):
        times = grids.align_your_steps(stable, steps, model=model)
        assert float(times[0]) == stable.t_max and bool((times.diff() < 0).all())
        assert float(stable.rho(times[-1])) == pytest.approx(0.029, rel=1e-13)
    # The levels between the ends are the published ones.
    assert float(stable.rho(grids.align_your_steps(stable, 10, model=model)[1])) == pytest.approx(second, rel=1e-13)
    x = sdekit.sample(targets.ring().under(stable), (4, 2), "dpmpp_2m", steps=10, grid="ays", seed=0)
    assert bool(torch.isfinite(x).all())
    # At the clean end too; not beyond the rounding, and not for sigmas that a user gives.
    clean = VE(0.0294, 50.0)
    assert float(grids.align_your_steps(clean, 10)[-1]) == clean.domain[0]
    for wide in (VE(0.0296, 50.0), VE(0.01, 14.6144)):
        with pytest.raises(OptionError, match=r"sigmas: got (0\.029|14\.615)"):
            grids.align_your_steps(wide, 10)
    with pytest.raises(OptionError, match=r"sigmas: got 14\.615"):
        grids.from_sigmas(stable, 14.615)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: grids.flow_shift(VP(), 4, shift=0.0), OptionError, "shift"),
        (lambda: grids.quadratic(VP(), 4, power=-1.0), OptionError, "power"),
        (lambda: grids.quadratic(VP(), 4, power="2"), InterfaceError, "power"),
        (lambda: grids.vp(VP(), 4, beta_min=3.0, beta_max=1.0), OptionError, "beta_min"),
        (lambda: grids.beta(VP(), 4, alpha=0.0), OptionError, "alpha"),
        (lambda: grids.beta_sigma(VP(), 4, beta=math.nan), OptionError, "beta"),
        (lambda: grids.linear_quadratic(VP(), 4, threshold=1.0), OptionError, "threshold"),
        (lambda: grids.linear_quadratic(VP(), 4, linear_steps=4), OptionError, "linear_steps"),
        (lambda: grids.linear_quadratic(VP(), 4, linear_steps=0), OptionError, "linear_steps"),
        (lambda: grids.linear_quadratic(VP(), 4, linear_steps=1.5), InterfaceError, "linear_steps"),
        (lambda: grids.simple(VP(), 11, timesteps=10), OptionError, "steps: got 11; expected at most the 10"),
        (lambda: grids.simple(VP(), 4, timesteps=0), OptionError, "timesteps"),
        (lambda: grids.simple(DiscreteVP([0.1, 0.2]), 1, timesteps=3), OptionError, "timesteps: got 3; expected 2"),
        (
            lambda: grids.trailing(VP(), 1000),
            OptionError,
            "steps: got 1000, for which the grid 'trailing' picks t = 0.001",
        ),
        (lambda: grids.ddim_uniform(VP(), 10, timesteps=10), OptionError, "offset: got 1; expected at most 0"),
        (lambda: grids.ddim_uniform(VP(), 10, offset=-1), OptionError, "offset"),
        (lambda: grids.align_your_steps(VP(), 10, model="sd14"), OptionError, "model: got 'sd14'.*'sd15'"),
        (lambda: grids.karras(VP(), 4, rh=3.0), UnknownNameError, r"karras\(rh=\): got 'rh'.*'rho'"),
        (lambda: grids.simple("vp", 4), InterfaceError, "process"),
    ],
)
def test_bad_options_are_named(call, error, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# Conversions.


def test_sigmas_there_and_back(process: AffineSDE) -> None:
    low, high = (float(process.rho(t)) for t in (process.t_min, process.t_max))
    sigmas = torch.logspace(math.log10(max(low, 0.03)), math.log10(min(high, 25.0)), 12, dtype=F64)
    times = grids.from_sigmas(process, sigmas)
    torch.testing.assert_close(grids.to_sigmas(process, times), sigmas, rtol=1e-12, atol=0)
    assert times.shape == (12,) and grids.from_sigmas(process, sigmas.reshape(3, 4).tolist()[0]).shape == (4,)
    # Both ends, exactly.
    for t in process.domain:
        if math.isfinite(t):
            sigma = float(process.rho(t))
            assert float(grids.to_sigmas(process, t)) == sigma and float(grids.from_sigmas(process, sigma)) == t
            if math.isfinite(sigma):  # as it is after a trip through float32
                single = float(torch.tensor(sigma, dtype=torch.float32))
                assert float(grids.from_sigmas(process, single)) == pytest.approx(t, rel=1e-6, abs=1e-6)


def test_the_exact_ends_of_a_sigma_list() -> None:
    times = grids.from_sigmas(VP(), [10.0, 1.0, 0.0])
    assert float(times[-1]) == 0 and float(VP().sigma(times[-1])) == 0
    for flow in (RectifiedFlow(), VPCosine()):
        assert grids.from_sigmas(flow, [math.inf, 0.0]).tolist() == [1.0, 0.0]
        assert grids.to_sigmas(flow, [1.0, 0.0]).tolist() == [math.inf, 0.0]
    times = grids.from_sigmas(EDM(), [80.0, 0.5, 0.0])
    torch.testing.assert_close(times, torch.tensor([80.0, 0.5, 0.0], dtype=F64), rtol=1e-15, atol=0)


def test_timesteps_are_counted_as_networks_count_them() -> None:
    chain = DiscreteVP(BETAS)
    assert grids.from_timesteps(chain, [999, 500, 0, -1]).tolist() == [1000.0, 501.0, 1.0, 0.0]
    assert torch.equal(grids.to_timesteps(chain, [1000.0, 2.5, 0.0]), torch.tensor([999.0, 1.5, -1.0], dtype=F64))
    # At whole times alpha is the square root of the running product that DDPM calls alpha bar.
    want = torch.sqrt(torch.cumprod(1 - BETAS, 0))
    got = chain.alpha(grids.from_timesteps(chain, torch.arange(1000)))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    # Continuous processes: a thousand equal training times, or as many as are said.
    assert grids.from_timesteps(VP(), [999, 499, 0, -1]).tolist() == [1.0, 0.5, 0.001, 0.0]
    assert grids.from_timesteps(VP(), 49, count=100).item() == 0.5
    # Flow matching in diffusers counts from 1.
    assert grids.from_timesteps(RectifiedFlow(), [1000, 500, 1, 0]).tolist() == [1.0, 0.5, 0.001, 0.0]
    assert grids.from_timesteps(RectifiedFlow(), 499, first=0).item() == 0.5
    assert grids.to_timesteps(RectifiedFlow(), 0.25).item() == 250
    assert grids.from_timesteps(VPCosine(), 999).item() == 1.0  # the domain's end, not where sampling starts


def test_timesteps_there_and_back(process: AffineSDE) -> None:
    steps = torch.tensor([[0.0, 1.0, 2.5], [300.0, 998.0, 999.0]], dtype=F64)
    back = grids.to_timesteps(process, grids.from_timesteps(process, steps))
    torch.testing.assert_close(back, steps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: grids.from_sigmas(VP(), [1.0, 200.0]), OptionError, "sigmas: got 200 at index 1; .*0 and 152"),
        (lambda: grids.from_sigmas(VP(), -0.1), OptionError, "sigmas: got -0.1;"),
        (lambda: grids.from_sigmas(VP(), [1.0, math.nan]), OptionError, "sigmas: got nan at index 1"),
        (lambda: grids.from_sigmas(EDM(), [math.inf]), OptionError, "sigmas: got inf at index 0"),
        (lambda: grids.from_sigmas(VE(0.02, 30.0), 0.0), OptionError, "between 0.02 and 30"),
        (lambda: grids.from_sigmas(VP(), "many"), InterfaceError, "sigmas: got 'many'"),
        (lambda: grids.from_sigmas(VP(), torch.ones(2, dtype=torch.bool)), InterfaceError, "sigmas: got dtype"),
        (lambda: grids.from_sigmas(None, [1.0]), InterfaceError, "process"),
        (lambda: grids.to_sigmas(VP(), [0.5, 1.5]), OptionError, "times: got 1.5 at index 1"),
        (lambda: grids.to_timesteps(VP(), [math.nan]), OptionError, "times: got nan"),
        (lambda: grids.from_timesteps(VP(), [1000]), OptionError, "timesteps: got 1000 at index 0; .*-1 to 999"),
        (lambda: grids.from_timesteps(RectifiedFlow(), -1), OptionError, "from 0 to 1000"),
        (lambda: grids.from_timesteps(DiscreteVP([0.1, 0.2]), 1, count=3), OptionError, "count: got 3; expected 2"),
        (lambda: grids.from_timesteps(VP(), 1, count=2.0), InterfaceError, "count"),
        (lambda: grids.from_timesteps(VP(), 1, first=-1), OptionError, "first"),
    ],
)
def test_what_cannot_be_converted_is_named(call, error, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_a_time_map_that_counts_timesteps() -> None:
    process, seen = VP(), []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t[0].item())
        return 0 * x

    model = sdekit.Model(net, process, time_map=lambda t: grids.to_timesteps(process, t))
    sdekit.sample(model, (2, 3), "ddim", grid=torch.tensor([1.0, 0.5, 0.001], dtype=F64), seed=0, dtype=F64)
    assert seen == [999.0, 499.0]
