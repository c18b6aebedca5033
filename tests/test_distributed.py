"""Samples shared among processes are those of one process, bit for bit, and no process waits for one that failed."""

from __future__ import annotations

import importlib
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sdekit import sample
from sdekit.distributed import sample_sharded
from sdekit.errors import InterfaceError, OptionError, ShapeError, UnknownNameError

FOLDER = Path(__file__).parent
CASES = [
    *("flow", "noise", "drawn seed", "conditioned", "own start", "ids and bfloat16"),
    *("few", "none at all", "own share"),
]


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("sharded")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What 1, 2 and 4 processes get, each."""
    out = tmp_path_factory.mktemp("sharded")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        target = importlib.import_module("sharded").main
        context: Any = multiprocessing.get_context("forkserver" if sys.platform.startswith("linux") else "spawn")
        for count in (1, 2, 4):
            arguments = [(rank, count, str(out / f"store-{count}"), str(out)) for rank in range(count)]
            processes = [context.Process(target=target, args=a) for a in arguments]
            for process in processes:
                process.start()
            for process in processes:
                process.join(100)
                assert process.exitcode == 0
    return {n: [torch.load(out / f"{n}-{r}.pt", weights_only=True) for r in range(n)] for n in (1, 2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_samples_do_not_depend_on_the_number_of_processes(found: Any, name: str, count: int) -> None:
    whole = found[1][0]["samples"][name]
    shares = [each["samples"][name] for each in found[count]]
    if name == "own share":
        assert torch.equal(torch.cat(shares), whole)
        assert max(map(len, shares)) - min(map(len, shares)) <= 4 + 3, "shares are whole chunks, and fair"
    elif name == "noise":
        assert torch.equal(shares[0], whole)
        assert shares[1:] == [None] * (count - 1)
    else:
        assert all(torch.equal(share, whole) for share in shares)


@pytest.mark.slow
def test_samples_are_those_of_sample(found: Any, sharded: Any) -> None:
    for name in ("flow", "noise", "conditioned", "own start", "ids and bfloat16", "few"):
        case = {"shape": (sharded.TOTAL, 3), "steps": 3, **sharded.CASES[name]}
        case.pop("gather", None)
        assert torch.equal(found[1][0]["samples"][name], sample(sharded.model(), batch_size=sharded.SIZE, **case))


@pytest.mark.slow
def test_other_sizes_of_chunks_give_other_bits(found: Any, sharded: Any) -> None:
    """The mutant: were shares solved as they come, and not in chunks of one size, their number would show."""
    other = sample(sharded.model(), (sharded.TOTAL, 3), steps=3, batch_size=1, seed=3)
    whole = found[1][0]["samples"]["flow"]
    assert not torch.equal(other, whole)
    torch.testing.assert_close(other, whole)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_disagree_or_fail_all_hear_of_it(found: Any, count: int) -> None:
    for rank, each in enumerate(found[count]):
        texts = each["failures"]
        assert "OptionError" in texts["seed"] and "the same arguments" in texts["seed"]
        assert "OptionError" in texts["shape"]
        assert ("NonFiniteError" if rank else "an error in the processes of rank [1") in texts["network"]


@pytest.mark.slow
def test_torchrun(tmp_path: Path, sharded: Any) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "samples.pt"
    subprocess.run([*words, str(FOLDER / "sharded.py"), str(out)], check=True, capture_output=True, timeout=110)
    expected = sample(sharded.model(), (sharded.TOTAL, 3), "ddpm", 3, batch_size=sharded.SIZE, seed=4)
    assert torch.equal(torch.load(out, weights_only=True), expected)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_without_processes_it_says_how_to_start_them(sharded: Any) -> None:
    with pytest.raises(OptionError, match="torchrun"):
        sample_sharded(sharded.model(), (4, 3), batch_size=2)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"batch_size": None}, OptionError, "batch_size: got None"),
        ({"batch_size": 0}, OptionError, "batch_size"),
        ({"gather": "rank0"}, OptionError, "'all'|first"),
        ({"noise": "plain"}, OptionError, "keyed by sample"),
        ({"grad": True}, OptionError, "gather='none'"),
        ({"shape": ()}, ShapeError, "shape"),
        ({"shape": (2.5, 3)}, ShapeError, "shape"),
        ({"sample_ids": [1, 2]}, ShapeError, "4 integers"),
        ({"model": 3}, InterfaceError, "sdekit.Model"),
        ({"solver": "ddin"}, UnknownNameError, "'ddim'"),
        ({"stps": 3}, UnknownNameError, "'steps'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_shared_is_refused(
    alone: None, sharded: Any, given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        sample_sharded(**{"model": sharded.model(), "shape": (4, 3), "batch_size": 2, **given})


def test_global_seed_governs_and_one_number_is_drawn(alone: None, sharded: Any) -> None:
    torch.manual_seed(3)
    one = sample_sharded(sharded.model(), (5, 3), "ddpm", 3, batch_size=2)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(torch.as_tensor(one), sample(sharded.model(), (5, 3), "ddpm", 3, batch_size=2))
    assert torch.equal(after, torch.get_rng_state())
