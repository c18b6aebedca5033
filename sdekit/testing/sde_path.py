"""Brownian paths drawn at once on a fine grid, with their exact increments over every coarser one.

A cell of length h that starts at t0 holds W = B(t1) - B(t0) and the areas H and K of `sdekit.solvers.base.Increments`.
With theta from 0 to 1 along the cell they are integrals of Legendre polynomials,

    W = int dB,    H = int (1/2 - theta) dB,    K = int ((theta^2 - theta) / 2 + 1/12) dB,

so that those of a step are known exactly from those of its cells, and int f dB to the order of the square of the
polynomial that is fitted to f in each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdekit.errors import OptionError
from sdekit.math.quadrature import gauss_legendre
from sdekit.noise import NoiseSource, StepNoise

__all__ = ["SampledPath"]

_VARIANCES = (1.0, 12.0, 720.0)  # h over the variances of W, H and K
_NODES = 5


class SampledPath:
    """Independent Brownian paths (paths, motions) on a grid of times in running order, upwards or downwards.

    Args:
        edges: the ends of the cells, strictly monotone.
        paths, motions: how many of each.
        seed: of the numbers drawn.
        normals: (3, cells, paths, motions), W, H and K by their standard deviations, in place of numbers drawn.

    Attributes:
        areas: W, H and K of the cells, (3, cells, paths, motions) float64.
    """

    def __init__(
        self, edges: Sequence[float], paths: int, motions: int, seed: int = 0, normals: Tensor | None = None
    ) -> None:
        self.edges = torch.tensor(edges, dtype=torch.float64)
        self.lengths = self.edges.diff().abs()
        self.seed = seed
        if normals is None:
            generator = torch.Generator().manual_seed(seed)
            shape = (3, len(edges) - 1, paths, motions)
            normals = torch.randn(shape, generator=generator, dtype=torch.float64)
        scale = torch.sqrt(self.lengths / torch.tensor(_VARIANCES, dtype=torch.float64)[:, None])
        self.areas = scale[..., None, None] * normals

    def __repr__(self) -> str:
        return f"SampledPath({len(self.lengths)} cells, {tuple(self.areas.shape[2:])} paths, motions)"

    def over(self, times: Sequence[float]) -> Tensor:
        """W, H and K over the steps of a coarser grid, (3, steps, paths, motions).

        Raises:
            OptionError: for times that are not among the edges.
        """
        owner, start, part = self._places(times)
        w, h, k = self.areas
        off = (0.5 - start - part / 2)[:, None, None]
        mean = ((start**2 + start * part + part**2 / 3 - start - part / 2) / 2 + 1 / 12)[:, None, None]
        part = part[:, None, None]
        found = torch.stack([w, off * w + part * h, mean * w + part * off * h + part**2 * k])
        total = found.new_zeros(3, len(times) - 1, *w.shape[1:])
        return total.index_add_(1, owner, found)

    def noise(self, times: Sequence[float]) -> NoiseSource:
        """The path as what `sdekit.solve` takes for its noise, on this grid."""
        return _Steps(self, times)

    def integral(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """int f(t) dB over all cells, (paths, n), for f(t) of shape (*t.shape, n, motions) smooth in t."""
        nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in gauss_legendre(_NODES))
        values = f(self.edges[:-1, None] + self.edges.diff()[:, None] * nodes)
        basis = torch.stack([torch.ones_like(nodes), 0.5 - nodes, (nodes**2 - nodes) / 2 + 1 / 12])
        scaled = basis * weights * torch.tensor(_VARIANCES, dtype=torch.float64)[:, None]
        coefficients = torch.einsum("aq,cqnm->acnm", scaled, values)
        return torch.einsum("acnm,acpm->pn", coefficients, self.areas)

    def time_integral(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """int f(t) dt over all cells, negative where they run downwards, for f(t) of shape (*t.shape, n): (n,)."""
        nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in gauss_legendre(_NODES))
        steps = self.edges.diff()
        values = f(self.edges[:-1, None] + steps[:, None] * nodes)
        return torch.einsum("q,c,cqn->n", weights, steps, values)

    def _places(self, times: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
        """For each cell the step that holds it, and where it starts and how long it is in parts of that step."""
        grid = torch.tensor(times, dtype=torch.float64)
        sign = 1.0 if self.edges[1] > self.edges[0] else -1.0
        at = torch.searchsorted(sign * self.edges, sign * grid)
        if not torch.equal(self.edges[at.clamp(max=len(self.edges) - 1)], grid) or len(grid) < 2:
            got = f"{len(grid)} times, some between the path's {len(self.edges)}"
            raise OptionError(
                "times", got=got, expected="some of the path's edges", fix="Draw the path on all of them."
            )
        if int(at[0]) != 0 or int(at[-1]) != len(self.edges) - 1:
            got = f"times from {float(grid[0])!r} to {float(grid[-1])!r}"
            raise OptionError("times", got=got, expected="the path's ends", fix="Start and end where the path does.")
        owner = torch.repeat_interleave(torch.arange(len(grid) - 1), at.diff())
        whole = grid.diff().abs()[owner]
        return owner, (self.edges[:-1] - grid[:-1][owner]).abs() / whole, self.lengths / whole


class _Steps(NoiseSource):
    """Streams 0 to 2 are the path's W, H and K by their standard deviations; the others are drawn for each step."""

    def __init__(self, path: SampledPath, times: Sequence[float]) -> None:
        grid = torch.tensor(times, dtype=torch.float64)
        variances = grid.diff().abs() / torch.tensor(_VARIANCES, dtype=torch.float64)[:, None]
        self._normals = path.over(times) / variances.sqrt()[..., None, None]
        self._others = StepNoise(path.seed, torch.arange(self._normals.shape[2]))

    def fill(self, out: Tensor, step: int, stream: int = 0) -> Tensor:
        if stream > 2:
            return self._others.fill(out, step, stream)
        return out.copy_(self._normals[stream, step].view(out.shape))
