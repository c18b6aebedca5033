"""Everything runs where its tensors are: the CPU's numbers, on a device whose memory the host cannot see.

The device is played on a CPU (`tests/remote.py`); what it cannot show is a GPU's arithmetic, streams and speed. To make
it known changes PyTorch for the rest of the process, so `test_remote_device.py` runs this file in one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import SdekitError
from sdekit.solvers import PlanSolver
from tests.remote import DEVICE, register, remote

pytestmark = pytest.mark.skipif(not register(), reason="this PyTorch knows no devices written in Python")

F64 = torch.float64
NAMES = [i.name for i in sdekit.solvers.available() if ":" not in i.name]
PLANS = [name for name in NAMES if isinstance(sdekit.solvers.get(name), PlanSolver)]
OTHERS = [name for name in NAMES if name not in PLANS]


def agree(run: Callable[[str], Tensor], tolerance: float = 1e-9) -> None:
    """What is run there lies there, and has the CPU's numbers."""
    here = run("cpu").detach()
    with remote():
        there = run(DEVICE)
        assert there.device == torch.device(DEVICE)
        found = there.detach().cpu()
    torch.testing.assert_close(found, here, rtol=tolerance, atol=tolerance)


def test_the_device_keeps_tensors_apart():
    """The instrument: each of the mistakes that it is for is an error, and reads are counted."""
    with remote() as device:
        x, y = torch.arange(3.0, device=DEVICE), torch.tensor([1.0, 2.0, 3.0], device=DEVICE)
        assert x.device == y.device == torch.device(DEVICE) and (x + y).device == x.device
        assert device.reads == 0
        assert (x + y).cpu().tolist() == [1.0, 3.0, 5.0] and float(x.sum()) == 3.0
        assert device.reads == 2
        with pytest.raises(RuntimeError, match="same device"):
            torch.add(x, torch.ones(3))
        with pytest.raises((RuntimeError, TypeError)):
            x.numpy()
        with pytest.raises((RuntimeError, TypeError)):
            np.asarray(x)
        x.mul_(2)
        x[1:].add_(torch.ones((), dtype=torch.float64))
        assert x.cpu().tolist() == [0.0, 3.0, 5.0]


def sampled(name: str, device: str, **options: Any) -> Tensor:
    model = sdekit.targets.ring().to(device=device).under(sdekit.VP())
    return sdekit.sample(model, (6, 2), name, 5, seed=0, device=device, dtype=F64, **options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if i % 6 else name for i, name in enumerate(PLANS)]
)
def test_a_sampler_there(name):
    agree(lambda device: sampled(name, device))


@pytest.mark.parametrize("noise", ["step", "path"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_and_dtypes(dtype, noise):
    def run(device: str) -> Tensor:
        model = sdekit.Model(lambda x, t: torch.tanh(x) * t[:, None].to(x.dtype), sdekit.VP(), "noise")
        return sdekit.sample(model, (5, 3), "dpmpp_2m_sde", 6, seed=1, device=device, dtype=dtype, noise=noise).double()

    agree(run, 0.0)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "unipc", "heun", "ddim"])
def test_a_loop_without_checks_never_reads_the_device(name):
    """Sample ids are read once, where they are checked."""
    with remote() as device:
        model = sdekit.Model(lambda x, t: 0.5 * x, sdekit.VP(), "noise")
        x = torch.ones(4, 2, device=DEVICE)
        options: Any = {"seed": 0, "sample_ids": torch.arange(4, device=DEVICE)} if "sde" in name else {}

        def reads(steps: int, checks: str) -> int:
            before = device.reads
            sdekit.solve(model, x, sdekit.grids.half_log_snr(model.process, steps), name, checks=checks, **options)
            return device.reads - before

        assert reads(8, "off") == reads(16, "off") == (2 if options else 0)
        assert reads(8, "end") == reads(16, "end") > reads(8, "off")
        assert reads(16, "full") > reads(8, "full")  # the mutant: a loop that looks


class Problem:
    """Drifts and diffusions whose constants are on the device."""

    def __init__(self, device: str) -> None:
        self.matrix = torch.tensor([[0.3, 0.1, 0.0], [0.0, 0.2, 0.1], [0.1, 0.0, 0.4]], dtype=F64, device=device)
        self.x = torch.linspace(-1, 1, 12, dtype=F64).view(4, 3).to(device)

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        return -x + 0.1 * torch.sin(x)

    def general(self, t: Tensor, x: Tensor) -> Tensor:
        return self.matrix.expand(len(x), 3, 3) * (1 + 0.1 * torch.sin(x)[:, :, None])

    def ode(self) -> sdekit.ODE:
        return sdekit.make_ode(self.drift)

    def sdes(self) -> dict[str, sdekit.SDE]:
        diagonal = lambda t, x: 0.3 + 0.1 * torch.cos(x)  # noqa: E731
        constant = lambda t, x: torch.full_like(x, 0.3)  # noqa: E731
        column = lambda t, x: torch.cos(x.sum(1, keepdim=True)).expand_as(x)[..., None]  # noqa: E731
        matrix = lambda t, x: (self.matrix * (1 + t.reshape(-1)[:1])).expand(len(x), 3, 3)  # noqa: E731
        made: dict[str, sdekit.SDE] = {}
        for calculus in ("ito", "stratonovich"):
            made |= {
                f"diagonal, {calculus}": sdekit.make_sde(self.drift, diagonal, sde_type=calculus),
                f"additive, {calculus}": sdekit.make_sde(self.drift, constant, additive=True, sde_type=calculus),
                f"general, {calculus}": sdekit.make_sde(self.drift, self.general, "general", sde_type=calculus),
                f"scalar, {calculus}": sdekit.make_sde(self.drift, column, "general", sde_type=calculus),
                f"matrix, {calculus}": sdekit.make_sde(self.drift, matrix, "general", additive=True, sde_type=calculus),
            }
        return made


def solved(device: str, kind: str, name: str, **options: Any) -> Tensor:
    problem = Problem(device)
    dynamics: Any = problem.ode() if kind == "ode" else problem.sdes()[kind]
    return sdekit.solve(dynamics, problem.x, [0.0, 1.0], name, **options).x


def taken(cases: list[tuple[str, dict[str, Any]]], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The first that a CPU takes, if any: a solver is not for every SDE."""
    for kind, options in cases:
        try:
            solved("cpu", kind, name, **options)
        except SdekitError:
            continue
        return [(kind, options)]
    return []


ODES: list[dict[str, Any]] = [
    {"steps": 3},
    {"rtol": 1e-4, "save": [0.3, 1.0]},
    {"rtol": 1e-4, "dense": True},
    {"rtol": 1e-4, "event": lambda t, x: x[:, 0] - 0.1},
]


@pytest.mark.parametrize("options", ODES, ids=lambda options: "+".join(options))
@pytest.mark.parametrize("name", ["rk45", "dop853", "bosh3"])
def test_odes(name, options):
    agree(lambda device: solved(device, "ode", name, **options))


def stepped(name: str) -> None:
    """In fixed and in adaptive steps, on the first SDE of a kind that it takes, and on ODEs."""
    kinds: list[str] = list(Problem("cpu").sdes())
    found: list[tuple[str, dict[str, Any]]] = []
    for start, options in (
        ("general", {"steps": 2}),
        ("diagonal", {"steps": 2}),
        ("matrix", {"rtol": 0.5, "atol": 0.5}),
    ):
        found += taken([(kind, {"seed": 0, **options}) for kind in kinds if kind.startswith(start)], name)
    found += taken([("ode", {"steps": 2})], name) + taken([("ode", {"rtol": 1e-2})], name)
    assert found
    for kind, options in found:
        agree(lambda device, kind=kind, options=options: solved(device, kind, name, **options))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_solver_there(name):
    stepped(name)


def test_reverse_sdes_and_gradients():
    """The divergence of g g^T is by derivatives; those of a solve pass on the device."""

    def reversed_(device: str, steps: int = 3, **options: Any) -> Tensor:
        problem = Problem(device)
        reverse = problem.sdes()["diagonal, ito"].reverse(lambda t, x: -x)
        return sdekit.solve(reverse, problem.x, [1.0, 0.0], "euler_maruyama", steps=steps, seed=0, **options).x

    def gradient(device: str) -> Tensor:
        problem = Problem(device)
        x = problem.x.requires_grad_()
        end = sdekit.solve(problem.ode(), x, [0.0, 1.0], "rk45", rtol=1e-4).x
        return torch.autograd.grad(end.square().sum(), x)[0]

    agree(reversed_)
    agree(gradient)
    with remote() as device:
        reversed_(DEVICE, 3, checks="off")
        few = device.reads
        reversed_(DEVICE, 6, checks="off")
        assert device.reads == few + few + 3  # at each step whether g mixes coordinates
