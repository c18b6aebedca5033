"""Benchmarks: what `sdekit bench` runs. A suite is a TOML file; its cells are measured, judged, drawn and written."""

from __future__ import annotations

__all__: list[str] = []
