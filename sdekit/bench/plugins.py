"""A user's own solvers, processes and targets: imported where the command line asks for it, never because a file does.

`module:Name` and `path/to/file.py:Name` name an object. The modules and files that may be imported are those that the
command line names; a suite may then refer to all that is in them. Installed packages offer theirs by entry points of
the groups "sdekit.solvers" and "sdekit.processes", which are loaded when their name is used.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from sdekit import solvers
from sdekit.errors import InterfaceError, OptionError, SdekitError, UnknownNameError, suggest
from sdekit.solvers import PlanSolver, Stepper

__all__ = ["NONE", "Plugins", "entry_points", "is_reference", "load", "load_offered", "solver_name", "use"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_trusted: set[str] = set()


@dataclass(frozen=True)
class Plugins:
    """What a run may import, as plain data that worker processes are sent.

    Attributes:
        solvers: references to classes, which are registered and measured with the others.
        trusted: modules and files that suites may refer to; those of `solvers` are, too.
    """

    solvers: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


NONE = Plugins()


def use(plugins: Plugins) -> list[str]:
    """Import and register what is asked for; in a worker as in the process that starts it. The names of the solvers.

    Raises:
        SdekitError: for what cannot be imported, or is no solver.
    """
    _trusted.update(plugins.trusted, (reference.rpartition(":")[0] for reference in plugins.solvers))
    return [_registered(load(reference, "--solver"), reference) for reference in map(_checked, plugins.solvers)]


def _checked(reference: str) -> str:
    if not all(reference.rpartition(":")[::2]):
        raise OptionError(
            "--solver", got=repr(reference), expected="MODULE:CLASS or path/to/file.py:CLASS", fix="Name the class too."
        )
    return reference


def is_reference(text: str) -> bool:
    """Whether a text names an object of a module or a file, and not something of sdekit's by its name."""
    place, colon, _ = text.rpartition(":")
    return bool(colon) and (place in _trusted or "." in place or "/" in place)


def load(reference: str, argument: str = "make") -> Any:
    """The object that a reference names.

    Raises:
        OptionError: where its module is not one that the command line names, or cannot be imported.
        UnknownNameError: where the module has nothing of that name.
    """
    place, _, name = reference.rpartition(":")
    if place not in _trusted:
        raise OptionError(
            argument,
            got=repr(reference),
            expected="code of sdekit: that of others is not run because a file names it",
            fix=f"Pass --trust {place} if you do trust it.",
        )
    module = _module(place, argument)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownNameError(argument, got=repr(reference), expected=f"a name in {place}", fix=suggest(name, known))
    return getattr(module, name)


def solver_name(text: str, argument: str = "solver") -> str:
    """The registered name of a solver; where a reference or an entry point is named, it is loaded and registered."""
    if is_reference(text):
        return _registered(load(text, argument), text)
    if ":" in text or _class_of(text) is not None:  # packages are looked through only for what is not known
        return text
    offered = entry_points("solvers")
    return _registered(load_offered(offered[text]), text, text) if text in offered else text


def entry_points(kind: str) -> dict[str, metadata.EntryPoint]:
    """What installed packages offer, not yet loaded: of "solvers" or "processes"."""
    return {point.name: point for point in metadata.entry_points(group=f"sdekit.{kind}")}


def _class_of(name: str) -> type | None:
    """The class that is registered under a name, or None."""
    try:
        return type(solvers.get(name))
    except UnknownNameError:
        return None


def load_offered(point: metadata.EntryPoint) -> Any:
    """What an entry point stands for. Raises OptionError where it cannot be imported."""
    try:
        return point.load()
    except Exception as error:
        raise _broken("the entry point", point.value, error) from error


def _module(place: str, argument: str) -> ModuleType:
    try:
        return _of_file(Path(place)) if place.endswith(".py") else _by_name(place)
    except SdekitError:
        raise
    except Exception as error:
        raise _broken(argument, place, error) from error


def _by_name(place: str) -> ModuleType:
    # As for a script: a command that is installed does not look where it is called.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(place)


def _of_file(path: Path) -> ModuleType:
    """The module that a file makes, once; its name is of the path, so that two files of one name do not mix."""
    path = path.resolve()
    name = f"sdekit_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OptionError("--solver", got=str(path), expected="a Python file", fix="Pass the path of one.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _registered(cls: Any, reference: str, name: str | None = None) -> str:
    """Register a class, unless it has done so itself; its name."""
    if not (isinstance(cls, type) and issubclass(cls, (PlanSolver, Stepper))):
        raise InterfaceError(
            "--solver",
            got=f"{reference}, which is {type(cls).__name__} {getattr(cls, '__name__', '')}".rstrip(),
            expected="a subclass of sdekit.solvers.PlanSolver or Stepper",
            fix="Derive from one of them.",
        )
    name = name or str(vars(cls).get("name") or _snake(cls.__name__))
    if _class_of(name) is cls:
        return name
    if not _NAME.fullmatch(name):
        raise OptionError(
            "--solver", got=f"{reference} with the name {name!r}", expected=_NAME.pattern, fix="Change its `name`."
        )
    solvers.register(name)(cls)
    return name


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _broken(argument: str, place: str, error: Exception) -> OptionError:
    return OptionError(
        argument,
        got=f"{place}, which raises {type(error).__name__}: {error}",
        expected="code that can be imported",
        fix="Correct it, or the path.",
    )
