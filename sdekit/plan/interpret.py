"""The meaning of a plan, spelled out: a slow interpreter for any kind of number.

States may be floats, mpmath numbers, NumPy arrays or tensors: whatever adds and can be multiplied by a float. The fast
tensor interpreter is held against this one in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdekit.errors import OptionError
from sdekit.plan.coefficients import apply
from sdekit.plan.program import Plan
from sdekit.plan.rows import Combination, Row

__all__ = ["interpret", "interpret_all", "interpret_with"]


def interpret(
    plan: Plan,
    data: Callable[[Row, Any], Any],
    x: Any,
    noise: Callable[[int, int], Any] | None = None,
) -> Any:
    """Run a plan and return its final state.

    Args:
        data: data(row, point), the posterior mean of the data at (row.t, point); row has alpha and sigma too.
        x: the start.
        noise: noise(step, stream), a standard normal of the state's kind; not needed for deterministic plans.
    """
    return interpret_all(plan, data, x, noise)[-1]


def interpret_all(
    plan: Plan,
    data: Callable[[Row, Any], Any],
    x: Any,
    noise: Callable[[int, int], Any] | None = None,
) -> list[Any]:
    """As `interpret`, with the state at each grid time."""
    return interpret_with(plan, lambda row, point: _extrapolated(row, point, data(row, point)), x, noise)


def interpret_with(
    plan: Plan,
    extrapolated: Callable[[Row, Any], Any],
    x: Any,
    noise: Callable[[int, int], Any] | None = None,
) -> list[Any]:
    """As `interpret_all`, given E itself: extrapolated(row, point) is row.weights applied to (data, noise)."""
    base = point = x
    outputs: list[Any] = []
    states = [x]
    drawn: dict[tuple[int, int], Any] = {}

    def combination(c: Combination, step: int) -> Any:
        total = apply(c.base, base)
        for age, b in c.outputs:
            total = total + apply(b, outputs[-1 - age])
        for stream, b in c.noises:
            if (step, stream) not in drawn:
                drawn[step, stream] = noise(step, stream)  # type: ignore[misc]
            total = total + apply(b, drawn[step, stream])
        return total

    for i, row in enumerate(plan.rows):
        if row.kick is not None:
            base = point = combination(row.kick, row.step)
        outputs.append(extrapolated(row, point))
        new_base = base if row.base is None else combination(row.base, row.step)
        point = new_base if row.point is None else combination(row.point, row.step)
        base = new_base
        if i + 1 == len(plan.rows) or plan.rows[i + 1].step != row.step:
            states.append(point)
    return states


def _extrapolated(row: Row, point: Any, data: Any) -> Any:
    """E = p data + q noise with noise = (point - alpha data) / sigma."""
    p, q = row.weights
    if q == 0:
        return p * data
    if row.sigma == 0:
        raise OptionError(
            "plan",
            got=f"a row that needs the noise prediction at sigma = 0, t = {row.t:.6g}",
            expected="rows whose weights follow from the data prediction",
            fix="Move the end of the grid off the time at which sigma = 0, or use plan.gaussian_moments.",
        )
    return (p - q * row.alpha / row.sigma) * data + (q / row.sigma) * point
