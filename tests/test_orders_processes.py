"""Declared orders on the processes that `test_orders.py` leaves out: VPCosine, SubVP, chains, f and g alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdekit
from sdekit import AffineSDE, DiscreteVP, SubVP, VPCosine, solvers, targets
from sdekit.testing import OrderProblem, gaussian_problem, observed_order

SHORT = 0.15
STEPS = (20, 40, 80)


def f(t: Tensor) -> Tensor:
    return -0.2 - t + 0.5 * torch.sin(3 * t)


def g(t: Tensor) -> Tensor:
    return 0.6 + t**2


PROCESSES: dict[str, AffineSDE] = {
    "cosine": VPCosine(),
    "sub-vp": SubVP(),
    "chain": DiscreteVP(torch.linspace(0.01, 0.5, 24, dtype=torch.float64)),
    "derived": AffineSDE(f, g, t_min=1e-3, t_max=2.6),
}
RANGE = (-1.0, 1.5)
SMOOTH = [("dpmpp_2m", "half_log_snr"), ("edm_heun", "karras")]


def order(name: str, process: AffineSDE, grid: str, **options) -> sdekit.testing.ObservedOrder:
    target = targets.random_mixture(2, 4, 3, std=(0.3, 0.6))
    problem = OrderProblem("moments", process, target, *RANGE)
    return observed_order(solvers.get(name, **options), "deterministic", problem, grid, STEPS)


@pytest.mark.parametrize("which", PROCESSES)
@pytest.mark.parametrize("name, grid", SMOOTH)
def test_solvers_in_half_log_snr_keep_their_order(which: str, name: str, grid: str) -> None:
    # On the chain too: they do not see the kinks of its log alpha.
    found = order(name, PROCESSES[which], grid)
    assert found.reaches(tolerance=SHORT), str(found)


@pytest.mark.parametrize("which", ["cosine", "sub-vp", "derived"])
def test_solvers_in_time_keep_their_order(which: str) -> None:
    found = order("heun", PROCESSES[which], "uniform", clock="t")
    assert found.reaches(tolerance=SHORT), str(found)


def test_kinks_cost_runge_kutta_methods_in_time_their_order() -> None:
    # Why a chain is not solved in t: the fourth order is lost at each of its jumps.
    chain = PROCESSES["chain"]
    assert not order("rk4", chain, "uniform", clock="t").reaches(tolerance=SHORT)
    assert order("rk4", chain, "half_log_snr").reaches(tolerance=SHORT)


@pytest.mark.parametrize("which", PROCESSES)
def test_weak_orders(which: str) -> None:
    problem = gaussian_problem(PROCESSES[which], *RANGE)
    found = observed_order("dpmpp_2m_sde", "weak", problem, "half_log_snr", STEPS)
    assert found.reaches(tolerance=SHORT), str(found)
