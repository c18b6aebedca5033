"""The table of orders by noise: what it holds is what observed_order finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdekit.errors import OptionError, UnknownNameError
from sdekit.testing import observed_order, polynomial_problems, sde_problems
from sdekit.testing.sde_table import main, sde_table


def test_rows_are_measured():
    rows = [line for line in sde_table(["sra1"], (8, 16, 32)).splitlines() if line.startswith("| sra1")]
    assert len(rows) == 1
    name, calculus, noise, strong, up, down, weak, weak_up, weak_down = (
        c.strip() for c in rows[0].strip("|").split("|")
    )
    assert (name, calculus, noise, strong, weak) == ("sra1", "either", "additive", "1.5", "2")
    for cell, kind, problems, way in (
        (up, "strong", sde_problems(), "additive"),
        (down, "strong", sde_problems(), "additive, down"),
        (weak_up, "weak", polynomial_problems(), "additive"),
        (weak_down, "weak", polynomial_problems(), "additive, down"),
    ):
        found = observed_order("sra1", kind, problems[way], steps=(8, 16, 32) if kind == "strong" else None)
        assert cell == f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def test_orders_that_are_not_declared_are_left_out():
    assert "ddim" not in sde_table(["ddim"])
    with pytest.raises(UnknownNameError, match="sra1"):
        sde_table(["sra11"])


def test_the_command_writes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sdekit.testing.sde_table.sde_table", lambda: "page\n")
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    assert main([str(tmp_path / "page.md")]) == 0 and (tmp_path / "page.md").read_text() == "page\n"
    assert main([]) == 0 and capsys.readouterr().out == "page\n"
    with pytest.raises(OptionError, match="one file"):
        main(["a", "b"])
