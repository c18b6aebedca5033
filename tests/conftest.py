"""What all tests share: reproducible Hypothesis runs, markers that skip with a reason, and a check on global state."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from sdekit.solvers.base import _remembered

ROOT = Path(__file__).resolve().parent.parent
SLOW_TIMEOUT = 900  # seconds; the rest of the suite lives with the one in pyproject.toml

# Derandomized: a run finds what every run finds. No deadline: a busy machine is not a bug.
hypothesis.settings.register_profile("sdekit", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("sdekit")

# The same number of threads everywhere, so that sums are split alike on small and large machines; one where several
# processes share them.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


# Products of all solvers with processes or inputs: a quarter of the cases, in turn, is quick, and the others are slow.
IN_TURN = {
    "test_a_failure_leaves_the_state_at_the_last_grid_time",
    "test_a_point_mass_is_carried_exactly",
    "test_a_solve_inside_the_model",
    "test_abort_and_run_again",
    "test_an_increasing_grid_runs_the_flow_upwards",
    "test_bare_ode",
    "test_bare_sde",
    "test_every_parameterisation_of_the_exact_mixture_gives_every_other",
    "test_every_solver",
    "test_every_solver_has_the_bits_of_torch",
    "test_every_solver_option_changes_a_result",
    "test_first_or_last_step_is_the_limit",
    "test_float32_follows_float64",
    "test_float64_agrees_with_50_digits",
    "test_foreign_exceptions_pass_through",
    "test_from_no_data_to_no_noise_is_finite_and_near",
    "test_in_the_start_and_in_parameters",
    "test_layouts_change_no_bit",
    "test_lookups_suggest",
    "test_mask_keeps_the_other_rows_bit_for_bit",
    "test_memory_layout_does_not_matter",
    "test_model_is_blamed_at_every_call",
    "test_nothing_is_changed",
    "test_orders_come_out_to_two_digits_in_milliseconds",
    "test_python_threads",
    "test_results_never_share_memory_with_the_start",
    "test_shifting_the_data_shifts_the_output",
    "test_start_is_left_alone_and_never_returned",
    "test_stochasticity_that_the_name_excludes",
    "test_the_default_grid_works_with_every_solver",
    "test_the_law_from_a_point_mass_is_exact_for_any_stochasticity",
    "test_the_limit_is_the_exact_flow",
    "test_threads_share_one_solver",
    "test_typos_get_the_right_suggestion",
    "test_wrong_output_at_every_call",
}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, say what is slow, and give slow tests their own timeout."""
    no_cuda = pytest.mark.skip(reason="no CUDA device")
    no_browser = pytest.mark.skip(reason="no chromium with its driver, or no selenium")
    has_browser = (
        all(map(shutil.which, ("chromium", "chromedriver"))) and importlib.util.find_spec("selenium") is not None
    )
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(no_cuda)
        if item.get_closest_marker("browser") and not has_browser:
            item.add_marker(no_browser)
        if getattr(item, "originalname", "") in IN_TURN and _turn(item) % 4:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of every later garbage collection: a twentieth of the time."""
    gc.collect()
    gc.freeze()


def _turn(item: pytest.Item) -> int:
    callspec = getattr(item, "callspec", None)
    return 0 if callspec is None else sum(callspec.indices.values())


def _global_state() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture(autouse=True)
def _seeded_and_left_as_found() -> Iterator[None]:
    """Tests pass their own generators; the seed is the net below. A test that leaves global state changed fails."""
    torch.manual_seed(0)
    _remembered.cache_clear()  # tests plant mistakes in solvers
    before = _global_state()
    yield
    assert _global_state() == before


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def library() -> dict[str, Path]:
    """Every module of sdekit, by dotted name. Packages are named by their folder, and their file is __init__.py."""
    files = sorted((ROOT / "sdekit").rglob("*.py"))
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}
