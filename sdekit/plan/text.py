"""Plans as text: a table for people and JSON for machines."""

from __future__ import annotations

import json
import math
from typing import Any

from sdekit.errors import OptionError, SdekitError
from sdekit.plan import coefficients
from sdekit.plan.coefficients import Block, Coefficient, Direction
from sdekit.plan.program import Plan
from sdekit.plan.rows import DATA, NOISE, Combination, Row

__all__ = ["describe", "from_json", "to_json"]

_FORMAT = "sdekit-plan"
_VERSION = 1
_NEAR = 1e-9  # of a time's size: times at given noise levels are known to rounding


def describe(plan: Plan) -> str:
    """A header, then a line per model call: step, time, what E is, and the combinations that follow."""
    head = (
        f"{plan.solver} on {plan.process}: {plan.steps} steps, {plan.nfe} model calls, "
        f"{plan.memory} outputs alive at once, {'stochastic' if plan.stochastic else 'deterministic'}"
    )
    lines = [head, f"{'step':>4}  {'t':>12}  E"]
    for row in plan.rows:
        lines.append(f"{row.step:>4}  {row.t:>12.6g}  {_weights(row)}")
        for name, c in (("kick", row.kick), ("base", row.base), ("point", row.point)):
            if c is not None:
                lines.append(f"{'':>20}{name:>5} <- {_formula(c)}")
    return "\n".join(lines)


def _weights(row: Row) -> str:
    if row.weights == DATA:
        return "E0 = data"
    if row.weights == NOISE:
        return "E0 = noise"
    return f"E0 = {row.weights[0]:.8g} data + {row.weights[1]:.8g} noise"


def _formula(c: Combination) -> str:
    terms = [f"{_number(c.base)} base"]
    terms += [f"{_number(b)} E{age}" for age, b in c.outputs]
    terms += [f"{_number(b)} z{stream}" for stream, b in c.noises]
    return " + ".join(terms).replace("+ -", "- ")


def _number(c: Coefficient) -> str:
    if isinstance(c, Direction):
        return f"direction{c.values.shape}"
    if isinstance(c, Block):
        return f"block{c.matrix.shape}"
    return f"{c:.10g}"


def to_json(plan: Plan) -> str:
    """See `Plan.to_json`."""
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "solver": plan.solver,
        "process": plan.process,
        "times": plan.times,
        "start": plan.start,
        "end": plan.end,
        "clock": None if plan.clock is None else [c if math.isfinite(c) else None for c in plan.clock],
        "rows": [_row_to_json(row) for row in plan.rows],
    }
    return json.dumps(document, allow_nan=False)


def _row_to_json(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"step": row.step, "t": row.t, "alpha": row.alpha, "sigma": row.sigma, "weights": row.weights}
    for name, c in (("kick", row.kick), ("base", row.base), ("point", row.point)):
        out[name] = None if c is None else _combination_to_json(c)
    return out


def _combination_to_json(c: Combination) -> dict[str, Any]:
    return {
        "base": coefficients.to_json(c.base),
        "outputs": [[age, coefficients.to_json(b)] for age, b in c.outputs],
        "noises": [[stream, coefficients.to_json(b)] for stream, b in c.noises],
    }


def from_json(text: str) -> Plan:
    """See `Plan.from_json`."""
    try:
        document = json.loads(text)
        if document["format"] != _FORMAT or document["version"] != _VERSION:
            raise _not_a_plan(f"format {document['format']!r}, version {document['version']!r}")
        clock = document["clock"]
        plan = Plan(
            solver=str(document["solver"]),
            times=tuple(float(t) for t in document["times"]),
            rows=tuple(_row_from_json(row) for row in document["rows"]),
            start=_pair(document["start"]),
            end=_pair(document["end"]),
            process=str(document["process"]),
            clock=None if clock is None else tuple(math.inf if c is None else float(c) for c in clock),
        )
    except SdekitError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise _not_a_plan(f"{type(error).__name__}: {error}") from error
    _check_times_of_rows(plan)
    return plan


def _check_times_of_rows(plan: Plan) -> None:
    """A changed grid does not fit its rows: each step begins with a call at its start, unless a kick comes first.

    Or at its end, in plans that do not begin at the level of their first time: annealed Langevin dynamics.
    """
    first, step = plan.rows[0], -1
    levels = zip((first.alpha, first.sigma), plan.start, strict=True)
    late = not all(math.isclose(a, b, rel_tol=_NEAR, abs_tol=_NEAR) for a, b in levels)
    for i, row in enumerate(plan.rows):
        if row.step == step:
            continue
        step = row.step
        at = plan.times[step + late]
        if row.kick is None and abs(row.t - at) > _NEAR * max(map(abs, plan.times[step : step + 2])):
            raise OptionError(
                "text",
                got=f"row {i}, the first of step {step}, with a call at t = {row.t!r}",
                expected=f"one at the {'end' if late else 'start'} of the step, {at!r}",
                fix="Plan again for other times: rows belong to the grid that they were made for.",
            )


def _row_from_json(row: dict[str, Any]) -> Row:
    parts = {k: None if row[k] is None else _combination_from_json(row[k]) for k in ("kick", "base", "point")}
    return Row(
        t=float(row["t"]),
        alpha=float(row["alpha"]),
        sigma=float(row["sigma"]),
        weights=_pair(row["weights"]),
        step=_index(row["step"]),
        **parts,
    )


def _combination_from_json(c: dict[str, Any]) -> Combination:
    return Combination(
        coefficients.from_json(c["base"]),
        tuple((_index(age), coefficients.from_json(b)) for age, b in c["outputs"]),
        tuple((_index(stream), coefficients.from_json(b)) for stream, b in c["noises"]),
    )


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _not_a_plan(f"{value!r} where a whole number belongs")
    return value


def _pair(value: Any) -> tuple[float, float]:
    first, second = value
    return float(first), float(second)


def _not_a_plan(got: str) -> OptionError:
    return OptionError(
        "text",
        got=got,
        expected=f"JSON of {_FORMAT} version {_VERSION}",
        fix="Write it with Plan.to_json of this version.",
    )
