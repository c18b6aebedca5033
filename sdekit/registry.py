"""Names for things that users choose by name: one class for solvers, grids and everything else that is looked up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from sdekit.errors import InterfaceError, OptionError, UnknownNameError, suggest

__all__ = ["Registry", "check_options"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names and their aliases to objects; lookups that fail suggest near names.

    Args:
        kind: what the names stand for, for error texts: "solver", "grid".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._options: dict[str, dict[str, Any]] = {}  # of aliases that stand for an item with options

    def register(self, name: str, item: T, aliases: tuple[str, ...] = ()) -> None:
        """Add `item` under `name`. Raises OptionError where a name is taken."""
        for key in (name, *aliases):
            self._check_free(key)
        self._items[name] = item
        self._aliases.update(dict.fromkeys(aliases, name))

    def alias(self, alias: str, name: str, **options: Any) -> None:
        """Another spelling of a registered name, or of it with options. Raises OptionError where it is taken."""
        self._check_free(alias)
        self._aliases[alias] = self.resolve(name)
        if options:
            self._options[alias] = options

    def _check_free(self, key: Any) -> None:
        if not isinstance(key, str) or not key:
            raise InterfaceError("name", got=repr(key), expected=f"the name of a {self.kind}", fix="Pass a string.")
        if key in self._items or key in self._aliases:
            raise OptionError("name", got=repr(key), expected=f"a {self.kind} name that is free", fix="Choose another.")

    def get(self, name: str) -> T:
        """The object registered under `name` or an alias. Raises UnknownNameError with near names."""
        return self._items[self.resolve(name)]

    def resolve(self, name: str) -> str:
        """The registered name behind a name or an alias."""
        if not isinstance(name, str):
            raise InterfaceError(
                self.kind, got=type(name).__name__, expected=f"the name of a {self.kind}", fix="Pass a string."
            )
        key = name if name in self._items else self._aliases.get(name)
        if key is None:
            known = [*self._items, *self._aliases]
            raise UnknownNameError(
                self.kind, got=repr(name), expected=f"a registered {self.kind}", fix=suggest(name, known)
            )
        return key

    def options(self, name: str) -> dict[str, Any]:
        """The options that an alias stands for; none for other names."""
        return dict(self._options.get(name, {}))

    def aliases(self, name: str) -> tuple[str, ...]:
        """The other spellings of a registered name by itself."""
        return tuple(a for a, target in self._aliases.items() if target == name and a not in self._options)

    def with_options(self, name: str) -> dict[str, dict[str, Any]]:
        """The other names that stand for a registered one with options, and these."""
        return {a: dict(options) for a, options in self._options.items() if self._aliases[a] == name}

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def check_options(what: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that `function` does not take by keyword. Raises UnknownNameError with near names."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]
    for name in options:
        if name not in known:
            raise UnknownNameError(
                f"{what}({name}=)", got=repr(name), expected=f"an option of {what}", fix=suggest(name, known)
            )
