"""The table of orders by noise class: `python -m sdekit.testing.sde_table docs/sde_orders.md` writes it anew."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sdekit import solvers
from sdekit.errors import OptionError
from sdekit.solvers.base import Stepper
from sdekit.testing.orders import ObservedOrder, observed_order
from sdekit.testing.polynomial import polynomial_problems
from sdekit.testing.sde_problems import sde_problems

__all__ = ["main", "sde_table"]

_STEPS = (16, 32, 64, 128)
_HEAD = """# Orders of SDE solvers, by noise

Every registered stepper on every noise class for which it declares orders, measured upwards and downwards in time.
Written by `python -m sdekit.testing.sde_table docs/sde_orders.md`, in float64; nothing in it is entered by hand.

* **Strong** orders: root mean square errors over 512 Brownian paths at {steps} steps, each path against
  its exact solution (`sdekit.testing.sde_problems`); the mean of the last two slopes. In brackets: the last slopes and
  their limit, and 95 % of resampled sets of paths.
* **Weak** orders: the errors of the expectations of monomials over one step, of lengths 1/32 to 1/256, by quadrature
  and without sampling (`sdekit.testing.polynomial_problems`); the exponent less 1. In brackets: what the last slopes
  leave open.
* A declared order holds on the class named, and on narrower ones that are not: additive, scalar (one Brownian motion)
  and diagonal noise are commutative, and all noise is general.
* A measured order above the declared one belongs to this problem; others of its class show less.

| solver | calculus | noise | strong | up | down | weak | up | down |
|---|---|---|---|---|---|---|---|---|
"""


def sde_table(names: Sequence[str] | None = None, steps: Sequence[int] = _STEPS) -> str:
    """The page, in Markdown.

    Args:
        names: the solvers; by default all registered steppers that declare orders by noise class.
        steps: for the strong orders.

    Raises:
        UnknownNameError: for a name that is not registered.
    """
    found = {i.name: i.order.noise for i in solvers.available() if i.order.noise} if names is None else None
    chosen = list(found) if found is not None else list(names or ())
    rows = [row for name in chosen for row in _rows(name, steps)]
    counts = ", ".join(map(str, steps[:-1])) + f" and {steps[-1]}"
    return _HEAD.format(steps=counts) + "\n".join(rows) + "\n"


def _rows(name: str, steps: Sequence[int]) -> list[str]:
    solver = solvers.get(name)
    if not isinstance(solver, Stepper):
        return []
    rows = []
    for noise, declared in solver.declared.noise.items():
        cells = [name, solver.calculus if solver.needs == "sde" else "either", noise]
        for kind, order in (("strong", declared.strong), ("weak", declared.weak)):
            cells += ["-"] * 3 if order is None else [f"{order:g}", *_measured(solver, kind, noise, steps)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _measured(solver: Stepper, kind: str, noise: str, steps: Sequence[int]) -> list[str]:
    problems = sde_problems() if kind == "strong" else polynomial_problems()
    counts = steps if kind == "strong" else None
    ways = (noise, f"{noise}, down")
    return [_cell(observed_order(solver, kind, problems[way], steps=counts)) for way in ways]


def _cell(order: ObservedOrder) -> str:
    return f"{order.value:.2f} [{order.low:.2f}, {order.high:.2f}]"


def main(arguments: Sequence[str]) -> int:
    """Write the page to a file, or print it where none is given."""
    if len(arguments) > 1:
        raise OptionError("arguments", got=repr(arguments), expected="one file", fix="Name the page to write.")
    torch.set_num_threads(1)
    page = sde_table()
    if arguments:
        Path(arguments[0]).write_text(page)
    else:
        sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
