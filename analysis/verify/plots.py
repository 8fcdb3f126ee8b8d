"""The plot of a verification: predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hessrank.analysis.verify.agreement import PredictionAgreement
from hessrank.drawing.figures import new_axes, with_limits
from hessrank.drawing.labels import number_points

_COLORS = {"activation": "#0072B2", "weight": "#E69F00"}  # also apart in gray
_MARKERS = "o^sDvP*X"
_LABELS = 6


def plot_verification(frame: pd.DataFrame, agreement: Sequence[PredictionAgreement], ax: Axes | None = None) -> Axes:
    """Draw predicted against measured increases; return the axes.

    The axes are logarithmic; a diagonal shows where the two are equal.

    A marker for each bit-width, filled for weights; the tensors that are farthest off have numbers, and names
    below. What is not positive on either axis cannot be drawn, and is counted in the title.

    Args:
        frame: the verification's table.
        agreement: of its tensors, by kind and bit-width.
        ax: where to draw; None makes a figure.
    """
    if ax is None:
        ax = new_axes(7.5, 9)
    drawn = frame[(frame["predicted"] > 0) & (frame["measured"] > 0)]
    widths = sorted(frame["bits"].unique())
    for one in agreement:
        part = drawn[(drawn["tensor"] == one.tensor) & (drawn["bits"] == one.bits)]
        sem, measured = part["measured_sem"].fillna(0).to_numpy(), part["measured"].to_numpy()
        bars = np.stack([np.minimum(sem, 0.9 * measured), sem])  # cut so that they stay on a logarithmic axis
        color, marker = _COLORS[one.tensor], _MARKERS[widths.index(one.bits) % len(_MARKERS)]
        label = f"{one.tensor}s at {one.bits} bits: Spearman {one.spearman:.3f}"
        face = color if one.tensor == "weight" else "none"
        ax.errorbar(part["measured"], part["predicted"], xerr=bars, fmt="none", ecolor="#bbbbbb", elinewidth=0.7)
        ax.scatter(
            part["measured"], part["predicted"], s=22, marker=marker, facecolors=face, edgecolors=color, label=label
        )
    _draw_diagonal(ax, drawn)
    left = len(frame) - len(drawn)
    ax.set(
        xscale="log", yscale="log", xlabel="measured increase of the loss", ylabel="predicted increase of the loss"
    )
    with_limits(ax)
    ax.set_title(
        "One tensor quantized at a time" + (f"; {left} not positive, not drawn" if left else ""), fontsize=10
    )
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    off = drawn[drawn["reason"] != ""]
    far = off.loc[np.log(off["ratio"]).abs().sort_values(ascending=False, kind="stable").index].head(_LABELS)
    numbered = [
        (row["measured"], row["predicted"], f"{row['layer']}, {row['tensor']}, {row['bits']} bits: {row['reason']}")
        for _, row in far.iterrows()
    ]
    number_points(ax, numbered, drawn[["measured", "predicted"]].to_numpy())
    return ax


def _draw_diagonal(ax: Axes, drawn: pd.DataFrame) -> None:
    if drawn.empty:
        return
    both = drawn[["predicted", "measured"]].to_numpy()
    ends = np.array([both.min() / 1.5, both.max() * 1.5])
    ax.plot(ends, ends, color="#333333", linewidth=0.9)
    ax.fill_between(ends, ends / 1.5, ends * 1.5, color="#000000", alpha=0.06, linewidth=0)
