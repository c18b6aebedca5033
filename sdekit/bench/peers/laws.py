"""The exact law of what a sampler of another library puts out on a Gaussian, without drawing a number.

With Gaussian data the denoiser is linear, and so is a sampler of fixed steps: its output is a combination of 1, the
start's normal and one normal for each draw. It is run as it is on the coefficients of that combination. The mean is the
first of them, the variance the sum of the squares of the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdekit.bench.peers.base import Peer, Trial
from sdekit.errors import OptionError

__all__ = ["Law", "law_of"]


class Law(NamedTuple):
    """Means and variances in the axes of the data, (d,), and how often the model was called."""

    mean: Tensor
    variance: Tensor
    calls: int


def law_of(peer: Peer, mean: Tensor, variance: Tensor, levels: Tensor, draws: int | None = None) -> Law:
    """The law of y = x_0 + rho eps at the last level, from the exact one at the first.

    Args:
        peer: a sampler of fixed steps.
        mean, variance: (d,) float64, of the data.
        levels: rho, (steps + 1,).
        draws: how many normals of a shape there is room for; None takes two a step and two more.

    Raises:
        OptionError: where the sampler draws more than that.
    """
    room = 2 * len(levels) if draws is None else draws
    basis = torch.eye(room + 2, dtype=torch.float64)
    used = 1

    def normals() -> Tensor:
        nonlocal used
        used += 1
        if used >= room + 2:
            raise OptionError("draws", got=f"more than {room}", expected="at most that many", fix="Pass more.")
        return basis[used].expand(len(mean), -1).clone()

    def denoise(rho: float, y: Tensor) -> Tensor:
        gain = (variance / (variance + rho**2))[:, None]
        return gain * y + ((1 - gain[:, 0]) * mean)[:, None] * basis[0]

    start = mean[:, None] * basis[0] + torch.sqrt(variance + levels[0] ** 2)[:, None] * basis[1]
    trial = Trial(denoise, levels, start, normals)
    end = peer.run(trial)
    return Law(end[:, 0], (end[:, 1:] ** 2).sum(1), trial.calls)
