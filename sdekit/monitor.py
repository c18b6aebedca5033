"""The watch for NaN and infinity during a solve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdekit.errors import NonFiniteError

__all__ = ["Monitor", "bad_samples"]


class Monitor:
    """Finds NaN and infinity: which sample, at which step, from where.

    Args:
        checks: "full" looks at every model output, "end" at the final state only, "off" at nothing.
        mask: record failing samples instead of raising.
    """

    def __init__(self, x: Tensor, checks: str, mask: bool) -> None:
        self.checks, self.mask = checks, mask
        self.failed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._any_failed = False

    def output(self, out: Tensor, point: Tensor, step: int, t: float, call: int) -> None:
        """Look at a model's output; a state that was already bad is the solver's fault, not the model's."""
        if self.checks == "full":
            bad = self._bad(out)
            if bad is not None:
                source = "model" if bad_samples(point, self.failed) is None else "solver"
                self._report(bad, source, step, t, call)

    def noise(self, z: Tensor, step: int, t: float) -> None:
        """Look at a step's noise, where it comes from outside."""
        if self.checks == "full":
            bad = self._bad(z)
            if bad is not None:
                self._report(bad, "noise", step, t, None)

    def state(self, x: Tensor, step: int, t: float, source: str = "solver") -> None:
        """Look at a state."""
        if self.checks != "off":
            bad = self._bad(x)
            if bad is not None:
                self._report(bad, source, step, t, None)

    def _bad(self, x: Tensor) -> Tensor | None:
        """As `bad_samples`, after one sum over all samples, which settles it while nothing has failed."""
        total = (x.detach() if x.requires_grad else x).sum()
        if not self._any_failed and math.isfinite(total.item()):  # the one read of the device
            return None
        return bad_samples(x, self.failed)

    def _report(self, bad: Tensor, source: str, step: int, t: float, call: int | None) -> None:
        if not self.mask:
            raise NonFiniteError(source, sample=int(bad.nonzero()[0]), step=step, t=t, call=call)
        self.failed |= bad
        self._any_failed = True


def bad_samples(x: Tensor, known: Tensor) -> Tensor | None:
    """The samples newly not finite, or None. A sum per sample first: `isfinite` costs thirty times as much."""
    if x.numel() == 0:
        return None
    flat = x.detach().reshape(len(x), -1)
    suspects = ~torch.isfinite(flat.sum(1)) & ~known
    if not bool(suspects.any()):
        return None
    suspects[suspects.clone()] = ~torch.isfinite(flat[suspects]).all(1)
    return suspects if bool(suspects.any()) else None
