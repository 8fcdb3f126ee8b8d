"""Pictures of a ranking. Each is a pure function that computes what to draw and a thin one that draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from hessrank.analysis.ranking import Ranking

# Okabe & Ito's colors keep apart for color-blind eyes; their brightness differs too, for print without color.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#8B6D1F")
_OTHER = "#999999"


@dataclass(frozen=True)
class Bars:
    """What :func:`plot_ranking` draws, one entry a layer, most sensitive first.

    Attributes:
        labels: layer names with their rank.
        values: traces.
        below: length of the error bar below, cut where a logarithmic axis ends.
        above: length of the error bar above.
        kinds: kind of each layer; rare ones are ``other``.
        colors: color of each kind.
        start: where the logarithmic axis begins.
    """

    labels: list[str]
    values: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]
    kinds: list[str]
    colors: dict[str, str]
    start: float


def ranking_bars(ranking: Ranking, top: int | None = None) -> Bars:
    """Compute the bars of the first ``top`` layers (None: all)."""
    frame = ranking.to_frame().head(top or len(ranking))
    values = frame["trace"].to_numpy(dtype=np.float64)
    low = frame["ci_low"].fillna(frame["trace"]).to_numpy(dtype=np.float64)
    high = frame["ci_high"].fillna(frame["trace"]).to_numpy(dtype=np.float64)
    positive = values[values > 0]
    start = float(positive.min()) / 3 if positive.size else 1e-12
    kinds, colors = _colored([str(kind) for kind in frame["kind"]])
    return Bars(
        labels=[f"{name}  {rank}" for name, rank in zip(frame["layer"], frame["rank"], strict=True)],
        values=values,
        below=values - np.clip(low, np.minimum(start, values), None),
        above=high - values,
        kinds=kinds,
        colors=colors,
        start=start,
    )


def _colored(kinds: list[str]) -> tuple[list[str], dict[str, str]]:
    """Give the most frequent kinds a color each; all others share one."""
    by_count = sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))
    named = by_count if len(by_count) <= len(_COLORS) else by_count[: len(_COLORS) - 1]
    colors = dict(zip(named, _COLORS, strict=False)) | {"other": _OTHER}
    return [kind if kind in named else "other" for kind in kinds], colors


def plot_ranking(ranking: Ranking, ax: Axes | None = None, *, top: int | None = None) -> Axes:
    """Draw the traces as horizontal bars with 95 % intervals on a logarithmic axis, most sensitive on top.

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
        figure = Figure(figsize=(9, 1.6 + 0.165 * count), layout="constrained", dpi=150)
        ax = figure.add_subplot()
    places = np.arange(count)
    positive = bars.values > 0
    colors = [bars.colors[kind] for kind in bars.kinds]
    ax.barh(places, np.where(positive, bars.values, bars.start), color=colors, height=0.72, log=True)
    errors = np.stack([bars.below, bars.above])[:, positive]
    ax.errorbar(bars.values[positive], places[positive], xerr=errors, fmt="none", ecolor="#222222", elinewidth=0.9)
    for place in places[~positive]:
        word = "0" if bars.values[place] == 0 else f"negative: {bars.values[place]:.1e}"
        ax.annotate(
            word,
            (bars.start, float(place)),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
        )
    ax.set_yticks(places, bars.labels, fontsize=7)
    ax.set_ylim(count - 0.4, -0.6)
    ax.set_xlim(left=bars.start)
    ax.set_xlabel(
        f"trace of the activation Hessian, loss {ranking.info.get('loss', '')!r} per activation²; 95 % intervals"
    )
    ax.set_title(f"{count} of {len(ranking)} layers, most sensitive first", fontsize=10)
    ax.xaxis.set_tick_params(labeltop=count > 40, top=count > 40)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    _legend(ax, bars)
    return ax


def _legend(ax: Axes, bars: Bars) -> None:
    shown = [kind for kind in bars.colors if kind in bars.kinds]
    handles = [ax.barh([0], [0], color=bars.colors[kind]) for kind in shown]
    ax.legend(handles, shown, loc="lower right", fontsize=7, framealpha=0.9)


@dataclass(frozen=True)
class Profile:
    """What :func:`plot_depth` draws, in the order of execution."""

    indices: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    peaks: list[tuple[int, float, str]]


def depth_profile(ranking: Ranking, peaks: int = 6) -> Profile:
    """Compute the traces along the order of execution, and which of the highest points to name."""
    frame = ranking.to_frame()
    named = _spread(frame, peaks)
    frame = frame.sort_values("execution_index")
    trace = frame["trace"].to_numpy(dtype=np.float64)
    return Profile(
        frame["execution_index"].to_numpy(dtype=np.int64),
        trace,
        frame["ci_low"].fillna(frame["trace"]).to_numpy(dtype=np.float64),
        frame["ci_high"].fillna(frame["trace"]).to_numpy(dtype=np.float64),
        named,
    )


def _spread(frame: pd.DataFrame, most: int) -> list[tuple[int, float, str]]:
    """Return up to ``most`` summits, as (index, trace, label): the highest of all around them, so not crowded."""
    around = max(1, len(frame) // (2 * most))
    by_index = frame.set_index("execution_index")["trace"].sort_index()
    chosen: list[tuple[int, float, str]] = []
    for rank, index, name in zip(frame["rank"], frame["execution_index"], frame["layer"], strict=True):
        if by_index[index] >= by_index.loc[index - around : index + around].max() and len(chosen) < most:
            chosen.append((int(index), float(by_index[index]), f"{rank}. {name}"))
    return chosen


def plot_depth(ranking: Ranking, ax: Axes | None = None) -> Axes:
    """Draw the traces with their 95 % band from the network's input to its output; return the axes."""
    profile = depth_profile(ranking)
    if ax is None:
        ax = Figure(figsize=(10, 4), layout="constrained", dpi=150).add_subplot()
    positive = np.where(profile.values > 0, profile.values, np.nan)
    floor = np.nanmin(positive) / 3 if np.isfinite(positive).any() else 1e-12
    ax.fill_between(
        profile.indices,
        np.maximum(profile.low, floor),
        np.maximum(profile.high, floor),
        color="#56B4E9",
        alpha=0.4,
    )
    ax.plot(profile.indices, positive, color="#0072B2", marker="o", markersize=2.5, linewidth=1)
    ax.set_yscale("log")
    for index, value, label in profile.peaks:
        if value > 0:
            right = index > profile.indices.max() / 2
            ax.annotate(
                label,
                (index, value),
                xytext=(-6 if right else 6, 4),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=7,
            )
    ax.set_xlabel("order of execution")
    ax.set_ylabel("trace of the activation Hessian")
    ax.grid(color="#dddddd", linewidth=0.6)
    return ax
