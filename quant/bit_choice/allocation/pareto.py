"""The frontier: the least increase that every budget buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from hessrank.drawing.figures import new_axes, plain_label
from hessrank.errors import OptionError
from hessrank.quant.bit_choice.allocation.allocate import Allocation, Limit, allocate, least_possible
from hessrank.renamed import renamed_arguments

if TYPE_CHECKING:
    import pandas as pd

_AXES = {"size_mib": ("size of the ONNX file, MiB", 1.0), "bops": ("GBOPs for one sample", 1e9)}  # and the unit
_TOLERANCE = 0.01  # of the increase, which spans many orders of magnitude
_LINE = "#0072B2"
_MARKS = (("D", "#D55E00"), ("s", "#009E73"), ("^", "#CC79A7"), ("v", "#E69F00"), ("P", "#56B4E9"), ("X", "#000000"))


def cost_column(cost: Limit) -> str:
    """Return the name of a cost's column.

    ``size_mib``, ``bops``, ``mean_weight_bits`` or ``latency``.
    """
    return "_".join(f"{cost.name} {cost.unit}".lower().split())


@renamed_arguments(damage="increase")
def frontier(
    increase: ArrayLike,
    cost: Limit,
    *,
    names: Sequence[str],
    widths: Sequence[int],
    limits: Sequence[Limit] = (),
    tied: Sequence[Sequence[int]] = (),
    allowed: ArrayLike | None = None,
    points: int = 40,
) -> pd.DataFrame:
    """Find the least increase at each of ``points`` budgets.

    They lie between the least possible cost and that of the least increase.

    The budgets are spaced geometrically: the increase falls by about the same factor with each bit, and with each
    bit the cost grows by less and less of itself.

    Args:
        increase: decisions × options, as for :func:`~hessrank.quant.bit_choice.allocation.allocate.allocate`.
        cost: what the budget is on; its ``most`` is not used.
        names: of the decisions.
        widths: of the options, in bits.
        limits: further limits, kept at every point.
        tied: groups of decisions that take the same option.
        allowed: decisions × options, False where an option must not be taken.
        points: how many budgets.

    Returns:
        one row a point, cheapest first, none dominated by another or the same: the cost (see :func:`cost_column`),
        ``damage`` (the least up to a hundredth), and the bits of each decision in a column of its name.

    Raises:
        BudgetError: nothing keeps ``limits``.
        OptionError: fewer than two points, or names and arrays that do not match.
    """
    import pandas as pd  # noqa: PLC0415 - half a second

    total = np.asarray(increase, dtype=np.float64)
    if points < 2 or total.shape != (len(names), len(widths)):
        raise OptionError(f"a frontier takes 2 points or more, and increase of shape {(len(names), len(widths))}")

    def within(most: float) -> Allocation:
        return allocate(total, [*limits, replace(cost, most=most)], tied=tied, allowed=allowed, tolerance=_TOLERANCE)

    richest = within(np.inf)
    usable = np.isfinite(total) if allowed is None else np.isfinite(total) & np.asarray(allowed, dtype=np.bool_)
    cheapest = least_possible(cost, usable, limits, tied=tied)
    low, high = cost.value(richest.choice if cheapest is None else cheapest), richest.costs[cost.name]
    found = [*(within(float(most)) for most in budgets(low, high, points)[:-1]), richest]
    kept = undominated(np.array([a.costs[cost.name] for a in found]), np.array([a.increase for a in found]))
    bits = np.array(widths)[np.stack([found[i].choice for i in kept])]
    told = {cost_column(cost): [found[i].costs[cost.name] for i in kept], "damage": [found[i].increase for i in kept]}
    return pd.concat([pd.DataFrame(told), pd.DataFrame(bits, columns=list(names))], axis=1)


def budgets(low: float, high: float, points: int) -> NDArray[np.float64]:
    """Return budgets from ``low`` to ``high``.

    Spaced geometrically where both are positive, or else evenly.
    """
    space = np.geomspace if low > 0 else np.linspace
    spaced: NDArray[np.float64] = space(low, max(low, high), points)
    return np.maximum(spaced, low)


def undominated(cost: NDArray[np.float64], increase: NDArray[np.float64]) -> list[int]:
    """Return the numbers of the points that no other beats, cheapest first.

    One that another equals in both is beaten too.
    """
    kept: list[int] = []
    for i in np.lexsort((increase, cost)):
        if not kept or increase[i] < increase[kept[-1]]:
            kept.append(int(i))
    return kept


def plot_frontier(
    frame: pd.DataFrame, ax: Axes | None = None, *, marks: Mapping[str, tuple[float, float]] | None = None
) -> Axes:
    """Draw a frontier: the increase, on a logarithmic axis, against the cost.

    Args:
        frame: from :func:`frontier`; its first two columns are drawn.
        ax: where to draw; None makes a figure.
        marks: other policies, name to cost (BOPs, not GBOPs) and increase, to compare with.

    Returns:
        the axes; ``ax.figure.savefig(path)`` saves the picture.
    """
    if ax is None:
        ax = new_axes(7, 4.5)
    name = str(frame.columns[0])
    axis_label, unit = _AXES.get(name, (name.replace("_", " "), 1.0))
    cost, increase = frame[name].to_numpy(dtype=np.float64) / unit, frame["damage"].to_numpy(dtype=np.float64)
    positive = increase > 0
    ax.plot(
        cost[positive],
        increase[positive],
        color=_LINE,
        marker="o",
        markersize=3,
        linewidth=1,
        label="least for every budget",
    )
    for (label, (at, value)), (marker, color) in zip((marks or {}).items(), cycle(_MARKS), strict=False):
        ax.plot(
            [at / unit], [value], color=color, marker=marker, markersize=6, linestyle="none", label=plain_label(label)
        )
    ax.set_yscale("log")
    ax.set_xlabel(plain_label(axis_label))
    ax.set_ylabel("predicted increase of the loss")
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, framealpha=0.9)
    return ax
