"""Components of low rank plus isotropic: C_k = F_k F_k^T + v_k I with F_k (d, r), r far below d.

With F_k = U_k diag(sqrt(l_k)) V^T, S_k has the eigenvalues s_ki = alpha^2 (l_ki + v_k) + sigma^2 on the r columns of
U_k and s_k = alpha^2 v_k + sigma^2 on the rest. No matrix of d x d is ever made. With c_ki = U_k^T (x - alpha m_k),

    |x - alpha m_k|^2_{S^{-1}} = |x - alpha m_k|^2 / s_k - sum_i c_ki^2 alpha^2 l_ki / (s_k s_ki),

and a posterior mean needs no more than the products of x with all U_k and with all m_k, and their transposes. Where
that would cancel digits, components project in turn and keep what is left over as a vector of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from sdekit.errors import OptionError, ShapeError
from sdekit.targets.components import BLOCK, OfRows, Scales, Want
from sdekit.targets.expanded import SHARP, Expanded, uncentred

__all__ = ["LowRank", "LowRankComponents"]


@dataclass(frozen=True, eq=False)
class LowRank:
    """Covariances F_k F_k^T + v_k I for `GaussianMixture`, kept as they are: up to thousands of dimensions.

    Args:
        factors: (K, d, r), F_k; d is the number of elements of a sample, r at most d.
        diagonal: the variances v_k >= 0 of all axes: a number, or (K,).
    """

    factors: Any
    diagonal: Any


@dataclass(frozen=True, eq=False)
class LowRankComponents(Expanded):
    """`variances` (K, 1 + r): that of the rest, then those along the columns of `bases` (K, d, r)."""

    @classmethod
    def of(cls, log_weights: Tensor, means: Tensor, factors: Tensor, diagonal: Tensor, centre: Tensor | None) -> Any:
        """From float64 tensors. Raises ShapeError and OptionError for what does not fit the means (K, d)."""
        count, d = means.shape
        if factors.ndim != 3 or factors.shape[:2] != (count, d) or not 1 <= factors.shape[2] <= d:
            raise ShapeError(
                "factors",
                got=f"shape {tuple(factors.shape)}",
                expected=f"({count}, {d}, r) with 1 <= r <= {d}",
                fix="Pass one matrix (d, r) per component, d the number of elements of a sample.",
            )
        if diagonal.shape not in ((), (count,)):
            raise ShapeError(
                "diagonal",
                got=f"shape {tuple(diagonal.shape)}",
                expected=f"a number or ({count},)",
                fix="A variance for each axis makes a full covariance: pass (K, d, d).",
            )
        if bool((diagonal < 0).any()):
            raise OptionError(
                "diagonal",
                got=f"a variance of {float(diagonal.min()):g}",
                expected="variances >= 0",
                fix="Pass variances, not logarithms.",
            )
        bases, singular, _ = torch.linalg.svd(factors, full_matrices=False)
        rest = diagonal.to(means.device).expand(count)[:, None]
        return cls(log_weights, means, torch.cat([rest, singular**2 + rest], 1), bases.contiguous(), centre)

    def is_sharp(self, scales: Scales) -> bool:
        reach = scales.alpha**2 * self._reach2
        ratio = reach / (scales.alpha**2 * self._least + scales.sigma**2)
        return ratio > SHARP if scales.shared else bool((ratio > SHARP).any())

    def _rows(self) -> int:
        return max(128, BLOCK // (self.count * self._rank))

    def _evaluator(self, scales: Scales, want: Want) -> OfRows:
        if self.is_sharp(scales):
            return lambda rows, x: self._direct(scales.rows(rows), x, want.rows(rows))
        return lambda rows, x: self._expand(scales.rows(rows), x, want.rows(rows))

    def _density(self, scales: Scales) -> OfRows:
        if self.is_sharp(scales):
            return lambda rows, x: self._direct_log_prob(scales.rows(rows), x)
        return lambda rows, x: self._log_sum(self._beside(self._parts(scales.rows(rows), x)[0]))

    def _expand(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        alpha, sigma = scales
        logits, c, s, s_along = self._parts(scales, x)
        r = self._responsibilities(self._beside(logits))
        p, q = want.gains(self.variances[:, 0], s, alpha, sigma)
        # The gain along a column less that of the rest is alpha l q / s_along: nothing is subtracted.
        along = c * ((r * q)[..., None] * (_column(alpha) * self._spread / s_along))
        return (r * p).sum(1, keepdim=True) * x + (r * q) @ self.means + along.flatten(1) @ self._columns

    def _parts(self, scales: Scales, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits + d/2 log(2 pi), (B, K); c (B, K, r); and eigenvalues of S_k: (K,) or (B, K), (K, r) or (B, K, r)."""
        alpha, sigma = scales
        a, v = _column(alpha), self.variances
        s = alpha**2 * v[:, 0] + sigma**2
        s_along = a**2 * v[:, 1:] + _column(sigma) ** 2
        c = (x @ self._columns.mT).unflatten(1, (self.count, self._rank)) - a * self._means_along
        squares = torch.linalg.vecdot(x, x)[:, None] - 2 * alpha * (x @ self.means.mT) + alpha**2 * self._square_norms
        inside = (c * c * (a**2 * self._spread / s_along)).sum(-1)
        log_det = (self.size - self._rank) * torch.log(s) + torch.log(s_along).sum(-1)
        return self.log_weights - 0.5 * ((squares - inside) / s + log_det), c, s, s_along

    def _beside(self, logits: Tensor) -> Tensor:
        """Logits (B, K) as they lie."""
        return logits.mT.contiguous() if self._few else logits

    # What is left over is kept as d further coordinates: |x - alpha m|^2 - |c|^2 would cancel.

    def _spectrum(self, block: slice) -> Tensor:
        v = self.variances[block]
        return torch.cat([v[:, :1].expand(-1, self.size), v[:, 1:]], 1)

    def _project(self, block: slice, z: Tensor) -> Tensor:
        c = z @ self._bases[block]
        return torch.cat([z - c @ self._bases[block].mT, c], -1)

    def _lift(self, block: slice, z: Tensor, gain: Tensor) -> Tensor:
        z = z * gain
        return z[..., : self.size] + z[..., self.size :] @ self._bases[block].mT

    def colour(self, k: int, z: Tensor) -> Tensor:
        return self.transform(k, z, torch.sqrt(self.spectrum(k)))

    def _conjugate(self, block: slice, values: Tensor) -> Tensor:
        rest, along = values[..., :1], values[..., self.size :]
        identity = torch.eye(self.size, dtype=values.dtype, device=values.device)
        bases = self._bases[block]
        return rest.sum(0)[..., None] * identity + torch.einsum("kij,kbj,klj->bil", bases, along - rest, bases)

    def _log_det(self, s: Tensor) -> Tensor:
        return (self.size - self._rank) * torch.log(s[..., 0]) + torch.log(s[..., self.size :]).sum(-1)

    @property
    def _rank(self) -> int:
        return self._bases.shape[2]

    @property
    def _bases(self) -> Tensor:
        return cast(Tensor, self.bases)

    @cached_property
    def _uncentred(self) -> LowRankComponents:
        return uncentred(self)

    @cached_property
    def _columns(self) -> Tensor:
        """All columns of all bases as rows, (K r, d)."""
        return self._bases.mT.reshape(-1, self.size).contiguous()

    @cached_property
    def _means_along(self) -> Tensor:
        """U_k^T m_k, (K, r)."""
        return (self.means[:, None] @ self._bases)[:, 0]

    @cached_property
    def _spread(self) -> Tensor:
        """l_k, (K, r)."""
        return self.variances[:, 1:] - self.variances[:, :1]

    @cached_property
    def _square_norms(self) -> Tensor:
        return (self.means * self.means).sum(1)

    @cached_property
    def _reach2(self) -> float:
        """The size of x / alpha, squared, beyond what noise and `_least` explain."""
        return float((self._square_norms + self._spread.sum(1)).max())

    @cached_property
    def _least(self) -> float:
        return float(self.variances[:, 0].min())


def _column(scale: Any) -> Any:
    """alpha or sigma beside (B, K, r)."""
    return scale[..., None] if isinstance(scale, Tensor) else scale
