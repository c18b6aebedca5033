"""A device that is not there: tensors whose numbers only operations of PyTorch reach, as those on a GPU.

`RemoteTensor` holds a CPU tensor and says that it lies on the device "remote:0". Every operation runs on what it holds,
once it is clear that a device would run it: tensors on two devices are refused as CUDA refuses them, and NumPy and
pointers see nothing. Reading a number counts in `Remote.reads`. The device is registered by PyTorch's experimental
`torch.utils.backend_registration`; where that is missing `register` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "remote"
DEVICE = f"{NAME}:0"
_ATEN = torch.ops.aten
_COPIES = (_ATEN.copy_.default, _ATEN._to_copy.default)
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default)


def register() -> bool:
    """Make the device known, once in a process. False where this PyTorch has no devices written in Python."""
    from torch.utils import backend_registration as registration

    if hasattr(torch, NAME):
        return True
    setup = getattr(registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return False
    setup(NAME)
    return True


class RemoteTensor(Tensor):
    """A tensor there."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> RemoteTensor:
        layout: Any = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=torch.device(DEVICE), **layout)
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"RemoteTensor({self.held})"

    def untyped_storage(self) -> Any:
        """That of what is held: its place tells apart what shares memory."""
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Remote.run(func, args, kwargs or {})


class Remote(TorchDispatchMode):
    """Operations, with those that make a tensor there."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Remote.run(func, args, kwargs or {})

    @staticmethod
    def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operation, where its tensors are."""
        tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        there = any(isinstance(a, RemoteTensor) for a in tensors)
        here = [a for a in tensors if not isinstance(a, RemoteTensor) and a.ndim > 0]
        if there and here and func not in (*_COPIES, *_INDEXING):
            places = [(tuple(a.shape), a.device.type) for a in tensors]
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but got {places}")
        goes_there = there
        if kwargs.get("device") is not None:
            goes_there = torch.device(kwargs["device"]).type == NAME
            kwargs = {**kwargs, "device": torch.device("cpu")}
        elif func is _ATEN.copy_.default:
            goes_there = isinstance(args[0], RemoteTensor)
        if there and (func is _ATEN._local_scalar_dense.default or (func in _COPIES and not goes_there)):
            Remote.reads += 1
        held = pytree.tree_map(lambda a: a.held if isinstance(a, RemoteTensor) else a, (args, kwargs))
        out = func(*held[0], **held[1])
        if not goes_there:
            return out
        out = pytree.tree_map(lambda a: RemoteTensor(a) if isinstance(a, Tensor) else a, out)
        return (
            return_and_correct_aliasing(func, args, kwargs, out)
            if there and func is not _ATEN._to_copy.default
            else out
        )


class _Made(TorchFunctionMode):
    """torch.tensor and torch.as_tensor, which pass by dispatch modes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == NAME:
            del kwargs["device"]
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


@contextmanager
def remote() -> Iterator[type[Remote]]:
    """Tensors may be made on the device inside; counts reads from zero."""
    Remote.reads = 0
    with Remote(), _Made():
        yield Remote
