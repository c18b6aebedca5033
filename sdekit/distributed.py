"""Many samples shared among the processes of torch.distributed, as torchrun starts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sdekit.errors import BackendError, InterfaceError, OptionError, ShapeError, suggest
from sdekit.model import Model
from sdekit.sample import sample
from sdekit.seeds import resolve_seed
from sdekit.solvers.base import Solver
from sdekit.times import check_count

__all__ = ["sample_sharded"]

_GATHER = ("all", "first", "none")


def sample_sharded(
    model: Model,
    shape: Sequence[int],
    solver: str | Solver = "dpmpp_2m",
    steps: int = 20,
    *,
    batch_size: int | None = None,
    gather: str = "all",
    group: Any = None,
    seed: int | torch.Generator | None = None,
    sample_ids: Sequence[int] | Tensor | None = None,
    x_start: Tensor | None = None,
    conditioning: Mapping[str, Any] | None = None,
    **options: Any,
) -> Tensor | None:
    """Draw samples, a share of them in each process; every process calls this with the same arguments.

    Each takes whole chunks of `batch_size` samples, in the order of their indices. So every chunk is what it is in one
    process alone, and the samples are equal, bit for bit on the same kind of device, whatever the number of processes.

    Args:
        model, shape, solver, steps: as for `sdekit.sample`; shape is (B, *shape) of all samples together.
        batch_size: the size of a chunk; it must be given, as it is part of what the samples are.
        gather: who gets all samples: "all" processes, the "first" (the others get None), or "none": each gets its own.
        group: the process group; default all processes.
        seed: an int, or a torch.Generator or None, from which the first process draws one integer for all.
        sample_ids, x_start: as for `sdekit.sample`, of all samples; each process takes its rows.
        conditioning: the same; tensors whose first axis is B are cut into shares.
        **options: further options of `sdekit.sample`, such as grid=, device=, dtype=.

    Returns:
        (B, *shape), or (the process's share, *shape), or None; see `gather`.

    Raises:
        OptionError: without a process group or a batch_size, where processes were given different arguments, or for
            noise that is not keyed by sample: "step" and "path" are.
        BackendError: in the processes whose share was well, where that of another failed.
        SdekitError: as `sdekit.sample`.
    """
    _place(group)
    size = _check_batch_size(batch_size)
    _check_choice(gather, options)
    total = _check_shape(shape, model)
    key = _agreed_seed(seed, [total, size, steps], group)
    failed, share = None, None
    try:
        rows = _rows(total, size, group)
        start = None if x_start is None else x_start[rows]
        own = {"batch_size": size, "seed": key, "sample_ids": _ids(sample_ids, total)[rows], "x_start": start}
        # What is not one row for each sample is bound here: a share may by chance have as many rows as it has.
        whole, cut = _parted(conditioning or {}, total)
        own |= {"conditioning": {name: value[rows] for name, value in cut.items()}}
        part = (rows.stop - rows.start, *shape[1:])
        share = sample(model.bind(**whole), part, solver, steps, **own, **options)
    except Exception as error:  # noqa: BLE001  (the others must hear of it first, or they would wait for ever)
        failed = error
    _raise_of_any(failed, group)
    return share if share is None or gather == "none" else _gathered(share, total, gather, group)


def _place(group: Any) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise OptionError(
            "torch.distributed",
            got="no process group",
            expected="one that is initialised, in each of the processes",
            fix="Start them with torchrun, and call torch.distributed.init_process_group('gloo') first.",
        )


def _rows(total: int, size: int, group: Any) -> slice:
    """The samples of this process: whole chunks, as many as any other has or one fewer."""
    rank, count, chunks = dist.get_rank(group), dist.get_world_size(group), -(-total // size)
    return slice(min(chunks * rank // count * size, total), min(chunks * (rank + 1) // count * size, total))


def _ids(sample_ids: Any, total: int) -> Tensor:
    ids = torch.arange(total) if sample_ids is None else torch.as_tensor(sample_ids)
    if len(ids) != total:
        raise ShapeError("sample_ids", got=f"{len(ids)} of them", expected=f"{total} integers", fix="Match B.")
    return ids


def _check_batch_size(batch_size: int | None) -> int:
    if batch_size is None:
        raise OptionError(
            "batch_size",
            got="None",
            expected="the number of samples of a chunk",
            fix="Pass the same wherever samples are to be equal: matrix products differ with the size.",
        )
    return check_count("batch_size", batch_size)


def _check_choice(gather: str, options: Mapping[str, Any]) -> None:
    if gather not in _GATHER:
        raise OptionError("gather", got=repr(gather), expected="a way to gather", fix=suggest(str(gather), _GATHER))
    if options.get("grad") and gather != "none":
        raise OptionError(
            "grad", got="True", expected="no gradients: they do not cross processes", fix="Use gather='none'."
        )
    noise = options.get("noise", "step")
    if noise not in ("step", "path"):
        raise OptionError(
            "noise",
            got=repr(noise),
            expected="noise that is keyed by sample, and so does not depend on who draws it",
            fix="Use noise='step' or noise='path'.",
        )


def _check_shape(shape: Sequence[int], model: Any) -> int:
    if not isinstance(model, Model):
        raise InterfaceError(
            "model",
            got=type(model).__name__,
            expected="a sdekit.Model",
            fix="Wrap the network: sdekit.Model(net, process).",
        )
    if not isinstance(shape, Sequence) or not shape or not isinstance(shape[0], int) or shape[0] < 0:
        raise ShapeError("shape", got=repr(shape), expected="(B, *shape) of whole numbers >= 0", fix="Pass a tuple.")
    return shape[0]


def _parted(conditioning: Mapping[str, Any], total: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    cut = {k: v for k, v in conditioning.items() if isinstance(v, Tensor) and v.ndim > 0 and len(v) == total}
    return {k: v for k, v in conditioning.items() if k not in cut}, cut


def _agreed_seed(seed: Any, numbers: list[int], group: Any) -> int:
    """The first process's seed, once all processes are seen to have the same arguments."""
    drawn = seed is None or isinstance(seed, torch.Generator)
    own = 0 if drawn and dist.get_rank(group) else resolve_seed(seed)
    # A seed has 64 bits and no sign, an int64 has 63: in halves it fits.
    mine = [int(drawn), *numbers, own >> 32, own & 0xFFFFFFFF]
    rows = _all_rows(torch.tensor(mine), group)
    same = rows[:, :-2] if drawn else rows
    if not bool((same == same[0]).all()):
        raise OptionError(
            "seed, shape, batch_size, steps",
            got=f"other values in other processes: {[row.tolist() for row in rows.unique(dim=0)]}",
            expected="the same arguments in each of them",
            fix="Pass the same ones; the samples are shared out here.",
        )
    high, low = rows[0, -2:].tolist()
    return high << 32 | low


def _raise_of_any(error: Exception | None, group: Any) -> None:
    failed = _all_rows(torch.tensor([int(error is not None)]), group).flatten()
    if error is not None:
        raise error
    if failed.any():
        ranks = failed.nonzero().flatten().tolist()
        raise BackendError(
            "sample_sharded",
            got=f"an error in the processes of rank {ranks}",
            expected="a share from each process",
            fix="Read what they report.",
        )


def _all_rows(mine: Tensor, group: Any) -> Tensor:
    """The same small tensor of every process, one below the other."""
    mine = mine.to(_device(group))
    rows = [torch.zeros_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows).cpu()


def _device(group: Any) -> torch.device:
    """Where tensors must be for the processes to exchange them."""
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")


def _gathered(share: Tensor, total: int, gather: str, group: Any) -> Tensor | None:
    """All shares in order: as bytes, so that any dtype travels, and padded, so that all are of one size."""
    sizes = _all_rows(torch.tensor([len(share)]), group).flatten().tolist()
    if not total:
        return share
    width = int(torch.tensor(share.shape[1:]).prod()) * share.element_size()
    mine = torch.zeros(max(sizes), width, dtype=torch.uint8, device=_device(group))
    mine[: len(share)] = share.detach().contiguous().view(torch.uint8).reshape(len(share), width).to(mine.device)
    first = dist.get_rank(group) == 0
    parts = [torch.zeros_like(mine) for _ in sizes] if gather == "all" or first else None
    if gather == "all":
        dist.all_gather(parts, mine, group=group)  # type: ignore[arg-type]  # it is a list there
    else:
        dist.gather(mine, parts, group=group, group_dst=0)
    if parts is None:
        return None
    rows = torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])
    return rows.view(share.dtype).reshape(total, *share.shape[1:]).to(share.device)
