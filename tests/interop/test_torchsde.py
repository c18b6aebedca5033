"""SDEs to and from torchsde: the same drift and diffusion, and the same solution on the same path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchsde

import sdekit
from sdekit import interop
from sdekit.errors import BackendError, InterfaceError, ModelOutputError, OptionError

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 3, 2)
T = torch.tensor(0.3, dtype=torch.float64)

KINDS: dict[str, Any] = {
    "diagonal": ("diagonal", False, lambda t, x: 0.2 + 0.1 * torch.sin(x) * t),
    "number": ("scalar", False, lambda t, x: 0.2 + 0.1 * torch.sin(x.mean((1, 2), keepdim=True))),
    "constant": ("scalar", True, lambda t, x: 0.2 + t),
    "general": ("general", False, lambda t, x: 0.2 * torch.stack([torch.sin(x), torch.cos(x * t), x], -1)),
    "additive": ("general", True, lambda t, x: torch.stack([torch.ones_like(x), t * torch.ones_like(x)], -1)),
}


def made(kind: str, **options: Any) -> Any:
    noise_type, additive, g = KINDS[kind]
    return sdekit.make_sde(lambda t, x: torch.sin(x) - t * x, g, noise_type, additive=additive, **options)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_of_two_axes_need_no_shape(kind, calculus):
    """Where d is not told, noise that may mix several coordinates is taken to do so: exact for one too."""
    noise_type, additive, g = KINDS[kind]
    if kind == "number":
        g = lambda t, x: 0.2 + 0.1 * torch.sin(x.mean(1, keepdim=True))  # noqa: E731
    sde = sdekit.make_sde(lambda t, x: torch.sin(x) - t * x, g, noise_type, calculus, additive)
    there = interop.to_torchsde(sde)
    for d in (1, 3):
        y, given = X.reshape(2, -1)[:, :d], interop.to_torchsde(sde, (d,))
        assert torch.equal(there.f(T, y), given.f(T, y))
        g, exact = there.g(T, y), given.g(T, y)
        assert torch.equal(g.reshape(exact.shape), exact)
        size = d if there.noise_type == "diagonal" else g.shape[-1]
        motion: Any = torchsde.BrownianInterval(0.0, 0.5, (2, size), dtype=y.dtype, entropy=1)
        method = "euler" if calculus == "ito" else "heun"
        ends = [torchsde.sdeint(m, y, [0.0, 0.5], bm=motion, method=method, dt=0.25)[-1] for m in (there, given)]
        torch.testing.assert_close(*ends, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, calculus):
    sde = made(kind, sde_type=calculus)
    there = interop.to_torchsde(sde, X.shape[1:])
    back = interop.from_torchsde(there)
    assert there.noise_type == {"number": "general", "constant": "diagonal"}.get(kind, kind)
    assert back.sde_type == calculus and back.additive == (there.noise_type == "additive")
    flat = X.reshape(2, -1)
    torch.testing.assert_close(back.drift(T, flat).reshape(X.shape), sde.drift(T, X), rtol=1e-14, atol=0)
    w = torch.linspace(1, 2, 12, dtype=torch.float64).reshape(2, -1)[:, : there.g(T, flat).shape[-1]]
    g, theirs = sde.diffusion(T, X), back.diffusion(T, flat)
    product = (theirs @ w[..., None])[..., 0] if theirs.ndim == 3 else theirs * w
    if kind in ("general", "additive"):
        expected = torch.einsum("b...m,bm->b...", g, w)
    else:
        expected = g * w.reshape(X.shape)
    torch.testing.assert_close(product.reshape(X.shape), expected, rtol=1e-14, atol=1e-16)


def test_downwards_time_is_negated():
    sde = made("diagonal")
    down = interop.to_torchsde(sde, (3, 2), downward=True)
    flat = X.reshape(2, -1)
    assert torch.equal(down.f(-T, flat), -sde.drift(T, X).reshape(2, -1))
    assert torch.equal(down.g(-T, flat), sde.diffusion(T, X).reshape(2, -1))
    reverse: Any = sdekit.VP().reverse(lambda t, x: -x)
    assert interop.to_torchsde(reverse, (2,)).downward


@pytest.mark.parametrize("down", [False, True])
def test_torchsde_on_our_path_is_our_solution(down):
    sde, ids, grid = made("diagonal"), torch.tensor([4, 9]), [0.0, 0.25, 0.5, 0.75, 1.0]
    times = grid[::-1] if down else grid
    ours = sdekit.solve(sde, X, times, "euler_maruyama", seed=3, noise="path", sample_ids=ids).x
    motion: Any = interop.PathBrownian(3, ids, 6, dtype=torch.float64, downward=down)
    ts = -torch.tensor(times, dtype=torch.float64) if down else torch.tensor(times, dtype=torch.float64)
    module = interop.to_torchsde(sde, (3, 2), downward=down)
    ys: Any = torchsde.sdeint(module, X.reshape(2, -1), ts, bm=motion, method="euler", dt=0.25)
    torch.testing.assert_close(ys[-1].reshape(X.shape), ours, rtol=1e-12, atol=1e-12)
    with pytest.raises(BackendError):
        motion(0.0, 0.5, return_A=True)
    with pytest.raises(OptionError):
        motion(0.0, 1e300)


class Theirs(torch.nn.Module):
    noise_type, sde_type = "scalar", "stratonovich"

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 2).double()

    def f_and_g(self, t, y):
        return self.net(y) * t, torch.cos(y)[..., None]


def test_a_module_with_f_and_g_in_one():
    torch.manual_seed(0)
    module = Theirs()
    sde = interop.from_torchsde(module)
    assert (sde.noise_type, sde.sde_type, sde.additive) == ("general", "stratonovich", False)
    x = torch.ones(3, 2, dtype=torch.float64)
    s = sdekit.solve(sde, x, [0.0, 1.0], "torchsde:midpoint", steps=8, seed=0)
    ours = sdekit.solve(sde, x, [0.0, 1.0], "stochastic_midpoint", steps=8, seed=0)
    torch.testing.assert_close(s.x, ours.x, rtol=1e-12, atol=1e-12)
    s.x.sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_parameters_are_found_by_their_adjoint():
    class Mine(sdekit.SDE):
        def __init__(self) -> None:
            self.net = torch.nn.Linear(2, 2)

        def drift(self, t, x):
            return self.net(x)

        def diffusion(self, t, x):
            return 0.1 + 0 * x

    assert len(list(interop.to_torchsde(Mine(), (2,)).parameters())) == 2


def test_what_is_refused():
    class Products:
        noise_type, sde_type = "general", "ito"

        def f(self, t, y):
            return y

        def g_prod(self, t, y, v):
            return y

    with pytest.raises(InterfaceError, match="f_and_g"):
        interop.from_torchsde(Products())
    wrong: Any = Theirs()
    wrong.noise_type = "scaler"
    with pytest.raises(OptionError, match="noise_type"):
        interop.from_torchsde(wrong)
    for shape in ((2,), None):
        with pytest.raises(InterfaceError, match=r"sde: got .*torchdiffeq"):
            interop.to_torchsde(sdekit.make_ode(lambda t, x: x), shape)  # type: ignore[arg-type]
    with pytest.raises(InterfaceError, match="shape"):
        interop.to_torchsde(made("diagonal"), 3)  # type: ignore[arg-type]
    wide: Any = Theirs()
    wide.f_and_g = lambda t, y: (y, torch.ones(len(y), 2, 3))
    with pytest.raises(ModelOutputError, match="scalar"):
        interop.from_torchsde(wide).diffusion(T, torch.ones(2, 2))
