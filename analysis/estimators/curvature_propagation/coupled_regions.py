"""Finds the regions of a network that one layer enters and one layer leaves.

A product of two activations that depend on one earlier layer (attention, a gate) is curved in both together: its
Hessian has a block that couples its two inputs. That block matters to the layer where both paths begin and to all
before it, and to no layer on the paths. A region is all that lies between: seen from outside it is one curved
function of the layer it begins at; for its inner layers there is no coupling.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

Wiring = Mapping[int, Sequence[int]]
"""The layers that each layer reads, by their place in the order of execution."""

_START, _END = -1, -2


@dataclass(frozen=True)
class Region:
    """Some layers, and the regions inside them that are treated as one layer.

    Attributes:
        layers: the layers, but for those inside an inner region, in the order of execution.
        exit: the one layer outside that reads them; None for the whole.
        coupled: those of ``layers`` (or the exit) whose inputs are coupled: their Hessian counts as a whole. All
            others count block by block, each input for itself.
        inner: the regions that end at one of ``layers`` (or at the exit).
    """

    layers: tuple[int, ...]
    exit: int | None
    coupled: frozenset[int]
    inner: tuple[Region, ...]

    def nested(self) -> Iterator[tuple[int, Region]]:
        """Yield this region and all within it, each with its depth, 0 for this one."""
        yield 0, self
        for region in self.inner:
            yield from ((depth + 1, one) for depth, one in region.nested())


@dataclass
class _Level:
    """The layers of one region while its inner regions are being found."""

    inputs: dict[int, list[int]]
    curved: set[int]
    ends: set[int]  # read from outside
    hidden: dict[int, set[int]] = field(default_factory=dict)  # by the exit they lie behind

    def graph(self) -> nx.DiGraph:
        """Return the layers as a graph from one start to one end."""
        graph = nx.DiGraph()
        graph.add_edges_from((source, layer) for layer, sources in self.inputs.items() for source in sources)
        graph.add_edges_from((_START, layer) for layer, sources in self.inputs.items() if not sources)
        graph.add_edges_from((layer, _END) for layer in self.ends)
        return graph

    def close(self, inside: set[int], exit_layer: int) -> None:
        """Hide the layers ``inside``; ``exit_layer`` then reads what they read."""
        gone = inside | {exit_layer}
        self.inputs[exit_layer] = sorted({s for layer in gone for s in self.inputs[layer]} - inside)
        self.curved.add(exit_layer)
        self.hidden[exit_layer] = inside.union(*(self.hidden.pop(layer, set()) for layer in gone))
        for layer in inside:
            del self.inputs[layer]


def find_regions(layers: Collection[int], inputs: Wiring, curved: Collection[int], ends: Collection[int]) -> Region:
    """Find the regions that make the inputs of all layers in a part uncoupled.

    Args:
        layers: the part.
        inputs: what each layer reads; layers outside the part are left out of account.
        curved: the layers that are no piecewise linear function of what they read.
        ends: the layers that something outside the part reads.
    """
    return _build_region(set(layers), None, inputs, curved, set(ends))


def _build_region(
    layers: set[int], exit_layer: int | None, inputs: Wiring, curved: Collection[int], ends: set[int]
) -> Region:
    members = layers if exit_layer is None else layers | {exit_layer}
    level = _Level(
        {layer: [s for s in inputs[layer] if s in layers] for layer in members}, members & set(curved), ends
    )
    while (found := _find_next_region(level)) is not None:
        level.close(*found)
    inner = tuple(
        _build_region(hidden, behind, inputs, curved, {behind}) for behind, hidden in sorted(level.hidden.items())
    )
    return Region(
        tuple(sorted(level.inputs.keys() - {exit_layer})), exit_layer, frozenset(_find_coupled(level)), inner
    )


def _find_coupled(level: _Level) -> list[int]:
    """Return the curved layers whose inputs are coupled.

    Two inputs are coupled if they depend on a common layer, or one on the other.
    """
    above: dict[int, set[int]] = {}
    for layer in sorted(level.inputs):
        above[layer] = {layer}.union(*(above[source] for source in level.inputs[layer]))
    found = []
    for layer in sorted(level.curved & level.inputs.keys()):
        seen: set[int] = set()
        for source in level.inputs[layer]:
            if seen & above[source]:
                found.append(layer)
                break
            seen |= above[source]
    return found


def _find_next_region(level: _Level) -> tuple[set[int], int] | None:
    """Return the inside and the exit of a region that uncouples a layer's inputs.

    Return None if no region does.
    """
    coupled = _find_coupled(level)
    if not coupled:
        return None
    graph = level.graph()
    before = nx.immediate_dominators(graph, _START)
    behind = nx.immediate_dominators(graph.reverse(copy=False), _END)
    for layer in coupled:
        begin = before.get(layer, _START)
        for end in (layer, behind.get(begin, _END)):
            if begin != _START and end != _END:
                inside = (nx.descendants(graph, begin) & nx.ancestors(graph, end)) - {begin, end}
                within = inside | {end}
                if inside and all(within.issuperset(graph.successors(layer)) for layer in inside):
                    return inside, end
    return None
