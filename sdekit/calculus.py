"""Derivatives of a diffusion: what separates Ito from Stratonovich, and what time reversal needs of g g^T.

Write G(t, x) for the diffusion as a matrix from m Brownian motions to n coordinates: g I for scalar noise, diag(g) for
diagonal noise, g itself for general noise. With G[v] the derivative of G along v, and the columns G_k,

    c_i = sum_jk G_jk d_j G_ik                   the Ito correction: b_ito = b_stratonovich + c / 2
    (div G)_k = sum_j d_j G_jk                   the divergence of each column
    div(G G^T)_i = sum_j d_j (G G^T)_ij          is c + G div G

For any vector v the two terms G[v] G^T v and G (G[v]^T v), summed over v = e_1, ..., e_n, are c and G div G; averaged
over random signs v they are so too (Hutchinson). One forward derivative of g therefore gives one term of the exact
answer or one unbiased estimate. Two kinds of noise need less: for scalar noise both are g grad g, one reverse
derivative; for diagonal noise whose entry i depends on x_i alone both are g g', one forward derivative along (1, ...,
1), or none where the SDE has a `diffusion_derivative`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdekit.errors import InterfaceError, ModelOutputError, OptionError
from sdekit.math.philox import philox
from sdekit.model import check_output
from sdekit.sde import SDE
from sdekit.shapes import compute_dtype, time_like

__all__ = ["MOST_EXACT", "LocalNoise", "check_diffusion", "check_ignores_state", "columns_times", "random_signs"]

MOST_EXACT = 256
"""The most dimensions in which n derivatives are taken for one divergence."""

_ROUNDING = 64  # in units of the dtype's: how far two ways to the same derivative may differ
_MIX = (0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_WORD = 0xFFFFFFFF
_SIGN_TAG = 255 << 24


def columns_times(g: Tensor, w: Tensor) -> Tensor:
    """g w, like x, for general noise: g (B, *shape, m) and w (B, m)."""
    rows = g.reshape(len(g), math.prod(g.shape[1:-1]), g.shape[-1])
    # A row times the transpose: BLAS is up to five times as fast as with a column.
    return torch.bmm(w[:, None, :], rows.mT).reshape(g.shape[:-1])


class LocalNoise:
    """The diffusion of an SDE at one time and state: products with vectors, and derivatives.

    Args:
        sde: its noise_type, sde_type and diffusion are used.
        t: broadcasts against x.
        x: (B, *shape).
        slopes: whether derivatives are sure to be asked for: then one call of g does for it and for them.

    Raises:
        ModelOutputError: for a diffusion of the wrong shape.
        InterfaceError: with slopes, for a g that torch cannot differentiate.
    """

    def __init__(self, sde: SDE, t: Tensor, x: Tensor, *, slopes: bool = False) -> None:
        self.sde, self.t, self.x = sde, t, x
        self.size = math.prod(x.shape[1:])
        if slopes:
            with self._differentiating():
                self.g, self._pull, *_ = torch.func.vjp(self._diffusion, x)
        else:
            self.g = self._diffusion(x)

    def squared(self, s: Tensor) -> Tensor:
        """g g^T s for s like x."""
        if self.sde.noise_type != "general":
            return self.g * self.g * s
        g = self._matrix(self.g)
        return (g @ (g.mT @ self._column(s))).reshape(s.shape)

    def correction(self) -> Tensor:
        """c, like x: exact, by 1 derivative for scalar noise, min(m, n) for general, 0, 2 or n + 2 for diagonal."""
        if self.sde.additive or self.x.numel() == 0:
            return torch.zeros_like(self.x, dtype=self.g.dtype)
        if self.sde.noise_type == "scalar":
            return self._half_gradient()
        if self.sde.noise_type == "diagonal":
            return self.g * self._diagonal_slope(None)
        columns = self.g.shape[-1]
        if columns > self.size:
            return self._sum_of_terms()[0]
        total = torch.zeros_like(self.x, dtype=self.g.dtype)
        for k in range(columns):
            total = total + self._along(self.g[..., k].to(self.x.dtype))[..., k]
        return total

    def divergence(self, method: str, seed: int) -> Tensor:
        """div(g g^T) of an Ito SDE, g div g of a Stratonovich SDE, like x.

        Args:
            method: "exact", or "hutchinson" for an unbiased estimate by one derivative.
            seed: of the random signs.

        Raises:
            OptionError: where "exact" would take more than `MOST_EXACT` derivatives.
            InterfaceError: where g cannot be differentiated.
        """
        if self.sde.additive or self.x.numel() == 0:
            return torch.zeros_like(self.x, dtype=self.g.dtype)
        if self.sde.noise_type == "scalar":
            correction = contraction = self._half_gradient()
        elif method == "hutchinson":
            correction, contraction = self.terms(random_signs(seed, self.t, self.x))
        elif self.sde.noise_type == "diagonal":
            correction = contraction = self.g * self._diagonal_slope(MOST_EXACT)
        else:
            self._check_size(f"general noise in {self.size} dimensions")
            correction, contraction = self._sum_of_terms()
        return contraction if self.sde.sde_type == "stratonovich" else correction + contraction

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """G[v] G^T v and G (G[v]^T v), like x, for v like x."""
        slope = self._along(v)
        if self.sde.noise_type != "general":
            return (term := self.g * slope * v), term
        g, dg, column = self._matrix(self.g), self._matrix(slope), self._column(v)
        along, against = dg @ (g.mT @ column), g @ (dg.mT @ column)
        return along.reshape(self.x.shape), against.reshape(self.x.shape)

    def along(self, v: Tensor) -> Tensor:
        """G[v], the derivative of g along v: of g's shape, for v like x. Raises InterfaceError as `divergence`."""
        return self._along(v)

    def unmixed(self) -> bool:
        """Whether each g_i of diagonal noise depends on x_i alone, as far as its derivatives at x show."""
        return self._unmixed(self._along(torch.ones_like(self.x)))

    def verify(self) -> None:
        """Refuse a g that changes with x while it is declared additive, or while all its derivatives, as automatic
        differentiation sees them, are zero.

        That is what detach, tolist or no_grad inside g lead to. Looks beside x, where a g such as 1 + x^2 that
        is stationary at x = 0 has a slope. Costs three calls of g; raises InterfaceError.
        """
        if self.sde.additive and self.x.numel():
            check_ignores_state(self.sde, self.t, self.x)
        if self.sde.additive or self.x.numel() == 0 or self._given() is not None:
            return
        x, u = self.x.detach(), _irregular(self.x)
        scale = 0.1 * (1 + x.abs())
        beside, by = x + scale * u, (1e-3 * scale * (3 - u)).to(x.dtype)
        here = LocalNoise(self.sde, self.t, beside)
        slope = (here._half_gradient() * by) if self.sde.noise_type == "scalar" else here._along(by)
        change = here._diffusion(beside + by) - here.g
        moved = (change.abs() > _ROUNDING * torch.finfo(x.dtype).eps * here.g.abs()) & torch.isfinite(change)
        if bool(moved.any()) and not bool(slope.any()):  # reads the device, once in the life of a reversal
            raise InterfaceError(
                "diffusion",
                got=f"a g that changes with x though its derivative is zero throughout, of {self.sde!r}",
                expected="a g(t, x) through which torch.func differentiates",
                fix="Leave detach, item, tolist, no_grad and inference_mode out of it.",
            )

    def _given(self) -> Callable[[Tensor, Tensor], Any] | None:
        """dg_i / dx_i of diagonal noise, where the SDE has a function for it."""
        given = getattr(self.sde, "diffusion_derivative", None)
        return given if callable(given) and self.sde.noise_type == "diagonal" else None

    def _diffusion(self, x: Tensor) -> Tensor:
        return check_diffusion(self.sde.diffusion(self.t, x), x, self.sde.noise_type)

    def _along(self, v: Tensor) -> Tensor:
        """The derivative of g along v: of g's shape."""
        with self._differentiating():
            return self._push(v)

    @cached_property
    def _push(self) -> Callable[[Tensor], Tensor]:
        """v -> G[v]: the reverse derivative of u -> u^T dg/dx, which is linear in u.

        Ten times as fast as torch.func.jvp, whose constants cost a millisecond each, and g is called once for all v.
        """
        push = torch.func.vjp(lambda u: self._pull(u)[0], torch.zeros_like(self.g))[1]
        return lambda v: push(v.to(self.x.dtype))[0]

    @cached_property
    def _pull(self) -> Callable[..., Any]:
        """u -> the gradient of u^T g."""
        return torch.func.vjp(self._diffusion, self.x)[1]

    def _half_gradient(self) -> Tensor:
        """g grad g of scalar noise: half the gradient of g^2."""

        def total(x: Tensor) -> Tensor:
            g = self._diffusion(x)
            return 0.5 * (g * g).reshape(-1).expand(len(x)).sum()

        with self._differentiating():
            return torch.func.grad(total)(self.x).to(self.g.dtype)

    def _diagonal_slope(self, most: int | None) -> Tensor:
        """d g_i / d x_i of diagonal noise, like x.

        Where g_i depends on x_i alone, the derivative along any v is v times that along (1, ..., 1). That is tried on
        an irregular v, which a g that mixes coordinates passes on a null set of x only; such a g takes n derivatives.
        An SDE that gives its `diffusion_derivative` is asked for that instead.
        """
        given = self._given()
        if given is not None:
            return check_diffusion(given(self.t, self.x), self.x, "diagonal")
        slope = self._along(torch.ones_like(self.x))
        if self._unmixed(slope):
            return slope
        if most is not None:
            self._check_size(f"a diagonal g whose entries depend on several of {self.size} coordinates")
        total = torch.zeros_like(slope)
        for e in self._basis():
            total = total + self._along(e) * e
        return total

    def _unmixed(self, slope: Tensor) -> bool:
        if self.size == 1:
            return True
        v = _irregular(self.x)
        along, scaled = self._along(v), v * slope
        off, eps = (along - scaled).abs(), torch.finfo(self.x.dtype).eps
        alone = (off <= _ROUNDING * eps * (along.abs() + scaled.abs())) | off.isnan()
        return bool(alone.all())  # reads the device

    def _sum_of_terms(self) -> tuple[Tensor, Tensor]:
        """c and G div G of general noise."""
        pairs = [torch.zeros_like(self.x, dtype=self.g.dtype)] * 2
        for e in self._basis():
            pairs = [total + term for total, term in zip(pairs, self.terms(e), strict=True)]
        return pairs[0], pairs[1]

    def _basis(self) -> Iterator[Tensor]:
        for j in range(self.size):
            e = torch.zeros(self.size, dtype=self.x.dtype, device=self.x.device)
            e[j] = 1
            yield e.reshape(self.x.shape[1:]).expand(self.x.shape)

    def _matrix(self, g: Tensor) -> Tensor:
        return g.reshape(len(g), self.size, g.shape[-1])

    def _column(self, v: Tensor) -> Tensor:
        return v.reshape(len(v), self.size, 1).to(self.g.dtype)

    def _check_size(self, got: str) -> None:
        if self.size > MOST_EXACT:
            raise OptionError(
                "divergence",
                got=f"'exact' with {got}",
                expected=f"at most {MOST_EXACT} dimensions, one derivative of g for each",
                fix="Pass divergence='hutchinson', an unbiased estimate by one derivative.",
            )

    @contextmanager
    def _differentiating(self) -> Iterator[None]:
        """Tells what torch could not differentiate from what is wrong with g itself, and from lack of memory."""
        try:
            yield
        except RuntimeError as error:
            if type(error) not in (RuntimeError, NotImplementedError):
                raise
            self._diffusion(self.x)  # raises what g raises without any derivative
            raise InterfaceError(
                "diffusion",
                got=f"a g that cannot be differentiated ({str(error)[:120]}), of {self.sde!r}",
                expected="a g(t, x) made of torch operations with derivatives",
                fix="Leave NumPy and out= arguments out of it, or set additive = True if g ignores x.",
            ) from error


def check_diffusion(out: Any, x: Tensor, noise_type: str | None) -> Tensor:
    """What a diffusion returned, held against its noise type; in x's computing dtype. Raises ModelOutputError."""
    if noise_type == "diagonal":
        return check_output(out, x, "diffusion")
    if (
        not isinstance(out, Tensor)
        or not out.dtype.is_floating_point
        or out.device != x.device
        or out.layout != torch.strided
    ):
        got = f"{out.dtype}, {out.layout}, on {out.device}" if isinstance(out, Tensor) else type(out).__name__
        raise ModelOutputError(
            "diffusion", got=got, expected=f"a dense real floating tensor on {x.device}", fix="Return such a tensor."
        )
    if noise_type == "scalar":
        fits = out.ndim == 0 or (out.ndim == x.ndim and out.shape[0] in (1, len(x)) and out.numel() == out.shape[0])
        expected = f"() or ({len(x)}, 1, ..., 1) for scalar noise"
    else:
        fits, expected = (
            out.ndim == x.ndim + 1 and out.shape[:-1] == x.shape,
            f"{tuple(x.shape)} + (m,) for general noise",
        )
    if not fits:
        fix = "Match noise_type and the shape of g. The order of arguments is diffusion(t, x)."
        raise ModelOutputError("diffusion", got=f"shape {tuple(out.shape)}", expected=expected, fix=fix)
    return out.to(compute_dtype(x.dtype))


def check_ignores_state(sde: SDE, t: Tensor, x: Tensor) -> None:
    """Refuse a diffusion that is declared additive and differs between x and states beside it: two calls of g.

    What cannot be compared, errors and outputs that are no tensors of one shape, is left to the steps: they say where.

    Raises:
        InterfaceError: for one that does.
    """
    scale = (0.1 * (1 + x.abs())).to(x.dtype)
    try:
        with torch.no_grad():
            here, beside = (sde.diffusion(t, y) for y in (x.clone(), x + scale * _irregular(x)))
    except Exception:  # noqa: BLE001  (whatever it is, the first step raises it again and says where)
        return
    tensors = isinstance(here, Tensor) and isinstance(beside, Tensor) and here.is_floating_point()
    if not tensors or (here.shape, here.dtype) != (beside.shape, beside.dtype):
        return
    try:
        if torch.equal(here, beside):
            return
        size = torch.maximum(here.abs(), beside.abs())
        moved = (here - beside).abs() > _ROUNDING * torch.finfo(compute_dtype(x.dtype)).eps * size
        lie = bool(moved.any())
    except RuntimeError:  # inside torch.func.vmap no value can be read
        return
    if lie:
        raise InterfaceError(
            "additive",
            got=f"True, and a diffusion that changes with x, of {sde!r}",
            expected="one that ignores x",
            fix="Set additive = False: methods for additive noise alone have no order on it.",
        )


def random_signs(seed: int, t: Tensor, x: Tensor) -> Tensor:
    """Rademacher signs, like x: row i is a function of (seed, its time, its state) alone.

    So an evaluation that is repeated gives the same, another batch around a row changes nothing, and any other time or
    state gives signs that are independent for all that a test can tell.
    """
    rows, size = len(x), math.prod(x.shape[1:])
    state = x.detach().reshape(rows, size).to(torch.float64).view(torch.int64)
    time = time_like(t, x).detach().reshape(-1, 1).to(torch.float64).view(torch.int64)
    places = torch.arange(1, size + 1, device=x.device) * _MIX[0]
    key = _scramble(state ^ places).sum(1, keepdim=True) + _scramble(time)
    low, high = key & _WORD, (key >> 32) & _WORD
    blocks = torch.arange(-(-size // 128), device=x.device)[None]
    tag = torch.full_like(blocks, _SIGN_TAG)
    words = torch.stack(philox(blocks, low, high, tag, seed & _WORD, seed >> 32), -1)  # (B, blocks, 4)
    bits = (words[..., None] >> torch.arange(32, device=x.device)) & 1
    return (1 - 2 * bits.flatten(1)[:, :size]).reshape(x.shape).to(x.dtype)


def _scramble(bits: Tensor) -> Tensor:
    """A bijection of 64-bit words that spreads every bit over all (the finaliser of SplitMix64)."""
    bits = (bits ^ _shift(bits, 30)) * _MIX[1]
    bits = (bits ^ _shift(bits, 27)) * _MIX[2]
    return bits ^ _shift(bits, 31)


def _shift(bits: Tensor, by: int) -> Tensor:
    """To the right, with zeros coming in."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _irregular(x: Tensor) -> Tensor:
    """A tensor like x of values between 1 and 2, the same at each call, with no pattern that a g could have."""
    index = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device)
    return (1 + torch.frac(1e3 * torch.sin(index * 12.9898).abs())).reshape(x.shape).to(x.dtype)
