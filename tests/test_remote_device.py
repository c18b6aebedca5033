"""`remote_cases.py` in a process of its own, as a device that is made known stays so."""

from __future__ import annotations

import subprocess
import sys

import pytest

CASES = "tests/remote_cases.py"


@pytest.mark.parametrize(
    "marked, named",
    [
        ("not slow", ""),
        pytest.param("slow", "sampler", marks=pytest.mark.slow),
        pytest.param("slow", "solver", marks=pytest.mark.slow),
    ],
)
def test_everything_runs_where_its_tensors_are(marked, named, pytestconfig):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", CASES]
    options = ["-m", marked, "-k", named, "-rs"]
    done = subprocess.run(command + options, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    if " passed" not in done.stdout:
        pytest.skip(done.stdout[-300:])
