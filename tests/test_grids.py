"""Time grids against their formulas in 50 digits, their ends, and the registry."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from mpmath import mpf

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
from sdekit.errors import InterfaceError, OptionError, SdekitError, UnknownNameError
from sdekit.grids.base import _REGISTRY
from tests.kinds import plan_solvers

PROCESSES = [
    VP(),
    VPCosine(),
    DiscreteVP([0.01, 0.05, 0.2, 0.5, 0.9, 0.95]),
    SubVP(),
    VE(0.02, 30.0),
    EDM(),
    RectifiedFlow(),
    OrnsteinUhlenbeck(0.8, 1.1),
    Heat(1.7),
    AffineSDE(lambda t: -t, lambda t: 1 + t, t_min=1e-3, t_max=2.0),
]
NAMES = ("uniform", "half_log_snr", "karras", "exponential")
F64 = torch.float64


@pytest.fixture(params=PROCESSES, ids=lambda p: type(p).__name__)
def process(request):
    return request.param


def ends(process) -> dict[str, float]:
    """Ends that are finite in every clock."""
    return {"t_start": 0.97, "t_end": 0.02} if isinstance(process, RectifiedFlow) else {}


def formula(name: str, process, n: int, start: float, end: float, power: float) -> list[float]:
    """lambda of each point, or the time for the uniform grid."""
    with mpmath.workdps(50):
        first, last = (-mpf(float(process.half_log_snr(t))) for t in (start, end))  # log rho
        out = []
        for i in range(n + 1):
            u = mpf(i) / n
            if name == "uniform":
                out.append(mpf(start) + u * (mpf(end) - mpf(start)))
            elif name == "half_log_snr":
                out.append(-(first + u * (last - first)))
            elif name == "karras":
                a, b = mpmath.exp(first / power), mpmath.exp(last / power)
                out.append(-power * mpmath.log(a + u * (b - a)))
            else:
                out.append(-((1 - u) ** power * (first - last) + last))
        return [float(v) for v in out]


@pytest.mark.parametrize(
    "name, options, power",
    [
        ("uniform", {}, 1),
        ("half_log_snr", {}, 1),
        ("karras", {}, 7),
        ("karras", {"rho": 3.0}, 3),
        ("exponential", {}, 1),
        ("exponential", {"rho": 2.0}, 2),
    ],
)
def test_grids_are_their_formulas(process, name: str, options, power: int) -> None:
    n = 9
    times = grids.get(name)(process, n, **ends(process), **options)
    start, end = ends(process).get("t_start", process.t_max), ends(process).get("t_end", process.t_min)
    assert times.dtype == F64 and times.shape == (n + 1,)
    assert float(times[0]) == start and float(times[-1]) == end
    assert bool((times[1:] < times[:-1]).all())
    got = times if name == "uniform" else process.half_log_snr(times)
    want = torch.tensor(formula(name, process, n, start, end, mpf(power)), dtype=F64)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


def test_karras_is_the_published_table() -> None:
    # sigma_i = (max^(1/7) + i/(N-1) (min^(1/7) - max^(1/7)))^7 with N = steps + 1 - append_zero points, then 0.
    n, low, high = 18, 0.002, 80.0
    want = [(high ** (1 / 7) + i / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(n)] + [0.0]
    got = grids.karras(EDM(), n, append_zero=True)
    torch.testing.assert_close(got, torch.tensor(want, dtype=F64), rtol=1e-13, atol=0)


def test_exponential_is_half_log_snr(process) -> None:
    a, b = (grids.get(k)(process, 8, **ends(process)) for k in ("exponential", "half_log_snr"))
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
    assert not torch.allclose(grids.karras(process, 8, **ends(process)), b, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_append_zero_ends_where_there_is_no_noise(name: str) -> None:
    times = grids.get(name)(VP(), 5, append_zero=True)
    assert times.shape == (6,) and float(times[-1]) == 0 and float(times[-2]) == VP().t_min
    assert torch.equal(times[:-1], grids.get(name)(VP(), 4))
    with pytest.raises(OptionError, match=r"append_zero.*sigma"):
        grids.get(name)(VE(0.01, 50.0), 5, append_zero=True)
    with pytest.raises(OptionError, match="steps"):
        grids.get(name)(VP(), 1, append_zero=True)


def test_grids_that_reach_the_singular_ends() -> None:
    flow = RectifiedFlow()
    assert float(grids.karras(VP(), 6, t_end=0.0)[-1]) == 0
    assert grids.uniform(flow, 4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    with pytest.raises(OptionError, match="append_zero"):
        grids.uniform(flow, 4, append_zero=True)
    for name in ("half_log_snr", "karras", "exponential"):
        with pytest.raises(OptionError, match=r"t_start: got 1, where alpha = 0.*'uniform'"):
            grids.get(name)(flow, 4)
    for name in ("half_log_snr", "exponential"):
        with pytest.raises(OptionError, match=r"t_end: got 0, where sigma = 0.*'uniform'"):
            grids.get(name)(VP(), 4, t_end=0.0)
    # What the message names works.
    assert torch.isfinite(grids.uniform(VP(), 4, t_end=0.0)).all()


def test_bad_arguments_are_named(process) -> None:
    for name in NAMES:
        grid = grids.get(name)
        for steps in (0, -3):
            with pytest.raises(OptionError, match="steps"):
                grid(process, steps)
        for steps in (2.5, "3", None, True):
            with pytest.raises(InterfaceError, match="steps"):
                grid(process, steps)
        for bad in ({"t_start": 0.1, "t_end": 0.5}, {"t_end": -1.0}, {"t_start": math.nan}, {"t_start": math.inf}):
            with pytest.raises(OptionError, match=r"t_start|t_end"):
                grid(process, 4, **bad)
    with pytest.raises(InterfaceError, match="process"):
        grids.uniform(lambda t: t, 4)  # type: ignore[arg-type]
    for rho in (0.0, -1.0, math.nan):
        with pytest.raises(OptionError, match="rho"):
            grids.karras(process, 4, rho=rho, **ends(process))
        with pytest.raises(OptionError, match="rho"):
            grids.exponential(process, 4, rho=rho, **ends(process))
    with pytest.raises(OptionError, match=r"ulp|repeated"):
        grids.uniform(VP(), 1000, t_start=0.5, t_end=0.5 - 1e-14)


@pytest.mark.parametrize("solver", plan_solvers())
def test_the_default_grid_works_with_every_solver(solver: str) -> None:
    """On two processes each, in turn."""
    first = plan_solvers().index(solver)
    for process in (PROCESSES[(first + k) % len(PROCESSES)] for k in (0, len(PROCESSES) // 2)):
        _default_grid_works(process, solver)


def _default_grid_works(process, solver: str) -> None:
    model = targets.random_mixture(2, 3, seed=0).under(process)
    for steps in (1, 4):
        x = sdekit.sample(model, (3, 2), solver, steps, seed=0, dtype=F64)
        assert torch.isfinite(x).all()


def test_the_registry_knows_names_aliases_options_and_near_names() -> None:
    assert set(NAMES) <= set(grids.available()) and grids.available() == sorted(grids.available())
    assert grids.get("logsnr") is grids.get("lambda") is grids.half_log_snr
    assert torch.equal(grids.get("karras", rho=3.0)(EDM(), 5), grids.karras(EDM(), 5, rho=3.0))
    assert torch.equal(grids.get("karras", rho=3.0)(EDM(), 5, rho=5.0), grids.karras(EDM(), 5, rho=5.0))
    with pytest.raises(UnknownNameError, match="'karras'"):
        grids.get("karas")
    with pytest.raises(UnknownNameError, match=r"'rho'"):
        grids.get("karras", rh=3.0)
    with pytest.raises(InterfaceError, match="grid"):
        grids.get(3)  # type: ignore[arg-type]


@pytest.fixture
def mine():
    """A grid of the user's own, registered for one test."""

    @grids.register("mine", aliases=("my_grid",))
    def squares(process, steps, *, t_start=None, t_end=None, append_zero=False, power=2.0):
        start, end = t_start or process.t_max, t_end or process.t_min
        return end + (start - end) * torch.linspace(1, 0, steps + 1, dtype=F64) ** power

    yield squares
    _REGISTRY._items.pop("mine")
    _REGISTRY._aliases.pop("my_grid")


def test_a_user_s_grid_is_used_by_name(mine) -> None:
    assert "mine" in grids.available() and grids.get("my_grid") is mine
    model = targets.random_mixture(2, 3, seed=0).under(VP())
    by_name = sdekit.sample(model, (3, 2), "ddim", 4, grid="mine", seed=0, dtype=F64)
    assert torch.equal(by_name, sdekit.sample(model, (3, 2), "ddim", grid=mine(VP(), 4), seed=0, dtype=F64))
    assert not torch.equal(by_name, sdekit.sample(model, (3, 2), "ddim", 4, seed=0, dtype=F64))
    with pytest.raises(OptionError, match="free"):
        grids.register("mine")(mine)
    with pytest.raises(InterfaceError, match="register"):
        grids.register("other")(3)  # type: ignore[arg-type]
    assert "other" not in grids.available()


def test_a_user_s_grid_must_keep_the_contract() -> None:
    model = targets.random_mixture(2, 3, seed=0).under(VP())
    for bad in (
        lambda p, n: torch.linspace(0.1, 1, n + 1),
        lambda p, n: torch.zeros(n + 1),
        lambda p, n: [2.0, 0.5],
        lambda p, n: None,
    ):
        with pytest.raises(SdekitError, match="grid"):
            sdekit.sample(model, (3, 2), "ddim", 4, grid=bad, seed=0)
