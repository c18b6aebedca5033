"""The figure of samples: solvers by rows, numbers of model calls by blocks, exact and real ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdekit.bench.suite import Picture

__all__ = ["figure"]

_GAP = 1  # pixels of background between two images
_BACKGROUND = 0.35  # of the way from black to white


def figure(results: Sequence[dict[str, Any]], section: Picture) -> Figure:
    """One row of strips for each solver; the last block is where the exact flow ends, and the last row real data."""
    blocks = [b["budget"] for b in results[0]["blocks"]]
    count = len(results[0]["exact"])
    rows, columns = len(results) + 1, len(blocks) + 1
    height, width = section.size
    strip = (count * (width + _GAP) + _GAP) / (height + 2 * _GAP)  # its width in units of its height
    unit = 0.62
    drawn = Figure(figsize=(1.3 + columns * strip * unit * 1.06, rows * unit * 1.32 + 0.6), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False)
    for i, result in enumerate(results):
        for j, block in enumerate(result["blocks"]):
            _show(axes[i][j], block["x"], section)
            axes[i][j].set_xlabel(_caption(block), fontsize=8, labelpad=2)
        _show(axes[i][-1], result["exact"] if result["kind"] == "deterministic" else None, section)
        if result["kind"] != "deterministic":
            axes[i][-1].text(0.5, 0.5, "none: it draws noise of its own", ha="center", va="center", fontsize=9)
        axes[i][0].set_ylabel(result["solver"], rotation=0, ha="right", va="center", fontsize=10)
    for j, budget in enumerate(blocks):
        axes[0][j].set_title(f"{budget} model calls", fontsize=10)
    axes[0][-1].set_title("exact flow of the same noise", fontsize=10)
    for j in range(columns):
        _show(axes[-1][j], results[0]["real"][j * count : (j + 1) * count], section)
    axes[-1][0].set_ylabel("real data", rotation=0, ha="right", va="center", fontsize=10)
    drawn.suptitle(f"{section.target}: samples from the same noise, process {section.process}", fontsize=12)
    return drawn


def _caption(block: dict[str, Any]) -> str:
    """The error of deterministic solvers, and the calls made where they are fewer than allowed."""
    parts = [] if block["error"] is None else [f"error {block['error']:.2g}"]
    if block["x"] is None:
        parts = ["no step fits"]
    elif block["calls"] != block["budget"]:
        parts.append(f"{block['calls']} calls")
    return ", ".join(parts)


def _show(axis: Any, images: list[list[float]] | None, section: Picture) -> None:
    """Images side by side, whole pixels, without an axis; an empty place where there are none."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if images is None:
        axis.set_facecolor("none")
        return
    low, high = section.values
    height, width = section.size
    values = (np.asarray(images).reshape(-1, height, width) - low) / (high - low)
    framed = np.pad(values.clip(0, 1), ((0, 0), (_GAP, _GAP), (_GAP, 0)), constant_values=_BACKGROUND)
    strip = np.concatenate([*framed, np.full((height + 2 * _GAP, _GAP), _BACKGROUND)], axis=1)
    axis.imshow(strip, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
