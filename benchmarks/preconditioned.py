"""The error of `preconditioned_adams` and of its rivals at few model calls: the tables of docs/preconditioned.md.

    python -m benchmarks.preconditioned

Two targets with exact flows under EDM: a ring of eight Gaussians in the plane, and eight in 16 dimensions. 256 points
of the exact marginal at sigma = 20 go down to sigma = 0.1 on a grid uniform in log-SNR; the error is the distance to
where the exact flow takes them: the root mean square over points, and the median, which leaves out those that end at
another component. Moments are estimated from 1000 samples.

The third table is of a corrector that `preconditioned_adams` does not have: the call at a step's end, which the next
step makes anyway, joins the predictions that the step integrates, as in UniPC.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from sdekit import targets
from sdekit.solvers.clocks import adams_weights
from sdekit.solvers.preconditioned import moments_of

CALLS = (5, 10, 20)
HIGH, LOW, POINTS = 20.0, 0.1, 256

RIVALS = {
    "`ddim`": ("ddim", {}),
    "`dpmpp_2m`": ("dpmpp_2m", {}),
    "`unipc`": ("unipc", {}),
    "`unipc`, order 3": ("unipc", {"order": 3}),
    "`exp_adams`, noise": ("exp_adams", {"prediction": "noise"}),
    "`exp_adams`, noise, order 3": ("exp_adams", {"prediction": "noise", "order": 3}),
}


def ours(samples: Tensor) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods with the moments of the samples."""
    name = "preconditioned_adams"
    one, all_ = (moments_of(samples, per).variance for per in ("sample", "covariance"))
    return {
        f"order {order}{kind}": (name, {"order": order, "data_variance": v, **options})
        for order in (1, 2, 3)
        for kind, v, options in (
            (", one variance", one, {}),
            (", covariance", all_, {}),
            (", covariance, form data", all_, {"form": "data"}),
        )
    }


def errors(target: Any, only: str = "") -> dict[str, list[tuple[float, float]]]:
    """For each method, or one, and each number of calls the root mean square and the median."""
    process = sdekit.EDM()
    model = target.under(process)
    start = model.sample(HIGH, POINTS, seed=1)
    exact = model.flow(start, HIGH, LOW)
    found: dict[str, list[tuple[float, float]]] = {}
    for label, (name, options) in {**RIVALS, **ours(target.sample(1000, seed=2))}.items():
        if only not in ("", label):
            continue
        for calls in CALLS:
            times = sdekit.grids.half_log_snr(process, calls, t_start=HIGH, t_end=LOW)
            solution = sdekit.solve(model, start, times, sdekit.solvers.get(name, **options))
            distance = (solution.x - exact).norm(dim=1)
            found.setdefault(label, []).append((float(distance.square().mean().sqrt()), float(distance.median())))
    return found


def corrected(model: Any, x: Tensor, times: list[float], moments: Any, order: int, correct: bool) -> Tensor:
    """`preconditioned_adams` under EDM with the mean and one variance given, with or without a corrector.

    With R = sqrt(c + rho^2) it is d((x - m) / R) = (r / R) dlambda, r = D - m - c / (c + rho^2) (x - m), and E = r R /
    rho is interpolated in lambda.
    """
    c, m = float(moments.variance), moments.mean

    def output(t: float, x: Tensor) -> Tensor:
        square = c + t * t
        return math.sqrt(square) / t * (model.data(t, x) - m - c / square * (x - m))

    def stepped(s: float, t: float, x: Tensor, outputs: list[tuple[float, Tensor]]) -> Tensor:
        ratio = math.sqrt((c + t * t) / (c + s * s))
        lambdas = [-math.log(v) for v, _ in outputs]
        b = adams_weights(-math.log(s), -math.log(t), lambdas, lambda v: _kernel(c, t, v))
        return m + ratio * (x - m) + sum(w * e for w, (_, e) in zip(b, outputs, strict=True))

    history: list[tuple[float, Tensor]] = []
    before: tuple[float, Tensor] | None = None
    for s, t in itertools.pairwise(times):
        now = (s, output(s, x))
        if correct and before is not None:
            x = stepped(before[0], s, before[1], [now, *history])
        history = [now, *history[: order - 1]]
        before = (s, x)
        x = stepped(s, t, x, history)
    return x


def corrector_table() -> str:
    """Markdown."""
    process = sdekit.EDM()
    heads = [f"{name}, {n} calls" for name in ("ring", "16 dimensions") for n in CALLS]
    lines = ["| order | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for order, correct in itertools.product((1, 2, 3), (False, True)):
        cells = []
        for target in (targets.ring(), targets.random_mixture(16, 8, seed=0)):
            model, moments = target.under(process), moments_of(target.sample(1000, seed=2), "sample")
            start = model.sample(HIGH, POINTS, seed=1)
            exact = model.flow(start, HIGH, LOW)
            for calls in CALLS:
                times = sdekit.grids.half_log_snr(process, calls, t_start=HIGH, t_end=LOW).tolist()
                distance = (corrected(model, start, times, moments, order, correct) - exact).norm(dim=1)
                cells.append(f"{float(distance.square().mean().sqrt()):.4f} ({float(distance.median()):.4f})")
        lines.append(f"| {order}{', corrected' if correct else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _kernel(c: float, t: float, lambdas: Any) -> Any:
    """R_t rho / R^2 at these lambda."""
    rho = np.exp(-lambdas)
    return math.sqrt(c + t * t) * rho / (c + rho * rho)


def table(title: str, target: Any) -> str:
    """Markdown."""
    lines = [f"| {title} | " + " | ".join(f"{n} calls" for n in CALLS) + " |", "|---" * (1 + len(CALLS)) + "|"]
    for label, row in errors(target).items():
        lines.append(f"| {label} | " + " | ".join(f"{a:.4f} ({b:.4f})" for a, b in row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    print(table("ring", targets.ring()))
    print()
    print(table("16 dimensions", targets.random_mixture(16, 8, seed=0)))
    print()
    print(corrector_table())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
