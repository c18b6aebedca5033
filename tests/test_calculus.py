"""Derivatives of a diffusion: against hand-written ones, for every kind of noise, and what is refused."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import SDE
from sdekit.calculus import MOST_EXACT, LocalNoise, random_signs
from sdekit.errors import InterfaceError, ModelOutputError, OptionError
from sdekit.testing import state_noises

F64 = torch.float64
NOISES = state_noises()
T = torch.tensor(0.4, dtype=F64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_noise(g, noise_type="diagonal", sde_type="ito") -> SDE:
    return sdekit.make_sde(lambda t, x: -x, g, noise_type, sde_type)


def local(g, x: Tensor, noise_type="diagonal", sde_type="ito", t: Tensor = T) -> LocalNoise:
    return LocalNoise(with_noise(g, noise_type, sde_type), t, x)


@pytest.fixture
def derivatives(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every derivative along a vector."""
    calls: list[int] = []
    real = LocalNoise._along
    monkeypatch.setattr(LocalNoise, "_along", lambda self, v: calls.append(1) or real(self, v))
    return calls


@pytest.mark.parametrize("name", NOISES)
def test_derivatives_are_those_written_by_hand(name: str) -> None:
    noise, x = NOISES[name], normal(7, 2)
    for t in (T, torch.linspace(0, 1, 7, dtype=F64)[:, None]):
        c, contraction = noise.correction(t, x), noise.contraction(t, x)
        ito, strat = (local(noise.g, x, noise.noise_type, kind, t) for kind in ("ito", "stratonovich"))
        torch.testing.assert_close(ito.correction(), c, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(ito.divergence("exact", 0), c + contraction, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(strat.divergence("exact", 0), contraction, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(ito.squared(x), noise.squared(t, x, x), rtol=1e-13, atol=1e-14)
        assert (ito.divergence("exact", 0) - contraction).abs().max() > 0.05  # the two calculi differ here


@pytest.mark.parametrize("columns", [1, 3, 9])
def test_correction_takes_the_cheaper_of_columns_and_coordinates(columns: int, derivatives: list[int]) -> None:
    """As many derivatives as there are columns, or coordinates; the same c, also for states of several axes."""
    weights = normal(2, 3, 2, 3, columns, seed=1)

    def g(t, x):
        return torch.einsum("bij,ijklm->bklm", torch.sin(x), weights)

    x = normal(4, 2, 3)
    found = local(g, x, "general").correction()
    assert len(derivatives) == min(columns, 6)
    slopes = torch.func.vmap(torch.func.jacrev(lambda y: g(T, y[None])[0]))(x)
    want = torch.einsum("bklm,bijmkl->bij", g(T, x), slopes)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [*NOISES, "wide"])
@pytest.mark.parametrize("sde_type", ["ito", "stratonovich"])
def test_all_sign_vectors_together_are_exact(name: str, sde_type: str) -> None:
    """Hutchinson's estimate, averaged over every value of its signs. A probe of other variance is no longer exact."""
    if name == "wide":
        kind, g = "general", lambda t, x: torch.sin(x[..., None] + 0.5 * x.roll(1, 1)[..., None] * torch.arange(1, 5))
        x = normal(3, 3)
    else:
        kind, g, x = NOISES[name].noise_type, NOISES[name].g, normal(3, 2)
    noise = local(g, x, kind, sde_type)
    probes = [torch.tensor(s, dtype=F64).expand(x.shape) for s in itertools.product((-1.0, 1.0), repeat=x.shape[1])]

    def average(scale: float) -> Tensor:
        terms = [noise.terms(scale * v) for v in probes]
        return sum(b if sde_type == "stratonovich" else a + b for a, b in terms) / len(probes)

    exact = noise.divergence("exact", 0)
    torch.testing.assert_close(average(1.0), exact, rtol=1e-12, atol=1e-13)
    assert (average(1.1) - exact).abs().max() > 1e-2


def test_hutchinson_is_one_of_its_terms_and_exact_where_that_is_free() -> None:
    x = normal(5, 2)
    for name, noise in NOISES.items():
        here = local(noise.g, x, noise.noise_type)
        exact, estimate = here.divergence("exact", 0), here.divergence("hutchinson", 0)
        terms = here.terms(random_signs(0, T, x))
        if name in ("scalar", "diagonal"):
            torch.testing.assert_close(estimate, exact, rtol=1e-13, atol=1e-14)
        else:
            torch.testing.assert_close(estimate, terms[0] + terms[1], rtol=1e-14, atol=0)
            assert (estimate - exact).abs().max() > 1e-2
            assert not torch.equal(estimate, here.divergence("hutchinson", 1))


def test_the_number_of_derivatives(derivatives: list[int]) -> None:
    """An entry of its own coordinate: two; of several: n more; an estimate: one. Scalar noise: one gradient."""
    calls = []

    def counted(g):
        def function(t, x):
            calls.append(1)
            return g(x)

        return function

    cases = [
        (counted(lambda x: 1 + 0.3 * torch.sin(x)), "diagonal", 2, 1),
        (counted(lambda x: 1 + 0.3 * torch.sin(x + x.roll(1, 1))), "diagonal", 2 + 9, 1),
        (counted(lambda x: torch.sin(x)[..., None] * torch.ones(2, dtype=x.dtype)), "general", 9, 1),
        (counted(lambda x: torch.exp(-(x**2).sum(1, keepdim=True))), "scalar", 0, 0),
    ]
    for g, kind, exact, estimate in cases:
        for method, count in (("exact", exact), ("hutchinson", estimate)):
            noise = local(g, normal(4, 9), kind)
            calls.clear()
            derivatives.clear()
            noise.divergence(method, 0)
            assert len(derivatives) == count, (kind, method)
            assert len(calls) == 1, (kind, method)  # one call of g for all of its derivatives


def test_exact_has_a_limit_and_elementwise_and_scalar_noise_have_none() -> None:
    n = MOST_EXACT + 1
    x = normal(2, n)
    elementwise = local(lambda t, x: torch.sin(x), x)
    torch.testing.assert_close(elementwise.divergence("exact", 0), torch.sin(2 * x), rtol=1e-12, atol=1e-12)
    scalar = local(lambda t, x: torch.sqrt(1 + (x**2).sum(1, keepdim=True)), x, "scalar")
    torch.testing.assert_close(scalar.divergence("exact", 0), 2 * x, rtol=1e-12, atol=1e-12)
    mixing = local(lambda t, x: torch.sin(x + x.roll(1, 1)), x)
    general = local(lambda t, x: x[..., None], x, "general")
    for noise in (mixing, general):
        with pytest.raises(OptionError, match=r"divergence: got 'exact' with .* 257 .*at most 256.*'hutchinson'"):
            noise.divergence("exact", 0)
        assert torch.isfinite(noise.divergence("hutchinson", 0)).all()
    torch.testing.assert_close(general.correction(), x)  # one column: one derivative, in any dimension
    small = local(lambda t, x: x[..., None], x[:, :MOST_EXACT], "general")
    want = x[:, :MOST_EXACT] * (1 + MOST_EXACT)  # d_j (x_i x_j) = (n + 1) x_i
    torch.testing.assert_close(small.divergence("exact", 0), want, rtol=1e-12, atol=1e-12)


def test_a_faint_mixing_is_seen() -> None:
    """1e-8 of another coordinate, which a probe of equal numbers would miss, is found and counted exactly."""
    x = normal(3, 4)
    noise = local(lambda t, x: torch.sin(x) + 1e-8 * torch.cos(x.roll(1, 1) - x), x)
    g = torch.sin(x) + 1e-8 * torch.cos(x.roll(1, 1) - x)
    slope = torch.cos(x) + 1e-8 * torch.sin(x.roll(1, 1) - x)
    torch.testing.assert_close(noise.divergence("exact", 0), 2 * g * slope, rtol=1e-14, atol=0)


def in_place(t: Tensor, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape, dtype=x.dtype)
    out[:, 0] = x[:, 0] ** 2
    out[:, 1:].add_(torch.sin(x[:, 1:]))
    return out


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_in_place_code_and_every_grad_mode(mode) -> None:
    with mode():
        x = normal(3, 3)
        want = torch.cat([4 * x[:, :1] ** 3, torch.sin(2 * x[:, 1:])], 1)
        torch.testing.assert_close(local(in_place, x).divergence("exact", 0), want, rtol=1e-12, atol=1e-13)
        scalar = local(lambda t, x: x[:, :1] ** 2, x, "scalar").divergence("exact", 0)
        torch.testing.assert_close(scalar[:, 0], 4 * x[:, 0] ** 3, rtol=1e-12, atol=1e-13)
        assert not local(in_place, x).divergence("exact", 0).requires_grad


def test_gradients_reach_parameters_and_states() -> None:
    x = normal(3, 2).requires_grad_()
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def everything(x: Tensor, scale: Tensor, kind: str) -> Tensor:
        g = {
            "scalar": lambda t, x: scale * torch.sqrt(1 + (x**2).sum(1, keepdim=True)),
            "diagonal": lambda t, x: torch.sin(scale * x),
            "general": lambda t, x: torch.sin(scale * x)[..., None] * x[:, None],
        }[kind]
        noise = local(g, x, kind)
        return torch.cat([noise.divergence("exact", 0), noise.correction()], 1)

    for kind in ("scalar", "diagonal", "general"):
        assert torch.autograd.gradcheck(lambda x, s, k=kind: everything(x, s, k), (x, scale), atol=1e-7)
        with torch.no_grad():
            assert not everything(x, scale, kind).requires_grad


class Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return grad


@pytest.mark.parametrize(
    ("label", "g"),
    [
        ("numpy", lambda t, x: torch.from_numpy(np.sin(x.detach().numpy()))),
        ("array", lambda t, x: torch.as_tensor(np.sin(np.asarray(x)))),
        ("out=", lambda t, x: torch.sin(x, out=torch.zeros_like(x))),
        ("function", lambda t, x: Plain.apply(x)),
    ],
)
@pytest.mark.parametrize("noise_type", ["diagonal", "scalar"])
def test_what_torch_cannot_differentiate_is_named(label: str, g, noise_type: str) -> None:
    x = normal(3, 1)
    with pytest.raises(InterfaceError, match=r"diffusion: got a g that cannot be differentiated.*make_sde.*NumPy") as e:
        local(g, x, noise_type).divergence("exact", 0)
    assert isinstance(e.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "g",
    [
        lambda t, x: 1 + x.detach() ** 2,
        lambda t, x: torch.tensor([[np.sin(v) for v in row] for row in x.tolist()]),
        torch.inference_mode()(lambda t, x: 1 + x**2),
        torch.no_grad()(lambda t, x: 1 + x**2),
    ],
    ids=["detach", "tolist", "inference", "no_grad"],
)
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_g_that_hides_its_derivative_is_refused(g, at: float) -> None:
    """Automatic differentiation sees a constant; at x = 0, where 1 + x^2 has no slope, as anywhere else."""
    x = at * normal(3, 2)
    with pytest.raises(InterfaceError, match=r"changes with x though its derivative is zero.*detach"):
        local(g, x).verify()
    for honest in (lambda t, x: 1 + x**2, lambda t, x: torch.ones_like(x), lambda t, x: t * torch.ones_like(x)):
        local(honest, x).verify()
    unrecorded = torch.no_grad()(lambda t, x: 1 + (x**2).sum(1, keepdim=True))
    with pytest.raises(InterfaceError, match="no_grad"):
        local(unrecorded, x, "scalar").verify()


def test_errors_of_g_itself_go_on_as_they_are() -> None:
    fault, memory = RuntimeError("mine"), torch.OutOfMemoryError("full")

    def breaking(error: Exception, at: int):
        calls = []

        def g(t, x):
            calls.append(1)
            if len(calls) >= at:
                raise error
            return torch.sin(x)

        return g

    for error in (fault, memory, ZeroDivisionError("mine")):
        with pytest.raises(type(error)) as caught:
            local(breaking(error, 2), normal(3, 2)).divergence("exact", 0)
        assert caught.value is error
    with pytest.raises(ModelOutputError, match=r"diffusion: got shape \(3, 1\)"):
        local(lambda t, x: x[:, :1], normal(3, 2))


def test_signs_are_a_function_of_seed_time_and_row() -> None:
    x, t = normal(500, 200), torch.rand(500, 1, dtype=F64, generator=torch.Generator().manual_seed(1))
    signs = random_signs(3, t, x)
    assert signs.dtype == F64 and set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs[7:11], random_signs(3, t[7:11], x[7:11]))  # the batch around it changes nothing
    assert torch.equal(signs, random_signs(3, t, x))
    moved, other = x.clone(), x.clone()
    moved[:, 17] = torch.nextafter(x[:, 17], x[:, 17] + 1)
    other[:, [3, 4]] = x[:, [4, 3]]
    variants = [
        random_signs(4, t, x),
        random_signs(3, t + 1e-15, x),
        random_signs(3, t, moved),
        random_signs(3, t, other),
    ]
    limit = 5 / signs.numel() ** 0.5
    assert abs(float(signs.mean())) < limit
    for changed in (*variants, signs.roll(1, 0), signs.roll(1, 1), signs.roll(32, 1), signs.roll(128, 1)):
        assert abs(float((signs * changed).mean())) < limit
    # Rows and columns are balanced: their means have the variance of independent signs.
    assert float(signs.mean(0).var()) * 500 == pytest.approx(1, abs=0.5)
    assert float(signs.mean(1).var()) * 200 == pytest.approx(1, abs=0.3)
    assert random_signs(0, torch.tensor(0.5), torch.zeros(2, 3, 5).half()).dtype == torch.float16
    assert random_signs(0, T, torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_empty_states(dtype: torch.dtype) -> None:
    x = normal(4, 2).to(dtype)
    for kind, g in (("diagonal", lambda t, x: torch.sin(x)), ("general", lambda t, x: torch.sin(x)[..., None])):
        noise = local(g, x, kind, t=torch.tensor(0.5))
        found = noise.divergence("exact", 0)
        assert found.dtype == (torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
        exact = local(g, x.double(), kind).divergence("exact", 0)
        torch.testing.assert_close(found.double(), exact, rtol=16 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    for shape in ((0, 2), (3, 0)):
        empty = torch.zeros(shape, dtype=dtype)
        for method in ("exact", "hutchinson"):
            assert local(lambda t, x: torch.sin(x), empty).divergence(method, 0).shape == shape


def test_a_given_derivative_is_taken(derivatives: list[int]) -> None:
    """By changes of calculus and reversals, with the numbers of automatic differentiation; a wrong one is seen."""
    x, calls = normal(5, 3), []

    def g(t: Tensor, x: Tensor) -> Tensor:
        return 1 + 0.5 * torch.sin(x * (1 + t))

    def slope(t: Tensor, x: Tensor) -> Tensor:
        calls.append(t)
        return 0.5 * (1 + t) * torch.cos(x * (1 + t))

    found = []
    for given in (None, slope, lambda t, x: 2 * slope(t, x)):
        sde = sdekit.make_sde(lambda t, x: -x, g, diffusion_derivative=given)
        down = sde.reverse(lambda t, x: -x)
        found.append(
            torch.stack([sde.to_stratonovich().drift(T, x), down.drift(T, x), LocalNoise(sde, T, x).correction()])
        )
        if given is None:
            asked = len(derivatives)
    torch.testing.assert_close(found[1], found[0], rtol=1e-13, atol=1e-14)
    assert float((found[2] - found[0]).abs().amin(dim=(1, 2)).max()) > 0 and len(calls) == 6
    assert len(derivatives) == asked > 0
    with pytest.raises(OptionError, match="diffusion_derivative"):
        sdekit.make_sde(lambda t, x: -x, lambda t, x: x[:, :1], "scalar", diffusion_derivative=slope)
    with pytest.raises(InterfaceError, match="order"):
        sdekit.make_sde(lambda t, x: -x, g, diffusion_derivative=lambda x, t: x)
    wrong = sdekit.make_sde(lambda t, x: -x, g, diffusion_derivative=lambda t, x: x[:, :1])
    with pytest.raises(ModelOutputError, match="diffusion"):
        wrong.to_stratonovich().drift(T, x)


LIES: dict[str, Any] = {
    "diagonal": lambda t, x: 1 + 0.1 * torch.sin(x) * t,
    "scalar": lambda t, x: 1 + 0.1 * x.mean(1, keepdim=True) ** 2,
    "general": lambda t, x: torch.stack([torch.ones_like(x), torch.cos(x)], -1),
}
HONEST: dict[str, Any] = {
    "diagonal": lambda t, x: (1 + t) * torch.ones_like(x),
    "scalar": lambda t, x: 1 + t,
    "general": lambda t, x: ((1 + t) * torch.ones_like(x))[..., None].expand(*x.shape, 3),
}


@pytest.mark.parametrize("how", [{"steps": 3}, {"rtol": 1e-1}])
@pytest.mark.parametrize("kind", LIES)
def test_an_additive_diffusion_that_changes_with_x_is_refused_at_the_start(kind, how, monkeypatch) -> None:
    """By two calls of it and none of the drift. Without this the answer is wrong and nothing is said."""
    calls = []

    def solved(g, dtype):
        counted: Any = lambda t, x: calls.append("g") or g(t, x)  # noqa: E731
        drift: Any = lambda t, x: calls.append("f") or -x  # noqa: E731
        sde = sdekit.make_sde(drift, counted, kind, additive=True)
        return sdekit.solve(sde, torch.zeros(2, 3, dtype=dtype), [0.5, 0.7], "sra1", seed=0, **how)

    for dtype in (torch.float64, torch.float32):
        with pytest.raises(InterfaceError, match=r"additive: got True.*Set additive = False"):
            solved(LIES[kind], dtype)
        assert "f" not in calls and calls.count("g") <= 3  # one of them for the columns of general noise
        calls.clear()
        assert solved(HONEST[kind], dtype).success
        calls.clear()
    monkeypatch.setattr("sdekit.problem.check_ignores_state", lambda *_: None)
    assert solved(LIES[kind], torch.float64).success


def test_what_raises_beside_the_state_is_no_lie() -> None:
    """An error of the diffusion is the step's to report, as ever."""

    def g(t, x):
        if bool((x > 1).any()):
            raise RuntimeError("off the map")
        return torch.ones_like(x)

    sde = sdekit.make_sde(lambda t, x: torch.zeros_like(x), g, additive=True)
    assert sdekit.solve(sde, torch.ones(2, 1, dtype=F64) - 1e-3, [0.0, -1e-9], "sra1", steps=1, seed=4).success
    with pytest.raises(RuntimeError, match="off the map") as caught:
        sdekit.solve(sde, torch.full((2, 1), 2.0), [0.0, 1.0], "sra1", steps=1, seed=0)
    assert any("step 0" in note for note in caught.value.__notes__)


def test_the_flow_of_an_additive_lie_is_refused() -> None:
    """Its drift leaves out the derivatives of g: the marginals would be wrong."""
    for g, right in ((LIES["diagonal"], False), (HONEST["diagonal"], True)):
        flow = sdekit.make_sde(lambda t, x: -x, g, additive=True).probability_flow(lambda t, x: -x)
        with contextlib.nullcontext() if right else pytest.raises(InterfaceError, match="additive"):
            assert sdekit.solve(flow, torch.zeros(2, 3, dtype=F64), [0.5, 0.7], "rk4", steps=3).success
    fresh, x = sdekit.make_sde(lambda t, x: -x, HONEST["diagonal"], additive=True), normal(3, 2)
    one = fresh.probability_flow(lambda t, x: -x)
    assert torch.equal(torch.func.vmap(lambda y: one.drift(T, y[None])[0])(x), one.drift(T, x))


@pytest.mark.parametrize("how", [{"steps": 3}, {"rtol": 1e-1}])
def test_a_diffusion_that_writes_into_x_never_reaches_the_users_start(how) -> None:
    x = normal(3, 2)
    kept = x.clone()
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: torch.stack([x.mul_(2), x], -1), "general")
    for solver in ("milstein", "stochastic_heun"):
        with pytest.raises(sdekit.SdekitError):
            sdekit.solve(sde, x, [0.0, 1.0], solver, seed=0, **how)
        assert torch.equal(x, kept)
