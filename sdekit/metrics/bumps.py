"""Sums of Gaussians on the line, thousands of them: density, tails and quantiles, chunked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.metrics.samples import chunk_rows

__all__ = ["Bumps"]

_REACH = 9.0  # standard deviations past which a bump is nothing beside its mass (1e-19)
_HALVINGS = 80
_ROWS = 64
_SETTLED = 4e-15
_ROOT = math.sqrt(2 * math.pi)
_HALF_ROOT = math.sqrt(0.5)  # torch.special.ndtr is 0.5 (1 + erf), which has no digits in its tail


@dataclass(frozen=True, eq=False)
class Bumps:
    """sum_i masses_i N(centres_i, stds_i^2): each (G,), float64 on the host, centres rising."""

    centres: Tensor
    stds: Tensor
    masses: Tensor

    @classmethod
    def of(cls, centres: Tensor, stds: Tensor, masses: Tensor) -> Bumps:
        """In any order. Raises OptionError for a width of 0, which has no density."""
        if float(stds.min()) <= 0:
            raise OptionError(
                "target",
                got="a law with point masses",
                expected="positive variances at both ends",
                fix="Stop at a time with sigma > 0, or give every component a positive variance.",
            )
        order = centres.argsort()
        return cls(centres[order], stds.expand_as(centres)[order], masses[order])

    @property
    def width(self) -> float:
        """The narrowest standard deviation: what a grid must resolve."""
        return float(self.stds.min())

    @property
    def ends(self) -> tuple[float, float]:
        """Where all but 1e-19 of the mass lies."""
        return float((self.centres - _REACH * self.stds).min()), float((self.centres + _REACH * self.stds).max())

    def density(self, x: Tensor) -> Tensor:
        """At rising points (n,)."""
        result = torch.zeros_like(x)
        for rows, columns, z in self._near(x):
            weights = self.masses[columns] / (self.stds[columns] * _ROOT)
            result[rows] = torch.exp(-0.5 * z * z) @ weights
        return result

    def log_density(self, x: Tensor) -> Tensor:
        """At any points (n,), also where the density is no number any more; for a few bumps."""
        weights = torch.log(self.masses / (self.stds * _ROOT))
        parts = x.split(chunk_rows(len(self.centres)))
        z = ((part[:, None] - self.centres) / self.stds for part in parts)
        return torch.cat([torch.logsumexp(weights - 0.5 * v * v, 1) for v in z])

    def tails(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mass below and above rising points (n,), each with its own digits."""
        below, above = torch.zeros_like(x), torch.zeros_like(x)
        total = torch.cat([x.new_zeros(1), self.masses.cumsum(0)])
        rest = torch.cat([self.masses.flip(0).cumsum(0).flip(0), x.new_zeros(1)])
        for rows, columns, z in self._near(x):
            below[rows] = total[columns.start] + 0.5 * torch.erfc(-z * _HALF_ROOT) @ self.masses[columns]
            above[rows] = rest[columns.stop] + 0.5 * torch.erfc(z * _HALF_ROOT) @ self.masses[columns]
        return below, above

    def quantile(self, below: Tensor, above: Tensor, guess: Tensor) -> Tensor:
        """Where the mass below and above is this (n,): by the smaller of both, Newton's steps within a bracket."""
        low = torch.full_like(guess, self.ends[0] - 30 * float(self.stds.max()))
        high = torch.full_like(guess, self.ends[1] + 30 * float(self.stds.max()))
        left = below <= above
        wanted = torch.where(left, below, above)
        x = guess.clamp(low, high)
        for _ in range(_HALVINGS):
            order = x.argsort()
            back = order.argsort()
            found_below, found_above = (v[back] for v in self.tails(x[order]))
            density = self.density(x[order])[back]
            found = torch.where(left, found_below, found_above)
            # In the logarithm, which is nearly quadratic in the tails; it rises with x.
            gap = torch.log1p((found - wanted) / wanted) * torch.where(left, 1.0, -1.0)
            low, high = torch.where(gap < 0, x, low), torch.where(gap > 0, x, high)
            newton = x - gap * found / density
            inside = (newton > low) & (newton < high)
            new = torch.where(gap == 0, x, torch.where(inside, newton, 0.5 * (low + high)))
            if bool(((new - x).abs() <= _SETTLED * (self.width + x.abs())).all()):
                return new
            x = new
        return x

    def _near(self, x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks of points, the bumps that reach them, and z = (x - centre) / std of these, (rows, columns)."""
        reach = 2 * _REACH * float(self.stds.max())  # twice: a product of masses and tails stays right to 1e-70
        rows = max(_ROWS, chunk_rows(64 * len(self.centres)))  # few, where many bumps are out of reach of most points
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            first = int(torch.searchsorted(self.centres, part[0] - reach))
            last = int(torch.searchsorted(self.centres, part[-1] + reach))
            columns = slice(first, last)
            z = (part[:, None] - self.centres[columns]) / self.stds[columns]
            yield slice(start, start + rows), columns, z
