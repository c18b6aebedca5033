"""What solvers of other packages have in common: how they see the dynamics, and what becomes of their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdekit.errors import BackendError, InterfaceError, OptionError, SdekitError, UnknownNameError, suggest
from sdekit.integrate import Dynamics
from sdekit.solvers.base import Stepper

__all__ = ["Backend", "Caller", "choose"]

_ULPS = 16  # by how much a peer's arithmetic may miss the ends of an interval


@dataclass(frozen=True)
class Backend(Stepper):
    """A solver of another package by its name there.

    Args:
        method: the name.
    """

    package: ClassVar[str]

    method: str

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.package}:{self.method}"

    @property
    def label(self) -> str:
        options = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "method")
        return f"{self.name}({options})"

    @contextmanager
    def guarded(self, caller: Caller) -> Iterator[None]:
        """Errors of the package become BackendError; those of sdekit and of the user's functions stay as they are."""
        try:
            yield
        except Exception as error:
            if error is caller.raised or isinstance(error, SdekitError):
                raise
            raise BackendError(
                self.name,
                t=caller.last,
                got=f"{type(error).__name__}: {error}",
                expected="a step",
                fix="Use smaller steps or a looser tolerance, or one of sdekit's own solvers.",
            ) from error


class Caller:
    """The drift and diffusion over one interval, as another package calls them: at its times, inside the interval only.

    Args:
        dynamics: checks outputs and counts calls.
        t0, t1: the interval, in either direction.
        upward: the package's time s increases: s = t, or -t where t1 < t0. False: its time is t.
        many: whether there may be any number of calls; each output is then a copy, and none is remembered.

    Attributes:
        raised: what the user's functions, or the checks of what they return, have raised.
        last: the time of the last call.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        t0: float,
        t1: float,
        dtype: torch.dtype,
        *,
        upward: bool = False,
        many: bool = False,
    ) -> None:
        self.dynamics, self.dtype, self.many = dynamics, dtype, many
        self.low, self.high = min(t0, t1), max(t0, t1)
        self.sign = -1.0 if upward and t1 < t0 else 1.0
        self.raised: BaseException | None = None
        self.last = t0

    @property
    def ends(self) -> tuple[float, float]:
        """The interval in the package's time, where that increases."""
        return (self.low, self.high) if self.sign > 0 else (-self.high, -self.low)

    def time(self, s: Any) -> float:
        """t, moved to an end where rounding has carried it past. Raises BackendError outside the interval."""
        t = self.sign * float(s.detach() if isinstance(s, Tensor) else s)
        inside = min(max(t, self.low), self.high)
        slack = _ULPS * torch.finfo(self.dtype).eps * max(abs(self.low), abs(self.high))
        if not math.isfinite(t) or abs(t - inside) > slack:
            raise BackendError(
                "the other package",
                t=t,
                got=f"a call of the drift or diffusion at t = {t!r}",
                expected=f"times in [{self.low!r}, {self.high!r}]",
                fix="Use one of sdekit's own solvers, which never leave the interval.",
            )
        self.last = inside
        return inside

    def drift(self, s: Any, x: Tensor) -> Tensor:
        """dx/ds."""
        if self.many:
            self.dynamics.begin(self.dynamics.step)
        out = self._noted(lambda: self.dynamics.drift(self.time(s), x))
        return -out if self.sign < 0 else out.clone() if self.many else out

    def diffusion(self, s: Any, x: Tensor) -> Tensor:
        """g, which is the same in either direction."""
        return self._noted(lambda: self.dynamics.diffusion(self.time(s), x))

    def _noted(self, call: Callable[[], Tensor]) -> Tensor:
        try:
            return call()
        except BaseException as error:
            self.raised = error
            raise


def choose(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises OptionError for a value that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(repr(c) for c in choices)
        raise OptionError(argument, got=repr(value), expected=expected, fix=suggest(str(value), choices))


def check_method(package: str, method: Any, known: Any) -> None:
    """Raises InterfaceError or UnknownNameError for what is not a method of the package."""
    if not isinstance(method, str):
        raise InterfaceError("method", got=type(method).__name__, expected="a name", fix="Pass a string.")
    if method not in known:
        names = [f"{package}:{name}" for name in known]
        raise UnknownNameError(
            "solver",
            got=repr(f"{package}:{method}"),
            expected=f"a method of {package}",
            fix=suggest(f"{package}:{method}", names),
        )
