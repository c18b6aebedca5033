"""Adaptive steps that cannot go on: each way has its name, its place and its partial result, and nothing hangs."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit
from sdekit.errors import NonFiniteError, OptionError, SdekitError, SolverMismatchError, UnfinishedError
from sdekit.solution import Status

NAMES = ["bosh3", "rk45", "tsit5", "dop853"]
ONE = torch.ones(3, 1, dtype=torch.float64)


def ode(f):
    return sdekit.make_ode(lambda t, x: f(t, x))


@pytest.mark.parametrize("name", NAMES)
def test_blow_up_is_named_with_its_time(name):
    x = torch.tensor([[0.1], [1.0], [0.2]], dtype=torch.float64)
    square = ode(lambda t, x: x * x)  # x = 1 / (1 / x_0 - t)
    with pytest.raises(UnfinishedError) as caught:
        sdekit.solve(square, x, (0.0, 2.0), name, rtol=1e-6)
    e = caught.value
    assert (e.cause, e.sample, e.component) == ("BLOW_UP", 1, 0) and e.t == pytest.approx(1.0, rel=1e-2)
    for part in ("BLOW_UP", "sample 1", "t = ", "step ", "component 0"):
        assert part in str(e)
    assert e.partial.t[1] == pytest.approx(1.0, rel=1e-2) and e.partial.status[1] == Status.BLOW_UP
    s = sdekit.solve(square, x, (0.0, 2.0), name, rtol=1e-6, on_failure="mask")
    assert s.status.tolist() == [0, int(Status.BLOW_UP), 0] and s.x[1].isnan().all()
    assert s.x[[0, 2], 0].tolist() == pytest.approx([1 / 8, 1 / 3], rel=1e-5)


def test_stiffness_is_named():
    stiff = ode(lambda t, x: -1e5 * (x - torch.cos(t)))
    with pytest.raises(UnfinishedError) as caught:
        sdekit.solve(stiff, ONE, (0.0, 10.0), "rk45", rtol=1e-4, max_nfe=2000)
    assert caught.value.cause == "STIFF" and int(caught.value.partial.nfe.max()) <= 2000


def test_calls_are_limited():
    calls = []
    wave = ode(lambda t, x: calls.append(1) or torch.cos(50 * t) * x)
    with pytest.raises(UnfinishedError) as caught:
        sdekit.solve(wave, ONE, (0.0, 50.0), "rk45", rtol=1e-8, max_nfe=100)
    assert caught.value.cause == "MAX_NFE" and len(calls) <= 100 and "Raise max_nfe" in str(caught.value)
    s = sdekit.solve(wave, ONE, (0.0, 50.0), "rk45", rtol=1e-8, max_nfe=100, on_failure="mask")
    assert set(s.status.tolist()) == {int(Status.MAX_NFE)} and s.x.isnan().all() and int(s.nfe.max()) <= 100
    calls.clear()
    with pytest.raises(OptionError, match="max_nfe"):
        sdekit.solve(wave, ONE, (0.0, 50.0), "rk45", rtol=1e-8, max_nfe=5)
    assert not calls


def test_a_tolerance_below_rounding_is_named():
    with pytest.raises(OptionError, match=r"rtol: got 1e-07 for float32; expected at least 1\.19e-06"):
        sdekit.solve(ode(lambda t, x: -x), ONE.float(), (0.0, 1.0), "rk45", rtol=1e-7)
    with pytest.raises(UnfinishedError) as caught:
        sdekit.solve(ode(lambda t, x: torch.cos(x)), 1e6 * ONE, (0.0, 1.0), "rk45", atol=1e-25)
    assert caught.value.cause == "TOLERANCE"


@pytest.mark.parametrize("checks", ["full", "end", "off"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_blamed_on_the_model(value, checks):
    def f(t, x):
        return torch.where((t > 0.5) & (torch.arange(len(x)) == 1)[:, None], value, -x)

    # compact=False: the drift above goes by the position in the batch.
    solver = sdekit.solvers.get("rk45", compact=False)
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(ode(f), ONE, (0.0, 1.0), solver, rtol=1e-4, checks=checks)
    assert (caught.value.source, caught.value.sample) == ("model", 1) and caught.value.t > 0.5
    s = sdekit.solve(ode(f), ONE, (0.0, 1.0), solver, rtol=1e-4, checks=checks, on_failure="mask")
    assert s.status.tolist() == [0, int(Status.NON_FINITE), 0] and s.x[1].isnan().all()
    assert s.x[[0, 2]].flatten().tolist() == pytest.approx([math.exp(-1)] * 2, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_call_is_looked_at(name):
    """One value, in one call: in the full checks no stage is left out, whatever its weight."""
    for at in range(9):
        calls = []

        def f(t, x, calls=calls, at=at):
            calls.append(1)
            out = -x
            if len(calls) == at + 1:
                out[1] = math.nan
            return out

        with pytest.raises(NonFiniteError) as caught:
            sdekit.solve(ode(f), ONE, (0.0, 1.0), sdekit.solvers.get(name, first_step=0.1), rtol=1e-4)
        assert (caught.value.source, caught.value.sample) == ("model", 1)


@pytest.mark.parametrize("name", NAMES)
def test_out_of_domain_shortens_the_step(name):
    """x' = -2 sqrt(x): x = (1 - t)^2. A long first step would leave the domain."""

    def f(t, x):
        refused = (x < 0).flatten(1).any(1)
        if refused.any():
            raise sdekit.OutOfDomain(refused)
        return -2 * torch.sqrt(x)

    x = torch.tensor([[1.0], [4.0], [0.81]], dtype=torch.float64)
    s = sdekit.solve(ode(f), x, (0.0, 0.88), sdekit.solvers.get(name, first_step=0.85), rtol=1e-7, atol=1e-9)
    assert s.success and int(s.rejected.max()) > 0
    assert s.x.flatten().tolist() == pytest.approx([0.12**2, 1.12**2, 0.02**2], rel=1e-3)
    s = sdekit.solve(ode(f), x, (0.0, 0.95), name, rtol=1e-7, atol=1e-9, on_failure="mask")
    assert s.status[:2].tolist() == [0, 0] and s.status[2] in (Status.OUT_OF_DOMAIN, Status.SUCCESS)
    with pytest.raises(sdekit.OutOfDomain):  # fixed steps end there
        sdekit.solve(ode(f), x, (0.0, 1.5), name, steps=2)


def test_start_outside_the_domain_fails_alone():
    def f(t, x):
        if (x < 0).any():
            raise sdekit.OutOfDomain((x < 0).flatten(1).any(1))
        return -x

    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    s = sdekit.solve(ode(f), x, (0.0, 1.0), "rk45", rtol=1e-6, on_failure="mask")
    assert s.status.tolist() == [0, int(Status.OUT_OF_DOMAIN)]
    with pytest.raises(UnfinishedError, match="OUT_OF_DOMAIN"):
        sdekit.solve(ode(f), x, (0.0, 1.0), "rk45", rtol=1e-6)


@pytest.mark.parametrize("first", [1e-300, 1e300])
def test_any_first_step_ends(first):
    solver = sdekit.solvers.get("rk45", first_step=first)
    s = sdekit.solve(ode(lambda t, x: -x), ONE, (1.0, 2.0), solver, rtol=1e-6, on_failure="mask")
    assert set(s.status.tolist()) == {int(Status.STEP_UNDERFLOW if first < 1 else Status.SUCCESS)}


@pytest.mark.parametrize("first", [0.0, -1.0, math.nan, math.inf])
def test_first_steps_that_are_none_are_refused(first):
    with pytest.raises(SdekitError, match="first_step"):
        sdekit.solvers.get("rk45", first_step=first)


def test_what_cannot_be_adaptive_is_refused_before_any_call():
    def never(t, x):
        raise AssertionError

    x, plain = ONE, sdekit.make_ode(never)
    sde = sdekit.make_sde(never, never)
    with pytest.raises(SolverMismatchError, match=r"'rk45' for _FunctionSDE.*sriw1"):
        sdekit.solve(sde, x, (0.0, 1.0), "rk45", rtol=1e-6)
    for options, match in (
        ({"rtol": 0.0}, "0 and 0"),
        ({"rtol": -1e-3}, "rtol"),
        ({"atol": math.nan}, "atol"),
        ({"rtol": 1.0}, "rtol"),
        ({"rtol": 1e-6, "steps": 4}, "beside tolerances"),
        ({"rtol": 1e-6, "save": [2.0]}, "save"),
    ):
        with pytest.raises(OptionError, match=match):
            sdekit.solve(plain, x, (0.0, 1.0), "rk45", **options)
    with pytest.raises(OptionError, match="adaptive solver: bosh3"):
        sdekit.solve(plain, x, (0.0, 1.0), "heun", rtol=1e-6)
    with pytest.raises(OptionError, match=r"fixed-step solver; expected .* of an SDE: .*sriw1.*; where .* also .*sra1"):
        sdekit.solve(sde, x, (0.0, 1.0), sdekit.solvers.get("log_ode", area="davie_foster"), rtol=1e-6)
    with pytest.raises(OptionError, match="times"):
        sdekit.solve(plain, x, (1.0, 1.0), "rk45", rtol=1e-6)


def test_foreign_errors_pass_with_a_note():
    def f(t, x):
        if float(t.max()) > 0.5:
            raise KeyError("mine")
        return -x

    with pytest.raises(KeyError, match="mine") as caught:
        sdekit.solve(ode(f), ONE, (0.0, 1.0), "rk45", rtol=1e-6)
    assert any("adaptive steps" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", ["rk45", "dop853"])
def test_gradients_pass_by_attempts_that_overflow(name, compact):
    """The first attempts overflow, the shorter ones do not: 0 times the derivatives of the former would be NaN."""
    solver = sdekit.solvers.get(name, first_step=0.5, compact=compact)

    def run(scale, x, **options):
        ode = sdekit.make_ode(lambda t, x: -scale * torch.exp(x.abs()) * torch.sign(x) * x**4)
        return sdekit.solve(ode, x, (0.0, 1.0), solver, rtol=1e-7, checks="end", **options)

    x = torch.linspace(2, 6, 5, dtype=torch.float64)[:, None].requires_grad_()
    scale = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    s = run(scale, x)
    by_scale, by_x = torch.autograd.grad(s.x.sum(), (scale, x))
    with torch.no_grad():
        assert torch.equal(run(scale, x).x, s.x) and s.rejected[4] > s.rejected[0] > 0
        up, down = run(scale + 1e-5, x), run(scale - 1e-5, x)
        assert float(by_scale) == pytest.approx(float((up.x - down.x).sum()) / 2e-5, rel=1e-4)
        higher, lower = run(scale, x + 1e-5), run(scale, x - 1e-5)
        assert torch.allclose(by_x, (higher.x - lower.x) / 2e-5, rtol=1e-3, atol=1e-6)
    short = run(scale, x, max_nfe=20, on_failure="mask")
    assert (short.status == int(Status.MAX_NFE)).all() and int(short.nfe.max()) <= 20
