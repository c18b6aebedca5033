"""Models: what the network is called with, what comes back, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdekit import EDM, VP, AffineSDE, Model, RectifiedFlow
from sdekit.errors import InterfaceError, ModelOutputError, OptionError, ShapeError
from sdekit.model import ScoreModel, check_output
from sdekit.parameterisation import EDMPreconditioning

F64 = torch.float64
KINDS = ("data", "noise", "score", "velocity", "v")


class Recorder:
    """A network that keeps what it is called with and answers x (1 + t)."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.t: list[Tensor] = []
        self.conditioning: list[dict[str, Any]] = []

    def __call__(self, x: Tensor, t: Tensor, **conditioning: Any) -> Tensor:
        self.x.append(x)
        self.t.append(t)
        self.conditioning.append(conditioning)
        return x * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 3)])
def test_the_network_gets_x_first_and_one_time_per_sample(shape) -> None:
    net = Recorder()
    model = Model(net, VP())
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    each = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    wide = each.reshape(4, *(1,) * (len(shape) - 1))
    for t in (0.25, torch.tensor(0.25), torch.tensor([0.25]), each, wide):
        out = model.network(t, x)
        assert net.x[-1] is x and net.t[-1].shape == (4,) and net.t[-1].dtype == F64 and out.shape == x.shape
    for got in net.t[:3]:
        assert torch.equal(got, torch.full((4,), 0.25, dtype=F64))
    assert torch.equal(net.t[3], each) and torch.equal(net.t[4], each)


@pytest.mark.parametrize("native", KINDS)
@pytest.mark.parametrize("want", KINDS)
def test_times_per_sample_give_what_each_sample_alone_gives(native: str, want: str) -> None:
    model = Model(Recorder(), RectifiedFlow(), native)
    x = torch.randn(4, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=F64)
    alone = torch.cat([getattr(model, want)(float(s), x[i : i + 1]) for i, s in enumerate(t)])
    for times in (t, t[:, None, None]):
        torch.testing.assert_close(getattr(model, want)(times, x), alone, rtol=1e-14, atol=1e-14)


def test_predict_takes_weights_as_numbers_or_one_pair_per_time() -> None:
    model, x = Model(Recorder(), VP(), "v"), torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.3, 0.5], dtype=F64)
    p, q = np.array([1.0, 0.0, 0.3]), np.array([0.0, 1.0, -2.0])
    for times in (t, t[:, None]):
        got = model.predict((p, q), times, x)
        want = torch.tensor(p)[:, None] * model.data(times, x) + torch.tensor(q)[:, None] * model.noise(times, x)
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    y, m = model.coefficients((0.3, -2.0), 0.5)
    torch.testing.assert_close(model.predict((0.3, -2.0), 0.5, x), y * x + m * model.network(0.5, x))
    assert model.coefficients("v", 0.5) == (0.0, 1.0)


def test_time_map_is_applied_in_float64_before_the_cast() -> None:
    net, seen = Recorder(), []

    def map_time(t: Tensor) -> Tensor:
        seen.append(t.dtype)
        return (t * 1000 - 1).round()

    model = Model(net, VP(), time_map=map_time)
    x = torch.zeros(2, 3, dtype=torch.bfloat16)
    model.network(0.3, x)
    model.network(torch.tensor([0.1, 0.999], dtype=torch.float32), x)
    assert seen == [F64, F64]
    assert net.t[0].tolist() == [299.0, 299.0] and net.t[1].tolist() == [99.0, 998.0]
    assert net.t[0].dtype == torch.float32  # times of half-precision states stay in float32


def test_dtype_is_the_network_s_and_the_answer_the_state_s() -> None:
    net = Recorder()
    x = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    out = Model(net, VP(), dtype=torch.float32).data(0.3, x)
    assert net.x[-1].dtype == net.t[-1].dtype == torch.float32 and out.dtype == F64
    half = Model(net, VP()).data(0.3, x.bfloat16())
    assert net.x[-1].dtype == torch.bfloat16 and half.dtype == torch.float32
    Model(net, VP(), precondition="edm").data(0.3, x.bfloat16())
    assert net.x[-1].dtype == torch.bfloat16
    Model(net, VP(), precondition="edm").data(torch.tensor([0.3, 0.4]), x.bfloat16())
    assert net.x[-1].dtype == torch.bfloat16


def test_conversions_of_half_precision_states_are_computed_in_float32() -> None:
    x = torch.randn(2, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    model = Model(lambda x, t: torch.zeros_like(x), VP())
    want = x.float() / float(VP().alpha(0.7))
    torch.testing.assert_close(model.data(0.7, x), want, rtol=1e-6, atol=1e-6)


def test_output_picks_the_prediction() -> None:
    model = Model(lambda x, t: {"sample": 2 * x}, VP(), "data", output=lambda out: out["sample"])
    x = torch.ones(2, 3)
    assert torch.equal(model.data(0.5, x), 2 * x)
    with pytest.raises(ModelOutputError, match=r"dict.*output="):
        Model(lambda x, t: {"sample": 2 * x}, VP()).data(0.5, x)


def test_conditioning_is_passed_bound_or_given_and_the_given_wins() -> None:
    net = Recorder()
    model, x = Model(net, VP(), "data"), torch.ones(2, 3)
    bound = model.bind(label=1, scale=2.0)
    bound.data(0.5, x)
    bound.bind(scale=3.0).noise(0.5, x, label=7)
    model.data(0.5, x)
    assert net.conditioning == [{"label": 1, "scale": 2.0}, {"label": 7, "scale": 3.0}, {}]
    assert type(bound) is Model and bound.process is model.process and bound.native == "data"


def test_a_score_function_is_called_as_f_of_t_x() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def score(t: Tensor, x: Tensor) -> Tensor:
        seen.append((t, x))
        return -t * x

    model, x = ScoreModel(score, VP()), torch.ones(3, 2)
    torch.testing.assert_close(model.noise(0.5, x), 0.5 * float(VP().sigma(0.5)) * x)
    model.score(torch.tensor([0.1, 0.2, 0.3]), x)
    assert seen[0][0].shape == () and seen[1][0].shape == (3, 1) and seen[0][1] is x


def test_singular_times_are_refused_before_the_network_is_called() -> None:
    net = Recorder()
    x = torch.ones(2, 3)
    for kind, want, t in (("noise", "data", 1.0), ("data", "noise", 0.0), ("data", "score", 0.0)):
        with pytest.raises(OptionError, match="does not determine"):
            getattr(Model(net, RectifiedFlow(), kind), want)(t, x)
        with pytest.raises(OptionError, match="does not determine"):
            getattr(Model(net, RectifiedFlow(), kind), want)(torch.tensor([0.5, t]), x)
    assert not net.t
    assert torch.isfinite(Model(net, RectifiedFlow(), "v").data(1.0, x)).all()
    assert torch.isfinite(Model(net, RectifiedFlow(), "noise").noise(1.0, x)).all()


@pytest.mark.parametrize(
    "output, words",
    [
        (lambda x: x[:1], "shape"),
        (lambda x: x.mT, r"order of arguments is net\(x, t\)"),
        (lambda x: x.sum(), "shape"),
        (lambda x: x.long(), "dtype torch.int64"),
        (lambda x: x + 0j, "dtype torch.complex64"),
        (lambda x: None, "NoneType"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_what_is_no_prediction_is_named(output, words: str) -> None:
    model = Model(lambda x, t: output(x), VP())
    with pytest.raises(ModelOutputError, match=words):
        model.noise(0.5, torch.ones(2, 3))


def test_check_output_casts_to_the_computing_dtype() -> None:
    x = torch.ones(2, dtype=torch.float16)
    assert check_output(x, x, "net").dtype == torch.float32
    assert check_output(x, x.double(), "net").dtype == F64


def test_bad_arguments_are_named() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return x

    with pytest.raises(InterfaceError, match=r"net: got int.*net\(x, t\)"):
        Model(3, VP())  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="process: got str"):
        Model(net, "vp")  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="time_map"):
        Model(net, VP(), time_map=1000)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="output"):
        Model(net, VP(), output="sample")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'noise'"):
        Model(net, VP(), "noize")
    with pytest.raises(OptionError, match="together with precondition"):
        Model(net, VP(), "data", precondition="edm")
    with pytest.raises(OptionError, match="precondition"):
        Model(net, VP(), precondition="vp")
    model = Model(net, VP())
    with pytest.raises(OptionError, match="'data'"):
        model.predict("dta", 0.5, torch.ones(1, 2))
    with pytest.raises(ShapeError, match=r"\(t, x\)"):
        model.data(torch.ones(3, 2) * 0.5, torch.ones(2, 2))
    with pytest.raises(ShapeError, match="t: got shape"):
        model.network(torch.full((3,), 0.5), torch.ones(2, 2))


def test_the_defaults_and_the_names() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return x

    assert Model(net, VP()).predicts == "noise" and Model(net, VP(), precondition="edm").predicts == "data"
    assert Model(net, VP(), precondition="edm").native == EDMPreconditioning(0.5)
    assert repr(Model(net, EDM(), "v")) == "Model(predicts='v', EDM())"
    seen: list[Tensor] = []
    Model(lambda x, t: seen.append(t) or x, EDM(), precondition="edm").network(2.0, torch.ones(1, 2, dtype=F64))
    assert float(seen[0]) == pytest.approx(math.log(2.0) / 4, rel=1e-15)


@pytest.mark.parametrize("predicts", ["noise", "data", "v"])
def test_times_outside_the_process_are_refused_before_the_network_is_called(predicts: str) -> None:
    calls: list[Tensor] = []
    model, x = Model(lambda x, t: calls.append(t) or x, VP(), predicts), torch.ones(2, 2)
    for ask in (model.data, model.noise, model.score, model.velocity, model.v):
        for t in (5.0, -0.1, math.nan, math.inf):
            with pytest.raises(OptionError, match=r"^t: got"):
                ask(t, x)
        if ask.__name__ != predicts:
            for times in (torch.tensor(5.0), torch.tensor([0.5, 1.5]), torch.full((2, 1), math.nan)):
                with pytest.raises(OptionError, match=r"^t: got"):
                    ask(times, x)
        for t, state in ((x, 0.5), ("a", x), (0.5, None), (0.5, torch.ones(2, dtype=torch.int64))):
            with pytest.raises((InterfaceError, ShapeError)):
                ask(t, state)  # type: ignore[arg-type]
    assert not calls


def test_an_end_of_the_domain_may_be_rounded_outwards_in_the_dtype_of_t() -> None:
    process = AffineSDE(schedule=VP().schedule, t_min=0.1, t_max=0.7)
    end = torch.tensor(0.1, dtype=torch.float32)
    assert float(torch.tensor(0.7, dtype=torch.float16)) > 0.7
    model = Model(lambda x, t: x, process)
    for t in (end, torch.tensor([0.7, 0.1], dtype=torch.float16), 0.1, 0.7):
        assert bool(torch.isfinite(model.data(t, torch.ones(2, 2))).all())
