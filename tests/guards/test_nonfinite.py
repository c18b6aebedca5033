"""NaN and infinity: told where they come from, or kept to the sample in which they arise.

Each of these fails without its guard: `Monitor.output`, `Monitor.noise`, `Monitor.state` at the start, at saved states
and at the end, the second run of checks="end", the choice of the source, and the mask.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import sdekit
from sdekit.errors import NonFiniteError
from sdekit.solution import Status

BAD = 3  # the sample at fault


class FaultAt:
    """The case's function, with one value replaced in one call."""

    def __init__(self, function, call, value, sample=BAD):
        self.function, self.call, self.value, self.sample = function, call, value, sample
        self.calls, self.times = 0, []

    def __call__(self, x, t):
        out = self.function(x, t)
        self.times.append(float(t.reshape(-1)[0]))
        if self.calls == self.call:
            out = out.clone()
            out[self.sample, -1] = self.value
        self.calls += 1
        return out


def smooth(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


def test_model_is_blamed_at_every_call(case):
    for call, value in itertools.product(range(case.calls), (math.nan, math.inf, -math.inf)):
        if call >= 4 and value < 0:
            continue
        model = FaultAt(smooth, call, value)
        with pytest.raises(NonFiniteError) as caught:
            case.solve(model)
        e = caught.value
        assert (e.source, e.sample, e.call) == ("model", BAD, call)
        assert e.t == pytest.approx(model.times[call], rel=1e-6)
        # Steps of other numbers of calls: the first of a started method, the last of Heun++.
        assert e.step == call * 4 // case.calls or "single_step" in case.label or "heunpp2" in case.label
        assert model.calls == call + 1  # nothing more is asked of it
        for part in (f"sample {BAD}", f"step {e.step}", f"t = {e.t:.8g}", f"call {call}", "model", "on_failure='mask'"):
            assert part in str(e)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_start_is_blamed_before_the_first_call(case, value):
    x = case.start()
    x[BAD, 0] = value
    model = FaultAt(smooth, -1, 0.0)
    with pytest.raises(NonFiniteError) as caught:
        case.solve(model, x)
    e = caught.value
    assert (e.source, e.sample, e.step, e.t) == ("x", BAD, 0, case.times[0])
    assert model.calls == 0
    assert str(e).startswith("x: got NaN or infinity at sample 3")


@pytest.mark.parametrize("step", range(4))
def test_noise_is_blamed(drawn, step):
    def noise(out, at, stream):
        out.fill_(0.1)
        if at == step:
            out[BAD] = math.nan

    with pytest.raises(NonFiniteError) as caught:
        drawn.solve(noise=noise, seed=None)
    e = caught.value
    assert (e.source, e.sample, e.step) == ("noise", BAD, step)
    assert "noise" in str(e)


def test_diffusion_counts_as_the_model():
    def diffusion(t, x):
        g = torch.ones_like(x)
        if float(t) > 0.4:
            g[BAD] = math.nan
        return g

    sde = sdekit.make_sde(lambda t, x: -x, diffusion)
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(sde, torch.ones(5, 3), [0.0, 0.25, 0.5, 0.75, 1.0], "euler_maruyama", seed=0)
    assert (caught.value.source, caught.value.sample, caught.value.step, caught.value.t) == ("model", BAD, 2, 0.5)
    scalar = sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.tensor(math.inf), "scalar")
    with pytest.raises(NonFiniteError, match="model"):
        sdekit.solve(scalar, torch.ones(5, 3), [0.0, 1.0], "euler_maruyama", seed=0)


def test_overflow_is_the_solvers(case):
    """Outputs stay finite; what the solver makes of them leaves float32."""

    def large(x, t):
        out = torch.zeros_like(x)
        out[BAD] = 3e38
        return torch.where(x.abs() > 1e30, x, out)

    x = case.start(dtype=torch.float32)
    if case.route == "plan":
        x[BAD] = 3e38
    blamed = None
    try:
        solution = case.solve(large, x)
    except NonFiniteError as error:
        blamed = error
    if blamed is None:
        assert bool(torch.isfinite(solution.x).all())  # e.g. data predictions, which bring the state back
    else:
        assert blamed.source == "solver" and blamed.sample == BAD
        assert "smaller steps or a wider dtype" in str(blamed)


def test_overflow_is_met_somewhere():
    ode = sdekit.make_ode(lambda t, x: torch.full_like(x, 3e38))
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(ode, torch.zeros(2, 3), [0.0, 1.0, 2.0, 3.0], "euler")
    assert (caught.value.source, caught.value.sample) == ("solver", 0)
    model = sdekit.Model(lambda x, t: torch.full_like(x, 3e38), sdekit.EDM(), "noise")
    with pytest.raises(NonFiniteError) as caught:
        sdekit.solve(model, torch.zeros(2, 3), [80.0, 40.0, 10.0], "ddim")
    assert caught.value.source == "solver"


@pytest.mark.parametrize("save", ["final", "all", "start"])
def test_half_precision_overflows_where_it_is_returned(save):
    """Half precisions accumulate in float32: only the cast overflows, on the way to the model or to the caller."""
    model = sdekit.Model(lambda x, t: torch.zeros_like(x), sdekit.VE(0.01, 50.0), "data")
    up = sdekit.make_ode(lambda t, x: torch.full_like(x, 6e4))
    x = torch.full((2, 3), 2e4, dtype=torch.float16)
    for dynamics, times in ((up, [0.0, 1.0]), (up, [0.0, 1.0, 1.5]), (model, [0.2, 0.9]), (model, [0.2, 0.9, 1.0])):
        with pytest.raises(NonFiniteError) as caught:
            sdekit.solve(dynamics, x, times, "euler", save=times[:1] if save == "start" else save)
        assert caught.value.source == "solver"
        if save == "all":
            assert caught.value.step == 0


def test_a_model_is_not_blamed_for_what_it_was_given():
    """The state is finite in float32, infinite in float16, and the model passes that on."""

    def echo(x, t):
        return torch.where(torch.isinf(x), x, torch.full_like(x, 6e4))

    model = sdekit.Model(echo, sdekit.VE(0.01, 50.0), "noise")
    ode = sdekit.make_ode(lambda t, x: echo(x, t))
    x = torch.full((2, 3), 2e4, dtype=torch.float16)
    for dynamics in (model, ode):
        with pytest.raises(NonFiniteError) as caught:
            sdekit.solve(dynamics, x, [0.1, 0.9, 1.0], "euler")
        assert (caught.value.source, caught.value.step, caught.value.call) == ("solver", 1, 1)


def test_end_is_located_by_running_again(case):
    for call in (0, case.calls - 1):
        full, end = (FaultAt(smooth, call, math.nan) for _ in range(2))
        with pytest.raises(NonFiniteError) as a:
            case.solve(full)
        at = full.times[call]

        def fault(x, t, at=at):
            # By time, because calls are counted through both runs.
            out = smooth(x, t)
            bad = torch.zeros_like(out)
            bad[BAD, -1] = math.nan if abs(float(t.reshape(-1)[0]) - at) < 1e-12 else 0.0
            return out + bad

        with pytest.raises(NonFiniteError) as b:
            case.solve(fault, checks="end")
        assert (b.value.source, b.value.sample, b.value.t) == ("model", BAD, pytest.approx(a.value.t))
        assert b.value.step <= a.value.step  # several calls may share a time
        assert end.calls == 0


def test_end_looks_once_where_nothing_fails(case):
    model = FaultAt(smooth, -1, 0.0)
    case.solve(model, checks="end")
    assert model.calls == case.calls


def test_end_names_the_noise_too(drawn):
    def noise(out, at, stream):
        out.fill_(math.nan if at == 1 else 0.1)

    with pytest.raises(NonFiniteError) as caught:
        drawn.solve(noise=noise, seed=None, checks="end")
    assert (caught.value.source, caught.value.step) == ("noise", 1)


def test_callback_and_progress_are_not_run_again():
    seen = []

    class Bar:
        def update(self, n):
            seen.append(n)

    ode = sdekit.make_ode(lambda t, x: x * (math.nan if float(t) > 0.5 else 1.0))
    with pytest.raises(NonFiniteError):
        sdekit.solve(
            ode, torch.ones(2, 1), [0.0, 0.3, 0.6, 1.0], "euler", checks="end", callback=seen.append, progress=Bar()
        )
    assert len(seen) == 4  # the last state is looked at before it is shown


def test_off_lets_everything_through(case):
    x = case.start()
    x[BAD] = math.nan
    solution = case.solve(FaultAt(smooth, 0, math.nan, sample=1), x, checks="off")
    bad = torch.isnan(solution.x).any(1).tolist()
    assert bad == [False, True, False, True, False]


@pytest.mark.parametrize("checks", ["full", "end"])
@pytest.mark.parametrize("place", ["model", "x"])
def test_mask_keeps_the_other_rows_bit_for_bit(case, place, checks):
    keep = [i for i in range(5) if i != BAD]
    clean = case.solve(save="all")
    alone = case.solve(
        x=case.start()[keep],
        **({"sample_ids": torch.tensor(keep)} if case.stochastic else {}),
    )
    for call in range(case.calls) if place == "model" else (-1,):
        x = case.start()
        if place == "x":
            x[BAD, 1] = math.inf
        solution = case.solve(FaultAt(smooth, call, math.nan), x, on_failure="mask", checks=checks, save="all")
        assert torch.equal(solution.x[keep], alone.x) and torch.equal(solution.x[keep], clean.x[keep])
        assert bool(torch.isnan(solution.x[BAD]).all())
        assert torch.equal(solution.xs[-1][keep], clean.x[keep]) and bool(torch.isnan(solution.xs[-1][BAD]).all())
        expected = [Status.NON_FINITE if i == BAD else Status.SUCCESS for i in range(5)]
        assert solution.status.tolist() == expected
        assert not solution.success
        assert "1 sample(s): NaN or infinity appeared" in solution.message
        assert "4 sample(s): reached" in solution.message


def test_mask_covers_the_noise(drawn):
    def noise(out, at, stream):
        out.copy_(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape))
        if at == 2 and bad:
            out[BAD] = math.nan

    bad = False
    clean = drawn.solve(noise=noise, seed=None)
    bad = True
    solution = drawn.solve(noise=noise, seed=None, on_failure="mask")
    keep = [0, 1, 2, 4]
    assert torch.equal(solution.x[keep], clean.x[keep])
    assert bool(torch.isnan(solution.x[BAD]).all()) and solution.status.tolist() == [0, 0, 0, 1, 0]


def test_mask_in_inference_mode(case):
    with torch.inference_mode():
        x = case.start()
        x[BAD] = math.nan
        solution = case.solve(x=x, on_failure="mask")
        assert solution.status.tolist() == [0, 0, 0, 1, 0]


def test_all_rows_may_fail(case):
    solution = case.solve(lambda x, t: x * math.nan, on_failure="mask")
    assert solution.status.tolist() == [1] * 5 and bool(torch.isnan(solution.x).all())


def test_sums_that_overflow_are_not_mistaken():
    """The quick look is a sum, which may be infinite though every value is finite."""
    model = sdekit.Model(lambda x, t: torch.full_like(x, 2e38), sdekit.EDM(), "data")
    solution = sdekit.solve(model, torch.ones(3, 4), [2.0, 1.0], "ddim")
    assert bool(torch.isfinite(solution.x).all()) and solution.success
