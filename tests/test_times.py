"""The contract of a grid: what keeps it, and each way to break it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdekit.errors import InterfaceError, OptionError
from sdekit.times import check_count, check_times


@given(st.lists(st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), min_size=2, max_size=8, unique=True), st.booleans())
def test_sorted_distinct_times_pass_as_they_are(values: list[float], down: bool) -> None:
    values = sorted(values, reverse=down)
    values = [v + 0.0 for v in values]
    direction = "down" if down else "up"
    for form in (values, tuple(values), np.array(values), torch.tensor(values, dtype=torch.float64)):
        assert check_times(form) == check_times(form, direction=direction) == values
    with pytest.raises(OptionError, match="out of order"):
        check_times(values, direction="up" if down else "down")
    with pytest.raises(OptionError, match="repeated"):
        check_times([*values, values[-1]])


@pytest.mark.parametrize(
    "times, words",
    [
        ([1.0], r"1 point\(s\)"),
        ([], r"0 point\(s\)"),
        ([1.0, math.nan, 0.0], "nan at index 1"),
        ([1.0, math.inf], "inf at index 1"),
        ([1.0, 0.5, 0.5, 0.0], r"0\.5, 0\.5 at indices 1, 2 \(repeated\)"),
        ([1.0, 0.2, 0.5], r"0\.2, 0\.5 at indices 1, 2 \(out of order\).*decreasing"),
        ([0.1, 0.2, 0.15], "increasing"),
        ([1.0, 1.0 - 2**-52], "ulp"),
        (torch.zeros(2, 2), "1-D"),
        (torch.tensor(1.0), "1-D"),
        ([2.0, 0.0], r"2\.0 at index 0.*\[0\.0, 1\.0\]"),
        ([1.0, -0.5], r"-0\.5 at index 1"),
    ],
)
def test_each_fault_names_the_index_and_the_values(times, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_times(times, domain=(0.0, 1.0))


@pytest.mark.parametrize("times", ["karras", b"ab", None, 3.0, {1.0: 2.0}, [1.0, "a"], [1.0, None], [1.0, True]])
def test_what_is_no_sequence_of_numbers_is_an_interface_error(times) -> None:
    with pytest.raises(InterfaceError, match="times"):
        check_times(times)


def test_eight_ulp_are_the_least_spacing() -> None:
    assert check_times([1.0, 1.0 + 8 * 2**-52]) and check_times([0.0, 5e-324 * 8])
    with pytest.raises(OptionError, match="8 ulp"):
        check_times([1.0, 1.0 + 7 * 2**-52])


def test_the_spacing_counts_in_the_precision_the_times_come_in() -> None:
    with pytest.raises(OptionError, match="float32"):
        check_times(torch.tensor([1.0, 1.0 + 2 * 2**-23]))
    assert check_times(torch.tensor([1.0, 1.0 + 16 * 2**-23]))


def test_counts() -> None:
    assert check_count("steps", 3) == 3 and check_count("steps", 0, least=0) == 0
    for value in (0, -1):
        with pytest.raises(OptionError, match="1 or more"):
            check_count("steps", value)
    for value in (1.5, "2", None, True, math.nan):
        with pytest.raises(InterfaceError, match="whole number"):
            check_count("steps", value)
