"""Plots of a ranking.

Each is a pure function that computes what to draw, and a thin one that draws it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from hessrank.analysis.result.tables import format_rank
from hessrank.drawing.figures import new_axes, plain_label
from hessrank.drawing.labels import Extent, add_labels, below, draw_extents
from hessrank.drawing.layer_families import FAMILY_COLORS, layer_family
from hessrank.network.sub_networks import recorded_sub_networks
from hessrank.text import DOTS, listed

if TYPE_CHECKING:
    import pandas as pd

    from hessrank.analysis.result.ranked_layers import RankedLayers

TOP = 40
"""How many layers :func:`plot_ranking` draws by default."""

_KINDS = 4  # of a family, in the legend
_INCREASE = re.compile(r"(act|weight)_increase_b(\d+)")
_BAR_INCHES, _LETTER_INCHES = 0.165, 0.062


@dataclass(frozen=True)
class Bars:
    """What :func:`plot_ranking` draws, one entry a layer, most sensitive first.

    Attributes:
        labels: layer names.
        ranks: their places, and those that are possible at 95 %.
        values: what they are ranked by.
        below: length of the error bar below, cut where a logarithmic axis ends.
        above: length of the error bar above.
        kinds: kind of each layer.
        colors: color of each kind; the same in every picture.
        start: where the logarithmic axis begins.
    """

    labels: list[str]
    ranks: list[str]
    values: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]
    kinds: list[str]
    colors: dict[str, str]
    start: float


def ranking_bars(ranking: RankedLayers, top: int | None = None) -> Bars:
    """Compute the bars of the first ``top`` layers (None: all)."""
    frame = ranking.to_frame().head(top or len(ranking))
    values, low, high = _read_intervals(frame, ranking.by)
    positive = values[values > 0]
    start = float(positive.min()) / 3 if positive.size else 1e-12
    kinds = [str(kind) for kind in frame["kind"]]
    return Bars(
        labels=[str(name) for name in frame["layer"]],
        ranks=[format_rank(row) for _, row in frame.iterrows()],
        values=values,
        below=np.maximum(values - np.clip(low, np.minimum(start, values), None), 0),
        above=np.maximum(high - values, 0),
        kinds=kinds,
        colors={kind: FAMILY_COLORS[layer_family(kind)] for kind in dict.fromkeys(kinds)},
        start=start,
    )


def _read_intervals(
    frame: pd.DataFrame, by: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the column that a ranking is ordered by, and its 95 % intervals.

    The ends are the column itself where it has no intervals.
    """
    values = frame[by].to_numpy(dtype=np.float64)
    if by not in ("trace", "mean_trace"):
        return values, values, values
    numel = 1.0 if by == "trace" else frame["numel"].to_numpy(dtype=np.float64)
    ends = (frame[end].fillna(frame["trace"]).to_numpy(dtype=np.float64) for end in ("ci_low", "ci_high"))
    low, high = (end / numel for end in ends)
    return values, low, high


def _axis_label(ranking: RankedLayers) -> str:
    loss = plain_label(f"loss {ranking.info.get('loss', '')!r}")
    if ranking.by in ("trace", "mean_trace"):
        what = "trace" if ranking.by == "trace" else "trace / number of elements"
        return f"{what} of the activation Hessian, {loss} per activation²; 95 % intervals"
    if found := _INCREASE.fullmatch(ranking.by):
        tensor = "activation" if found[1] == "act" else "weight"
        return f"predicted increase of the {loss} with the {tensor} at {found[2]} bits"
    return plain_label(ranking.by)


def plot_ranking(ranking: RankedLayers, ax: Axes | None = None, *, top: int | None = TOP) -> Axes:
    """Draw the layers as bars on a logarithmic axis, the most sensitive on top.

    Traces have their 95 % intervals.

    Args:
        ranking: what to draw.
        ax: where to draw; None makes a figure tall enough to read every label.
        top: how many layers; None draws all.

    Returns:
        the axes; ``ax.figure.savefig(path)`` saves the picture.
    """
    bars = ranking_bars(ranking, top)
    count = len(bars.labels)
    if ax is None:
        longest = max(map(len, bars.labels))
        ax = new_axes(6.5 + _LETTER_INCHES * longest, 2.2 + _BAR_INCHES * count)
    places = np.arange(count)
    positive = bars.values > 0
    colors = [bars.colors[kind] for kind in bars.kinds]
    lengths = np.where(positive, bars.values, bars.start)
    ax.barh(places, lengths, color=colors, height=0.72, log=True, edgecolor="#222222", linewidth=0.4)
    errors = np.stack([bars.below, bars.above])[:, positive]
    intervals = ax.errorbar(
        bars.values[positive], places[positive], xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.9
    )
    for lines in intervals.get_children():
        lines.set_path_effects([withStroke(linewidth=2.2, foreground="white")])  # seen on dark bars too
    for place in places[~positive]:
        value = bars.values[place]
        word = f"negative: {value:.1e}" if value < 0 else "0" if value == 0 else "none"
        at = (bars.start, float(place))
        ax.annotate(word, at, xytext=(3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_yticks(places, [plain_label(name) for name in bars.labels], fontsize=7)
    ax.set_ylim(count - 0.4, -0.6)
    ax.set_xlim(left=bars.start)
    if ax.get_xlim()[1] < 100 * bars.start:  # few decades: numbers between them, not so many that they overlap
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(_axis_label(ranking))
    ax.set_ylabel("layer")
    ranks = ax.secondary_yaxis("right")
    ranks.set_yticks(places, bars.ranks, fontsize=7)
    ranks.set_ylabel("rank (places that are possible at 95 %)" if any("(" in rank for rank in bars.ranks) else "rank")
    ax.xaxis.set_tick_params(labeltop=count > TOP, top=count > TOP)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    _draw_legend(ax, bars, f"{count} of {len(ranking)} layers, most sensitive first")
    return ax


def _draw_legend(ax: Axes, bars: Bars, title: str) -> None:
    """Draw the legend above the axes, where it is seen however long the plot is."""
    families: dict[str, list[str]] = {}
    for kind in bars.colors:
        families.setdefault(layer_family(kind), []).append(kind)
    handles = [
        Patch(
            facecolor=color,
            edgecolor="#222222",
            linewidth=0.4,
            label=plain_label(listed(families[family], _KINDS, DOTS)),
        )
        for family, color in FAMILY_COLORS.items()
        if family in families
    ]
    ax.legend(
        handles=handles,
        title=title,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        bbox_transform=ax.transAxes + below(ax, -18 if len(bars.labels) > TOP else -2),
        ncols=3,
        fontsize=7,
        title_fontsize=10,
        frameon=False,
    )


@dataclass(frozen=True)
class Profile:
    """What :func:`plot_depth` draws, in the order of execution.

    Attributes:
        indices: places in the order of execution.
        values: what the layers are ranked by.
        low: lower ends of their 95 % intervals.
        high: upper ends.
        peaks: place, value and label of the highest points, the highest first.
        parts: name, first and last place of every sub-network.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    peaks: list[tuple[int, float, str]]
    parts: tuple[Extent, ...]


def depth_profile(ranking: RankedLayers, peaks: int = 6) -> Profile:
    """Compute the traces in the order of execution, and which peaks to name."""
    frame = ranking.to_frame().sort_values("execution_index", ignore_index=True)
    place = dict(zip(frame["layer"], frame["execution_index"], strict=True))
    kinds = dict(zip(frame["layer"], frame["kind"], strict=True))
    return Profile(
        frame["execution_index"].to_numpy(dtype=np.int64),
        *_read_intervals(frame, ranking.by),
        _find_peaks(frame, ranking.by, peaks),
        tuple(
            (part.name or "the network", int(place[part.layers[0]]), int(place[part.layers[-1]]))
            for part in recorded_sub_networks(ranking.info.get("graph"), kinds)
        ),
    )


def _find_peaks(frame: pd.DataFrame, by: str, most: int) -> list[tuple[int, float, str]]:
    """Return up to ``most`` peaks as (index, value, label).

    A peak is the highest of its neighborhood, so that labels do not overlap.
    """
    around = max(1, len(frame) // (2 * most))
    heights = frame.set_index("execution_index")[by]
    chosen: list[tuple[int, float, str]] = []
    ranked = frame.sort_values("rank")
    for rank, index, name in zip(ranked["rank"], ranked["execution_index"], ranked["layer"], strict=True):
        if heights[index] >= heights.loc[index - around : index + around].max() and len(chosen) < most:
            chosen.append((int(index), float(heights[index]), f"{rank}. {name}"))
    return chosen


def plot_depth(ranking: RankedLayers, ax: Axes | None = None) -> Axes:
    """Draw the layers in the order of execution, with 95 % bands.

    The highest points have names; below stand the sub-networks.

    Args:
        ranking: what to draw.
        ax: where to draw; None makes a figure.

    Returns:
        the axes; ``ax.figure.savefig(path)`` saves the picture.
    """
    profile = depth_profile(ranking)
    if ax is None:
        ax = new_axes(10, 4.6)
    positive = np.where(profile.values > 0, profile.values, np.nan)
    known = positive[np.isfinite(positive)]
    floor = known.min() / 3 if known.size else 1e-12
    low, high = (np.maximum(ends, floor) for ends in (profile.low, profile.high))
    ax.fill_between(profile.indices, low, high, color="#56B4E9", alpha=0.4)
    ax.plot(profile.indices, positive, color="#0072B2", marker="o", markersize=2.5, linewidth=1)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(-1, profile.indices.max() + 1)
    if known.size:
        ax.set_ylim(floor, known.max() * (known.max() / floor) ** 0.15)  # with room for names
    lowest = draw_extents(ax, profile.parts)
    ax.set_xlabel("order of execution", loc="left", labelpad=lowest - 14)
    ax.set_ylabel(_axis_label(ranking).replace(" of the activation Hessian, ", " of the activation Hessian,\n"))
    ax.grid(color="#dddddd", linewidth=0.6)
    peaks = [peak for peak in profile.peaks if peak[1] > 0]
    add_labels(ax, peaks, zip(profile.indices, positive, strict=True), upward=True, fontsize=7)
    return ax
