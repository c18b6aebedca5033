"""Results on disk, found by the content that they were computed from. Losing the cache costs time and nothing else."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

__all__ = ["cached", "directory", "key_of"]


def directory() -> Path:
    """Where results are kept: $SDEKIT_CACHE, or `sdekit` in the user's cache directory."""
    chosen = os.environ.get("SDEKIT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sdekit" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sdekit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdekit"


def key_of(parts: Iterable[str | np.ndarray]) -> str:
    """SHA-256 of texts and arrays, with their shapes and dtypes, so that no two lists of parts run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            label, content = "text", part.encode()
        else:
            array = np.ascontiguousarray(part)
            label, content = f"{array.dtype.str}{array.shape}", array.tobytes()
        digest.update(f"{label}:{len(content)};".encode())
        digest.update(content)
    return digest.hexdigest()


def cached(key: str, shape: tuple[int, ...], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The float64 array of `shape` under `key`, or `compute()`, which is stored. An unusable file is replaced."""
    try:
        path = directory() / f"{key}.npz"
        found = _load(path, shape)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        path, found = None, None
        _warn(str(error))
    if found is not None:
        return found
    result = np.asarray(compute(), dtype=np.float64)
    if path is not None:
        try:
            _store(path, result)
        except OSError as error:
            _warn(str(error))
    return result


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        # Opened here, because np.load leaves a file open that it cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            value = file["value"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # cut short, overwritten, or another's file
        return None
    usable = value.shape == shape and value.dtype == np.float64 and bool(np.isfinite(value).all())
    return value if usable else None


def _store(path: Path, value: np.ndarray) -> None:
    """Write beside the target and rename: readers and other writers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, value=value)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@cache
def _warn(reason: str) -> None:
    """Once for a reason: the results are right without a cache, only slower."""
    warnings.warn(f"sdekit keeps no results on disk: {reason}. Set SDEKIT_CACHE to a writable directory.", stacklevel=4)
