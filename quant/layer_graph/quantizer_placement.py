"""Find where quantizers belong, and which of them must agree.

A convolution, a linear layer or an addition is one kernel together with the batch norm and the piecewise
linear activation behind it, so there is one quantizer after the last of them. Reshuffles and max pooling
hand their input's grid on. The inputs of a concatenation share one grid (its result then needs none of its
own); the inputs of an addition share their bits. What a hand-written normalization divides by stays in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hessrank.quant.layer_graph.graph import Graph, Node
from hessrank.quant.layer_graph.layer_kinds import (
    BATCH_NORMS,
    FOLDED_NORMS,
    FUSED_ACTIVATIONS,
    KERNELS,
    is_addition,
    is_join,
    is_singular_in,
    passes_grid_on,
    takes_activation_in,
)
from hessrank.renamed import renamed_names

IN_KERNEL = "computed in one kernel with "
"""How the reason begins why a layer in the middle of a kernel has no quantizer: nothing is missing there."""

_EXCLUDED = "the policy excludes it"
_SHARED = "the policy excludes a layer that shares it"
_PRECISE = "only divided by, or taken a root, logarithm or power of: rounding it to 0 would break that"
_INSIDE = "inside a module that torch.fx does not look into"
_OPAQUE = "used inside the module, which cannot be looked into"


@dataclass(frozen=True)
class QuantizerPlacement:
    """All places where something is quantized.

    Attributes:
        activations: for each layer with a quantizer behind it, the grid it uses; layers with the same grid
            share one quantizer. A grid is named after its first layer.
        grid_of: for every layer, the grid that its tensor lies on; None where it is not quantized.
        tied: groups of grids that must have the same bits (two or more each).
        fused: layers inside a kernel, and the last layer of that kernel.
        weights: names of the weights, and the layers that multiply with each.
        unquantized: the layers without a grid, and why.
        float_weights: the layers and modules whose weights stay as they are, and why.
        in_float: all that stays in float where an integer kernel would want integers, each once and by what it is
            (``weight of fc``, ``activation of add``, ``input sin of fc``), and why.
    """

    activations: Mapping[str, str]
    grid_of: Mapping[str, str | None]
    tied: tuple[tuple[str, ...], ...]
    fused: Mapping[str, str]
    weights: Mapping[str, tuple[str, ...]]
    unquantized: Mapping[str, str]
    float_weights: Mapping[str, str]
    in_float: Mapping[str, str]

    @property
    def grids(self) -> tuple[str, ...]:
        """Names of all grids, in the order of execution."""
        return tuple(dict.fromkeys(self.activations.values()))

    def members(self, grid: str) -> tuple[str, ...]:
        """Return the layers whose quantizers share ``grid``."""
        return tuple(layer for layer, name in self.activations.items() if name == grid)


def place_quantizers(
    graph: Graph, *, named: Collection[str] = (), excluded: Collection[str] = ()
) -> QuantizerPlacement:
    """Find out where a network's quantizers belong.

    Args:
        graph: the network.
        named: layers that the policy gives activation bits; inside a kernel, or behind a reshuffle, these get a
            quantizer too.
        excluded: layers whose tensors and weights stay as they are.
    """
    fused = _fused(graph)
    precise = _precise(graph, fused).difference(named)
    reasons: dict[str, str] = {}
    source: dict[str, str | None] = {}  # whose quantizer's values a layer's tensor holds; a join is its own source
    for node in graph.nodes.values():
        source[node.name], why = _source(node, source, fused, named, excluded, precise)
        if why:
            reasons[node.name] = why
    own = [name for name, found in source.items() if found == name and not is_join(graph[name])]
    sets = _Sets(graph.nodes)
    for node in graph.nodes.values():
        if is_join(node) and source[node.name] == node.name:
            sets.join(s for s in (node.name, *(source[i] for i in node.inputs)) if s is not None)
    grid = {sets.root(name): name for name in reversed(own)}  # named after its first layer
    grid_of = {name: None if found is None else grid[sets.root(found)] for name, found in source.items()}
    weights = _weights(graph, excluded)
    floating = _float_weights(graph, weights, excluded)
    return QuantizerPlacement(
        {name: grid[sets.root(name)] for name in own},
        grid_of,
        _ties(graph, grid_of),
        fused,
        weights,
        reasons,
        floating,
        _in_float(graph, reasons, floating, excluded),
    )


def _source(
    node: Node,
    source: Mapping[str, str | None],
    fused: Mapping[str, str],
    named: Collection[str],
    excluded: Collection[str],
    precise: Collection[str],
) -> tuple[str | None, str]:
    """Return whose quantizer's grid a layer's tensor lies on, or None and why."""
    bare = [name for name in node.inputs if is_join(node) and source[name] is None]
    reasons = {
        _EXCLUDED: node.name in excluded,
        _INSIDE: node.inside,
        f"{IN_KERNEL}{fused.get(node.name)}": node.name in fused and node.name not in named,
        "holds masked scores, which no grid does": node.masked,
        _PRECISE: node.name in precise and not passes_grid_on(node),
        f"joins {', '.join(bare)}, which is not quantized": bool(bare),
    }
    if why := next((why for why, holds in reasons.items() if holds), ""):
        return None, why
    if passes_grid_on(node) and node.name not in named:
        found = source[node.inputs[0]]
        return found, "" if found else f"hands on {node.inputs[0]}, which is not quantized"
    return node.name, ""


def _fused(graph: Graph) -> dict[str, str]:
    """Return the layers whose result never leaves a kernel.

    With the kernel's last layer.
    """
    following: dict[str, str] = {}
    for node in graph.nodes.values():
        readers = graph.consumers[node.name]
        if node.name in graph.outputs or len(readers) != 1 or not takes_activation_in(node):
            continue
        reader = graph[readers[0]]
        folds = node.weight is not None and reader.kind in BATCH_NORMS
        if len(reader.inputs) == 1 and (folds or reader.kind in FUSED_ACTIVATIONS):
            following[node.name] = reader.name
    found = {}
    for name, last in following.items():
        while last in following:
            last = following[last]  # noqa: PLW2901 - on to the kernel's end
        found[name] = last
    return found


def _precise(graph: Graph, fused: Mapping[str, str]) -> set[str]:
    """Return the layers that must not be rounded to 0.

    Their results serve nothing but to be divided by, or to be taken a root or logarithm of.
    """
    kernels = {fused.get(n.name, n.name) for n in graph.nodes.values() if n.weight is not None or n.kind in KERNELS}
    found: set[str] = set()
    for node in reversed(tuple(graph.nodes.values())):
        readers = graph.consumers[node.name]
        if node.kind == "input" or node.name in kernels or node.name in graph.outputs or not readers:
            continue
        if all(name in found or is_singular_in(graph[name], node.name) for name in readers):
            found.add(node.name)
    return found


def _ties(graph: Graph, grid_of: Mapping[str, str | None]) -> tuple[tuple[str, ...], ...]:
    """Return the grids that additions tie to each other."""
    sets = _Sets([grid for grid in grid_of.values() if grid is not None])
    for node in graph.nodes.values():
        if is_addition(node):
            sets.join(grid for name in node.inputs if (grid := grid_of[name]) is not None)
    groups: dict[str, dict[str, None]] = {}
    for grid in grid_of.values():
        if grid is not None:
            groups.setdefault(sets.root(grid), {})[grid] = None
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _weights(graph: Graph, excluded: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the weights to quantize, and the layers that multiply with each."""
    users: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        if node.weight is not None and not node.inside:
            users.setdefault(node.weight, []).append(node.name)
    return {weight: tuple(layers) for weight, layers in users.items() if not set(layers) & set(excluded)}


def _float_weights(graph: Graph, weights: Mapping[str, tuple[str, ...]], excluded: Collection[str]) -> dict[str, str]:
    """Return why weights stay in float, by the module that holds them or by the layer."""
    reasons = {}
    for node in graph.nodes.values():
        if node.weight is not None and node.weight not in weights:
            reasons[node.name] = _INSIDE if node.inside else _EXCLUDED if node.name in excluded else _SHARED
        elif node.float_weights:
            reasons[node.float_owner or node.name] = node.why_float
        elif node.weight is None and node.kind in KERNELS and graph.stored is None:
            reasons[node.name] = f"{node.kind} is called as a function: make it a module to quantize its weight"
    return reasons | (dict.fromkeys(graph.opaque, _OPAQUE) if graph.stored is None else {})


def _each_once(graph: Graph, floating: Mapping[str, str]) -> list[str]:
    """Return the layers and modules whose weights stay in float.

    Of several with the same weights, the first.
    """
    held: dict[str, set[str]] = {}
    for node in graph.nodes.values():
        if node.weight is not None and node.name in floating:
            held.setdefault(node.name, set()).add(node.weight)
        held.setdefault(node.float_owner or node.name, set()).update(node.float_weights)
    found, seen = [], set[str]()
    for name in floating:
        own = held.get(name, set())
        if not own or own - seen:
            found.append(name)
        seen |= own
    return found


def _in_float(
    graph: Graph, reasons: Mapping[str, str], floating: Mapping[str, str], excluded: Collection[str]
) -> dict[str, str]:
    """Return what stays in float and why.

    Activations, weights, and inputs of kernels that are no layer's tensor.
    """
    nodes = [node for node in graph.nodes.values() if node.name not in excluded]
    return {
        **{f"activation of {name}": why for name, why in reasons.items() if not why.startswith(IN_KERNEL)},
        **{f"weight of {name}": floating[name] for name in _each_once(graph, floating)},
        **{f"input {one} of {node.name}": why for node in nodes for one, why in node.float_inputs.items()},
    }


def find_folded_norms(graph: Graph, placement: QuantizerPlacement) -> dict[str, str]:
    """Return the batch norms that preparing folds into a weight.

    With the layers of the weights.

    A norm with running statistics that is called once, directly behind the only call of a weight, with no quantizer
    in between; a linear layer's channels must lie along dimension 1, where the norm has them.
    """
    readers = Counter(name for node in graph.nodes.values() for name in node.reads)
    found = {}
    for layers in placement.weights.values():
        layer = graph[layers[0]]
        if len(layers) > 1 or layer.name not in placement.fused or layer.name in placement.activations:
            continue
        norm = graph[graph.consumers[layer.name][0]]
        knows = any(name.endswith("running_var") for name in norm.reads)
        once = all(readers[name] == 1 for name in norm.reads)
        if norm.kind in FOLDED_NORMS and knows and once and not (layer.kind == "Linear" and len(layer.shape) > 1):
            found[norm.name] = layer.name
    return found


class _Sets:
    """Disjoint sets of names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, names: Iterable[str]) -> None:
        roots = [self.root(name) for name in names]
        for other in roots[1:]:
            self._parent[self.root(other)] = self.root(roots[0])


if not TYPE_CHECKING:  # to which every name would then be known
    __getattr__ = renamed_names(
        __name__,
        globals(),
        Points="QuantizerPlacement",
        quantization_points="place_quantizers",
        folded_norms="find_folded_norms",
    )
