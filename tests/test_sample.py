"""Sampling: seeds, chunks, conditioning, gradients, and the law of what comes out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import EDM, VP, Model, RectifiedFlow, grids, targets
from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError, UnknownNameError

F64 = torch.float64


def row_wise(x: Tensor, t: Tensor, label: Tensor | float = 0.0) -> Tensor:
    """Elementwise in x, so that a row does not see its batch."""
    label = label.reshape(-1, *(1,) * (x.ndim - 1)) if isinstance(label, Tensor) else label
    return torch.tanh(x) * 0.5 + label


MODEL = Model(row_wise, VP(), "data")
SOLVERS = ["ddim", "dpmpp_2m", "ddpm", "dpmpp_2m_sde", "euler_maruyama", "heun"]


def test_the_result_is_the_solve_from_the_prior_on_the_default_grid() -> None:
    got = sdekit.sample(MODEL, (3, 2), "dpmpp_2m_sde", 7, seed=5, dtype=F64)
    start = VP().sample_prior((3, 2), seed=5, dtype=F64)
    want = sdekit.solve(MODEL, start, grids.half_log_snr(VP(), 7), "dpmpp_2m_sde", seed=5).x
    assert torch.equal(got, want) and got.dtype == F64


def test_samples_have_the_law_of_the_data() -> None:
    exact = targets.gaussian([0.7, -0.2], [0.3, 0.1]).under(EDM())
    n = 4_000
    for solver in ("dpmpp_2m", "dpmpp_2m_sde"):
        x = sdekit.sample(exact, (n, 2), solver, 30, seed=0, dtype=F64)
        std = torch.tensor([0.3, 0.1], dtype=F64).sqrt()
        assert bool(((x.mean(0) - torch.tensor([0.7, -0.2])).abs() < 0.01 + 4.5 * std / math.sqrt(n)).all())
        assert bool(((x.std(0) / std - 1).abs() < 0.02 + 4.5 / math.sqrt(2 * n)).all())


@pytest.mark.parametrize("solver", SOLVERS)
def test_chunks_change_nothing(solver: str) -> None:
    whole = sdekit.sample(MODEL, (7, 3), solver, 5, seed=1)
    for size in (1, 2, 3, 7, 20):
        assert torch.equal(sdekit.sample(MODEL, (7, 3), solver, 5, seed=1, batch_size=size), whole)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_is_known_by_its_id(solver: str) -> None:
    whole = sdekit.sample(MODEL, (7, 3), solver, 5, seed=1)
    ids = [5, 0, 3]
    assert torch.equal(sdekit.sample(MODEL, (3, 3), solver, 5, seed=1, sample_ids=ids), whole[ids])
    assert torch.equal(
        sdekit.sample(MODEL, (3, 3), solver, 5, seed=1, sample_ids=torch.tensor(ids), batch_size=2), whole[ids]
    )
    assert torch.equal(sdekit.sample(MODEL, (2, 3), solver, 5, seed=1), whole[:2])
    assert not torch.equal(sdekit.sample(MODEL, (7, 3), solver, 5, seed=2), whole)


def test_padded_chunks_have_one_size() -> None:
    sizes: list[int] = []
    model = Model(lambda x, t: sizes.append(len(x)) or x / 2, VP(), "data")
    out = sdekit.sample(model, (7, 3), "ddim", 1, seed=0, batch_size=3)
    assert sizes == [3, 3, 3] and out.shape == (7, 3)


def test_every_kind_of_seed() -> None:
    a = sdekit.sample(MODEL, (3, 2), "ddpm", 4, seed=9)
    assert torch.equal(sdekit.sample(MODEL, (3, 2), "ddpm", 4, seed=9), a)
    by_generator = [sdekit.sample(MODEL, (3, 2), "ddpm", 4, seed=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*by_generator)
    torch.manual_seed(4)
    first = sdekit.sample(MODEL, (3, 2), "ddpm", 4)
    after = torch.randint(2**60, ())
    torch.manual_seed(4)
    assert torch.equal(sdekit.sample(MODEL, (3, 2), "ddpm", 4, batch_size=1), first)
    # Exactly one integer is drawn, whatever the solver and the chunks.
    torch.manual_seed(4)
    torch.randint(0, 2**63 - 1, (1,))
    assert torch.equal(torch.randint(2**60, ()), after)
    state = torch.get_rng_state()
    sdekit.sample(MODEL, (3, 2), "ddpm", 4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_conditioning_is_cut_into_chunks_with_the_samples() -> None:
    labels = torch.arange(7.0)
    whole = sdekit.sample(MODEL, (7, 3), "ddim", 4, seed=0, conditioning={"label": labels})
    for size in (1, 3, 20):
        chunked = sdekit.sample(MODEL, (7, 3), "ddim", 4, seed=0, conditioning={"label": labels}, batch_size=size)
        assert torch.equal(chunked, whole)
    assert torch.equal(sdekit.sample(MODEL.bind(label=2.0), (7, 3), "ddim", 4, seed=0)[2], whole[2])
    fixed = sdekit.sample(MODEL, (7, 3), "ddim", 4, seed=0, conditioning={"label": 2.0}, batch_size=3)
    assert torch.equal(fixed[2], whole[2])


def test_a_condition_may_have_the_name_of_an_option() -> None:
    seen: list[object] = []
    model = Model(lambda x, t, noise, steps: seen.append((noise, steps)) or x / 2, VP(), "data")
    sdekit.sample(model, (2, 3), "ddim", 3, seed=0, conditioning={"noise": "pink", "steps": 17})
    assert seen == [("pink", 17)] * 3


def test_an_unknown_condition_is_refused_before_the_first_call() -> None:
    calls: list[int] = []
    model = Model(lambda x, t, label=0: calls.append(1) or x, VP(), "data")
    for attempt in (
        lambda: sdekit.sample(model, (2, 3), "ddim", 3, seed=0, conditioning={"lable": 1}),
        lambda: sdekit.sample(model.bind(lable=1), (2, 3), "ddim", 3, seed=0),
    ):
        with pytest.raises(UnknownNameError, match="'label'"):
            attempt()
    with pytest.raises(SdekitError, match="batchsize"):
        sdekit.sample(model, (2, 3), "ddim", 3, seed=0, batchsize=2)
    assert not calls


def test_starting_from_a_state() -> None:
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    got = sdekit.sample(MODEL, (3, 2), "ddpm", 6, seed=1, x_start=x, t_start=0.4, batch_size=2)
    want = sdekit.solve(MODEL, x, grids.half_log_snr(VP(), 6, t_start=0.4), "ddpm", seed=1).x
    assert torch.equal(got, want)
    times = [0.4, 0.2, 0.01]
    assert torch.equal(
        sdekit.sample(MODEL, (3, 2), "ddim", grid=times, x_start=x, t_start=0.4, seed=0),
        sdekit.solve(MODEL, x, times, "ddim").x,
    )
    for bad in ({"x_start": x}, {"t_start": 0.4}, {"x_start": x, "t_start": 0.3, "grid": times}):
        with pytest.raises(OptionError, match="t_start"):
            sdekit.sample(MODEL, (3, 2), "ddim", 3, seed=0, **bad)
    with pytest.raises(ShapeError, match="x_start"):
        sdekit.sample(MODEL, (4, 2), "ddim", 3, seed=0, x_start=x, t_start=0.4)


def test_the_prior_is_that_of_the_grid_s_first_time() -> None:
    seen: list[Tensor] = []
    model = Model(lambda x, t: seen.append(x) or x / 2, EDM(), "data")
    sdekit.sample(model, (3, 2), "ddim", grid=[5.0, 1.0, 0.1], seed=2, dtype=F64)
    torch.testing.assert_close(seen[0], EDM().sample_prior((3, 2), seed=2, dtype=F64) * 5 / 80)


def test_gradients_on_request() -> None:
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    model = Model(lambda x, t: torch.tanh(weight * x), VP(), "data")
    assert not sdekit.sample(model, (3, 2), "dpmpp_2m", 4, seed=0, dtype=F64).requires_grad
    out = sdekit.sample(model, (3, 2), "dpmpp_2m", 4, seed=0, dtype=F64, grad=True, batch_size=2)
    (gradient,) = torch.autograd.grad(out.sum(), weight)
    ends = []
    for change in (1e-5, -1e-5):
        moved = Model(lambda x, t, w=0.5 + change: torch.tanh(w * x), VP(), "data")
        ends.append(sdekit.sample(moved, (3, 2), "dpmpp_2m", 4, seed=0, dtype=F64).sum())
    assert float(gradient) == pytest.approx(float((ends[0] - ends[1]) / 2e-5), rel=1e-8)


def test_shapes_dtypes_and_nothing() -> None:
    for shape in ((4,), (2, 3, 4, 5), (0, 3)):
        assert sdekit.sample(MODEL, shape, "ddim", 3, seed=0).shape == shape
    assert sdekit.sample(MODEL, (2, 3), "ddim", 3, seed=0, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert sdekit.sample(MODEL, (0, 3), "ddim", 3, seed=0, batch_size=2).shape == (0, 3)
    for shape in ((), (-1, 2), (2.0,), 3, None):
        with pytest.raises(SdekitError, match="shape"):
            sdekit.sample(MODEL, shape, seed=0)  # type: ignore[arg-type]


def test_steps_are_twenty_unless_given_and_those_of_times_may_be_said() -> None:
    default, twenty = (sdekit.sample(MODEL, (2, 2), "ddim", *steps, seed=0) for steps in ((), (20,)))
    assert torch.equal(default, twenty)
    two = [sdekit.sample(MODEL, (2, 2), "ddim", *steps, grid=[0.9, 0.5, 0.1], seed=0) for steps in ((), (2,))]
    assert torch.equal(*two)


def test_bad_arguments_are_named_before_the_first_call() -> None:
    calls: list[int] = []
    model = Model(lambda x, t: calls.append(1) or x, VP(), "data")
    with pytest.raises(InterfaceError, match=r"model.*sdekit\.Model\(net, process\)"):
        sdekit.sample(row_wise, (2, 3))  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'dpmpp_2m'"):
        sdekit.sample(model, (2, 3), "dpmp_2m")
    with pytest.raises(UnknownNameError, match="'karras'"):
        sdekit.sample(model, (2, 3), grid="karas")
    for steps in (0, -1, 2.5, "20"):
        with pytest.raises(SdekitError, match="steps"):
            sdekit.sample(model, (2, 3), "ddim", steps)  # type: ignore[arg-type]
    for ids in ([0], [0.5, 1.0], [[0, 1]], [-1, 0], [True, False]):
        with pytest.raises(SdekitError, match="sample_ids"):
            sdekit.sample(model, (2, 3), "ddim", 3, seed=0, sample_ids=ids)
    for size in (0, -1, 1.5):
        with pytest.raises(SdekitError, match="batch_size"):
            sdekit.sample(model, (2, 3), "ddim", 3, seed=0, batch_size=size)  # type: ignore[arg-type]
    for seed in (-1, 2**64, 1.5, "0", True):
        with pytest.raises(SdekitError, match="seed"):
            sdekit.sample(model, (2, 3), "ddim", 3, seed=seed)  # type: ignore[arg-type]
    for grad in ("yes", 1, None):
        with pytest.raises(OptionError, match=r"^grad: .* True or False"):
            sdekit.sample(model, (2, 3), "ddim", 3, grad=grad)  # type: ignore[arg-type]
    for device in ("cuda:7", "xpu", "here", 1.5):  # none of which there is
        with pytest.raises(OptionError, match=r"^device: got "):
            sdekit.sample(model, (2, 3), "ddim", 3, device=device)  # type: ignore[arg-type]
    for steps in (7, 20):
        with pytest.raises(OptionError, match=r"^steps: .* beside a grid of 2 times"):
            sdekit.sample(model, (2, 3), "ddim", steps, grid=[0.9, 0.1])
    assert not calls
    noise = Model(lambda x, t: calls.append(1) or x, RectifiedFlow())
    with pytest.raises(OptionError, match="alpha = 0"):
        sdekit.sample(noise, (2, 3), "ddim", 3, seed=0)
    assert not calls
