"""What a choice of bits costs: size of the weights, BOPs, mean bits; and the same as limits for the allocator.

- Size: each quantized weight's elements × bits / 8 bytes; every other parameter 4 bytes; in MiB (2^20 bytes).
- BOPs, for one sample: MACs × weight bits × bits of the grid that the layer's first input lies on; 32 for what is not
  quantized. A product of two activations (a layer with MACs but without weight) counts the grids of its first two
  inputs. Every call of a shared weight counts.
- Mean weight bits: over the quantized weights, by elements. Mean activation bits: over the layers with a quantizer,
  by elements. 32 where nothing is quantized.

A *decision* is a weight or a grid, numbered as :func:`decisions` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hessrank.quant.allocation.allocate import Limit, PairCost
from hessrank.quant.graph import Graph
from hessrank.quant.points import Points

FLOAT_BITS = 32
MIB_BITS = 8 * 2**20


@dataclass(frozen=True)
class Bits:
    """Widths of weights and grids by name; those without one stay float."""

    weights: Mapping[str, int]
    grids: Mapping[str, int]

    @classmethod
    def of(cls, points: Points, widths: Sequence[int]) -> Bits:
        """Give each decision its width, in the order of :func:`decisions`."""
        split = len(points.weights)
        return cls(
            dict(zip(points.weights, widths[:split], strict=True)),
            dict(zip(points.grids, widths[split:], strict=True)),
        )


@dataclass(frozen=True)
class Costs:
    """What a choice of bits costs.

    Attributes:
        size_mib: of all parameters, in MiB.
        bops: for one sample.
        mean_weight_bits: over the quantized weights' elements.
        mean_act_bits: over the quantized activations' elements.
    """

    size_mib: float
    bops: float
    mean_weight_bits: float
    mean_act_bits: float


@dataclass(frozen=True)
class Product:
    """One layer that multiplies, and what it multiplies.

    Attributes:
        layer: its name.
        macs: for one sample.
        first: the decision on its weight (or, without one, on its first input); None where that is not quantized.
        second: the decision on its first input (or, without a weight, its second).
    """

    layer: str
    macs: int
    first: int | None
    second: int | None


def decisions(points: Points) -> tuple[str, ...]:
    """Return the names of all weights, then of all grids: what an allocation decides on."""
    return (*points.weights, *points.grids)


def ties(points: Points) -> list[list[int]]:
    """Return the groups of decisions that must take the same bits."""
    number = {grid: i for i, grid in enumerate(points.grids, start=len(points.weights))}
    return [[number[grid] for grid in group] for group in points.tied]


def products(graph: Graph, points: Points) -> list[Product]:
    """Return all layers with MACs."""
    weight = {name: i for i, name in enumerate(points.weights)}
    grid = {name: i for i, name in enumerate(points.grids, start=len(weight))}
    found = []
    for node in graph.nodes.values():
        read = [grid.get(points.grid_of[name] or "") for name in node.inputs[:2]]
        factors = [weight.get(node.weight), *read] if node.weight is not None else read
        first, second, *_ = *factors, None, None
        if node.macs:
            found.append(Product(node.name, node.macs, first, second))
    return found


def costs(graph: Graph, points: Points, bits: Bits, *, other_parameters: int = 0) -> Costs:
    """Return what a choice of bits costs.

    Args:
        graph: the network.
        points: where it is quantized.
        bits: the choice.
        other_parameters: number of parameters that are no layer's weight in ``graph``: biases, norms. (Weights that
            are not quantized are known from the graph.)
    """
    chosen = [bits.weights.get(name, FLOAT_BITS) for name in points.weights]
    chosen += [bits.grids.get(name, FLOAT_BITS) for name in points.grids]
    width = np.array([*chosen, FLOAT_BITS])  # the last is what None means
    elements, activations = _weight_elements(graph, points), _grid_elements(graph, points)
    unquantized = _float_elements(graph, points) + other_parameters
    split = len(points.weights)
    bops = sum(
        p.macs * int(width[_or_last(p.first)]) * int(width[_or_last(p.second)]) for p in products(graph, points)
    )
    return Costs(
        size_mib=float(elements @ width[:split] + FLOAT_BITS * unquantized) / MIB_BITS,
        bops=float(bops),
        mean_weight_bits=_mean(width[:split], elements),
        mean_act_bits=_mean(width[split:-1], activations),
    )


def size_limit(
    graph: Graph, points: Points, widths: Sequence[int], most: float = np.inf, *, other_parameters: int = 0
) -> Limit:
    """Return the limit on :attr:`Costs.size_mib`, for options that are ``widths``."""
    linear = _on_weights(points, _weight_elements(graph, points), widths) / MIB_BITS
    constant = FLOAT_BITS * (_float_elements(graph, points) + other_parameters) / MIB_BITS
    return Limit("size", most, linear, constant=constant, unit="MiB")


def bops_limit(graph: Graph, points: Points, widths: Sequence[int], most: float = np.inf) -> Limit:
    """Return the limit on :attr:`Costs.bops`, for options that are ``widths``."""
    width = np.array(widths, dtype=np.float64)
    linear, constant, pairs = np.zeros((len(decisions(points)), len(width))), 0.0, []
    for product in products(graph, points):
        first, second = product.first, product.second
        if first is not None and second is not None:
            pairs.append(PairCost(first, second, product.macs * np.outer(width, width)))
        elif first is None and second is None:
            constant += product.macs * FLOAT_BITS * FLOAT_BITS
        else:
            linear[first if second is None else second] += product.macs * FLOAT_BITS * width
    return Limit("BOPs", most, linear, tuple(pairs), constant)


def mean_bits_limits(
    graph: Graph, points: Points, widths: Sequence[int], most: float = np.inf
) -> tuple[Limit, Limit]:
    """Return the limits on the mean bits of weights and of activations, for options that are ``widths``."""
    on_weights, on_grids = _weight_elements(graph, points), _grid_elements(graph, points)
    weights = _on_weights(points, on_weights, widths) / max(on_weights.sum(), 1)
    grids = np.zeros_like(weights)
    grids[len(on_weights) :] = np.outer(on_grids, widths) / max(on_grids.sum(), 1)
    bare = [0.0 if elements.size else float(FLOAT_BITS) for elements in (on_weights, on_grids)]
    return (
        Limit("mean weight bits", most if on_weights.size else np.inf, weights, constant=bare[0]),
        Limit("mean activation bits", most if on_grids.size else np.inf, grids, constant=bare[1]),
    )


def _or_last(number: int | None) -> int:
    return -1 if number is None else number


def _mean(width: NDArray[np.int64], elements: NDArray[np.int64]) -> float:
    return float(elements @ width / elements.sum()) if elements.size else float(FLOAT_BITS)


def _on_weights(points: Points, elements: NDArray[np.int64], widths: Sequence[int]) -> NDArray[np.float64]:
    linear = np.zeros((len(decisions(points)), len(widths)))
    linear[: len(elements)] = np.outer(elements, widths)
    return linear


def _weight_elements(graph: Graph, points: Points) -> NDArray[np.int64]:
    return np.array([graph[layers[0]].weight_numel for layers in points.weights.values()], dtype=np.int64)


def _float_elements(graph: Graph, points: Points) -> int:
    """Return the elements of all weights that are not quantized."""
    known = {node.weight: node.weight_numel for node in graph.nodes.values() if node.weight is not None}
    return sum(numel for name, numel in known.items() if name not in points.weights)


def _grid_elements(graph: Graph, points: Points) -> NDArray[np.int64]:
    of = dict.fromkeys(points.grids, 0)
    for layer, grid in points.activations.items():
        of[grid] += graph[layer].numel
    return np.array(list(of.values()), dtype=np.int64)
