"""SDEs from and to torchsde: states (B, d), ascending times, and its names of noise types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdekit.brownian import BrownianPath
from sdekit.calculus import check_diffusion
from sdekit.errors import BackendError, InterfaceError, ModelOutputError, OptionError
from sdekit.model import check_output
from sdekit.noise_class import noise_classes
from sdekit.sde import ODE, SDE
from sdekit.shapes import time_like
from sdekit.times import check_count

__all__ = ["PathBrownian", "TorchSDE", "from_torchsde", "matrix_of", "to_torchsde"]

_NAMES = ("diagonal", "general", "additive", "scalar")


class TorchSDE(torch.nn.Module):
    """An SDE of sdekit as torchsde calls one, see `to_torchsde`. Its parameters are those of the SDE's modules.

    Attributes:
        noise_type, sde_type: as torchsde names them.
        shape: of one sample; None where states are (B, d) to the SDE too.
        downward: whether torchsde's time s is -t.
    """

    noise_type: str
    sde_type: str

    def __init__(self, sde: SDE, shape: Sequence[int] | None, downward: bool, columns: int | None) -> None:
        super().__init__()
        self.shape, self.downward, self.columns = None if shape is None else tuple(shape), downward, columns
        self.sde = sde
        for name, value in getattr(sde, "__dict__", {}).items():
            if isinstance(value, torch.nn.Module) and not isinstance(sde, torch.nn.Module):
                self.add_module(f"of_{name}", value)
        self.sde_type = sde.sde_type
        one = torch.zeros(1, *((2,) if self.shape is None else self.shape))  # of several coordinates if not known
        self._diagonal = sde.noise_type != "general" and "diagonal" in noise_classes(sde, one)
        if self._diagonal:
            self.noise_type = "diagonal"
        elif sde.additive:
            self.noise_type = "additive"
        else:
            self.noise_type = "scalar" if columns == 1 and sde.noise_type == "general" else "general"

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift in s, (B, d)."""
        x = self._state(y)
        out = check_output(self.sde.drift(self._time(s, x), x), x, "drift").reshape(y.shape)
        return -out if self.downward else out

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """The diffusion, (B, d) for diagonal noise and (B, d, m) for other."""
        x = self._state(y)
        g = check_diffusion(self.sde.diffusion(self._time(s, x), x), x, self.sde.noise_type)
        return matrix_of(g, x, self.sde.noise_type, diagonal=self._diagonal)

    def _state(self, y: Tensor) -> Tensor:
        return y if self.shape is None else y.reshape(len(y), *self.shape)

    def _time(self, s: Any, x: Tensor) -> Tensor:
        t = s if isinstance(s, Tensor) else torch.as_tensor(s, dtype=torch.float64)
        return time_like(-t if self.downward else t, x)


def matrix_of(g: Tensor, x: Tensor, noise_type: str | None, *, diagonal: bool) -> Tensor:
    """A diffusion for flattened states: (B, d) where diagonal, else (B, d, m)."""
    rows = len(x)
    if noise_type == "general":
        return g.reshape(rows, -1, g.shape[-1])
    flat = g.expand(x.shape).reshape(rows, -1)
    return flat if diagonal else torch.diag_embed(flat)


def to_torchsde(
    sde: SDE, shape: Sequence[int] | None = None, *, downward: bool | None = None, columns: int | None = None
) -> Any:
    """An SDE as a module for `torchsde.sdeint` and `sdeint_adjoint`, on states flattened to (B, d).

    Noise: diagonal stays so. A number times the noise of each coordinate is diagonal where g ignores x or there is one
    coordinate, else general, with the matrix g I: torchsde takes derivatives of diagonal noise entry by entry, which
    would be wrong. General noise is additive where g ignores x, scalar with columns=1.

    torchsde's time ascends only. An SDE that is solved downwards is given in s = -t, with the drift -f(-s, x): solve
    it over ts = -times.

    Args:
        shape: of one sample, x.shape[1:]. By default the SDE takes states (B, d), as torchsde does; a number times the
            noise of each coordinate is then taken for noise of several.
        downward: whether it is solved downwards in time; None takes `sde.backward`.
        columns: the number of Brownian motions of general noise, where it is known to be 1.

    Raises:
        InterfaceError: for what is not an SDE.
        OptionError: for a shape or number that is none.
    """
    if not isinstance(sde, SDE):
        fix = "Solve it by a torchdiffeq: name." if isinstance(sde, ODE) else "Make one with sdekit.make_sde."
        raise InterfaceError("sde", got=type(sde).__name__, expected="an SDE", fix=fix)
    if shape is not None and (isinstance(shape, (str, Tensor)) or not isinstance(shape, Sequence)):
        raise InterfaceError("shape", got=repr(shape), expected="the shape of one sample", fix="Pass x.shape[1:].")
    for length in shape or ():
        check_count("shape", length, least=0)
    if columns is not None:
        check_count("columns", columns)
    return TorchSDE(sde, shape, sde.backward if downward is None else bool(downward), columns)


class FromTorchSDE(SDE):
    """An SDE of torchsde as one of sdekit, see `from_torchsde`."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.noise_type = "diagonal" if module.noise_type == "diagonal" else "general"
        self.additive = module.noise_type == "additive"
        self.sde_type = module.sde_type

    def __repr__(self) -> str:
        return f"from_torchsde({type(self.module).__name__}, {self.module.noise_type!r}, {self.sde_type!r})"

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """f(t, x) for x (B, d)."""
        t = _one_time(t)
        return self.module.f(t, x) if hasattr(self.module, "f") else self.module.f_and_g(t, x)[0]

    def diffusion(self, t: Tensor, x: Tensor) -> Tensor:
        """g(t, x), (B, d) or (B, d, m)."""
        t = _one_time(t)
        g = self.module.g(t, x) if hasattr(self.module, "g") else self.module.f_and_g(t, x)[1]
        if self.module.noise_type == "scalar" and isinstance(g, Tensor) and g.ndim == 3 and g.shape[-1] != 1:
            raise ModelOutputError(
                "diffusion",
                got=f"shape {tuple(g.shape)} of scalar noise",
                expected="(B, d, 1)",
                fix="Declare the noise as general.",
            )
        return g


def _one_time(t: Tensor) -> Tensor:
    """torchsde passes a time without axes."""
    return t.reshape(()) if t.numel() == 1 else t


def from_torchsde(module: Any) -> SDE:
    """An SDE from an object with noise_type, sde_type, and f and g, or f_and_g, as torchsde takes them.

    States are (B, d), times ascend: solve it upwards. Scalar noise becomes general with m = 1, additive noise general
    with `additive`. Parameters of the object keep their gradients.

    Raises:
        InterfaceError: for an object without them; g_prod alone is not enough.
        OptionError: for an unknown noise_type or sde_type.
    """
    has = {name: callable(getattr(module, name, None)) for name in ("f", "g", "f_and_g")}
    if isinstance(module, type) or not (has["f_and_g"] or (has["f"] and has["g"])):
        found = ", ".join(name for name, there in has.items() if there) or "none of them"
        raise InterfaceError(
            "module",
            got=f"{module.__name__ if isinstance(module, type) else type(module).__name__} with {found}",
            expected="an object with f(t, y) and g(t, y), or with f_and_g(t, y)",
            fix="Add them: products g_prod alone do not tell the diffusion.",
        )
    for name, choices in (("noise_type", _NAMES), ("sde_type", ("ito", "stratonovich"))):
        value = getattr(module, name, None)
        if value not in choices:
            raise OptionError(f"module.{name}", got=repr(value), expected=" or ".join(choices), fix="Set it.")
    return FromTorchSDE(module)


class PathBrownian:
    """The Brownian paths of (seed, sample ids) as torchsde's solvers query them: bm=PathBrownian(...).

    A solve by sdekit of the same seed and ids with noise="path" sees the same increments, in any grid. For an SDE
    solved downwards, in s = -t, pass downward=True. A query that the path cannot answer is an error, not a warning.

    Args:
        seed, sample_ids: as for `sdekit.solve`.
        size: the number of Brownian motions of a sample.
        dtype: of what is returned.
        downward: whether torchsde's time is -t.
    """

    levy_area_approximation = "space-time"

    def __init__(
        self,
        seed: int,
        sample_ids: Tensor,
        size: int,
        *,
        dtype: torch.dtype = torch.float32,
        downward: bool = False,
    ) -> None:
        self._path = BrownianPath(seed, sample_ids, size)
        self.dtype, self.downward = dtype, downward

    def __repr__(self) -> str:
        return f"PathBrownian({self._path!r}, downward={self.downward})"

    @property
    def shape(self) -> tuple[int, int]:
        """(B, size)."""
        return len(self._path.sample_ids), self._path.size

    @property
    def device(self) -> torch.device:
        """Of the ids."""
        return self._path.sample_ids.device

    def size(self) -> tuple[int, int]:
        """As torchsde asks for the shape."""
        return self.shape

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        """W over [ta, tb], and U, its integral from ta. Raises OptionError outside the path and BackendError for A."""
        if tb is None or return_A:
            raise BackendError(
                "PathBrownian",
                t=float(ta),
                got="a query of a value at one time" if tb is None else "a query of Levy areas",
                expected="increments W over an interval, and their integrals U",
                fix="Use a method that takes those: not log_ode.",
            )
        s, t = (-float(ta), -float(tb)) if self.downward else (float(ta), float(tb))
        w, area = self._path.increment(s, t)
        integral = abs(t - s) * (0.5 * w + area)
        return (w.to(self.dtype), integral.to(self.dtype)) if return_U else w.to(self.dtype)
