"""Conversions between predictions, against 50 digits and against the exact mixture in every parameterisation."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

import sdekit
from sdekit import EDM, VE, VP, AffineSDE, Heat, Model, OrnsteinUhlenbeck, RectifiedFlow, targets
from sdekit.errors import InterfaceError, OptionError
from sdekit.parameterisation import PREDICTIONS, EDMPreconditioning, Schedules, convert, weights

KINDS = ("data", "noise", "score", "velocity", "v")
PAIRS = list(itertools.product(KINDS, KINDS))
PROCESSES = [
    *(VP(), VE(0.02, 30.0), EDM(), RectifiedFlow(), OrnsteinUhlenbeck(0.8, 1.1), Heat(1.7)),
    *(sdekit.VPCosine(), sdekit.SubVP(), sdekit.DiscreteVP([0.01, 0.05, 0.2, 0.5, 0.9, 0.95])),
    sdekit.AffineSDE(lambda t: -t, lambda t: 1 + t, t_min=1e-3, t_max=2.0),
]
F64 = torch.float64


def definition(kind: str, alpha: mpf, sigma: mpf, alpha_rate: mpf, sigma_rate: mpf) -> tuple[mpf, mpf]:
    """Weights on (x_0, eps): the definition of each prediction."""
    return {
        "data": (mpf(1), mpf(0)),
        "noise": (mpf(0), mpf(1)),
        "score": (mpf(0), -1 / sigma if sigma else -mpmath.inf),
        "velocity": (alpha_rate, sigma_rate),
        "v": (-sigma, alpha),
    }[kind]


def schedules(process: AffineSDE, times: list[float]) -> Schedules:
    t = torch.tensor(times, dtype=F64)
    return Schedules(*(f(t).numpy() for f in (process.alpha, process.sigma, process.alpha_rate, process.sigma_rate)))


def extreme_times(process: AffineSDE) -> list[float]:
    """From sigma = 1e-6 through the middle to alpha = 1e-6 where the process gets there."""
    first = process.time_at(math.log(1e6)) if not isinstance(process, VE) else torch.tensor(0.0)
    last = {RectifiedFlow: 1 - 1e-6, OrnsteinUhlenbeck: math.log(1e6) / 0.8}.get(type(process), process.t_max)
    return [float(first), 0.05 * process.t_max, 0.5 * process.t_max, last]


@pytest.mark.parametrize("native, want", PAIRS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_coefficients_have_no_error_beyond_the_rounding_of_their_terms(process, native: str, want: str) -> None:
    times = extreme_times(process)
    s = schedules(process, times)
    y, m = convert(native, *weights(want, s), s)
    for i in range(len(times)):
        with mpmath.workdps(50):
            at = [mpf(float(v[i])) for v in (s.alpha, s.sigma, s.alpha_rate, s.sigma_rate)]
            (p, q), (pm, qm) = definition(want, *at), definition(native, *at)
            # y x + m M = p x_0 + q eps with x = alpha x_0 + sigma eps and M = pm x_0 + qm eps, by Cramer's rule.
            det = at[0] * qm - at[1] * pm
            true = ((p * qm - q * pm) / det, (at[0] * q - at[1] * p) / det)
            scale = ((abs(p * qm) + abs(q * pm)) / abs(det), (abs(at[0] * q) + abs(at[1] * p)) / abs(det))
            for got, exact, size in zip((y[i], m[i]), true, scale, strict=True):
                assert abs(mpf(float(got)) - exact) <= mpf(1e-15) * size, (times[i], got, float(exact))


def test_a_conversion_with_a_sign_or_a_factor_wrong_is_seen() -> None:
    s = schedules(RectifiedFlow(), [0.3])
    y, m = convert("v", *weights("noise", s), s)
    n = 0.7**2 + 0.3**2
    assert y[0] == pytest.approx(0.3 / n, rel=1e-14) and m[0] == pytest.approx(0.7 / n, rel=1e-14)
    assert y[0] != pytest.approx(0.3, rel=1e-3)  # right on VP only, where n = 1


def test_the_table_of_the_literature() -> None:
    # Rectified flow: u = eps - x_0, x_0 = x - t u, eps = x + (1 - t) u.
    s = schedules(RectifiedFlow(), [0.25])
    assert [float(v) for v in np.concatenate(convert("velocity", *weights("data", s), s))] == [1.0, -0.25]
    assert [float(v) for v in np.concatenate(convert("velocity", *weights("noise", s), s))] == [1.0, 0.75]
    # VP: v = alpha eps - sigma x_0, x_0 = alpha x - sigma v.
    s = schedules(VP(), [0.4])
    y, m = convert("v", *weights("data", s), s)
    np.testing.assert_allclose([y[0], m[0]], [s.alpha[0], -s.sigma[0]], rtol=1e-15)
    # score = -eps / sigma, and the flow f x - g^2/2 score.
    f, g = float(VP().drift_coefficient(0.4)), float(VP().diffusion_coefficient(0.4))
    y, m = convert("score", *weights("velocity", s), s)
    np.testing.assert_allclose([y[0], m[0]], [f, -(g**2) / 2], rtol=1e-14)


@pytest.mark.parametrize("native", KINDS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_every_parameterisation_of_the_exact_mixture_gives_every_other(process, native: str) -> None:
    exact = targets.random_mixture(3, 4, seed=1).under(process)
    model = Model(lambda x, t: getattr(exact, native)(t[:, None], x), process, native)
    times = [t for t in np.linspace(0.01, 1, 9) * process.t_max if float(process.alpha(t)) > 0.01]
    for t in (t for t in times if float(process.sigma(t)) > 0.01):
        x = exact.sample(t, 4, seed=3)
        for want in KINDS:
            got, true = getattr(model, want)(t, x), getattr(exact, want)(t, x)
            torch.testing.assert_close(got, true, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("end", ["alpha", "sigma"])
def test_v_and_velocity_lose_nothing_at_either_end(end: str) -> None:
    # RF at alpha or sigma = 1e-6: what is wanted there comes out to the last digits.
    t = 1e-6 if end == "sigma" else 1 - 1e-6
    exact = targets.gaussian([0.7, -0.2], 0.3).under(RectifiedFlow())
    x = exact.sample(t, 5, seed=0)
    for native, want in itertools.product(("v", "velocity"), ("data", "noise", "velocity", "v")):
        model = Model(lambda x, t, kind=native: getattr(exact, kind)(t[:, None], x), RectifiedFlow(), native)
        torch.testing.assert_close(getattr(model, want)(t, x), getattr(exact, want)(t, x), rtol=2e-15, atol=1e-15)


def test_data_from_noise_loses_what_the_theory_says_and_no_more() -> None:
    # sigma / alpha = 1e6 magnifies the rounding of the prediction; 1 / sigma the other way round.
    exact = targets.gaussian([0.7, -0.2], 0.3).under(RectifiedFlow())
    for t, native, want in ((1 - 1e-6, "noise", "data"), (1e-6, "data", "noise")):
        x = exact.sample(t, 5, seed=0)
        model = Model(lambda x, t, kind=native: getattr(exact, kind)(t[:, None], x), RectifiedFlow(), native)
        error = (getattr(model, want)(t, x) - getattr(exact, want)(t, x)).abs().max()
        assert 1e-13 < error < 1e-9


def infinite(native: str, want: str, s: Schedules) -> bool:
    y, m = convert(native, *weights(want, s), s)
    return not (np.isfinite(y).all() and np.isfinite(m).all())


def test_what_cannot_be_known_at_the_ends_is_infinite_and_nothing_else() -> None:
    flow = RectifiedFlow()
    start, end = schedules(flow, [1.0]), schedules(flow, [0.0])
    unknown = {"noise": {"data", "velocity", "v"}, "score": {"data", "velocity", "v"}}
    # From alpha = 0 (x is noise), noise determines no data; v and velocity determine all, data all.
    for native, want in PAIRS:
        if native != want:
            assert infinite(native, want, start) == (want in unknown.get(native, ())), (native, want)
    # At sigma = 0 (x is data), data determines no noise; no score but a score network's own is finite.
    for native, want in PAIRS:
        if native != want and native != "score":
            expected = want == "score" or (native == "data" and want in ("noise", "velocity", "v"))
            assert infinite(native, want, end) == expected, (native, want)


def exact_network(target: targets.GaussianMixture, sd: float):
    """F of an exact denoiser, by the formulas of the paper, on y = x / alpha."""
    denoiser = target.under(EDM())

    def net(point: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        rho = torch.exp(4 * time)[:, None]
        c_skip, c_out = sd**2 / (rho**2 + sd**2), rho * sd / torch.sqrt(rho**2 + sd**2)
        y = point * torch.sqrt(rho**2 + sd**2)
        return (denoiser.data(rho, y) - c_skip * y) / c_out

    return net


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("sd", [0.5, 1.3])
def test_edm_preconditioning_undoes_itself_around_an_exact_denoiser(process, sd: float) -> None:
    target = targets.random_mixture(2, 3, seed=2)
    exact = target.under(process)
    model = Model(exact_network(target, sd), process, precondition=EDMPreconditioning(sd))
    for t in (0.2 * process.t_max, 0.6 * process.t_max):
        x = exact.sample(t, 4, seed=1)
        for want in KINDS:
            torch.testing.assert_close(getattr(model, want)(t, x), getattr(exact, want)(t, x), rtol=1e-10, atol=1e-10)
    t = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=F64) * process.t_max
    torch.testing.assert_close(model.data(t, x), exact.data(t, x), rtol=1e-10, atol=1e-10)


def test_edm_wants_the_right_width_of_the_data() -> None:
    target, process = targets.random_mixture(2, 3, seed=2), VP()
    exact = target.under(process)
    wrong = Model(exact_network(target, 0.5), process, precondition=EDMPreconditioning(0.6))
    x = exact.sample(0.5, 4, seed=1)
    assert (wrong.data(0.5, x) - exact.data(0.5, x)).abs().max() > 1e-2


def test_edm_with_unit_width_predicts_minus_v() -> None:
    target, process = targets.random_mixture(2, 3, seed=2), VP()
    exact = target.under(process)
    model = Model(exact_network(target, 1.0), process, precondition=EDMPreconditioning(1.0))
    x = exact.sample(0.5, 4, seed=1)
    torch.testing.assert_close(model.network(0.5, x), -exact.v(0.5, x), rtol=1e-12, atol=1e-12)


def test_edm_coefficients_against_the_paper() -> None:
    s, sd = schedules(VP(), [1e-6, 0.3, 1.0]), 0.5
    rho = s.sigma / s.alpha
    root = np.sqrt(rho**2 + sd**2)
    y, m = EDMPreconditioning(sd).convert(np.ones(3), np.zeros(3), s)
    np.testing.assert_allclose(y, sd**2 / root**2 / s.alpha, rtol=1e-14)
    np.testing.assert_allclose(m, rho * sd / root, rtol=1e-14)
    np.testing.assert_allclose(EDMPreconditioning(sd).input_scale(s), 1 / root / s.alpha, rtol=1e-14)
    np.testing.assert_allclose(EDMPreconditioning(sd).network_time(s), np.log(rho) / 4, rtol=1e-14)
    # At alpha = 0 everything but the network's own time is finite: data = sd F there.
    y, m = EDMPreconditioning(sd).convert(np.ones(1), np.zeros(1), schedules(RectifiedFlow(), [1.0]))
    assert (float(y[0]), float(m[0])) == (0.0, sd)


def test_bad_widths_are_refused() -> None:
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(OptionError, match="sigma_data"):
            EDMPreconditioning(value)
    with pytest.raises(InterfaceError, match="sigma_data"):
        EDMPreconditioning("0.5")  # type: ignore[arg-type]
    assert set(PREDICTIONS) == set(KINDS)
