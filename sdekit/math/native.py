"""Kernels in C for the loops that PyTorch's operations make slow, built where there is a compiler.

kernels.c (noise), combinations.c (fixed steps) and stages.c (adaptive steps) give the same bits as the code beside
which they are called, the first some ten times as fast on a CPU; softmax.c (mixtures) the same values to rounding. Each
is compiled by `cc`, which takes about a second, and kept for later processes in $XDG_CACHE_HOME/sdekit/native or
~/.cache/sdekit/native, under a name made of source, flags and processor. The first two are built when a process has
drawn or combined 2^22 numbers without them, the others when they are first asked for, so that all results of a process
are the same. A file there is loaded only if it belongs to the user and nobody else may write to it. Before its first
use every build has to reproduce known results. Without a compiler, on other systems than Linux and macOS, or with
SDEKIT_NATIVE=0 in the environment everything works without it; `Native.reason` says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["ENOUGH", "SCRATCH", "VARIABLE", "Native"]

ENOUGH = 2**22
"""How many numbers a process draws, or combines, before it builds the kernels."""
VARIABLE = "SDEKIT_NATIVE"
"""The environment variable that keeps them away: 0."""

SCRATCH = 512
"""The scratch numbers of the sums for each point and integral: WIDTH in kernels.c."""

_FOLDER = Path(__file__).parent
_SIGNATURES = {
    "kernels.c": {
        "sdekit_fill_64": "piiiuppi",
        "sdekit_fill_32": "piiiuppi",
        "sdekit_path_1": "ppiiiupipipppi",
        "sdekit_path_2": "ppiiiupipipppi",
        "sdekit_path_3": "ppiiiupipipppi",
    },
    "combinations.c": {f"sdekit_combination_{bits}": "pipipppppp" for bits in (64, 32)},
    "softmax.c": {"sdekit_softmax_rows": "pppppdiid", "sdekit_softmax_columns": "pppppdiiid"},
    "stages.c": {
        f"sdekit_{name}_{bits}": kinds
        for name, kinds in (("stage", "pppipippii"), ("error", "ppppipidi"), ("combine", "pppppii"))
        for bits in (64, 32)
    },
}
_KINDS = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "u": ctypes.c_uint64, "d": ctypes.c_double}


class Native:
    """What a process knows of the kernels in a file.

    Args:
        accept: says of a loaded library whether it gives the right results.
        source: the file's name.
        enough: how many numbers a process draws before it builds them.
    """

    def __init__(self, accept: Callable[[ctypes.CDLL], bool], source: str = "kernels.c", enough: int = ENOUGH) -> None:
        self.accept, self.source, self.enough = accept, source, enough
        self.reason = "not asked for yet"
        self._library: ctypes.CDLL | None = None
        self._settled = self._looked = False
        self._drawn = 0
        self._lock = threading.Lock()

    def get(self, numbers: int) -> ctypes.CDLL | None:
        """The library, or None; counts the numbers that are about to be drawn."""
        if self._settled:
            return self._library
        with self._lock:
            if not self._settled:
                self._drawn += numbers
                self._find()
            return self._library

    def _find(self) -> None:
        if os.environ.get(VARIABLE) == "0":
            self._settle(None, f"{VARIABLE} is 0")
            return
        compiler = shutil.which("cc")
        if sys.platform not in ("linux", "darwin") or compiler is None:
            self._settle(None, "no C compiler named cc, or a system other than Linux and macOS")
            return
        if not self._looked:
            self._looked = True
            self._file = _directory() / f"{_key(compiler, self.source)}.so"
            if _trusted(self._file):
                self._load()
                return
            self.reason = f"not built: fewer than {self.enough} numbers have been drawn"
        if self._drawn >= self.enough:
            failure = _build(compiler, self.source, self._file)
            if failure:
                self._settle(None, failure)
            else:
                self._load()

    def _load(self) -> None:
        try:
            library = ctypes.CDLL(str(self._file))
        except OSError as error:
            self._settle(None, f"{self._file} does not load: {error}")
            return
        for name, kinds in _SIGNATURES[self.source].items():
            function = getattr(library, name)
            function.argtypes, function.restype = [_KINDS[k] for k in kinds], None
        right = self.accept(library)
        self._settle(library if right else None, str(self._file) if right else "the build gives other results")

    def _settle(self, library: ctypes.CDLL | None, reason: str) -> None:
        self._library, self.reason, self._settled = library, reason, True


def _directory() -> Path:
    """Where builds are kept: a place of the user's own, or one of this process."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        (root / "sdekit" / "native").mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(root / "sdekit" / "native", os.W_OK):
            return root / "sdekit" / "native"
    except (OSError, RuntimeError):  # no home, or none that may be written to
        pass
    return Path(tempfile.mkdtemp(prefix="sdekit-"))


def _flags() -> list[str]:
    wide = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    return ["-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", *wide, "-shared", "-fPIC"]


def _key(compiler: str, source: str) -> str:
    """Of everything that a build depends on; processors differ where a home is shared."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    about = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))][:2] or lines[
        :1
    ]
    text = "\n".join(
        [(_FOLDER / source).read_text(), *_flags(), os.path.realpath(compiler), platform.platform(), *about]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _trusted(file: Path) -> bool:
    try:
        found = file.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _build(compiler: str, source: str, file: Path) -> str:
    """Compile to the file, whole or not at all. Returns what went wrong."""
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / "kernels.so"
            command = [compiler, *_flags(), str(_FOLDER / source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode:
                return f"{compiler} failed: {done.stderr.strip()[:300]}"
            made.chmod(0o700)
            os.replace(made, file)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{compiler} failed: {error}"
    return ""
