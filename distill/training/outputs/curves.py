"""The picture of a training: its losses and its metrics over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import MaxNLocator

from hessrank.drawing.figures import new_figure, plain_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NetworkMetrics = Mapping[str, Mapping[str, float]]

_COLUMNS = 3
_STYLES = ("-", "--", "-.", ":")  # told apart in print


def plot_curves(frame: pd.DataFrame, before: NetworkMetrics | None = None) -> Figure:
    """Draw ``metrics.csv``: a panel of the loss's terms, then one for each metric.

    Args:
        frame: one row an epoch, as ``metrics.csv`` has it.
        before: metrics before the first step by network (``float``, ``quantized``, ``teacher``), drawn as lines.
    """
    metrics = _columns(frame, "val/")
    count = 1 + len(metrics)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(4.2 * columns, 3.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    _draw_losses(panels[0], frame)
    for axes, column in zip(panels[1:count], metrics, strict=True):
        _draw_metric(axes, frame, column, before or {})
    for axes in panels[count:]:
        axes.axis("off")
    return figure


def _draw_losses(axes: Axes, frame: pd.DataFrame) -> None:
    terms = _columns(frame, "train/")
    if terms[1:] == ["train/task"]:  # the loss is that alone
        terms = terms[:1]
    for index, column in enumerate(terms):
        name = column.removeprefix("train/")
        axes.plot(frame["epoch"], frame[column], _STYLES[index % 4], marker=".", label=plain_label(name))
    axes.set(xlabel="epoch", ylabel="training loss, mean of the epoch")
    positive = bool((frame[_columns(frame, "train/")] > 0).all(axis=None))
    axes.set_yscale("log" if positive else "linear")
    _finish(axes)


def _draw_metric(axes: Axes, frame: pd.DataFrame, column: str, before: NetworkMetrics) -> None:
    name = column.removeprefix("val/")
    axes.plot(frame["epoch"], frame[column], "k-", marker="o", markersize=3, label="this training")
    lines: dict[float, list[str]] = {}
    for network, found in before.items():
        if name in found:
            lines.setdefault(found[name], []).append(network)
    for index, (value, networks) in enumerate(lines.items()):
        axes.axhline(
            value, color="0.4", linestyle=_STYLES[1 + index % 3], label=plain_label(f"{', '.join(networks)} before")
        )
    axes.set(xlabel="epoch", ylabel=plain_label(f"{name}, validation"))
    _finish(axes)


def _finish(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 1.5))  # one epoch is a point
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    axes.grid(alpha=0.3)


def _columns(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [str(column) for column in frame if str(column).startswith(prefix)]
