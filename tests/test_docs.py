"""The code in the README and in docs/ runs as it stands."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from sdekit import grids, solvers

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (solvers.base._REGISTRY, grids.base._REGISTRY):  # a page's names are its own
        for name in ("_items", "_aliases"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    # A module of its own, so that classes of the page can be pickled as those of a user's file can.
    module = types.ModuleType("page_under_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    scope = vars(module)
    for code in blocks((ROOT / page).read_text()):
        exec(compile(code, page, "exec"), scope)
    assert all(torch.isfinite(v).all() for v in scope.values() if isinstance(v, torch.Tensor))


def test_the_readme_example_is_short_and_prints_what_it_claims(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks((ROOT / "README.md").read_text())
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    error, order = (float(line.rpartition(" ")[2]) for line in lines)
    assert error < 1e-3
    assert 1.85 < order < 2.35


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
        assert "://" in target or ((ROOT / page).parent / target).exists(), target


def test_blocks_finds_a_failing_example() -> None:
    """The mutant: a page whose example is wrong."""
    (code,) = blocks("text\n```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        exec(compile(code, "page", "exec"), {})
