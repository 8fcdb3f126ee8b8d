"""The predicted increases that a policy is made from: layers × bits.

As in :mod:`hessrank.analysis.result.plots`, a pure function computes what to draw and a thin one draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from hessrank.analysis.result.ranking import Ranking
from hessrank.drawing.figures import new_axes, plain_label
from hessrank.errors import OptionError, unknown_name
from hessrank.quant.bit_choice.predicted_increase import Predicted, predict
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.policy import Policy, Resolution, place_policy_quantizers, require, resolve

What = Literal["activations", "weights"]

_DECADES = 10  # below the largest increase, where the colors end


@dataclass(frozen=True)
class IncreaseMap:
    """What :func:`plot_increase` draws.

    Attributes:
        labels: a tensor a row, in the order of execution; ``+2`` for two more that share its grid or weight.
        bits: a bit-width a column.
        values: rows × columns, predicted increase of the loss.
        chosen: for every row, the column that the policy chose; None without, or if it is not among ``bits``.
        low: where the colors begin; the same for weights and activations, as is ``high``.
        high: where they end.
    """

    labels: tuple[str, ...]
    bits: tuple[int, ...]
    values: NDArray[np.float64]
    chosen: tuple[int | None, ...]
    low: float
    high: float


def increase_map(
    ranking: Ranking, bits: Iterable[int] | None = None, *, what: What = "activations", policy: Policy | None = None
) -> IncreaseMap:
    """Compute the predicted increase of the loss for every tensor and bit-width.

    Args:
        ranking: with its record.
        bits: the columns; None takes all that the ranking predicts.
        what: ``activations`` (a row a grid) or ``weights``.
        policy: whose choice to outline, and whose quantizers the rows are; None takes the default ones.

    Raises:
        OptionError: bits that the ranking does not predict, or none.
        UnknownNameError: ``what`` is something else.
        PolicyError: the policy is for another network.
    """
    if what not in ("activations", "weights"):
        raise unknown_name("sort of tensor", what, ("activations", "weights"))
    problem = Problem.of(ranking)
    placement, settings = problem.placement, Resolution({}, {})
    if policy is not None:
        require(policy, problem.graph)
        placement = place_policy_quantizers(policy, problem.graph)
        settings = resolve(policy, problem.graph, placement)
    predicted = predict(ranking, problem.graph, placement)
    columns = predicted.bits if bits is None else tuple(sorted(set(bits)))
    if not columns:
        raise OptionError("a heat map takes one bit-width or more")
    both = {"activations": _stacked(predicted.grids, predicted, columns)}
    both["weights"] = _stacked(predicted.weights, predicted, columns)
    high = max((float(values.max()) for values in both.values() if values.size), default=0.0) or 1.0
    positive = np.concatenate([values[values > 0] for values in both.values()])
    if what == "weights":
        groups, made = placement.weights, settings.weights
    else:
        groups, made = {grid: placement.members(grid) for grid in placement.grids}, settings.activations
    widths = [made[name].scheme.bits if name in made else None for name in groups]
    return IncreaseMap(
        tuple(layers[0] + (f"  +{len(layers) - 1}" if layers[1:] else "") for layers in groups.values()),
        columns,
        both[what],
        tuple(None if width not in columns else columns.index(width) for width in widths),
        max(float(positive.min(initial=high)), high / 10**_DECADES),
        high,
    )


def _stacked(
    increases: Mapping[str, NDArray[np.float64]], predicted: Predicted, columns: Sequence[int]
) -> NDArray[np.float64]:
    places = [predicted.at(width) for width in columns]
    return np.array([row[places] for row in increases.values()]).reshape(-1, len(columns))


def plot_increase(
    ranking: Ranking,
    ax: Axes | None = None,
    bits: Iterable[int] | None = None,
    *,
    what: What = "activations",
    policy: Policy | None = None,
) -> Axes:
    """Draw the predicted increase as a heat map, tensors × bits.

    Darker is worse, white is none.

    Args:
        ranking: with its record.
        ax: where to draw; None makes a figure tall enough to read every label.
        bits: the columns; None takes all that the ranking predicts.
        what: ``activations`` or ``weights``; the colors mean the same in both.
        policy: outlines its choice in every row.

    Returns:
        the axes; ``ax.figure.savefig(path)`` saves the picture.

    Raises:
        HessrankError: as :func:`increase_map`.
    """
    drawn = increase_map(ranking, bits, what=what, policy=policy)
    rows, columns = drawn.values.shape
    if ax is None:
        ax = new_axes(3.6 + 0.4 * columns, max(3.4, 1.4 + 0.135 * rows))
    shades = LogNorm(drawn.low, drawn.high if drawn.high > drawn.low else 10 * drawn.low)
    visible = np.ma.masked_less_equal(drawn.values, 0)
    image = ax.imshow(visible, norm=shades, cmap="magma_r", aspect="auto", interpolation="none")
    ax.set_facecolor("white")
    for row, column in enumerate(drawn.chosen):
        if column is not None:
            outline = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1)
            outline.set_path_effects([withStroke(linewidth=2.6, foreground="white")])
            ax.add_patch(outline)
    ax.set_yticks(range(rows), [plain_label(name) for name in drawn.labels], fontsize=6.5)
    ax.set_xticks(range(columns), [str(width) for width in drawn.bits])
    ax.xaxis.set_tick_params(labeltop=rows > 40, top=rows > 40)
    ax.set_xlabel(f"bits of the {what}")
    bar = ax.figure.colorbar(image, ax=ax, extend="min", label="predicted increase of the loss", aspect=40)
    bar.ax.yaxis.set_minor_locator(FixedLocator([]))
    return ax
