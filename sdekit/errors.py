"""Every error that sdekit raises: what was wrong, what was got, what was expected, and what to do."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BackendError",
    "ConformanceError",
    "InterfaceError",
    "MissingPackageError",
    "ModelOutputError",
    "NonFiniteError",
    "OptionError",
    "OutOfDomain",
    "SdekitError",
    "ShapeError",
    "SolverMismatchError",
    "UnfinishedError",
    "UnknownNameError",
    "suggest",
]

_LONGEST = 300  # characters of what was got
_ALIKE = 0.6  # shared letters, as difflib counts them


class SdekitError(Exception):
    """Base of all errors of sdekit.

    Args:
        argument: the name of the argument at fault, as the user wrote it.
        got: what was found there.
        expected: what would have been accepted.
        fix: what to do about it, as an instruction.

    Attributes:
        partial: what a solve had reached when it failed, or None.
    """

    def __init__(self, argument: str, *, got: Any, expected: str, fix: str) -> None:
        self.argument, self.got, self.expected, self.fix = argument, _short(got), expected, fix
        self.partial: Any = None
        super().__init__(f"{argument}: got {self.got}; expected {expected}. {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__, self.args)


def _rebuild(cls: type[SdekitError], attributes: dict[str, Any], args: tuple[Any, ...]) -> SdekitError:
    """Unpickle an error although its constructor takes keywords only (worker processes send errors back)."""
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(attributes)
    return error


class OptionError(SdekitError, ValueError):
    """A value that no run could use: a negative step count, an unsorted grid, a tolerance of NaN."""


class ShapeError(SdekitError, ValueError):
    """A tensor of a shape that does not fit."""


class InterfaceError(SdekitError, TypeError):
    """An object of the wrong kind: not a tensor, not floating, not callable."""


class UnknownNameError(SdekitError, ValueError):
    """A name or an option that nothing is registered under; `fix` suggests near ones."""


class SolverMismatchError(SdekitError, ValueError):
    """A solver that cannot solve these dynamics; `fix` names some that can."""


class ModelOutputError(SdekitError, TypeError):
    """A model, drift or diffusion that returned something of another kind, shape, dtype or device."""


class NonFiniteError(SdekitError, ArithmeticError):
    """NaN or infinity in a solve.

    Attributes:
        source: "x", "model", "noise", "solver" or "event".
        sample: index in the batch of the first sample hit.
        step: index of the step, from 0.
        t: the time at which it appeared.
    """

    def __init__(self, source: str, *, sample: int, step: int, t: float, call: int | None = None) -> None:
        self.source, self.sample, self.step, self.t, self.call = source, sample, step, t, call
        where = f"sample {sample}, step {step}, t = {t:.8g}" + ("" if call is None else f", model call {call}")
        what = {
            "x": "the initial state",
            "model": "the model's output",
            "noise": "the noise",
            "solver": "the state that the solver computed",
            "event": "what the event function returns",
        }[source]
        fix = {
            "x": "Pass a finite state.",
            "model": "Evaluate the model at this t and sample to see why; on_failure='mask' loses only this sample.",
            "noise": "Check the noise object's output; on_failure='mask' loses only this sample.",
            "solver": "The values left the range of the dtype: use smaller steps or a wider dtype.",
            "event": "Evaluate event(t, x) at this t and sample: it needs a finite value at every state on the way.",
        }[source]
        super().__init__(source, got=f"NaN or infinity at {where}", expected=f"finite values in {what}", fix=fix)


class UnfinishedError(SdekitError, ArithmeticError):
    """An adaptive solve that cannot reach the last time. `partial` holds what every sample had reached.

    Attributes:
        cause: the name of the `Status` of the sample that failed, such as "BLOW_UP", "STIFF" or "TOLERANCE".
        sample: its index in the batch.
        t, step_size: where it stands, and the length of the step that was tried.
        component: the index, in the flattened sample, of the element whose error was largest.
    """

    def __init__(self, cause: str, *, sample: int, t: float, step_size: float, component: int, what: str) -> None:
        self.cause, self.sample, self.t, self.step_size, self.component = cause, sample, t, step_size, component
        reason, _, advice = what.partition("; ")
        where = f"sample {sample} at t = {t:.10g}, step {step_size:.3g}, worst component {component}"
        fix = advice[:1].upper() + advice[1:] + "." if advice else "Evaluate the drift around this t and sample."
        super().__init__(
            f"solve ({cause})", got=f"{reason}: {where}", expected="steps that reach the last time", fix=fix
        )


class MissingPackageError(SdekitError, ImportError):
    """A package that is needed here is not installed; `fix` says how to install it."""


class BackendError(SdekitError, RuntimeError):
    """A solver of another package that failed; what it raised is the cause.

    Attributes:
        backend: its name here, such as "scipy:Radau".
        t: the time of its last call.
        sample: index in the batch, where samples are solved one by one.
    """

    def __init__(self, backend: str, *, got: Any, expected: str, fix: str, t: float | None = None) -> None:
        self.backend, self.t = backend, t
        self.sample: int | None = None
        super().__init__(backend, got=got if t is None else f"{got}, near t = {t:.8g}", expected=expected, fix=fix)


class OutOfDomain(SdekitError, ValueError):  # noqa: N818  (a signal, not a failure)
    """May be raised by a model or drift where it is not defined.

    Adaptive solvers then try a shorter step for those samples; with fixed steps it ends the solve.

    Args:
        mask: a bool tensor or sequence (B,), True for each sample of the batch given to the model that it refuses.
    """

    def __init__(self, mask: Any) -> None:
        self.mask = mask
        rows = [i for i, refused in enumerate(mask) if refused] if hasattr(mask, "__iter__") else mask
        super().__init__(
            "x",
            got=f"states where the model is not defined, samples {rows} of the batch it was given",
            expected="states inside the model's domain",
            fix="Use smaller steps, or an adaptive solver (rtol=, atol=), which does so by itself.",
        )


class ConformanceError(SdekitError, AssertionError):
    """A solver that breaks a promise which `sdekit.testing.check_solver` verifies.

    Attributes:
        check: the name of the check that failed.
        solver: the label of the solver.
    """

    def __init__(self, check: str, solver: str, *, got: Any, expected: str, fix: str) -> None:
        self.check, self.solver = check, solver
        super().__init__(f"{solver} fails {check!r}", got=got, expected=expected, fix=fix)


def suggest(name: str, known: Iterable[str]) -> str:
    """An instruction that names the (at most three) known spellings nearest to `name`, or all of them.

    Near is what one slip of the finger away is, whatever the length, or what shares most of its letters.
    """
    names, matcher = sorted(set(known)), difflib.SequenceMatcher()
    matcher.set_seq2(name.casefold())
    ranked = []
    for candidate in names:
        slip = _one_slip(name.casefold(), candidate.casefold())
        matcher.set_seq1(candidate.casefold())
        # The quick ratio is an upper bound.
        if slip or (matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE):
            ranked.append((not slip, -matcher.ratio(), candidate.islower() != name.islower(), candidate))
    if ranked:
        # Of names that differ in case alone the one in the case of what was typed.
        nearest = list({candidate.casefold(): candidate for *_, candidate in sorted(ranked, reverse=True)}.values())
        return "Did you mean " + " or ".join(map(repr, nearest[:-4:-1])) + "?"
    return "Use one of: " + ", ".join(names) + "." if names else "It takes none."


def _one_slip(a: str, b: str) -> bool:
    """Whether at most one insertion, deletion, replacement or swap of neighbours leads from a to b."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = _common(a, b)
    a, b = a[start:], b[start:]
    end = _common(a[::-1], b[::-1])
    a, b = a[: len(a) - end], b[: len(b) - end]
    return max(len(a), len(b)) <= 1 or (len(a) == len(b) == 2 and a == b[::-1])


def _common(a: str, b: str) -> int:
    """The length of the common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _short(got: Any) -> str:
    """One line of at most a few hundred characters: a whole tensor in an error text helps nobody."""
    text = " ".join(str(got).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."
