"""The bits of a policy over the depth of its network.

As in :mod:`hessrank.analysis.result.plots`, a pure function computes what to draw and a thin one draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hessrank.analysis.result.ranking import Ranking
from hessrank.drawing.figures import new_axes, plain_label
from hessrank.drawing.labels import Extent, below, draw_extents
from hessrank.network.sub_networks import sub_networks
from hessrank.quant.bit_choice.strategies import Problem
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement
from hessrank.quant.policy import Policy, Resolution, place_policy_quantizers, require, resolve

Marks = tuple[tuple[int, int], ...]

# Okabe & Ito's colors; shape and filling tell the same without color.
_WEIGHT, _ACTIVATION, _HINT, _LEADER = "#D55E00", "#0072B2", "#F0E442", "#777777"
_NAME_SIZE, _LINE_HEIGHT = 6.5, 1.25  # points; of that
_AT_MOST = 1.5  # lines that a name is moved aside


@dataclass(frozen=True)
class BitMap:
    """What :func:`plot_bits` draws.

    A place is a layer's number in the order of execution.

    Attributes:
        count: how many layers there are.
        weights: place and bits of every weight, once for each layer that uses it.
        activations: place and bits of every quantizer of an activation.
        floats: places of the layers whose weight or tensor stays in float; of those inside a kernel none.
        parts: name, first and last place of every sub-network.
        names: place, bits and name of the kernels with more bits than the default; most bits first, then by rank.
        hints: place and bits of the layers to distill; the fewest bits there are where a tensor stays in float.
    """

    count: int
    weights: Marks
    activations: Marks
    floats: tuple[int, ...]
    parts: tuple[Extent, ...]
    names: tuple[tuple[int, int, str], ...]
    hints: Marks

    @property
    def widths(self) -> tuple[int, ...]:
        """The bit-widths that occur, ascending."""
        return tuple(sorted({bits for _, bits in (*self.weights, *self.activations)}))


def bit_map(policy: Policy, ranking: Ranking) -> BitMap:
    """Compute where a policy puts its bits.

    Args:
        policy: the policy, made or written by hand.
        ranking: of its network, with the record.

    Raises:
        PolicyError: the policy is for another network.
        ModelError: the ranking holds no graph.
    """
    problem = Problem.of(ranking)
    graph = problem.graph
    require(policy, graph)
    placement = place_policy_quantizers(policy, graph)
    place = {name: index for index, name in enumerate(graph.nodes)}
    weights, activations = _bits_by_layer(resolve(policy, graph, placement), placement)
    bare = (set(placement.unquantized) - set(placement.fused)) | set(placement.float_weights)
    least = min((*weights.values(), *activations.values()), default=0)
    parts = sub_networks(graph)
    return BitMap(
        len(place),
        tuple((place[name], bits) for name, bits in weights.items()),
        tuple((place[name], bits) for name, bits in activations.items()),
        tuple(sorted(place[name] for name in bare if name in place)),
        tuple((part.name or "the network", place[part.layers[0]], place[part.layers[-1]]) for part in parts),
        tuple(
            (place[name], bits, label)
            for name, bits, label in _raised(policy, problem, placement, weights, activations)
        ),
        tuple((place[name], activations.get(placement.grid_of[name] or "", least)) for name in policy.distill_config),
    )


def _bits_by_layer(settings: Resolution, placement: QuantizerPlacement) -> tuple[dict[str, int], dict[str, int]]:
    weights = {
        layer: settings.weights[weight].scheme.bits
        for weight, layers in placement.weights.items()
        for layer in layers
    }
    return weights, {layer: settings.activations[grid].scheme.bits for layer, grid in placement.activations.items()}


def _raised(
    policy: Policy,
    problem: Problem,
    placement: QuantizerPlacement,
    weights: Mapping[str, int],
    activations: Mapping[str, int],
) -> list[tuple[str, int, str]]:
    """Return the kernels with more bits than the default; most bits first.

    Each as last layer, bits and label.

    The label is the rank and the layer's name without that of its sub-network, which stands below.
    """
    found: dict[str, int] = {}
    for bits_of, default in ((weights, policy.weight_scheme().bits), (activations, policy.activation_scheme().bits)):
        for layer, bits in bits_of.items():
            if bits > default:
                last = placement.fused.get(layer, layer)
                found[last] = max(bits, found.get(last, 0))
    rank = {name: int(problem.rows[name]["rank"]) for name in found}
    raised = []
    for name in sorted(found, key=lambda name: (-found[name], rank[name])):
        own = next((f"{part.name}." for part in problem.sub_networks if part.name and name in part.layers), "")
        raised.append((name, found[name], f"{rank[name]}. {name.removeprefix(own)}"))
    return raised


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places as little as needed to lie ``gap`` apart.

    Between ``low`` and ``high`` if there is room.

    Runs that are too close are laid out evenly about their mean (the least-squares answer, by pooling).

    Args:
        places: ascending.
        gap: least distance of two.
        low: no place below.
        high: no place above; wins over ``low``.
    """
    runs: list[tuple[float, int]] = []  # mean of (place - gap × number), how many
    for number, place in enumerate(places):
        mean, size = place - gap * number, 1
        while runs and runs[-1][0] >= mean:
            before, length = runs.pop()
            mean, size = (before * length + mean * size) / (length + size), length + size
        runs.append((mean, size))
    flat = [mean for mean, size in runs for _ in range(size)]
    most = high - gap * (len(places) - 1)
    return [min(max(mean, low), most) + gap * number for number, mean in enumerate(flat)]


def with_room(
    names: Iterable[tuple[int, int, str]], gap: float, count: int
) -> list[tuple[float, tuple[int, int, str]]]:
    """Return the names that fit ``gap`` apart, and where.

    None is moved far; the first ones have precedence.

    Args:
        names: place, bits and name each.
        gap: least distance of two.
        count: how many places there are.
    """
    found: list[tuple[float, tuple[int, int, str]]] = []
    for name in names:
        tried = sorted([name, *(other for _, other in found)])
        places = [float(place) for place, _, _ in tried]
        moved = spread(places, gap, 0, count - 1)
        if moved[0] >= 0 and max(np.abs(np.subtract(moved, places))) <= _AT_MOST * gap:
            found = list(zip(moved, tried, strict=True))
    return found


def plot_bits(policy: Policy, ranking: Ranking, ax: Axes | None = None) -> Axes:
    """Draw the bits of weights and activations from a network's input to its output.

    Squares are weights, dots activations, stars layers to distill, crosses what stays in float. Kernels with
    more bits than the default are named, with their rank, as many as there is room for.

    Args:
        policy: the policy.
        ranking: of its network.
        ax: where to draw; None makes a figure. Names stand above it.

    Returns:
        the axes; ``ax.figure.savefig(path)`` saves the picture.

    Raises:
        PolicyError: the policy is for another network.
        ModelError: the ranking holds no graph.
    """
    drawn = bit_map(policy, ranking)
    if ax is None:
        ax = new_axes(10, 4.2)
    _draw_marks(ax, drawn)
    ticks = {bits: str(bits) for bits in drawn.widths}
    if drawn.floats:
        row = max(ticks, default=0) + 2
        ax.plot(drawn.floats, [row] * len(drawn.floats), "x", color="black", markersize=4, label="stays in float")
        ticks[row] = "float"
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set_ylim(min(ticks, default=0) - 1, max(ticks, default=0) + 1)
    ax.set_xlim(-1, drawn.count)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("bits")
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    _draw_names(ax, drawn)
    lowest = draw_extents(ax, drawn.parts)
    ax.set_xlabel("order of execution", loc="left", labelpad=lowest - 14)
    at = ax.transAxes + below(ax, lowest)
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0), bbox_transform=at, ncols=4, fontsize=8, frameon=False)
    return ax


def _draw_marks(ax: Axes, drawn: BitMap) -> None:
    series: tuple[tuple[Marks, dict[str, Any], str], ...] = (
        (drawn.hints, {"marker": "*", "markersize": 12, "color": _HINT, "markeredgecolor": "black"}, "to distill"),
        (drawn.weights, {"marker": "s", "markersize": 5.5, "color": _WEIGHT, "markerfacecolor": "none"}, "weight"),
        (drawn.activations, {"marker": "o", "markersize": 3.2, "color": _ACTIVATION}, "activation"),
    )
    for marks, style, label in series:
        if marks:
            places, bits = zip(*marks, strict=True)
            ax.plot(places, bits, linestyle="none", label=label, markeredgewidth=0.9, **style)


def _draw_names(ax: Axes, drawn: BitMap) -> None:
    """Write the names above the axes, upright, each with a line to its mark."""
    width = ax.get_window_extent().width / ax.figure.dpi * 72
    gap = _NAME_SIZE * _LINE_HEIGHT / width * (drawn.count + 1)
    for x, (place, bits, name) in with_room(drawn.names, gap, drawn.count):
        ax.annotate(
            plain_label(name),
            (place, bits),
            xytext=(x, 1.06),
            textcoords=ax.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=_NAME_SIZE,
            arrowprops={"arrowstyle": "-", "color": _LEADER, "linewidth": 0.5, "relpos": (0.5, 0), "shrinkB": 3},
        )
