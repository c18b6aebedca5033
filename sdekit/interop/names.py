"""Names of other packages' solvers, "torchdiffeq:NAME" for example. Nothing of the packages is imported."""

from __future__ import annotations

from functools import partial
from typing import Any

from sdekit.errors import OptionError, UnknownNameError, suggest
from sdekit.interop import diffeq, ivp, stochastic, torchode
from sdekit.interop.backend import Backend
from sdekit.registry import check_options

__all__ = ["ALIASES", "backends", "get_backend"]

_CLASSES: dict[str, type[Backend]] = {
    **{f"torchdiffeq:{name}": diffeq.TorchdiffeqFixed for name in diffeq.FIXED},
    **{f"torchdiffeq:{name}": diffeq.TorchdiffeqAdams for name in diffeq.MULTISTEP},
    **{f"torchdiffeq:{name}": diffeq.TorchdiffeqAdaptive for name in diffeq.ADAPTIVE},
    **{f"torchsde:{name}": stochastic.TorchsdeSolver for name in stochastic.METHODS},
    **{f"torchode:{name}": torchode.TorchodeSolver for name in torchode.METHODS},
    **{f"scipy:{name}": ivp.ScipySolver for name in ivp.METHODS},
}
ALIASES = {"torchdiffeq:fixed_adams": "torchdiffeq:implicit_adams"}
_REFUSED = {
    "torchdiffeq:scipy_solver": "Use the scipy: names, such as 'scipy:LSODA'.",
    "torchsde:adjoint_reversible_heun": "Use 'torchsde:reversible_heun' with gradients='adjoint'.",
}


def backends() -> list[str]:
    """All names."""
    return sorted(_CLASSES)


def get_backend(name: str, **options: Any) -> Backend:
    """A solver by such a name, with its options.

    Raises:
        UnknownNameError: for an unknown name or option, with near ones suggested.
        OptionError: for a name that is offered in another way.
    """
    if name in _REFUSED:
        raise OptionError("solver", got=repr(name), expected="a method offered under this name", fix=_REFUSED[name])
    key = ALIASES.get(name, name)
    if key not in _CLASSES:
        known = [*_CLASSES, *ALIASES]
        raise UnknownNameError(
            "solver",
            got=repr(name),
            expected="a solver of torchdiffeq, torchode, torchsde or scipy",
            fix=suggest(name, known),
        )
    method = key.partition(":")[2]
    make = partial(_CLASSES[key], method)
    check_options(key, make, options)
    return make(**options)
