"""Curves of error against model calls: which are the same, and the slope at which they fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["TITLES", "Curve", "fitted_line", "fitted_slope", "merged"]

TITLES = {
    "deterministic": "deterministic: distance to the exact flow",
    "weak": "stochastic: distance of the law (Gaussian of the same mean and covariance)",
    "strong": "stochastic: distance of paths (to a fine solution on the same Brownian path)",
}
_SAME = 1e-6
_ALIKE = 1e-3  # of other libraries, some of which work in float32
_FLOOR = 1e-11

Curve = tuple[list[int], list[float]]


def merged(results: Sequence[dict[str, Any]]) -> list[tuple[list[str], Any, Curve]]:
    """Solvers with their curves, by declared order; those that are the same method share one curve.

    Without errors none is seen to be the same. Other libraries declare no order: their samplers come last, or with ours
    where these are the same.
    """
    found: list[tuple[list[str], Any, Curve]] = []
    for result in sorted(results, key=_place):
        curve = _curve(result)
        for names, declared, other in found:
            if result["declared"] in (declared, None) and _same(curve, other, _ALIKE if "package" in result else _SAME):
                names.append(result["solver"])
                break
        else:
            found.append(([result["solver"]], result["declared"], curve))
    return found


def _place(result: dict[str, Any]) -> tuple[bool, float, str]:
    return "package" in result, result["declared"] or 0, result["solver"]


def _curve(result: dict[str, Any]) -> Curve:
    points = {p["calls"]: p["error"] for p in result["points"] if p["error"]}
    return list(points), list(points.values())


def _same(a: Curve, b: Curve, tolerance: float) -> bool:
    return (
        bool(a[0])
        and a[0] == b[0]
        and all(math.isclose(x, y, rel_tol=tolerance, abs_tol=1e-13) for x, y in zip(a[1], b[1], strict=True))
    )


def fitted_slope(calls: Sequence[int], errors: Sequence[float]) -> float | None:
    """Minus the slope of log error against log calls, see `fitted_line`."""
    line = fitted_line(calls, errors)
    return None if line is None else line[0]


def fitted_line(calls: Sequence[int], errors: Sequence[float]) -> tuple[float, float, int, int] | None:
    """The straight line of log error against log calls, by least squares over the last half above rounding.

    Returns:
        p, c and the first and last number of calls it is fitted to, for error = c calls^-p; None for fewer than 2.
    """
    points = [(math.log(n), math.log(e)) for n, e in zip(calls, errors, strict=True) if e > _FLOOR]
    points = points[len(points) // 2 :]
    if len(points) < 2:
        return None
    mx, my = (math.fsum(column) / len(points) for column in zip(*points, strict=True))
    slope = math.fsum((x - mx) * (y - my) for x, y in points) / math.fsum((x - mx) ** 2 for x, _ in points)
    return -slope, math.exp(my - slope * mx), round(math.exp(points[0][0])), round(math.exp(points[-1][0]))
