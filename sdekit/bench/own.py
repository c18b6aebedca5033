"""Where a run measures the user's own solvers, and what of them its workers must be sent."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sdekit import solvers
from sdekit.bench.cells import Cell, runs_models
from sdekit.bench.plugins import Plugins, is_reference
from sdekit.bench.suite import Choice, Suite
from sdekit.errors import OptionError

__all__ = ["check_measured", "needed", "with_solvers", "words"]

_SECTIONS = ("work", "parts", "sampled", "pictures")


def with_solvers(suite: Suite, names: Iterable[str]) -> Suite:
    """The suite with these solvers in all sections that choose theirs; others measure every registered one anyway."""
    added = [name for name in dict.fromkeys(names) if runs_models(name)]
    return suite.model_copy(
        update={key: [_with(section, added) for section in getattr(suite, key)] for key in _SECTIONS}
    )


def _with(section: Any, names: Sequence[str]) -> Any:
    there = {choice.solver for choice in section.solvers}
    new = [Choice(solver=name) for name in names if name not in there and _does(name, section.kinds)]
    return section.model_copy(update={"solvers": [*section.solvers, *new]}) if section.solvers else section


def _does(name: str, kinds: Iterable[str]) -> bool:
    return any(getattr(solvers.get(name).declared, kind) is not None for kind in kinds)


def check_measured(names: Iterable[str], cells: Iterable[Cell]) -> None:
    """Refuse solvers that no measurement is of. Raises OptionError."""
    left = sorted(set(names) - {cell.variant.solver for cell in cells})
    if left:
        raise OptionError(
            "--solver",
            got=", ".join(left),
            expected="a solver that the suite has a measurement for",
            fix="Leave it out, or run a suite of work or orders, with a process and a kind of error that it declares.",
        )


def needed(plugins: Plugins, suite: Suite) -> Plugins:
    """What workers are sent: cells hold a solver's name, under which they know it once its reference is loaded."""
    return replace(plugins, solvers=tuple(dict.fromkeys((*plugins.solvers, *filter(is_reference, _named(suite))))))


def words(name: str, plugins: Plugins) -> str:
    """What stands behind `sdekit bench run` in a command that measures it again."""
    given = [("--solver", reference) for reference in plugins.solvers] + [("--trust", m) for m in plugins.trusted]
    return shlex.join([name, *(word for pair in given for word in pair)])


def _named(suite: Suite) -> Iterator[str]:
    yield from (choice.solver for choice in suite.variants)
    for section in (section for key in _SECTIONS for section in getattr(suite, key)):
        yield from (choice.solver for choice in (*section.solvers, *getattr(section, "adaptive", ())))
