"""What a CUDA graph asks of a solve that it captures: nothing crosses between the device and the host's memory.

Shown on tensors of a device that is not there: they have shapes and no numbers, and reading one raises.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

import sdekit
from tests.execute.cases import solver_plan

# What has no memory has no address; all outputs then seem to share one, and are copied.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

PROCESS = sdekit.EDM()
TIMES = [80.0, 20.0, 7.0, 2.1, 0.7, 0.1]
SOLVERS = ["dpmpp_2m", "unipc", "heun", "ddim", "exp_adams", "edm_heun"]
READS = ("_local_scalar_dense", "equal", "nonzero", "is_nonzero")


class Absent(FakeTensorMode):
    """Tensors on "cuda" without numbers. Operations on the host alone are done as ever; what crosses is noted."""

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.crossed, self.filled = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        absent = [isinstance(v, FakeTensor) for v in tensors]
        device = str(kwargs.get("device"))
        if not any(absent) and not device.startswith("cuda"):
            return func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if not all(absent) or name in READS or device == "cpu":
            self.crossed.append(name)
        if name == "new_full":
            self.filled.append(args[2])
        return super().__torch_dispatch__(func, types, args, kwargs)


def net(x, t):
    return x * 0.5 + t.reshape(-1, 1).to(x.dtype)


def run(name, prediction, dtype, checks="off", network=net):
    """What a solve asks for that crosses, and what it fills in."""
    predicts, precondition = (None, "edm") if prediction == "edm" else (prediction, None)
    model = sdekit.Model(network, PROCESS, predicts, precondition=precondition)
    plan = solver_plan(name, PROCESS, TIMES)
    with torch.no_grad(), Absent() as mode:
        x = torch.zeros(4, 8, device="cuda", dtype=dtype)
        found = sdekit.solve(model, x, plan.times, plan, checks=checks).x
    assert found.shape == x.shape and found.dtype == dtype and found.device == x.device
    return mode, plan


@pytest.fixture(autouse=True)
def captures(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    # Torch's own asks for the device before it is told that there is none. This one is noted just as well.
    monkeypatch.setattr(FakeTensor, "copy_", lambda self, source: self.zero_().add_(source))


@pytest.mark.parametrize("prediction,dtype", [("data", "float32"), ("noise", "bfloat16"), ("edm", "float64")])
@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_crosses_in_a_captured_solve_without_checks(name, prediction, dtype):
    mode, plan = run(name, prediction, getattr(torch, dtype))
    assert mode.crossed == []
    if prediction != "edm":
        # The network's times are written down, not copied: the very numbers of the plan.
        assert [t for t in mode.filled if t not in (0, plan.nfe, len(TIMES) - 1)] == [row.t for row in plan.rows]


def test_a_copy_of_the_times_is_noted(monkeypatch):
    """The mutant: a solve that does not know that it is captured copies them. What is absent cannot be used on."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    modes = []
    original = Absent.__init__
    monkeypatch.setattr(Absent, "__init__", lambda self: (original(self), modes.append(self))[0])
    with pytest.raises(RuntimeError, match="cuda"):
        run("dpmpp_2m", "data", torch.float32)
    assert modes[0].crossed == ["_to_copy"]


@pytest.mark.parametrize("checks", ["end", "full"])
def test_checks_read_and_are_noted(checks):
    with pytest.raises(DataDependentOutputException):
        run("dpmpp_2m", "data", torch.float32, checks)


def test_a_network_that_returns_one_tensor_is_read():
    """Whether a constant was rewritten is asked of its numbers: such a network cannot be captured."""
    kept = []

    def constant(x, t):
        kept.append(kept[0] if kept else torch.ones_like(x))
        return kept[-1]

    with pytest.raises(DataDependentOutputException):
        run("dpmpp_2m", "data", torch.float32, network=constant)


def test_times_that_are_filled_in_are_those_that_are_copied(monkeypatch):
    from sdekit import model

    class Claims(torch.Tensor):
        is_cuda = True

    x, times = torch.zeros(3, 2), torch.tensor([80.0, 1 / 3, 0.002], dtype=torch.float64)
    copied = model._time_rows(times, x)
    filled = model._time_rows(times, x.as_subclass(Claims))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copied, filled, strict=True))
