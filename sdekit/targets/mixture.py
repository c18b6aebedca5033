"""Gaussian mixtures: the target whose score, posterior mean, density and samples are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdekit.affine import AffineSDE
from sdekit.errors import InterfaceError, OptionError, ShapeError
from sdekit.math.philox import normals
from sdekit.shapes import check_state, compute_dtype, uninitialised_like
from sdekit.targets.components import Components, FullComponents, Scales, Want
from sdekit.targets.exact import ExactModel
from sdekit.targets.expanded import DiagonalComponents, IsotropicComponents
from sdekit.targets.low_rank import LowRank, LowRankComponents
from sdekit.times import check_count

__all__ = ["DATA_STREAM", "GaussianMixture", "as_array"]

DATA_STREAM = 160
"""The random stream of the data of targets; 161 is that of the noise in marginals, 162 that of random parameters."""


class GaussianMixture:
    """sum_k w_k N(m_k, C_k) over states of any shape.

    Parameters are kept in float64, and everything is computed in it: a state is cast to the mixture's dtype and the
    answer back to the state's computing dtype (its own, or float32 for half precisions). `to` makes a copy in another
    dtype or on another device.

    Args:
        weights: (K,), positive; divided by their sum.
        means: (K, d) or (K, *shape); samples are (n, *shape). d is the number of elements of a sample.
        covariances: a number or (K,): v_k I. (K, d) or (K, *shape): diagonal. (K, d, d): full, symmetric. A `LowRank`:
            F_k F_k^T + v_k I, without any matrix of d x d.
            Variances of zero are accepted (point masses); such a mixture has no density, score or noise at sigma = 0.

    Raises:
        InterfaceError: for what is no array of real numbers.
        ShapeError: for shapes that do not fit.
        OptionError: for a weight that is not positive, a covariance that is not symmetric or has a negative variance,
            or anything that is not finite.
    """

    def __init__(self, weights: Any, means: Any, covariances: Any) -> None:
        w, m = as_array("weights", weights), as_array("means", means)
        if isinstance(covariances, LowRank):
            c = LowRank(as_array("factors", covariances.factors), as_array("diagonal", covariances.diagonal))
        else:
            c = as_array("covariances", covariances)
        if m.ndim < 2 or 0 in m.shape:
            raise ShapeError("means", got=f"shape {tuple(m.shape)}", expected="(K, d) or (K, *shape)", fix=_FIX_MEANS)
        if w.shape != m.shape[:1]:
            raise ShapeError(
                "weights", got=f"shape {tuple(w.shape)}", expected=f"({len(m)},)", fix="Pass one per mean."
            )
        if not bool((w > 0).all()):
            raise OptionError(
                "weights",
                got=f"a weight of {float(w.min()):g}",
                expected="positive weights",
                fix="Drop that component.",
            )
        self.shape = tuple(m.shape[1:])
        self.weights = w / w.sum()
        self.means = m
        self.components = _components(self.weights, m, c)
        self.has_point_masses = bool((self.components.variances == 0).any())

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
        """A copy that computes in `dtype` (float32 or float64) on `device`. float32 is faster, but no reference."""
        dtype, target = dtype or self.dtype, self.device if device is None else torch.device(device)
        if dtype not in (torch.float32, torch.float64):
            raise OptionError("dtype", got=str(dtype), expected="float32 or float64", fix="States may be of any dtype.")
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.weights, copy.means = self.weights.to(target, dtype), self.means.to(target, dtype)
        copy.components = self.components.to(dtype, target)
        return copy

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that answers are computed in."""
        return self.means.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where states must be."""
        return self.means.device

    @property
    def size(self) -> int:
        """d, the number of elements of one sample."""
        return self.components.size

    @property
    def mean(self) -> Tensor:
        """The mean, (*shape)."""
        return (self.weights @ self.means.flatten(1)).reshape(self.shape)

    @property
    def cov(self) -> Tensor:
        """The covariance matrix, (d, d): sum_k w_k (C_k + (m_k - mean)(m_k - mean)^T)."""
        m = self.means.flatten(1) - self.mean.flatten()
        between = (self.weights[:, None] * m).mT @ m
        return between + self.components.covariance(self.weights)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """(n, *shape) draws in the mixture's dtype, without torch's generator.

        Row i depends on (seed, i) alone: to the last bit for isotropic and diagonal covariances; for full ones and
        those of low rank, whose products are summed in an order that depends on n, to rounding.

        Raises InterfaceError or OptionError for an n that is no whole number of 0 or more, or no seed.
        """
        n = check_count("n", n, least=0)
        index, noise = self._draw(n, seed)
        if self.components.bases is None:
            z = noise * torch.sqrt(self.components.variances)[index]
        else:
            z = uninitialised_like(noise)
            for k in index.unique().tolist():  # K products instead of one (n, d, d) array
                z[index == k] = self.components.colour(k, noise[index == k])
        return self.means[index] + z.reshape(n, *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density at x (B, *shape): (B,). Raises OptionError for a mixture with point masses, which has none."""
        return self.marginal_log_prob(Scales(1.0, 0.0), x)

    def under(self, process: AffineSDE) -> ExactModel:
        """The mixture carried by a process: a model whose answers are exact."""
        return ExactModel(self, process)

    # What ExactModel asks.

    def evaluate(self, scales: Scales, x: Tensor, want: Want) -> Tensor:
        """The wanted combination at x (B, *shape), in x's computing dtype. Weights of `want`: floats or (B, 1)."""
        scales, point = (
            self._regular(scales, only_data=isinstance(want.data, float) and want[1:] == (0.0, 0.0)),
            self.flat(x),
        )
        return self.components.evaluate(scales, point, want).reshape(x.shape).to(compute_dtype(x.dtype))

    def marginal_log_prob(self, scales: Scales, x: Tensor) -> Tensor:
        """log p_t(x), (B,), in x's computing dtype."""
        return self.components.log_prob(self._regular(scales), self.flat(x)).to(compute_dtype(x.dtype))

    def jacobian(self, scales: Scales, x: Tensor) -> Tensor:
        """d data / dx at x (B, *shape), (B, d, d), in x's computing dtype."""
        return self.components.jacobian(self._regular(scales), self.flat(x)).to(compute_dtype(x.dtype))

    def flat(self, x: Tensor) -> Tensor:
        """x (B, *shape) as (B, d) in the mixture's dtype. Raises ShapeError or InterfaceError."""
        check_state(x)
        if x.shape[1:] != self.shape:
            expected = f"(B, {', '.join(map(str, self.shape))})"
            raise ShapeError(
                "x", got=f"shape {tuple(x.shape)}", expected=expected, fix="The order of arguments is (t, x)."
            )
        if x.device != self.device:
            raise InterfaceError(
                "x",
                got=f"a state on {x.device}",
                expected=f"one on {self.device}, as the target",
                fix=f"Move the target: target.to(device={str(x.device)!r}).",
            )
        return x.reshape(len(x), self.size).to(self.dtype)

    def __repr__(self) -> str:
        kind = {"LowRankComponents": "low rank"}.get(type(self.components).__name__)
        kind = kind or type(self.components).__name__.removesuffix("Components").lower()
        return f"GaussianMixture({self.components.count} components, shape={self.shape}, {kind})"

    def _regular(self, scales: Scales, *, only_data: bool = False) -> Scales:
        """Scales at which S_k is regular. At sigma = 0 point masses keep a posterior mean, the nearest of them."""
        if not self.has_point_masses:
            return scales
        sigma = scales.sigma
        zero = sigma == 0 if scales.shared else bool((sigma == 0).any())
        if not zero:
            return scales
        if not only_data:
            raise OptionError(
                "t",
                got="a time where sigma = 0",
                expected="sigma > 0 where components have zero variance: point masses have no density there",
                fix="Move t away from the data, or give every component a positive variance.",
            )
        # sigma -> 0 in numbers: any other component is less likely by e^(-1e150), and squares stay in range.
        floor = torch.finfo(self.dtype).tiny ** 0.25
        return Scales(scales.alpha, max(sigma, floor) if scales.shared else sigma.clamp(min=floor))

    def _draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Components (n,) and standard normals (n, d)."""
        ids = torch.arange(n, dtype=torch.int64)
        z = normals(seed, ids, 0, self.size + 1, stream=DATA_STREAM, dtype=torch.float64)
        edges = torch.cumsum(self.weights.cpu().double(), 0)
        index = torch.searchsorted(edges, torch.special.ndtr(z[:, 0]), right=True).clamp(max=len(edges) - 1)
        return index.to(self.device), z[:, 1:].to(self.device, self.dtype)


_FIX_MEANS = "Pass one row per component; a mixture in one dimension has means of shape (K, 1)."


def as_array(argument: str, value: Any) -> Tensor:
    """Finite float64 numbers on the host or where a tensor lives; detached and copied."""
    try:
        # NumPy would read None as NaN, and what is complex as the real parts alone.
        if value is None or (value.is_complex() if isinstance(value, Tensor) else np.iscomplexobj(value)):
            raise _no_numbers(argument, value)
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, np.float64))
    except InterfaceError:
        raise
    except (TypeError, ValueError) as error:
        raise _no_numbers(argument, value) from error
    tensor = tensor.detach().to(torch.float64, copy=True)
    if not bool(torch.isfinite(tensor).all()):
        raise OptionError(argument, got="NaN or infinity", expected="finite numbers", fix="Check how it was made.")
    return tensor


def _no_numbers(argument: str, value: Any) -> InterfaceError:
    dtype = getattr(value, "dtype", None)
    got = type(value).__name__ if dtype is None else f"{type(value).__name__} of dtype {dtype}"
    return InterfaceError(argument, got=got, expected="an array of real numbers", fix="Pass a tensor or nested lists.")


def _components(weights: Tensor, means: Tensor, covariances: Tensor | LowRank) -> Components:
    count, shape, d = len(means), means.shape[1:], means[0].numel()
    m = means.reshape(count, d)
    centre = weights @ m
    spread = m - centre
    # Centring costs a pass over the state, so it is done only where it makes the means smaller.
    if float((centre**2).sum()) <= float((spread**2).sum(1).max()):
        centre, spread = None, m
    log_weights = torch.log(weights)
    if isinstance(covariances, LowRank):
        factors = covariances.factors.to(means.device)
        return LowRankComponents.of(log_weights, spread, factors, covariances.diagonal, centre)
    c = covariances.to(means.device)
    if c.ndim <= 1 and c.shape in ((), (count,)):
        variances = _variances(c.expand(count)[:, None])
        return IsotropicComponents(log_weights, spread, variances.contiguous(), centre=centre)
    if c.shape in ((count, d), (count, *shape)):
        return DiagonalComponents(log_weights, spread, _variances(c.reshape(count, d)), centre=centre)
    if c.shape == (count, d, d):
        values, bases = _eigenbasis(c)
        return FullComponents(log_weights, spread, values, bases, centre)
    expected = f"(), ({count},), ({count}, {d}), {(count, *shape)} or ({count}, {d}, {d})"
    raise ShapeError(
        "covariances", got=f"shape {tuple(c.shape)}", expected=expected, fix="A covariance for all: expand it."
    )


def _variances(values: Tensor) -> Tensor:
    if bool((values < 0).any()):
        raise OptionError(
            "covariances",
            got=f"a variance of {float(values.min()):g}",
            expected="variances >= 0",
            fix="Pass variances, not logarithms.",
        )
    return values


def _eigenbasis(c: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (K, d) and eigenvectors (K, d, d); eigenvalues within rounding of zero are zero."""
    size = c.abs().amax((1, 2), keepdim=True)
    if bool(((c - c.mT).abs() > 1e-10 * size).any()):
        raise OptionError(
            "covariances", got="a matrix that is not symmetric", expected="C = C^T", fix="Pass (C + C.mT) / 2."
        )
    values, bases = torch.linalg.eigh(0.5 * (c + c.mT))
    values = torch.where(
        values.abs() <= 4 * math.sqrt(c.shape[1]) * torch.finfo(c.dtype).eps * size[..., 0], 0.0, values
    )
    return _variances(values), bases
