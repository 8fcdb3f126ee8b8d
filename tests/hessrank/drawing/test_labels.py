"""Labels in pictures: none on another, the same every time."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from hessrank.drawing.figures import new_axes
from hessrank.drawing.labels import add_labels, draw_extents, number_points


def scattered(seed: int, count: int = 60) -> tuple[Axes, np.ndarray]:
    ax = new_axes(5, 4)
    points = np.exp(np.random.default_rng(seed).normal(0, 0.2, (count, 2)).cumsum(0))
    ax.loglog(*points.T, "o")
    return ax, points


def boxes(texts: Any) -> list[Any]:
    return [Text.get_window_extent(text) for text in texts]


def assert_apart(texts: Any) -> None:
    for one, other in combinations(boxes(texts), 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("upward", [False, True])
def test_labels_in_a_crowd_do_not_lie_on_each_other(seed: int, upward: bool) -> None:
    ax, points = scattered(seed)
    labels = [(x, y, f"layer.{i}.output") for i, (x, y) in enumerate(points[:8])]
    written = add_labels(ax, labels, points, upward=upward, fontsize=7)
    ax.figure.draw_without_rendering()
    assert 3 <= len(written) <= 8
    assert written[0].get_text() == "layer.0.output"  # the first ones have precedence
    assert_apart(written)
    inside = ax.get_window_extent().padded(1)
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes(written))


def test_the_same_points_have_their_labels_in_the_same_places() -> None:
    places = []
    for _ in range(2):
        ax, points = scattered(0)
        places.append([t.get_position() for t in add_labels(ax, [(x, y, "name") for x, y in points[:6]], points)])
    assert places[0] == places[1]


def test_equal_points_have_labels_apart() -> None:
    ax, _ = scattered(1)
    written = add_labels(ax, [(1.0, 1.0, "one"), (1.0, 1.0, "other")])
    ax.figure.draw_without_rendering()
    assert len(written) == 2
    assert_apart(written)


def test_nothing_to_label_is_no_error() -> None:
    ax, points = scattered(2)
    assert add_labels(ax, [], points) == []
    number_points(ax, [], points)


def test_numbers_are_named_in_a_legend_that_covers_no_point() -> None:
    ax, points = scattered(3)
    ax.get_lines()[0].set_label("all")
    number_points(ax, [(*point, f"name [{i}]") for i, point in enumerate(points[:4])], points)
    ax.figure.draw_without_rendering()
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["all", *(f"name [{i}]" for i in range(4))]
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3", "4"]
    assert legend.get_window_extent().y1 < ax.get_window_extent().y0
    assert_apart(ax.texts)


@pytest.mark.parametrize("count", [1, 3, 12, 40])
def test_names_below_brackets_do_not_lie_on_each_other(count: int) -> None:
    """Long names over short sub-networks, and overlapping sub-networks, go to rows of their own."""
    ax = new_axes(10, 4)
    ax.set_xlim(-1, 3 * count)
    extents = [(f"sub.network.number{i}", 3 * i, 3 * i + 2) for i in range(count)]
    lowest = draw_extents(ax, [*extents, ("the whole", 0, 3 * count - 1)])
    ax.figure.draw_without_rendering()
    assert len(ax.texts) == count + 1
    assert_apart(ax.texts)
    bottom = ax.get_window_extent().y0 - lowest / 72 * ax.figure.dpi
    assert all(box.y0 > bottom for box in boxes(ax.texts))
