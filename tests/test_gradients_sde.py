"""Gradients of solves of SDEs and ODEs: direct, with checkpoints, and by solving back.

Held against finite differences, and against each other to the bit where the operations are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

import sdekit
from sdekit.errors import InterfaceError, OptionError, SolverMismatchError
from sdekit.solvers.base import NoiseOrder, Order, Stepper, StepResult

DOWN, UP = [1.0, 0.8, 0.5, 0.4, 0.1], [0.0, 0.2, 0.3, 0.7]
X = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=torch.float64)
W = torch.tensor([0.7, -0.4], dtype=torch.float64)


def sde(w: Any, calculus: Any = "ito", kind: Any = "diagonal") -> sdekit.SDE:
    g = {
        "diagonal": lambda t, x: 0.4 + 0.2 * torch.sin(w * x + t),
        "general": lambda t, x: torch.stack([0.3 * torch.sin(x * w), 0.2 * torch.cos(x.flip(-1)), 0.1 * x], -1),
    }[kind]
    return sdekit.make_sde(lambda t, x: torch.tanh(w * x) - t * x, g, kind, calculus)


def ode(w: Any) -> sdekit.ODE:
    return sdekit.make_ode(lambda t, x: torch.tanh(w * x) - t * x)


class Reversible(Stepper):
    """Reversible Heun, as plainly as it can be written."""

    calculus: ClassVar[str] = "stratonovich"
    declared: ClassVar[Order] = Order(deterministic=2, noise={"general": NoiseOrder(0.5, 1)})
    sign = 1.0

    def parts(self, d: Any, t: float, z: Any, increments: Any) -> tuple[Any, Any]:
        return d.drift(t, z), d.diffusion(t, z) if increments else torch.zeros_like(z)

    def move(self, d: Any, h: float, f: Any, g: Any, increments: Any) -> Any:
        return h * f + (d.product(g, increments.W) if increments else 0)

    def step(self, dynamics: Any, t0: float, t1: float, x: Any, increments: Any, state: Any) -> StepResult:
        f, g, z = state or (*self.parts(dynamics, t0, x, increments), x)
        z1 = 2 * x - z + self.move(dynamics, t1 - t0, f, g, increments)
        f1, g1 = self.parts(dynamics, t1, z1, increments)
        return StepResult(x + 0.5 * self.move(dynamics, t1 - t0, f + f1, g + g1, increments), None, (f1, g1, z1))

    def inverse(self, dynamics: Any, t0: float, t1: float, x: Any, increments: Any, state: Any) -> Any:
        f1, g1, z1 = state
        z = 2 * x - z1 - self.sign * self.move(dynamics, t1 - t0, f1, g1, increments)
        f, g = self.parts(dynamics, t0, z, increments)
        return x - 0.5 * self.move(dynamics, t1 - t0, f + f1, g + g1, increments), (f, g, z)


def final(dynamics: Any, x: Any, times: Any, solver: Any, gradients: str = "direct", **options: Any) -> Any:
    return sdekit.solve(dynamics, x, times, solver, seed=5, gradients=gradients, **options).x


def grads(dynamics: Any, times: Any, solver: Any, gradients: str, w: Any, **options: Any) -> list[Any]:
    x = X.clone().requires_grad_()
    s = sdekit.solve(dynamics, x, times, solver, seed=5, gradients=gradients, save="all", **options)
    loss = (s.x.sin() * s.xs[1]).sum() + s.xs[0].square().sum() + s.xs[-1].sum()
    return [s.x, *torch.autograd.grad(loss, [x, *w])]


SOLVERS = [
    ("euler_maruyama", "diagonal"),
    ("euler_maruyama", "general"),
    ("milstein", "diagonal"),
    ("stochastic_heun", "general"),
    ("euler_heun", "diagonal"),
    ("torchsde:euler", "general"),
    ("torchsde:milstein", "diagonal"),
    ("torchsde:srk", "diagonal"),
    ("torchsde:heun", "general"),
    ("torchsde:reversible_heun", "diagonal"),
]


@pytest.mark.parametrize("times", [DOWN, UP], ids=["down", "up"])
@pytest.mark.parametrize("name, kind", SOLVERS)
def test_direct_gradients_on_noise_that_depends_on_the_state(name, kind, times):
    """In the start and in parameters, with the conversion between calculi where there is one."""
    calculus = "ito" if kind == "diagonal" else "stratonovich"
    run = lambda x, w: final(sde(w, calculus, kind), x, times, name)  # noqa: E731
    assert torch.autograd.gradcheck(run, (X.clone().requires_grad_(), W.clone().requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("name", ["torchdiffeq:rk4", "torchdiffeq:implicit_adams", "rk4", "euler"])
def test_direct_gradients_of_odes(name):
    times = torch.linspace(0, 1, 6).tolist()
    run = lambda x, w: final(ode(w), x, times, name)  # noqa: E731
    assert torch.autograd.gradcheck(run, (X.clone().requires_grad_(), W.clone().requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("name", ["euler_maruyama", "milstein", "stochastic_heun", "torchsde:reversible_heun", "rk4"])
@pytest.mark.parametrize("noise", ["step", "path"])
def test_checkpoints_change_no_bit(name, noise):
    times, w = torch.linspace(1, 0, 12).tolist(), W.clone().requires_grad_()
    dynamics = ode(w) if name == "rk4" else sde(w)
    direct, kept = (grads(dynamics, times, name, how, [w], noise=noise) for how in ("direct", "checkpoint"))
    assert all(torch.equal(a, b) for a, b in zip(direct, kept, strict=True))
    a, b = (sdekit.solve(dynamics, X, times, name, seed=1, gradients=how).nfe for how in ("direct", "checkpoint"))
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m_sde"])
def test_checkpoints_of_a_network_in_a_plan(name):
    w = W.clone().requires_grad_()
    calls = []
    model = sdekit.Model(lambda x, t: (calls.append(1), torch.tanh(w * x))[1], sdekit.VP(), "data")
    times = [0.9, 0.7, 0.5, 0.3, 0.1]
    direct = grads(model, times, name, "direct", [w])
    made = len(calls)
    kept = grads(model, times, name, "checkpoint", [w])
    assert all(torch.equal(a, b) for a, b in zip(direct, kept, strict=True))
    assert len(calls) - made == 2 * made  # each call once more in the backward pass


def saved(steps: int, gradients: str, solver: Any) -> int:
    """How many tensors the graph of a solve keeps."""
    count, w = [0], W.clone().requires_grad_()

    def pack(tensor: Any) -> Any:
        count[0] += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        final(sde(w, "stratonovich"), X.clone().requires_grad_(), (0.0, 1.0), solver, gradients, steps=steps)
    return count[0]


def live(steps: int, gradients: str, solver: Any) -> int:
    """How many tensors of Python are alive when a solve is done."""
    import gc

    w = W.clone().requires_grad_()
    gc.collect()
    before = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    out = final(sde(w, "stratonovich"), X.clone().requires_grad_(), (0.0, 1.0), solver, gradients, steps=steps)
    gc.collect()
    after = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    assert out.requires_grad
    return after - before


def test_memory():
    solver = Reversible()
    assert saved(64, "direct", solver) > 3 * saved(16, "direct", solver)
    assert saved(64, "adjoint", solver) == saved(16, "adjoint", solver) < 10
    # Between the parts only: what the graph keeps outside of them does not grow faster than their number.
    assert saved(100, "checkpoint", solver) <= 4 * max(saved(16, "checkpoint", solver), 4)


@pytest.mark.slow
def test_memory_of_tensors_that_python_holds():
    solver = Reversible()
    assert live(64, "adjoint", solver) == live(16, "adjoint", solver)
    assert live(100, "checkpoint", solver) < 3.5 * live(16, "checkpoint", solver) < 100


REVERSIBLE = [Reversible(), "torchsde:reversible_heun", "reversible_heun"]


@pytest.mark.parametrize("solver", REVERSIBLE, ids=["plain", "torchsde", "registered"])
@pytest.mark.parametrize("times", [DOWN, UP], ids=["down", "up"])
@pytest.mark.parametrize("kind", ["diagonal", "general", "ode"])
def test_a_reversible_adjoint_is_the_direct_gradient(solver, times, kind):
    w = W.clone().requires_grad_()
    dynamics = ode(w) if kind == "ode" else sde(w, "ito", kind)
    direct, back = (grads(dynamics, times, solver, how, [w]) for how in ("direct", "adjoint"))
    for a, b in zip(direct, back, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-13)
    run = lambda x, w: final(ode(w) if kind == "ode" else sde(w, "ito", kind), x, times, solver, "adjoint")  # noqa: E731
    assert torch.autograd.gradcheck(run, (X.clone().requires_grad_(), w), fast_mode=True)


def test_a_wrong_inverse_shows():
    wrong, w = Reversible(), W.clone().requires_grad_()
    wrong.sign = -1.0
    direct, back = (grads(sde(w), DOWN, wrong, how, [w]) for how in ("direct", "adjoint"))
    assert torch.equal(direct[0], back[0]) and not torch.allclose(direct[1], back[1], rtol=1e-3)


class Net(sdekit.SDE):
    """Neural drift and diffusion."""

    sde_type = "stratonovich"

    def __init__(self) -> None:
        self.f = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
        self.g = torch.nn.Linear(2, 2).double()

    def drift(self, t, x):
        return self.f(x) - t * x

    def diffusion(self, t, x):
        return 0.1 + torch.sigmoid(self.g(x))


def test_parameters_of_modules():
    torch.manual_seed(0)
    net = Net()
    parameters = [*net.f.parameters(), *net.g.parameters()]
    times = torch.linspace(0, 1, 17).tolist()
    direct = grads(net, times, Reversible(), "direct", parameters)
    for how in ("checkpoint", "adjoint"):
        for a, b in zip(direct, grads(net, times, Reversible(), how, parameters), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-13)
    with torch.no_grad():  # central differences in one weight
        p, h = parameters[0], 1e-6
        ends = []
        for sign in (1, -1):
            p[0, 0] += sign * h
            s = sdekit.solve(net, X, times, Reversible(), seed=5, save="all")
            ends.append((s.x.sin() * s.xs[1]).sum() + s.xs[0].square().sum() + s.xs[-1].sum())
            p[0, 0] -= sign * h
    assert float(direct[2][0, 0]) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("name", ["torchdiffeq:rk4", "torchdiffeq:dopri5", "torchsde:midpoint", "torchsde:milstein"])
def test_adjoints_of_other_packages_agree_within_the_error_of_the_method(name):
    w = W.clone().requires_grad_()
    adaptive = "dopri5" in name
    dynamics, bound = (ode(w), 1e-5) if "diffeq" in name else (sde(w, sdekit.solvers.get(name).calculus), 0.06)
    times = [1.0, 0.4, 0.0] if adaptive else torch.linspace(1, 0, 33).tolist()
    options = {"rtol": 1e-8} if adaptive else {}
    direct, back = (grads(dynamics, times, name, how, [w], **options) for how in ("direct", "adjoint"))
    torch.testing.assert_close(back[0], direct[0])
    for a, b in zip(direct[1:], back[1:], strict=True):
        assert float((a - b).norm() / a.norm()) < bound
        assert not torch.equal(a, b)


def test_what_an_adjoint_did_not_find_is_an_error():
    w, late = W.clone().requires_grad_(), W.clone().requires_grad_()

    def drift(t: Any, x: Any) -> Any:
        return w * x if float(t) < 0.3 else w * x + late

    for solver, way in ((Reversible(), "adjoint"), ("torchdiffeq:rk4", "adjoint"), ("heun", "checkpoint")):
        with pytest.raises(InterfaceError, match=r"only at some times.*Use gradients='direct'"):
            final(sdekit.make_ode(drift), X, UP, solver, way).sum().backward()
        final(sdekit.make_ode(drift), X, UP, solver, "direct").sum().backward()
        assert late.grad is not None
        late.grad = None


def test_what_is_refused():
    with pytest.raises(OptionError, match="checkpoint"):
        final(sde(W), X, DOWN, "euler_maruyama", "chekpoint")
    with pytest.raises(SolverMismatchError, match="reversible_heun"):
        final(sde(W), X, DOWN, "euler_maruyama", "adjoint")
    with pytest.raises(SolverMismatchError, match="torchdiffeq"):
        final(ode(W), X, DOWN, "rk45", "adjoint", rtol=1e-3)
    with pytest.raises(OptionError, match="fixed steps"):
        final(ode(W), X, DOWN, "rk45", "checkpoint", rtol=1e-3)
    for how, solver in (("checkpoint", "euler_maruyama"), ("adjoint", Reversible())):
        with pytest.raises(OptionError, match="drawn again"):
            final(sde(W), X, DOWN, solver, how, noise="plain")
    target = sdekit.targets.gaussian(torch.zeros(2), 1.0).under(sdekit.VP())
    with pytest.raises(SolverMismatchError, match="inside the model"):
        final(target, X, DOWN, "heun", "checkpoint")


def test_without_gradients_nothing_changes():
    for how in ("direct", "checkpoint", "adjoint"):
        with torch.no_grad():
            assert torch.equal(final(sde(W), X, DOWN, Reversible(), how), final(sde(W), X, DOWN, Reversible()))
        assert not final(sde(W), X, DOWN, Reversible(), how).requires_grad
