"""One process of several that share samples among them; run by tests/test_distributed.py, and under torchrun."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sdekit import VP, Model, SdekitError
from sdekit.distributed import sample_sharded

TOTAL, SIZE = 21, 4


def model() -> Model:
    """A network with matrix products: a row's bits depend on how many rows are with it."""
    generator = torch.Generator().manual_seed(0)
    first, middle, last = (torch.randn(n, m, generator=generator) / 8 for n, m in ((3, 300), (300, 300), (300, 3)))

    def net(x: torch.Tensor, t: torch.Tensor, label: Any = None, table: Any = None) -> torch.Tensor:
        shift = 0.0 if label is None else label[:, None] + table.sum()
        return (torch.tanh(torch.tanh(x.float() @ first + shift) @ middle) @ last / 8).to(x.dtype)

    return Model(net, VP(), predicts="noise")


CASES: dict[str, dict[str, Any]] = {
    "flow": {"seed": 3},
    "noise": {"solver": "ddpm", "seed": 2**64 - 1, "gather": "first"},
    "drawn seed": {"solver": "ddpm"},
    "conditioned": {"seed": 3, "conditioning": {"label": torch.linspace(-1, 1, TOTAL), "table": torch.ones(SIZE)}},
    "own start": {"seed": 3, "x_start": torch.linspace(-1, 1, 3 * TOTAL).reshape(TOTAL, 3), "t_start": 0.5},
    "ids and bfloat16": {"solver": "ddpm", "seed": 3, "dtype": torch.bfloat16, "sample_ids": [*range(7, 7 + TOTAL)]},
    "few": {"shape": (3, 3), "seed": 3},
    "none at all": {"shape": (0, 3), "seed": 3},
    "own share": {"seed": 3, "gather": "none"},
}


def samples() -> dict[str, Any]:
    """Of each case, what this process gets."""
    torch.manual_seed(5 + dist.get_rank())  # the first process's is what counts
    return {
        name: sample_sharded(model(), **{"shape": (TOTAL, 3), "steps": 3, "batch_size": SIZE, **case})
        for name, case in CASES.items()
    }


def failures() -> dict[str, str]:
    """What is said where one process fails, or has other arguments than the others."""
    rank, found = dist.get_rank(), {}
    odd: dict[str, dict[str, Any]] = {
        "seed": {"seed": rank},
        "shape": {"shape": (TOTAL + rank, 3), "seed": 1},
        "network": {"seed": 1, "x_start": torch.full((TOTAL, 3), float("nan") if rank else 1.0), "t_start": 0.5},
    }
    for name, case in odd.items():
        try:
            sample_sharded(model(), **{"shape": (TOTAL, 3), "steps": 3, "batch_size": SIZE, **case})
        except SdekitError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def main(rank: int, count: int, store: str, out: str) -> None:
    """Join the others, sample, and write what comes of it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=60)
    )
    torch.save({"samples": samples(), "failures": failures() if count > 1 else {}}, Path(out) / f"{count}-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = sample_sharded(model(), (TOTAL, 3), "ddpm", 3, batch_size=SIZE, seed=4, gather="first")
    if os.environ["RANK"] == "0":
        torch.save(found, sys.argv[1])
    dist.destroy_process_group()
