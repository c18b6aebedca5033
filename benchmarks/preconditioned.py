"""The error of `preconditioned_adams` and of its rivals at few model calls: the tables of docs/preconditioned.md.

    python -m benchmarks.preconditioned

Two targets with exact flows under EDM: a ring of eight Gaussians in the plane, and eight in 16 dimensions. 256 points
of the exact marginal at sigma = 20 go down to sigma = 0.1 on a grid uniform in log-SNR; the error is the distance to
where the exact flow takes them: the root mean square over points, and the median, which leaves out those that end at
another component. Moments are estimated from 1000 samples.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file also runs as a script

import sdekit
from sdekit import targets
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


def table(title: str, target: Any) -> str:
    """Markdown."""
    lines = [f"| {title} | " + " | ".join(f"{n} calls" for n in CALLS) + " |", "|---" * (1 + len(CALLS)) + "|"]
    for label, row in errors(target).items():
        lines.append(f"| {label} | " + " | ".join(f"{a:.4f} ({b:.4f})" for a, b in row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    print(table("ring", targets.ring()))
    print()
    print(table("16 dimensions", targets.random_mixture(16, 8, seed=0)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
