"""The components of a Gaussian mixture under x_t = alpha x_0 + sigma eps: every conditional mean, density and Jacobian.

Component k of the data is N(m_k, C_k), so x_t has components N(alpha m_k, S_k), S_k = alpha^2 C_k + sigma^2 I. With the
responsibilities r_k = softmax_k(log w_k + log N(x; alpha m_k, S_k)),

    data  = sum_k r_k mu_k,   mu_k = m_k + alpha C_k S_k^{-1} (x - alpha m_k)
    noise = sum_k r_k sigma S_k^{-1} (x - alpha m_k)
    score = sum_k r_k s_k,    s_k = -S_k^{-1} (x - alpha m_k)

None of them divides by alpha or sigma, so all are finite at both ends as long as S_k is regular. Work is done in the
eigenbasis C_k = U_k diag(v_k) U_k^T, where S_k^{-1} is a division. Isotropic and diagonal components are further
written as matrix products (`expanded.py`); everything else goes through a loop over blocks of components that keeps the
sums of a softmax as it goes. No (B, K, d) array is ever made.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

__all__ = [
    "BLOCK",
    "DATA",
    "NOISE",
    "SCORE",
    "Components",
    "FullComponents",
    "OfRows",
    "Scales",
    "Want",
    "exponentials",
]

OfRows = Callable[[slice, Tensor], Tensor]

BLOCK = 2**16
"""Elements of a temporary: half a MiB in float64, which stays in a core's second-level cache."""


class Scales(NamedTuple):
    """alpha and sigma: floats for one time, or (B, 1) tensors for one time per sample."""

    alpha: Any
    sigma: Any

    @property
    def shared(self) -> bool:
        """Whether the whole batch is at one time."""
        return not isinstance(self.alpha, Tensor)

    def rows(self, rows: slice) -> Scales:
        """Those of some samples."""
        return self if self.shared else Scales(self.alpha[rows], self.sigma[rows])


class Want(NamedTuple):
    """The combination data E[x_0 | x] + noise E[eps | x] + score grad log p: what is to be evaluated.

    Each weight is a float, or a (B, 1) tensor for one value per sample.
    """

    data: Any
    noise: Any
    score: Any

    def rows(self, rows: slice) -> Want:
        """That of some samples."""
        return Want(*(w[rows] if isinstance(w, Tensor) else w for w in self))

    def gains(self, variance: Any, s: Any, alpha: Any, sigma: Any) -> tuple[Any, Any]:
        """(p, q) of one component: data m + p (x - alpha m) = p x + q m, per eigenvalue s = alpha^2 variance + sigma^2.

        q is data - alpha p in the form that does not subtract.
        """
        p = (self.data * alpha * variance + (self.noise * sigma - self.score)) / s
        q = (self.data * sigma**2 - (self.noise * sigma - self.score) * alpha) / s
        return p, q


DATA, NOISE, SCORE = Want(1.0, 0.0, 0.0), Want(0.0, 1.0, 0.0), Want(0.0, 0.0, 1.0)


def exponentials(logits: Tensor, top: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """e^(logits - top) and its sum over the first axis; top is the largest logit unless given.

    Without gradients the first argument, which must be a temporary, is overwritten. Logits are held above e^-472 (in
    float64), far below rounding: exponentials that underflow, and products with them, are up to thirty times slower.
    """
    top = logits.detach().amax(0) if top is None else top
    least = math.log(torch.finfo(logits.dtype).tiny) * 2 / 3
    if torch.is_grad_enabled():
        e = torch.exp((logits - top).clamp(min=least))
    else:
        e = logits.sub_(top).clamp(min=least).exp_()  # vmap has no rule for clamp_
    return e, e.sum(0)


@dataclass(frozen=True, eq=False)
class Components(ABC):
    """Weighted Gaussians in d dimensions.

    Args:
        log_weights: (K,), log of weights that sum to 1.
        means: (K, d), less `centre`.
        variances: (K, 1) isotropic or (K, d): the eigenvalues of the covariances.
        bases: (K, d, d), eigenvectors as columns, or None where the axes are the eigenvectors.
        centre: (d,), subtracted from the means, or None for zero.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    bases: Tensor | None = None
    centre: Tensor | None = None

    @property
    def count(self) -> int:
        """K."""
        return self.means.shape[0]

    @property
    def size(self) -> int:
        """d."""
        return self.means.shape[1]

    def to(self, dtype: torch.dtype, device: torch.device) -> Self:
        """The same components in another dtype or on another device."""
        names = ("log_weights", "means", "variances", "bases", "centre")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{n: v if v is None else v.to(dtype=dtype, device=device) for n, v in tensors.items()})

    # What callers use. x: (B, d) in the dtype and on the device of the components.

    def evaluate(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """The wanted combination of posterior means and score, (B, d)."""
        form = self._form(scales)
        result = form._result(scales, form._centred(scales, x), want)
        # The centre belongs to the data only; noise and score do not see it.
        return result if form.centre is None else result + want.data * form.centre

    def log_prob(self, scales: Scales, x: Tensor) -> Tensor:
        """log p_t(x), (B,)."""
        form = self._form(scales)
        return form._by_rows(form._centred(scales, x), form._density(scales))

    def jacobian(self, scales: Scales, x: Tensor) -> Tensor:
        """d data / dx, (B, d, d).

            J = sum_k r_k alpha C_k S_k^{-1} + sum_k r_k (mu_k - data) (s_k - score)^T,

        which is (alpha / sigma^2) Cov(x_0 | x) without the division.
        """
        x = self._centred(scales, x)
        data, score = self._direct(scales, x, DATA), self._direct(scales, x, SCORE)
        log_density = self._direct_log_prob(scales, x)
        jacobian = x.new_zeros(*x.shape, self.size)
        for block, logits, z, s in self._blocks(scales, x):
            r = torch.exp(logits - log_density)[..., None]
            gain = scales.alpha * self._spectrum(block)[:, None] / s
            mu = self.means[block, None] + self._lift(block, z, gain) - data
            change = r * (self._lift(block, z, -1 / s) - score)
            jacobian = jacobian + torch.einsum("kbi,kbj->bij", mu, change)
            jacobian = jacobian + self._conjugate(block, r * gain.expand_as(z))
        return 0.5 * (jacobian + jacobian.mT)

    # What a form provides: functions of (which rows, x of those rows less alpha centre), with what depends on the time
    # alone computed once. The result of an evaluator lacks want.data * centre.

    @abstractmethod
    def _evaluator(self, scales: Scales, want: Want) -> OfRows: ...

    @abstractmethod
    def _density(self, scales: Scales) -> OfRows: ...

    @abstractmethod
    def _rows(self) -> int:
        """How many samples to work on at once."""

    # The direct form: x - alpha m_k is formed before it is squared, so no digit is lost that x itself does not lose.

    def _direct(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """A softmax over blocks of components whose sums are rescaled when a larger logit appears."""
        top = x.new_full((len(x),), -math.inf)
        total, result = torch.zeros_like(top), torch.zeros_like(x)
        for block, logits, z, s in self._blocks(scales, x):
            new = torch.maximum(top, logits.detach().amax(0))
            e, part_total = exponentials(logits, new)
            p, _ = want.gains(self._spectrum(block)[:, None], s, *scales)
            parts = e[..., None] * self._lift(block, z, p)
            part = (parts[0] if len(parts) == 1 else parts.sum(0)) + want.data * (e.mT @ self.means[block])
            scale = torch.exp(top - new)
            total, result, top = total * scale + part_total, result * scale[:, None] + part, new
        return result / total[:, None]

    def _direct_log_prob(self, scales: Scales, x: Tensor) -> Tensor:
        return torch.logsumexp(torch.cat([logits for _, logits, _, _ in self._blocks(scales, x)]), 0)

    def _blocks(self, scales: Scales, x: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """For blocks of k components: which; logits log(w_k N(x)), (k, B); z = U_k^T (x - alpha m_k), (k, B, d); and
        the eigenvalues of S_k, (k, 1 or B, 1 or d).
        """
        step = max(1, min(self.count // 2, BLOCK // max(1, x.numel())))
        for start in range(0, self.count, step):
            block = slice(start, start + step)
            z = self._project(block, x - scales.alpha * self.means[block, None])
            s = scales.alpha**2 * self._spectrum(block)[:, None] + scales.sigma**2
            # One time for all: a product with a vector. One time per sample, or one variance for all axes: a sum.
            one_time = s.shape[1] == 1 and s.shape[2] == z.shape[2]
            quadratic = ((z * z) @ (1 / s).mT)[..., 0] if one_time else (z * z / s).sum(-1)
            log_det = self._log_det(s) + self.size * math.log(2 * math.pi)
            yield block, self.log_weights[block, None] - 0.5 * (quadratic + log_det), z, s

    # The eigenbases. Coordinates are (k, B, d) for a block of k components.

    def _spectrum(self, block: slice) -> Tensor:
        """The eigenvalues of C_k, one for each coordinate, or (k, 1) for one that all share."""
        return self.variances[block]

    def _project(self, block: slice, z: Tensor) -> Tensor:
        """U_k^T z."""
        return z if self.bases is None else z @ self.bases[block]

    def _lift(self, block: slice, z: Tensor, gain: Tensor) -> Tensor:
        """U_k diag(gain) z: from the eigenbasis back to the axes."""
        if self.bases is None:
            return z * gain
        if gain.shape[1] == 1:  # cheaper on the matrix than on the samples
            return z @ (self.bases[block] * gain).mT
        return (z * gain) @ self.bases[block].mT

    def _conjugate(self, block: slice, values: Tensor) -> Tensor:
        """sum_k U_k diag(values_kb) U_k^T, (B, d, d)."""
        if self.bases is None:
            return torch.diag_embed(values.sum(0))
        bases = self.bases[block]
        return torch.einsum("kij,kbj,klj->bil", bases, values, bases)

    def _log_det(self, s: Tensor) -> Tensor:
        """log det S_k from the eigenvalues of S_k."""
        return torch.log(s).sum(-1) * (self.size // s.shape[-1])

    def transform(self, k: int, z: Tensor, values: Tensor) -> Tensor:
        """U_k diag(values) U_k^T z for z (B, d); values are functions of `spectrum(k)`."""
        block = slice(k, k + 1)
        return self._lift(block, self._project(block, z[None]), values[None, None])[0]

    def spectrum(self, k: int) -> Tensor:
        """The eigenvalues of C_k, one for each coordinate of `transform`, or one that all share: (1,)."""
        return self._spectrum(slice(k, k + 1))[0]

    def colour(self, k: int, z: Tensor) -> Tensor:
        """Standard normals z (n, d) as draws of N(0, C_k)."""
        block = slice(k, k + 1)
        return self._lift(block, z[None], torch.sqrt(self._spectrum(block))[:, None])[0]

    def covariance(self, weights: Tensor) -> Tensor:
        """sum_k w_k C_k, (d, d)."""
        total = self.means.new_zeros(self.size, self.size)
        for k in range(self.count):  # never a (K, d, d) array
            block = slice(k, k + 1)
            values = self._spectrum(block)
            values = values.expand(1, self.size) if values.shape[1] == 1 else values
            total = total + self._conjugate(block, weights[k] * values[:, None])[0]
        return total

    # Shared by all forms.

    def _form(self, scales: Scales) -> Components:
        """These components, or the same ones without a centre where centring is not needed: it costs two passes."""
        return self

    def _result(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """The result at x less alpha centre; lacks want.data * centre."""
        return self._by_rows(x, self._evaluator(scales, want))

    def _centred(self, scales: Scales, x: Tensor) -> Tensor:
        return x if self.centre is None else x - scales.alpha * self.centre

    def _by_rows(self, x: Tensor, function: OfRows) -> Tensor:
        """`function` on blocks of samples, so that its temporaries stay small whatever B and K."""
        rows = self._rows()
        if len(x) <= rows:
            return function(slice(None), x)
        blocks = [slice(start, start + rows) for start in range(0, len(x), rows)]
        return torch.cat([function(block, x[block]) for block in blocks])


@dataclass(frozen=True, eq=False)
class FullComponents(Components):
    """Any covariances, by 2 K products of d x d: into each eigenbasis and back."""

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        return lambda rows, x: self._direct(scales.rows(rows), x, want.rows(rows))

    def _density(self, scales: Scales) -> OfRows:
        return lambda rows, x: self._direct_log_prob(scales.rows(rows), x)

    def _rows(self) -> int:
        return max(256, BLOCK // max(1, self.size))
