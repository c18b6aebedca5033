"""Noise is a function of (seed, sample id, step, stream): who else is in the batch, and who computes it, is no matter.

With torch's generator in place of the keyed one (noise="plain") every test of the first half fails; the last test shows
it for two.
"""

from __future__ import annotations

import functools
import multiprocessing
import threading

import pytest
import torch

import sdekit

BATCH = 12
TIMES = [0.9, 0.6, 0.4, 0.2]


def smooth(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


def model():
    return sdekit.Model(smooth, sdekit.VP(), "data")


def drift(t, x):
    return -x


def diffusion(t, x):
    return 0.3 + 0.1 * torch.sin(x)


def draw(solver="ddpm", **options):
    return sdekit.sample(model(), (BATCH, 3), solver, 3, seed=11, dtype=torch.float64, **options)


def start():
    return torch.linspace(-1, 1, BATCH * 3, dtype=torch.float64).reshape(BATCH, 3)


@pytest.mark.parametrize("size", [1, 5, 11, 12, 333])
def test_chunks(drawn, size):
    if drawn.route == "plan":
        assert torch.equal(draw(drawn.solver, batch_size=size), draw(drawn.solver))


def test_order_and_company(drawn):
    whole = drawn.solve(x=start()).x
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.solve(x=start()[order], sample_ids=order).x, whole[order])
    for rows in ([3], [0, 11], [5, 6, 7, 8]):
        ids = torch.tensor(rows)
        assert torch.equal(drawn.solve(x=start()[ids], sample_ids=ids).x, whole[ids])
    repeated = torch.tensor([4, 4, 4])
    x = start()[repeated]
    assert torch.equal(drawn.solve(x=x, sample_ids=repeated).x, whole[repeated])


def test_ids_and_seeds_are_different_noise(drawn):
    x = torch.zeros(BATCH, 3, dtype=torch.float64)
    whole = drawn.solve(x=x).x
    assert len({tuple(row) for row in whole.tolist()}) == BATCH
    assert not bool((drawn.solve(x=x, seed=8).x == whole).any())
    assert torch.equal(drawn.solve(x=x, sample_ids=torch.arange(BATCH) + 1).x[:-1], whole[1:])


def test_global_generator_is_no_matter(drawn):
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(drawn.solve().x)
    assert torch.equal(*results)


def test_seed_none_follows_the_global_generator(drawn):
    torch.manual_seed(3)
    first, second = drawn.solve(seed=None), drawn.solve(seed=None)
    torch.manual_seed(3)
    again = drawn.solve(seed=None)
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, second.x)
    assert torch.equal(drawn.solve(seed=first.provenance["seed"]).x, first.x)  # recorded, so repeatable
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    assert torch.equal(*(drawn.solve(seed=g).x for g in generators))


@pytest.mark.parametrize("count", [1, 2])
def test_torch_threads(drawn, count):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        result = drawn.solve().x
    finally:
        torch.set_num_threads(before)
    assert torch.equal(result, drawn.solve().x)


def test_python_threads(drawn):
    results, barrier = [None] * 8, threading.Barrier(8)

    def work(i):
        barrier.wait()
        results[i] = drawn.solve().x

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(r, drawn.solve().x) for r in results)


def _rows(rows):
    ids = torch.tensor(rows)
    sampled = sdekit.sample(model(), (len(rows), 3), "ddpm", 3, seed=11, sample_ids=ids, dtype=torch.float64)
    sde = sdekit.make_sde(drift, diffusion)
    solved = sdekit.solve(sde, start()[ids], TIMES[::-1], "euler_maruyama", seed=11, sample_ids=ids).x
    return sampled.tolist(), solved.tolist()


PARTS = [[0, 5, 7], [1, 2, 3, 4, 6], [8], [9, 10, 11]]


def test_forked_processes():
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        results = pool.map(_rows, PARTS)
    here = _rows(list(range(BATCH)))
    for rows, found in zip(PARTS, results, strict=True):
        assert found == tuple([whole[i] for i in rows] for whole in here)


def test_spawned_processes():
    """Models, solvers, grids and solutions travel as well."""
    exact = sdekit.targets.GaussianMixture([1.0, 1.0], [[1.0] * 3, [-1.0] * 3], 0.2).under(sdekit.VP())
    solver = sdekit.solvers.get("ddpm", variance="beta")
    jobs = [
        functools.partial(sdekit.sample, exact, (len(p), 3), solver, 3, seed=11, sample_ids=p, dtype=torch.float64)
        for p in PARTS
    ]
    forward = functools.partial(sdekit.solve, sdekit.VP(), start(), TIMES[::-1], "euler_maruyama", seed=11)
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        results = [pool.apply_async(job) for job in [*jobs, forward]]
        *sampled, solution = [r.get(timeout=100) for r in results]
    whole = sdekit.sample(exact, (BATCH, 3), solver, 3, seed=11, dtype=torch.float64)
    # Responsibilities are a product of matrices, whose rows may differ in the last bit with the number of rows.
    for rows, found in zip(PARTS, sampled, strict=True):
        torch.testing.assert_close(found, whole[rows], rtol=1e-12, atol=1e-12)
    assert torch.equal(solution.x, forward().x) and solution.provenance == forward().provenance


def test_plain_noise_is_not_keyed_but_never_repeats():
    """Chunks of noise="plain" draw on from one generator; anew for each they would all get the same noise."""
    frozen = sdekit.Model(lambda x, t: torch.zeros_like(x), sdekit.VP(), "data")
    x = torch.zeros(6, 2)
    common = {"x_start": x, "t_start": 0.5, "seed": 0, "noise": "plain"}
    rows = sdekit.sample(frozen, (6, 2), "ddpm", 3, batch_size=2, **common)
    assert len({tuple(r) for r in rows.tolist()}) == 6
    again = sdekit.sample(frozen, (6, 2), "ddpm", 3, batch_size=2, **common)
    assert torch.equal(rows, again)


def test_the_tests_above_would_notice():
    plain = [draw(noise="plain", batch_size=size) for size in (4, 12)]
    assert not torch.equal(*plain)
