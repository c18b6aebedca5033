"""Arrays from files: formats that hold numbers and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdekit.errors import OptionError, SdekitError, suggest

__all__ = ["load_array"]


def load_array(path: str | os.PathLike[str], key: str | None = None) -> Any:
    """The array in a .npy, .npz or .safetensors file; nothing in it is executed.

    Raises:
        OptionError: for a file that is missing, of another format or damaged, or a key that it does not have.
        SdekitError: for a .safetensors file where safetensors is missing.
    """
    file = Path(path)
    if not file.is_file():
        raise _wrong(file, "no such file", "Check the path.")
    if file.suffix not in _READERS:
        raise _wrong(file, f"the suffix {file.suffix!r}", "Save the array with numpy.save.")
    try:
        content = _READERS[file.suffix](file)
    except SdekitError:
        raise
    except Exception as error:  # each format has its own; all of them mean that the file is not what it says
        raise _wrong(file, f"a file that cannot be read ({error})", "Save the array again, without pickle.") from error
    if not isinstance(content, Mapping):
        if key is not None:
            raise OptionError("key", got=repr(key), expected="None: the file holds one array", fix="Leave it out.")
        return content
    if key is None and len(content) == 1:
        return next(iter(content.values()))
    if key not in content:
        names = ", ".join(sorted(content))
        fix = suggest(key, list(content)) if key is not None else "Pass key=."
        raise OptionError("key", got=repr(key), expected=f"one of the arrays of {file.name}: {names}", fix=fix)
    return content[key]


def _safetensors(file: Path) -> Mapping[str, Any]:
    try:
        from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SdekitError(
            "data",
            got=f"{file.name!r} without safetensors",
            expected="safetensors, which reads it",
            fix="Install it: pip install 'sdekit[hub]'.",
        ) from error
    return load_file(file)


def _npy(file: Path) -> Any:
    return np.load(file, allow_pickle=False)


def _npz(file: Path) -> Mapping[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


_READERS = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}


def _wrong(file: Path, got: str, fix: str) -> OptionError:
    return OptionError("data", got=f"{got}: {file}", expected="a .npy, .npz or .safetensors file", fix=fix)
