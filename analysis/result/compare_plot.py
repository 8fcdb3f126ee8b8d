"""The plot of a comparison: one ranking's values against the other's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hessrank.drawing.figures import new_axes, plain_label, with_limits
from hessrank.drawing.labels import number_points

_LABELS = 8
_STYLES = {
    "": ("#56B4E9", "o", "agree"),
    "other size": ("#E69F00", "^", "other size"),
    "moved": ("#D55E00", "s", "moved"),
}


def plot_comparison(frame: pd.DataFrame, moved: pd.DataFrame, by: str, spearman: str, ax: Axes | None = None) -> Axes:
    """Draw the second ranking's values against the first's, with error bars.

    Args:
        frame: the comparison's table.
        moved: its rows whose places differ beyond their rank intervals, the farthest first; some get names.
        by: the column that was compared.
        spearman: the rank correlation, for the title.
        ax: where to draw; None makes a figure.

    Returns:
        the axes.
    """
    if ax is None:
        ax = new_axes(7, 8)
    drawn = frame[(frame["value_a"] > 0) & (frame["value_b"] > 0)]
    for verdict, (color, marker, label) in _STYLES.items():
        part = drawn[drawn["verdict"] == verdict]
        x_bars, y_bars = (
            np.stack([np.minimum(part[f"sem_{x}"], 0.9 * part[f"value_{x}"]), part[f"sem_{x}"]]) for x in "ab"
        )
        ax.errorbar(
            part["value_a"], part["value_b"], xerr=x_bars, yerr=y_bars, fmt=marker, color=color, ecolor="#bbbbbb",
            markersize=4, elinewidth=0.7, label=f"{label}: {len(part)}",
        )  # fmt: skip
    if not drawn.empty:
        both = drawn[["value_a", "value_b"]].to_numpy()
        ends = [both.min() / 1.5, both.max() * 1.5]
        ax.plot(ends, ends, color="#333333", linewidth=0.9)
    left = len(frame) - len(drawn)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=plain_label(f"{by}, first ranking"),
        ylabel=plain_label(f"{by}, second ranking"),
    )
    with_limits(ax)
    ax.set_title(f"Spearman {spearman}" + (f"; {left} not positive, not drawn" if left else ""), fontsize=10)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    shown = moved[moved["layer"].isin(drawn["layer"])].head(_LABELS)
    numbered = [
        (row["value_a"], row["value_b"], f"{row['layer']}: {row['rank_a']} → {row['rank_b']}")
        for _, row in shown.iterrows()
    ]
    number_points(ax, numbered, drawn[["value_a", "value_b"]].to_numpy())
    return ax
