"""Find the units that a strategy chooses among.

One integer kernel each, its weight and the tensor it leaves behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hessrank.quant.layer_graph.graph import Graph
from hessrank.quant.layer_graph.layer_kinds import is_join, passes_grid_on
from hessrank.quant.layer_graph.quantizer_placement import QuantizerPlacement


@dataclass(frozen=True)
class IntegerKernel:
    """What an integer kernel computes in one go.

    A convolution with its batch norm and activation, an addition, an input.

    Attributes:
        name: its last layer, whose tensor leaves the kernel.
        layers: all its layers, in the order of execution.
        weight: name of its weight; None without, or if that stays in float.
        grid: the grid that its tensor lies on; None if it stays in float.
        sources: names of the kernels that it reads, seen through reshuffles and concatenations.
    """

    name: str
    layers: tuple[str, ...]
    weight: str | None
    grid: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class IntegerKernels:
    """All kernels of a network by name, in the order of execution.

    Attributes:
        by_name: the kernels.
        readers: names of the kernels that read each kernel.
    """

    by_name: Mapping[str, IntegerKernel]
    readers: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, graph: Graph, placement: QuantizerPlacement) -> IntegerKernels:
        """Find the kernels of a network."""
        last = {name: placement.fused.get(name, name) for name in graph.nodes}
        layers: dict[str, list[str]] = {}
        for node in graph.nodes.values():
            if not (passes_grid_on(node) or is_join(node)):
                layers.setdefault(last[node.name], []).append(node.name)
        made_by = _makers(graph, last)
        weight_of = {layer: weight for weight, users in placement.weights.items() for layer in users}
        kernels = {}
        for name, members in layers.items():
            reads = dict.fromkeys(maker for m in members for i in graph[m].inputs for maker in made_by[i])
            weight = next((weight_of[m] for m in members if m in weight_of), None)
            sources = tuple(source for source in reads if source != name)
            kernels[name] = IntegerKernel(name, tuple(members), weight, placement.grid_of[name], sources)
        readers: dict[str, list[str]] = {name: [] for name in kernels}
        for kernel in kernels.values():
            for source in kernel.sources:
                readers[source].append(kernel.name)
        return cls(kernels, {name: tuple(found) for name, found in readers.items()})

    def holding(self, layer: str) -> str:
        """Return the name of the kernel that a layer is in."""
        return next(kernel.name for kernel in self.by_name.values() if layer in kernel.layers)


def _makers(graph: Graph, last: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return which kernels made each layer's tensor.

    Several for a concatenation.
    """
    made_by: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes.values():
        if passes_grid_on(node) or is_join(node):
            made_by[node.name] = tuple(dict.fromkeys(maker for i in node.inputs for maker in made_by[i]))
        else:
            made_by[node.name] = (last[node.name],)
    return made_by
