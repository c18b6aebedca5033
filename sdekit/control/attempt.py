"""One attempted step of every sample under way: stages, the new state, and the size of its error.

Twice: on tensors, for any device, size and gradients; and with sums over slopes in one pass, for states of few elements
on a CPU, where each operation of PyTorch costs as much as all of them. Both make elementwise products and sums in one
order, never a product of matrices or a fused multiplication and addition, whose rounding depends on the size of the
batch. And once more, on tensors, for pairs whose weights depend on the step: those of exponential methods.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.nodes import Nodes
from sdekit.math.stages import Sums, kernels

__all__ = ["Norm", "Scheme", "Small", "Stages", "Tensors", "Varying"]

Call = Callable[..., Tensor]
"""Of what the field is told at a node, the point there, and optionally a tensor that may take the slope."""


class Scheme:
    """A pair, arranged for use.

    Attributes:
        fractions: (m, 1), where the nodes of a step are; the last is its end.
        at: the node of each slope, -1 for the first.
        varying: for a pair whose weights depend on the step, what gives them for the signed steps (n,) in the field's
            variable, each with an axis (n,) more; None where `weights` and `estimates` hold for all steps.
        weights: for each slope but the first, those of the slopes before it; then those that give the new state.
        estimates: (1 or 2, slopes): those that give the error.
        reuses_end: whether the last slope is that at the new state.
        order: the power of h with which the estimate falls.
        calls: how many calls a step makes.
    """

    def __init__(self, pair: Any) -> None:
        tableau = pair.tableau
        inner = sorted({c for c in tableau.c[1:] if c != 1.0})
        self.fractions = np.array([*inner, 1.0])[:, None]
        self.at = [-1] + [inner.index(c) if c != 1.0 else len(inner) for c in tableau.c[1:]]
        self.varying: Any = getattr(pair, "varying", None)
        if self.varying is None:
            self.weights = [np.array(row) for row in (*tableau.a[1:], tableau.b)]
            self.estimates = np.array(pair.weights)
        self.reuses_end = pair.first_same_as_last
        self.order: int = pair.order
        self.calls: int = tableau.stages

    def node(self, slope: int) -> int:
        """Where a slope was asked for."""
        return self.at[slope] if slope < len(self.at) else len(self.fractions) - 1

    def error(self, norms: list[np.ndarray], size: np.ndarray) -> np.ndarray:
        """(n,): from the norms of the estimates.

        With two, E5 and E3, it is |E5|^2 / sqrt(|E5|^2 + 0.01 |E3|^2), as in Hairer's DOP853.
        """
        if len(norms) == 1:
            return norms[0] * size
        fine, coarse = norms
        denominator = np.sqrt(fine * fine + 0.01 * (coarse * coarse))
        return size * fine * np.divide(fine, denominator, out=np.zeros_like(fine), where=denominator != 0)


class Norm:
    """sqrt(mean (e_i / (atol + rtol max(|x_i|, |new_i|)))^2) over each sample."""

    def __init__(self, rtol: float, atol: float, x: Tensor) -> None:
        self.rtol, self.atol = rtol, atol
        # A floor beyond the dtype's range outweighs any state; without one, zero would be divided by zero.
        floor = atol / rtol if rtol > 0 else math.inf
        self.relative = floor <= torch.finfo(x.dtype).max
        self.floor = max(floor, torch.finfo(x.dtype).tiny)
        self.width = x.shape[1:].numel()
        self.factor = 1 / ((rtol if self.relative else atol) * math.sqrt(max(1, self.width)))

    def __call__(self, e: Tensor, x: Tensor, new: Tensor) -> np.ndarray:
        """(n,), float64. Reads the device."""
        e, x, new = e.detach(), x.detach(), new.detach()
        scaled = e / torch.maximum(x.abs(), new.abs()).add_(self.floor) if self.relative else e
        if scaled.device.type == "cpu":
            return self.rows(scaled.numpy())
        flat = scaled.reshape(len(e), self.width)
        return torch.linalg.vector_norm(flat, dim=1).to(torch.float64).cpu().numpy() * self.factor

    def rows(self, scaled: np.ndarray) -> np.ndarray:
        """Root mean squares over rows, in units of the tolerance."""
        flat = scaled.reshape(len(scaled), self.width)
        return np.sqrt(np.einsum("ij,ij->i", flat, flat), dtype=np.float64) * self.factor


class Stages(ABC):
    """What evaluates a scheme."""

    def __init__(self, scheme: Scheme, norm: Norm) -> None:
        self.scheme, self.norm = scheme, norm

    @abstractmethod
    def run(self, call: Call, x: Tensor, slope: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor, np.ndarray]:
        """From x and the slope there: the new state, the slope at the last stage, and the error (n,)."""

    @abstractmethod
    def restore(self, new: Tensor, old: Tensor, bad: np.ndarray) -> Tensor:
        """`new`, with the rows `bad` of `old`; neither is changed."""

    def weights(self, at: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The weights, and those of the first estimate, of one sample in the last attempt."""
        return self.scheme.weights, self.scheme.estimates[0]

    @abstractmethod
    def slopes(self, at: int) -> list[Tensor]:
        """All slopes of one sample in the last attempt, flattened."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All slopes of the last attempt, (n, *shape) each."""


class OnTensors(Stages):
    """On tensors; gradients pass through states and slopes, not through the control of steps."""

    _slopes: list[Tensor]

    def restore(self, new: Tensor, old: Tensor, bad: np.ndarray) -> Tensor:
        rows = torch.from_numpy(bad).to(new.device)
        return new.index_copy(0, rows, old.index_select(0, rows))

    def slopes(self, at: int) -> list[Tensor]:
        return [k[at].detach().flatten() for k in self._slopes]

    def tensors(self) -> list[Tensor]:
        return self._slopes


class Tensors(OnTensors):
    """On tensors, with one set of weights for all samples."""

    def run(self, call: Call, x: Tensor, slope: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor, np.ndarray]:
        self._slopes, scheme = [slope], self.scheme
        for i, weights in enumerate(scheme.weights):
            last = i == len(scheme.weights) - 1
            node = scheme.node(i + 1)
            base = x if nodes.ratios is None else x * nodes.tensor(nodes.ratios[node], x)
            point = base + nodes.tensor(nodes.gains[node], x) * self._sum(weights)
            if not last or scheme.reuses_end:
                self._slopes.append(call(nodes.calls[node], point))
        with torch.no_grad():
            norms = [self.norm(self._sum(row), x, point) for row in scheme.estimates]
        return point, self._slopes[-1], scheme.error(norms, nodes.size)

    def _sum(self, weights: np.ndarray) -> Tensor:
        first, *rest = weights.tolist()
        total = self._slopes[0] * first
        for weight, slope in zip(rest, self._slopes[1:], strict=False):
            total.add_(slope * weight)  # ours, and no gradient needs what it was
        return total


class Varying(OnTensors):
    """On tensors, with weights for each sample's step."""

    def run(self, call: Call, x: Tensor, slope: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor, np.ndarray]:
        self._slopes, scheme, point = [slope], self.scheme, x
        self._weights, self._estimates = scheme.varying(nodes.gains[-1] / nodes.scale)
        for i, weights in enumerate(self._weights):
            node = scheme.node(i + 1)
            base = x if nodes.ratios is None else x * nodes.tensor(nodes.ratios[node], x)
            point = base + nodes.tensor(nodes.gains[node], x) * self._sum(weights)
            if i < len(self._weights) - 1:
                self._slopes.append(call(nodes.calls[node], point))
        with torch.no_grad():
            norms = [self.norm(self._sum(row), x, point) for row in self._estimates]
        return point, self._slopes[-1], scheme.error(norms, nodes.size)

    def weights(self, at: int) -> tuple[list[np.ndarray], np.ndarray]:
        return [w[:, at] for w in self._weights], self._estimates[0][:, at]

    def _sum(self, weights: np.ndarray) -> Tensor:
        total = self._slopes[0] * Nodes.tensor(weights[0], self._slopes[0])
        for weight, slope in zip(weights[1:], self._slopes[1:], strict=False):
            total.add_(slope * Nodes.tensor(weight, slope))
        return total


class Small(Stages):
    """On a CPU and without gradients, by `sdekit.math.stages`. Slopes are copied as they come, or written in place."""

    _sums: Sums | None = None

    def run(self, call: Call, x: Tensor, slope: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor, np.ndarray]:
        scheme, norm, sums = self.scheme, self.norm, self._sums
        if sums is None:
            sums = self._sums = Sums(x, scheme.weights, scheme.estimates, kernels(x))
        elif sums.shape != x.shape:
            sums.shrink(x)
        slopes, point = sums.slopes, x
        slopes[0].copy_(slope)
        # The same for all nodes: x_i = ratio_i (x + (gain_i / ratio_i) sum_j a_ij k_j).
        gains = torch.from_numpy(nodes.gains[-1] if nodes.ratios is None else nodes.gains[-1] / nodes.ratios[-1])
        ratios = None if nodes.ratios is None else torch.from_numpy(np.ascontiguousarray(nodes.ratios))
        for i in range(len(scheme.weights)):
            node = scheme.node(i + 1)
            point = sums.stage(i, x, gains, ratios, node)
            if i + 1 < len(slopes):
                found = call(nodes.calls[node], point, slopes[i + 1])
                if found is not slopes[i + 1]:
                    slopes[i + 1].copy_(found)
        floor = norm.floor if norm.relative else None
        norms = [norm.rows(sums.error(i, x, point, floor)) for i in range(len(scheme.estimates))]
        return point, slopes[-1].clone(), scheme.error(norms, nodes.size)

    def restore(self, new: Tensor, old: Tensor, bad: np.ndarray) -> Tensor:
        out = new.numpy().copy()
        out[bad] = old.numpy()[bad]
        return torch.from_numpy(out)

    def slopes(self, at: int) -> list[Tensor]:
        return [k[at].clone().flatten() for k in self.tensors()]

    def tensors(self) -> list[Tensor]:
        return [] if self._sums is None else [k.clone() for k in self._sums.slopes]
