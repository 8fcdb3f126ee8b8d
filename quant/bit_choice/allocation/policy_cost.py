"""Count what a choice of bits costs: file size, BOPs, mean bits.

The same as limits for the allocator.

- Size: of the ONNX file, in MiB (2^20 bytes). A quantized weight takes 4, 8 or 16 bits an element, the narrowest that
  hold its bits, and 32 bits for each scale and one more element for each zero point; everything else that layers read
  (biases, norms, weights that stay in float) is stored as it is. A folded batch norm leaves a bias. The graph itself
  is estimated from the numbers of layers and quantizers and the lengths of their names.
- BOPs, for one sample: MACs × weight bits × bits of the grid that the layer's first input lies on; 32 for what is not
  quantized. A product of two activations (a layer with MACs but without weight) counts the grids of its first two
  inputs, or one grid twice. Every call of a shared weight counts.
- Mean weight bits: over all weights, by elements, those that stay in float at 32. Mean activation bits: over the
  layers with a quantizer, by elements; 32 where nothing is quantized.

A *decision* is a weight or a grid, numbered as :func:`decisions` lists them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hessrank.quant.bit_choice.allocation.allocate import Limit, PairCost
from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement, find_folded_norms
from hessrank.quant.scheme import FLOAT_BITS, stored_bits
from hessrank.renamed import renamed_names

MIB_BITS = 8 * 2**20
# Bytes of the graph in an exported file: for each layer, each quantizer of an activation and of a weight, and each
# letter of the quantizers' names, which are written several times. Measured on seven networks.
_LAYER, _ACTIVATION, _WEIGHT, _LETTER = 80, 480, 280, 8


@dataclass(frozen=True)
class Bits:
    """Widths of weights and grids by name; those without one stay float.

    Attributes:
        weights: bits of weights.
        grids: bits of grids.
        one_scale: the weights with one scale for the whole tensor instead of one for each output channel.
    """

    weights: Mapping[str, int]
    grids: Mapping[str, int]
    one_scale: Collection[str] = ()

    @classmethod
    def of(cls, placement: QuantizerPlacement, widths: Sequence[int]) -> Bits:
        """Give each decision its width, in the order of :func:`decisions`."""
        split = len(placement.weights)
        return cls(
            dict(zip(placement.weights, widths[:split], strict=True)),
            dict(zip(placement.grids, widths[split:], strict=True)),
        )


@dataclass(frozen=True)
class PolicyCost:
    """What a choice of bits costs.

    Attributes:
        size_mib: of the exported file, in MiB; of a network with nothing below 32 bits, of its tensors.
        bops: for one sample.
        mean_weight_bits: over the elements of all weights, those in float at 32.
        mean_act_bits: over the quantized activations' elements.
        float_size: share of the size that weights in float take.
        float_bops: share of the BOPs in which a factor is in float.
        quantized_weights: share of the weights' elements that are quantized.
        mean_quantized_weight_bits: over these elements alone.
    """

    size_mib: float
    bops: float
    mean_weight_bits: float
    mean_act_bits: float
    float_size: float
    float_bops: float
    quantized_weights: float
    mean_quantized_weight_bits: float


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


def decisions(placement: QuantizerPlacement) -> tuple[str, ...]:
    """Return the names of all weights, then of all grids.

    That is what an allocation decides on.
    """
    return (*placement.weights, *placement.grids)


def ties(placement: QuantizerPlacement) -> list[list[int]]:
    """Return the groups of decisions that must take the same bits."""
    number = {grid: i for i, grid in enumerate(placement.grids, start=len(placement.weights))}
    return [[number[grid] for grid in group] for group in placement.tied]


def products(graph: Graph, placement: QuantizerPlacement) -> list[Product]:
    """Return all layers with MACs."""
    weight = {name: i for i, name in enumerate(placement.weights)}
    grid = {name: i for i, name in enumerate(placement.grids, start=len(weight))}
    found = []
    for node in graph.nodes.values():
        read = [grid.get(placement.grid_of[name] or "") for name in node.inputs[:2]]
        if node.weight is not None or node.float_weights:
            factors = [weight.get(node.weight or ""), *read]
        else:  # that it reads one tensor twice is only known of a graph that says what else it reads
            twice = len(read) == 1 and graph.stored is not None and not node.float_inputs
            factors = read * 2 if twice else read
        first, second, *_ = *factors, None, None
        if node.macs:
            found.append(Product(node.name, node.macs, first, second))
    return found


def count_costs(graph: Graph, placement: QuantizerPlacement, bits: Bits, *, other_parameters: int = 0) -> PolicyCost:
    """Return what a choice of bits costs.

    Args:
        graph: the network.
        placement: where it is quantized.
        bits: the choice.
        other_parameters: number of parameters that ``graph`` does not know of, 4 bytes each: in older rankings
            biases and norms.
    """
    chosen = [bits.weights.get(name, FLOAT_BITS) for name in placement.weights]
    chosen += [bits.grids.get(name, FLOAT_BITS) for name in placement.grids]
    width = np.array([*chosen, FLOAT_BITS])  # the last is what None means
    elements, activations = _weight_elements(graph, placement), _grid_elements(graph, placement)
    split = len(placement.weights)
    scales = np.where([name in bits.one_scale for name in placement.weights], 1, _channels(graph, placement))
    quantized = sum(_stored(n, c, int(w)) for n, c, w in zip(elements, scales, width[:split], strict=True))
    floating = _float_elements(graph, placement)
    size = quantized + FLOAT_BITS * other_parameters + _stored_float(graph, placement)
    size += _graph_bits(graph, placement) if min(width) < FLOAT_BITS else 0
    bops, in_float = 0, 0
    for product in products(graph, placement):
        factors = [int(width[-1 if n is None else n]) for n in (product.first, product.second)]
        bops += product.macs * factors[0] * factors[1]
        in_float += product.macs * factors[0] * factors[1] * (FLOAT_BITS in factors)
    all_weights = int(elements.sum()) + floating
    return PolicyCost(
        size_mib=float(size) / MIB_BITS,
        bops=float(bops),
        mean_weight_bits=_mean([*width[:split], FLOAT_BITS], [*elements, floating]),
        mean_act_bits=_mean(width[split:-1], activations),
        float_size=FLOAT_BITS * floating / size if size else 0.0,
        float_bops=in_float / bops if bops else 0.0,
        quantized_weights=float(elements.sum()) / all_weights if all_weights else 0.0,
        mean_quantized_weight_bits=_mean(width[:split], elements),
    )


def size_limit(
    graph: Graph,
    placement: QuantizerPlacement,
    widths: Sequence[int],
    most: float = np.inf,
    *,
    other_parameters: int = 0,
) -> Limit:
    """Return the limit on :attr:`PolicyCost.size_mib`.

    For options that are ``widths`` and one scale a channel.
    """
    pairs = zip(_weight_elements(graph, placement), _channels(graph, placement), strict=True)
    linear = np.zeros((len(decisions(placement)), len(widths)))
    for row, (numel, channels) in zip(linear, pairs, strict=False):
        row[:] = [_stored(numel, channels, width) / MIB_BITS for width in widths]
    constant = FLOAT_BITS * other_parameters + _stored_float(graph, placement) + _graph_bits(graph, placement)
    return Limit("size", most, linear, constant=constant / MIB_BITS, unit="MiB")


def bops_limit(graph: Graph, placement: QuantizerPlacement, widths: Sequence[int], most: float = np.inf) -> Limit:
    """Return the limit on :attr:`PolicyCost.bops`, for options that are ``widths``."""
    width = np.array(widths, dtype=np.float64)
    linear, constant, pairs = np.zeros((len(decisions(placement)), len(width))), 0.0, []
    for product in products(graph, placement):
        first, second = product.first, product.second
        if first is not None and second is not None:
            pairs.append(PairCost(first, second, product.macs * np.outer(width, width)))
        elif first is None and second is None:
            constant += product.macs * FLOAT_BITS * FLOAT_BITS
        else:
            linear[first if second is None else second] += product.macs * FLOAT_BITS * width
    return Limit("BOPs", most, linear, tuple(pairs), constant)


def mean_bits_limits(
    graph: Graph, placement: QuantizerPlacement, widths: Sequence[int], most: float = np.inf
) -> tuple[Limit, Limit]:
    """Return the limits on the mean bits of weights and of activations.

    For options that are ``widths``.
    """
    on_weights, on_grids = _weight_elements(graph, placement), _grid_elements(graph, placement)
    floating = _float_elements(graph, placement)
    weights = np.zeros((len(decisions(placement)), len(widths)))
    grids = np.zeros_like(weights)
    weights[: len(on_weights)] = np.outer(on_weights, widths) / max(on_weights.sum() + floating, 1)
    grids[len(on_weights) :] = np.outer(on_grids, widths) / max(on_grids.sum(), 1)
    bare = FLOAT_BITS * floating / (on_weights.sum() + floating) if on_weights.size or floating else float(FLOAT_BITS)
    return (
        Limit("mean weight bits", most if on_weights.size else np.inf, weights, constant=float(bare)),
        Limit(
            "mean activation bits",
            most if on_grids.size else np.inf,
            grids,
            constant=0.0 if on_grids.size else float(FLOAT_BITS),
        ),
    )


def _mean(width: Sequence[int] | NDArray[np.int64], elements: Sequence[int] | NDArray[np.int64]) -> float:
    total = np.sum(elements)
    return float(np.dot(elements, width) / total) if total else float(FLOAT_BITS)


def _stored(numel: int, scales: int, bits: int) -> int:
    """Return the bits that a weight, its scales and zero points take in the file."""
    width = stored_bits(bits)
    return int(numel) * width + (0 if bits == FLOAT_BITS else int(scales) * (FLOAT_BITS + width))


def _weight_elements(graph: Graph, placement: QuantizerPlacement) -> NDArray[np.int64]:
    return np.array([graph[layers[0]].weight_numel for layers in placement.weights.values()], dtype=np.int64)


def _channels(graph: Graph, placement: QuantizerPlacement) -> NDArray[np.int64]:
    return np.array([graph[layers[0]].channels for layers in placement.weights.values()], dtype=np.int64)


def _float_elements(graph: Graph, placement: QuantizerPlacement) -> int:
    """Return the elements of all weights that are not quantized."""
    known = {node.weight: node.weight_numel for node in graph.nodes.values() if node.weight is not None}
    stored = graph.stored or {}
    others = {name: 8 * stored[name] // FLOAT_BITS for n in graph.nodes.values() for name in n.float_weights}
    return sum(numel for name, numel in (known | others).items() if name not in placement.weights)


def _stored_float(graph: Graph, placement: QuantizerPlacement) -> int:
    """Return the bits of all that the file stores in float."""
    known = {node.weight: node.weight_numel for node in graph.nodes.values() if node.weight is not None}
    bits = FLOAT_BITS * sum(numel for name, numel in known.items() if name not in placement.weights)
    stored = dict(graph.stored or {})
    for norm, layer in find_folded_norms(graph, placement).items():
        for name in graph[norm].reads:
            stored.pop(name, None)
        if not graph[layer].reads:  # it gets a bias
            bits += FLOAT_BITS * graph[layer].shape[0]
    return bits + 8 * sum(stored.values())


def _graph_bits(graph: Graph, placement: QuantizerPlacement) -> int:
    """Estimate how many bits of the file are not tensors.

    0 for a graph that does not know its tensors either.
    """
    if graph.stored is None:
        return 0
    letters = sum(map(len, (*placement.activations, *placement.weights)))
    quantizers = _ACTIVATION * len(placement.activations) + _WEIGHT * len(placement.weights)
    return 8 * (_LAYER * len(graph.nodes) + quantizers + _LETTER * letters)


def _grid_elements(graph: Graph, placement: QuantizerPlacement) -> NDArray[np.int64]:
    of = dict.fromkeys(placement.grids, 0)
    for layer, grid in placement.activations.items():
        of[grid] += graph[layer].numel
    return np.array(list(of.values()), dtype=np.int64)


if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(__name__, globals(), Costs="PolicyCost", costs="count_costs")
