"""What the user passed is as it was afterwards, and what the user gets is the user's own."""

from __future__ import annotations

import contextlib

import pytest
import torch

import sdekit
from sdekit.errors import ModelOutputError

MODES = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def smooth(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_start_is_left_alone_and_never_returned(case, mode, leaf):
    x = case.start().requires_grad_(leaf)
    before, version = x.detach().clone(), x._version
    with MODES[mode]():
        solution = case.solve(x=x, save="all")
        handed = []
        case.solve(x=x, callback=lambda info: handed.append(info.x))
    assert torch.equal(x.detach(), before) and x._version == version and x.requires_grad == leaf
    pointers = {x.untyped_storage().data_ptr()}
    for result in (solution.x, solution.xs, *handed):
        pointer = result.untyped_storage().data_ptr()
        assert pointer not in pointers
        pointers.add(pointer)
    assert torch.equal(solution.xs[0], before)


@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_solve_does_not_return_the_start_either(case, mode):
    x = case.start()
    with MODES[mode]():
        solution = case.solve(x=x, callback=lambda info: True, save=[case.times[0]])
    assert int(solution.steps[0]) == 1
    for result in (solution.x, solution.xs):
        assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_a_callback_may_do_what_it_likes_with_what_it_gets(case):
    def spoil(info):
        info.x.fill_(1e9)
        if info.denoised is not None:
            info.denoised.fill_(1e9)

    assert torch.equal(case.solve().x, case.solve(callback=spoil).x)


def test_grid_and_ids_are_left_alone(case):
    times = torch.tensor(case.times, dtype=torch.float64)
    save = torch.tensor([case.times[2]], dtype=torch.float64)
    ids = torch.arange(5)
    kept = [(v, v.clone(), v._version) for v in (times, save, ids)]
    sdekit.solve(case.dynamics(), case.start(), times, case.solver, save=save, sample_ids=ids, seed=7)
    assert all(torch.equal(v, copied) and v._version == version for v, copied, version in kept)


def test_options_are_left_alone():
    conditioning = {"scale": torch.ones(5, 1)}
    options = dict(conditioning)
    model = sdekit.Model(lambda x, t, scale: torch.tanh(x) * scale, sdekit.VP())
    sdekit.sample(model, (5, 3), "heun", 3, conditioning=conditioning, seed=0)
    assert conditioning.keys() == options.keys() and conditioning["scale"] is options["scale"]
    assert torch.equal(options["scale"], torch.ones(5, 1))


@pytest.mark.parametrize("mode", MODES)
def test_a_function_that_edits_its_input_is_refused(case, mode):
    x = case.start()
    before = x.clone()
    with MODES[mode]():
        # In inference mode nothing counts changes: a copy is handed out. Implicit methods leave it, for derivatives.
        if mode == "inference" and case.route == "step" and case.solver.family != "drift-implicit":
            edited, clean = (case.solve(f, x).x for f in (lambda x, t: x.mul_(0.5), lambda x, t: 0.5 * x))
            assert torch.equal(edited, clean)
        else:
            with pytest.raises(ModelOutputError, match="change in place of its input") as caught:
                case.solve(lambda x, t: x.mul_(0.5), x)
            assert "x.clone()" in str(caught.value)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_not_mistaken_for_an_edit(case, mode):
    with MODES[mode]():
        assert case.solve(x=case.start(dtype=torch.float16)).success


@pytest.mark.parametrize("mode", MODES)
def test_a_rewritten_output_buffer_is_harmless(case, mode):
    """Without the copies of `Outputs` and `_Buffers` the stages of heun and rk4 would all be the last one."""
    buffer = torch.zeros(5, 3, dtype=torch.float64)

    def model(x, t):
        return buffer.copy_(smooth(x, t))

    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES[mode]())
        assert torch.equal(case.solve(model).x, case.solve().x)


def test_outputs_changed_later_are_harmless_or_refused(case):
    """Two buffers in turn: no copy foresees it."""
    buffers = [torch.zeros(5, 3, dtype=torch.float64) for _ in range(2)]
    calls = []

    def model(x, t):
        calls.append(1)
        return buffers[len(calls) % 2].copy_(smooth(x, t))

    refused = None
    try:
        solution = case.solve(model)
    except ModelOutputError as error:
        refused = error
    if refused is None:
        assert torch.equal(solution.x, case.solve().x)
    else:
        assert "changed the tensor returned by" in str(refused)


def test_a_function_may_return_its_input_and_keep_it(case):
    kept = []

    def model(x, t):
        kept.append((x, x.clone()))
        return x

    a, b = case.solve(model), case.solve(lambda x, t: x.clone())
    assert torch.equal(a.x, b.x)
    assert all(torch.equal(held, copied) for held, copied in kept)


def test_solution_does_not_change_when_the_solver_runs_again(case):
    first = case.solve(save="all")
    kept = first.x.clone(), first.xs.clone()
    case.solve(x=case.start() + 1)
    assert torch.equal(first.x, kept[0]) and torch.equal(first.xs, kept[1])


@pytest.mark.parametrize("kind", ["strided", "expanded", "transposed", "reversed"])
def test_memory_layout_does_not_matter(case, kind):
    base = case.start()
    if kind == "expanded":
        base = base[:1].expand(5, 3)
    x = {
        "strided": lambda: torch.stack([base, base], -1).reshape(5, 6)[:, ::2],
        "expanded": lambda: base,
        "transposed": lambda: base.T.contiguous().T,
        "reversed": lambda: base.flip(0).flip(0),
    }[kind]()
    expected = case.solve(x=base.clone(memory_format=torch.contiguous_format))
    if kind != "strided":
        assert torch.equal(case.solve(x=x).x, expected.x)
    else:
        wide = torch.zeros(5, 6, dtype=torch.float64)
        wide[:, ::2] = base
        assert torch.equal(case.solve(x=wide[:, ::2]).x, expected.x)
        assert bool((wide[:, 1::2] == 0).all())


def test_edge_sizes(case):
    for shape in [(0, 3), (5, 0), (0, 0), (5,), (1,), (2, 3, 1, 2)]:
        x = torch.ones(shape, dtype=torch.float64)
        solution = case.solve(lambda x, t: 0.5 * x, x)
        assert solution.x.shape == shape and solution.success
        assert solution.nfe.shape == shape[:1]
