"""The net under all tests holds: a test that leaves global state changed fails, and every test starts from one seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest, torch

FIRST = []

@pytest.mark.parametrize("change", [
    lambda: None,
    lambda: torch.set_default_dtype(torch.float64),
    lambda: torch.set_default_device("meta"),
    lambda: torch.set_grad_enabled(False),
    lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    lambda: torch.use_deterministic_algorithms(True),
], ids=["nothing", "dtype", "device", "grad", "threads", "deterministic"])
def test_changes(change):
    change()

@pytest.mark.parametrize("run", [0, 1])
def test_seed(run):
    FIRST.append(float(torch.rand((), device="cpu")))
    assert len(set(FIRST)) == 1

@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_needs_cuda():
    raise AssertionError("not skipped")
"""


@pytest.mark.slow
def test_changed_global_state_fails_the_test(root: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ("-c", str(root / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for name in ("dtype", "device", "grad", "threads", "deterministic"):
        assert f"ERROR test_suite.py::test_changes[{name}]" in out
    assert "8 passed, 1 skipped, 5 errors" in out
