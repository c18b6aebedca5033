"""The wheel carries the whole library: what an editable install cannot show."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

BUILD_INPUTS = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


def _build(root: Path, folder: Path, change: tuple[str, str] = ("", "")) -> zipfile.ZipFile:
    """The wheel built from a copy of the project in which one text of pyproject.toml is replaced."""
    shutil.copytree(root / "sdekit", folder / "sdekit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILD_INPUTS:
        shutil.copy(root / name, folder)
    pyproject = folder / "pyproject.toml"
    text = pyproject.read_text()
    assert change[0] in text
    pyproject.write_text(text.replace(*change) if change[0] else text)
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(folder / "wheel"))
    command = [sys.executable, "-m", "pip", "wheel", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = (folder / "wheel").glob("*.whl")
    return zipfile.ZipFile(wheel)


def _difference(root: Path, wheel: zipfile.ZipFile) -> set[str]:
    """Files of the library that the wheel lacks, and files of the wheel that are not the library's."""
    files = (p for p in (root / "sdekit").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    library = {p.relative_to(root).as_posix() for p in files}
    return library ^ {name for name in wheel.namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_wheel_holds_the_library_and_nothing_else(root: Path, tmp_path: Path) -> None:
    wheel = _build(root, tmp_path)
    assert _difference(root, wheel) == set()
    assert "sdekit/py.typed" in wheel.namelist()
    [info] = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert wheel.read(f"{info}/licenses/LICENSE") == (root / "LICENSE").read_bytes()
    assert "sdekit = sdekit.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nVersion: {version}\n" in wheel.read(f"{info}/METADATA").decode()


@pytest.mark.slow
def test_wheel_that_lacks_a_file_is_found(root: Path, tmp_path: Path) -> None:
    wheel = _build(root, tmp_path, ('packages = ["sdekit"]', 'packages = ["sdekit"]\nexclude = ["py.typed"]'))
    assert _difference(root, wheel) == {"sdekit/py.typed"}
