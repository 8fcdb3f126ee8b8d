"""Draws labels that cover neither each other nor the points they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from hessrank.drawing.figures import plain_label

Extent = tuple[str, int, int]
"""A name, and the first and last place that it is for."""

_ITERATIONS = 300  # a number, not a time: the same picture on every machine
_MARKER = 4.0  # points, from its middle
_FIRST_ROW, _ROW = 26.0, 14.0  # points below the axis
_LEGEND = 34.0  # likewise, behind the axis' own label


def add_labels(
    ax: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: Iterable[tuple[float, float]] = (),
    *,
    upward: bool = False,
    **style: Any,
) -> list[Annotation]:
    """Write each label beside its point, with a line; skip what has no room.

    Args:
        ax: the axes, with all else drawn: limits and size should stay as they are.
        labels: x and y of a point and what to write, the most important first; in units of the data.
        points: what else no label should cover, likewise.
        upward: whether labels stand above their points, and move only up and down.
        style: of the text.

    Returns:
        what was written.
    """
    style |= {"in_layout": False, "path_effects": [withStroke(linewidth=2, foreground="white")]}
    labels = [(x, y, plain_label(text)) for x, y, text in labels]
    texts = [ax.text(x, y, label, ha="center", **style) for x, y, label in labels]
    figure = _get_figure(ax)
    figure.draw_without_rendering()  # sizes and limits are known from here on
    covered = np.array([*points, *((x, y) for x, y, _ in labels)], dtype=np.float64).reshape(-1, 2)
    around = _MARKER / 72 * figure.dpi * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    pixels = (ax.transData.transform(covered)[:, None] + around).reshape(-1, 2)
    pixels = pixels[np.isfinite(pixels).all(1)]  # a logarithmic axis has no place for what is not positive
    adjust_text(
        texts,
        *ax.transData.inverted().transform(pixels).T,
        ax=ax,
        expand=(1.05, 1.3),
        force_static=(0.2, 0.3),
        iter_lim=_ITERATIONS,
        only_move={"text": "y", "static": "y+", "explode": "y+", "pull": "y"} if upward else "xy",
    )
    written: list[Annotation] = []
    extents: list[Bbox] = []
    for text, (x, y, label) in zip(texts, labels, strict=True):
        extent = text.get_window_extent()
        text.remove()
        if not any(extent.overlaps(other) for other in extents):
            extents.append(extent)
            made = ax.annotate(
                label,
                (x, y),
                text.get_position(),
                ha="center",
                va="center",
                bbox={"facecolor": "none", "edgecolor": "none", "pad": 1},  # where its line ends
                arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.6, "shrinkB": 3},
                **style,
            )
            written.append(made)
    return written


def number_points(
    ax: Axes, named: Sequence[tuple[float, float, str]], points: Iterable[tuple[float, float]] = ()
) -> None:
    """Number points in the axes, and name them in a legend below.

    Args:
        ax: the axes, with all else drawn.
        named: x, y and name of a point, the most important first.
        points: what else no number should cover.
    """
    numbered = {str(number): found for number, found in enumerate(named, start=1)}
    _draw_legend_below(ax, {number: name for number, (_, _, name) in numbered.items()})  # takes its room
    labels = [(x, y, number) for number, (x, y, _) in numbered.items()]
    written = add_labels(ax, labels, points, fontsize=8, fontweight="bold")
    _draw_legend_below(ax, {text.get_text(): numbered[text.get_text()][2] for text in written})


def _draw_legend_below(ax: Axes, numbered: Mapping[str, str]) -> None:
    handles, labels = ax.get_legend_handles_labels()
    for number, name in numbered.items():
        handles.append(Line2D([], [], linestyle="none", color="black", marker=f"${number}$", markeredgewidth=0))
        labels.append(plain_label(name))
    at = ax.transAxes + below(ax, _LEGEND)
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=at, fontsize=8, frameon=False)


def _get_figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def below(ax: Axes, points: float) -> Transform:
    """Return the transform that moves something ``points`` down."""
    return ScaledTranslation(0, -points / 72, _get_figure(ax).dpi_scale_trans)


def draw_extents(ax: Axes, extents: Iterable[Extent]) -> float:
    """Draw brackets with names below the horizontal axis, overlapping ones in rows.

    A name that is wider than its bracket takes its room in the row too.

    Args:
        ax: the axes, whose horizontal one counts places; its limits should stay as they are.
        extents: what to draw.

    Returns:
        how many points below the axes they reach.
    """
    ends: list[float] = []  # where the last one in each row ends
    low, high = ax.get_xlim()
    for given, first, last in extents:
        name, middle = plain_label(given), (first + last) / 2
        text = ax.text(middle, 0, name, ha="center", va="center", fontsize=8)
        half = ax.transData.inverted().transform(text.get_window_extent().get_points())[:, 0] - middle
        text.remove()
        left, right = min(first - 0.4, middle + half[0]), max(last + 0.4, middle + half[1])
        shift = max(low - left, 0) - max(right - high, 0)  # a name at an end stays within the axes
        row = next((i for i, end in enumerate(ends) if end < left + min(shift, 0)), len(ends))
        ends[row : row + 1] = [right + max(shift, 0)]
        at = ax.get_xaxis_transform() + below(ax, _FIRST_ROW + _ROW * row)
        ax.plot(
            [first - 0.4, last + 0.4], [0, 0], transform=at, color="black", linewidth=1.2, marker="|", clip_on=False
        )
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(middle + shift, 0, name, transform=at, ha="center", va="center", fontsize=8, bbox=box)
    return _FIRST_ROW + _ROW * (len(ends) - 0.5) if ends else _FIRST_ROW - _ROW / 2
