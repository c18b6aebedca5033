"""Progress of a solve: a tqdm bar, or any object with update(n)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sdekit.errors import InterfaceError

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(progress: Any, total: int | None) -> Iterator[Callable[[int], Any] | None]:
    """A function that is told of model calls made, or None where nobody listens.

    Args:
        progress: True for a tqdm bar, False or None for nothing, or an object with update(n).
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="call") as bar:
            yield bar.update
    elif callable(getattr(progress, "update", None)):
        yield progress.update
    else:
        raise InterfaceError(
            "progress",
            got=type(progress).__name__,
            expected="True, False, None or an object with update(n)",
            fix="Pass True for a tqdm bar.",
        )
