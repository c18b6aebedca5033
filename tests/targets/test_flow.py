"""The probability flow against closed forms, quantiles, and integrators of another family in another clock."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import ndtr
from torch import Tensor

from sdekit import targets
from sdekit.errors import InterfaceError, OptionError
from sdekit.processes import EDM, VP, RectifiedFlow
from sdekit.targets import GaussianMixture, cache
from sdekit.targets import flow as flow_module
from sdekit.targets.components import Want

LINE = GaussianMixture([0.2, 0.5, 0.3], [[-2.0], [0.4], [1.5]], [0.09, 0.25, 0.04])


def cdf(g: GaussianMixture, alpha: float, sigma: float, x: Tensor) -> np.ndarray:
    """Distribution function of the marginal of a one-dimensional mixture."""
    total = np.zeros(len(x))
    for w, (m,), (v,) in zip(g.weights.tolist(), g.means.tolist(), g.components.variances.tolist(), strict=True):
        total += w * ndtr((x[:, 0].numpy() - alpha * m) / math.sqrt(alpha**2 * v + sigma**2))
    return total


@pytest.mark.parametrize("covariance", ["number", "diagonal", "full"])
@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=str)
def test_one_gaussian_in_closed_form(covariance: str, process: object) -> None:
    """x_t = alpha_t m + S_t^{1/2} S_s^{-1/2} (x_s - alpha_s m) with SciPy's matrix square root."""
    a = np.random.default_rng(0).normal(size=(3, 3))
    c = {"number": 0.4, "diagonal": np.array([0.1, 0.5, 2.0]), "full": a @ a.T + 0.1 * np.eye(3)}[covariance]
    matrix = c * np.eye(3) if np.ndim(c) < 2 else c
    mean = np.array([1.0, -2.0, 0.5])
    m = targets.gaussian(mean, c).under(process)  # type: ignore[arg-type]
    for s, t in ((0.9, 0.1), (0.2, 0.7), (0.8, 0.0), (0.5, 0.5)):
        (a_s, s_s), (a_t, s_t) = ((float(process.alpha(v)), float(process.sigma(v))) for v in (s, t))  # type: ignore[attr-defined]
        x = m.sample(s, 5, seed=1)
        root_t = np.real(sqrtm(a_t**2 * matrix + s_t**2 * np.eye(3)))
        root_s = np.real(sqrtm(a_s**2 * matrix + s_s**2 * np.eye(3)))
        expected = a_t * mean + (x.numpy() - a_s * mean) @ np.linalg.solve(root_s, root_t)
        np.testing.assert_allclose(m.flow(x, s, t).numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["common", "diagonal", "full"])
def test_integration_equals_the_closed_form(kind: str) -> None:
    """One Gaussian written as two equal halves takes the integrated route."""
    one = targets.random_mixture(3, 1, 2, covariance=kind)
    c = one.components
    if c.bases is None:
        covariance = c.variances.expand(2, -1) if kind == "diagonal" else float(c.variances)
    else:
        covariance = (c.bases * c.variances[:, None]) @ c.bases.mT
        covariance = covariance.expand(2, 3, 3)
    two = GaussianMixture([1, 1], one.means.expand(2, 3), covariance)
    x = one.under(VP()).sample(1.0, 8, seed=1)
    for s, t in ((1.0, 0.0), (0.01, 0.9)):
        expected = one.under(VP()).flow(x, s, t)
        torch.testing.assert_close(two.under(VP()).flow(x, s, t), expected, rtol=1e-12, atol=1e-12)


def check_quantiles() -> None:
    process = RectifiedFlow()
    m = LINE.under(process)
    x = torch.linspace(-3, 3, 21, dtype=torch.float64)[:, None]
    for s, t in ((1.0, 0.0), (1.0, 0.3), (0.7, 0.01), (0.2, 0.95)):
        y = m.flow(x, s, t)
        before, after = cdf(LINE, 1 - s, s, x), cdf(LINE, 1 - t, t, y)
        assert np.abs(before - after).max() < 1e-12


def test_quantiles_are_carried_along() -> None:
    """In one dimension the flow is the monotone map: F_t(flow(x)) = F_s(x), with both functions in closed form."""
    check_quantiles()


def test_quantiles_notice_a_wrong_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Want.gains
    monkeypatch.setattr(Want, "gains", lambda *a: tuple((1 + 1e-9) * v for v in right(*a)))
    with pytest.raises(AssertionError):
        check_quantiles()


def test_equals_a_taylor_integration_in_twenty_digits() -> None:
    """dy/drho = (y - E[x_0 | y]) / rho in mpmath's Taylor method: another clock, arithmetic and order."""
    with mpmath.workdps(20):
        mp = mpmath.mp
        parts = [
            (mp.mpf(w), mp.mpf(m[0]), mp.mpf(v[0]))
            for w, m, v in zip(
                LINE.weights.tolist(), LINE.means.tolist(), LINE.components.variances.tolist(), strict=True
            )
        ]

        def rate(rho: mpmath.mpf, y: list) -> list:
            terms = [
                (w * mpmath.exp(-((y[0] - m) ** 2) / (2 * (v + rho**2))) / mpmath.sqrt(v + rho**2), m, v)
                for w, m, v in parts
            ]
            data = sum(e * (m + v / (v + rho**2) * (y[0] - m)) for e, m, v in terms) / sum(e for e, _, _ in terms)
            return [(y[0] - data) / rho]

        start = [-0.8, 0.9]
        expected = [float(mpmath.odefun(rate, 0.4, [mp.mpf(v)], tol=mp.mpf(10) ** -15)(0.7)[0]) for v in start]
    x = torch.tensor(start, dtype=torch.float64)[:, None]
    result = LINE.under(EDM()).flow(x, 0.4, 0.7)
    np.testing.assert_allclose(result[:, 0].numpy(), expected, rtol=0, atol=1e-12)


def richardson(m: targets.ExactModel, x: Tensor, rho_start: float, rho_end: float) -> tuple[Tensor, float]:
    """Classical RK4 in lambda on y = x / alpha (EDM: y = x), extrapolated twice; and its own error estimate."""
    ends = [-math.log(r) for r in (rho_start, rho_end)]

    def run(steps: int) -> Tensor:
        h, y = (ends[1] - ends[0]) / steps, x

        def rate(lam: float, state: Tensor) -> Tensor:
            return m.data(math.exp(-lam), state) - state

        for i in range(steps):
            lam = ends[0] + i * h
            k1 = rate(lam, y)
            k2 = rate(lam + h / 2, y + h / 2 * k1)
            k3 = rate(lam + h / 2, y + h / 2 * k2)
            k4 = rate(lam + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    coarse, middle, fine = (run(n) for n in (60, 120, 240))
    once = [middle + (middle - coarse) / 15, fine + (fine - middle) / 15]
    twice = once[1] + (once[1] - once[0]) / 31
    return twice, float((twice - once[1]).abs().max())


@pytest.mark.parametrize("kind", ["common", "isotropic", "diagonal", "full", "low_rank"])
def test_equals_extrapolated_runge_kutta(kind: str) -> None:
    m = targets.random_mixture(2, 4, 7, covariance=kind).under(EDM())
    x = m.sample(2.0, 12, seed=2)
    with torch.no_grad():
        expected, estimate = richardson(m, x, 2.0, 0.3)
        assert estimate < 1e-11
        difference = (m.flow(x, 2.0, 0.3) - expected).abs().max()
    assert difference < 2e-12


def test_there_and_back() -> None:
    m = targets.ring().under(VP())
    x = m.sample(0.05, 20, seed=3)
    there = m.flow(x, 0.05, 0.8)
    # Backwards the flow separates modes and magnifies errors, here by up to a thousand.
    torch.testing.assert_close(m.flow(there, 0.8, 0.05), x, rtol=0, atol=1e-10)
    middle = m.flow(x, 0.05, 0.4)
    torch.testing.assert_close(m.flow(middle, 0.4, 0.8), there, rtol=0, atol=2e-12)
    torch.testing.assert_close(m.flow(x, 0.05, 0.05), x)


def test_dtypes_devices_and_shapes() -> None:
    g = GaussianMixture([1, 2], torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.5, -1.0]]]), [0.2, 0.4])
    m = g.under(VP())
    x = m.sample(0.8, 3)
    exact = m.flow(x, 0.8, 0.1)
    assert exact.shape == (3, 2, 2)
    half = m.flow(x.to(torch.float32), 0.8, 0.1)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-5)
    assert m.flow(x[:0], 0.8, 0.1).shape == (0, 2, 2)
    narrow = g.to(dtype=torch.float32).under(VP()).flow(x, 0.8, 0.1)
    torch.testing.assert_close(narrow, exact, rtol=1e-6, atol=1e-6)


def test_refusals() -> None:
    m = targets.ring().under(VP())
    with pytest.raises(InterfaceError, match="detach"):
        m.flow(torch.zeros(1, 2, requires_grad=True), 0.5, 0.1)
    for model in (m, targets.gaussian([0.0, 1.0], 0.5).under(VP())):
        for x in ([[math.nan, 0.0]], [[0.0, math.inf]]):
            with pytest.raises(OptionError, match=r"^x: got NaN or infinity"):
                model.flow(torch.tensor(x), 0.9, 0.1)
    points = targets.empirical(torch.eye(2)).under(VP())
    with pytest.raises(OptionError, match="sigma = 0"):
        points.flow(torch.zeros(1, 2), 0.5, 0.0)
    x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    one = targets.gaussian([0.0, 1.0], 0.5).under(VP())
    assert torch.autograd.gradcheck(lambda v: one.flow(v, 0.5, 0.1), x)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples were integrated, call by call."""
    calls: list[int] = []
    solve = flow_module._solve

    def counting(components: object, start: float, end: float, u: np.ndarray, device: torch.device) -> np.ndarray:
        calls.append(len(u))
        return solve(components, start, end, u, device)  # type: ignore[arg-type]

    monkeypatch.setattr(flow_module, "_solve", counting)
    return calls


def files() -> list[Path]:
    return sorted(cache.directory().glob("*.npz"))


def test_results_are_found_again(counted: list[int]) -> None:
    m = LINE.under(EDM())
    x = torch.tensor([[0.3], [1.0]], dtype=torch.float64)
    first = m.flow(x, 1.0, 0.5)
    assert torch.equal(m.flow(x, 1.0, 0.5), first)
    assert counted == [2]
    assert len(files()) == 1
    # Everything that the answer depends on makes another entry.
    m.flow(x + 1e-9, 1.0, 0.5)
    m.flow(x, 1.0, 0.25)
    m.flow(x, 0.5, 1.0)
    for weights, means, covariance in (
        (LINE.weights.flip(0), LINE.means, LINE.components.variances[:, 0]),
        (LINE.weights, LINE.means + 0.1, LINE.components.variances[:, 0]),
        (LINE.weights, LINE.means, 0.1),
    ):
        GaussianMixture(weights, means, covariance).under(EDM()).flow(x, 1.0, 0.5)
    assert counted == [2] * 7
    assert len(files()) == 7


def test_the_key_does_not_know_the_process(counted: list[int]) -> None:
    """The same levels of another process are the same flow: alpha = 1/2, sigma = 1/2 is EDM at 1, scaled."""
    x = torch.tensor([[0.3], [1.0]], dtype=torch.float64)
    half = LINE.under(RectifiedFlow()).flow(x / 2, 0.5, 0.25)
    edm = LINE.under(EDM()).flow(x, 1.0, 1 / 3)
    torch.testing.assert_close(half, 0.75 * edm, rtol=1e-14, atol=1e-14)
    assert len(counted) <= 2


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "shape", "nan", "pickle", "name"])
def test_files_that_cannot_be_used_are_replaced(counted: list[int], damage: str) -> None:
    m = LINE.under(EDM())
    x = torch.tensor([[0.3], [1.0]], dtype=torch.float64)
    expected = m.flow(x, 1.0, 0.5)
    (path,) = files()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"not an archive")
    else:
        value = {
            "shape": np.zeros((3, 1)),
            "nan": np.full((2, 1), np.nan),
            "pickle": np.array([[{}], [{}]], dtype=object),
            "name": np.zeros((2, 1)),
        }[damage]
        np.savez(path, **{"other" if damage == "name" else "value": value})
    assert torch.equal(m.flow(x, 1.0, 0.5), expected)
    assert counted == [2, 2]
    assert torch.equal(m.flow(x, 1.0, 0.5), expected)
    assert counted == [2, 2]
    assert [p.name for p in cache.directory().iterdir()] == [path.name]


def test_a_directory_that_cannot_be_written_costs_one_warning(
    counted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SDEKIT_CACHE", str(blocked / "cache"))
    cache._warn.cache_clear()
    m = LINE.under(EDM())
    x = torch.tensor([[0.3]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="SDEKIT_CACHE"):
        first = m.flow(x, 1.0, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(m.flow(x, 1.0, 0.5), first)
    assert counted == [1, 1]


def test_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.directory() == tmp_path / "cache"
    monkeypatch.delenv("SDEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.directory() == tmp_path / "xdg" / "sdekit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory() == Path.home() / ".cache" / "sdekit"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache.directory().parts[-3:] == ("Library", "Caches", "sdekit")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.directory() == tmp_path / "local" / "sdekit" / "cache"


def test_keys_tell_parts_apart() -> None:
    keys: list[Callable[[], str]] = [
        lambda: cache.key_of(["ab", "c"]),
        lambda: cache.key_of(["a", "bc"]),
        lambda: cache.key_of([np.zeros(2), np.zeros(1)]),
        lambda: cache.key_of([np.zeros(1), np.zeros(2)]),
        lambda: cache.key_of([np.zeros((2, 1)), np.zeros(1)]),
        lambda: cache.key_of([np.zeros(2, np.float32), np.zeros(1)]),
    ]
    assert len({key() for key in keys}) == len(keys)
