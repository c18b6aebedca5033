"""Files that are whole or not there, and that know when they were changed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdekit.errors import OptionError

__all__ = ["canonical", "digest", "sealed", "sweep", "unsealed", "write_as_asked", "write_atomically"]

SEAL = "sha256"
_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"^\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-\d+\.tmp$")
_numbers = itertools.count()


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: whenever this ends, a reader sees the old file or the new one, never half.

    The content is on the disk before it gets its name, and the name before this returns.

    Raises:
        OSError: where the system refuses; the old file is then as it was, or the new one is whole.
    """
    temporary = path.with_name(f".{path.name}.{_owner()}-{next(_numbers)}.tmp")
    try:
        _fill(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what the caller must hear of
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def write_as_asked(path: Path, content: bytes) -> None:
    """Write where the user has asked for, in folders that are made where they are missing.

    Raises:
        OptionError: where the system refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        got = f"{path}: {error.strerror}"
        raise OptionError("--out", got=got, expected="a file that can be written", fix="Choose another.") from error


def sweep(folder: Path) -> None:
    """Remove temporary files that processes of this machine left when they were killed; those of live ones stay."""
    for path in folder.iterdir():
        found = _TEMPORARY.match(path.name)
        if found and found["host"] == _HOST and not _lives(int(found["pid"]), found["start"]):
            path.unlink(missing_ok=True)


def canonical(content: Any) -> str:
    """JSON in one form only: the same content gives the same text.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(content: Any) -> str:
    """The SHA-256 of a content's canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with the digest of all of it as one more entry, the first."""
    return {SEAL: digest(content), **content}


def unsealed(path: Path, text: str | bytes, form: str) -> dict[str, Any]:
    """The content of a sealed file, if it is the one that was sealed.

    Args:
        path: named in errors.
        form: what its entry "format" must be.

    Raises:
        OptionError: for a file that is cut short, damaged or edited, or of another format.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, "no JSON: it is cut short, or damaged") from error
    if not isinstance(content, dict):
        raise _refusal(path, f"JSON of another kind ({type(content).__name__})")
    seal = content.pop(SEAL, None)
    if content.get("format") != form:
        raise OptionError(
            str(path), got=f"the format {content.get('format')!r}", expected=repr(form), fix="Measure again."
        )
    try:
        whole = seal == digest(content)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise _refusal(path, "contents that do not match the seal: they were damaged or edited")
    return content


def _refusal(path: Path, got: str) -> OptionError:
    return OptionError(str(path), got=got, expected="the file as sdekit wrote it", fix="Delete it and measure again.")


def _fill(path: Path, content: bytes) -> None:
    handle = os.open(path, _CREATE, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _owner() -> str:
    """This process, told apart from all others of this machine, earlier ones of the same number too."""
    return f"{_HOST}-{os.getpid()}-{_start_of(os.getpid()) or 0}"


def _start_of(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is no such process, or no way to tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _lives(pid: int, start: str) -> bool:
    if not Path("/proc/self/stat").exists():  # then the number is all there is
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True
    return _start_of(pid) == start
