"""Files are whole or not there, whatever fails and whenever the writer dies; a change of one bit is seen."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sdekit.bench import files
from sdekit.errors import OptionError

FORM = "test 1"
CONTENT = {"format": FORM, "number": 0.1, "text": "é <b>", "list": [1, None, True]}


def text() -> bytes:
    return files.canonical(files.sealed(CONTENT)).encode()


def test_seal_opens_only_what_was_sealed(tmp_path: Path) -> None:
    assert files.unsealed(tmp_path, text(), FORM) == CONTENT
    with pytest.raises(OptionError, match="'test 2'"):
        files.unsealed(tmp_path, text(), "test 2")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.sealed({"number": float("nan")})


def undetected(whole: bytes) -> list[int]:
    """The bits that can be flipped so that other contents are read without an error."""
    found = []
    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            content = files.unsealed(Path("cell.json"), bytes(raw), FORM)
        except OptionError as error:
            assert "cell.json" in str(error)  # noqa: PT017
            continue
        if content != CONTENT:
            found.append(bit)
    return found


def test_every_flipped_bit_is_seen() -> None:
    assert undetected(text()) == []


def test_the_seal_is_what_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: a seal that is the same for all contents."""
    monkeypatch.setattr(files, "digest", lambda _: "0" * 64)
    assert undetected(text())


@pytest.mark.parametrize("length", [0, 1, 40, -1])
def test_cut_file_is_refused(length: int) -> None:
    with pytest.raises(OptionError, match="cut short"):
        files.unsealed(Path("cell.json"), text()[:length], FORM)


CALLS = ["open", "write", "fsync", "close", "replace"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("turn", [1, 2])
def test_failure_of_any_call_leaves_a_whole_file(
    call: str, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of each name is for the file, the second for its folder; where there is none, nothing fails."""
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    calls = 0
    real = getattr(os, call)

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn:
            if call == "close":
                real(*arguments)
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        if calls_of(call) >= turn:
            with pytest.raises(OSError, match="No space"):
                files.write_atomically(path, b"new, but longer")
        else:
            files.write_atomically(path, b"new, but longer")
    assert path.read_bytes() in (b"old", b"new, but longer")
    assert turn == 2 or path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def calls_of(call: str) -> int:
    return 1 if call in ("write", "replace") else 2


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    files.write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What power loss may drop is what was not synchronised: first the file, then the name, then the folder."""
    order = []
    for call in ("write", "fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, real=real, call=call: order.append(call) or real(*a))
    files.write_atomically(tmp_path / "file", b"x")
    assert order == ["write", "fsync", "replace", "fsync"]


def test_file_may_be_read_as_any_other(tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "file", b"")
    (tmp_path / "other").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    start = files._start_of(os.getpid())
    dead = [
        f".cell.json.{files._HOST}-{child.pid}-1-0.tmp",
        f".cell.json.{files._HOST}-{os.getpid()}-{int(start or 0) + 1}-0.tmp",  # an earlier process of our number
    ]
    kept = [
        f".cell.json.{files._owner()}-0.tmp",
        f".cell.json.{'0' * 8}-{child.pid}-1-0.tmp",  # of another machine
        "cell.json",
        ".hidden.tmp",
    ]
    for name in (*dead, *kept):
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(kept)


# Writes 300 files, and a line for each that it begins. It does without torch, which would take longer than all of that.
WRITER = """
import os, sys, types
package = types.ModuleType("sdekit")
package.__path__ = [sys.argv[1]]
sys.modules["sdekit"] = package
from pathlib import Path
from sdekit.bench import files

def naive(path, content):
    with open(path, "wb", buffering=0) as file:
        for i in range(0, len(content), 512):
            file.write(content[i : i + 512])

assert "torch" not in sys.modules
write = files.write_atomically if sys.argv[3] == "atomic" else naive
folder = Path(sys.argv[2])
files.sweep(folder)
log = os.open(folder.parent / "begun", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
for n in range(300):
    path = folder / f"{n}.json"
    if not path.exists():
        os.write(log, b"%d\\n" % n)
        body = files.canonical(files.sealed({"format": "test 1", "n": n, "body": str(n) * 4000}))
        write(path, body.encode())
"""


def killed_and_resumed(root: Path, top: Path, how: str, most: int, seed: int = 0) -> tuple[int, int, int, int]:
    """Kill the writer at random moments, then let it end: files damaged, lost, begun, and the number of kills."""
    top.mkdir()
    (folder := top / "cells").mkdir()
    words = [sys.executable, "-c", WRITER, str(root / "sdekit"), str(folder), how]
    moments, damaged, lost, kills = random.Random(seed), 0, 0, 0
    seen: set[str] = set()
    while True:
        with subprocess.Popen(words) as process:
            try:
                process.wait(moments.uniform(0.02, 0.2) if kills < most else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        there = {p.name for p in folder.glob("*.json")}
        lost, seen = lost + len(seen - there), there
    for path in folder.glob("*.json"):
        try:
            files.unsealed(path, path.read_bytes(), FORM)
        except OptionError:
            damaged += 1
    assert len(list(folder.iterdir())) == 300, "half-written files were left"
    return damaged, lost, len((top / "begun").read_text().split()), kills


@pytest.mark.parametrize("most", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_damage_nothing(root: Path, tmp_path: Path, most: int) -> None:
    damaged, lost, begun, kills = killed_and_resumed(root, tmp_path / "a", "atomic", most)
    assert (damaged, lost) == (0, 0)
    assert begun <= 300 + kills


@pytest.mark.slow
def test_kills_damage_files_that_are_written_in_place(root: Path, tmp_path: Path) -> None:
    """The mutant: the same without a temporary file. No kill need hit it in the middle of a file, so it tries on."""
    for seed in range(20):
        if killed_and_resumed(root, tmp_path / str(seed), "naive", 20, seed)[0]:
            return
    pytest.fail("no kill fell into the middle of a file")


def test_two_runs_may_share_a_folder(root: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "cells").mkdir()
    words = [sys.executable, "-c", WRITER, str(root / "sdekit"), str(folder), "atomic"]
    for process in [subprocess.Popen(words), subprocess.Popen(words)]:
        assert process.wait() == 0
    assert {p.name for p in folder.iterdir()} == {f"{n}.json" for n in range(300)}
    for path in folder.iterdir():
        assert files.unsealed(path, path.read_bytes(), FORM)["n"] == int(path.stem)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    """A process replaces a file again and again; whatever is read meanwhile is one of its contents."""
    code = WRITER.partition("\nassert")[0] + (
        "\npath = Path(sys.argv[2])\nwhile True:\n    for c in b'ab':\n"
        "        files.write_atomically(path, bytes([c]) * 100_000)\n"
    )
    path = tmp_path / "file"
    top = str(Path(files.__file__).parent.parent)
    with subprocess.Popen([sys.executable, "-c", code, top, str(path), "atomic"]) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        seen = {path.read_bytes() for _ in range(300)}
        process.kill()
    assert seen <= {b"a" * 100_000, b"b" * 100_000}


def test_json_has_one_form() -> None:
    assert files.canonical({"b": [1.0, "é"], "a": None}) == '{"a":null,"b":[1.0,"\\u00e9"]}'
    assert json.loads(files.canonical(CONTENT)) == CONTENT
