"""Figures of numbers: error against model calls, and measured against declared orders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdekit.bench.curves import TITLES, Curve, fitted_slope, merged
from sdekit.bench.summary import Line

__all__ = ["figure", "orders_figure"]

_TARGETS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")  # Okabe and Ito's, told apart by all readers
_MARKERS = "os^Dv<>Pph"
_LINES = 24  # of a legend, beyond which the orders that follow get a panel of their own
_LINE = 0.165  # inches
_LEAST = 2.6  # inches of a panel

_Curves = list[tuple[list[str], Any, Curve]]


def figure(results: Sequence[dict[str, Any]], target: str) -> Figure | None:
    """Error against calls on one target: panels by kind and declared order, fitted slopes in the legends."""
    found = [r for r in results if r["what"] == "work" and r["status"] == "ok"]
    panels = [(kind, group) for kind in TITLES for group in _groups(merged([r for r in found if r["kind"] == kind]))]
    if not panels:
        return None
    heights = [max(_LEAST, _LINE * (_lines(group) + 4)) for _, group in panels]
    drawn = Figure(figsize=(11.5, sum(heights) + 0.5 * len(heights) + 0.4), layout="constrained")
    axes = drawn.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, (kind, group) in zip(axes, panels, strict=True):
        of_kind = [r for r in found if r["kind"] == kind]
        _panel(axis, group, sorted({p["budget"] for r in of_kind for p in r["points"] if p["budget"] is not None}))
        orders = ", ".join(dict.fromkeys(f"{declared:g}" for _, declared, _ in group if declared is not None))
        axis.set_title(TITLES[kind] + (f"; declared order {orders}" if orders else ""), fontsize=11, loc="left")
    axes[-1].set_xlabel("model calls")
    first = found[0]
    drawn.suptitle(f"{target}, process {first['process']}, grid {first['grid']}", fontsize=13)
    return drawn


def _groups(curves: _Curves) -> list[_Curves]:
    """Whole declared orders, as many to a panel as its legend has room for."""
    groups: list[_Curves] = []
    for _, same in itertools.groupby(curves, key=lambda curve: curve[1]):
        order = list(same)
        if groups and _lines(groups[-1]) + _lines(order) <= _LINES:
            groups[-1] += order
        else:
            groups.append(order)
    return groups


def _lines(curves: _Curves) -> int:
    return sum(len(names) for names, _, _ in curves)


def _panel(axis: Axes, curves: _Curves, ticks: list[int]) -> None:
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for place, (names, declared, (calls, errors)) in enumerate(curves):
        axis.loglog(
            calls,
            errors,
            # The dark ones first: they are told apart best.
            color=colours[(2 * place + place // 10) % 20],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=5,
            linewidth=1.3,
            label=_label(names, declared, fitted_slope(calls, errors)),
        )
    axis.set_xticks(ticks, [str(n) for n in ticks], fontsize=9)
    axis.tick_params(labelbottom=True)
    axis.minorticks_off()
    axis.set_ylabel("relative error (root mean square)")
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    legend = axis.legend(
        title="[declared order] solver: fitted slope",
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        frameon=False,
        labelspacing=0.35,
    )
    legend.get_title().set_fontsize(8)


def _label(names: list[str], declared: Any, slope: float | None) -> str:
    """Methods that are the same under one another; the slope with the last of them."""
    order = "" if declared is None else f"[{declared:g}] "
    return order + "\n    = ".join(names) + ("" if slope is None else f":  {slope:.2f}")


def orders_figure(results: Sequence[dict[str, Any]], lines: Sequence[Line]) -> Figure | None:
    """Every measured order as a dot, and the declared one as a bar, solver by solver."""
    shown = [line for line in lines if line.count]
    if not shown:
        return None
    drawn = Figure(figsize=(9.5, 1.6 + 0.27 * len(shown)), layout="constrained")
    axis = drawn.subplots()
    rows = {(line.solver, line.kind): y for y, line in enumerate(reversed(shown))}
    targets = list(dict.fromkeys(r["target"] for r in results if r["what"] == "order"))
    for place, target in enumerate(targets):
        points = [
            (r["measured"], rows[r["solver"], r["kind"]] + 0.22 * (place - (len(targets) - 1) / 2))
            for r in results
            if r["what"] == "order" and r["target"] == target and r.get("measured") is not None
        ]
        colour = _TARGETS[place % len(_TARGETS)]
        axis.plot(*zip(*points, strict=True), "o", color=colour, markersize=2.6, alpha=0.5, linewidth=0, label=target)
    for line in shown:
        if line.declared is not None:
            y = rows[line.solver, line.kind]
            axis.plot([line.declared] * 2, [y - 0.4, y + 0.4], color="#d00000" if line.short else "black", linewidth=2)
    axis.set_yticks(list(rows.values()), [f"{solver}, {kind}" for solver, kind in rows], fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel("order; one dot for each process, range and grid")
    axis.grid(True, axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title("orders of convergence: declared (bars; red: not reached) and measured", fontsize=11)
    axis.legend(loc="lower right", fontsize=8, markerscale=2)
    return drawn
