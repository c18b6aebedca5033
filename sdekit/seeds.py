"""Seeds: an int, a generator, or nothing, resolved to one integer that keys every stream of a run."""

from __future__ import annotations

from typing import Any

import torch

from sdekit.errors import InterfaceError
from sdekit.math.philox import check_seed

__all__ = ["resolve_seed"]


def resolve_seed(seed: Any) -> int:
    """The integer behind a seed.

    Args:
        seed: an int in [0, 2^64); a torch.Generator, from which one integer is drawn; or None, which draws exactly one
            integer from torch's global generator, so that torch.manual_seed governs it.

    Raises:
        InterfaceError, OptionError: for anything else.
    """
    if seed is None or isinstance(seed, torch.Generator):
        device = "cpu" if seed is None else seed.device
        return int(torch.randint(0, 2**63 - 1, (1,), generator=seed, device=device, dtype=torch.int64))
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise InterfaceError(
            "seed", got=repr(seed), expected="an int, a torch.Generator or None", fix="Pass an int to fix the noise."
        )
    return check_seed(seed)
