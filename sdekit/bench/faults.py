"""Several errors told as one: who corrects a file wants to know of all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sdekit.errors import OptionError, SdekitError, UnknownNameError

__all__ = ["Faults", "placed", "together"]


class Faults:
    """Errors collected one by one, each with the place that it is about.

    Attributes:
        found: these errors, in the order in which they were met.
    """

    def __init__(self) -> None:
        self.found: list[SdekitError] = []

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Collect the error that the block raises, if any."""
        try:
            yield
        except SdekitError as error:
            self.found.append(placed(place, error))

    def add(self, error: SdekitError) -> None:
        """Collect an error that names its place itself."""
        self.found.append(error)

    def raise_any(self, source: str) -> None:
        """Raise what was collected, as one error; nothing where there is none.

        Args:
            source: the suite's name or file, to head the list.
        """
        if self.found:
            raise together(source, self.found)


def placed(place: str, error: SdekitError) -> SdekitError:
    """The same error, about an argument at that place of a file."""
    kind = UnknownNameError if isinstance(error, UnknownNameError) else OptionError
    own = "" if place.endswith(f".{error.argument}") else f": {error.argument}"
    return kind(place + own, got=error.got, expected=error.expected, fix=error.fix)


def together(source: str, errors: Sequence[SdekitError]) -> SdekitError:
    """One error for several: itself where it is the only one, else a list of all, a line each."""
    if len(errors) == 1:
        alone = errors[0]
        return type(alone)(f"{source}: {alone.argument}", got=alone.got, expected=alone.expected, fix=alone.fix)
    kind = UnknownNameError if all(isinstance(e, UnknownNameError) for e in errors) else OptionError
    lines = "".join(f"\n  {error}" for error in errors)
    return kind(source, got=f"{len(errors)} faults", expected="none", fix=f"Correct each of them:{lines}")
