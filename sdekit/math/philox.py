"""Counter-based random streams: Philox4x32-10 and standard normals keyed by (seed, sample id, step, stream).

Philox is a bijection of 128-bit counters under a 64-bit key (Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
as easy as 1, 2, 3", SC 2011). Here the key is the seed, and block b gives the four normals of columns 4 b to 4 b + 3
from the counter

    c0 = b        c1 = sample id, low 32 bits        c2 = sample id, high bits        c3 = stream * 2^24 + step

so that a value depends on (seed, sample id, step, stream, column) and on nothing else. Integers and the normal
transform use only operations whose result IEEE 754 fixes: + - * /, square roots and bit operations in float64, with
log, sine and cosine made of them (torch.sqrt is no such operation on a CPU, where it is MKL's). So no bit depends on
the batch, on vector or scalar code paths, on threads or on a device's mathematical library. A compiler that contracts
a * b + c (torch.compile may) can change last bits; run these functions eagerly. On a CPU large numbers of normals come
from a kernel in C, with the same bits (`sdekit.math.native`).

Four normals from four 32-bit words, by Box and Muller: radii take 2^32 values, so the distribution function is within
2^-32 of the exact one and |z| <= 6.77, beyond which the exact law has 1.3e-11. Uniforms of 53 bits would double the
time.
"""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.native import Native

__all__ = [
    "MAX_STEP",
    "NATIVE",
    "PATH_STREAM",
    "PATH_TAG",
    "PRIOR_STREAM",
    "SIMULATE_STREAM",
    "check_sample_ids",
    "check_seed",
    "fill_normals",
    "fill_path_normals",
    "normals",
    "on_host",
    "philox",
    "square_root",
]

PRIOR_STREAM = 128
"""The stream of draws from a prior. Solvers' steps use the streams below it."""
SIMULATE_STREAM = 129
"""The stream of exact simulation of a process, apart from solvers so that neither sees the other's noise."""
PATH_STREAM = 192
"""The first of the streams 192 to 251, whose steps together number the nodes of a Brownian path."""
PATH_TAG = PATH_STREAM << 24
"""What is added to a node's number to give counter word 3."""
MAX_STREAM = 255
MAX_STEP = 2**24 - 1
"""The last step that a stream can be asked for."""
MAX_SIZE = 2**34
"""The largest number of normals of one sample and step."""

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _constant(value: float) -> Tensor:
    # An operation takes a CPU tensor of no dimensions twice as fast as a Python number, on any device.
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64, device="cpu")


_WORD_MASK, _WORD_BITS = _constant(_MASK), _constant(32)
_FACTORS = _constant(_MULTIPLIERS[0]), _constant(_MULTIPLIERS[1])

# Bits of float64 values: 2^52, sqrt(1/2), all exponents, the sign, the upper 30 of the fraction, 1 + 2^-31.
_TWO_52 = _constant(0x4330000000000000)
_ROOT_HALF = _constant(0x3FE6A09E667F3BCD)
_EXPONENT = _constant(-(2**52))
_SIGN = _constant(-(2**63))
_FRACTION = _constant(0x000FFFFFFFC00000)
_ONE_PLUS_HALF_UNIT = _constant(0x3FF0000000200000)

# Chebyshev fits, highest power first, with relative errors below 1e-17: 2 atanh(s) / s in s^2 for |s| up to
# (sqrt(2) - 1) / (sqrt(2) + 1), and sin(pi/2 v) / v and cos(pi/2 v) in v^2 for |v| up to 1/2.
_LOG = tuple(
    _constant(c)
    for c in (
        0.14616449685043406,
        0.15331721600556042,
        0.18182889125261723,
        0.2222221113479508,
        0.28571428625975487,
        0.39999999999899505,
        0.666666666666667,
        2.0,
    )
)
_SINE = tuple(
    _constant(c)
    for c in (
        5.633933781537854e-08,
        -3.59864335298231e-06,
        0.0001604411507421909,
        -0.004681754132340976,
        0.07969262624604301,
        -0.6459640975062443,
        1.5707963267948966,
    )
)
_COSINE = tuple(
    _constant(c)
    for c in (
        -6.321256869628588e-09,
        4.710609726757823e-07,
        -2.520203677046026e-05,
        0.0009192602741831558,
        -0.02086348076331121,
        0.2536695079010467,
        -1.2337005501361697,
        1.0,
    )
)


def philox(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: int, k1: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four output words of Philox4x32-10 for the counter (c0, c1, c2, c3) under the key (k0, k1).

    The counters are int64 tensors that hold unsigned 32-bit words, of shapes that broadcast; so are the results.
    """
    for r in range(_ROUNDS):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, (k0 + r * _WEYL[0]) & _MASK, (k1 + r * _WEYL[1]) & _MASK)
    return c0, c1, c2, c3


def _round(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor | int, k0: int, k1: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # An int64 product wraps modulo 2^64 with the right bits; its shift smears the sign, which the mask removes.
    p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
    return ((p1 >> 32) ^ c1 ^ k0) & _MASK, p1 & _MASK, ((p0 >> 32) ^ c3 ^ k1) & _MASK, p0 & _MASK


def normals(
    seed: int,
    sample_ids: Tensor,
    step: int,
    size: int,
    *,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """(B, size) standard normals; element (i, j) depends on (seed, sample_ids[i], step, stream, j) only.

    A lower dtype holds the rounding of the float64 value. Columns do not depend on `size`.

    Args:
        seed: an integer in [0, 2^64).
        sample_ids: (B,) integers in [0, 2^63).
        step: an integer in [0, MAX_STEP].
        size: how many normals a sample gets, in [0, 2^34].
        stream: an integer in [0, 255]; different streams are independent.
        dtype: a floating dtype.
        device: where to draw them; by default where the sample ids are.

    Raises:
        OptionError: an integer out of its range, or a dtype that is not floating.
        InterfaceError, ShapeError: sample_ids is not a one-dimensional tensor of integers.
    """
    if not dtype.is_floating_point:
        raise OptionError("dtype", got=str(dtype), expected="a floating dtype", fix="Pass torch.float32, for example.")
    ids = check_sample_ids(sample_ids).to(device=device)
    columns = _integer("size", size, MAX_SIZE)
    out = torch.zeros(len(ids), columns, dtype=dtype, device=ids.device)
    return fill_normals(out, check_seed(seed), ids, step, stream=stream)


def check_seed(seed: int) -> int:
    """The seed as a Python int. Raises InterfaceError for no integer (a bool is none), OptionError out of [0, 2^64)."""
    return _integer("seed", seed, 2**64 - 1)


def check_sample_ids(sample_ids: Tensor) -> Tensor:
    """Sample ids as an int64 tensor (B,). Reads the smallest, which waits for a device; raises as `normals` does."""
    if not isinstance(sample_ids, Tensor) or sample_ids.is_floating_point() or sample_ids.is_complex():
        got = str(sample_ids.dtype) if isinstance(sample_ids, Tensor) else type(sample_ids).__name__
        raise InterfaceError(
            "sample_ids", got=got, expected="a tensor of integers", fix="Pass torch.arange(batch), for example."
        )
    if sample_ids.dim() != 1 or sample_ids.dtype == torch.bool:
        got = f"shape {tuple(sample_ids.shape)}, {sample_ids.dtype}"
        raise ShapeError("sample_ids", got=got, expected="integers of shape (B,)", fix="Pass one id for each sample.")
    ids = sample_ids.to(torch.int64)
    if len(ids) and int(ids.min()) < 0:
        raise OptionError("sample_ids", got="a negative id", expected="ids in [0, 2^63)", fix="Use non-negative ids.")
    return ids


def _integer(name: str, value: int, largest: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise InterfaceError(name, got=repr(value), expected="an integer", fix="Pass a Python int.")
    if not 0 <= number <= largest:
        raise OptionError(name, got=str(number), expected=f"an integer in [0, {largest}]", fix="Choose one of these.")
    return number


def fill_normals(out: Tensor, seed: int, sample_ids: Tensor, step: int, *, stream: int = 0) -> Tensor:
    """Overwrite `out` (B, size) with `normals(seed, sample_ids, step, size, stream=stream)` and return it.

    For callers that have checked seed and sample ids once: `sample_ids` must be int64, non-negative, (B,) and on
    out's device. Nothing is read from a device. Raises OptionError for a step or stream out of range.
    """
    step, stream = _integer("step", step, MAX_STEP), _integer("stream", stream, MAX_STREAM)
    return _fill(out, seed, sample_ids, step + (stream << 24))


def fill_path_normals(out: Tensor, seed: int, sample_ids: Tensor, nodes: Tensor) -> Tensor:
    """Overwrite `out` (B, size) with standard normals: row i is keyed by (seed, sample_ids[i], nodes[i]).

    What `sdekit.brownian` builds its paths of. Apart from those of `normals` with a stream below PATH_STREAM.

    Args:
        sample_ids, nodes: (B,) int64 on out's device, already checked: ids non-negative, nodes in [0, 2^30 - 2^26).
    """
    return _fill(out, seed, sample_ids, nodes[:, None] + PATH_TAG)


def _fill(out: Tensor, seed: int, sample_ids: Tensor, tag: int | Tensor) -> Tensor:
    """Normals for each row, with c3 = tag: one for all rows, or (B, 1)."""
    batch, size = out.shape
    if not batch or not size:
        return out
    library = NATIVE.get(out.numel()) if on_host(out) else None
    if library is not None:
        return _fill_native(library, out, seed, sample_ids, tag)
    return _fill_by_torch(out, seed, sample_ids, tag)


def on_host(out: Tensor) -> bool:
    """Whether a kernel in C may write to it: a plain tensor in this machine's memory."""
    return type(out) is Tensor and out.device.type == "cpu" and not torch.compiler.is_compiling()


def _fill_native(library: Any, out: Tensor, seed: int, sample_ids: Tensor, tag: int | Tensor) -> Tensor:
    if out.dtype not in (torch.float64, torch.float32) or (out.stride(1) != 1 and out.shape[1] > 1):
        plain = torch.zeros(out.shape, dtype=torch.float64)
        return out.copy_(_fill_native(library, plain, seed, sample_ids, tag))
    tags = torch.tensor([tag]) if isinstance(tag, int) else tag.reshape(-1).contiguous()
    ids = sample_ids.contiguous()
    function = library.sdekit_fill_64 if out.dtype == torch.float64 else library.sdekit_fill_32
    function(
        out.data_ptr(), *out.shape, out.stride(0), seed, ids.data_ptr(), tags.data_ptr(), int(not isinstance(tag, int))
    )
    return out


def _fill_by_torch(out: Tensor, seed: int, sample_ids: Tensor, tag: int | Tensor) -> Tensor:
    batch, size = out.shape
    blocks = -(-size // 4)
    rows, columns = _piece(batch, blocks, out.device)
    work = torch.zeros(10 * rows * columns, dtype=torch.int64, device=out.device)
    keys = _round_keys(seed, out.device)
    for row in range(0, batch, rows):
        ids = sample_ids[row : row + rows, None]
        c3 = tag if isinstance(tag, int) else tag[row : row + rows]
        for column in range(0, blocks, columns):
            index = torch.arange(column, min(column + columns, blocks), device=out.device)[None, :]
            shape = (5, 2, len(ids), index.shape[1])
            piece = work[: math.prod(shape)].view(shape)
            _fill_words(piece, index, ids, c3, seed, keys)
            values = _box_muller(piece, pairs=1 if size <= 2 else 2)
            target = out[row : row + rows, 4 * column : 4 * (column + columns)]
            target.copy_(values[:, : target.shape[1]])
    return out


def _piece(batch: int, blocks: int, device: torch.device) -> tuple[int, int]:
    """Rows and blocks to work on at once: what fits a core's cache, or a small share of a GPU's memory.

    2^14 blocks are also what torch leaves to one thread. Its threads would meet after each of some 130 short
    operations, which costs far more than it gains wherever a core is shared.
    """
    limit = 2**14 if device.type == "cpu" else 2**20
    columns = min(blocks, limit)
    return min(batch, max(1, limit // columns)), columns


@lru_cache(maxsize=64)
def _round_keys(seed: int, device: torch.device) -> tuple[Tensor, ...]:
    """For each round the two key words as a (2, 1, 1) tensor."""
    words = [[((seed >> 32 * i) + r * _WEYL[i]) & _MASK for i in (0, 1)] for r in range(_ROUNDS)]
    return torch.tensor(words, device=device)[:, :, None, None].unbind()


def _fill_words(
    work: Tensor, index: Tensor, ids: Tensor, tag: int | Tensor, seed: int, keys: tuple[Tensor, ...]
) -> None:
    """Philox for the blocks `index` (1, n) of the samples `ids` (r, 1) and c3 = tag, in place.

    work: (5, 2, r, n). Leaves words 0 and 2 in work[0], words 1 and 3 with wrong bits above the lowest 32 in work[1].
    The first two rounds act on rows or columns alone, up to the last xor of the second.
    """
    even, odd, product = work[:3].unbind()
    even_0, even_1 = even.unbind()
    (odd_0, odd_1), (product_0, product_1) = odd.unbind(), product.unbind()
    c0, c1, c2, c3 = _round(index, ids & _MASK, ids >> 32, tag, seed & _MASK, seed >> 32)
    k0, k1 = ((seed >> 32 * i) + _WEYL[i] & _MASK for i in (0, 1))
    p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
    torch.bitwise_xor(((p1 >> 32) ^ k0) & _MASK, c1, out=even_0)
    torch.bitwise_xor(((p0 >> 32) ^ k1) & _MASK, c3, out=even_1)
    odd_0.copy_(p1)
    odd_1.copy_(p0)
    for r in range(2, _ROUNDS):  # an even number, so that the swaps end where they began
        torch.mul(even_1, _FACTORS[1], out=product_0)
        torch.mul(even_0, _FACTORS[0], out=product_1)
        torch.bitwise_right_shift(product, _WORD_BITS, out=even)
        even.bitwise_xor_(odd).bitwise_xor_(keys[r]).bitwise_and_(_WORD_MASK)
        odd, odd_0, odd_1, product, product_0, product_1 = product, product_0, product_1, odd, odd_0, odd_1


def _box_muller(work: Tensor, pairs: int) -> Tensor:
    """Normals (r, 2 pairs n), in float64, from the words that `_fill_words` left in `work` (5, 2, r, n), in place.

    A pair of words gives R (C + S) and R (C - S), with the signs of the lowest and the next bit of the odd word. With
    U = (even word + 1/2) / 2^32 the radius is sqrt(-2 log U); with V = (k + 1/2) / 2^30, k the upper 30 bits of the odd
    word, pi/2 V is the angle in a quadrant. C and S are the cosine and sine of pi/2 (V - 1/2), so that sin(pi/2 V) =
    (C + S) / sqrt(2) and cos(pi/2 V) = (C - S) / sqrt(2), and R = sqrt(-log U).
    """
    even, odd, a, b, c = work[:, :pairs].unbind()
    _minus_log_uniform(even, a, b, c)
    _square_root(even.view(torch.float64), c.view(torch.float64))
    _sine_and_cosine(odd, b, a, even)
    radius, sine, cosine = c.view(torch.float64), b.view(torch.float64), a.view(torch.float64)
    difference = torch.sub(cosine, sine, out=even.view(torch.float64))
    total = sine.add_(cosine)
    b.bitwise_xor_(torch.bitwise_left_shift(odd, 63, out=a))
    even.bitwise_xor_(torch.bitwise_left_shift(odd, 62, out=a).bitwise_and_(_SIGN))
    rows, n = even.shape[1:]
    # odd and a are free by now and lie one behind the other
    values = work[1:3].view(torch.float64).view(-1)[: 2 * pairs * rows * n].view(rows, n, pairs, 2)
    torch.mul(radius, total, out=values[..., 0].permute(2, 0, 1))
    torch.mul(radius, difference, out=values[..., 1].permute(2, 0, 1))
    return values.view(rows, 2 * pairs * n)


def _minus_log_uniform(words: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Overwrite int64 words w in [0, 2^32) by the float64 -log((w + 1/2) / 2^32); a, b and c are scratch.

    w + 1/2 = m 2^e with m in [sqrt(1/2), sqrt(2)), by its bits, and log m = 2 atanh(s) is s times a polynomial in s^2,
    with s = (m - 1) / (m + 1).
    """
    x, p, q, r = (tensor.view(torch.float64) for tensor in (words, a, b, c))
    words.bitwise_or_(_TWO_52)
    x.sub_(2.0**52 - 0.5)  # w + 1/2, exactly
    torch.sub(words, _ROOT_HALF, out=a).bitwise_and_(_EXPONENT)  # e 2^52
    words.sub_(a)  # now x is m
    q.copy_(a).sub_(32 * 2.0**52).mul_(-math.log(2.0) / 2.0**52)  # (32 - e) log 2, exactly 0 at e = 32
    torch.add(x, 1.0, out=p)
    x.sub_(1.0).div_(p)
    torch.mul(x, x, out=p)
    _horner(p, _LOG, out=r)
    torch.sub(q, r.mul_(x), out=x)


def square_root(x: Tensor) -> Tensor:
    """Of positive float64 numbers, correctly rounded, so with the same bits in any batch and on any device."""
    return _square_root(x, torch.zeros_like(x))


def _square_root(x: Tensor, out: Tensor) -> Tensor:
    """NumPy's root on the host: torch's there is that of MKL, which IEEE 754 does not bind."""
    if x.device.type != "cpu":
        return torch.sqrt(x, out=out)
    np.sqrt(x.numpy(), out=out.numpy())
    return out


def _sine_and_cosine(words: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """Sine into a, cosine into b of pi/2 v with v = (k + 1/2) / 2^30 - 1/2, k = (word mod 2^32) // 4; c is scratch."""
    v, cosine, other = (tensor.view(torch.float64) for tensor in (a, b, c))
    torch.bitwise_left_shift(words, 20, out=a)
    a.bitwise_and_(_FRACTION).bitwise_or_(_ONE_PLUS_HALF_UNIT)
    v.sub_(1.5)
    square = torch.mul(v, v, out=other)
    _horner(square, _SINE, out=cosine)
    v.mul_(cosine)
    _horner(square, _COSINE, out=cosine)


def _horner(x: Tensor, coefficients: tuple[Tensor, ...], out: Tensor) -> None:
    """out <- coefficients[0] x^n + ... + coefficients[n]."""
    torch.mul(x, coefficients[0], out=out)
    for coefficient in coefficients[1:-1]:
        out.add_(coefficient).mul_(x)
    out.add_(coefficients[-1])


def _right(library: Any) -> bool:
    """Whether a build of the kernels gives the bits that torch's operations give here."""
    ids = torch.tensor([0, 5, 2**40 + 3])
    for seed, tag, size in ((3, 7, 1), (2**64 - 1, torch.tensor([1, 2**32 - 1, 2**31]), 1031)):
        column = tag if isinstance(tag, int) else tag[:, None]
        expected = _fill_by_torch(torch.zeros(3, size, dtype=torch.float64), seed, ids, column)
        if not torch.equal(_fill_native(library, torch.zeros_like(expected), seed, ids, tag), expected):
            return False
    return True


NATIVE = Native(_right)
"""The kernels in C, once they are worth it."""
