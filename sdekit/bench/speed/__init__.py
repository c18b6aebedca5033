"""Speed of what is not the network, as readings beside goals: ratios in one process, which machines hardly change."""

from __future__ import annotations

from importlib import import_module

from sdekit.bench.speed.reading import Reading, Row, Setting

__all__ = ["MODULES", "Reading", "Row", "Setting", "row"]

# Of each row the module, whose ROWS holds it; imported on use, for what that takes.
MODULES: dict[str, str] = {
    **{name: name for name in ("step", "libraries", "counts", "noise", "planning")},
    **{name: name for name in ("scores", "brownian", "adaptive", "srk")},
    "evaluations": "adaptive",
    **dict.fromkeys(("device-step", "device-score", "device-graph"), "device"),
    "device-error": "device_error",
}


def row(name: str) -> Row:
    """A row by its name, which must be one of MODULES."""
    return next(row for row in import_module(f"sdekit.bench.speed.{MODULES[name]}").ROWS if row.name == name)
