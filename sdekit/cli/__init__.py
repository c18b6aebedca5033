"""The `sdekit` command. This module needs nothing but Python: it says what to install where a package is missing."""

from __future__ import annotations

import sys

from sdekit.errors import SdekitError

__all__ = ["main"]

_USAGE = 2


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, with sys.argv's arguments if none are given, and exit.

    The status is 0, 1 where a benchmark does not pass, 2 for what cannot be done as asked, 130 after Ctrl-C.
    """
    try:
        from sdekit.cli.commands import app
    except ModuleNotFoundError as error:
        package = _missing(error)
        _say(f"the command line needs {package}, which is not installed. Type: pip install 'sdekit[cli]'")
        raise SystemExit(_USAGE) from error
    try:
        app(args=arguments, prog_name="sdekit")
    except SdekitError as error:
        _say("\n".join([str(error), *getattr(error, "__notes__", ())]))
        raise SystemExit(_USAGE) from error
    except ModuleNotFoundError as error:
        package = _missing(error)
        _say(f"this command needs {package}, which is not installed. Type: pip install 'sdekit[bench]'")
        raise SystemExit(_USAGE) from error


def _missing(error: ModuleNotFoundError) -> str:
    """The package that is not there; a missing module of sdekit itself is a bug, and shows as one."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "sdekit"):
        raise error
    return package


def _say(message: str) -> None:
    sys.stderr.write(f"sdekit: {message}\n")
