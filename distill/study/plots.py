"""A study's picture: every experiment with its error bar, and every training as a dot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from hessrank.distill.study.table import metrics_of, summary
from hessrank.drawing.figures import new_axes, plain_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_study(rows: pd.DataFrame, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a line an experiment: before training, after it with error, each seed.

    Args:
        rows: one a training.
        metric: which; the monitored one, or the first, if not given.
        ax: where to draw; a figure of its own if not given.
    """
    metric = metrics_of(rows)[0] if metric is None else metric
    table = summary(rows)[::-1].reset_index(drop=True)
    if ax is None:
        ax = new_axes(8, 1.6 + 0.3 * len(table))
    ax.plot(
        table[f"before_{metric}"], table.index, "|", color="0.4", markersize=11, zorder=4, label="before training"
    )
    for place, name in enumerate(table["experiment"]):
        each = rows.loc[rows["experiment"] == name, f"last_{metric}"]
        label = "after it, each seed" if place == 0 else None
        ax.plot(each, [place - 0.25] * len(each), "o", color="0.55", markersize=3, zorder=1, label=label)
    ax.errorbar(
        table[f"last_{metric}"],
        table.index,
        xerr=table[f"sem_{metric}"].fillna(0.0),
        fmt="ks",
        markersize=4,
        capsize=3,
        label="after it, mean ± standard error",
    )
    ax.set_yticks(table.index, [plain_label(name) for name in table["experiment"]], fontsize=8)
    ax.set_xlabel(plain_label(f"{metric}, validation"))
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.margins(x=0.05)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax
