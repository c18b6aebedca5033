"""Pictures show what was measured: curves through the points, slopes that are right, images that are the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import image

from sdekit.bench import curves, pictures, samples, work
from sdekit.bench.suite import Picture, Suite, load
from sdekit.bench.summary import summarise

CALLS = [5, 10, 20, 40, 80]


def curve(solver: str, order: float, kind: str = "deterministic", scale: float = 1.0) -> dict[str, Any]:
    points = [{"budget": n, "steps": n, "calls": n, "error": scale * n**-order} for n in CALLS]
    place = {"target": "images", "process": "edm", "grid": "karras", "status": "ok"}
    return {"what": "work", "solver": solver, "kind": kind, "declared": round(order), **place, "points": points}


def order(solver: str, measured: float) -> dict[str, Any]:
    return {**curve(solver, 1), "what": "order", "declared": 1, "measured": measured}


def picture(kind: str = "deterministic") -> dict[str, Any]:
    blocks = [
        {"budget": 5, "calls": 4, "error": 0.5, "x": [[-1.0, 0.0, 1.0, 2.0, 0.5, 0.0]] * 3},
        {"budget": 10, "calls": 10, "error": 0.1, "x": None},
    ]
    place = {"target": "images", "process": "edm", "grid": "karras", "status": "ok", "kind": kind}
    return {
        "what": "picture",
        "solver": "ddim",
        **place,
        "blocks": blocks,
        "exact": [[0.0] * 6] * 3,
        "real": [[1.0] * 6] * 9,
    }


@pytest.fixture
def section(tiny: Path) -> Picture:
    return load(str(tiny)).pictures[0]


def test_slope_is_that_of_the_last_half_above_rounding() -> None:
    assert curves.fitted_slope(CALLS, [n**-2.0 for n in CALLS]) == pytest.approx(2)
    assert curves.fitted_slope(CALLS, [1.0, 1.0, *(n**-3.0 for n in CALLS[2:])]) == pytest.approx(3)
    assert curves.fitted_slope([*CALLS, 160], [*(n**-2.0 for n in CALLS), 1e-15]) == pytest.approx(2)
    assert curves.fitted_slope(CALLS, [1e-14] * 5) is None


def test_one_curve_stands_for_equal_methods() -> None:
    found = curves.merged([curve("a", 1), curve("b", 1, scale=1.001), curve("c", 1)])
    assert [names for names, _, _ in found] == [["a", "c"], ["b"]]


def test_figure_draws_every_point_and_its_slope() -> None:
    figure = work.figure([curve("ddim", 1), curve("rk4", 4), curve("ddpm", 1, "weak", 3.0)], "images")
    assert figure is not None
    first, second = figure.axes
    assert [line.get_label() for line in first.lines] == ["[1] ddim:  1.00", "[4] rk4:  4.00"]
    np.testing.assert_array_equal(first.lines[1].get_xdata(), CALLS)
    np.testing.assert_allclose(first.lines[1].get_ydata(), [n**-4 for n in CALLS])
    np.testing.assert_allclose(second.lines[0].get_ydata(), [3.0 / n for n in CALLS])


def test_orders_figure_has_a_dot_for_each_measurement() -> None:
    found = [order("ddim", 0.9), order("ddim", 1.1), order("euler", 1.0)]
    figure = work.orders_figure(found, summarise(found, 0.15, []))
    assert figure is not None
    dots = figure.axes[0].lines[0]
    assert sorted(dots.get_xdata()) == [0.9, 1.0, 1.1]
    assert len(figure.axes[0].lines) == 3


def test_images_are_the_samples(section: Picture) -> None:
    figure = samples.figure([picture(), picture("weak")], section)
    axes = np.array(figure.axes).reshape(3, 3)
    strip = np.asarray(axes[0, 0].images[0].get_array())
    # 2 x 3 pixels each, three of them, one pixel of frame; values from [-2, 2] to [0, 1].
    assert strip.shape == (4, 13)
    np.testing.assert_allclose(strip[1:3, 1:4], (np.array([[-1, 0, 1], [2, 0.5, 0]]) + 2) / 4)
    np.testing.assert_allclose(np.asarray(axes[0, 2].images[0].get_array())[1:3, 1:4], 0.5)
    np.testing.assert_allclose(np.asarray(axes[2, 2].images[0].get_array())[1:3, 9:12], 0.75)
    assert not axes[0, 1].images
    assert not axes[1, 2].images
    assert axes[0, 0].get_xlabel() == "error 0.5, 4 calls"


def test_files_are_readable_pictures_with_something_on_them(tiny: Path, tmp_path: Path) -> None:
    suite: Suite = load(str(tiny))
    found = [curve("ddim", 1), curve("rk4", 4), curve("ddpm", 1, "weak"), order("ddim", 1.0), picture()]
    settings = dict(matplotlib.rcParams)
    paths = pictures.draw(found, summarise(found, 0.15, []), suite, tmp_path)
    assert dict(matplotlib.rcParams) == settings
    assert {p.name for p in paths} == {"work-images.png", "orders.png", "samples-images.png"}
    for path in paths:
        pixels = image.imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 150
        drawn = (pixels < 0.9).any(-1)
        assert 0.002 < drawn.mean() < 0.8
        # Something in every quarter: nothing is cut off or squeezed into a corner.
        h, w = drawn.shape
        assert all(q.any() for q in (drawn[: h // 2, : w // 2], drawn[: h // 2, w // 2 :], drawn[h // 2 :, : w // 2]))
    coloured = image.imread(tmp_path / "work-images.png")[..., :3]
    assert (np.ptp(coloured, axis=-1) > 0.3).mean() > 5e-4


def test_legends_have_room() -> None:
    """However many solvers there are: each legend is no taller than its panel, and ends above the next."""
    rows = [curve(f"solver_{k}(order={p})", p, scale=1.0 + k) for p in (1, 2, 3, 4) for k in range(p * p)]
    drawn = work.figure([{**row, "what": "work"} for row in rows], "images")
    assert drawn is not None and len(drawn.axes) == 2  # 1 + 4 + 9 curves, and 16
    drawn.canvas.draw()
    boxes = [axis.get_legend().get_window_extent() for axis in drawn.axes]  # type: ignore[union-attr]
    for axis, box in zip(drawn.axes, boxes, strict=True):
        assert box.height < axis.get_window_extent().height * 1.15
    assert boxes[0].y0 > boxes[1].y1
