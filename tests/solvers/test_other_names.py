"""Names of other libraries: what they stand for, alone and with options."""

from __future__ import annotations

import pytest
import torch

import sdekit
from sdekit.solvers.other_names import OTHER_NAMES

MODEL = sdekit.targets.ring().under(sdekit.VP())


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_is_a_solver_with_options(name: str) -> None:
    base, options = OTHER_NAMES[name]
    assert sdekit.solvers.get(name) == sdekit.solvers.get(base, **options)
    info = sdekit.solvers.info(name)
    assert info.name == base and {k: info.options[k] for k in options} == options
    known = sdekit.solvers.info(base)
    assert known.names_with_options[name] == options if options else name in known.aliases


def test_schedulers_have_short_names_too() -> None:
    for name in OTHER_NAMES:
        assert sdekit.solvers.get(name.removesuffix("Scheduler")) == sdekit.solvers.get(name)
    assert sdekit.solvers.get("LCM") == sdekit.solvers.get("LCMScheduler")
    assert sdekit.solvers.get("SASolver", corrector_order=3) == sdekit.solvers.get(
        "sa_solver", predictor_order=2, corrector_order=3, second="few_steps"
    )
    assert [sdekit.solvers.info(name).name for name in ("TCD", "PLMS", "Restart")] == ["lcm", "plms", "restart"]


def test_what_is_asked_for_goes_before_what_a_name_stands_for() -> None:
    assert sdekit.solvers.get("DEISMultistepScheduler", order=3) == sdekit.solvers.get("deis", order=3, clock="lambda")
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    found = [
        sdekit.solve(MODEL, x, [0.9, 0.5, 0.2, 0.1], solver, seed=0).x
        for solver in ("dpmpp_2m_sde_heun", sdekit.solvers.get("dpmpp_2m_sde", second="exact"), "dpmpp_2m_sde")
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "name, grid",
    [("Karras", "karras"), ("Beta", "beta_sigma"), ("KL Optimal", "cosine"), ("Align Your Steps", "align_your_steps")],
)
def test_grids_have_other_names_too(name: str, grid: str) -> None:
    assert sdekit.grids.get(name) is sdekit.grids.get(grid)
