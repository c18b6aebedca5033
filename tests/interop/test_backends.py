"""Other packages' solvers behind `solve`: right answers, sdekit's promises kept, and their traps closed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import pickle
import sys
from typing import Any

import pytest
import torch

import sdekit
from sdekit.errors import (
    BackendError,
    InterfaceError,
    MissingPackageError,
    NonFiniteError,
    OptionError,
    OutOfDomain,
    SolverMismatchError,
    UnfinishedError,
    UnknownNameError,
)
from sdekit.interop import backend, diffeq, ivp, names, stochastic, torchode
from sdekit.solution import Status

FIXED = [f"torchdiffeq:{n}" for n in (*diffeq.FIXED, *diffeq.MULTISTEP)]
ADAPTIVE = [f"torchdiffeq:{n}" for n in diffeq.ADAPTIVE] + [f"scipy:{n}" for n in ivp.METHODS]
PARALLEL = [f"torchode:{n}" for n in torchode.METHODS]
installed = pytest.mark.skipif(importlib.util.find_spec("torchode") is None, reason="torchode is not installed")
NOISY = [f"torchsde:{n}" for n in stochastic.METHODS]
X = torch.tensor([[0.3, -0.8], [1.1, 0.4], [-0.2, 2.0]], dtype=torch.float64)


def logistic(t, x):
    return x * (1 - x)


def exact(x, t):
    return x * math.exp(t) / (1 + x * (math.exp(t) - 1))


ODE = sdekit.make_ode(logistic)
START = torch.tensor([[0.2, 0.5], [0.7, 1.4]], dtype=torch.float64)
NOISE = sdekit.make_sde(lambda t, x: torch.sin(x) - 0.5 * x, lambda t, x: 0.3 + 0.2 * torch.sin(x))


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("up", [True, False])
def test_fixed_steps_have_the_declared_order(name, up):
    errors, order = [], sdekit.solvers.info(name).order.deterministic or 0
    ends = (0.0, 1.0) if up else (1.0, 0.0)
    start = START if up else exact(START, 1.0)
    truth = exact(START, 1.0) if up else START
    for steps in (40, 80) if "adams" in name else (16, 32):  # after their start-up
        s = sdekit.solve(ODE, start, ends, name, steps=steps)
        errors.append(float((s.x - truth).abs().max()))
        if "adams" not in name:
            assert s.nfe.tolist() == [steps * sdekit.solvers.info(name).nfe_per_step] * 2
    assert order - 0.25 < math.log2(errors[0] / errors[1]) < order + 0.6


def optional(*chosen: str) -> list[Any]:
    """Names as parameters: torchode is an extra."""
    return [pytest.param(name, marks=installed) if name.startswith("torchode:") else name for name in chosen]


@pytest.mark.parametrize("name", optional(*ADAPTIVE, *PARALLEL))
def test_adaptive_steps_meet_the_tolerance_on_every_time_and_never_leave_the_interval(name):
    seen = []
    ode = sdekit.make_ode(lambda t, x: (seen.append(float(t)), logistic(t, x))[1])
    tight = 1e-5 if name.endswith(("heun", "fehlberg2")) else 1e-7
    saved = [0.0, 0.3, 0.9]
    s = sdekit.solve(ode, START, [0.0, 0.9], name, rtol=tight, atol=tight, save=saved)
    assert s.t.tolist() == saved and s.success and s.steps.min() >= 2
    for t, state in zip(saved, s.xs, strict=True):
        torch.testing.assert_close(state, exact(START, t), rtol=0, atol=300 * tight)
    assert min(seen) == 0.0 and max(seen) <= 0.9
    assert int(s.nfe.sum()) == len(seen)


@pytest.mark.parametrize("name", ["scipy:Radau", "scipy:BDF", "scipy:LSODA"])
def test_implicit_methods_solve_a_stiff_drift(name):
    ode = sdekit.make_ode(lambda t, x: -1e5 * (x - torch.cos(t)) - torch.sin(t))
    s = sdekit.solve(ode, torch.ones(2, 1, dtype=torch.float64), [0.0, 1.0], name, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(s.x, torch.full((2, 1), math.cos(1.0), dtype=torch.float64), rtol=0, atol=1e-6)
    assert s.nfe.max() < 1000  # an explicit method takes 30,000


@pytest.mark.parametrize("name", optional("torchdiffeq:dopri5", "scipy:RK45", "torchode:dopri5"))
def test_rows_do_not_depend_on_each_other(name):
    whole = sdekit.solve(ODE, START, [0.0, 1.0], name, rtol=1e-6)
    alone = sdekit.solve(ODE, START[1:], [0.0, 1.0], name, rtol=1e-6)
    assert torch.equal(whole.x[1:], alone.x) and torch.equal(whole.nfe[1:], alone.nfe)


@installed
@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("up", [True, False])
def test_torchode_takes_the_steps_that_it_takes_itself(name, up):
    """Of a whole batch at once, by its own interface; the mutant of another controller takes others."""
    package: Any = importlib.import_module("torchode")
    start, times = (START, [0.0, 1.0]) if up else (exact(START, 1.0), [1.0, 0.0])
    ends = torch.tensor(times, dtype=torch.float64).expand(len(START), 2)
    tolerance = 1e-5

    def by(controller: Any, **options: Any) -> Any:
        term = package.ODETerm(lambda t, x: logistic(t, x))
        made = controller(atol=tolerance, rtol=tolerance, term=term, **options)
        method = {"dopri5": package.Dopri5, "tsit5": package.Tsit5, "heun": package.Heun}[name.partition(":")[2]]
        problem = package.InitialValueProblem(start, ends[:, 0], ends[:, 1])
        return package.AutoDiffAdjoint(method(term=term), made).solve(problem)

    whole = by(package.PIDController, pcoeff=0.2, icoeff=0.5, dcoeff=0.0)
    ours = sdekit.solve(ODE, start, times, name, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.x, whole.ys[:, -1], rtol=1e-13, atol=1e-13)
    assert ours.steps.tolist() == whole.stats["n_accepted"].tolist()
    assert ours.rejected.tolist() == (whole.stats["n_steps"] - whole.stats["n_accepted"]).tolist()
    other = by(package.IntegralController)
    assert other.stats["n_accepted"].tolist() != ours.steps.tolist()
    integral = sdekit.solvers.get(name, controller="integral")
    ours = sdekit.solve(ODE, start, times, integral, rtol=tolerance, atol=tolerance)
    assert ours.steps.tolist() == other.stats["n_accepted"].tolist()


@installed
def test_torchode_and_ours_agree_on_any_shape():
    x = torch.linspace(0.1, 1.5, 12, dtype=torch.float64).reshape(2, 3, 2)
    seen = []
    ode = sdekit.make_ode(lambda t, x: (seen.append((t.dtype, x.shape)), torch.sin(3 * t) * x - x**3)[1])
    theirs = sdekit.solve(ode, x, [0.0, 1.0], "torchode:tsit5", rtol=1e-8, atol=1e-8)
    assert set(seen) == {(torch.float64, (1, 3, 2))}
    ours = sdekit.solve(ode, x, [0.0, 1.0], "tsit5", rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(theirs.x, ours.x, rtol=0, atol=1e-7)


@installed
def test_torchode_carries_gradients():
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    ode = sdekit.make_ode(lambda t, x: w * x)
    end = sdekit.solve(ode, START, [0.0, 1.0], "torchode:dopri5", rtol=1e-8, atol=1e-8).x
    (slope,) = torch.autograd.grad(end.sum(), w)
    torch.testing.assert_close(slope, START.sum() * math.exp(0.7), rtol=1e-6, atol=0)


def test_what_is_not_installed_is_said_before_any_call(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchode", None)
    called = []
    ode = sdekit.make_ode(lambda t, x: (called.append(t), x)[1])
    with pytest.raises(MissingPackageError, match=r"pip install 'sdekit\[peers\]'"):
        sdekit.solve(ode, START, [0.0, 1.0], "torchode:dopri5", rtol=1e-3)
    assert called == []


@pytest.mark.parametrize(
    "name", optional("torchdiffeq:dopri5", "torchdiffeq:rk4", "scipy:Radau", "torchsde:euler", "torchode:tsit5")
)
def test_a_bad_sample_is_named_or_masked(name):
    def drift(t, x):
        return torch.where(x > 1.5, torch.full_like(x, torch.nan), logistic(t, x))

    dynamics = sdekit.make_ode(drift)
    x = torch.tensor([[0.2], [1.6], [0.7]], dtype=torch.float64)
    options: dict[str, Any] = {"rtol": 1e-6} if sdekit.solvers.get(name).adaptive else {"steps": 8}
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(dynamics, x, [0.0, 1.0], name, **options)
    assert caught.value.sample == 1 and caught.value.partial is not None
    s = sdekit.solve(dynamics, x, [0.0, 1.0], name, on_failure="mask", **options)
    good = sdekit.solve(dynamics, x[[0, 2]], [0.0, 1.0], name, **options)
    assert s.status.tolist() == [0, int(Status.NON_FINITE), 0]
    assert torch.equal(s.x[[0, 2]], good.x) and bool(s.x[1].isnan().all())


@pytest.mark.parametrize("name", optional("scipy:RK45", "torchdiffeq:dopri5", "torchode:dopri5"))
def test_failures_of_the_package_are_wrapped(name):
    blows_up = sdekit.make_ode(lambda t, x: x * x)
    x = torch.tensor([[0.1], [2.0]], dtype=torch.float64)
    with pytest.raises((BackendError, NonFiniteError, UnfinishedError)) as caught:
        sdekit.solve(blows_up, x, [0.0, 1.0], name, rtol=1e-6, max_nfe=700)
    assert caught.value.sample == 1
    s = sdekit.solve(blows_up, x, [0.0, 1.0], name, rtol=1e-6, max_nfe=700, on_failure="mask")
    assert s.status[0] == 0 and s.status[1] in (Status.BACKEND, Status.NON_FINITE, Status.MAX_NFE)


@installed
def test_a_status_of_torchode_is_an_error(monkeypatch):
    package: Any = importlib.import_module("torchode")
    monkeypatch.setattr(package, "AutoDiffAdjoint", functools.partial(package.AutoDiffAdjoint, max_steps=2))
    with pytest.raises(BackendError, match="REACHED_MAX_STEPS") as caught:
        sdekit.solve(ODE, START, [0.0, 1.0], "torchode:dopri5", rtol=1e-6)
    assert caught.value.sample == 0 and 0 < (caught.value.t or 0) < 1
    s = sdekit.solve(ODE, START, [0.0, 1.0], "torchode:dopri5", rtol=1e-6, on_failure="mask")
    assert s.status.tolist() == [int(Status.BACKEND)] * 2


def test_foreign_errors_pass_unchanged():
    error = KeyError("mine")

    def drift(t: Any, x: Any) -> Any:
        raise error

    both: list[tuple[str, dict[str, Any]]] = [("scipy:RK45", {"rtol": 1e-6}), ("torchdiffeq:rk4", {"steps": 2})]
    for name, options in both:
        with pytest.raises(KeyError) as caught:
            sdekit.solve(sdekit.make_ode(drift), START, [0.0, 1.0], name, **options)
        assert caught.value is error

    def refuses(t: Any, x: Any) -> Any:
        raise OutOfDomain(torch.ones(len(x), dtype=torch.bool))

    s = sdekit.solve(sdekit.make_ode(refuses), START, [0.0, 1.0], "scipy:RK45", rtol=1e-3, on_failure="mask")
    assert s.status.tolist() == [int(Status.OUT_OF_DOMAIN)] * 2


def test_max_nfe_ends_a_solve():
    with pytest.raises(UnfinishedError, match="MAX_NFE"):
        sdekit.solve(ODE, START, [0.0, 1.0], "scipy:RK45", rtol=1e-12, max_nfe=30)


def test_fixed_adams_refuse_unequal_steps_and_iterations_that_do_not_converge():
    with pytest.raises(OptionError, match="equal steps"):
        sdekit.solve(ODE, START, [0.0, 0.1, 0.3, 0.4], "torchdiffeq:explicit_adams")
    stiff = sdekit.make_ode(lambda t, x: -1000 * x)
    with pytest.raises(BackendError, match="does not converge"), pytest.warns(UserWarning, match="did not converge"):
        sdekit.solve(stiff, START, [0.0, 1.0], "torchdiffeq:implicit_adams", steps=8)


def test_names():
    assert sdekit.solvers.get("scipy:Radau").label == "scipy:Radau(max_step=None)"
    assert sdekit.solvers.info("torchdiffeq:rk4").order.note.startswith("Kutta's 3/8 rule")
    listed = {i.name for i in sdekit.solvers.available(backends=True)}
    assert {*FIXED, *ADAPTIVE, *PARALLEL, *NOISY} == listed - {i.name for i in sdekit.solvers.available()}
    for typo, right in (("scipy:radau", "scipy:Radau"), ("torchsde:eulr", "torchsde:euler"), ("scipy:", "scipy:")):
        with pytest.raises(UnknownNameError, match=right):
            sdekit.solvers.get(typo)
    with pytest.raises(OptionError, match="integral"):
        sdekit.solvers.get("torchode:dopri5", controller="pi")
    with pytest.raises(UnknownNameError, match="max_step"):
        sdekit.solvers.get("scipy:BDF", max_stp=1.0)
    with pytest.raises(OptionError, match="scipy:"):
        sdekit.solvers.get("torchdiffeq:scipy_solver")
    with pytest.raises(UnknownNameError, match="torchsde:milstein"):
        stochastic.TorchsdeSolver("milstien")
    solver = sdekit.solvers.get("torchsde:milstein", calculus="stratonovich")
    assert pickle.loads(pickle.dumps(solver)) == solver
    assert names.backends() == sorted(listed - {i.name for i in sdekit.solvers.available()})


def test_mismatches_are_refused_before_any_call():
    def never(t: Any, x: Any) -> Any:
        raise ValueError

    ode, sde = sdekit.make_ode(never), sdekit.make_sde(never, never, "general")
    cases: list[tuple[str, Any, dict[str, Any], Any]] = [
        ("scipy:BDF", ode, {}, OptionError),
        ("torchdiffeq:dopri5", ode, {"steps": 4}, OptionError),
        ("torchdiffeq:rk4", ode, {"rtol": 1e-3}, OptionError),
        ("scipy:BDF", sde, {"rtol": 1e-3}, SolverMismatchError),
        ("torchdiffeq:rk4", sde, {"steps": 4}, SolverMismatchError),
        ("torchsde:euler", sde, {"rtol": 1e-3}, OptionError),
    ]
    for solver, dynamics, options, kind in cases:
        with pytest.raises(kind):
            sdekit.solve(dynamics, START, [0.0, 1.0], solver, **options)
    with pytest.raises(OptionError, match="adjoint"):
        sdekit.solvers.get("torchsde:srk", gradients="adjoint")


@pytest.mark.parametrize("noise", ["step", "path", "plain"])
@pytest.mark.parametrize("times", [[0.0, 0.1, 0.35, 1.0], [1.0, 0.6, 0.5, 0.1]], ids=["up", "down"])
def test_euler_is_our_euler_maruyama(noise, times):
    ours = sdekit.solve(NOISE, X, times, "euler_maruyama", seed=5, noise=noise, save="all")
    theirs = sdekit.solve(NOISE, X, times, "torchsde:euler", seed=5, noise=noise, save="all")
    torch.testing.assert_close(theirs.xs, ours.xs, rtol=1e-12, atol=1e-12)
    assert torch.equal(theirs.nfe, ours.nfe) and not theirs.x.requires_grad


def test_any_shape_and_every_noise_type():
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 3, 2)
    kinds: dict[Any, Any] = {
        "scalar": lambda t, x: 0.2 + 0.1 * torch.sin(x.mean((1, 2), keepdim=True)),
        "diagonal": lambda t, x: 0.2 + 0.1 * torch.sin(x),
        "general": lambda t, x: 0.2 * torch.stack([torch.sin(x), torch.cos(x)], -1),
    }
    for kind, g in kinds.items():
        sde = sdekit.make_sde(lambda t, x: -x, g, kind)
        ours = sdekit.solve(sde, x, [0.0, 0.5, 0.6], "euler_maruyama", seed=1)
        theirs = sdekit.solve(sde, x, [0.0, 0.5, 0.6], "torchsde:euler", seed=1)
        torch.testing.assert_close(theirs.x, ours.x, rtol=1e-12, atol=1e-12)


_A = torch.tensor([[0.3, -0.4], [0.5, 0.1]], dtype=torch.float64)
PROBLEMS = {
    "diagonal": NOISE,
    # One motion for both coordinates, and a Jacobian of g that is not symmetric.
    "scalar": sdekit.make_sde(NOISE.drift, lambda t, x: (0.3 + torch.sin(x @ _A.T))[..., None], "general"),
    "additive": sdekit.make_sde(
        lambda t, x: torch.sin(3 * x), lambda t, x: _A.expand(len(x), 2, 2) * (1 + t), "general", additive=True
    ),
    "general": sdekit.make_sde(
        NOISE.drift, lambda t, x: 0.5 * torch.stack([torch.sin(x @ _A), torch.cos(x @ _A.T + t)], -1), "general"
    ),
}


def strong_order(name, problem, steps=(8, 32), up=True):
    """Between two grids of one path, against a finer one."""
    x = torch.randn(48, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = lambda n: torch.linspace(0, 1, n + 1).tolist()[:: 1 if up else -1]  # noqa: E731
    fine = sdekit.solve(PROBLEMS[problem], x, grid(256), name, seed=3, noise="path")
    errors = [
        float(
            (sdekit.solve(PROBLEMS[problem], x, grid(n), name, seed=3, noise="path").x - fine.x).square().mean().sqrt()
        )
        for n in steps
    ]
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, problem, low",
    [
        ("torchsde:milstein", "diagonal", 0.85),
        ("torchsde:milstein", "scalar", 0.85),
        ("torchsde:milstein", "additive", 0.85),
        ("torchsde:srk", "diagonal", 1.3),
        ("torchsde:srk", "scalar", 1.3),
        ("torchsde:srk", "additive", 1.3),
        ("torchsde:midpoint", "diagonal", 0.85),
        ("torchsde:heun", "scalar", 0.85),
        ("torchsde:euler_heun", "additive", 0.85),
        ("torchsde:reversible_heun", "additive", 0.85),
    ],
)
def test_strong_orders(name, problem, low):
    assert strong_order(name, problem) > low


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NOISY if n not in ("torchsde:milstein", "torchsde:srk")])
def test_all_methods_converge_to_one_solution_of_general_noise(name):
    """Stratonovich methods solve the converted SDE: their limit is that of Euler-Maruyama on the same path."""
    x = torch.randn(24, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sde = PROBLEMS["general"]
    fine = sdekit.solve(sde, x, [1.0, 0.0], "euler_maruyama", steps=128, seed=3, noise="path").x
    found = sdekit.solve(sde, x, [1.0, 0.0], name, steps=32, seed=3, noise="path").x
    off = sdekit.solve(sde, x, [1.0, 0.0], "euler_maruyama", steps=32, seed=4, noise="path").x
    assert float((found - fine).square().mean().sqrt()) < 0.2 * float((off - fine).square().mean().sqrt())


@pytest.mark.parametrize("name", NOISY)
def test_calls_are_counted_without_torchsdes_probes(name):
    counted = []
    sde = sdekit.make_sde(
        lambda t, x: (counted.append(1), -x)[1],
        lambda t, x: 0.3 + 0.1 * torch.sin(x),
        sde_type=sdekit.solvers.get(name).calculus,
    )
    s = sdekit.solve(sde, X, [0.0, 0.2, 0.5], name, seed=0)
    assert s.nfe.tolist() == [len(counted)] * 3
    assert len(counted) <= 2 * sdekit.solvers.info(name).nfe_per_step + (name == "torchsde:reversible_heun")


@pytest.mark.parametrize("name", NOISY)
def test_without_noise_it_is_the_deterministic_method(name):
    order = sdekit.solvers.info(name).order.deterministic or 0
    errors = [
        float((sdekit.solve(ODE, START, [0.0, 1.0], name, steps=n).x - exact(START, 1.0)).abs().max()) for n in (16, 32)
    ]
    assert order - 0.25 < math.log2(errors[0] / errors[1]) < order + 0.5


def test_a_time_outside_the_interval_is_refused():
    """The mutant of the guard: a solver that asks beyond the end."""
    from sdekit.integrate import Dynamics
    from sdekit.monitor import Monitor

    inner = Dynamics(ODE, START, Monitor(START, "full", False), 100)
    caller = backend.Caller(inner, 1.0, 0.0, torch.float64, upward=True)
    assert caller.ends == (-1.0, 0.0)
    caller.drift(1e-16, START)
    assert caller.last == 0.0
    with pytest.raises(BackendError, match="times in"):
        caller.drift(0.01, START)


def test_gradients_are_refused_by_scipy():
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InterfaceError, match="gradient"):
        sdekit.solve(sdekit.make_ode(lambda t, x: w * x), START, [0.0, 1.0], "scipy:RK45", rtol=1e-3)
    with pytest.raises(InterfaceError, match="gradient"):
        sdekit.solve(ODE, START.clone().requires_grad_(), [0.0, 1.0], "scipy:RK45", rtol=1e-3)
    with torch.no_grad():
        assert sdekit.solve(sdekit.make_ode(lambda t, x: w * x), START, [0.0, 1.0], "scipy:RK45", rtol=1e-3).success


@pytest.mark.slow
def test_models_are_solved_by_backends():
    target = sdekit.targets.gaussian(torch.zeros(2), 0.25).under(sdekit.EDM())
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = sdekit.solve(target, x, [5.0, 0.5], "dop853", rtol=1e-9)
    for name in ("scipy:LSODA", "torchdiffeq:dopri5"):
        theirs = sdekit.solve(target, x, [5.0, 0.5], name, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(theirs.x, ours.x, rtol=1e-5, atol=1e-6)
    assert sdekit.solve(target, x, [5.0, 0.5], "torchsde:srk", steps=8, seed=0).success


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name",
    optional(
        *("torchdiffeq:dopri5", "torchdiffeq:rk4", "scipy:RK45", "torchsde:srk", "torchdiffeq:implicit_adams"),
        "torchode:dopri5",
    ),
)
def test_dtypes(name, dtype):
    options: dict[str, Any] = {"atol": 1e-2, "rtol": 0.0} if sdekit.solvers.get(name).adaptive else {"steps": 8}
    s = sdekit.solve(ODE, START.to(dtype), [0.0, 1.0], name, **options)
    assert s.x.dtype == dtype
    torch.testing.assert_close(s.x.double(), exact(START, 1.0), rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    "name", optional("torchdiffeq:dopri5", "torchdiffeq:rk4", "scipy:RK45", "torchsde:srk", "torchode:heun")
)
def test_no_samples_and_no_elements(name):
    options: dict[str, Any] = {"rtol": 1e-2} if sdekit.solvers.get(name).adaptive else {"steps": 2}
    for shape in ((0, 3), (2, 0)):
        s = sdekit.solve(ODE, torch.zeros(shape, dtype=torch.float64), [0.0, 1.0], name, **options)
        assert s.x.shape == shape and s.success
