"""Figures of numbers: error against model calls, and measured against declared orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdekit.bench.summary import Line

__all__ = ["figure", "fitted_slope", "merged", "orders_figure"]

# One colour for each declared order (Okabe and Ito's, told apart by all readers), one marker for each solver of it.
_COLOURS = {1: "#666666", 2: "#0072B2", 3: "#009E73", 4: "#D55E00", 5: "#CC79A7"}
_OTHER = "#E69F00"
_MARKERS = "os^Dv<>Pph"
_SAME = 1e-6
_FLOOR = 1e-11
_TITLES = {
    "deterministic": "deterministic: distance to the exact flow",
    "weak": "stochastic: distance of the law (Gaussian of the same mean and covariance)",
}

Curve = tuple[list[int], list[float]]


def figure(results: Sequence[dict[str, Any]], target: str) -> Figure | None:
    """Error against calls on one target, a panel for each kind, fitted slopes in the legends."""
    found = [r for r in results if r["what"] == "work" and r["status"] == "ok"]
    kinds = [k for k in _TITLES if any(r["kind"] == k for r in found)]
    if not kinds:
        return None
    drawn = Figure(figsize=(7.2 * len(kinds), 8.4), layout="constrained")
    axes = drawn.subplots(1, len(kinds), squeeze=False, sharex=True)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        _panel(axis, [r for r in found if r["kind"] == kind])
        axis.set_title(_TITLES[kind], fontsize=11)
    first = found[0]
    drawn.suptitle(f"{target}, process {first['process']}, grid {first['grid']}", fontsize=13)
    return drawn


def _panel(axis: Axes, results: Sequence[dict[str, Any]]) -> None:
    markers = {order: itertools.cycle(_MARKERS) for order in {r["declared"] for r in results}}
    for names, declared, (calls, errors) in merged(results):
        slope = fitted_slope(calls, errors)
        label = " = ".join(names) + ("" if slope is None else f":  {slope:.2f}")
        axis.loglog(
            calls,
            errors,
            color=_COLOURS.get(declared, _OTHER),
            marker=next(markers[declared]),
            markersize=4.5,
            linewidth=1.2,
            alpha=0.9,
            label=label,
        )
    ticks = sorted({n for r in results for n in (p["budget"] for p in r["points"])})
    axis.set_xticks(ticks, [str(n) for n in ticks], fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel("model calls")
    axis.set_ylabel("relative error (root mean square)")
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    title = "solver: slope fitted to the last half;  colour: declared order  " + _orders_key(results)
    axis.legend(
        title=title,
        fontsize=8,
        title_fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.08),
        ncols=2,
        frameon=False,
    )


def _orders_key(results: Sequence[dict[str, Any]]) -> str:
    names = {"#666666": "grey", "#0072B2": "blue", "#009E73": "green", "#D55E00": "orange", "#CC79A7": "pink"}
    orders = sorted({r["declared"] for r in results if r["declared"] is not None})
    return ", ".join(f"{order:g} {names.get(_COLOURS.get(order, _OTHER), 'yellow')}" for order in orders)


def merged(results: Sequence[dict[str, Any]]) -> list[tuple[list[str], Any, Curve]]:
    """Solvers with their curves, by declared order; those that are the same method share one curve."""
    found: list[tuple[list[str], Any, Curve]] = []
    for result in sorted(results, key=lambda r: (r["declared"] or 0, r["solver"])):
        curve = _curve(result)
        for names, declared, other in found:
            if declared == result["declared"] and _same(curve, other):
                names.append(result["solver"])
                break
        else:
            found.append(([result["solver"]], result["declared"], curve))
    return found


def _curve(result: dict[str, Any]) -> Curve:
    points = {p["calls"]: p["error"] for p in result["points"] if p["error"]}
    return list(points), list(points.values())


def _same(a: Curve, b: Curve) -> bool:
    return a[0] == b[0] and all(
        math.isclose(x, y, rel_tol=_SAME, abs_tol=1e-13) for x, y in zip(a[1], b[1], strict=True)
    )


def fitted_slope(calls: Sequence[int], errors: Sequence[float]) -> float | None:
    """Minus the slope of log error against log calls, by least squares over the last half above rounding."""
    points = [(math.log(n), math.log(e)) for n, e in zip(calls, errors, strict=True) if e > _FLOOR]
    points = points[len(points) // 2 :]
    if len(points) < 2:
        return None
    mx, my = (math.fsum(column) / len(points) for column in zip(*points, strict=True))
    return -math.fsum((x - mx) * (y - my) for x, y in points) / math.fsum((x - mx) ** 2 for x, _ in points)


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
        colour = list(_COLOURS.values())[(place + 1) % len(_COLOURS)]
        axis.plot(*zip(*points, strict=True), "o", color=colour, markersize=2.6, alpha=0.5, linewidth=0, label=target)
    for line in shown:
        if line.declared is not None:
            y = rows[line.solver, line.kind]
            axis.plot([line.declared] * 2, [y - 0.4, y + 0.4], color="#d00000" if line.short else "black", linewidth=2)
    axis.set_yticks(list(rows.values()), [f"{solver}, {kind}" for solver, kind in rows], fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel("order of convergence; bar: declared; dots: measured, one for each process and grid")
    axis.grid(True, axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.legend(loc="lower right", fontsize=8, markerscale=2)
    return drawn
