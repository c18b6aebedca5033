"""Schedules against 60-digit arithmetic, from 1e-12 to the noisy end, and inverted."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from mpmath import mpf

from sdekit.errors import InterfaceError, OptionError
from sdekit.schedules import (
    CosineSchedule,
    DiscreteVPSchedule,
    EDMSchedule,
    HeatSchedule,
    OUSchedule,
    RFSchedule,
    Schedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

Marginal = Callable[[mpf], tuple[mpf, mpf]]


def vp(low: float, high: float) -> Marginal:
    def marginal(t: mpf) -> tuple[mpf, mpf]:
        b = mpf(low) * t + (mpf(high) - mpf(low)) * t**2 / 2
        return mpmath.exp(-b / 2), mpmath.sqrt(-mpmath.expm1(-b))

    return marginal


def ou(theta: float, s: float) -> Marginal:
    variance = mpf(s) ** 2 / (2 * mpf(theta))
    return lambda t: (mpmath.exp(-mpf(theta) * t), mpmath.sqrt(variance * -mpmath.expm1(-2 * mpf(theta) * t)))


def ve(low: float, high: float) -> Marginal:
    return lambda t: (mpf(1), mpf(low) * (mpf(high) / mpf(low)) ** t)


def sub_vp(low: float, high: float) -> Marginal:
    def marginal(t: mpf) -> tuple[mpf, mpf]:
        b = mpf(low) * t + (mpf(high) - mpf(low)) * t**2 / 2
        return mpmath.exp(-b / 2), -mpmath.expm1(-b)

    return marginal


def cosine(offset: float) -> Marginal:
    def marginal(t: mpf) -> tuple[mpf, mpf]:
        angles = [mpmath.pi / 2 * (v + mpf(offset)) / (1 + mpf(offset)) for v in (t, mpf(0))]
        alpha = mpmath.cos(angles[0]) / mpmath.cos(angles[1])
        return alpha, mpmath.sqrt(1 - alpha**2)

    return marginal


BETAS = (0.001, 0.02, 0.3, 0.9, 0.95, 0.99, 0.999)


def discrete(t: mpf) -> tuple[mpf, mpf]:
    n = min(int(mpmath.floor(t)), len(BETAS) - 1)
    logs = [mpmath.log(1 - mpf(beta)) for beta in BETAS]
    log = mpmath.fsum(logs[:n]) + (t - n) * logs[n]
    return mpmath.exp(log / 2), mpmath.sqrt(-mpmath.expm1(log))


SMALL = [10.0**-k for k in range(12, 0, -1)]
TO_ONE = [*SMALL, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-9]
NEXT_TO_ONE = [1 - 2.0**-k for k in (35, 45, 52)]
CASES: dict[str, tuple[Schedule, Marginal, list[float]]] = {
    "vp": (VPSchedule(0.1, 20.0), vp(0.1, 20.0), [*TO_ONE, 1.0]),
    "vp-from-zero": (VPSchedule(0.0, 12.5), vp(0.0, 12.5), [*TO_ONE, 1.0]),
    "vp-constant": (VPSchedule(3.0, 3.0), vp(3.0, 3.0), [*TO_ONE, 1.0]),
    "sub-vp": (SubVPSchedule(0.1, 20.0), sub_vp(0.1, 20.0), [*TO_ONE, 1.0]),
    "sub-vp-from-zero": (SubVPSchedule(0.0, 12.5), sub_vp(0.0, 12.5), [*TO_ONE, 1.0]),
    "cosine": (CosineSchedule(0.008), cosine(0.008), [*TO_ONE, *NEXT_TO_ONE]),
    "cosine-plain": (CosineSchedule(0.0), cosine(0.0), [*TO_ONE, *NEXT_TO_ONE]),
    "discrete": (DiscreteVPSchedule(BETAS), discrete, [*SMALL, 0.5, 1.5, 2.25, 3.7, 5.001, 6.999]),
    "ve": (VESchedule(0.01, 50.0), ve(0.01, 50.0), [*TO_ONE, 1.0]),
    "edm": (EDMSchedule(), lambda t: (mpf(1), t), [*SMALL, 0.5, 3.0, 80.0, 1e5]),
    "rf": (RFSchedule(), lambda t: (1 - t, t), [*TO_ONE, *NEXT_TO_ONE]),
    "ou": (OUSchedule(1.3, 0.7), ou(1.3, 0.7), [*SMALL, 0.5, 1.0, 4.0, 20.0]),
    "heat": (HeatSchedule(2.5), lambda t: (mpf(1), mpf(2.5) * mpmath.sqrt(t)), [*SMALL, 0.5, 1.0, 30.0]),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[Schedule, Marginal, list[float]]:
    return CASES[request.param]


def exact(marginal: Marginal, times: list[float], quantity: Callable[[Marginal, mpf], mpf]) -> torch.Tensor:
    with mpmath.workdps(60):
        return torch.tensor([float(quantity(marginal, mpf(t))) for t in times], dtype=torch.float64)


def derivative(function: Callable[[mpf], mpf], s: mpf) -> mpf:
    """By differences so fine that 60 digits give 20 right ones, next to the singular ends 0 and 1 too."""
    return mpmath.diff(function, s, h=min(s, abs(1 - s) or s) * mpf(10) ** -20)


def assert_close(got: torch.Tensor, want: torch.Tensor, times: list[float], relative: float, absolute: float = 0.0):
    error = (got - want).abs()
    bad = error > relative * want.abs() + absolute
    assert not bad.any(), [(t, float(g), float(w)) for t, g, w, b in zip(times, got, want, bad, strict=True) if b]


def rounding(schedule: Schedule) -> float:
    """VE adds log sigma_min = -4.6 to something as large."""
    return 1.5e-15 if isinstance(schedule, VESchedule) else 5e-16


# A logarithm's absolute error is the relative error of what it is the logarithm of: that is what counts near 0.
def test_log_alpha_and_log_sigma_keep_alpha_and_sigma_to_rounding(case) -> None:
    schedule, marginal, times = case
    t = torch.tensor(times, dtype=torch.float64)
    for got, index in ((schedule.log_alpha(t), 0), (schedule.log_sigma(t), 1)):
        want = exact(marginal, times, lambda m, s, i=index: mpmath.log(m(s)[i]))
        assert_close(got, want, times, 5e-16, rounding(schedule))


def test_half_log_snr_has_no_cancellation_at_either_end(case) -> None:
    schedule, marginal, times = case
    got = schedule.half_log_snr(torch.tensor(times, dtype=torch.float64))
    want = exact(marginal, times, lambda m, s: mpmath.log(m(s)[0] / m(s)[1]))
    assert_close(got, want, times, 5e-16, rounding(schedule))
    assert bool((got[:-1] > got[1:]).all())


def test_the_textbook_form_of_vp_loses_what_ours_keeps() -> None:
    t = torch.tensor([1e-9], dtype=torch.float64)
    log_alpha = VPSchedule(0.1, 20.0).log_alpha(t)
    naive = log_alpha - 0.5 * torch.log(1 - torch.exp(2 * log_alpha))
    want = exact(vp(0.1, 20.0), [1e-9], lambda m, s: mpmath.log(m(s)[0] / m(s)[1]))
    assert (naive - want).abs() > 1e-9


def test_rates_are_derivatives(case) -> None:
    schedule, marginal, times = case
    inside = [t for t in times if t < 1 or not isinstance(schedule, RFSchedule)]
    t = torch.tensor(inside, dtype=torch.float64)
    for got, index in ((schedule.alpha_rate(t), 0), (schedule.sigma_rate(t), 1)):
        want = exact(marginal, inside, lambda m, s, i=index: derivative(lambda u: m(u)[i], s))
        assert_close(got, want, inside, 1e-14)


def test_f_is_the_rate_of_log_alpha_and_g2_restores_the_variance(case) -> None:
    schedule, marginal, times = case
    inside = [t for t in times if t < 1 or not isinstance(schedule, RFSchedule)]
    t = torch.tensor(inside, dtype=torch.float64)

    f = exact(marginal, inside, lambda m, s: derivative(lambda u: mpmath.log(m(u)[0]), s))
    g2 = exact(
        marginal,
        inside,
        lambda m, s: (
            derivative(lambda u: m(u)[1] ** 2, s) - 2 * derivative(lambda u: mpmath.log(m(u)[0]), s) * m(s)[1] ** 2
        ),
    )
    assert_close(schedule.drift_coefficient(t), f, inside, 1e-14)
    assert_close(schedule.diffusion_coefficient(t) ** 2, g2, inside, 1e-14)


def inverse(name: str, lam: mpf) -> mpf:
    """t of lambda by the formulas of the literature, in high precision."""
    rho2 = mpmath.exp(-2 * lam)
    if name.startswith("vp"):
        low, high = {"vp": (0.1, 20.0), "vp-from-zero": (0.0, 12.5), "vp-constant": (3.0, 3.0)}[name]
        b, slope = mpmath.log1p(rho2), mpf(high) - mpf(low)
        return b / mpf(low) if slope == 0 else (mpmath.sqrt(mpf(low) ** 2 + 2 * slope * b) - mpf(low)) / slope
    if name.startswith("sub-vp"):
        low, high = {"sub-vp": (0.1, 20.0), "sub-vp-from-zero": (0.0, 12.5)}[name]
        b = 2 * mpmath.asinh(mpmath.sqrt(rho2) / 2)
        return (mpmath.sqrt(mpf(low) ** 2 + 2 * (mpf(high) - mpf(low)) * b) - mpf(low)) / (mpf(high) - mpf(low))
    if name.startswith("cosine"):
        offset = mpf(0.008 if name == "cosine" else 0.0)
        first = mpmath.pi / 2 * offset / (1 + offset)
        angle = mpmath.acos(mpmath.cos(first) / mpmath.sqrt(1 + rho2))
        return 2 / mpmath.pi * (1 + offset) * angle - offset
    if name == "discrete":
        left, sums = mpmath.log1p(rho2), [-mpmath.log(1 - mpf(beta)) for beta in BETAS]
        n = next(n for n in range(len(sums)) if left <= mpmath.fsum(sums[: n + 1]))
        return n + (left - mpmath.fsum(sums[:n])) / sums[n]
    if name == "ve":
        return mpmath.log(mpmath.sqrt(rho2) / mpf(0.01)) / mpmath.log(mpf(50.0) / mpf(0.01))
    if name == "edm":
        return mpmath.sqrt(rho2)
    if name == "rf":
        return 1 / (1 + mpmath.exp(lam))
    if name == "ou":
        return mpmath.log1p(2 * mpf(1.3) * rho2 / mpf(0.7) ** 2) / (2 * mpf(1.3))
    return rho2 / mpf(2.5) ** 2


@pytest.mark.parametrize("name", CASES)
def test_time_at_against_the_inverse_in_high_precision(name: str) -> None:
    values = [-4.9, -3.0, -1.0, -1e-9, 0.0, 0.3, 1.0, 4.0, 9.0, 20.0]
    got = CASES[name][0].time_at(torch.tensor(values, dtype=torch.float64))
    with mpmath.workdps(60):
        want = torch.tensor([float(inverse(name, mpf(v))) for v in values], dtype=torch.float64)
    # OU adds a constant to 2 lambda = 40, whose last bit counts; VE's time passes through 0.
    assert_close(got, want, values, 4e-15 if name == "ou" else 2e-15, 2e-15 if name == "ve" else 0.0)


def test_time_at_undoes_half_log_snr(case) -> None:
    schedule, _, times = case
    t = torch.tensor(times, dtype=torch.float64)
    back = schedule.time_at(schedule.half_log_snr(t))
    # lambda is of size 30 at t = 1e-12, and its last bit is worth 2 * 30 * 1e-16 of t there.
    assert_close(back, t, times, 1.5e-14, 1e-15 if isinstance(schedule, VESchedule) else 0.0)


@pytest.mark.parametrize("schedule", [c[0] for name, c in CASES.items() if name != "ve"])
def test_no_noise_at_time_zero_exactly(schedule: Schedule) -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert schedule.log_alpha(zero) == 0
    assert schedule.log_sigma(zero) == -math.inf
    assert schedule.half_log_snr(zero) == math.inf
    assert schedule.time_at(torch.tensor(math.inf, dtype=torch.float64)) == 0


def test_no_data_at_the_end_of_the_rectified_flow_exactly() -> None:
    one, schedule = torch.ones((), dtype=torch.float64), RFSchedule()
    assert schedule.log_alpha(one) == -math.inf and schedule.log_sigma(one) == 0
    assert schedule.half_log_snr(one) == -math.inf
    assert schedule.time_at(torch.tensor(-math.inf, dtype=torch.float64)) == 1
    assert schedule.alpha_rate(one) == -1 and schedule.sigma_rate(one) == 1


@pytest.mark.parametrize("offset", [0.0, 0.008])
def test_no_data_at_the_end_of_the_cosine_exactly(offset: float) -> None:
    one, schedule = torch.ones((), dtype=torch.float64), CosineSchedule(offset)
    assert schedule.log_alpha(one) == schedule.half_log_snr(one) == -math.inf and schedule.log_sigma(one) == 0
    assert schedule.time_at(torch.tensor(-math.inf, dtype=torch.float64)) == 1
    assert schedule.sigma_rate(one) == 0
    speed = 0.5 * math.pi / (1 + offset)
    assert float(schedule.alpha_rate(one)) == pytest.approx(-speed / math.cos(offset * speed), rel=1e-15)


def test_a_chain_at_whole_times_is_the_product_of_its_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    betas = tuple((0.02 * torch.rand(1000, generator=generator, dtype=torch.float64) + 1e-5).tolist())
    schedule, product = DiscreteVPSchedule(betas), mpf(1)
    with mpmath.workdps(60):
        wanted = [0.0]
        for beta in betas:
            product *= 1 - mpf(beta)
            wanted.append(float(mpmath.log(product) / 2))
    times = torch.arange(1001, dtype=torch.float64)
    torch.testing.assert_close(schedule.log_alpha(times), torch.tensor(wanted, dtype=torch.float64), rtol=4e-16, atol=0)
    torch.testing.assert_close(schedule.time_at(schedule.half_log_snr(times)), times, rtol=1e-13, atol=0)
    # The mutant: a running sum in float64 is off by more than that.
    running = -0.5 * torch.cumsum(torch.tensor([-math.log1p(-beta) for beta in betas], dtype=torch.float64), 0)
    assert not torch.allclose(running, torch.tensor(wanted[1:], dtype=torch.float64), rtol=4e-16, atol=0)


def test_the_coefficients_of_a_chain_at_a_whole_time_are_those_of_the_step_that_ends_there() -> None:
    schedule = DiscreteVPSchedule((0.1, 0.2, 0.4))
    times = torch.tensor([0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, 2.5, 3.0], dtype=torch.float64)
    beta = torch.tensor([0.1, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4], dtype=torch.float64)
    torch.testing.assert_close(schedule.drift_coefficient(times), 0.5 * torch.log1p(-beta), rtol=1e-15, atol=0)
    torch.testing.assert_close(schedule.diffusion_coefficient(times) ** 2, -torch.log1p(-beta), rtol=1e-15, atol=0)


def test_rates_at_time_zero_are_their_limits() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert RFSchedule().sigma_rate(zero) == EDMSchedule().sigma_rate(zero) == 1
    # sigma ~ sqrt(beta_min t) is not differentiable at 0, but sigma ~ sqrt(beta_max / 2) t is.
    assert VPSchedule(0.1, 20.0).sigma_rate(zero) == math.inf
    assert float(VPSchedule(0.0, 12.5).sigma_rate(zero)) == pytest.approx(math.sqrt(6.25), rel=1e-15)
    assert float(VPSchedule(0.1, 20.0).alpha_rate(zero)) == pytest.approx(-0.05, rel=1e-15)
    assert float(SubVPSchedule(0.1, 20.0).sigma_rate(zero)) == 0.1 and SubVPSchedule(0.0, 12.5).sigma_rate(zero) == 0
    assert CosineSchedule(0.008).sigma_rate(zero) == DiscreteVPSchedule(BETAS).sigma_rate(zero) == math.inf
    assert float(CosineSchedule(0.0).sigma_rate(zero)) == 0.5 * math.pi
    assert OUSchedule(1.3, 0.7).sigma_rate(zero) == HeatSchedule(2.5).sigma_rate(zero) == math.inf


def test_extreme_lambda_neither_overflows_nor_loses_the_time() -> None:
    lam = torch.tensor([-300.0, 300.0], dtype=torch.float64)
    assert torch.isfinite(
        torch.stack([s.time_at(lam) for s, _, _ in CASES.values() if not isinstance(s, EDMSchedule)])
    ).all()
    assert float(VPSchedule(0.1, 20.0).time_at(lam)[0]) == pytest.approx(7.7, abs=0.1)  # B = 600
    assert float(OUSchedule(1.0, 1.0).time_at(lam)[0]) == pytest.approx(300 + 0.5 * math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: VPSchedule(-0.1, 20.0), "beta_min"),
        (lambda: VPSchedule(20.0, 0.1), "beta_min"),
        (lambda: VPSchedule(0.0, 0.0), "beta_max"),
        (lambda: VPSchedule(0.1, math.nan), "beta_max"),
        (lambda: SubVPSchedule(-0.1, 20.0), "beta_min"),
        (lambda: CosineSchedule(-0.1), "s"),
        (lambda: CosineSchedule(math.inf), "s"),
        (lambda: DiscreteVPSchedule(()), "betas"),
        (lambda: DiscreteVPSchedule((0.1, 0.0)), "betas: got 0.0 at index 1"),
        (lambda: DiscreteVPSchedule((0.1, 1.0)), "betas: got 1.0 at index 1"),
        (lambda: DiscreteVPSchedule((math.nan, 0.1)), "betas: got nan at index 0"),
        (lambda: VESchedule(0.0, 1.0), "sigma_min"),
        (lambda: VESchedule(1.0, 1.0), "sigma_min, sigma_max"),
        (lambda: OUSchedule(0.0, 1.0), "theta"),
        (lambda: OUSchedule(1.0, -1.0), "sigma"),
        (lambda: HeatSchedule(math.inf), "sigma"),
    ],
)
def test_parameters_that_make_no_process_are_refused(make, argument: str) -> None:
    with pytest.raises(OptionError, match=argument):
        make()


def test_parameters_must_be_numbers() -> None:
    with pytest.raises(InterfaceError, match="beta_min"):
        VPSchedule("0.1", 20.0)  # type: ignore[arg-type]
