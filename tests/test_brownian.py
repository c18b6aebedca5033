"""One Brownian path: exact laws, merges, order of queries, direction, batches, and what is refused.

The law of a path is exact where the weights of its normals have the covariance of B and its integral: that is computed.
That the normals are those of the right nodes is seen through 8 coordinates of 800 samples. Bridges that are wrong in
one weight or in one node, and noise drawn anew, are the mutants that these tests must reject.
"""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sdekit
from sdekit import brownian
from sdekit.brownian import LEVELS, BrownianPath
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math import dyadic
from sdekit.noise import PathNoise, StepNoise, make_noise

POINTS = [-2.9, -0.31, -1e-3, 0.0, 1e-30, 0.2, 0.31, 0.33, 0.5, 0.5001, 0.7, 1.0, 1.3, 300.0]
COUNT = 6400  # normals seen in each statistic
NOISE = 5 / math.sqrt(COUNT)


def path(seed=3, batch=800, size=8, moments=2):
    return BrownianPath(seed, torch.arange(batch), size, moments)


def standardised(p, points):
    """The normals of each interval between consecutive points, W, H and K in turn: (moments (n - 1), COUNT)."""
    return torch.cat([torch.stack(p.normals(s, t)).flatten(1) for s, t in itertools.pairwise(points)])


def merged(s, u, t, first, second) -> Any:
    """Chen's relation: W, H and, where they are given, K over [s, t] from those over [s, u] and [u, t]."""
    (w1, h1, *k1), (w2, h2, *k2), p, q = first, second, (u - s) / (t - s), (t - u) / (t - s)
    w, h = w1 + w2, p * h1 + q * h2 + (q * w1 - p * w2) / 2
    if not k1:
        return w, h
    k = p * p * k1[0] + q * q * k2[0] + p * q * (h1 - h2) / 2 + (p - q) * (p * w2 - q * w1) / 12
    return w, h, k


# --- law ---


def deviations(z):
    """How far means are from 0 and covariances from those of independent normals, in units of their noise."""
    covariance = z @ z.T / z.shape[1]
    off = covariance - torch.eye(len(z), dtype=z.dtype)
    return max(float(z.mean(1).abs().max()), float(off.abs().max()) / math.sqrt(2)) / NOISE


@pytest.mark.parametrize("moments", [2, 3])
def test_increments_and_areas_of_disjoint_intervals_are_independent_normals(moments):
    z = standardised(path(moments=moments), POINTS)
    assert deviations(z) < 1
    sorted_z = z.sort(1).values
    uniform = 0.5 * (1 + torch.erf(sorted_z / math.sqrt(2)))
    ranks = (torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT
    assert float((uniform - ranks).abs().max()) * math.sqrt(COUNT) < 2.2  # Kolmogorov: 1e-4 for one of them


def test_increments_and_areas_from_zero_have_the_covariance_of_integrals():
    """Cov(B_s, B_t) = min(s, t), and B with its running mean, for points in one octave and in several."""
    p, times = path(5), [0.26, 0.4, 0.49999, 0.9, 1.7]
    values = []
    for t in times:
        w, h = p.increment(0.0, t)
        values += [w.reshape(-1), (h + w / 2).reshape(-1) * t]
    z = torch.stack(values)

    def exact(i, j):  # of B_s or its integral with B_t or its integral
        (s, a), (t, b) = sorted([(times[i // 2], i % 2), (times[j // 2], j % 2)])
        if (a, b) == (0, 0):
            return s
        if (a, b) == (1, 0):
            return s * s / 2
        return s * t - s * s / 2 if (a, b) == (0, 1) else s * s * t / 2 - s**3 / 6

    expected = torch.tensor([[exact(i, j) for j in range(len(z))] for i in range(len(z))], dtype=torch.float64)
    scale = expected.diagonal().sqrt()
    difference = (z @ z.T / COUNT - expected) / (scale[:, None] * scale)
    assert float(difference.abs().max()) < math.sqrt(2) * NOISE


def reordered(nodes_of):
    """Nodes of another tree for the octaves themselves."""

    def mutant(*args):
        nodes, weights = nodes_of(*args)
        return torch.cat([nodes[..., :1] ^ (1 << 21), nodes[..., 1:]], -1), weights

    return mutant


MUTANTS = {
    "a bridge that forgets the area": (dyadic, "halving", lambda f: lambda x, n: f(x, n) * torch.eye(n)[-1][:, None]),
    "nodes of another tree": (brownian, "branch", reordered),
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("moments", [2, 3])
def test_the_drawn_law_rejects_a_wrong_bridge(mutant, moments, monkeypatch):
    module, name, change = MUTANTS[mutant]
    monkeypatch.setattr(module, name, change(getattr(module, name)))
    assert deviations(standardised(path(moments=moments), POINTS)) > 2


# --- one path ---


@pytest.mark.parametrize(
    "s, u, t",
    [
        (0.3, 0.4, 0.7),
        (0.5, 0.75, 1.0),
        (0.01, 0.4, 700.0),
        (0.0, 0.4, 0.7),
        (-1.0, 0.4, 0.7),
        (-1.0, -0.3, 0.7),
        (-2.0, 0.0, 3.0),
        (-5.0, -0.3, -0.2),
        (0.3, 0.3001, 0.3002),
        (1e-35, 1e-9, 5.0),
        (1e20, 2e20, 9e60),
        (1000.0, 1000.5, 1001.0),
    ],
)
@pytest.mark.parametrize("moments", [2, 3])
def test_increments_merge(s, u, t, moments):
    p = path(batch=50, moments=moments)
    whole, parts = p.increment(s, t), merged(s, u, t, p.increment(s, u), p.increment(u, t))
    # B and its integrals are held relative to the start of an octave.
    scale = math.sqrt(t - s) * max(1.0, (max(abs(s), abs(t)) / (t - s)) ** 2.5 / 1e4)
    assert all(float((a - b).abs().max()) < 1e-12 * scale for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("moments", [2, 3])
@given(times=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3, unique=True), mirrored=st.booleans())
def test_increments_merge_anywhere(moments, times, mirrored):
    s, u, t = sorted(-v if mirrored else v for v in times)
    scale = max(abs(s), abs(t))
    if min(u - s, t - u) < scale * 2.0 ** (1 - LEVELS):
        return
    p = path(batch=3, size=2, moments=moments)
    whole, parts = p.increment(s, t), merged(s, u, t, p.increment(s, u), p.increment(u, t))
    # B and its integrals are held relative to the start of an octave.
    near, far = scale / (t - s), scale / min(u - s, t - u)
    bound = 1e-13 * math.sqrt(t - s) * max(1.0, near ** (moments - 0.5), far ** (moments - 1.5))
    assert all(float((a - b).abs().max()) < bound for a, b in zip(whole, parts, strict=True))


def test_the_merge_of_k_sees_a_wrong_sign():
    p = path(batch=50, moments=3)
    (w, h, k), second = p.increment(0.2, 0.4), p.increment(0.4, 0.7)
    assert float((merged(0.2, 0.4, 0.7, (w, h, -k), second)[2] - p.increment(0.2, 0.7)[2]).abs().max()) > 1e-3


def test_the_merge_rejects_noise_drawn_anew():
    noise = [StepNoise(1, torch.arange(50)).fill(torch.zeros(50, 8, dtype=torch.float64), k) for k in range(3)]
    w, _ = merged(0, 1, 2, (noise[0], noise[0]), (noise[1], noise[1]))
    assert float((w - math.sqrt(2) * noise[2]).abs().max()) > 1


def test_the_order_of_queries_does_not_matter():
    intervals = list(itertools.permutations([-2.9, -1e-3, 0.0, 1e-30, 0.31, 0.33, 0.5, 1.3, 300.0], 2))
    first, again = path(batch=4), path(batch=4)
    expected = {pair: torch.stack(first.normals(*pair)) for pair in intervals}
    order = torch.randperm(len(intervals), generator=torch.Generator().manual_seed(0)).tolist()
    for k in order:
        assert torch.equal(torch.stack(again.normals(*intervals[k])), expected[intervals[k]])
        fresh = path(batch=4)
        assert k % 10 or torch.equal(torch.stack(fresh.normals(*intervals[k])), expected[intervals[k]])


def test_a_point_next_to_the_last_one_is_another_point():
    """What is remembered of the last interval is used for its very ends only."""
    near = math.nextafter(0.7, 1)
    p = path(batch=4)
    p.normals(0.3, 0.7)
    assert torch.equal(torch.stack(p.normals(near, 1.9)), torch.stack(path(batch=4).normals(near, 1.9)))


def asked(monkeypatch):
    """The times that paths evaluate from now on."""
    times = []
    branch = brownian.branch
    monkeypatch.setattr(brownian, "branch", lambda t, *rest: times.extend(t.tolist()) or branch(t, *rest))
    return times


@pytest.mark.parametrize("times", [[0.3, 0.5, 0.9, 1.7], [1.7, 0.9, 0.5, 0.3], [-0.9, -0.5, 0.4, 0.8]])
def test_a_walk_evaluates_each_point_once(times, monkeypatch):
    found = asked(monkeypatch)
    p = path(batch=2)
    for s, t in itertools.pairwise(times):
        p.normals(s, t)
    assert sorted(found) == sorted(map(abs, times))


@pytest.mark.parametrize("s, t", [(0.3, 0.7), (-0.3, 0.7), (-3.0, -0.2)])
def test_backwards_w_and_k_change_sign_and_h_does_not(s, t):
    """And all are what their definitions say, backwards, by sums over a fine grid."""
    p, n = path(batch=5, moments=3), 100
    (w, h, k), back = p.increment(s, t), p.increment(t, s)
    assert torch.equal(back[0], -w) and torch.equal(back[1], h) and torch.equal(back[2], -k)
    along = [torch.zeros_like(w)] + [p.increment(t, t + (s - t) * i / n)[0] for i in range(1, n + 1)]
    bridge = [v - i / n * back[0] for i, v in enumerate(along)]
    mean = sum(0.5 * (a + b) for a, b in itertools.pairwise(bridge)) / n
    moment = sum((0.5 - i / n) * v for i, v in enumerate(bridge)) / n
    noise = math.sqrt(abs(t - s) / 12) / n
    assert float((mean - back[1]).abs().max()) < 4 * noise
    assert float((moment - back[2]).abs().max()) < 4 * noise


def test_memory_and_depth_do_not_grow():
    """After many queries a path holds the ends of the last, and needs a few frames of Python's stack."""
    p = path(batch=4, size=3, moments=3)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        for k in range(1, 30):
            p.increment(k / 201, (k + 1) / 201)
            p.increment(torch.full((4,), k / 201).double(), torch.full((4,), 3.0).double())
    finally:
        sys.setrecursionlimit(limit)
    held = sum(
        v.untyped_storage().nbytes()
        for v in {id(v._base if v._base is not None else v): v for v in held_by(p)}.values()
    )
    assert held <= 8 * (4 * 3) * (2 * 2 * 3) + 1000


def held_by(p):
    """The tensors of a path."""
    return [*p._ends.values(), *(p._last or ())]


def test_rows_of_a_batch_ignore_each_other():
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(0))[:13]
    whole = torch.stack(BrownianPath(1, ids, 5).normals(0.2, 1.7))
    for size in (1, 2, 8, 12):
        parts = [torch.stack(BrownianPath(1, chunk, 5).normals(0.2, 1.7)) for chunk in ids.split(size)]
        assert torch.equal(torch.cat(parts, 1), whole)
    wide = torch.stack(BrownianPath(1, ids, 2000).normals(0.2, 1.7))
    assert torch.equal(wide[..., :5], whole)


def test_seeds_and_ids_are_other_paths():
    a = torch.stack(path(1, 10).normals(0.2, 0.7))
    assert not bool((a == torch.stack(path(2, 10).normals(0.2, 0.7))).any())
    assert len({float(v) for v in a.flatten()}) == a.numel()
    repeated = torch.stack(BrownianPath(1, torch.tensor([4, 4]), 3).normals(0.2, 0.7))
    assert torch.equal(repeated[:, 0], repeated[:, 1])


@pytest.mark.parametrize(
    "s, t, match",
    [
        (0.1, math.inf, "between"),
        (math.nan, 0.1, "between"),
        (0.1, brownian.LARGEST, "between"),
        (-(2.0**224), 0.1, "between"),
        (0.3, 0.3, "farther apart"),
        (0.3, 0.3 + 1e-9, "farther apart"),
        (-0.3, -0.3 - 1e-9, "farther apart"),
    ],
)
def test_what_a_path_cannot_answer_is_refused(s, t, match):
    for pair in ((s, t), (t, s)):
        with pytest.raises(OptionError, match=match):
            path(batch=2).increment(*pair)


# --- times of each sample ---


def each(pairs):
    """Their ends as tensors."""
    return [torch.tensor(v, dtype=torch.float64) for v in zip(*pairs, strict=True)]


@pytest.mark.parametrize("moments", [2, 3])
def test_a_sample_at_its_own_times_has_the_bits_of_all_at_one(moments):
    pairs = list(itertools.permutations(POINTS, 2))
    p, (s, t) = path(batch=len(pairs), size=3, moments=moments), each(pairs)
    found = p.increment(s, t)
    for k in range(0, len(pairs), 3):
        alone = BrownianPath(3, torch.tensor([k]), 3, moments).increment(*pairs[k])
        assert all(torch.equal(v[k : k + 1], w) for v, w in zip(found, alone, strict=True)), pairs[k]
    # again, backwards, and mixed with a time of all
    assert all(map(torch.equal, p.increment(s, t), found))
    back = p.increment(t, s)
    assert all(torch.equal(v, w if k == 1 else -w) for k, (v, w) in enumerate(zip(back, found, strict=True)))
    later = s + 1000
    fresh = path(batch=len(pairs), size=3, moments=moments)
    assert all(map(torch.equal, p.increment(later, 1.5), fresh.increment(later, torch.full_like(s, 1.5))))


def test_rows_that_are_left_of_a_batch():
    """Steps of rows that go their own way, are repeated shorter, and drop out, against fresh paths."""
    p = path(batch=12, size=2)
    generator = torch.Generator().manual_seed(0)
    rows, at = torch.arange(12), torch.full((12,), 0.25, dtype=torch.float64)
    while len(rows):
        h = 0.3 * torch.rand(len(rows), generator=generator, dtype=torch.float64) + 0.01
        p.increment(at, at + h, rows)  # rejected
        taken = torch.where(torch.rand(len(rows), generator=generator) < 0.5, h, h / 2)
        found = p.increment(at, at + taken, rows)
        fresh = path(batch=12, size=2).increment(at, at + taken, rows)
        assert all(map(torch.equal, found, fresh))
        at = at + taken
        rows, at = rows[at < 1.2], at[at < 1.2]


def test_a_step_of_each_sample_draws_what_is_new_only(monkeypatch):
    found = asked(monkeypatch)
    p, (s, t) = path(batch=3, size=2), each([(0.3, 0.4), (0.3, 0.5), (0.6, 0.4)])
    p.increment(s, t)
    assert len(found) == 6
    found.clear()
    p.increment(t, t + 0.1)  # accepted by all
    assert found == (t + 0.1).tolist()
    found.clear()
    middle = torch.stack([t[0] + 0.05, t[1] + 0.2, t[2] + 0.05])
    p.increment(torch.stack([t[0], t[1] + 0.1, t[2]]), middle)  # rejected, accepted, rejected
    assert found == middle.tolist()


@pytest.mark.parametrize(
    "s, t, rows, error",
    [
        ([0.1, 0.2], [0.3, 0.2], None, OptionError),
        ([0.1, 0.2], [0.3, 0.2 + 1e-9], None, OptionError),
        ([0.1, math.nan], [0.3, 0.4], None, OptionError),
        ([0.1, 0.2], [0.3, math.inf], None, OptionError),
        ([0.1, 0.2], [0.3], None, ShapeError),
        ([0.1, 0.2], [0.3, 0.4], [1], ShapeError),
    ],
)
def test_times_of_samples_that_are_refused(s, t, rows, error):
    p = path(batch=2)
    with pytest.raises(error, match=r"times|s:|t:"):
        p.increment(
            torch.tensor(s, dtype=torch.float64), torch.tensor(t, dtype=torch.float64), rows and torch.tensor(rows)
        )
    with pytest.raises(InterfaceError, match="float64"):
        p.increment(torch.tensor([0.1, 0.2]), 0.7)
    with pytest.raises(OptionError, match="moments"):
        path(batch=2, moments=4)


def test_what_is_no_size_time_or_row_is_refused():
    ids = torch.arange(2)
    wrong: Any
    for wrong in (-1, 1.5, "a", None, True):
        with pytest.raises((OptionError, InterfaceError), match="size: got"):
            BrownianPath(0, ids, wrong)
    p, at = path(batch=2), torch.tensor([0.1, 0.2], dtype=torch.float64)
    for wrong in ("a", None, True, 1j):
        for s, t, name in ((wrong, 1.0, "s"), (1.0, wrong, "t"), (at, wrong, "t")):
            with pytest.raises(InterfaceError, match=f"{name}: got"):
                p.increment(s, t)
        with pytest.raises(InterfaceError, match="s: got"):
            p.normals(wrong, 1.0)
    for wrong in (torch.tensor([2]), torch.tensor([0.5]), "a"):
        with pytest.raises(OptionError, match="rows: got"):
            p.increment(0.1, 0.2, wrong)


def test_nothing_to_draw():
    assert torch.stack(path(batch=0).normals(0.1, 0.2)).shape == (2, 0, 8)
    assert torch.stack(path(batch=3, size=0).normals(0.1, 0.2)).shape == (2, 3, 0)


# --- as the noise of a solve ---


def model():
    return sdekit.targets.ring().under(sdekit.VP())


def start(batch=6):
    return torch.linspace(-1, 1, 2 * batch, dtype=torch.float64).reshape(batch, 2)


def test_streams_are_the_increment_and_the_area():
    noise = make_noise("path", 7, None, 3, "cpu", [0.9, 0.4, 0.1])
    w, n = BrownianPath(7, torch.arange(3), 4).normals(0.4, 0.1)
    for stream, expected in ((0, w), (1, n)):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            out = torch.zeros(3, 2, 2, dtype=dtype)
            assert noise.fill(out, 1, stream) is out
            assert torch.equal(out, expected.reshape(3, 2, 2).to(dtype))
    wide = torch.zeros(3, 4, 2)
    noise.fill(wide[..., 0], 1, 0)
    assert torch.equal(wide[..., 0], w.float()) and not wide[..., 1].any()
    assert repr(noise) == "PathNoise(seed=7, 3 sample ids, 3 clock values)"


@pytest.mark.parametrize("moments", [2, 3])
@pytest.mark.parametrize("clock", ["dyadic", "across zero", "octaves", "down"])
def test_a_walk_along_the_grid_has_the_bits_of_its_steps(clock, moments):
    """Steps are drawn together where they can be; streams are asked for late, anew, and out of order."""
    numbers = torch.rand(70, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort().values.tolist()
    grid = {
        "dyadic": [i / 64 for i in range(80)],
        "across zero": [4 * v - 2 for v in numbers],
        "octaves": [2.0**k for k in range(-120, 120, 5)],
        "down": [5 * v for v in reversed(numbers)],
    }[clock]
    ids = torch.tensor([3, 0, 7])
    path = BrownianPath(5, ids, 4, moments)
    for noise in (PathNoise(5, ids, grid, moments), PathNoise(5, ids, grid, moments, streams=1)):
        _compare_with_steps(noise, path, grid, moments)


def _compare_with_steps(noise, path, grid, moments):
    for k in [*range(len(grid) - 1), 5, 4, 3, 4, 5]:
        expected = path.normals(grid[k], grid[k + 1], moments)
        for stream in range(1 if k % 3 == 0 else moments):
            out = noise.fill(torch.zeros(3, 4, dtype=torch.float64), k, stream)
            assert torch.equal(out, expected[stream]), (k, stream)


def test_streams_beyond_the_path():
    """K is stream 2 of a path of three moments; from 3 on come normals of the step, of any shape."""
    noise = make_noise("path", 7, None, 3, "cpu", [0.9, 0.4, 0.1], moments=3)
    expected = BrownianPath(7, torch.arange(3), 4, 3).normals(0.4, 0.1)
    for stream, z in enumerate(expected):
        assert torch.equal(noise.fill(torch.zeros(3, 2, 2, dtype=torch.float64), 1, stream).flatten(1), z)
    for moments, stream, shape in ((2, 3, (3, 5)), (3, 4, (3, 2, 2))):
        noise = PathNoise(7, torch.arange(3), [0.9, 0.4, 0.1], moments)
        w = noise.fill(torch.zeros(3, 4), 1)
        extra = noise.fill(torch.zeros(shape), 1, stream)
        assert torch.equal(extra, StepNoise(7, torch.arange(3)).fill(torch.zeros(shape), 1, stream))
        assert torch.equal(noise.fill(torch.zeros(3, 4), 1), w)


@pytest.mark.parametrize("step, stream", [(2, 0), (-1, 0), (0, 2), (0, -1), (2, 3)])
def test_other_steps_and_streams_are_refused(step, stream):
    with pytest.raises(OptionError, match="step, stream"):
        PathNoise(1, torch.arange(2), [0.9, 0.4, 0.1]).fill(torch.zeros(2, 3), step, stream)


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m_sde"])
def test_fine_and_coarse_grids_see_one_path(solver):
    """Where the data prediction is constant the exact solution is linear in the path, for any grid."""
    process = sdekit.VP()
    constant = sdekit.Model(lambda x, t: torch.full_like(x, 0.3), process, "data")
    times = process.time_at(torch.linspace(-2, 2, 65, dtype=torch.float64))
    ends = [sdekit.solve(constant, start(), times[::k], solver, seed=5, noise="path").x for k in (1, 4, 16)]
    fresh = [sdekit.solve(constant, start(), times[::k], solver, seed=5).x for k in (1, 4, 16)]
    differences = [float((x - ends[0]).abs().max()) for x in ends[1:]]
    assert max(differences) < 1e-12 < 0.1 < float((fresh[1] - fresh[0]).abs().max())


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_brownian_motion_itself_is_the_path(up):
    """dx = dW by a stepper: the end is B(t1) - B(t0) for any grid, in either direction."""
    motion = sdekit.make_sde(lambda t, x: torch.zeros_like(x), lambda t, x: torch.ones_like(x), additive=True)
    ends = (-0.5, 2.0) if up else (2.0, -0.5)
    exact = BrownianPath(5, torch.arange(6), 2).increment(*ends)[0]
    for steps in (1, 7, 50):
        found = sdekit.solve(
            motion, torch.zeros(6, 2).double(), ends, "euler_maruyama", steps=steps, seed=5, noise="path"
        )
        torch.testing.assert_close(found.x, exact, rtol=0, atol=1e-13)


def test_both_routes_see_one_path():
    process = sdekit.VP()
    reverse: Any = process.reverse(model(), 1.0)
    times = torch.linspace(0.9, 0.1, 21, dtype=torch.float64)
    bare = sdekit.make_sde(reverse.drift, reverse.diffusion, "scalar", additive=True)
    a, b = (sdekit.solve(d, start(), times, "euler_maruyama", seed=3, noise="path") for d in (reverse, bare))
    assert (a.route, b.route) == ("plan", "step")
    torch.testing.assert_close(a.x, b.x, rtol=1e-12, atol=1e-12)
    assert a.provenance["noise"] == b.provenance["noise"] == "path" and a.provenance["seed"] == 3


def test_samples_are_keyed_by_their_ids():
    def draw(ids, **options):
        return sdekit.sample(
            model(),
            (len(ids), 2),
            "dpmpp_2m_sde",
            6,
            seed=4,
            sample_ids=ids,
            noise="path",
            dtype=torch.float64,
            **options,
        )

    ids = torch.tensor([5, 0, 9, 2, 7])
    whole = draw(ids)
    assert torch.equal(draw(ids, batch_size=2), whole)
    assert torch.equal(draw(ids.flip(0)), whole.flip(0))
    assert not bool((sdekit.sample(model(), (5, 2), "dpmpp_2m_sde", 6, seed=4, dtype=torch.float64) == whole).any())


def test_a_start_without_data_and_an_end_without_noise():
    """From alpha = 0, where the clock is 0, to sigma = 0, where it is infinite and nothing is drawn."""
    process = sdekit.RectifiedFlow()
    end = sdekit.solve(
        sdekit.targets.ring().under(process), start(), [1.0, 0.6, 0.2, 0.0], "ddpm", seed=1, noise="path"
    )
    assert bool(end.x.isfinite().all())


def test_noise_that_is_no_increment_is_refused():
    """A kick of churn, and a stochasticity that is a function, for which no clock is known."""
    calls = []
    network = sdekit.Model(lambda x, t: calls.append(1) or x, sdekit.VP(), "data")
    varying = sdekit.VP().reverse(network, lambda t: 1 + t)
    for dynamics, solver in ((network, sdekit.solvers.get("edm_heun", churn=2.0)), (varying, "dpmpp_2m")):
        with pytest.raises(sdekit.errors.SolverMismatchError, match="noise"):
            sdekit.solve(dynamics, start(), [0.9, 0.5, 0.1], solver, seed=1, noise="path")
    assert not calls


@pytest.mark.parametrize("tau", [1e-3, 0.25, 3.0, *(pytest.param(tau, marks=pytest.mark.slow) for tau in (0.1, 0.3))])
def test_small_and_large_stochasticities_have_clocks_that_a_path_resolves(tau):
    process = sdekit.VP()
    times = process.time_at(torch.linspace(-4, 4, 201, dtype=torch.float64))
    constant = sdekit.Model(lambda x, t: torch.full_like(x, 0.3), process, "data")
    ends = [
        sdekit.solve(process.reverse(constant, tau), start(), times[::k], "dpmpp_2m", seed=5, noise="path").x
        for k in (1, 40)
    ]
    assert float((ends[1] - ends[0]).abs().max()) < 1e-11


def test_steps_below_the_resolution_are_refused_before_the_first_call():
    calls = []
    sde = sdekit.make_sde(lambda t, x: calls.append(1) or x, lambda t, x: torch.ones_like(x), additive=True)
    with pytest.raises(OptionError, match="farther apart"):
        sdekit.solve(sde, start(), [0.3, 0.5, 0.5 + 3e-8, 0.5 + 6e-8], "euler_maruyama", noise="path")
    assert not calls


def test_a_deterministic_solver_needs_no_path():
    found = sdekit.solve(model(), start(), [0.9, 0.5, 0.1], "ddim", noise="path")
    assert found.provenance["noise"] is None
