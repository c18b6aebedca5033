"""What user code returns is checked at every call: one error that names what came back, never a broadcast.

Without `check_output` (models, drifts, diagonal diffusions) or `check_diffusion` (other noise types) these fail; the
subclass of Model needs the check in `execute`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, ModelOutputError, ShapeError
from sdekit.solvers.base import Stepper

# x is (5, 3). What a careless function returns instead of its output, and what the error must name.
WRONG = {
    "nothing": (lambda out: None, "NoneType"),
    "tuple": (lambda out: (out,), "tuple"),
    "array": (lambda out: out.numpy(), "ndarray"),
    "number": (lambda out: 1.0, "float"),
    "object": (lambda out: type("Output", (), {"sample": out})(), "Output"),
    "column": (lambda out: out[:, :1], "shape (5, 1)"),
    "row": (lambda out: out[0], "shape (3,)"),
    "scalar": (lambda out: out.sum(), "shape ()"),
    "transposed": (lambda out: out.T, "shape (3, 5)"),
    "extra axis": (lambda out: out[None], "shape (1, 5, 3)"),
    "half the batch": (lambda out: out[:2], "shape (2, 3)"),
    "integers": (lambda out: out.to(torch.int64), "torch.int64"),
    "booleans": (lambda out: out > 0, "torch.bool"),
    "complex": (lambda out: out.to(torch.complex64), "torch.complex64"),
    "meta": (lambda out: out.to("meta"), "meta"),
    "sparse": (lambda out: out.to_sparse(), "torch.sparse_coo"),
}


def test_wrong_output_at_every_call(case):
    """Every kind at the first calls and the last; at each call between, every third kind."""
    for turn, (kind, (change, named)) in enumerate(WRONG.items()):
        for at in [i for i in range(case.calls) if i < 2 or i == case.calls - 1 or (i + turn) % 3 == 0]:
            calls = []

            def model(x, t, at=at, calls=calls, change=change):
                calls.append(1)
                out = torch.tanh(x)
                return change(out) if len(calls) == at + 1 else out

            with pytest.raises(ModelOutputError) as caught:
                case.solve(model)
            assert len(calls) == at + 1, kind
            message = str(caught.value)
            assert named in message and "(5, 3)" in message, kind
            assert message.startswith("net: got" if case.route == "plan" else "drift: got")
            assert caught.value.partial.nfe == at
            assert f"call {at}" in caught.value.__notes__[0] or case.route == "step"


WRONG_DIFFUSIONS = [
    (noise_type, kind)
    for noise_type in ("diagonal", "scalar", "general")
    for kind in WRONG
    if not (noise_type == "scalar" and kind in ("scalar", "column"))  # what this noise type asks for
]


@pytest.mark.parametrize("noise_type, kind", WRONG_DIFFUSIONS)
def test_wrong_diffusion(noise_type, kind):
    change, named = WRONG[kind]
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: change(torch.ones_like(x)), noise_type)
    with pytest.raises(ModelOutputError) as caught:
        sdekit.solve(sde, torch.ones(5, 3), [0.0, 0.5, 1.0], "euler_maruyama", seed=0)
    assert str(caught.value).startswith("diffusion: got") and named in str(caught.value)
    assert caught.value.partial.nfe in (0, 1)


@pytest.mark.parametrize("noise_type", ["diagonal", "scalar", "general"])
def test_right_diffusions_pass(noise_type):
    good = {
        "diagonal": [lambda t, x: torch.ones_like(x)],
        "scalar": [lambda t, x: torch.tensor(1.0), lambda t, x: torch.ones(5, 1), lambda t, x: t],
        "general": [lambda t, x: torch.ones(5, 3, 2), lambda t, x: torch.ones(5, 3, 1)],
    }[noise_type]
    for g in good:
        sde = sdekit.make_sde(lambda t, x: -x, g, noise_type)
        assert sdekit.solve(sde, torch.ones(5, 3), [0.0, 0.5, 1.0], "euler_maruyama", seed=0).success


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_score(kind):
    change, named = WRONG[kind]
    for sde in (sdekit.VP(), sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.ones_like(x), additive=True)):
        reverse = sde.reverse(lambda t, x: change(-x))
        with pytest.raises(ModelOutputError) as caught:
            sdekit.solve(reverse, torch.ones(5, 3), [0.9, 0.5], "euler_maruyama", seed=0)
        assert str(caught.value).startswith("score: got") and named in str(caught.value)


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_output_of_a_replaced_network(kind):
    change, named = WRONG[kind]

    class Mine(sdekit.Model):
        def network(self, t, x, **conditioning):
            return change(x)

    model = Mine(lambda x, t: x, sdekit.VP())
    with pytest.raises(ModelOutputError) as caught:
        sdekit.solve(model, torch.ones(5, 3), [0.9, 0.5], "ddim")
    assert named in str(caught.value)


class Returns(Stepper):
    needs = "ode"

    def __init__(self, result):
        self.result = result

    def step(self, dynamics, t0, t1, x, increments, state):
        return self.result


@pytest.mark.parametrize(
    "result", [None, torch.ones(5, 3), (torch.ones(5, 3),), (None, None, None), (np.ones((5, 3)), None, None)]
)
def test_stepper_must_return_three(result):
    with pytest.raises(InterfaceError, match=r"solver\.step: got") as caught:
        sdekit.solve(sdekit.make_ode(lambda t, x: x), torch.ones(5, 3), [0.0, 1.0], Returns(result))
    assert caught.value.partial.nfe == 0


@pytest.mark.parametrize("x", [torch.ones(5, 1), torch.ones(3), torch.ones(5, 3, dtype=torch.float64)])
def test_stepper_must_keep_the_state(x):
    with pytest.raises(ShapeError, match=r"solver\.step: got"):
        sdekit.solve(sdekit.make_ode(lambda t, x: x), torch.ones(5, 3), [0.0, 1.0], Returns((x, None, None)))


# Swapped arguments: told by their names before any call, else by the shape that comes back.


def test_swapped_arguments_are_told_by_their_names():
    vp = sdekit.VP()

    class Net(torch.nn.Module):
        def forward(self, t, x):
            return x

    for make in (
        lambda: sdekit.Model(lambda t, x: x, vp),
        lambda: sdekit.Model(Net(), vp),
        lambda: sdekit.Model(lambda timestep, sample: sample, vp),
        lambda: sdekit.make_ode(lambda x, t: x),
        lambda: sdekit.make_sde(lambda x, t: x, lambda t, x: x),
        lambda: sdekit.make_sde(lambda t, x: x, lambda x, t: x),
        lambda: vp.reverse(lambda x, t: x),
        lambda: type("Mine", (sdekit.ODE,), {"drift": lambda self, x, t: x}),
        lambda: type("Mine", (sdekit.SDE,), {"drift": lambda self, t, x: x, "diffusion": lambda self, x, t: x}),
    ):
        with pytest.raises(InterfaceError, match="in the other order") as caught:
            make()
        assert "Swap them" in str(caught.value)


@pytest.mark.parametrize("function", [lambda x: x, lambda: 0.0])
def test_too_few_arguments_are_told(function):
    for make in (lambda: sdekit.Model(function, sdekit.VP()), lambda: sdekit.make_ode(function)):
        with pytest.raises(InterfaceError, match="a function of"):
            make()


def test_argument_names_that_say_nothing_pass():
    vp = sdekit.VP()
    for net in (lambda a, b: a, lambda *args: args[0], lambda x, t, c=None: x, lambda x, sigma, **k: x, torch.add):
        sdekit.Model(net, vp)
    for drift in (lambda a, b: b, lambda *args: args[1], lambda t, y: y, torch.mul):
        sdekit.make_ode(drift)


def test_swapped_arguments_are_told_by_the_shape():
    calls = []
    model = sdekit.Model(lambda a, b: calls.append(1) or -b, sdekit.VP())
    with pytest.raises(ModelOutputError, match=r"shape \(5,\).*net\(x, t\)"):
        sdekit.solve(model, torch.ones(5, 3), [0.9, 0.5], "ddim")
    ode = sdekit.make_ode(lambda a, b: calls.append(1) or -a)
    with pytest.raises(ModelOutputError, match=r"shape \(\).*drift\(t, x\)"):
        sdekit.solve(ode, torch.ones(5, 3), [0.0, 0.5], "euler")
    sde = sdekit.make_sde(lambda t, x: x, lambda a, b: -a)
    with pytest.raises(ModelOutputError, match=r"shape \(\).*diffusion\(t, x\)"):
        sdekit.solve(sde, torch.ones(5, 3), [0.0, 0.5], "euler_maruyama", seed=0)
    assert len(calls) == 2
