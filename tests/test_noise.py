"""Sources of noise: what they draw, what they leave alone, and how they are chosen."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

import sdekit
from sdekit.errors import InterfaceError, NonFiniteError, OptionError, ShapeError, UnknownNameError
from sdekit.math.philox import PRIOR_STREAM, normals
from sdekit.noise import CustomNoise, NoiseSource, PlainNoise, StepNoise, make_noise, resolve_seed

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def global_states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


# --- seeds ---


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, np.int64(7), np.uint64(2**64 - 1)])
def test_an_integer_is_its_own_seed(seed):
    before = global_states()
    assert resolve_seed(seed) == int(seed)
    assert type(resolve_seed(seed)) is int
    assert global_states() == before


def test_none_draws_exactly_one_integer_from_the_global_generator():
    torch.manual_seed(3)
    first, second = resolve_seed(None), resolve_seed(None)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    expected = [int(torch.randint(2**63 - 1, ())) for _ in range(2)]
    assert [first, second] == expected
    assert torch.equal(after, torch.get_rng_state())
    assert first != second


def test_a_generator_gives_one_integer():
    generator = torch.Generator().manual_seed(3)
    before = global_states()
    seed = resolve_seed(generator)
    assert seed == int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(3)))
    assert resolve_seed(generator) != seed
    assert global_states() == before


@pytest.mark.parametrize(
    "seed, error",
    [(-1, OptionError), (2**64, OptionError), (True, InterfaceError), (1.5, InterfaceError), ("7", InterfaceError)],
)
def test_other_seeds_are_refused(seed, error):
    with pytest.raises(error, match="seed"):
        resolve_seed(seed)


# --- keyed noise ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4, 5)])
def test_step_noise_is_keyed_normals(shape, dtype):
    ids = torch.tensor([5, 0, 2**40])
    out = torch.full((3, *shape), torch.nan, dtype=dtype)
    result = StepNoise(9, ids).fill(out, 4, 2)
    assert result is out
    assert torch.equal(out.reshape(3, -1), normals(9, ids, 4, out[0].numel(), stream=2, dtype=dtype))


def test_strides_do_not_change_the_values():
    ids = torch.arange(4)
    expected = StepNoise(9, ids).fill(torch.zeros(4, 3, 8, 8), 1)
    channels_last = torch.zeros(4, 3, 8, 8).to(memory_format=torch.channels_last)
    assert torch.equal(StepNoise(9, ids).fill(channels_last, 1), expected)
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(4, 3, 8, 16)
    StepNoise(9, ids).fill(wide[..., ::2], 1)
    assert torch.equal(wide[..., ::2], expected)
    assert not wide[..., 1::2].any()


def draw(source: NoiseSource, batch: int, step: int = 3) -> Tensor:
    return source.fill(torch.zeros(batch, 5, 7), step)


def test_a_samples_noise_does_not_depend_on_its_batch():
    ids = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:60]
    whole = draw(StepNoise(1, ids), 60)
    for size in (1, 2, 7, 16, 59):
        parts = [draw(StepNoise(1, chunk), len(chunk)) for chunk in ids.split(size)]
        assert torch.equal(torch.cat(parts), whole)


def test_the_split_check_sees_noise_of_the_batch():
    """The mutant: torch's generator, whose values depend on the calls before."""
    whole = draw(PlainNoise(1), 60)
    source = PlainNoise(1)
    assert not torch.equal(torch.cat([draw(source, 20) for _ in range(3)]), whole)


def test_calls_before_do_not_matter():
    source = StepNoise(1, torch.arange(6))
    forward = [draw(source, 6, step) for step in range(4)]
    backward = [draw(source, 6, step) for step in reversed(range(4))][::-1]
    assert all(map(torch.equal, forward, backward))
    assert not torch.equal(forward[0], forward[1])


def test_streams_of_a_step_and_the_prior_differ():
    ids = torch.arange(16)
    rows = [StepNoise(1, ids).fill(torch.zeros(16, 2000), 0, stream) for stream in (0, 1, 2)]
    rows.append(normals(1, ids, 0, 2000, stream=PRIOR_STREAM))
    stacked = torch.stack(rows).reshape(4, -1).double()
    products = stacked @ stacked.T / stacked.shape[1] ** 0.5
    assert float((products - products.diagonal().diag()).abs().max()) < 5


def test_solvers_cannot_reach_the_priors_stream():
    with pytest.raises(OptionError, match="stream"):
        StepNoise(1, torch.arange(2)).fill(torch.zeros(2, 3), 0, PRIOR_STREAM)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 4)])
@pytest.mark.parametrize("kind", ["step", "plain"])
def test_nothing_to_draw(kind, shape):
    out = torch.zeros(shape)
    assert make_noise(kind, 1, None, shape[0], "cpu").fill(out, 0) is out


@pytest.mark.parametrize(
    "out, error",
    [(torch.zeros(3, 2), ShapeError), (torch.zeros(()), InterfaceError), (torch.zeros(2, 2).long(), InterfaceError)],
)
def test_a_buffer_that_does_not_fit_is_refused(out, error):
    with pytest.raises(error, match="out"):
        StepNoise(1, torch.arange(2)).fill(out, 0)


# --- torch's generator ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_noise_is_torchs(dtype):
    generator = torch.Generator().manual_seed(12)
    expected = [torch.zeros(6, 40, dtype=dtype).normal_(generator=generator) for _ in range(2)]
    for source in (PlainNoise(12), PlainNoise(torch.Generator().manual_seed(12))):
        assert all(torch.equal(source.fill(torch.zeros(6, 40, dtype=dtype), i), expected[i]) for i in range(2))


def test_plain_noise_refuses_another_device():
    with pytest.raises(InterfaceError, match="generator on cpu"):
        PlainNoise(torch.Generator()).fill(torch.zeros(2, 3, device="meta"), 0)


@pytest.mark.parametrize("kind", ["step", "plain"])
@pytest.mark.parametrize("seed", [5, "generator", None])
def test_global_state_changes_by_the_seed_alone(kind, seed):
    given = torch.Generator().manual_seed(1) if seed == "generator" else seed
    before = global_states()
    source = make_noise(kind, given, None, 4, "cpu")
    if seed is None:
        after = torch.get_rng_state()
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        torch.randint(2**63 - 1, ())
        assert torch.equal(after, torch.get_rng_state())
        before = global_states()
    for step in range(3):
        source.fill(torch.zeros(4, 9), step)
    assert global_states() == before


# --- choosing ---


def test_names():
    assert isinstance(make_noise("step", 1, None, 3, "cpu"), StepNoise)
    assert isinstance(make_noise("plain", 1, None, 3, "cpu"), PlainNoise)
    assert repr(make_noise("step", 1, None, 3, "cpu")) == "StepNoise(seed=1, 3 sample ids)"
    by_default = make_noise("step", 1, None, 3, "cpu").fill(torch.zeros(3, 4), 0)
    assert torch.equal(by_default, normals(1, torch.arange(3), 0, 4))
    ids = torch.tensor([8, 1, 5], dtype=torch.int32)
    assert torch.equal(make_noise("step", 1, ids, 3, "cpu").fill(torch.zeros(3, 4), 0), normals(1, ids, 0, 4))


@pytest.mark.parametrize("name, near", [("stepp", "'step'"), ("Plain", "'plain'"), ("brownian", "plain, step")])
def test_an_unknown_name_suggests_near_ones(name, near):
    with pytest.raises(UnknownNameError, match=near):
        make_noise(name, 1, None, 3, "cpu")


def test_objects_and_functions_of_the_user():
    class Ones:
        def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
            return out.fill_(step + 10 * stream)

    before = global_states()
    source = StepNoise(1, torch.arange(3))
    assert make_noise(source, None, None, 3, "cpu") is source
    for noise in (Ones(), Ones().fill, lambda out, step, stream: torch.full_like(out, step + 10 * stream)):
        out = torch.zeros(3, 2)
        assert make_noise(noise, None, None, 3, "cpu").fill(out, 4, 1) is out
        assert (out == 14).all()
    assert global_states() == before
    out = torch.zeros(3, 2)
    written: list[Tensor] = []
    assert CustomNoise(lambda buffer, *_: written.append(buffer.fill_(2))).fill(out, 0) is out
    assert (out == 2).all()


@pytest.mark.parametrize(
    "returned, error",
    [
        (torch.zeros(2, 3), ShapeError),
        (torch.zeros(3, 1), ShapeError),
        (torch.zeros(3, 2).double(), InterfaceError),
        (0.0, InterfaceError),
    ],
)
def test_what_a_function_returns_is_checked(returned, error):
    with pytest.raises(error, match="noise"):
        make_noise(lambda *_: returned, None, None, 3, "cpu").fill(torch.zeros(3, 2), 0)


@pytest.mark.parametrize("noise", [None, 3, StepNoise, torch.zeros(3), object()])
def test_other_things_are_no_noise(noise):
    with pytest.raises(InterfaceError, match="fill"):
        make_noise(noise, 1, None, 3, "cpu")


@pytest.mark.parametrize(
    "ids, error",
    [(torch.arange(2), ShapeError), (torch.tensor([0, 1, -1]), OptionError), (torch.zeros(3), InterfaceError)],
)
def test_sample_ids_are_checked(ids, error):
    with pytest.raises(error, match="sample_ids"):
        make_noise("step", 1, ids, 3, "cpu")


@pytest.mark.parametrize("writes", [lambda out: None, lambda out: out[:1].zero_()], ids=["nothing", "a part"])
def test_a_function_that_leaves_numbers_as_they_were_is_caught(writes):
    """What lies in memory must not pass for noise."""
    sde = sdekit.make_sde(lambda t, x: -x, lambda t, x: 0 * x + 1)
    with pytest.raises(NonFiniteError, match="noise"):
        sdekit.solve(
            sde, torch.zeros(3, 2), [0.0, 1.0], "sriw1", steps=2, noise=lambda out, step, stream: (writes(out), None)[1]
        )
