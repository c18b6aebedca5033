"""What `sdekit.testing.check_sde` tries on an SDE, one check each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdekit.calculus import check_diffusion
from sdekit.errors import ConformanceError, ModelOutputError
from sdekit.model import check_output
from sdekit.sde import SDE
from sdekit.shapes import time_like

__all__ = ["CHECKS", "Probe"]

_CLOSE = 1e-9  # of the largest entry: what summing in another order may do in float64
_RAISED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # of a call tried out
_DIFFERENCE = 1e-5  # the same for difference quotients


@dataclass
class Probe:
    """An SDE with the states and times at which it is probed."""

    sde: SDE
    x: Tensor
    times: list[float]
    notes: list[str] = field(default_factory=list)
    check: str = ""

    def broken(self, got: str, expected: str, fix: str) -> ConformanceError:
        return ConformanceError(self.check, repr(self.sde), got=got, expected=expected, fix=fix)

    def note(self, text: str) -> None:
        """Report something that is allowed, once."""
        if text not in self.notes:
            self.notes.append(text)

    def f(self, t: float | Tensor, x: Tensor) -> Tensor:
        return self.sde.drift(time_like(t, x), x)

    def g(self, t: float | Tensor, x: Tensor) -> Tensor:
        return self.sde.diffusion(time_like(t, x), x)

    @property
    def functions(self) -> dict[str, Callable[[Any, Tensor], Tensor]]:
        """Drift and diffusion, and the derivative of the diffusion if the SDE has one."""
        found = {"drift": self.f, "diffusion": self.g}
        if callable(given := getattr(self.sde, "diffusion_derivative", None)):

            def derivative(t: float | Tensor, x: Tensor) -> Tensor:
                out: Any = given(time_like(t, x), x)
                return out

            found["diffusion_derivative"] = derivative
        return found

    def other(self, seed: int = 1) -> Tensor:
        """States between those given, so that what is convex stays inside; beside them where all rows are alike."""
        generator = torch.Generator().manual_seed(seed)
        part = torch.rand(len(self.x), generator=generator, dtype=self.x.dtype)
        part = part.reshape(-1, *(1,) * (self.x.ndim - 1))
        mixed = part * self.x + (1 - part) * self.x.roll(1, 0)
        alike = ((mixed - self.x).abs() < 1e-3 * (1 + self.x.abs())).reshape(len(self.x), -1).all(1).reshape(part.shape)
        return torch.where(alike, self.x + (0.05 + 0.05 * part) * (1 + self.x.abs()), mixed)

    def slope(self, t: float, v: Tensor) -> Tensor:
        """The derivative of g along v, by automatic differentiation: that of u -> u^T dg/dx, which is linear in u."""
        pulled: Any = torch.func.vjp(lambda y: self.g(t, y), self.x)
        return torch.func.vjp(lambda u: pulled[1](u)[0], torch.zeros_like(pulled[0]))[1](v)[0]

    def close(self, a: Tensor, b: Tensor, within: float = _CLOSE) -> bool:
        """Whether two outputs are equal but for rounding; NaN is equal to NaN."""
        scale = torch.nan_to_num(torch.maximum(a.abs(), b.abs())).amax() if a.numel() else a.sum()
        return bool(((a - b).abs() <= within * scale).logical_or(a.isnan() & b.isnan()).all())


def shapes(probe: Probe) -> str:
    """Drift like x, diffusion as noise_type says, for float64 and float32, several rows and one."""
    for t in probe.times:
        for x in (probe.x, probe.x[:1], probe.x.float()):
            for name, function in probe.functions.items():
                try:
                    out = function(t, x.clone())
                except _RAISED as error:
                    if x.dtype == torch.float64:
                        raise
                    probe.note(f"{name} takes float64 only ({type(error).__name__} for float32)")
                    continue
                try:
                    check_output(out, x, name) if name == "drift" else check_diffusion(out, x, probe.sde.noise_type)
                except ModelOutputError as error:
                    raise probe.broken(
                        f"{name} with {error.got}", error.expected, _advice(probe, name, out, t, x)
                    ) from error
                if out.dtype != x.dtype and x.dtype == torch.float32:
                    probe.note(f"{name} turns {x.dtype} into {out.dtype}, which is cast back")
    return f"drift like x, diffusion as for {probe.sde.noise_type} noise"


def _advice(probe: Probe, name: str, out: Any, t: float, x: Tensor) -> str:
    """What to set instead, from what came back."""
    try:
        swapped = getattr(probe.sde, name)(x, time_like(t, x))
    except _RAISED:
        swapped = None
    if isinstance(swapped, Tensor) and swapped.shape == x.shape and name == "drift":
        return f"The arguments look swapped: write {name}(t, x), the time first."
    if not isinstance(out, Tensor) or name == "drift":
        return "Return one floating-point tensor, a value for each element of x."
    like = {"scalar": out.shape in ((), (len(x), *(1,) * (x.ndim - 1))), "diagonal": out.shape == x.shape}
    like["general"] = out.ndim == x.ndim + 1 and out.shape[:-1] == x.shape
    fitting = [kind for kind, fits in like.items() if fits and out.dtype.is_floating_point]
    if fitting:
        kind = fitting[-1]
        return f"Set noise_type = {kind!r}, which this shape fits, or return another. The arguments are (t, x)."
    return "Return a floating-point tensor of that shape."


def finite(probe: Probe) -> str:
    """No NaN and no infinity at the states and times given."""
    for t in probe.times:
        for name, function in probe.functions.items():
            bad = ~torch.isfinite(function(t, probe.x.clone()))
            if bool(bad.any()):
                row = int(bad.reshape(-1, bad.numel() // max(len(bad), 1) or 1).any(1).nonzero()[0]) if bad.ndim else 0
                state = [round(v, 4) for v in probe.x[row].flatten()[:4].tolist()]
                raise probe.broken(
                    f"{name} not finite at t = {t:g}, x = {state}",
                    "finite values",
                    "Correct it there, or pass x and t where the SDE is defined.",
                )
    return f"finite at t = {', '.join(f'{t:g}' for t in probe.times)}"


def arguments(probe: Probe) -> str:
    """The input is left as it is."""
    for t in probe.times:
        for name, function in probe.functions.items():
            x, time = probe.x.clone(), time_like(t, probe.x).clone()
            function(time, x)
            if not torch.equal(x, probe.x) or not torch.equal(time, time_like(t, probe.x)):
                raise probe.broken(
                    f"{name} changes its {'x' if torch.equal(time, time_like(t, probe.x)) else 't'} in place",
                    "arguments left as they are",
                    "Work on a copy: x = x.clone(), and write x = x + ..., not x += ....",
                )
    return "x and t left alone"


def outputs(probe: Probe) -> str:
    """An output stays as it is when the function is called again, and a call repeated gives the same."""
    for name, function in probe.functions.items():
        t = probe.times[0]
        first = function(t, probe.x.clone())
        kept = first.clone()
        function(probe.times[-1], probe.other())
        if not torch.equal(first, kept):
            raise probe.broken(
                f"{name} rewrites the tensor that an earlier call returned",
                "outputs that stay as they were returned",
                "Return a new tensor from each call, not a buffer of the SDE.",
            )
        if not torch.equal(function(t, probe.x.clone()), kept):
            raise probe.broken(
                f"{name} gives other values when it is called again",
                "a function of (t, x) alone",
                "Leave random numbers and counters out of it.",
            )
    return "a function of (t, x), each output a tensor of its own"


def rows(probe: Probe) -> str:
    """A row's values do not depend on the other rows."""
    if len(probe.x) < 2:
        return "one row only"
    for t in probe.times:
        for name, function in probe.functions.items():
            whole = function(t, probe.x.clone())
            if whole.ndim == 0:
                whole = whole.expand(len(probe.x))
            beside = probe.other()
            beside[0] = probe.x[0]
            for batch, what in ((beside, "other rows beside it"), (probe.x[:1].clone(), "no row beside it")):
                alone = function(t, batch)
                alone = alone.expand(len(batch)) if alone.ndim == 0 else alone
                if not probe.close(whole[:1], alone[:1]):
                    raise probe.broken(
                        f"{name} of row 0 changes with {what}",
                        "rows that do not know of each other",
                        "Compute along the axes after the first: no mean, sum or norm over the batch.",
                    )
    return "each row by itself"


def times(probe: Probe) -> str:
    """A time for each row, (B, 1, ..., 1), means what one time for all does."""
    batch = len(probe.x)
    wanted = torch.tensor([probe.times[i % len(probe.times)] for i in range(batch)], dtype=torch.float64)
    for name, function in probe.functions.items():
        apart = [function(t, probe.x.clone()) for t in wanted.tolist()]
        single = torch.stack([v.expand(batch, *v.shape[1:])[i] if v.ndim else v for i, v in enumerate(apart)])
        try:
            together = function(wanted.reshape(-1, *(1,) * (probe.x.ndim - 1)), probe.x.clone())
        except _RAISED as error:
            probe.note(f"{name} takes one time for all rows only ({type(error).__name__})")
            continue
        together = together.expand(batch) if together.ndim == 0 else together.expand(batch, *together.shape[1:])
        if not probe.close(together.reshape(batch, -1), single.reshape(batch, -1)):
            raise probe.broken(
                f"{name} with a time for each row, of shape {(batch, *(1,) * (probe.x.ndim - 1))}, is not that of each "
                "row at its time",
                "a function that broadcasts its t",
                "Let t broadcast against x; reduce nothing over it, and do not take float(t) or t[0].",
            )
    return "one for each row is taken too" if not any("one time" in note for note in probe.notes) else "one for all"


def additive(probe: Probe) -> str:
    """g ignores x if and only if it is said to."""
    moved = [not probe.close(probe.g(t, probe.x), probe.g(t, probe.other(k))) for t in probe.times for k in (1, 2)]
    if probe.sde.additive and any(moved):
        raise probe.broken(
            "additive = True, and a diffusion that changes with x", "one that ignores x", "Set additive = False."
        )
    if not probe.sde.additive and not any(moved):
        probe.note(
            "the diffusion ignores x at all states tried: if it always does, set additive = True, with "
            "which more solvers and higher orders are at hand"
        )
    return "g ignores x" if probe.sde.additive else "g may depend on x"


def derivatives(probe: Probe) -> str:
    """Automatic differentiation of g agrees with difference quotients, and `diffusion_derivative` with both."""
    if probe.sde.additive:
        return "none needed"
    v = 0.1 * (probe.other() - probe.x) + 1e-3 * torch.ones_like(probe.x)
    for t in probe.times:
        h = 1e-4
        quotient = (probe.g(t, probe.x + h * v) - probe.g(t, probe.x - h * v)) / (2 * h)
        try:
            slope = probe.slope(t, v)
        except RuntimeError as error:
            probe.note(
                f"the diffusion cannot be differentiated by torch ({str(error)[:60]}): reverse, a change "
                "of calculus and methods that need derivatives will refuse it"
            )
            return "not to be had"
        scale = probe.g(t, probe.x).abs().max()
        off = (slope - quotient).abs().max()
        if bool(torch.isfinite(quotient).all()) and float(off) > _DIFFERENCE * float(scale + quotient.abs().max()):
            raise probe.broken(
                f"a derivative of g by automatic differentiation off by {float(off):.2g} from a difference quotient",
                "equal ones",
                "Leave detach, item, tolist, no_grad and inference_mode out of the diffusion.",
            )
        _given(probe, t)
    return "automatic differentiation of g is right"


def _given(probe: Probe, t: float) -> None:
    function = probe.functions.get("diffusion_derivative")
    if function is None or probe.sde.noise_type == "general":
        return
    right = probe.slope(t, torch.ones_like(probe.x))
    given = function(t, probe.x)
    if given.shape != right.shape or not probe.close(given, right, 1e-7):
        raise probe.broken(
            "a diffusion_derivative that is not the derivative of g",
            f"dg_i / dx_i, for the first row {[round(v, 4) for v in right[0].flatten()[:4].tolist()]} at t = {t:g}",
            "Correct it, or leave it out: it is then found by automatic differentiation.",
        )


def diagonal(probe: Probe) -> str:
    """For diagonal noise g_i depends on x_i alone: coordinates whose numbers differ in a bit are moved in turn."""
    size = math.prod(probe.x.shape[1:])
    if probe.sde.noise_type != "diagonal" or probe.sde.additive or size == 1:
        return "no promise made"
    index = torch.arange(size).reshape(probe.x.shape[1:])
    for t in probe.times:
        here = probe.g(t, probe.x)
        for bit in range((size - 1).bit_length()):
            for side in (0, 1):
                moves = (index >> bit) & 1 == side
                there = probe.g(t, torch.where(moves, probe.other(), probe.x))
                off = (there - here).abs() > _CLOSE * here.abs().max()
                if bool((off & ~moves).any()):
                    row, *place = (off & ~moves).nonzero()[0].tolist()
                    i = int(index[tuple(place)])
                    raise probe.broken(
                        f"noise_type = 'diagonal', and g_{i} that changes with other coordinates than x_{i} (row "
                        f"{row}, t = {t:g})",
                        "g_i a function of x_i alone",
                        "Set noise_type = 'general' and return torch.diag_embed(g) for states (B, n).",
                    )
    return "g_i depends on x_i alone"


def commutative(probe: Probe) -> str:
    """Columns that are said to commute do."""
    sde, size = probe.sde, math.prod(probe.x.shape[1:])
    if sde.additive or sde.noise_type == "diagonal" or (sde.noise_type == "scalar" and size == 1):
        return "they commute by their kind"
    worst, where = 0.0, (0, 1)
    for t in probe.times:
        columns = _columns(probe, probe.g(t, probe.x))
        try:
            slopes = [_columns(probe, probe.slope(t, v)) for v in columns]
        except RuntimeError:
            return "not known without derivatives"
        scale = max(float(v.abs().max()) for row in slopes for v in row) or 1.0
        for j in range(len(columns)):
            for k in range(j):
                bracket = float((slopes[j][k] - slopes[k][j]).abs().max()) / scale
                worst, where = max((worst, where), (bracket, (k + 1, j + 1)))
    if sde.commutative and worst > _CLOSE:
        raise probe.broken(
            f"commutative = True, and columns {where[0]} and {where[1]} with L_j g_k - L_k g_j of {worst:.2g} of the "
            "largest derivative",
            "columns that commute",
            "Set commutative = False.",
        )
    if not sde.commutative and worst <= _CLOSE and len(columns) > 1:
        probe.note(
            "the columns of the diffusion commute at all states tried: if they always do, set "
            "commutative = True, with which higher orders are at hand"
        )
    return "the columns commute" if sde.commutative or len(columns) == 1 else "no promise made"


def _columns(probe: Probe, g: Tensor) -> list[Tensor]:
    """The columns of a diffusion or of its derivative, each like x; g e_k for a number g."""
    if probe.sde.noise_type == "general":
        return list(g.unbind(-1))
    size = math.prod(probe.x.shape[1:])
    unit = torch.eye(min(size, 8), size, dtype=g.dtype).reshape(-1, *probe.x.shape[1:])
    return [g * e for e in unit]


CHECKS: dict[str, Callable[[Probe], str]] = {
    "shapes": shapes,
    "finite": finite,
    "arguments": arguments,
    "outputs": outputs,
    "rows": rows,
    "times": times,
    "additive": additive,
    "derivatives": derivatives,
    "diagonal": diagonal,
    "commutative": commutative,
}
