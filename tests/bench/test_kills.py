"""A run that is killed at any moment, and resumed: no finished measurement is lost, and none is made again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="runs are forked")
WORKERS = 2


def kill_and_resume(top: Path, most: int, how: int, count: int, *, eager: bool = False) -> dict[str, Any]:
    """What `killed.main` tells."""
    words = [sys.executable, str(Path(__file__).with_name("killed.py")), str(top)]
    numbers = [str(int(n)) for n in (most, how, count, eager)]
    done = subprocess.run([*words, *numbers], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(600)  # each kill takes a moment of its own, and the machine may be busy
@pytest.mark.parametrize(
    ("most", "how"),
    [
        (4, signal.SIGKILL),
        pytest.param(200, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(30, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=["4", "200", "SIGTERM"],
)
def test_kills_lose_and_repeat_no_finished_measurement(tmp_path: Path, most: int, how: signal.Signals) -> None:
    count = 6 * most
    found = kill_and_resume(tmp_path / "run", most, how, count)
    assert found["kills"] >= most // 2
    assert (found["found"], found["lost"], found["damaged"]) == (count, 0, [])
    assert found["again"] <= WORKERS * found["kills"], "only what workers were doing at a kill may be done again"


@pytest.mark.slow
def test_results_that_are_kept_at_the_end_are_lost(tmp_path: Path) -> None:
    """The mutant: a run that writes only when it is finished."""
    found = kill_and_resume(tmp_path / "run", 10, signal.SIGKILL, 200, eager=True)
    assert found["again"] > WORKERS * found["kills"]
