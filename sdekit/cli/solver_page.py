"""docs/solvers.md, the page of all solvers, from the registry alone: `sdekit solvers --markdown > docs/solvers.md`."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator

from sdekit import solvers
from sdekit.solvers import Order, Solver, SolverInfo
from sdekit.solvers.prediction import prediction_of

__all__ = ["solver_page"]

_HEAD = """# Solvers

{count} solvers by family, with {aliases} other names under which k-diffusion, diffusers, ComfyUI and A1111 know them.
Written by `sdekit solvers --markdown > docs/solvers.md` from the registry; nothing in it is entered by hand.

* **Orders** are those of the default options, with their start-up and their last step: of the flow, and with noise of
  the law (weak) and of the paths (strong), for the additive noise of affine processes. Every one is measured by the
  tests. Where the first or last steps, or the grid, are the limit, it says so. Orders on other classes of noise are in
  [sde_orders.md](sde_orders.md).
* **Calls** are model calls for each interior step.
* **Output** is what the method extrapolates, whatever the network predicts: conversions are exact. It is "drift" for
  methods that are given drift and diffusion alone, and "residual" for what a Gaussian leaves of the prediction.
* **As released**: the orders of the published code, where it differs and `as_released=True` reproduces it.
"""

_USES = {
    "Adams-Bashforth": "One call a step, classical weights in the clock rho = sigma / alpha. Variable weights keep "
    "their order on any grid, fixed ones on smooth grids only.",
    "ancestral": "A step of the flow past its goal, then fresh noise: of the weak order of that step from the exact "
    "marginal on.",
    "DDIM": "The first-order methods that the others contain: of the flow, of the reverse SDE, and between them.",
    "drift-implicit": "For stiff drifts: steps are bounded by accuracy, not by stability.",
    "Euler-Maruyama": "For any SDE: what others are held against.",
    "exponential": "For SDEs whose drift has a stiff linear part, which is solved exactly.",
    "exponential Adams": "One call a step and exact linear parts: the highest order for the calls, once outputs of "
    "earlier steps are there.",
    "exponential Runge-Kutta": "Several calls a step, exact linear parts and no history: the full order from the first "
    "step on and on any grid; fit for splitting.",
    "Langevin": "Corrections at a fixed time, which forget earlier errors and leave a bias of the order of their step.",
    "log-ODE": "For general noise whose columns do not commute, with Levy areas.",
    "Milstein": "Strong order 1 on diagonal, scalar and commutative noise, for one derivative of the diffusion.",
    "Runge-Kutta": "Several calls a step and no history. With tolerances the embedded pairs choose the steps of each "
    "sample: for encoding, likelihoods and references.",
    "splitting": "Exact noise kicks around a single-step method of the flow: of its weak order, where stochastic "
    "multistep methods end at 2.",
    "stochastic Runge-Kutta": "Strong order 3/2 on additive, scalar or diagonal noise: where single paths matter.",
    "Stratonovich Runge-Kutta": "For SDEs in the sense of Stratonovich. The reversible one has exact adjoints.",
    "weak second order": "For expectations, under general noise.",
}


def solver_page() -> str:
    """The page, in Markdown."""
    found = sorted(solvers.available(), key=lambda info: (info.family.lower(), info.name))
    head = _HEAD.format(count=len(found), aliases=sum(len(info.aliases) for info in found))
    parts = [head]
    for family, members in itertools.groupby(found, key=lambda info: info.family):
        parts.append(f"\n## {family[0].upper()}{family[1:]}\n")
        if family in _USES:
            parts.append(f"\n{_USES[family]}\n")
        parts.append("\n| solver | order | weak | strong | calls | output | as released | what it is |\n")
        parts.append("|---|---|---|---|---|---|---|---|\n")
        infos = list(members)
        parts += [f"| {' | '.join(_row(info))} |\n" for info in infos]
        parts.append("\n")
        parts += [f"* `{info.name}`: {'; '.join(_details(info))}.\n" for info in infos]
    return "".join(parts)


def _row(info: SolverInfo) -> Iterator[str]:
    solver = solvers.get(info.name)
    yield f"`{info.name}`"
    yield from _orders(info.order)
    yield str(info.nfe_per_step) + (" (steps of its own)" if info.adaptive else "")
    yield prediction_of(solver)
    yield _released(info)
    yield _summary(solver).replace("|", "\\|")


def _released(info: SolverInfo) -> str:
    """The orders with as_released=True, and the options beside which that changes anything."""
    if "as_released" not in info.options:
        return ""
    company = solvers.get(info.name).released_with
    found = " / ".join(_orders(solvers.get(info.name, as_released=True, **company).declared))
    return found + (" with " + ", ".join(f"`{k}={v!r}`" for k, v in company.items()) if company else "")


def _orders(order: Order) -> list[str]:
    return ["-" if v is None else f"{v:g}" for v in (order.deterministic, order.weak, order.strong)]


def _details(info: SolverInfo) -> Iterator[str]:
    if info.aliases:
        yield "also " + ", ".join(f"`{alias}`" for alias in info.aliases)
    for alias, options in info.names_with_options.items():
        yield f"`{alias}` is it with " + ", ".join(f"`{name}={value!r}`" for name, value in options.items())
    if info.options:
        yield "options " + ", ".join(f"`{name}={value!r}`" for name, value in info.options.items())
    if info.order.note:
        yield info.order.note
    yield f"for {info.needs}"
    if info.reference:
        yield info.reference


def _summary(solver: Solver) -> str:
    """The first sentence of the class's description."""
    text = " ".join((inspect.getdoc(type(solver)) or "").split("\n\n")[0].split())
    return re.split(r"(?<!eq)(?<! al)\.\s", text)[0].rstrip(".:,")
