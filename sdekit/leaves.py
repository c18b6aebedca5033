"""The tensors that a drift and a diffusion depend on, found in the graphs of what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import InterfaceError

__all__ = ["check_known", "find_leaves", "leaves_of"]


def leaves_of(outputs: Iterable[Tensor], but: Iterable[Tensor] = ()) -> list[Tensor]:
    """The leaves of the outputs' graphs that require a gradient, in the order in which they are met, less `but`."""
    known = {id(t) for t in but}
    nodes: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    found: list[Tensor] = [t for t in outputs if t.is_leaf and t.requires_grad and id(t) not in known]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            known.add(id(leaf))
            found.append(leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return found


def find_leaves(caller: Any, x: Tensor, *, diffusion: bool = False) -> tuple[Tensor, ...]:
    """What the drift, and the diffusion, depend on beside the state: parameters of modules, tensors of closures.

    By one call of each; `caller` has drift(t, x), diffusion(t, x) and `last`, a time to call them at.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        sign = getattr(caller, "sign", 1.0)
        outputs = [caller.drift(sign * caller.last, point)]
        if diffusion:
            outputs.append(caller.diffusion(sign * caller.last, point))
        return tuple(leaves_of(outputs, but=[point]))


def check_known(caller: Any, known: Sequence[Tensor], name: str = "drift") -> Callable[[Any, Tensor], Tensor]:
    """The drift, which refuses to depend on a tensor that was not found beforehand: its gradient would be lost."""

    def drift(t: Any, x: Tensor) -> Tensor:
        out = getattr(caller, name)(t, x)
        if torch.is_grad_enabled() and out.requires_grad:
            refuse_unknown(out, [*known, *leaves_of([x])], name)
        return out

    return drift


def refuse_unknown(out: Tensor, known: Sequence[Tensor], name: str) -> None:
    """Raises InterfaceError where a leaf of the output's graph is not among the known ones."""
    strange = leaves_of([out], but=known)
    if strange:
        raise InterfaceError(
            "gradients",
            got=f"a {name} that depends on a tensor of shape {tuple(strange[0].shape)} only at some times or states",
            expected="one that depends on the same tensors everywhere: they are found by one call at the start",
            fix="Use gradients='direct', or let it depend on that tensor everywhere (add 0 * tensor.sum()).",
        )
