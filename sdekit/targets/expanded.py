"""Isotropic and diagonal components as matrix products: |x - alpha m|^2 is expanded, and its error is controlled.

Expanded squares cost matrix products instead of K passes over the state, but cancel where x is near alpha m_k: logits
then carry an error of about eps alpha^2 |m|^2 / s beyond what the rounding of x itself causes (s the variance of x
given the component). Where that bound exceeds 4096 eps (1e-12 in float64) means are taken from their centre; where it
still does, isotropic components take squares whose leading part is exact (`Split`), and diagonal ones the direct form.

A product whose two sides are (B, d) and (d, K) is followed by a softmax over K and a product with (K, d). A softmax
over a short last axis is an order of magnitude slower, so that logits lie components first where these are few; over a
long last axis it is the fastest of all, so that they lie samples first where components are many.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdekit.math.softmax import Logits, fused_softmax
from sdekit.shapes import overwritable, uninitialised_like
from sdekit.targets.components import DATA, Components, OfRows, Scales, Want
from sdekit.targets.squares import Split, add

__all__ = ["SHARP", "DiagonalComponents", "Expanded", "IsotropicComponents", "uncentred"]

SHARP = 4096.0
"""The largest alpha^2 |m|^2 / s at which plainly expanded squares are used."""

_FEW = 32
"""Below this many components logits lie (K, B), else (B, K)."""

_LOGITS = 2**16
"""Logits to a block: half a MiB in float64, so that two such buffers stay in a core's second-level cache."""


_LONG, _LARGE = 256, 2**14
"""PyTorch's softmax is the fastest below _LARGE elements and along axes from _LONG; else its parts are."""


class _Terms(NamedTuple):
    """What depends on the time alone, where the whole batch is at one time. With z_bk = sum_i x_bi rates_ki,

        logits  = bias_k + scale_k z_bk + squares_k |x_b|^2    (or + sum_i squares_ki x_bi^2)
        result  = sum_k r_bk factor_k table_ki + x_bi sum_k r_bk gain_k    (or gain_ki),

    less what is the same for all components. Entries with one value per component, (K,) or (K, 1) as logits lie, are
    floats where all components share it.
    """

    rates: Tensor
    scale: Any
    squares: Tensor | None
    bias: Tensor
    table: Tensor
    factor: Any
    gain: Any


@dataclass(frozen=True, eq=False)
class Expanded(Components):
    """Components whose logits come from matrix products, where no digits are lost by that."""

    @property
    @abstractmethod
    def _uncentred(self) -> Expanded: ...

    @abstractmethod
    def is_sharp(self, scales: Scales) -> bool:
        """Whether plain expansion would lose digits. Reads scales that are tensors where the answer depends on them."""

    def _form(self, scales: Scales) -> Components:
        if self.centre is None or self._uncentred.is_sharp(scales):
            return self
        return self._uncentred

    # How logits lie.

    @property
    def _few(self) -> bool:
        return self.count < _FEW

    def _product(self, x: Tensor, table: Tensor, out: Tensor | None = None) -> Tensor:
        """sum_i x_bi table_ki as logits lie."""
        return torch.mm(table, x.mT, out=out) if self._few else torch.mm(x, table.mT, out=out)

    def _column(self, values: Tensor) -> Tensor:
        """Values of the components, (K,), beside logits."""
        return values[:, None] if self._few else values

    def _row(self, values: Tensor) -> Tensor:
        """Values of the samples, (B,), beside logits."""
        return values if self._few else values[:, None]

    def _responsibilities(self, logits: Tensor, out: Tensor | None = None) -> Tensor:
        """The softmax over the components, (B, K), held above e^-472 (in float64), far below rounding.

        A product with numbers that underflow is up to two hundred times slower.
        """
        axis = 0 if self._few else 1
        least = _least(logits)
        if out is None or self.count >= _LONG:
            r = torch.softmax(logits, axis, out=out)
            r = r.clamp_min(least) if torch.is_grad_enabled() else r.clamp_min_(least)
        else:
            r = torch.sub(logits, logits.amax(axis, keepdim=True), out=out).clamp_min_(math.log(least)).exp_()
            r.mul_(1 / r.sum(axis, keepdim=True))
        return r.mT if self._few else r

    def _log_sum(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits, 0 if self._few else 1) - (0.5 * self.size) * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class _Tabled(Expanded):
    """What isotropic and diagonal components have in common."""

    @abstractmethod
    def _make_terms(self, scales: Scales, want: Want) -> _Terms: ...

    def _rows(self) -> int:
        # Enough rows to a product to hide that each of them rearranges the means.
        return max(128, _LOGITS // self.count, self.size)

    def _terms(self, scales: Scales, want: Want) -> _Terms:
        """The terms of the last time asked for are kept: multistage methods and chunks of samples ask again."""
        if _in_capture(self.means):
            return self._make_terms(scales, want)
        key = (scales, want)
        kept = vars(self).get("_kept")
        if kept is None or kept[0] != key:
            with torch.inference_mode(False):  # so that calls with gradients can use them too
                kept = (key, self._make_terms(scales, want))
            vars(self)["_kept"] = kept
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def _result(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        large = len(x) * self.count >= _LARGE
        if large and scales.shared and not self.is_sharp(scales) and overwritable(x):
            return self._in_buffers(self._terms(scales, want), x)
        return super()._result(scales, x, want)

    def _in_buffers(self, terms: _Terms, x: Tensor) -> Tensor:
        """The result by blocks of samples which share two buffers: fresh memory costs as much as a product."""
        rows = max(1, min(self._rows(), len(x)))
        result = uninitialised_like(x)
        shape = (2, self.count, rows) if self._few else (2, rows, self.count)
        buffers = uninitialised_like(x.new_zeros(()).expand(shape))
        for start in range(0, len(x), rows):
            block = x[start : start + rows]
            z, r = buffers.unbind() if len(block) == rows else buffers.narrow(2 if self._few else 1, 0, len(block))
            self._average(terms, self._softmax(terms, block, z, r), block, result[start : start + rows])
        return result

    def _softmax(self, terms: _Terms, x: Tensor, out: Tensor, spare: Tensor) -> Tensor:
        """The responsibilities of these rows; both buffers are overwritten."""
        z, norms = self._products(terms, x, out, spare), self._norms(terms, x)
        logits = Logits(terms.bias, terms.scale, None if norms is None else terms.squares, norms)
        if fused_softmax(z, logits, math.log(_least(z)), 0 if self._few else 1):
            return z.mT if self._few else z
        return self._responsibilities(self._completed(terms, z, norms, spare), spare)

    def _logits(self, terms: _Terms, x: Tensor) -> Tensor:
        """The logits of these rows."""
        return self._completed(terms, self._products(terms, x), self._norms(terms, x))

    def _products(self, terms: _Terms, x: Tensor, out: Tensor | None = None, spare: Tensor | None = None) -> Tensor:
        """z of the terms, with all that takes a matrix product."""
        z = self._product(x, terms.rates, out)
        if terms.squares is None or isinstance(terms.scale, Tensor):
            return z
        return add(z, self._product(x * x, terms.squares, spare))

    def _norms(self, terms: _Terms, x: Tensor) -> Tensor | None:
        """|x_b|^2, (B,), where logits depend on it."""
        return torch.linalg.vecdot(x, x) if isinstance(terms.scale, Tensor) else None

    def _completed(self, terms: _Terms, z: Tensor, norms: Tensor | None, spare: Tensor | None = None) -> Tensor:
        """The logits, with gradients or in place of z; `spare` is overwritten."""
        out = None if spare is None else z
        if norms is None or terms.squares is None:
            return torch.add(terms.bias, z, alpha=terms.scale, out=out)
        rest = torch.addcmul(terms.bias, terms.squares, self._row(norms), out=spare)
        return torch.addcmul(rest, terms.scale, z, out=out)

    def _combine(self, terms: _Terms, logits: Tensor, x: Tensor) -> Tensor:
        return self._average(terms, self._responsibilities(logits), x)

    def _average(self, terms: _Terms, r: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The result for these rows and their responsibilities; with `out` both are overwritten."""
        if not isinstance(terms.gain, Tensor):
            return add(torch.addmm(x, r, terms.table, beta=0, alpha=terms.factor, out=out), x, terms.gain)
        gain = r @ terms.gain
        if isinstance(terms.factor, Tensor):
            r = torch.mul(r, terms.factor, out=None if out is None else r)
        result = torch.mm(r, terms.table, out=out)
        return torch.addcmul(result, x, gain if gain.ndim == 2 else gain[:, None], out=out)


@dataclass(frozen=True, eq=False)
class IsotropicComponents(_Tabled):
    """Covariances v_k I: two matrix products."""

    def is_sharp(self, scales: Scales) -> bool:
        if self._radius2 <= SHARP * self._least:
            return False
        ratio = scales.alpha**2 * self._radius2 / (scales.alpha**2 * self._least + scales.sigma**2)
        return ratio > SHARP if scales.shared else bool((ratio > SHARP).any())

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        if not scales.shared:
            return lambda rows, x: self._evaluate_each(scales.rows(rows), x, want.rows(rows))
        terms = self._terms(scales, want)
        if self.is_sharp(scales):
            return lambda _, x: self._combine(terms, self._sharp_logits(scales, x), x)
        return lambda _, x: self._combine(terms, self._logits(terms, x), x)

    def _density(self, scales: Scales) -> OfRows:
        if not scales.shared:
            return lambda rows, x: self._log_sum(self._logits_each(scales.rows(rows), x))
        if self.is_sharp(scales):
            return lambda _, x: self._log_sum(self._sharp_logits(scales, x))
        terms = self._general_terms(scales, DATA)
        return lambda _, x: self._log_sum(self._logits(terms, x))

    def _make_terms(self, scales: Scales, want: Want) -> _Terms:
        if self._common is None:
            return self._general_terms(scales, want)
        # |x|^2 is the same for all components and drops out.
        alpha, sigma = scales
        s = alpha**2 * self._common + sigma**2
        gain, factor = want.gains(self._common, s, alpha, sigma)
        bias = torch.add(self.log_weights, self._square_norms, alpha=-0.5 * alpha**2 / s)
        return _Terms(self.means, alpha / s, None, self._column(bias), self.means, factor, gain)

    def _general_terms(self, scales: Scales, want: Want) -> _Terms:
        alpha, sigma = scales
        variances = self.variances[:, 0]
        s = alpha**2 * variances + sigma**2
        gain, factor = want.gains(variances, s, alpha, sigma)
        bias = self.log_weights - 0.5 * (alpha**2 * self._square_norms / s + self.size * torch.log(s))
        scale, squares, bias = (self._column(v) for v in (alpha / s, -0.5 / s, bias))
        return _Terms(self.means, scale, squares, bias, self.means, factor, gain)

    def _sharp_logits(self, scales: Scales, x: Tensor) -> Tensor:
        """log(w_k N(x)) + d/2 log(2 pi) at one time."""
        s = scales.alpha**2 * self.variances[:, 0] + scales.sigma**2
        bias = self.log_weights - (0.5 * self.size) * torch.log(s)
        slope = -0.5 * scales.alpha**2 / s
        return torch.addcmul(self._column(bias), self._column(slope), self._squares(x / scales.alpha))

    def _evaluate_each(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """One time per sample."""
        if self._common is not None:
            return self._evaluate_common(scales, x, want)
        r = self._responsibilities(self._logits_each(scales, x))
        variances = self.variances[:, 0]
        p, q = want.gains(variances, scales.alpha**2 * variances + scales.sigma**2, *scales)
        return add((r * q) @ self.means, (r * p).sum(1, keepdim=True) * x)

    def _evaluate_common(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """One time per sample, one variance: |x|^2 is the same for all components and drops out."""
        alpha, sigma = scales
        s = alpha * alpha * self._common + sigma * sigma
        p, q = want.gains(self._common, s, alpha, sigma)
        slope = alpha / s
        base, factor = self._column(self.log_weights), self._row((-0.5 * alpha * slope)[:, 0])
        if self.is_sharp(scales):
            # A sample at alpha = 0 has no y = x / alpha; at this alpha the means are long lost in rounding.
            logits = torch.addcmul(base, factor, self._squares(x / alpha.clamp(min=_least_alpha(x))))
        else:
            base = torch.addcmul(base, factor, self._column(self._square_norms))
            logits = torch.addcmul(base, self._row(slope[:, 0]), self._product(x, self.means))
        return torch.addcmul((self._responsibilities(logits) @ self.means) * q, x, p)

    def _logits_each(self, scales: Scales, x: Tensor) -> Tensor:
        """log(w_k N(x)) + d/2 log(2 pi) at one time per sample."""
        alpha, sigma = (self._row(v[:, 0]) for v in scales)
        s = alpha**2 * self._column(self.variances[:, 0]) + sigma**2
        log_weights, norms = self._column(self.log_weights), self._column(self._square_norms)
        base = log_weights - (0.5 * self.size) * torch.log(s)
        if self.is_sharp(scales):
            least = _least_alpha(x)
            return base - (0.5 * alpha.clamp(min=least) ** 2 / s) * self._squares(x / scales.alpha.clamp(min=least))
        constant = 0.5 * (self._row(torch.linalg.vecdot(x, x)) + alpha**2 * norms)
        return base + (alpha * self._product(x, self.means) - constant) / s

    def _squares(self, y: Tensor) -> Tensor:
        squares = self._split.squares(y)
        return squares.mT if self._few else squares

    @cached_property
    def _uncentred(self) -> IsotropicComponents:
        return uncentred(self)

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
    def _split(self) -> Split:
        return Split.of(self.means)


@dataclass(frozen=True, eq=False)
class DiagonalComponents(_Tabled):
    """Covariances diag(v_k): four matrix products at one time; the direct form at one time per sample."""

    def is_sharp(self, scales: Scales) -> bool:
        means2, least = self._extremes
        ratio = scales.alpha**2 * means2 / (scales.alpha**2 * least + scales.sigma**2)
        return float(ratio.sum()) > SHARP

    def _form(self, scales: Scales) -> Components:
        return super()._form(scales) if scales.shared else self

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        if not scales.shared or self.is_sharp(scales):
            return lambda rows, x: self._direct(scales.rows(rows), x, want.rows(rows))
        terms = self._terms(scales, want)
        return lambda _, x: self._combine(terms, self._logits(terms, x), x)

    def _density(self, scales: Scales) -> OfRows:
        if not scales.shared or self.is_sharp(scales):
            return lambda rows, x: self._direct_log_prob(scales.rows(rows), x)
        terms = self._terms(scales, DATA)
        return lambda _, x: self._log_sum(self._logits(terms, x))

    def _make_terms(self, scales: Scales, want: Want) -> _Terms:
        alpha, sigma = scales
        s = torch.mul(self.variances, alpha**2).add_(sigma**2)
        table = self.means / s
        gain, _ = want.gains(self.variances, s, alpha, sigma)
        _, factor = want.gains(0.0, 1.0, alpha, sigma)  # q s
        norms = torch.linalg.vecdot(table, self.means)
        bias = self.log_weights - 0.5 * (alpha**2 * norms + torch.log(s).sum(1))
        rates, squares = alpha * table, s.reciprocal_().mul_(-0.5)
        return _Terms(rates, 1.0, squares, self._column(bias), table.mul_(factor), 1.0, gain)

    @cached_property
    def _uncentred(self) -> DiagonalComponents:
        return uncentred(self)

    @cached_property
    def _extremes(self) -> tuple[Tensor, Tensor]:
        """Per axis the largest squared mean and the least variance, on the host."""
        return (self.means**2).amax(0).cpu(), self.variances.amin(0).cpu()


def _least(logits: Tensor) -> float:
    """What responsibilities are held above."""
    return torch.finfo(logits.dtype).tiny ** (2 / 3)


def _least_alpha(x: Tensor) -> float:
    """What takes the place of alpha = 0, where the means are long lost in rounding."""
    return torch.finfo(x.dtype).tiny ** 0.25


def uncentred(c: Any) -> Any:
    """The same components with their means as they are."""
    return c if c.centre is None else replace(c, means=c.means + c.centre, centre=None)


def _in_capture(x: Tensor) -> bool:
    """Whether a CUDA graph is made: what is computed has no value before its replay, and its memory is the graph's."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
