"""Fixtures of tests that work on small states and on reference flows, for conftest.py to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These states are small: on a busy machine several threads spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what an earlier run or another test left."""
    monkeypatch.setenv("SDEKIT_CACHE", str(tmp_path / "cache"))
