"""One attempted step of every sample under way: stages, the new state, and the size of its error.

Twice: on tensors, for any device, size and gradients; and on NumPy arrays that share their memory, for states of few
elements on a CPU, where an operation of NumPy costs a fraction of one of PyTorch. Both make the same operations in the
same order, so that they agree to the bit: elementwise products and sums, never a product of matrices or a fused
multiplication and addition, whose rounding depends on the size of the batch. And once more, on tensors, for pairs whose
weights depend on the step: those of exponential methods.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.control.nodes import Nodes, times_rows

__all__ = ["Arrays", "Norm", "Scheme", "Stages", "Tensors", "Varying"]

Call = Callable[[Any, Tensor], Tensor]


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


class Arrays(Stages):
    """On NumPy arrays, without gradients. Outputs of the dynamics are copied as they come."""

    _shape: tuple[int, ...] | None = None

    def run(self, call: Call, x: Tensor, slope: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor, np.ndarray]:
        scheme, norm, base = self.scheme, self.norm, x.numpy()
        if base.shape != self._shape:
            self._prepare(base)
        slopes, count = self._slopes, len(self._slopes)
        slopes[0] = slope.numpy()
        # The same for all nodes: x_i = ratio_i (x + (gain_i / ratio_i) sum_j a_ij k_j).
        gain = nodes.gains[-1] if nodes.ratios is None else nodes.gains[-1] / nodes.ratios[-1]
        gain = gain.astype(base.dtype, copy=False)
        total = base
        for i, (node, made, products, weights) in enumerate(self._stages, 1):
            np.multiply(made, weights, out=products)
            total = products[0].copy() if i == 1 else np.add.reduce(products, 0)
            times_rows(total, gain, out=total)
            total += base
            if nodes.ratios is not None:
                times_rows(total, nodes.ratios[node].astype(base.dtype, copy=False), out=total)
            if i < count:
                slopes[i] = call(nodes.calls[node], torch.from_numpy(total)).numpy()
        norms = []
        for weights in self._estimates:
            e = np.add.reduce(np.multiply(slopes, weights, out=self._products), 0)
            if norm.relative:
                size = np.maximum(np.abs(base), np.abs(total))
                size += norm.floor
                e /= size
            norms.append(norm.rows(e))
        return torch.from_numpy(total), torch.from_numpy(slopes[-1].copy()), scheme.error(norms, nodes.size)

    def restore(self, new: Tensor, old: Tensor, bad: np.ndarray) -> Tensor:
        out = new.numpy().copy()
        out[bad] = old.numpy()[bad]
        return torch.from_numpy(out)

    def slopes(self, at: int) -> list[Tensor]:
        return [torch.from_numpy(k.flatten()) for k in self._slopes[:, at]]

    def tensors(self) -> list[Tensor]:
        return [torch.from_numpy(k.copy()) for k in self._slopes]

    def _prepare(self, state: np.ndarray) -> None:
        """Buffers for this many samples: slopes, and their products with weights, (slopes, n, *shape)."""
        scheme, self._shape = self.scheme, state.shape
        shape = (scheme.estimates.shape[1], *state.shape)
        self._slopes, self._products = np.zeros(shape, state.dtype), np.zeros(shape, state.dtype)
        column = (-1, *(1,) * state.ndim)
        self._estimates = [row.astype(state.dtype).reshape(column) for row in scheme.estimates]
        self._stages = [
            (scheme.node(i), self._slopes[:i], self._products[:i], w.astype(state.dtype).reshape(column))
            for i, w in enumerate(scheme.weights, 1)
        ]
