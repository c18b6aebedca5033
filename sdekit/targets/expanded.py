"""Isotropic and diagonal components as matrix products: |x - alpha m|^2 is expanded, and its error is controlled.

Expanded squares cost matrix products instead of K passes over the state, but cancel where x is near alpha m_k: logits
then carry an error of about eps alpha^2 |m|^2 / s beyond what the rounding of x itself causes (s the variance of x
given the component). Where that bound exceeds 4096 eps (1e-12 in float64) isotropic components take squares whose
leading part is exact (`_Split`), and diagonal ones take the direct form. Centring makes |m| the spread of the means.

Logits are (K, B), components first: a softmax over a short last axis is an order of magnitude slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdekit.targets.components import BLOCK, Components, OfRows, Scales, Want, exponentials

__all__ = ["DiagonalComponents", "IsotropicComponents"]

_SHARP = 4096.0
"""The largest alpha^2 |m|^2 / s at which plainly expanded squares are used."""

Logits = Callable[[Tensor], Tensor]
"""(rows, d) -> (K, rows)."""


@dataclass(frozen=True, eq=False)
class IsotropicComponents(Components):
    """Covariances v_k I: two matrix products."""

    def _rows(self) -> int:
        return _rows(self.count, self.size)

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        if not scales.shared:
            return lambda rows, x: self._evaluate_each(scales.rows(rows), x, want.rows(rows))
        if self._common is not None:
            return self._common_evaluator(scales, want)
        return _evaluator(self, scales, want, self._logits)

    def _density(self, scales: Scales) -> OfRows:
        if not scales.shared:
            return lambda rows, x: _log_sum(self._logits_each(scales.rows(rows), x), self.size)
        return _density(self, scales, self._logits)

    def _logits(self, scales: Scales, s: Tensor, table: Tensor) -> Logits:
        """log(w_k N(x)) + d/2 log(2 pi) at one time; s: (K, 1), table: means / s."""
        if not self._is_sharp(scales):
            return _plain_logits(self, scales, s, table)
        bias = self.log_weights[:, None] - (0.5 * self.size) * torch.log(s)
        slope = -0.5 * scales.alpha**2 / s
        return lambda x: bias + slope * self._split.squares(x / scales.alpha)

    def _common_evaluator(self, scales: Scales, want: Want) -> OfRows:
        """One time and one variance: |x|^2 is the same for all components and drops out of their logits."""
        alpha, sigma = scales
        s = alpha**2 * self._common + sigma**2
        p, q = want.gains(self._common, s, alpha, sigma)
        squares = -0.5 * alpha**2 / s
        bias = (self.log_weights + squares * self._square_norms)[:, None]
        sharp = self._is_sharp(scales)

        def evaluate(_: slice, x: Tensor) -> Tensor:
            if sharp:
                logits = torch.add(self.log_weights[:, None], self._split.squares(x / alpha), alpha=squares)
            else:
                logits = torch.addmm(bias, self.means, x.mT, alpha=alpha / s)
            e, total = exponentials(logits)
            # q sum_k r_k m_k, divided by the sum of e on the smaller side of the product.
            if self.count > self.size:
                means = (e.mT @ self.means) * (q / total)[:, None]
            else:
                means = (e * (q / total)).mT @ self.means
            return means.add_(x, alpha=p)

        return evaluate

    def _evaluate_each(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """One time per sample."""
        alpha, sigma = scales.alpha.mT, scales.sigma.mT
        e, total = exponentials(self._logits_each(scales, x))
        r = e / total
        weights = Want(*(w.mT if isinstance(w, Tensor) else w for w in want))
        p, q = weights.gains(self.variances, alpha**2 * self.variances + sigma**2, alpha, sigma)
        return (r * q).mT @ self.means + (r * p).sum(0)[:, None] * x

    def _logits_each(self, scales: Scales, x: Tensor) -> Tensor:
        alpha, sigma = scales.alpha.mT, scales.sigma.mT
        s = alpha**2 * self.variances + sigma**2  # (K, rows)
        bias = self.log_weights[:, None] - (0.5 * self.size) * torch.log(s)
        if self._is_sharp(scales):
            # A sample at alpha = 0 has no y = x / alpha; at this alpha the means are long lost in rounding.
            alpha = alpha.clamp(min=torch.finfo(x.dtype).tiny ** 0.25)
            return bias - (0.5 * alpha**2 / s) * self._split.squares(x / alpha.mT)
        constant = (x * x).sum(1) + alpha**2 * self._square_norms[:, None]
        return bias + (alpha * (self.means @ x.mT) - 0.5 * constant) / s

    def _is_sharp(self, scales: Scales) -> bool:
        """Whether plain expansion would lose digits. Reads scales that are tensors where the answer depends on them."""
        if self._radius2 <= _SHARP * self._least:
            return False
        ratio = scales.alpha**2 * self._radius2 / (scales.alpha**2 * self._least + scales.sigma**2)
        return ratio > _SHARP if scales.shared else bool((ratio > _SHARP).any())

    @cached_property
    def _common(self) -> float | None:
        """The variance that all components share, if they do."""
        first = self.variances[0, 0]
        return float(first) if bool((self.variances == first).all()) else None

    @cached_property
    def _square_norms(self) -> Tensor:
        return (self.means * self.means).sum(1)

    @cached_property
    def _radius2(self) -> float:
        return float(self._square_norms.max())

    @cached_property
    def _least(self) -> float:
        return float(self.variances.min())

    @cached_property
    def _split(self) -> _Split:
        return _Split.of(self.means)


@dataclass(frozen=True, eq=False)
class DiagonalComponents(Components):
    """Covariances diag(v_k): four matrix products at one time; the direct form at one time per sample."""

    def _rows(self) -> int:
        return _rows(self.count, self.size)

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        if not scales.shared or self._is_sharp(scales):
            return lambda rows, x: self._direct(scales.rows(rows), x, want.rows(rows))
        return _evaluator(self, scales, want, self._logits)

    def _density(self, scales: Scales) -> OfRows:
        if not scales.shared or self._is_sharp(scales):
            return lambda rows, x: self._direct_log_prob(scales.rows(rows), x)
        return _density(self, scales, self._logits)

    def _logits(self, scales: Scales, s: Tensor, table: Tensor) -> Logits:
        return _plain_logits(self, scales, s, table)

    def _is_sharp(self, scales: Scales) -> bool:
        """Whether plain expansion would lose digits; from host numbers only."""
        means2, least = self._extremes
        ratio = scales.alpha**2 * means2 / (scales.alpha**2 * least + scales.sigma**2)
        return float(ratio.sum()) > _SHARP

    @cached_property
    def _extremes(self) -> tuple[Tensor, Tensor]:
        """Per axis the largest squared mean and the least variance, on the host."""
        return (self.means**2).amax(0).cpu(), self.variances.amin(0).cpu()


# One time, any variances that are the same for all samples: (K, 1) isotropic or (K, d) diagonal.


def _rows(count: int, size: int) -> int:
    """Samples to a block: logits that stay in cache, but enough rows to hide that each product rearranges the means."""
    return max(128, BLOCK // count, min(size, 64 * BLOCK // count))


def _tables(c: Components, scales: Scales) -> tuple[Tensor, Tensor]:
    """s = alpha^2 v + sigma^2, (K, 1 or d), and means / s, (K, d)."""
    s = torch.mul(c.variances, scales.alpha**2).add_(scales.sigma**2)
    return s, c.means / s


def _plain_logits(c: Components, scales: Scales, s: Tensor, table: Tensor) -> Logits:
    """log(w_k N(x)) + d/2 log(2 pi) with the square expanded:

    -1/2 sum_i x_i^2 / s_i + alpha sum_i x_i m_i / s_i - 1/2 sum_i (alpha^2 m_i^2 / s_i + log s_i).
    """
    log_det = torch.log(s).sum(1) * (c.size // s.shape[1])
    norms = torch.linalg.vecdot(table, c.means)
    bias = (c.log_weights - 0.5 * (scales.alpha**2 * norms + log_det))[:, None]
    slopes = torch.cat([scales.alpha * table, -0.5 / s], 1)

    def logits(x: Tensor) -> Tensor:
        squares = x * x
        if s.shape[1] == 1:
            squares = squares.sum(1, keepdim=True)
        return torch.addmm(bias, slopes, torch.cat([x, squares], 1).mT)

    return logits


def _evaluator(
    c: Components, scales: Scales, want: Want, logits_of: Callable[[Scales, Tensor, Tensor], Logits]
) -> OfRows:
    """x sum_k r_k p_k + sum_k r_k q_k m_k with the p and q of `Want.gains`; q_k m_k is a multiple of the table."""
    s, table = _tables(c, scales)
    p, _ = want.gains(c.variances, s, *scales)
    _, multiple = want.gains(0.0, 1.0, *scales)  # q s
    logits = logits_of(scales, s, table)

    def evaluate(_: slice, x: Tensor) -> Tensor:
        e, total = exponentials(logits(x))
        if c.count > c.size:
            return torch.addmm((e.mT @ p) * x, e.mT, table, alpha=multiple) * (1 / total)[:, None]
        r = (e * (1 / total)).mT
        return torch.addmm((r @ p) * x, r, table, alpha=multiple)

    return evaluate


def _density(c: Components, scales: Scales, logits_of: Callable[[Scales, Tensor, Tensor], Logits]) -> OfRows:
    logits = logits_of(scales, *_tables(c, scales))
    return lambda _, x: _log_sum(logits(x), c.size)


def _log_sum(logits: Tensor, size: int) -> Tensor:
    return torch.logsumexp(logits, 0) - (0.5 * size) * math.log(2 * math.pi)


@dataclass(frozen=True)
class _Split:
    """|y - m_k|^2 by matrix products, to the accuracy of the differences themselves.

    y and m are cut at a fixed unit u into y = y_h + y_l, u small enough to keep many bits and large enough that
    products of the high parts, and their sums over d axes, are exact integers times u^2 in the dtype. Then

        |y - m|^2 = (|y_h|^2 - 2 y_h m_h + |m_h|^2)  +  y_l (y + y_h) - 2 (y_h m_l + y_l m) + m_l (m + m_h),

    where the bracket is exact and the rest is smaller by 2^-bits (2^-22 for d = 64 in float64). A y far outside the
    means loses exactness, where the distance is as large as its terms and there is nothing to cancel.
    """

    unit: float
    high: Tensor  # (K, d)
    low: Tensor  # (K, 2 d): what multiplies (y_h, y_l)
    high_squares: Tensor  # (K, 1)
    low_squares: Tensor  # (K, 1)

    @classmethod
    def of(cls, means: Tensor) -> _Split:
        precision = {torch.float64: 53, torch.float32: 24}[means.dtype]
        # Sums of d products below (2^bits)^2, times 4 for the square of a difference.
        bits = max(1, (precision - 2 - math.ceil(math.log2(means.shape[1]))) // 2)
        largest = float(means.abs().max())
        unit = 2.0 ** (math.frexp(largest)[1] - bits) if largest else 1.0
        high = torch.round(means / unit) * unit
        low = means - high
        return cls(
            unit,
            high,
            torch.cat([low, means], 1),
            (high * high).sum(1, keepdim=True),
            (low * (means + high)).sum(1, keepdim=True),
        )

    def squares(self, y: Tensor) -> Tensor:
        """|y - m_k|^2, (K, B); y: (B, d). Its gradient passes through the low part alone and is right."""
        high = torch.round(y.detach() / self.unit) * self.unit
        low = y - high
        leading = (high * high).sum(1) - 2 * (self.high @ high.mT) + self.high_squares
        rest = (low * (y + high)).sum(1) + self.low_squares - 2 * (self.low @ torch.cat([high, low], 1).mT)
        return leading + rest


def _columns(*values: float | Tensor) -> tuple:
    """Per-sample values (B, 1) as (1, B), beside logits of shape (K, B); floats stay."""
    return tuple(v.mT if isinstance(v, Tensor) else v for v in values)
