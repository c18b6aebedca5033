"""Processes from f and g alone: against closed forms in 50 digits, against the named processes, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from torch import Tensor

import sdekit
from sdekit import EDM, VE, VP, AffineSDE, DiscreteVP, Heat, OrnsteinUhlenbeck, RectifiedFlow, SubVP, VPCosine
from sdekit.schedules import DerivedSchedule, panels

F64 = torch.float64
High = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Case:
    """f and g as functions of x = t - t_data, with int f and rho^2 = int g^2 e^{-2 int f} in closed form."""

    f: Callable[[Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    log_alpha: High
    rho2: High
    length: float
    t_data: float = 0.0
    bound: float = 2e-14

    def schedule(self) -> DerivedSchedule:
        return DerivedSchedule(
            lambda t: self.f(t - self.t_data), lambda t: self.g(t - self.t_data), self.t_data, self.t_data + self.length
        )

    def times(self) -> Tensor:
        """From 1e-12 of the range on; as far as t - t_data is known to single digits beside t."""
        least = max(1e-12 * self.length, 1e5 * math.ulp(self.t_data))
        fractions = torch.cat([torch.logspace(-12, -1, 23, dtype=F64), torch.linspace(0.15, 1, 18, dtype=F64)])
        times = self.t_data + self.length * fractions
        return torch.cat([times[times - self.t_data >= least][:-1], times.new_tensor([self.t_data + self.length])])

    def exact(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """log alpha and lambda."""
        with mpmath.workdps(50):
            x = [mpf(t) - mpf(self.t_data) for t in times.tolist()]
            alpha = [float(self.log_alpha(v)) for v in x]
            return torch.tensor(alpha, dtype=F64), torch.tensor(
                [float(-mpmath.log(self.rho2(v)) / 2) for v in x], dtype=F64
            )


def beta_case(low: float, high: float) -> Case:
    def integral(x: mpf) -> mpf:
        return mpf(low) * x + (mpf(high) - mpf(low)) * x**2 / 2

    def beta(x: Tensor) -> Tensor:
        return low + (high - low) * x

    return Case(
        lambda x: -0.5 * beta(x),
        lambda x: beta(x).sqrt(),
        lambda x: -integral(x) / 2,
        lambda x: mpmath.expm1(integral(x)),
        1.0,
    )


def constant_case(f: float, length: float, t_data: float = 0.0) -> Case:
    return Case(
        lambda x: torch.full_like(x, f),
        lambda x: torch.ones_like(x),
        lambda x: mpf(f) * x,
        lambda x: -mpmath.expm1(-2 * mpf(f) * x) / (2 * mpf(f)),
        length,
        t_data,
    )


def rate(x: Tensor) -> Tensor:
    """A beta that jumps."""
    return torch.where(x < 0.3, 1.0, 4.0).to(F64)


def jumped(x: mpf) -> mpf:
    return x if x < mpf(0.3) else mpf(0.3) + 4 * (x - mpf(0.3))


def wave(x: mpf) -> mpf:
    return (1 - mpmath.cos(7 * x)) / 7 - x


NO_DRIFT: dict = {"f": torch.zeros_like, "log_alpha": lambda x: mpf(0)}
FLOW: dict = {
    "f": lambda x: -1 / (1 - x),
    "g": lambda x: torch.sqrt(2 * x / (1 - x)),
    "log_alpha": lambda x: mpmath.log(1 - x),
    "rho2": lambda x: (x / (1 - x)) ** 2,
}
CASES: dict[str, Case] = {
    "vp": beta_case(0.1, 20.0),
    "vp-from-zero": beta_case(0.0, 12.5),
    "edm": Case(g=lambda x: torch.sqrt(2 * x), rho2=lambda x: x**2, length=80.0, **NO_DRIFT),
    "flow": Case(**FLOW, length=0.9999),
    "flow-next-to-the-end": Case(**FLOW, length=1 - 1e-6, bound=1e-13),
    "trigonometric": Case(
        lambda x: -math.pi / 2 * torch.tan(math.pi / 2 * x),
        lambda x: torch.sqrt(math.pi * torch.tan(math.pi / 2 * x)),
        lambda x: mpmath.log(mpmath.cos(mpmath.pi / 2 * x)),
        lambda x: mpmath.tan(mpmath.pi / 2 * x) ** 2,
        0.9999,
        bound=1e-12,  # the rounding of pi / 2 next to the pole of the tangent
    ),
    "decay": constant_case(-1.3, 20.0),
    "growth": constant_case(1.5, 4.0),
    "stiff": constant_case(-1000.0, 1.0),
    "from -1": constant_case(-1.0, 2.0, -1.0),
    "singular-start": Case(
        lambda x: -(x**-0.5),
        lambda x: x**-0.25,
        lambda x: -2 * mpmath.sqrt(x),
        lambda x: mpmath.expm1(4 * mpmath.sqrt(x)) / 2,
        1.0,
    ),
    "late-start": Case(g=lambda x: x**5, rho2=lambda x: x**11 / 11, length=1.0, **NO_DRIFT),
    "from 5": Case(
        g=lambda x: torch.sqrt(2 * x), rho2=lambda x: x**2, length=80.0, t_data=5.0, bound=1e-12, **NO_DRIFT
    ),
    "jump": Case(
        lambda x: -0.5 * rate(x),
        lambda x: rate(x).sqrt(),
        lambda x: -jumped(x) / 2,
        lambda x: mpmath.expm1(jumped(x)),
        1.0,
    ),
    # No closed form: integrated in 50 digits.
    "wave": Case(
        lambda x: torch.sin(7 * x) - 1,
        lambda x: 1 + 0.5 * torch.cos(11 * x),
        wave,
        lambda x: mpmath.quad(
            lambda u: (1 + mpmath.cos(11 * u) / 2) ** 2 * mpmath.exp(-2 * wave(u)), mpmath.linspace(0, x, 5)
        ),
        2.0,
    ),
    # g vanishes at a single time.
    "touching": Case(
        g=lambda x: torch.abs(x - 0.4),
        rho2=lambda x: ((x - mpf(0.4)) ** 3 + mpf(0.4) ** 3) / 3,
        length=1.0,
        **NO_DRIFT,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lambda_and_log_alpha_are_exact(name: str) -> None:
    case = CASES[name]
    times, schedule = case.times(), case.schedule()
    log_alpha, half_log_snr = case.exact(times)
    assert ((schedule.half_log_snr(times) - half_log_snr).abs() <= case.bound * half_log_snr.abs().clamp(min=1)).all()
    assert ((schedule.log_alpha(times) - log_alpha).abs() <= case.bound * log_alpha.abs().clamp(min=1)).all()
    torch.testing.assert_close(schedule.log_sigma(times), log_alpha - half_log_snr, rtol=2 * case.bound, atol=2e-12)
    if name == "touching":
        return  # lambda stands still for a moment: the time is not determined there
    # From the exact lambda back to the time: as far as a rounding of lambda determines it.
    found = schedule.time_at(half_log_snr.clamp(min=schedule.tables.last)) - case.t_data
    x = times - case.t_data
    g2 = case.g(x) ** 2 * torch.exp(-2 * log_alpha + 2 * half_log_snr)  # -2 lambda'
    condition = (2 * half_log_snr.abs().clamp(min=1) / (g2 * x)).clamp(min=1)
    assert ((found / x - 1).abs() <= 1e-12 * condition.clamp(max=1e3)).all()


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("growth", "touching")])
def test_time_at_undoes_half_log_snr_to_twelve_digits(name: str) -> None:
    # Without growth, which leaves lambda flat at the end, and without a time at which lambda stands still.
    case = CASES[name]
    times, schedule = case.times(), case.schedule()
    back = schedule.time_at(schedule.half_log_snr(times)) - case.t_data
    assert ((back / (times - case.t_data) - 1).abs() <= 1e-12).all()
    assert schedule.time_at(schedule.half_log_snr(times)[-1] - 1e-13) == times[-1]  # an overshoot by rounding


MUTANTS = {
    "a loose tolerance": ("flow", "_TOLERANCE", 1e-3),
    "times taken as not rounded": ("from 5", "_moved", lambda values, shift: values),
    "too far a first edge": ("singular-start", "_NEAREST", 1e-3),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_costs_digits(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, attribute, value = MUTANTS[mutant]
    monkeypatch.setattr(panels, attribute, value)
    with pytest.raises(AssertionError):
        test_lambda_and_log_alpha_are_exact(name)


def test_a_chain_of_jumps_costs_a_panel_each() -> None:
    chain = DiscreteVP(torch.linspace(1e-4, 0.03, 300, dtype=F64))
    found, times = derived(chain, 300.0), torch.linspace(0.05, 300, 777, dtype=F64)
    torch.testing.assert_close(found.half_log_snr(times), chain.half_log_snr(times), rtol=0, atol=2e-14)
    assert len(found.schedule.tables.ends) < 500


def test_a_jump_next_to_the_edge_of_a_panel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    place = 0.5 - 1e-4  # between the outermost node of a panel and its edge

    def jump(t: Tensor) -> Tensor:
        return torch.where(t < place, 1.0, 3.0).to(F64)

    def error() -> float:
        found = DerivedSchedule(torch.zeros_like, lambda t: jump(t).sqrt(), 0.0, 1.0).half_log_snr(
            torch.ones(1).double()
        )
        return abs(float(found) + 0.5 * math.log(place + 3 * (1 - place)))

    assert error() <= 1e-15
    monkeypatch.setattr(panels, "_gap", lambda terms, ends: 0.0)
    assert error() > 1e-5


NAMED: dict[str, tuple[AffineSDE, float]] = {
    "vp": (VP(), 1.0),
    "vp-from-zero": (VP(0.0, 12.0), 1.0),
    "cosine": (VPCosine(), 0.9946),
    "cosine-plain": (VPCosine(0.0), 0.999),
    "discrete": (DiscreteVP((0.001, 0.02, 0.3, 0.9, 0.95)), 5.0),
    "sub-vp": (SubVP(), 1.0),
    "edm": (EDM(), 80.0),
    "flow": (RectifiedFlow(), 0.999),
    "ou": (OrnsteinUhlenbeck(0.8, 1.1), 5.0),
    "heat": (Heat(1.7), 2000.0),
}


def derived(process: AffineSDE, end: float) -> AffineSDE:
    return AffineSDE(process.drift_coefficient, process.diffusion_coefficient, t_min=1e-3 * end, t_max=end)


@pytest.mark.parametrize("name", NAMED)
def test_the_named_processes_follow_from_their_own_f_and_g(name: str) -> None:
    process, end = NAMED[name]
    mine = derived(process, end)
    times = torch.cat([torch.zeros(1, dtype=F64), end * torch.logspace(-9, 0, 40, dtype=F64)])
    for attribute in ("log_alpha", "log_sigma", "half_log_snr"):
        got, want = getattr(mine, attribute)(times), getattr(process, attribute)(times)
        assert ((got == want) | ((got - want).abs() <= 1e-12 * want.abs().clamp(min=1))).all(), attribute
    inside = times[1:]
    torch.testing.assert_close(mine.alpha_rate(times), process.alpha_rate(times), rtol=1e-12, atol=1e-12)
    # sigma' is a difference of two terms, one of which is g^2 / (2 sigma).
    scale = 0.5 * process.diffusion_coefficient(inside) ** 2 / process.sigma(inside)
    assert ((mine.sigma_rate(inside) - process.sigma_rate(inside)).abs() <= 1e-12 * scale).all()
    torch.testing.assert_close(mine.sigma_rate(0.0), process.sigma_rate(0.0), rtol=1e-12, atol=0)
    for got, want in zip(mine.transition(times[:-1], inside), process.transition(times[:-1], inside), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert mine.prior[1] == pytest.approx(float(process.sigma(end)), rel=1e-12)


def test_sigma_min_is_noise_before_the_start_of_ve() -> None:
    # f and g cannot know it: what they add from t_data on is the transition of VE from there.
    process = VE(0.02, 30.0)
    mine = AffineSDE(process.drift_coefficient, process.diffusion_coefficient, t_min=1e-3, t_max=1.0)
    times = torch.logspace(-6, 0, 30, dtype=F64)
    added = torch.sqrt(0.02**2 * torch.expm1(2 * math.log(30.0 / 0.02) * times))
    torch.testing.assert_close(mine.sigma(times), added, rtol=1e-13, atol=0)
    torch.testing.assert_close(process.transition(0.0 * times, times)[1], added, rtol=1e-11, atol=0)


SOLVERS = {
    "dpmpp_2m": {},
    "heun": {"clock": "t"},
    "rk4": {},
    "euler_maruyama": {},
    "ddpm": {},
    "edm_heun": {"churn": 4.0},
    "exp_adams": {"order": 3, "prediction": "noise"},
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_are_those_of_the_named_process(solver: str) -> None:
    process, target = VP(), sdekit.targets.random_mixture(2, 3, seed=0)
    mine = derived(process, 1.0)
    method, grid = sdekit.solvers.get(solver, **SOLVERS[solver]), sdekit.grids.half_log_snr(process, 12)
    plans = [method.plan(p, grid, stochasticity=1.0 if solver == "euler_maruyama" else None) for p in (process, mine)]
    a, b = (sdekit.sample(target.under(p), (5, 2), plan, grid=grid, seed=3, dtype=F64) for p, plan in
            zip((process, mine), plans, strict=True))  # fmt: skip
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_everything_else_works_as_for_the_named_process() -> None:
    process, target = VP(), sdekit.targets.random_mixture(2, 3, seed=0)
    mine = derived(process, 1.0)
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    exact, other = target.under(process), target.under(mine)
    torch.testing.assert_close(mine.perturb(0.3, x, x), process.perturb(0.3, x, x), rtol=1e-13, atol=0)
    torch.testing.assert_close(mine.simulate(x, [0.0, 0.2, 0.9], seed=1), process.simulate(x, [0.0, 0.2, 0.9], seed=1))
    torch.testing.assert_close(other.flow(x, 0.9, 0.1), exact.flow(x, 0.9, 0.1), rtol=0, atol=1e-11)
    for name in ("velocity", "score", "v"):
        torch.testing.assert_close(getattr(other, name)(0.4, x), getattr(exact, name)(0.4, x), rtol=1e-11, atol=0)
    times = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    for kappa in (0.0, 0.7):
        one, two = process.reverse(exact, kappa), mine.reverse(other, kappa)
        torch.testing.assert_close(two.drift(times, x), one.drift(times, x), rtol=1e-11, atol=0)
    plan = sdekit.solvers.get("dpmpp_2m").plan(mine, sdekit.grids.get(mine.default_grid)(mine, 10))
    mean, cov = torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    assert torch.isfinite(plan.gaussian_moments(mean, cov).cov).all()
    assert mine.default_grid == "half_log_snr"
    # From the data on, where half-log-SNR is infinite.
    whole = AffineSDE(process.drift_coefficient, process.diffusion_coefficient, t_min=0.0, t_max=1.0)
    assert whole.default_grid == "uniform" and whole == derived(process, 1.0)
    assert torch.isfinite(sdekit.sample(target.under(whole), (3, 2), "dpmpp_2m", 8, seed=0)).all()


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.1, 20.0), st.floats(-3.0, 3.0))
def test_any_smooth_coefficients_give_a_process(seed: int, length: float, t_data: float) -> None:
    a, b = torch.randn(2, 4, 1, dtype=F64, generator=torch.Generator().manual_seed(seed))
    k = torch.arange(4, dtype=F64)[:, None]

    def series(c: Tensor, t: Tensor) -> Tensor:
        return (c * torch.cos(k * t.flatten() + c)).sum(0).reshape(t.shape)

    p = AffineSDE(
        lambda t: 0.5 * series(a, t),
        lambda t: torch.exp(0.3 * series(b, t)),
        t_min=t_data + 0.01 * length,
        t_max=t_data + length,
        t_data=t_data,
    )
    times = t_data + length * torch.linspace(0, 1, 41, dtype=F64)[1:]
    lam = p.half_log_snr(times)
    assert (lam[:-1] > lam[1:]).all()
    condition = 1e-14 * lam.abs().clamp(min=1) * 2 * p.sigma(times) ** 2 / p.diffusion_coefficient(times) ** 2
    assert ((p.time_at(lam) - times).abs() <= condition + 1e-14 * length).all()
    # One way round: the rates are f alpha and the variance's own equation, by a central difference.
    h = 1e-5 * length
    inner = times[:-1]
    slope = (p.log_alpha(inner + h) - p.log_alpha(inner - h)) / (2 * h)
    assert torch.allclose(slope, p.drift_coefficient(inner), rtol=1e-6, atol=1e-6)
    growth = (p.sigma(inner + h) ** 2 - p.sigma(inner - h) ** 2) / (2 * h)
    wanted = 2 * p.drift_coefficient(inner) * p.sigma(inner) ** 2 + p.diffusion_coefficient(inner) ** 2
    assert torch.allclose(growth, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


class Mine(AffineSDE):
    """A process of the user's own: a class with its parameters."""

    def __init__(self, speed: float) -> None:
        self.__dict__["speed"] = speed
        super().__init__(self.decay, self.noise, t_min=1e-3, t_max=2.0)

    def decay(self, t: Tensor) -> Tensor:
        return -self.speed * t

    def noise(self, t: Tensor) -> Tensor:
        return torch.sqrt(2 * self.speed * t)


def test_a_class_of_the_user_s_own() -> None:
    p = Mine(1.5)
    times = torch.linspace(0.1, 2, 7, dtype=F64)
    torch.testing.assert_close(p.alpha(times), torch.exp(-0.75 * times**2), rtol=1e-13, atol=0)
    torch.testing.assert_close(p.sigma(times) ** 2, -torch.expm1(-1.5 * times**2), rtol=1e-13, atol=0)
    for other in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        assert torch.equal(other.half_log_snr(times), p.half_log_snr(times)) and other.speed == 1.5
    assert "Mine" in repr(p) and "0x" not in repr(p)


def test_functions_may_return_numbers() -> None:
    p = AffineSDE(lambda t: -1, lambda t: math.sqrt(2.0), t_min=1e-3, t_max=4.0)
    ou = OrnsteinUhlenbeck()
    times = torch.linspace(0.1, 4, 9, dtype=F64)
    torch.testing.assert_close(p.half_log_snr(times), ou.half_log_snr(times), rtol=0, atol=1e-13)
    assert torch.equal(p.diffusion_coefficient(times), ou.diffusion_coefficient(times))


def test_lambda_and_log_alpha_have_their_gradients() -> None:
    p = derived(VP(), 1.0)
    times = torch.linspace(0.05, 0.95, 7, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(p.log_alpha(times).sum(), times)
    torch.testing.assert_close(slope, VP().drift_coefficient(times.detach()), rtol=1e-11, atol=0)
    (slope,) = torch.autograd.grad(p.half_log_snr(times).sum(), times)
    g, sigma = VP().diffusion_coefficient(times.detach()), VP().sigma(times.detach())
    torch.testing.assert_close(slope, -0.5 * (g / sigma) ** 2, rtol=1e-11, atol=0)


def test_f_and_g_are_asked_inside_the_range_and_not_often() -> None:
    asked = []

    def f(t: Tensor) -> Tensor:
        asked.append(t.flatten())
        return VP().drift_coefficient(t)

    p = AffineSDE(f, VP().diffusion_coefficient, t_min=1e-3, t_max=1.0)
    times = torch.cat(asked)
    assert len(asked) < 20 and len(times) < 10_000 and float(times.min()) > 0 and float(times.max()) == 1
    asked.clear()
    p.half_log_snr(times), p.time_at(p.half_log_snr(0.3)), p.sigma(0.3)
    assert not asked


def test_a_steep_decay_underflows_as_it_does_for_the_named_process() -> None:
    p = AffineSDE(lambda t: -1.0, lambda t: 1.0, t_min=0.01, t_max=1000.0)
    ou = OrnsteinUhlenbeck(1.0, 1.0)
    (far,) = p.levels([1000.0])
    assert (
        far.alpha == 0
        and far.rho == math.inf
        and far.half_log_snr == pytest.approx(float(ou.half_log_snr(1000.0)), rel=1e-13)
    )
    assert far.sigma == pytest.approx(math.sqrt(0.5), rel=1e-12)
