"""Philox against known answers and big integers; the normals' keys, bits and law."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math import philox as module
from sdekit.math.philox import (
    MAX_STEP,
    PATH_STREAM,
    PRIOR_STREAM,
    SIMULATE_STREAM,
    fill_normals,
    fill_path_normals,
    normals,
    philox,
)

MASK = 2**32 - 1
# philox4x32, 10 rounds, of the known answers of Random123: counter, key, result
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK, MASK, MASK, MASK), (MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
SEED = 0x123456789ABCDEF0
IDS = torch.tensor([0, 1, 5, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1])


def words(*values: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([v]) for v in values)


def big_int_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The same in Python's integers, written from the definition."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def known_answers_hold() -> bool:
    results = [tuple(int(w) for w in philox(*words(*c), *k)) for c, k, _ in KNOWN]  # type: ignore[call-arg]
    return results == [answer for _, _, answer in KNOWN]


def test_known_answers():
    assert known_answers_hold()
    assert [big_int_philox(c, k) for c, k, _ in KNOWN] == [answer for _, _, answer in KNOWN]


@pytest.mark.parametrize(
    "name, value",
    [
        ("_WEYL", (0x9E3779B9, 0xBB67AE86)),
        ("_WEYL", (0xBB67AE85, 0x9E3779B9)),
        ("_MULTIPLIERS", (0xCD9E8D57, 0xD2511F53)),
        ("_ROUNDS", 9),
    ],
)
def test_a_wrong_constant_fails_the_known_answers(monkeypatch, name, value):
    monkeypatch.setattr(module, name, value)
    assert not known_answers_hold()


@pytest.fixture(autouse=True)
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PyTorch code, whose parts can be replaced; tests/math/test_native.py compares kernels in C with it."""
    monkeypatch.setattr(module.NATIVE, "get", lambda numbers: None)


word = st.integers(0, MASK)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_philox_is_the_big_integer_one(counter, key):
    assert tuple(int(w) for w in philox(*words(*counter), *key)) == big_int_philox(counter, key)  # type: ignore[call-arg]


# --- the normals, number by number ---


def scalar_normals(key: tuple[int, int, int, int], size: int, log: Callable, sincos: Callable, root: Callable) -> list:
    """Box-Muller for (seed, sample id, step, stream) from the layout that the module documents, on Python numbers."""
    seed, sample, step, stream = key
    values: list = []
    for block in range(-(-size // 4)):
        counter = (block, sample & MASK, sample >> 32, (stream << 24) + step)
        w = big_int_philox(counter, (seed & MASK, seed >> 32))
        for even, odd in ((w[0], w[1]), (w[2], w[3])):
            radius = root(-log(even))
            sine, cosine = sincos(odd // 4)
            values.append(radius * (cosine + sine) * (-1 if odd & 1 else 1))
            values.append(radius * (cosine - sine) * (-1 if odd & 2 else 1))
    return values[:size]


def float_log(w: int) -> float:
    """log((w + 1/2) / 2^32) by + - * / on Python's floats: as IEEE 754 has them, and never fused."""
    m, e = math.frexp(w + 0.5)
    if m < math.sqrt(0.5):
        m, e = 2 * m, e - 1
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 0.14616449685043406
    for c in (0.15331721600556042, 0.18182889125261723, 0.2222221113479508, 0.28571428625975487):
        p = p * z + c
    for c in (0.39999999999899505, 0.666666666666667, 2.0):
        p = p * z + c
    return p * s - (e - 32.0) * -math.log(2.0)


def float_sincos(k: int) -> tuple[float, float]:
    v = (k + 0.5) / 2**30 - 0.5
    z = v * v
    p = 5.633933781537854e-08
    for c in (-3.59864335298231e-06, 0.0001604411507421909, -0.004681754132340976, 0.07969262624604301):
        p = p * z + c
    for c in (-0.6459640975062443, 1.5707963267948966):
        p = p * z + c
    q = -6.321256869628588e-09
    for c in (4.710609726757823e-07, -2.520203677046026e-05, 0.0009192602741831558, -0.02086348076331121):
        q = q * z + c
    for c in (0.2536695079010467, -1.2337005501361697, 1.0):
        q = q * z + c
    return v * p, q


def mp_log(w: int) -> mpmath.mpf:
    return mpmath.log((w + mpmath.mpf("0.5")) / 2**32)


def mp_sincos(k: int) -> tuple[mpmath.mpf, mpmath.mpf]:
    angle = mpmath.pi / 2 * ((k + mpmath.mpf("0.5")) / 2**30 - mpmath.mpf("0.5"))
    return mpmath.sin(angle), mpmath.cos(angle)


CASES = [(0, 0, 0), (SEED, 77, 3), (2**64 - 1, MAX_STEP, 255)]


@pytest.mark.parametrize("seed, step, stream", CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 41])
def test_every_bit_follows_from_ieee_arithmetic(seed, step, stream, size):
    """Python's floats give the same bits, so no platform's log, cosine or fused multiplication is in them."""
    keys = [(seed, int(i), step, stream) for i in IDS]
    expected = [scalar_normals(key, size, float_log, float_sincos, math.sqrt) for key in keys]
    result = normals(seed, IDS, step, size, stream=stream, dtype=torch.float64)
    assert torch.equal(result, torch.tensor(expected, dtype=torch.float64))


def library_log(words_: Tensor, *_: Tensor) -> None:
    words_.view(torch.float64).copy_(-torch.log((words_.double() + 0.5) / 2**32))


def library_root(x: Tensor, out: Tensor) -> Tensor:
    return out.copy_(x.pow(0.25).square())


@pytest.mark.parametrize("name, mutant", [("_minus_log_uniform", library_log), ("_square_root", library_root)])
def test_the_bit_check_sees_a_library_function(monkeypatch, name, mutant):
    """The mutants are as accurate, but their bits are those of one platform."""
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(AssertionError):
        test_every_bit_follows_from_ieee_arithmetic(SEED, 77, 3, 4001)
    test_values_are_those_of_box_and_muller_to_rounding()


def test_values_are_those_of_box_and_muller_to_rounding():
    with mpmath.workdps(40):
        exact = [scalar_normals((SEED, int(i), 9, 1), 400, mp_log, mp_sincos, mpmath.sqrt) for i in IDS]
        expected = [list(map(float, row)) for row in exact]
    result = normals(SEED, IDS, 9, 400, stream=1, dtype=torch.float64)
    assert float((result - torch.tensor(expected, dtype=torch.float64)).abs().max()) < 2e-15


def transformed(even: int, odd: int) -> list[float]:
    """The pair of normals that the module makes of two words."""
    work = torch.zeros(5, 2, 1, 1, dtype=torch.int64)
    work[0], work[1] = even, odd
    return module._box_muller(work, 1)[0].tolist()


@pytest.mark.parametrize("even", [0, 1, 2**31 - 1, 2**31, 3037000499, 3037000500, MASK - 1, MASK])
@pytest.mark.parametrize("odd", [0, 3, 4, 2**31, MASK - 3, MASK, -1])
def test_extreme_words(even, odd):
    """The tails, the middle, both sides of the splits, and odd words with wrong bits above the lowest 32."""
    with mpmath.workdps(40):
        sine, cosine = mp_sincos((odd & MASK) // 4)
        radius = mpmath.sqrt(-mp_log(even))
        exact = [radius * (cosine + sine) * (-1) ** (odd & 1), radius * (cosine - sine) * (-1) ** (odd >> 1 & 1)]
        errors = [abs(mpmath.mpf(x) - y) for x, y in zip(transformed(even, odd), exact, strict=True)]
    assert float(max(errors)) < 2e-15
    assert float(radius * mpmath.sqrt(2)) <= 6.77


# --- what a value depends on ---


def test_chunks_of_any_size_give_the_same_bits():
    ids = torch.arange(333) * 7
    whole = normals(SEED, ids, 3, 37)
    for size in (*range(1, 20), 31, 64, 100, 127, 332, 333):
        parts = torch.cat([normals(SEED, chunk, 3, 37) for chunk in ids.split(size)])
        assert torch.equal(parts, whole), size


def test_order_and_repetition_of_samples():
    ids = torch.arange(200)
    whole = normals(SEED, ids, 3, 21)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normals(SEED, ids[order], 3, 21), whole[order])
    assert torch.equal(normals(SEED, torch.tensor([4, 4]), 3, 21), whole[[4, 4]])


@pytest.mark.parametrize("piece", [(1, 1), (2, 3), (3, 2), (7, 5), (1000, 1)])
def test_pieces_of_any_shape_give_the_same_bits(monkeypatch, piece):
    whole = normals(SEED, IDS, 3, 83, dtype=torch.float64)
    monkeypatch.setattr(module, "_piece", lambda *_: piece)
    assert torch.equal(normals(SEED, IDS, 3, 83, dtype=torch.float64), whole)


@pytest.mark.parametrize("batch, size", [(1, 70_001), (3, 66_000), (20_001, 5), (17_001, 1)])
def test_more_than_one_piece(batch, size):
    """Sizes past the work buffer, whose last piece is smaller."""
    whole = normals(1, torch.arange(batch), 0, size)
    rows = torch.tensor([0, batch // 2, batch - 1])
    assert torch.equal(normals(1, rows, 0, size), whole[rows])
    assert torch.equal(normals(1, torch.arange(batch), 0, size // 2 + 1), whole[:, : size // 2 + 1])


def test_columns_do_not_depend_on_the_size():
    whole = normals(SEED, IDS, 3, 333, dtype=torch.float64)
    for size in (*range(1, 20), 50, 127, 332):
        assert torch.equal(normals(SEED, IDS, 3, size, dtype=torch.float64), whole[:, :size]), size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_dtypes_are_rounded(dtype):
    exact = normals(SEED, IDS, 3, 1001, dtype=torch.float64)
    assert torch.equal(normals(SEED, IDS, 3, 1001, dtype=dtype), exact.to(dtype))


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_threads_do_not_matter(threads):
    before = torch.get_num_threads()
    whole = normals(SEED, torch.arange(18), 3, 5001)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(normals(SEED, torch.arange(18), 3, 5001), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_another_process_draws_the_same():
    script = "import torch; from sdekit.math.philox import normals; torch.set_num_threads(3)\n"
    script += "print(normals(5, torch.arange(9), 2, 11, dtype=torch.float64).flatten().tolist())"
    out = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, check=True
    )
    assert out.stdout.decode().strip() == str(
        normals(5, torch.arange(9), 2, 11, dtype=torch.float64).flatten().tolist()
    )


@pytest.mark.cuda
def test_cuda_draws_the_same_bits():
    for batch, size in ((1, 1), (3, 2), (7, 1001), (300, 5000)):
        host = normals(SEED, torch.arange(batch), 3, size, dtype=torch.float64)
        device = normals(SEED, torch.arange(batch), 3, size, dtype=torch.float64, device="cuda")
        assert torch.equal(device.cpu(), host)


def test_global_generators_are_not_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    normals(SEED, IDS, 3, 50)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


def test_each_part_of_the_key_matters():
    base = {"seed": 3, "sample_ids": torch.tensor([4]), "step": 5, "size": 64, "stream": 6}
    changes = [
        *({"seed": 3 + 2**k} for k in (2, 31, 32, 63)),
        *({"sample_ids": torch.tensor([4 + 2**k])} for k in (0, 31, 32, 62)),
        *({"step": 5 + 2**k} for k in (1, 23)),
        *({"stream": 6 + 2**k} for k in (0, 7)),
        {},
    ]
    rows = torch.cat([normals(**{**base, **change}) for change in changes])
    assert len(rows.flatten().unique()) >= rows.numel() - 1  # every value is another


def test_fill_writes_into_strided_memory():
    whole = torch.zeros(len(IDS), 40)
    fill_normals(whole[:, 5:36], SEED, IDS, 3)
    assert torch.equal(whole[:, 5:36], normals(SEED, IDS, 3, 31))
    assert not whole[:, :5].any()
    assert not whole[:, 36:].any()


@pytest.mark.parametrize("batch, size", [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_draw(batch, size):
    assert normals(1, torch.arange(batch), 0, size).shape == (batch, size)


# --- the law ---

SIGMAS = 5.0  # a standardised statistic beyond it has probability 6e-7; there are some 10^4 of them below


def largest_correlation(rows: Tensor) -> float:
    """The largest standardised correlation between two different rows (n, m) of independent normals."""
    products = rows @ rows.T / math.sqrt(rows.shape[1])
    return float((products - torch.diag(products.diagonal())).abs().max())


def family(kind: str) -> Tensor:
    """64 rows of 4096 normals that differ in one part of the key, by small and by large steps."""
    changes = [*range(48), *(2**k for k in range(6, 22))]
    arguments = {"seed": 11, "sample_ids": torch.tensor([3]), "step": 2, "stream": 0}
    name = {"seed": "seed", "sample": "sample_ids", "step": "step", "stream": "stream"}[kind]
    if kind == "stream":
        changes = [*range(62), PRIOR_STREAM, SIMULATE_STREAM]
    values = [{name: torch.tensor([c]) if kind == "sample" else c} for c in changes]
    return torch.cat([normals(**{**arguments, **v}, size=4096, dtype=torch.float64) for v in values])


@pytest.mark.parametrize("kind", ["seed", "sample", "step", "stream"])
def test_rows_are_uncorrelated(kind):
    rows = family(kind)
    assert largest_correlation(rows) < SIGMAS
    assert largest_correlation((rows**2 - 1) / math.sqrt(2)) < SIGMAS + 1  # squares: heavier tails


def test_columns_are_uncorrelated():
    """Neighbours share a block of words and a radius of Box and Muller: the squares would show it."""
    columns = normals(11, torch.arange(40_000), 2, 12, dtype=torch.float64).T
    assert largest_correlation(columns) < SIGMAS
    assert largest_correlation((columns**2 - 1) / math.sqrt(2)) < SIGMAS
    assert largest_correlation((columns**3) / math.sqrt(15)) < SIGMAS


def test_the_correlation_check_sees_a_shared_stream(monkeypatch):
    """The mutant draws the prior from the stream of the steps."""
    monkeypatch.setattr(sys.modules[__name__], "PRIOR_STREAM", 0)
    assert largest_correlation(family("stream")) > 10 * SIGMAS


def test_the_correlation_check_sees_an_ignored_word(monkeypatch):
    """The mutant drops the high word of the sample id from the counter."""
    monkeypatch.setattr(module, "_fill_words", without_high_word(module._fill_words))
    rows = normals(1, torch.tensor([3, 3 + 2**32]), 0, 4096, dtype=torch.float64)
    assert largest_correlation(rows) > SIGMAS


def without_high_word(original: Callable[..., None]) -> Callable[..., None]:
    return lambda work, index, ids, *rest: original(work, index, ids & MASK, *rest)


@pytest.mark.parametrize("sample_ids, size", [(torch.arange(4), 100_000), (torch.arange(200_000), 2)])
def test_the_law_is_standard_normal(sample_ids, size):
    x = normals(2024, sample_ids, 7, size, dtype=torch.float64).flatten()
    n = len(x)
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float((x**power).mean()) - moment) < SIGMAS * math.sqrt(variance / n)
    for bound in (3.0, 3.5, 4.0):  # the tails, where a short uniform would show
        expected = n * math.erfc(bound / math.sqrt(2))
        assert abs(int((x.abs() > bound).sum()) - expected) < SIGMAS * math.sqrt(expected)


def test_the_law_check_sees_a_wrong_radius(monkeypatch):
    """The mutant's radius is 1 % too large."""
    original = module._minus_log_uniform

    def scaled(words_: Tensor, *scratch: Tensor) -> None:
        original(words_, *scratch)
        words_.view(torch.float64).mul_(1.01**2)

    monkeypatch.setattr(module, "_minus_log_uniform", scaled)
    x = normals(2024, torch.arange(4), 7, 100_000, dtype=torch.float64).flatten()
    assert stats.kstest(x.numpy(), "norm").pvalue < 1e-3


# --- what is refused ---


@pytest.mark.parametrize(
    "change, error",
    [
        ({"seed": -1}, OptionError),
        ({"seed": 2**64}, OptionError),
        ({"seed": True}, InterfaceError),
        ({"seed": 1.0}, InterfaceError),
        ({"seed": None}, InterfaceError),
        ({"step": -1}, OptionError),
        ({"step": MAX_STEP + 1}, OptionError),
        ({"step": 0.5}, InterfaceError),
        ({"stream": 256}, OptionError),
        ({"stream": -1}, OptionError),
        ({"size": -1}, OptionError),
        ({"size": 2**34 + 1}, OptionError),
        ({"sample_ids": torch.tensor([0, -1])}, OptionError),
        ({"sample_ids": torch.tensor([0.0])}, InterfaceError),
        ({"sample_ids": [0, 1]}, InterfaceError),
        ({"sample_ids": torch.tensor(0)}, ShapeError),
        ({"sample_ids": torch.tensor([[0]])}, ShapeError),
        ({"sample_ids": torch.tensor([True])}, ShapeError),
        ({"dtype": torch.int64}, OptionError),
    ],
)
def test_arguments_out_of_range_are_refused(change, error):
    arguments = {"seed": 0, "sample_ids": torch.arange(2), "step": 0, "size": 3}
    with pytest.raises(error, match=next(iter(change))):
        normals(**{**arguments, **change})


def test_integers_of_other_libraries_are_taken():
    expected = normals(5, torch.arange(2), 3, 4)
    assert torch.equal(normals(np.int64(5), torch.arange(2, dtype=torch.int32), np.uint8(3), 4), expected)


@pytest.mark.parametrize("size", [1, 2, 7, 5000])
def test_nodes_of_a_path_number_the_steps_of_the_streams_above(size):
    """Each row with a node of its own; rows of large samples are worked on in pieces."""
    nodes = torch.tensor([0, 1, 2**24 - 1, 2**24, 2**29 + 77, 2**30 - 2**26 - 1])
    ids = torch.tensor([5, 0, 2**40, 5, 1, 2**62])
    out = fill_path_normals(torch.zeros(6, size, dtype=torch.float64), SEED, ids, nodes)
    for row, (node, sample) in enumerate(zip(nodes.tolist(), ids, strict=True)):
        stream, step = PATH_STREAM + node // 2**24, node % 2**24
        assert torch.equal(out[row], normals(SEED, sample[None], step, size, stream=stream, dtype=torch.float64)[0])
